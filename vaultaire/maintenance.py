"""The maintenance process: `python -m vaultaire.maintenance`, started by the supervisor only.

It does what no request should wait for, as a list of chores, each called now and then for one short slice of work: it
seals the packs that dead processes left open, frees the reader slots they held, writes a checkpoint when the journal
has grown enough, carries out lifecycle rules, collects what is not needed any more, gives sealed packs their parity, mends and scrubs
packs, and forgets old client tokens. The server works without it; the journal grows, nothing expires, no space comes
back, and damage stays.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from cas.errors import CasError, NoSpace
from index.errors import NamesError
from index.kv import KvError, MapFull, StorePoisoned
from index.poison import forget_poison
from index.tokens import forget_tokens
from vaultaire.archiving import DAY_SECONDS, Archive
from vaultaire.audit_log import note_expired
from vaultaire.child import EX_CONFIG, EX_TEMPFAIL, take_orders
from vaultaire.clock_watch import ClockWatch
from vaultaire.collection import Collector
from vaultaire.config import ServeConfig
from vaultaire.effort import collection_effort
from vaultaire.errors import StoreError
from vaultaire.history import History
from vaultaire.lifecycle import Lifecycle
from vaultaire.metrics.slots import Slot
from vaultaire.parity import Parity, note_damage
from vaultaire.scrub import Scrub
from vaultaire.stale_uploads import StaleUploads
from vaultaire.store import Store
from vaultaire.version_expiry import IndexVersions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUND_SECONDS: Final = 1.0
LIFECYCLE_SECONDS: Final = 0.2  # of each round: a pass leaves the disk and the write lock to the requests
COLLECTION_SECONDS: Final = 0.4  # likewise; what is copied in it is limited besides
SCRUB_SECONDS: Final = 0.3  # of each round; its own rate is mostly far below what that allows
REMINDER_SECONDS: Final = 60.0
TOKENS_SECONDS: Final = 3600.0  # between two looks
STEADY_SECONDS: Final = 3600.0  # a store that ran so long may fail once more before it becomes read-only
TOKEN_AGE_SECONDS: Final = 24 * 3600.0  # clients repeat a request within seconds

log = logging.getLogger("vaultaire.maintenance")


@dataclass(slots=True)
class Chore:
    """Work that is never finished. `run` does one slice of it, well under a second, and is safe to interrupt."""

    name: str  # for the log
    run: Callable[[], object]
    every: float = ROUND_SECONDS  # from the beginning of one slice to that of the next
    due: float = 0.0


def chores(store: Store, config: ServeConfig | None = None) -> list[Chore]:
    """All of them, in the order in which one round does them."""
    config = config or ServeConfig(store.directory)
    clock = ClockWatch()
    on_expired = partial(note_expired, store.kv)
    lifecycle = Lifecycle(store.kv, store.writer, IndexVersions(), on_expired=on_expired)
    archive_after = config.archive_after_days * DAY_SECONDS
    collector = Collector(
        store,
        bytes_per_second=config.collection_bytes_per_second,
        effort=collection_effort,
        archive=Archive(store, after_seconds=archive_after) if archive_after else None,
    )
    store.before_close.append(collector.close)
    parity = Parity(store)
    scrub = Scrub(store, days=config.scrub_days, on_damage=partial(note_damage, store))
    scrubbing = [Chore("scrub", lambda: scrub.run_slice(SCRUB_SECONDS))] if config.scrub_days else []
    history = History(store)
    stale_uploads = StaleUploads(store.kv, config.upload_expiry_days, on_expired=on_expired)
    return [
        Chore("reserve", store.space.restore),
        Chore("adoption", lambda: adopt(store)),
        Chore("checkpoint", lambda: care_for_metadata(store)),
        Chore("lifecycle", lambda: clock.is_believable() and lifecycle.run_slice(LIFECYCLE_SECONDS)),
        Chore("uploads", lambda: clock.is_believable() and stale_uploads.run_slice()),
        Chore("packs", lambda: care_for_packs(store)),
        Chore("collection", lambda: collector.run_slice(COLLECTION_SECONDS)),
        Chore("parity", parity.run_slice),
        Chore("history", lambda: clock.is_believable() and history.run_slice()),
        Chore("tokens", lambda: forget_old_tokens(store), every=TOKENS_SECONDS),
        *scrubbing,
        Chore(
            "failures",
            lambda: forget_poison(store.directory),
            every=STEADY_SECONDS,
            due=time.monotonic() + STEADY_SECONDS,
        ),
    ]


def main() -> int:
    orders = take_orders()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with Store.open(orders.config.data, kind="maintenance") as store:
            slot = Slot(store.directory / "run", "maintenance")
            store.before_close.append(slot.close)
            orders.report_ready()
            all_chores, read_only = chores(store, orders.config), False
            while not stop.wait(ROUND_SECONDS):
                store.run_file.tick()
                if not read_only and (reason := store.kv.read_only_reason()) is not None:
                    read_only = True
                    all_chores = [Chore("reminder", partial(remind, reason), every=REMINDER_SECONDS)]
                run_due(all_chores, time.monotonic(), stop.is_set)
    except StorePoisoned as error:
        log.error("%s", error)
        return EX_TEMPFAIL
    except (StoreError, KvError, CasError, OSError) as error:
        log.error("%s", error)
        return EX_CONFIG
    return 0


def run_due(all_chores: Sequence[Chore], now: float, stopping: Callable[[], bool] = lambda: False) -> None:
    """One slice of each chore that is due. A chore that fails is logged and tried again; the others go on.

    Raises StorePoisoned, which ends the process.
    """
    for chore in all_chores:
        if chore.due > now or stopping():
            continue
        chore.due = now + chore.every
        try:
            chore.run()
        except StorePoisoned:
            raise
        except (MapFull, NoSpace, OSError) as error:  # of the disk: where we were does not matter
            log.error("%s failed: %s; it will be tried again", chore.name, error)
        except (KvError, CasError, NamesError, StoreError):
            log.exception("%s failed; it will be tried again", chore.name)


def remind(reason: str) -> None:
    log.critical("the store is read-only: %s. Mend the disk, then restart the server (docs/disks.md)", reason)


def adopt(store: Store) -> None:
    for writer in store.adopt_dead_writers():
        log.info("sealed the packs of process %d, which is gone", writer)


def care_for_metadata(store: Store) -> None:
    store.kv.check_readers()
    if store.kv.checkpoint_due() and store.has_room_to_recover():
        store.kv.write_checkpoint()
        log.info("wrote a checkpoint")


def care_for_packs(store: Store) -> None:
    store.chunks.seal_idle(time.monotonic())
    store.packs.close_removed()


def forget_old_tokens(store: Store) -> None:
    forget_tokens(store.kv, int((time.time() - TOKEN_AGE_SECONDS) * 1000))


if __name__ == "__main__":
    sys.exit(main())
