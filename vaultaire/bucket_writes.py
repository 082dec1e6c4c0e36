"""When each bucket was last written to, and how many bytes its uploads have added to the store since it was made.

Noted in memory by each worker, written by it once a minute and when it stops. What a killed worker had noted and not
written is lost: both may miss a minute, and nothing but numbers for people depends on them. The added bytes are what
uploads cost after deduplication and compression; deleting takes nothing off them again.

Table "srv.writes": row key = bucket id u64, 0 for the whole store; value = version u8 (1), last write in milliseconds since 1970 UTC u64,
added bytes u64; big-endian. Rows of buckets that are gone go with the next history (`vaultaire.history`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultaire.s3.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from index.kv import Reader, Transaction
    from vaultaire.s3.observation import Observation

TABLE: Final = "srv.writes"
WHOLE_STORE: Final = (
    0  # no bucket has this id: its row has the last write and the added bytes of all, gone ones too
)
_ROW: Final = struct.Struct(">Q")
_VALUE: Final = struct.Struct(">BQQ")
_VERSION: Final = 1
MAKES_OBJECTS: Final = frozenset(
    (
        Operation.PUT_OBJECT,
        Operation.COPY_OBJECT,
        Operation.COMPLETE_MULTIPART_UPLOAD,
        Operation.POST_OBJECT,
        Operation.RENAME_OBJECT,
    )
)


@dataclass(frozen=True, slots=True)
class Writes:
    last_ms: int = 0  # since 1970; 0: never
    added_bytes: int = 0

    def plus(self, later: Writes) -> Writes:
        return Writes(max(self.last_ms, later.last_ms), self.added_bytes + later.added_bytes)


class BucketWrites:
    """What one process has seen and not written yet. One thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds since 1970."""
        self._clock = clock
        self._last: dict[int, float] = {}  # seconds
        self._added: dict[int, int] = {}

    def observe(self, seen: Observation) -> None:
        """A request is over."""
        if seen.found is None or seen.status >= 300:
            return
        bucket = seen.found.id
        if seen.operation in MAKES_OBJECTS:
            self._last[bucket] = self._clock()
        added = seen.added_bytes
        if added:
            self._added[bucket] = self._added.get(bucket, 0) + added

    def plan(self) -> Callable[[Transaction], None] | None:
        """The function to commit; None if nothing is due. It is noted no more from here on."""
        noted = {
            bucket: Writes(int(self._last.get(bucket, 0) * 1000), self._added.get(bucket, 0))
            for bucket in {*self._last, *self._added}
        }
        self._last, self._added = {}, {}
        if not noted:
            return None
        return lambda txn: add_writes(txn, noted)


def add_writes(txn: Transaction, noted: Mapping[int, Writes]) -> None:
    """Bucket id -> what was written meanwhile. The sum of all buckets is kept besides."""
    whole = Writes()
    for writes in noted.values():
        whole = whole.plus(writes)
    for bucket, writes in (*noted.items(), (WHOLE_STORE, whole)):
        sum_ = get_writes(txn, bucket).plus(writes)
        txn.put(TABLE, _ROW.pack(bucket), _VALUE.pack(_VERSION, sum_.last_ms, sum_.added_bytes))


def get_writes(reader: Reader, bucket: int) -> Writes:
    return _decode(reader.get(TABLE, _ROW.pack(bucket)))


def list_writes(reader: Reader) -> Iterator[tuple[int, Writes]]:
    """Bucket id -> its writes. Lazy, as `Reader.scan`."""
    for row, value in reader.scan(TABLE):
        yield _ROW.unpack(row)[0], _decode(value)


def forget_writes(txn: Transaction, bucket: int) -> None:
    txn.delete(TABLE, _ROW.pack(bucket))


def _decode(value: bytes | None) -> Writes:
    """Of another version: nothing is known."""
    if value is None or len(value) != _VALUE.size or value[0] != _VERSION:
        return Writes()
    _, last_ms, added = _VALUE.unpack(value)
    return Writes(last_ms, added)
