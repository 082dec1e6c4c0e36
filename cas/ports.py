"""What the chunk store needs from others: an ordered map, a place for packs, a register of running operations.

Protocols only. `index.kv` satisfies the first three structurally (a typing test proves it). No method assumes a
local file, a single process or a cheap round trip: an object store and a SQL database can stand behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    Buffer = bytes | bytearray | memoryview

T = TypeVar("T")
R = TypeVar("R")


class Reader(Protocol):
    """One consistent state of the map; one thread at a time."""

    @property
    def sequence(self) -> int: ...

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """In the order of `keys`; one round trip. Sorted keys are cheapest."""
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
        """(key, value) for start <= key < stop, lazily; only while the snapshot or transaction is open."""
        ...


class Transaction(Reader, Protocol):
    """A `Reader` that sees its own writes. The function that has it may be run more than once."""

    def put(self, table: str, key: bytes, value: bytes) -> None: ...

    def delete(self, table: str, key: bytes) -> bool: ...


class OrderedMap(Protocol):
    """Serializable; a value comes back as it was put or an error is raised."""

    def snapshot(self) -> AbstractContextManager[Reader]: ...

    def commit(self, fn: Callable[[Transaction], T]) -> T:
        """Atomic and durable on return."""
        ...


class PackWriter(Protocol):
    """One pack while it grows. `write` may be called by several threads at once for ranges that do not overlap."""

    @property
    def ends_at_sync(self) -> bool:
        """True for an object store: what was made durable cannot grow, so the pack is sealed by its first sync."""
        ...

    def prepare(self, length: int) -> None:
        """Make room for the pack to reach `length` bytes. Raises NoSpace; then nothing has changed."""
        ...

    def write(self, offset: int, parts: Sequence[Buffer]) -> None:
        """Put `parts` one after the other at `offset`. Keeps no reference. Raises NoSpace or OSError."""
        ...

    def sync(self) -> None:
        """Every write that returned before is durable, and so is the pack's name.

        Raises OSError; then nothing written since the last success can be trusted, whatever a second call says.
        """
        ...

    def finish(self, length: int) -> None:
        """Cut the pack at `length` bytes, durably: from now on it is immutable. Raises OSError, as `sync`."""
        ...

    def close(self) -> None:
        """Let go of resources; idempotent."""
        ...


class PackPlace(Protocol):
    """A place for packs. Thread-safe. A pack is known by its number (u64), which is never used twice."""

    def create(self, pack: int) -> PackWriter:
        """A new, empty pack. Raises NoSpace, OSError (FileExistsError: the number was used before)."""
        ...

    def read(self, pack: int, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, length), in order; fewer where the pack ends. Works on growing packs too.

        Raises MissingPack, PackUnreadable.
        """
        ...

    def length(self, pack: int) -> int:
        """Bytes the pack holds, preallocated ones included. Raises MissingPack."""
        ...

    def written_at(self, pack: int) -> float:
        """When something was last written to it, in seconds since 1970. Raises MissingPack."""
        ...

    def packs(self, writer: int | None = None) -> Iterator[int]:
        """The packs that exist (of one writer), ascending."""
        ...

    def seal_at(self, pack: int, length: int, footer: bytes) -> None:
        """Cut a pack that nobody writes at `length`, append `footer`, durably. Raises MissingPack, OSError."""
        ...

    def remove(self, pack: int) -> None:
        """Remove a pack, durably; a missing one is no error."""
        ...

    def close(self) -> None:
        """Let go of what is open for reading; the next read opens it again."""
        ...


class MendablePlace(PackPlace, Protocol):
    """A place whose sealed packs can be mended in place; an object store mends by itself and is none."""

    def rewrite(self, pack: int, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Overwrite the bytes at each offset, durably. Raises MissingPack, OSError (then some may be written)."""
        ...

    def drop_cached(self, pack: int) -> None:
        """The next reads come from the device, not from what the system remembers, as far as it can be had."""
        ...


class Sidecars(Protocol):
    """Files beside packs, one per pack at most. Thread-safe. A sidecar is there whole, or not."""

    def put(self, pack: int, data: bytes) -> None:
        """Make or replace it, durably and atomically. Raises NoSpace, OSError."""
        ...

    def read(self, pack: int, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, length), in order; fewer where it ends. Raises MissingSidecar, PackUnreadable."""
        ...

    def length(self, pack: int) -> int:
        """Bytes it holds. Raises MissingSidecar."""
        ...

    def remove(self, pack: int) -> None:
        """Remove it, durably; a missing one is no error."""
        ...

    def lengths(self) -> Iterator[tuple[int, int]]:
        """(pack, bytes) of each that exists."""
        ...


class Operations(Protocol):
    """The register of running operations: collection waits for those that began before it (DESIGN, retire first)."""

    def begin(self) -> int:
        """Called before an operation's first snapshot. Returns the token that `end` wants."""
        ...

    def end(self, token: int) -> None:
        """What the operation relied on is committed or forgotten."""
        ...


class RunningOperations(Protocol):
    """The same register, as the collector sees it: the operations of all processes."""

    def oldest(self) -> int | None:
        """An epoch not above that in which the oldest operation still running began; None: none is running.

        Never blocks. An operation that begins while this looks has its first snapshot after every commit that was
        made before.
        """
        ...


class ParallelMap(Protocol):
    """`map`, possibly in several threads: results in the order of `items`; the first error is raised."""

    def __call__(self, fn: Callable[[T], R], items: Iterable[T], /) -> Iterable[R]: ...
