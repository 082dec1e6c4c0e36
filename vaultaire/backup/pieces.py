"""Pieces at a place: written once, never twice; removed when no backup names them. And the report of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vaultaire.backup.destination import backup_numbers, read_manifest
from vaultaire.backup.manifest import DamagedManifest, Piece, digest_of, manifest_name
from vaultaire.backup.plan import superfluous

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultaire.backup.place import Buffer, Place


@dataclass(slots=True)
class Report:
    """What a backup came to. Bytes are those of files."""

    url: str
    number: int = 0
    sequence: int = 0
    files: int = 0
    packs: int = 0
    total_bytes: int = 0  # of the backup
    new_bytes: int = 0  # written to the destination by this run
    read_bytes: int = 0  # read from the store by this run
    base: int | None = None
    has_secrets: bool = True
    removed: list[int] = field(default_factory=list)  # older backups
    damaged: dict[str, str] = field(default_factory=dict)  # path -> what is wrong with it in the store
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


class PieceWriter:
    """Puts pieces to a place that does not have them yet. Memory: some 150 bytes per piece that is there."""

    def __init__(
        self, place: Place, report: Report, *, compare: bool, progress: Callable[[Report], None]
    ) -> None:
        """`compare`: read pieces that are there, and replace those that are wrong. `progress` follows each piece."""
        self._place = place
        self._report = report
        self._compare = compare
        self._progress = progress
        self._there = dict(place.items("pieces"))  # name -> size
        self._done: set[str] = set()  # put, or found right, by this run

    def is_there(self, piece: Piece) -> bool:
        """By name and size."""
        return self._there.get(piece.name) == piece.length

    def add(self, data: Buffer) -> Piece:
        """The piece of these bytes; at the place on return (durable after `flush`). Raises BackupError."""
        piece = Piece(len(data), digest_of(data))
        self._report.read_bytes += len(data)
        if piece.name not in self._done:
            if piece.name not in self._there:
                self._put(piece, data)
            elif not self.is_there(piece) or (self._compare and not self._is_intact(piece)):
                self._put(piece, data, replace=True)
            self._done.add(piece.name)
        self._progress(self._report)
        return piece

    def _put(self, piece: Piece, data: Buffer, *, replace: bool = False) -> None:
        self._place.put(piece.name, data, replace=replace)
        self._report.new_bytes += len(data)

    def _is_intact(self, piece: Piece) -> bool:
        return digest_of(self._place.get(piece.name)) == piece.digest


def prune(place: Place, keep: int, report: Report) -> None:
    """Remove all but the newest `keep` backups, and every piece that none of those needs. Raises BackupError.

    Manifests go first: cut off in between, some pieces stay for the next call.
    """
    if report.damaged:
        report.warn("files of the store are damaged: older backups may hold them whole, so none was removed")
        return
    numbers = backup_numbers(place)
    gone = superfluous(numbers, keep)
    needed: set[str] = set()
    for number in numbers[len(gone) :]:
        try:
            needed.update(piece.name for piece in read_manifest(place, number)[0].pieces())
        except DamagedManifest as error:
            report.warn(f"{error}: nothing was removed, for it cannot be said what that one needs")
            return
    for number in gone:
        place.remove(manifest_name(number))
    place.flush()
    for name, _ in list(place.items("pieces")):
        if name not in needed:
            place.remove(name)
    place.flush()
    report.removed = gone
