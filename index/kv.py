"""The contract of the metadata store: a serializable, ordered key-value map with named tables.

Guarantees, whatever the engine:

* `snapshot()` is one consistent state; it never blocks a writer and never sees half a commit.
* `commit(fn)` runs `fn(txn)` atomically, serialised against every other commit of every process, and returns
  only when its mutations are durable. `fn` must be free of side effects: an engine may run it more than once.
* `commit_many(fns)` is one durable step for many functions (group commit). Each runs in order and sees its
  predecessors' writes; one that raises fails alone and leaves no trace.
* Every successful function gets its own commit sequence: strictly ascending, never reused, the order of history.
* A value comes back as it was put, or `CorruptValue` is raised: checksums over (table, key, value) live below
  this line.

Keys: 1 to `MAX_KEY_BYTES` bytes, compared as unsigned bytes. Values: 0 bytes to `MAX_VALUE_BYTES`.
Tables are named once, when an engine is opened; each name carries its owner's prefix ("idx.", "cas.", "srv.").

No method assumes a local file, a single process or a cheap round trip (hence `get_many` and functions that may
run twice). The engines: `index.lmdb_kv` (LMDB + journal), `index.memory_kv` (tests). Both pass
tests/contract/test_kv.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

T = TypeVar("T")

MAX_KEY_BYTES = 511  # LMDB's own limit
MAX_VALUE_BYTES = 8 << 20  # far above any record; keeps one commit's journal record bounded


class Reader(Protocol):
    """One consistent state of the map. Thread-compatible: one thread at a time."""

    @property
    def sequence(self) -> int:
        """Sequence of the newest commit in this state (0: an empty map). Inside a transaction: its own."""
        ...

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value, or None. Raises CorruptValue."""
        ...

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `get`, in the order of `keys`; one round trip. Sorted keys are cheapest."""
        ...

    def scan(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) for start <= key < stop (None: to the end), ascending, or descending with `reverse`.

        Lazy; use it only while the snapshot or transaction is open, and do not write to the table meanwhile.
        """
        ...


class Transaction(Reader, Protocol):
    """A `Reader` that sees its own writes."""

    def put(self, table: str, key: bytes, value: bytes) -> None: ...

    def delete(self, table: str, key: bytes) -> bool:
        """True if the key was there."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What one function of a group commit came to. Exactly one of `error` and `value` counts."""

    value: T | None
    error: Exception | None
    sequence: int  # of this function's commit; 0 if it failed

    def unwrap(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # no error: `value` is what fn returned


class OrderedMap(Protocol):
    """The map itself. Thread-safe and, where the engine says so, safe among processes."""

    def snapshot(self) -> AbstractContextManager[Reader]:
        """Hold it briefly: never across network I/O, never longer than the work that needs it."""
        ...

    def commit(self, fn: Callable[[Transaction], T]) -> T:
        """Run `fn` in one atomic durable commit and return its result. Blocking; raises what `fn` raises."""
        ...

    def commit_many(self, fns: Sequence[Callable[[Transaction], T]]) -> list[Outcome[T]]:
        """Run all in one durable step. Blocking. Raises only if nothing was committed at all (KvError)."""
        ...

    def close(self) -> None: ...


class KvError(Exception):
    """Base of what an engine raises. The mutations of a commit that raised it are not visible."""


class CorruptValue(KvError):
    """A stored value does not match its checksum: wrong bytes are never returned."""

    def __init__(self, table: str, key: bytes) -> None:
        super().__init__(f"metadata value is damaged: table {table!r}, key {key.hex()}")
        self.table = table
        self.key = key


class MapFull(KvError):
    """No room for more metadata (map size or disk). Nothing was committed; deletes still may work."""


class StorePoisoned(KvError):
    """A sync failed in this or a sibling process: this process must end, and the next opener rebuilds."""


class StoreReadOnly(KvError):
    """Syncs failed again and again, or recovery was impossible: nothing is written any more, reading goes on.

    Ends when the operator has mended the disk and starts the server anew.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The store is read-only: {reason}")
        self.reason = reason


class CorruptJournal(KvError):
    """The journal is damaged before its end: nothing was truncated. The message says where and what to do."""


class UnsupportedFormat(KvError):
    """Written by a newer or a different program; refused rather than guessed at."""
