"""`vaultaire backup --check`: is every byte that the backups at a place need there, and right?

Reads each piece once, however many backups and files it belongs to; changes nothing. A backup that passes can be
restored: its manifest is signed off, and every piece has the bytes of its name. What was damaged in the store already
when the backup was taken is no fault of the backup, and is told apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vaultaire.backup.destination import backup_numbers, iterate_backups, read_destination
from vaultaire.backup.manifest import DamagedManifest, Manifest, digest_of
from vaultaire.backup.place import BackupError, ItemMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vaultaire.backup.manifest import Piece
    from vaultaire.backup.place import Place


@dataclass(slots=True)
class BackupState:
    """One backup, as it was found."""

    number: int
    created_ms: int = 0
    sequence: int = 0
    total_bytes: int = 0
    files: int = 0
    has_secrets: bool = False
    problem: str | None = None  # with its manifest: then nothing else is known
    damaged: dict[str, str] = field(default_factory=dict)  # path -> what is wrong with it at the destination
    damaged_in_store: dict[str, str] = field(
        default_factory=dict
    )  # path -> what was wrong when it was copied

    @property
    def is_whole(self) -> bool:
        return self.problem is None and not self.damaged


@dataclass(slots=True)
class CheckReport:
    url: str
    backups: list[BackupState] = field(default_factory=list)
    pieces: int = 0
    read_bytes: int = 0

    @property
    def is_whole(self) -> bool:
        return all(backup.is_whole for backup in self.backups)


def describe_backups(place: Place) -> CheckReport:
    """What there is, by the manifests alone. Raises BackupError."""
    read_destination(place)
    return CheckReport(place.url, [_state(number, found, {}) for number, found in iterate_backups(place)])


def check_backups(
    place: Place, number: int | None = None, *, progress: Callable[[CheckReport], None] = lambda _: None
) -> CheckReport:
    """Read and verify every piece of all backups, or of one. Raises BackupError if there is nothing to check."""
    read_destination(place)
    numbers = backup_numbers(place)
    if not numbers or number not in (None, *numbers):
        raise BackupError(f"{place.url} holds no {'backup' if number is None else f'backup {number}'}")
    report = CheckReport(place.url)
    problems: dict[str, str | None] = {}  # by digest
    for n, found in iterate_backups(place):
        if number not in (None, n):
            continue
        if isinstance(found, Manifest):
            for piece in found.pieces():
                if piece.digest not in problems:
                    problems[piece.digest] = piece_problem(place, piece)
                    report.pieces += 1
                    report.read_bytes += piece.length
                    progress(report)
        report.backups.append(_state(n, found, problems))
    return report


def piece_problem(place: Place, piece: Piece) -> str | None:
    """What is wrong with a piece at the destination; None: nothing. Raises BackupError if it cannot be asked."""
    try:
        data = place.get(piece.name)
    except ItemMissing:
        return f"piece {piece.name} is missing"
    if len(data) != piece.length or digest_of(data) != piece.digest:
        return f"piece {piece.name} is damaged"
    return None


def _state(number: int, found: Manifest | DamagedManifest, problems: Mapping[str, str | None]) -> BackupState:
    if isinstance(found, DamagedManifest):
        return BackupState(number, problem=str(found))
    damaged = {
        path: problem
        for path, pieces in found.files.items()
        for piece in pieces
        if (problem := problems.get(piece.digest)) is not None
    }
    return BackupState(
        number=number,
        created_ms=found.created_ms,
        sequence=found.position.sequence,
        total_bytes=found.total_bytes,
        files=len(found.files),
        has_secrets=found.has_secrets,
        damaged=damaged,
        damaged_in_store=dict(found.damaged),
    )
