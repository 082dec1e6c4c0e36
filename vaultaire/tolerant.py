"""The ordered map as verification reads it: a damaged value is noted, once, and passed over like a missing row.

Everywhere else a damaged value is an error, as the contract says. Here the rest of the store is of interest as well.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from index.kv import CorruptValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from index.kv import OrderedMap, Reader

    Note = Callable[[str, bytes], None]


class TolerantReader:
    """See the module. A `Reader`."""

    def __init__(self, reader: Reader, note: Note) -> None:
        self._reader = reader
        self._note = note

    @property
    def sequence(self) -> int:
        return self._reader.sequence

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            return self._reader.get(table, key)
        except CorruptValue as error:
            self._note(error.table, error.key)
            return None

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(table, key) for key in keys]

    def scan(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        while True:
            try:
                for key, value in self._reader.scan(table, start, stop, reverse=reverse, limit=limit):
                    yield key, value
                    if limit is not None:
                        limit -= 1
                    start, stop = (start, key) if reverse else (key + b"\0", stop)
                return
            except CorruptValue as error:
                self._note(error.table, error.key)
                start, stop = (start, error.key) if reverse else (error.key + b"\0", stop)


class TolerantMap:
    """Snapshots of a map, tolerant. Only for reading."""

    def __init__(self, kv: OrderedMap, note: Note) -> None:
        self._kv = kv
        self._note = note

    @contextmanager
    def snapshot(self) -> Iterator[TolerantReader]:
        with self._kv.snapshot() as reader:
            yield TolerantReader(reader, self._note)


class ShortSnapshots:
    """A reader that takes a snapshot per question, for walks that are too long for one.

    What it says is true at different moments; whoever holds an operation knows what stays true (collection).
    """

    def __init__(self, kv: TolerantMap) -> None:
        self._kv = kv

    @property
    def sequence(self) -> int:
        with self._kv.snapshot() as reader:
            return reader.sequence

    def get(self, table: str, key: bytes) -> bytes | None:
        with self._kv.snapshot() as reader:
            return reader.get(table, key)

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._kv.snapshot() as reader:
            return reader.get_many(table, keys)

    def scan(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        """All of it at once: ask for few rows."""
        with self._kv.snapshot() as reader:
            rows = list(reader.scan(table, start, stop, reverse=reverse, limit=limit))
        return iter(rows)
