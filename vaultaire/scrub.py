"""Scrubbing: every sealed pack is read and verified again and again, so that rot is found while it can still be mended.

A **pass** reads all sealed packs, in the order of their numbers, every chunk decoded and its id recomputed. A pass
begins `days` after the one before it began, at the latest; its rate follows from the bytes and the time that are left,
so that it is over in time, with a floor that lets small stores be done in minutes. It reads from the device, not from
the page cache, and leaves the cache to the clients (`cas.scanning`).

Guarantees: it takes the disk for at most the time it is given per slice; where it stands is kept (`srv.reports`), so a
restart reads at most one pack again; what is damaged is logged once, listed until the pack is sound or gone, and handed
to `on_damage` at every pass. A pack that is collected meanwhile is no damage.

Memory: what one pack takes. The wall clock decides only when a pass is due: if it jumps, a pass is early or late.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cas.catalog import PACKS, PackState, get_pack, iterate_packs, pack_key
from cas.chunk import Hasher
from cas.errors import CasError, MissingPack, UnsupportedFormat
from cas.scanning import DeviceFile
from cas.verify import Damage, DamageKind, PackCheck, Step
from cas.verify_catalog import pack_row_damage
from index.kv import KvError, StorePoisoned
from vaultaire.reports import get_report, put_report
from vaultaire.tolerant import TolerantMap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cas.catalog import PackRow
    from vaultaire.store import Store

SUBJECT: Final = "scrub"  # of its report
DEFAULT_DAYS: Final = 7.0
DAY_SECONDS: Final = 86_400.0
FLOOR_BYTES_PER_SECOND: Final = 4 << 20  # 1 TiB in three days; nothing for any disk
SAVE_SECONDS: Final = 10.0
MAX_LISTED: Final = 1000  # damage in the report
_BURST_SECONDS: Final = 5.0  # of the rate, saved up while there was no slice
_LEAST_LEFT: Final = 0.1  # of a pass's time: one that is late goes faster, not as fast as it can

log = logging.getLogger("vaultaire.scrub")


def plan_rate(left_bytes: int, left_seconds: float, pass_seconds: float) -> float:
    """Bytes per second, so that what is left is read in the time that is left."""
    seconds = max(left_seconds, _LEAST_LEFT * pass_seconds)
    return max(left_bytes / seconds, FLOOR_BYTES_PER_SECOND)


@dataclass(slots=True)
class Progress:
    """Where scrubbing stands: its report, in the names of the JSON document. Times are ms since 1970."""

    begun_ms: int = 0  # of this pass, or of the last one if none is running; 0: never
    running: bool = False
    cursor: int = -1  # the last pack that is done
    packs: int = 0
    done_bytes: int = 0
    total_bytes: int = 0  # when it began
    last: dict[str, Any] | None = None  # the last full pass: begun_ms, finished_ms, packs, bytes, damage
    damage: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, document: dict[str, Any] | None) -> Progress:
        """What is not known is left out."""
        known = {k: v for k, v in (document or {}).items() if k in cls.__slots__}
        return cls(**known)


def _ignore(pack: int, frame: int | None, chunk: bytes | None) -> None:
    del pack, frame, chunk


class Scrub:
    """See the module. One thread; one per store (the maintenance process has it)."""

    def __init__(
        self,
        store: Store,
        *,
        days: float = DEFAULT_DAYS,
        on_damage: Callable[[int, int | None, bytes | None], None] = _ignore,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_damage` (pack, offset of the frame if it is known, id of a wrong chunk if it is known) may mend it."""
        self._store = store
        self._hasher = Hasher(store.identity.hash_key)
        self._pass_seconds = days * DAY_SECONDS
        self._on_damage = on_damage
        self._clock = clock
        self._monotonic = monotonic
        self._progress: Progress | None = None
        self._steps: Iterator[_PackStep] | None = None
        self._allowance = 0.0  # bytes
        self._damaged_rows: set[bytes] = set()  # logged
        self._last_slice = monotonic()
        self._last_save = monotonic()

    @property
    def progress(self) -> Progress:
        if self._progress is None:
            with self._store.kv.snapshot() as reader:
                self._progress = Progress.from_json(get_report(reader, SUBJECT))
        return self._progress

    def run_slice(self, seconds: float) -> bool:
        """Read for at most `seconds`, and a frame. False: nothing is to do now. Blocking. Raises KvError, OSError."""
        if not self._begin_if_due():
            return False
        now = self._monotonic()
        self._save_up(now - self._last_slice)
        self._last_slice = now
        stop = now + seconds
        with self._store.operation():
            while self._allowance > 0 and self._monotonic() < stop:
                step = self._next_step()
                if step is None:
                    self._end_pass()
                    return False
                self._allowance -= step.read_bytes
                self.progress.done_bytes += step.read_bytes
                if step.finished is not None:
                    self._take(step.finished, step.damage)
        if self._monotonic() - self._last_save > SAVE_SECONDS:
            self._save()
        return True

    def _begin_if_due(self) -> bool:
        progress, now_ms = self.progress, int(self._clock() * 1000)
        if progress.running:
            return True
        if 0 <= now_ms - progress.begun_ms < self._pass_seconds * 1000 and progress.begun_ms:
            return False
        with self._store.kv.snapshot() as reader:
            total = sum(row.length for _, row in iterate_packs(reader) if row.state == PackState.SEALED)
        self._progress = Progress(now_ms, True, total_bytes=total, last=progress.last, damage=progress.damage)
        self._steps = None
        self._save()
        return True

    def _save_up(self, elapsed: float) -> None:
        progress = self.progress
        gone = self._clock() - progress.begun_ms / 1000
        left = max(progress.total_bytes - progress.done_bytes, 0)
        rate = plan_rate(left, self._pass_seconds - gone, self._pass_seconds)
        self._allowance = min(self._allowance + rate * min(elapsed, _BURST_SECONDS), rate * _BURST_SECONDS)

    def _next_step(self) -> _PackStep | None:
        if self._steps is None:
            self._steps = self._run_pass()
        try:
            return next(self._steps, None)
        except BaseException:
            self._steps = None  # a generator that raised is at its end, the pass is not
            raise

    def _run_pass(self) -> Iterator[_PackStep]:
        while (found := self._next_pack()) is not None:
            pack, row = found
            damage: list[Damage] = []
            for step in self._check(pack, row):
                damage += step.damage
                yield _PackStep(step.read_bytes)
            yield _PackStep(0, pack, damage)

    def _next_pack(self) -> tuple[int, PackRow] | None:
        with TolerantMap(self._store.kv, self._note_damaged_row).snapshot() as reader:
            for key, value in reader.scan(PACKS, pack_key(self.progress.cursor + 1)):
                pack, row, _ = pack_row_damage(key, value)
                if row is not None and row.state == PackState.SEALED:
                    return pack, row
        return None

    def _note_damaged_row(self, table: str, key: bytes) -> None:
        if key not in self._damaged_rows:
            self._damaged_rows.add(key)
            log.error("row %s of %s is damaged; find out more with: vaultaire verify", key.hex(), table)

    def _check(self, pack: int, row: PackRow) -> Iterator[Step]:
        try:
            source = DeviceFile(pack, self._store.packs.path(pack))
        except MissingPack:
            yield Step(0, (Damage(DamageKind.PACK_MISSING, pack, "its file is not there"),))
            return
        except CasError as error:
            yield Step(0, (Damage(DamageKind.PACK_UNREADABLE, pack, str(error)),))
            return
        try:
            read_bases = self._store.chunks.read_bases
            check = PackCheck(
                pack, row, self._store.identity, source, self._hasher, read_data=True, read_bases=read_bases
            )
            yield from check.run()
        except UnsupportedFormat as error:
            log.warning("pack %016x is not checked: %s", pack, error)
        finally:
            source.close()

    # --- what was found ---------------------------------------------------------------------------------------

    def _take(self, pack: int, damage: list[Damage]) -> None:
        """A pack is done. It counts only if it is still there."""
        progress = self.progress
        progress.cursor = pack
        progress.packs += 1
        known = [entry for entry in progress.damage if entry["pack"] == f"{pack:016x}"]
        if not damage and not known:
            return
        with self._store.kv.snapshot() as reader:
            row = get_pack(reader, pack)
        if row is None or row.state != PackState.SEALED:
            damage = []
        entries = [_entry(each, int(self._clock() * 1000)) for each in damage]
        self._log(pack, known, entries, damage)
        others = [entry for entry in progress.damage if entry["pack"] != f"{pack:016x}"]
        progress.damage = [*others, *entries][:MAX_LISTED]
        self._save()
        for each in damage:
            for chunk in each.chunks or (None,):
                self._on_damage(pack, each.frame, chunk)

    def _log(
        self, pack: int, known: list[dict[str, Any]], entries: list[dict[str, Any]], damage: list[Damage]
    ) -> None:
        seen = {_same(entry): entry["found_ms"] for entry in known}
        for entry, each in zip(entries, damage, strict=True):
            if _same(entry) in seen:
                entry["found_ms"] = seen[_same(entry)]
                continue
            where = "" if each.offset is None else f" at offset {each.offset}"
            log.error(
                "pack %016x is damaged%s (%s): %s; find out what it costs with: vaultaire verify",
                pack,
                where,
                each.kind,
                each.reason,
            )
        if known and not entries:
            log.info("pack %016x is sound again, or gone", pack)

    def _end_pass(self) -> None:
        progress = self.progress
        progress.running = False
        progress.last = {
            "begun_ms": progress.begun_ms,
            "finished_ms": int(self._clock() * 1000),
            "packs": progress.packs,
            "bytes": progress.done_bytes,
            "damage": len(progress.damage),
        }
        with self._store.kv.snapshot() as reader:
            still = {entry["pack"] for entry in progress.damage if get_pack(reader, int(entry["pack"], 16))}
        progress.damage = [entry for entry in progress.damage if entry["pack"] in still]
        progress.cursor, self._steps = -1, None
        self._save()

    def _save(self) -> None:
        self._last_save = self._monotonic()
        document = self.progress.to_json()
        try:
            self._store.kv.commit(lambda txn: put_report(txn, SUBJECT, document))
        except StorePoisoned:
            raise
        except KvError as error:  # a full disk: it goes on, and is saved when there is room
            log.warning("the progress of scrubbing cannot be saved: %s", error)


@dataclass(frozen=True, slots=True)
class _PackStep:
    read_bytes: int
    finished: int | None = None  # the pack that is done
    damage: list[Damage] = field(default_factory=list)  # of that


def _entry(damage: Damage, now_ms: int) -> dict[str, Any]:
    return {
        "pack": f"{damage.pack:016x}",
        "kind": str(damage.kind),
        "offset": damage.offset,
        "frame": damage.frame,
        "chunks": [chunk.hex() for chunk in damage.chunks[:16]],
        "reason": damage.reason,
        "found_ms": now_ms,
    }


def _same(entry: dict[str, Any]) -> tuple[object, ...]:
    return entry["kind"], entry["offset"], entry["frame"]
