"""Parity as a chore of the maintenance process: sealed packs get their sidecars, damaged packs are mended.

Order of the work: packs that were found damaged first; then sealed packs without a sidecar, oldest first. One slice
is about SLICE_SECONDS; the one slice that may take longer looks at all of a damaged pack (half a second for 64 MiB,
one second if a tenth of it is lost). A sidecar that was begun before a restart is begun again. When nothing is left to
do the packs are looked through every IDLE_SECONDS: so much, and the backlog, lie between the sealing of a pack and its
protection. Beside all that every sidecar is read once in CHECK_SECONDS.

How much parity is a policy of the store (`serve --parity PERCENT`, kept in it): it holds for sidecars made from then
on. 0 makes none; those that exist stay, and serve.

Safe beside collection: a pack is taken up, and its sidecar put beside it, inside an operation in which its row says
that it is sealed. Memory: one pack.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Final

from cas.catalog import PackState, get_pack, iterate_packs
from cas.damage import packs_to_mend, unqueue_mending
from cas.errors import CasError, CorruptPack, MissingPack, MissingSidecar, PackUnreadable, Unmendable
from cas.healing import queue_damaged_pack
from cas.loss import recheck_damage, record_loss
from cas.mending import mend_pack
from cas.parity import MAX_PACK_BYTES
from cas.protection import make_sidecar
from vaultaire.reports import put_report

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from cas.catalog import PackRow
    from cas.mending import Mended
    from cas.recovery import Recovery
    from index.kv import Reader, Transaction
    from vaultaire.store import Store

DEFAULT_PERCENT: Final = 10
SLICE_SECONDS: Final = 0.25
IDLE_SECONDS: Final = 10.0  # between two looks at all packs
RETRY_SECONDS: Final = 600.0  # a pack that could not be protected or mended is left alone so long
CHECK_SECONDS: Final = 7 * 24 * 3600.0  # every sidecar is read once in so long, one after the other
LOST_SECONDS: Final = 6 * 3600.0  # one that has lost bytes: nothing will change by itself
SUBJECT: Final = "parity"  # of its report

_SETTINGS: Final = "srv.settings"
_PERCENT: Final = b"parity_percent"

log = logging.getLogger("vaultaire.parity")


def parity_percent(reader: Reader) -> int:
    """How much parity a pack gets, in percent of its length; 0: none."""
    row = reader.get(_SETTINGS, _PERCENT)
    return DEFAULT_PERCENT if row is None else row[0]


def set_parity_percent(txn: Transaction, percent: int) -> None:
    """`percent`: 0 to 100."""
    if not 0 <= percent <= 100:
        raise ValueError(f"parity of {percent} % is out of bounds")
    txn.put(_SETTINGS, _PERCENT, bytes([percent]))


def sidecar_bytes(store: Store) -> int:
    """What all sidecars take. Looks at every one of them: some milliseconds per thousand."""
    return sum(length for _, length in store.sidecars.lengths())


def recovery_of(store: Store) -> Recovery:
    recovery = store.chunks.recovery
    assert recovery is not None  # a store on local files always has one
    return recovery


def mend(store: Store, pack: int, *, dry_run: bool = False) -> Mended | None:
    """Mend one sealed pack, and record what is lost of it. None: it is not sealed, or gone. Blocking.

    Raises CasError (CorruptPack: sidecar and pack disagree), KvError, OSError.
    """
    with store.operation():
        with store.kv.snapshot() as reader:
            row = get_pack(reader, pack)
            percent = parity_percent(reader)
        if row is None or row.state == PackState.OPEN:
            return None
        if row.state != PackState.SEALED:
            percent = 0  # about to be removed: it gets no sidecar any more
        return mend_pack(recovery_of(store), store.packs, pack, row, percent, dry_run=dry_run)


def sidecar_is_sound(store: Store, pack: int) -> bool:
    """Every byte of the sidecar is as it was written. False if it is missing, too. Raises UnsupportedFormat."""
    recovery = recovery_of(store)
    recovery.forget(pack)
    try:
        sidecar = recovery.load(pack)
    except (MissingSidecar, Unmendable):
        return False
    return sidecar.sound and recovery.parity_is_sound(sidecar)


def note_damage(store: Store, pack: int, frame: int | None = None, chunk: bytes | None = None) -> None:
    """For whoever meets damage, as scrubbing does: the maintenance process will look at the whole pack and mend it."""
    del frame, chunk  # all of it is looked at
    queue_damaged_pack(store.kv, pack)


class Parity:
    """See the module. `run_slice` is called now and then, by one thread."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._work: Generator[None, None, object] | None = None
        self._waiting: list[int] = []  # packs without a sidecar, the oldest last
        self._next_look = 0.0
        self._later: dict[int, float] = {}  # pack -> when to try again
        self._protected: set[int] = set()  # known to have a sidecar
        self._made = self._made_bytes = 0
        self._next_check = clock()
        self._checked = 0  # the sidecar that was checked last

    def run_slice(self, seconds: float = SLICE_SECONDS) -> bool:
        """Work for about so long; False if there is nothing to do. Raises KvError, OSError."""
        until = self._clock() + seconds
        while True:
            if self._work is None:
                self._work = self._next_work()
                if self._work is None:
                    return False
            try:
                next(self._work)
            except StopIteration:
                self._work = None
            except BaseException:
                self._work = None
                raise
            if self._clock() >= until:
                return True

    def _next_work(self) -> Generator[None, None, object] | None:
        with self._store.kv.snapshot() as reader:
            damaged = [pack for pack in packs_to_mend(reader) if self._is_due(pack)]
            percent = parity_percent(reader)
        if damaged:
            return self._mend(damaged[0])
        if not self._waiting and self._clock() >= self._next_look:
            self._look()
        if percent and self._waiting:
            return self._protect(self._waiting.pop(), percent)
        return self._check_next() if self._protected and self._clock() >= self._next_check else None

    def _is_due(self, pack: int) -> bool:
        return self._later.get(pack, 0.0) <= self._clock()

    def _postpone(self, pack: int, seconds: float = RETRY_SECONDS) -> None:
        self._later[pack] = self._clock() + seconds

    # --- making sidecars --------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Which packs wait; and sidecars whose packs are gone go."""
        self._next_look = self._clock() + IDLE_SECONDS
        if not self._protected:
            self._protected = {pack for pack, _ in self._store.sidecars.lengths()}
            self._checked = random.choice([0, *self._protected])  # not the same ones after every restart
        with self._store.kv.snapshot() as reader:
            rows = dict(iterate_packs(reader))
        self._waiting = [
            pack
            for pack, row in rows.items()
            if row.state == PackState.SEALED and pack not in self._protected and self._is_due(pack)
        ][::-1]
        for pack in sorted(self._protected.difference(rows)):
            self._store.sidecars.remove(pack)  # its pack went first, and a crash came between
            self._protected.discard(pack)
        self._later = {pack: due for pack, due in self._later.items() if pack in rows}

    def _protect(self, pack: int, percent: int) -> Generator[None, None, None]:
        row = self._sealed(pack)
        if row is None or not 0 < row.length <= MAX_PACK_BYTES:
            return
        store = self._store
        try:
            with store.operation():
                steps = make_sidecar(
                    store.packs,
                    store.identity.store_id,
                    pack,
                    row.length,
                    percent,
                    footerless=row.footerless,
                )
                next(steps)  # all of the pack is in memory: the operation may end
            data = yield from steps
            with store.operation():
                if self._sealed(pack) is None:
                    return
                store.sidecars.put(pack, data)
        except (CorruptPack, MissingPack, PackUnreadable) as error:
            log.error("%s; it gets no parity before it is mended", error)
            queue_damaged_pack(store.kv, pack)
        except (CasError, OSError) as error:
            log.warning("pack %016x gets no parity now: %s", pack, error)
            self._postpone(pack)
        else:
            self._protected.add(pack)
            self._made += 1
            self._made_bytes += row.length
            if not self._waiting:
                self._report()

    def _sealed(self, pack: int) -> PackRow | None:
        with self._store.kv.snapshot() as reader:
            row = get_pack(reader, pack)
        return row if row is not None and row.state == PackState.SEALED else None

    def _report(self) -> None:
        report = {
            "packs_protected": len(self._protected),
            "sidecars_made": self._made,
            "bytes_read": self._made_bytes,
            "finished_ms": time.time_ns() // 1_000_000,
        }
        self._store.kv.commit(lambda txn: put_report(txn, SUBJECT, report))

    def _check_next(self) -> Generator[None, None, None]:
        """Read one sidecar, in the order of packs: rot in it is found before it is needed."""
        self._next_check = self._clock() + CHECK_SECONDS / len(self._protected)
        pack = min(self._protected, key=lambda pack: (pack <= self._checked, pack))
        self._checked = pack
        if not sidecar_is_sound(self._store, pack) and self._sealed(pack) is not None:
            log.error("the parity sidecar of pack %016x is damaged; it will be made anew", pack)
            queue_damaged_pack(self._store.kv, pack)
        yield

    # --- mending ----------------------------------------------------------------------------------------------

    def _mend(self, pack: int) -> Generator[None, None, None]:
        store = self._store
        try:
            mended = mend(store, pack)
        except (CasError, OSError) as error:
            log.error("pack %016x cannot be mended now: %s", pack, error)
            self._postpone(pack)
            return
        if mended is not None:
            yield
            yield from settle(store, mended)
            log_mended(mended)
            if mended.lost:
                self._postpone(pack, LOST_SECONDS)
        self._protected.discard(pack)
        if mended is not None and self._has_sidecar(pack):
            self._protected.add(pack)
        store.kv.commit(lambda txn: unqueue_mending(txn, pack))

    def _has_sidecar(self, pack: int) -> bool:
        try:
            self._store.sidecars.length(pack)
        except MissingSidecar:
            return False
        return True


def settle(store: Store, mended: Mended) -> Generator[None, None, None]:
    """Record which chunks of a pack are lost, and which are whole again. Yields between slices."""
    if mended.lost:
        yield from record_loss(store.kv, mended.pack, mended.lost)
    with store.operation():
        yield from recheck_damage(store.kv, store.chunks, mended.pack)


def log_mended(mended: Mended) -> None:
    if mended.mended_blocks or mended.footer_written:
        footer = ", and its footer was written anew" if mended.footer_written else ""
        log.warning("pack %016x: %d damaged blocks were mended%s", mended.pack, mended.mended_blocks, footer)
    if mended.sidecar in ("made", "replaced", "removed"):
        log.info("pack %016x: its parity sidecar was %s", mended.pack, mended.sidecar)
    if mended.lost:
        count = sum(stop - start for start, stop in mended.lost)
        log.error(
            "pack %016x: %d bytes are beyond repair (%s). `vaultaire repair` lists the objects; uploading the same "
            "data again heals them",
            mended.pack,
            count,
            mended.sidecar or "more is damaged than its parity makes good",
        )
