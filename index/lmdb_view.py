"""One state of the LMDB environment as the contract's `Reader`, and one function's transaction on it.

`get` is on the path of every request: one LMDB call, two CRC calls, no allocation but the value. Errors of LMDB
are translated here; a transaction also remembers them, so that a function which swallows one still fails.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Self

import lmdb

from index.environment import CRC_RESIDUE, Table, ViewDamaged, read_position, translate, unwrap, wrap
from index.kv import MAX_KEY_BYTES, MAX_VALUE_BYTES, CorruptValue, KvError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from index.journal import Mutations, Position

MAX_FUNCTION_BYTES = 64 << 20  # mutations of one function; with a batch's own bound it fits a journal record
_ROW_OVERHEAD_BYTES = 8

_crc32 = zlib.crc32
_BEHIND_ALL = b"\xff" * (MAX_KEY_BYTES + 1)

# We use no handle, table or transaction wrongly: to a reader LMDB says this only of what a damaged page made of them.
_ABSURD = (
    lmdb.BadTxnError,
    lmdb.BadDbiError,
    lmdb.IncompatibleError,
    lmdb.CursorFullError,
    lmdb.PageFullError,
)


class LmdbReader:
    """See `index.kv.Reader`. One thread at a time."""

    __slots__ = ("_sequence", "_tables", "_txn")

    def __init__(self, txn: lmdb.Transaction[bytes], tables: Mapping[str, Table]) -> None:
        self._txn = txn
        self._tables = tables
        self._sequence: int | None = None

    @property
    def sequence(self) -> int:
        if self._sequence is None:
            try:
                self._sequence = read_position(self._txn).sequence
            except lmdb.Error as error:
                raise translate(error) from error
        return self._sequence

    @property
    def position(self) -> Position:
        """Where this state ends in the journal. Of a snapshot only: a transaction has no place there yet."""
        try:
            return read_position(self._txn)
        except lmdb.Error as error:
            raise translate(error) from error

    def get(self, table: str, key: bytes) -> bytes | None:
        handle, seeds = self._tables[table]
        try:
            stored = self._txn.get(key, None, handle)
        except lmdb.BadValsizeError:
            return None  # the empty key
        except lmdb.Error as error:
            raise self._unread(error) from error
        if stored is None:
            return None
        if _crc32(stored, _crc32(key, seeds[len(key)])) != CRC_RESIDUE:  # `unwrap`, without its call
            raise CorruptValue(table, key)
        return stored[:-4]

    def _unread(self, error: lmdb.Error) -> KvError:
        return (
            ViewDamaged(f"LMDB reports damage: {error}") if isinstance(error, _ABSURD) else translate(error)
        )

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        get = self.get
        return [get(table, key) for key in keys]

    def scan(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        handle, seeds = self._tables[table]
        remaining = -1 if limit is None else limit
        if remaining == 0 or (remaining < 0 and limit is not None):
            return
        try:
            with self._txn.cursor(handle) as cursor:
                if not (_seek_last(cursor, stop) if reverse else cursor.set_range(start)):
                    return
                if not reverse and cursor.key() < start:
                    raise _out_of_order(table)
                last = (_BEHIND_ALL if stop is None else stop) if reverse else b""
                for key, stored in cursor.iterprev() if reverse else cursor.iternext():
                    if key < start if reverse else stop is not None and key >= stop:
                        return
                    # Or a damaged page could lead in circles whoever asks for what comes after the last row.
                    if key >= last if reverse else key <= last:
                        raise _out_of_order(table)
                    last = key
                    if _crc32(stored, _crc32(key, seeds[len(key)])) != CRC_RESIDUE:
                        raise CorruptValue(table, key)
                    yield key, stored[:-4]
                    remaining -= 1
                    if remaining == 0:
                        return
        except lmdb.Error as error:
            raise self._unread(error) from error
        except IndexError as error:  # no row has so long a key
            raise ViewDamaged(f"LMDB shows a key of {len(key)} bytes in table {table!r}") from error


def _out_of_order(table: str) -> ViewDamaged:
    return ViewDamaged(f"LMDB shows the rows of table {table!r} out of order")


def _seek_last(cursor: lmdb.Cursor[bytes], stop: bytes | None) -> bool:
    """Move to the last row before `stop`. False if there is none."""
    if stop is not None and cursor.set_range(stop):
        return cursor.prev()
    return cursor.last()


class Snapshot(LmdbReader):
    """A read transaction, open from its making to the end of its `with`."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._txn.abort()  # reading: ends it, and keeps its slot for the next snapshot


class LmdbTransaction(LmdbReader):
    """What one function of a commit sees, and a record of its final mutations for the journal."""

    __slots__ = ("failure", "mutations", "size")

    def __init__(self, txn: lmdb.Transaction[bytes], tables: Mapping[str, Table], sequence: int) -> None:
        super().__init__(txn, tables)
        self._sequence = sequence
        self.mutations: Mutations = {}
        self.size = 0  # bytes of all mutations, also of those overwritten since
        self.failure: KvError | None = None  # LMDB's first error: the function cannot succeed any more

    def put(self, table: str, key: bytes, value: bytes) -> None:
        if not 1 <= len(key) <= MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
            raise ValueError(f"key of {len(key)} or value of {len(value)} bytes is out of bounds")
        handle, seeds = self._tables[table]
        key, value = bytes(key), bytes(value)
        self._count(len(key) + len(value))
        try:
            self._txn.put(key, wrap(seeds, key, value), db=handle)
        except lmdb.Error as error:
            raise self._failed(error) from error
        self.mutations[table, key] = value

    def delete(self, table: str, key: bytes) -> bool:
        handle, _ = self._tables[table]
        if not 1 <= len(key) <= MAX_KEY_BYTES:
            return False
        key = bytes(key)
        try:
            if not self._txn.delete(key, b"", handle):
                return False
        except lmdb.Error as error:
            raise self._failed(error) from error
        self._count(len(key))
        self.mutations[table, key] = None
        return True

    def _unread(self, error: lmdb.Error) -> KvError:
        return self.failure or super()._unread(error)  # after a failure LMDB refuses everything

    def _count(self, length: int) -> None:
        self.size += length + _ROW_OVERHEAD_BYTES
        if self.size > MAX_FUNCTION_BYTES:
            self.failure = KvError(f"one function of a commit may change at most {MAX_FUNCTION_BYTES} bytes")
            raise self.failure

    def _failed(self, error: lmdb.Error) -> KvError:
        failure = translate(error)
        if self.failure is None:
            self.failure = failure
        return failure


def check_rows(txn: lmdb.Transaction[bytes], name: str, table: Table) -> int:
    """Read every row of a table: the count. Raises CorruptValue, ViewDamaged, and KvError if rows that LMDB counts are
    missing.
    """
    handle, seeds = table
    rows = 0
    last = b""
    with txn.cursor(handle) as cursor:
        for key, stored in cursor.iternext():
            if key <= last:
                raise _out_of_order(name)
            unwrap(name, seeds, key, stored)
            last = key
            rows += 1
    counted = txn.stat(handle)["entries"]
    if rows != counted:
        raise KvError(f"table {name!r} holds {rows} rows where LMDB counts {counted}")
    return rows
