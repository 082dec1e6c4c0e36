"""What a backup has to copy, and which old ones may go. Pure: nothing here reads or writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultaire.backup.manifest import length_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vaultaire.backup.manifest import Files, Manifest, Piece

PIECE_BYTES: Final = 64 << 20  # of what is cut; a pack is one piece whatever its length
LEAST_JOURNAL_BYTES: Final = 256 << 20  # a restore replays so much before a new checkpoint is worth its copy


def may_continue(
    base: Manifest | None, segments: Sequence[int], checkpoint_path: str | None, checkpoint_bytes: int
) -> bool:
    """Shall the journal be copied on from where `base` ends, instead of the newest checkpoint and what follows it?

    Yes while the store still has that part of its journal, unless there is a checkpoint that `base` does not hold and
    the journal to be replayed has outgrown it: so a backup costs what has changed, and a restore stays bounded.
    """
    if base is None or base.position.segment not in segments:
        return False
    if checkpoint_path is None or checkpoint_path in base.files:
        return True
    journal = sum(length_of(pieces) for path, pieces in base.files.items() if path.startswith("journal/"))
    return journal < max(LEAST_JOURNAL_BYTES, checkpoint_bytes)


@dataclass(frozen=True, slots=True)
class Missing:
    """Of a file [0, length): what the base has, and where the rest begins."""

    kept: tuple[Piece, ...]
    start: int


def missing_of(base: Files, path: str, length: int) -> Missing:
    """Files only grow while they are backed up; one that is shorter than before is another one, and is copied whole."""
    kept = base.get(path, ())
    start = length_of(kept)
    return Missing(kept, start) if start <= length else Missing((), 0)


def cut_range(start: int, end: int, piece_bytes: int = PIECE_BYTES) -> Iterator[tuple[int, int]]:
    """(offset, length) of the pieces of [start, end)."""
    for offset in range(start, end, piece_bytes):
        yield offset, min(piece_bytes, end - offset)


def superfluous(numbers: Iterable[int], keep: int) -> list[int]:
    """The backups that go when the newest `keep` (at least 1) stay, oldest first."""
    return sorted(numbers)[:-keep]
