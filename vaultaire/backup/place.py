"""Where backups are kept: named items, each written whole or not at all.

Names are relative paths with "/" as we make them (lower-case hex, digits, dots). The contract is what both a folder
and an S3 bucket can keep: no append, no rename, no lock that outlives its holder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vaultaire.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    Buffer = bytes | memoryview


class BackupError(StoreError):
    """A backup cannot be taken, read or restored. The message says why, and what to do next."""


class DestinationFull(BackupError):
    """No room at the destination. The backups that were there are whole, and what was copied is kept for the next."""

    def __init__(self, where: str, needed: int, free: int | None) -> None:
        known = "" if free is None else f" ({needed:,} bytes were to be written, {free:,} are free)"
        super().__init__(
            f"{where} is full{known}. The backups in it are intact, this one is not complete; make room and run the "
            "same command again: it goes on where it stopped"
        )


class ItemMissing(BackupError):
    def __init__(self, where: str, name: str) -> None:
        super().__init__(f"{where}: {name} is missing")
        self.name = name


class Place(Protocol):
    """Thread-safe. Raises BackupError (DestinationFull, ItemMissing) and nothing else."""

    @property
    def url(self) -> str:
        """For messages: how the user named it."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Held by whoever adds or removes backups. Raises BackupError if somebody else is seen to be at it."""
        ...

    def put(self, name: str, data: Buffer, *, replace: bool = False) -> None:
        """All of `data` under `name`, or nothing. An item that is there is kept, unless `replace`. See `flush`."""
        ...

    def put_new(self, name: str, data: Buffer) -> None:
        """As `put`, but raises BackupError if there is such an item."""
        ...

    def get(self, name: str) -> bytes:
        """Raises ItemMissing."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of the item; None: there is none."""
        ...

    def items(self, folder: str) -> Iterator[tuple[str, int]]:
        """(name, size) of all items below `folder` ("backups"), in any order."""
        ...

    def remove(self, name: str) -> None:
        """No error if it is gone already."""
        ...

    def flush(self) -> None:
        """All puts and removals that returned before survive a power cut."""
        ...
