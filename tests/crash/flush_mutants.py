"""Stores that forget a flush: each must be found by a power cut, or the laboratory proves nothing."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cas.packs
import index.segments
from index.fileops import FileOps

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Mutant:
    """`install` breaks this process, for good."""

    name: str
    install: Callable[[], None]


def swap(target: Any, name: str, value: Any) -> None:
    """Put `value` there. A mutant whose target has another name or other parameters now would prove nothing."""
    assert hasattr(target, name), f"{target} has no {name} any more"
    now, then = (list(inspect.signature(f).parameters.values()) for f in (value, getattr(target, name)))
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in now)
    assert takes_all or len(now) == len(then), f"{name} of {target} has other parameters now: {then}"
    setattr(target, name, value)


def _no_pack_sync() -> None:
    """A pack's bytes are published without having been flushed."""
    swap(cas.packs, "flush_data", lambda fd: None)


def _no_pack_folder_sync() -> None:
    """The names of new packs are never flushed."""
    swap(cas.packs, "sync_directory", lambda directory: None)


def _no_journal_sync() -> None:
    """A commit is answered when its record is written and LMDB has it, both without a flush of their last step."""
    swap(index.segments.SegmentWriter, "_sync", lambda self, fd, *, whole=False: None)


def _no_segment_folder_sync() -> None:
    """The name of a new journal segment is never flushed."""
    swap(index.segments.SegmentWriter, "_sync_directory", lambda self: None)


def _no_environment_sync() -> None:
    """Segments are removed though LMDB may still need them."""
    swap(FileOps, "sync_environment", lambda self, env: None)


_ALL = (
    Mutant("no-pack-sync", _no_pack_sync),
    Mutant("no-pack-folder-sync", _no_pack_folder_sync),
    Mutant("no-journal-sync", _no_journal_sync),
    Mutant("no-segment-folder-sync", _no_segment_folder_sync),
    Mutant("no-environment-sync", _no_environment_sync),
)
BY_NAME = {mutant.name: mutant for mutant in _ALL}
