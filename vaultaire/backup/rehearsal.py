"""A place at which nothing changes: what is written to it is remembered, as far as a backup reads it again.

For `vaultaire backup --dry-run`: the very code that takes backups runs, so what it reports is what would happen. Bytes
of pieces are not kept (a backup does not read its own), those of manifests are.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from vaultaire.backup.place import BackupError, ItemMissing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from vaultaire.backup.place import Buffer, Place


class Rehearsal:
    """Implements `vaultaire.backup.place.Place` over another one, or over an empty one (None)."""

    def __init__(self, url: str, place: Place | None) -> None:
        self._url = url
        self._place = place
        self._sizes: dict[str, int] = {}
        self._contents: dict[str, bytes] = {}
        self._removed: set[str] = set()

    @property
    def url(self) -> str:
        return self._url

    def writing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def put(self, name: str, data: Buffer, *, replace: bool = False) -> None:
        self._removed.discard(name)
        self._sizes[name] = len(data)
        if not name.startswith("pieces/"):
            self._contents[name] = bytes(data)

    def put_new(self, name: str, data: Buffer) -> None:
        if self.size(name) is not None:
            raise BackupError(f"{self._url}/{name} is there already; is another backup under way?")
        self.put(name, data)

    def get(self, name: str) -> bytes:
        if name in self._contents:
            return self._contents[name]
        if self._place is None or name in self._removed:
            raise ItemMissing(self._url, name)
        return self._place.get(name)

    def size(self, name: str) -> int | None:
        if name in self._sizes:
            return self._sizes[name]
        return None if self._place is None or name in self._removed else self._place.size(name)

    def items(self, folder: str) -> Iterator[tuple[str, int]]:
        there = () if self._place is None else self._place.items(folder)
        yield from ((name, size) for name, size in there if name not in self._removed | self._sizes.keys())
        yield from [(name, size) for name, size in self._sizes.items() if name.startswith(f"{folder}/")]

    def remove(self, name: str) -> None:
        self._sizes.pop(name, None)
        self._contents.pop(name, None)
        self._removed.add(name)

    def flush(self) -> None:
        pass
