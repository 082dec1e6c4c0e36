"""An ordered map in memory, for tests only: same contract as the LMDB engine, nothing durable.

A commit works on copies of the tables it touches and publishes them in one assignment, so a snapshot is just a
reference to the tables of its moment.
"""

from __future__ import annotations

import bisect
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from index.kv import MAX_KEY_BYTES, MAX_VALUE_BYTES, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from index.kv import Transaction

T = TypeVar("T")


class _Table:
    """Sorted keys beside a dict; copied when first written in a commit."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: list[bytes], values: dict[bytes, bytes]) -> None:
        self.keys = keys
        self.values = values

    def copy(self) -> _Table:
        return _Table(list(self.keys), dict(self.values))


class _View:
    def __init__(self, tables: dict[str, _Table], sequence: int) -> None:
        self._tables = tables
        self._sequence = sequence

    @property
    def sequence(self) -> int:
        return self._sequence

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._tables[table].values.get(key)

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        values = self._tables[table].values
        return [values.get(key) for key in keys]

    def scan(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        rows = self._tables[table]
        low = bisect.bisect_left(rows.keys, start)
        high = len(rows.keys) if stop is None else bisect.bisect_left(rows.keys, stop)
        positions = range(low, max(low, high))
        if reverse:
            positions = positions[::-1]
        if limit is not None:
            positions = positions[: max(0, limit)]
        for position in positions:
            key = rows.keys[position]
            yield key, rows.values[key]


class _Transaction(_View):
    def __init__(self, tables: dict[str, _Table], sequence: int) -> None:
        super().__init__(dict(tables), sequence)
        self._owned: set[str] = set()

    def _own(self, table: str) -> _Table:
        if table not in self._owned:
            self._tables[table] = self._tables[table].copy()
            self._owned.add(table)
        return self._tables[table]

    def put(self, table: str, key: bytes, value: bytes) -> None:
        if not 1 <= len(key) <= MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
            raise ValueError(f"key of {len(key)} or value of {len(value)} bytes is out of bounds")
        rows = self._own(table)
        if key not in rows.values:
            bisect.insort(rows.keys, key)
        rows.values[key] = bytes(value)

    def delete(self, table: str, key: bytes) -> bool:
        if key not in self._tables[table].values:
            return False
        rows = self._own(table)
        del rows.values[key]
        del rows.keys[bisect.bisect_left(rows.keys, key)]
        return True


class MemoryKv:
    """See the module. `tables` names every table there will be."""

    def __init__(self, tables: Sequence[str]) -> None:
        self._tables = {name: _Table([], {}) for name in tables}
        self._sequence = 0
        self._lock = threading.Lock()

    @contextmanager
    def snapshot(self) -> Iterator[_View]:
        with self._lock:
            view = _View(self._tables, self._sequence)
        yield view

    def commit(self, fn: Callable[[Transaction], T]) -> T:
        return self.commit_many([fn])[0].unwrap()

    def commit_many(self, fns: Sequence[Callable[[Transaction], T]]) -> list[Outcome[T]]:
        outcomes: list[Outcome[T]] = []
        with self._lock:
            for fn in fns:
                txn = _Transaction(self._tables, self._sequence + 1)
                try:
                    value = fn(txn)
                except Exception as error:
                    outcomes.append(Outcome(None, error, 0))
                    continue
                self._tables, self._sequence = txn._tables, txn.sequence
                outcomes.append(Outcome(value, None, txn.sequence))
        return outcomes

    def close(self) -> None:
        """Nothing to release."""
