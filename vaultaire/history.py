"""How much each bucket held, day by day: what the store remembers of its own growth.

Guarantees: a row of a day was counted on that day (UTC), and no later than an hour before the last moment of it at
which the server ran; a day on which it did not run has no row. Nothing is interpolated, and what is written twice is
the same row. Rows are kept for `KEEP_DAYS`; those of a bucket go with it, while the row of the whole store (bucket 0)
keeps what it was. A store of a thousand buckets gets 80 KB a day by this.

The maintenance process does it in slices of `ROWS_PER_SLICE` rows, a snapshot and a commit each. A crash
leaves a day half counted; the next start counts it anew. Unique, stored and exclusive bytes of buckets are those that collection counted
last (`counted_ms` says when). The wall clock decides what a day is: it is only asked while it is believable.

Table "srv.history": row key = bucket id u64, day u32 (days since 1970-01-01); value, big-endian:

    0   1   version: 1
    1   8   counted at, milliseconds since 1970 UTC
    9   8   objects
    17  8   logical bytes
    25  8   unique bytes
    33  8   stored bytes
    41  8   exclusive bytes; of the whole store: 0
    49  8   when unique, stored and exclusive were counted, ms; 0: they are not known, and are zeros
    57  8   bytes added by uploads on that day, after deduplication and compression
    65  8   the same since the bucket, or the store, was made
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from index.buckets import list_buckets
from index.counters import statistics as name_statistics
from vaultaire.bucket_writes import WHOLE_STORE, forget_writes, get_writes, list_writes
from vaultaire.collection_report import BUCKETS_SUBJECT
from vaultaire.reports import get_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from index.counters import NamesStatistics
    from index.kv import Reader, Transaction
    from vaultaire.store import Store

TABLE: Final = "srv.history"
KEEP_DAYS: Final = 731  # two years
EVERY_SECONDS: Final = 3600.0  # between two counts of a day
ROWS_PER_SLICE: Final = 200
DAY_MS: Final = 86_400_000

_ROW: Final = struct.Struct(">QI")
_VALUE: Final = struct.Struct(">BQQQQQQQQQ")
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Day:
    """One bucket, or the whole store, as it was on one day. Sizes in bytes."""

    day: int  # since 1970-01-01, UTC
    at_ms: int
    objects: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    exclusive_bytes: int
    counted_ms: int  # 0: the three above are not known
    added_bytes: int  # on that day
    added_total: int

    def encode(self) -> bytes:
        return _VALUE.pack(
            _VERSION,
            self.at_ms,
            self.objects,
            self.logical_bytes,
            self.unique_bytes,
            self.stored_bytes,
            self.exclusive_bytes,
            self.counted_ms,
            self.added_bytes,
            self.added_total,
        )

    @classmethod
    def decode(cls, row: bytes, value: bytes) -> Day | None:
        """None: of another version."""
        if len(value) != _VALUE.size or value[0] != _VERSION:
            return None
        _, day = _ROW.unpack(row)
        return cls(day, *_VALUE.unpack(value)[1:])


def read_history(reader: Reader, bucket: int = WHOLE_STORE) -> Iterator[Day]:
    """The days of a bucket, or of the whole store, in their order. Lazy, as `Reader.scan`."""
    for row, value in reader.scan(TABLE, _ROW.pack(bucket, 0), _ROW.pack(bucket + 1, 0)):
        day = Day.decode(row, value)
        if day is not None:
            yield day


def plan_added(before: Day | None, added_total: int) -> int:
    """Bytes added on a day, when they are `added_total` now and the last day before it was `before`."""
    return max(0, added_total - (before.added_total if before is not None else 0))


class History:
    """See the module. One thread: a chore of the maintenance process."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[int] = []  # buckets to count in this pass
        self._usage: dict[str, Any] = {}  # the report of the last walk, for this pass
        self._again_ms = 0  # when the next pass is due
        self._day = -1  # of the last pass

    def run_slice(self) -> bool:
        """Count some buckets. False: nothing is to do now. Blocking. Raises KvError."""
        now_ms = int(self._clock() * 1000)
        if not self._waiting and not self._begin(now_ms):
            return False
        buckets, self._waiting = self._waiting[:ROWS_PER_SLICE], self._waiting[ROWS_PER_SLICE:]
        try:
            with self._store.kv.snapshot() as reader:
                counted = [(bucket, self._count(reader, bucket, now_ms)) for bucket in buckets]
                if not self._waiting:
                    counted.append((WHOLE_STORE, self._count_store(reader, now_ms)))
            self._store.kv.commit(lambda txn: put_days(txn, counted))
        except BaseException:
            self._waiting, self._again_ms = [], 0
            raise
        return True

    def _begin(self, now_ms: int) -> bool:
        day = now_ms // DAY_MS
        # A clock that was set back begins anew, too.
        if day == self._day and now_ms < self._again_ms <= now_ms + int(EVERY_SECONDS * 1000):
            return False
        with self._store.kv.snapshot() as reader:
            self._usage = get_report(reader, BUCKETS_SUBJECT) or {}
            self._waiting = [bucket.id for bucket in list_buckets(reader).buckets]
        self._day, self._again_ms = day, now_ms + int(EVERY_SECONDS * 1000)
        self._forget(day)
        return True

    def _count(self, reader: Reader, bucket: int, now_ms: int) -> Day:
        names = name_statistics(reader, bucket)
        usage = self._usage.get("buckets", {}).get(str(bucket))
        sizes = (0, 0, 0)
        if usage is not None:
            sizes = usage["unique_bytes"], usage["stored_bytes"], usage["exclusive_bytes"]
        counted_ms = self._usage["at_ms"] if usage is not None else 0
        return self._day_of(reader, bucket, now_ms, names, sizes, counted_ms)

    def _count_store(self, reader: Reader, now_ms: int) -> Day:
        names = name_statistics(reader)
        chunks = self._store.chunks.statistics(reader)
        stored = chunks.pack_bytes + self._store.kv.statistics().used_bytes
        sizes = chunks.unique_bytes + names.inline_bytes, stored, 0
        return self._day_of(reader, WHOLE_STORE, now_ms, names, sizes, now_ms)

    def _day_of(
        self,
        reader: Reader,
        bucket: int,
        now_ms: int,
        names: NamesStatistics,
        sizes: tuple[int, int, int],
        counted_ms: int,
    ) -> Day:
        day, added_total = now_ms // DAY_MS, get_writes(reader, bucket).added_bytes
        added = plan_added(last_day_before(reader, bucket, day), added_total)
        return Day(day, now_ms, names.objects, names.logical_bytes, *sizes, counted_ms, added, added_total)

    def _forget(self, today: int) -> None:
        """What is too old, and rows of buckets that are gone. A few rows a day, mostly."""
        with self._store.kv.snapshot() as reader:
            there = {WHOLE_STORE, *(bucket.id for bucket in list_buckets(reader).buckets)}
            gone = [bucket for bucket, _ in list_writes(reader) if bucket not in there]
            old = [
                row
                for bucket in _buckets_with_history(reader)
                for row, _ in reader.scan(
                    TABLE,
                    _ROW.pack(bucket, 0),
                    _ROW.pack(bucket, max(0, today - KEEP_DAYS + 1))
                    if bucket in there
                    else _ROW.pack(bucket + 1, 0),
                    limit=ROWS_PER_SLICE,
                )
            ]
        if not gone and not old:
            return

        def forget(txn: Transaction) -> None:
            for bucket in gone:
                forget_writes(txn, bucket)
            for row in old[: 10 * ROWS_PER_SLICE]:  # the rest at the next pass
                txn.delete(TABLE, row)

        self._store.kv.commit(forget)


def put_days(txn: Transaction, days: Iterable[tuple[int, Day]]) -> None:
    """Bucket id and day, each in place of what that day had before."""
    for bucket, day in days:
        txn.put(TABLE, _ROW.pack(bucket, day.day), day.encode())


def last_day_before(reader: Reader, bucket: int, day: int) -> Day | None:
    for row, value in reader.scan(TABLE, _ROW.pack(bucket, 0), _ROW.pack(bucket, day), reverse=True, limit=1):
        return Day.decode(row, value)
    return None


def _buckets_with_history(reader: Reader) -> list[int]:
    """Their ids, by one seek each."""
    found: list[int] = []
    at = 0
    while True:
        row = next(iter(reader.scan(TABLE, _ROW.pack(at, 0), limit=1)), None)
        if row is None:
            return found
        found.append(_ROW.unpack(row[0])[0])
        at = found[-1] + 1


def as_json(day: Day) -> dict[str, Any]:
    """What `vaultaire stats --history --json` prints of a day."""
    known = day.counted_ms != 0
    return {
        "day": time.strftime("%Y-%m-%d", time.gmtime(day.day * 86_400)),
        "at_ms": day.at_ms,
        "objects": day.objects,
        "logical_bytes": day.logical_bytes,
        "unique_bytes": day.unique_bytes if known else None,
        "stored_bytes": day.stored_bytes if known else None,
        "exclusive_bytes": day.exclusive_bytes if known else None,
        "counted_ms": day.counted_ms or None,
        "added_bytes": day.added_bytes,
    }
