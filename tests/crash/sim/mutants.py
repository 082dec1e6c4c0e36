"""Stores that break a rule: the simulation must find each within some seeds, or it proves nothing.

Beside the forgotten flushes: the rules of collection (`cas.gc`) and of adoption. The check that a pack relied upon still
has a row is no rule of its own: it can only fail where the waiting is broken.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import cas.pending
import vaultaire.collection
import vaultaire.runfile
from tests.crash import flush_mutants
from tests.crash.flush_mutants import Mutant, swap
from vaultaire.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


def _skip_wait_in(caller: str) -> None:
    collector: Any = vaultaire.collection.Collector
    wait = collector._wait

    def mutated(self: Any, epoch: int) -> Iterator[Any]:
        return iter(()) if sys._getframe(1).f_code.co_name == caller else wait(self, epoch)

    swap(collector, "_wait", mutated)


def _no_wait_before_mark() -> None:
    """Uploads that rely on condemned packs may still be running when the mark is made."""
    _skip_wait_in("_empty")


def _early_unlink() -> None:
    """Packs are removed though requests may still read them."""
    _skip_wait_in("_remove")


def _condemned_are_known() -> None:
    """Uploads go on relying on condemned packs."""
    swap(cas.pending.CondemnedCache, "get", lambda self, reader: frozenset())


def _unmarked() -> None:
    """Nothing counts as needed: what is live is dropped."""
    collector: Any = vaultaire.collection.Collector

    def marked(self: Any) -> Iterator[Any]:
        return frozenset()
        yield

    swap(collector, "_marked", marked)


def _lost_run_files() -> None:
    """Only who has left a run file is adopted."""
    swap(Store, "name_lost_writers", lambda self: None)


def _unsynced_run_files() -> None:
    """A power cut may take a run file, and leave a pack of its owner that never got a row."""
    swap(vaultaire.runfile, "sync_directory", lambda directory: None)


_ALL = (
    *flush_mutants.BY_NAME.values(),
    Mutant("no-wait-before-mark", _no_wait_before_mark),
    Mutant("early-unlink", _early_unlink),
    Mutant("condemned-are-known", _condemned_are_known),
    Mutant("unmarked", _unmarked),
    Mutant("lost-run-files", _lost_run_files),
    Mutant("unsynced-run-files", _unsynced_run_files),
)
BY_NAME = {mutant.name: mutant for mutant in _ALL}
