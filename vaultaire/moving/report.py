"""What a move did, and what it did not: counted as it happens, printed at the end, as text or JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAMED: Final = 1000  # failures kept by name; the others are counted


@dataclass(frozen=True, slots=True)
class Failed:
    key: str
    why: str


@dataclass(slots=True)
class Report:
    """Fields are the keys of `--json`; sizes in bytes."""

    source: str
    target: str
    dry_run: bool = False
    objects: int = 0  # moved now, versions included
    moved_bytes: int = 0  # of these
    delete_markers: int = 0
    done_objects: int = 0  # that were there already: nothing of them was sent
    done_bytes: int = 0
    refreshed: int = 0  # the bytes were there, and got newer metadata
    kept: int = 0  # the destination has something else, which was not overwritten
    changed: int = 0  # times that an object changed while it was read, and was read anew
    retries: int = 0
    new_stored_bytes: int = 0  # what an import added to the store
    seconds: float = 0.0
    verified: dict[str, int] = field(default_factory=dict)  # how many objects by which proof
    notes: dict[str, int] = field(default_factory=dict)  # what was not taken over, and how often
    failed: int = 0
    failures: list[Failed] = field(default_factory=list)
    kept_keys: list[str] = field(default_factory=list)

    def prove(self, how: str) -> None:
        self.verified[how] = self.verified.get(how, 0) + 1

    def note(self, what: str, count: int = 1) -> None:
        self.notes[what] = self.notes.get(what, 0) + count

    def fail(self, key: bytes, why: str) -> None:
        self.failed += 1
        if len(self.failures) < MAX_NAMED:
            self.failures.append(Failed(key.decode(errors="backslashreplace"), why))

    def keep(self, key: bytes) -> None:
        self.kept += 1
        if len(self.kept_keys) < MAX_NAMED:
            self.kept_keys.append(key.decode(errors="backslashreplace"))


@dataclass(slots=True)
class Pace:
    """How far a move has come: for the line on the terminal."""

    found_objects: int = 0  # that may have to be moved, as far as listed
    found_bytes: int = 0
    handled_objects: int = 0  # of these
    moved_bytes: int = 0  # parts of objects included
    listed: bool = False  # all is listed: what is left can be told

    def find(self, sizes: Sequence[int]) -> None:
        """Versions of these sizes may have to be moved."""
        self.found_objects += len(sizes)
        self.found_bytes += sum(sizes)

    def spare(self, size: int) -> None:
        """A closer look said that it need not be."""
        self.found_bytes -= size

    def line(self, report: Report, seconds: float) -> str:
        from vaultaire.cli.output import binary_size

        rate = self.moved_bytes / seconds if seconds > 0 else 0.0
        text = f"{self.handled_objects:,} of {self.found_objects:,}{'' if self.listed else '+'} objects, "
        text += f"{binary_size(self.moved_bytes)}, {binary_size(int(rate))}/s"
        left = self.found_bytes - self.moved_bytes
        if self.listed and rate > 0 and left > 0:
            text += f", {duration(left / rate)} left"
        if report.done_objects:
            text += f"; {report.done_objects:,} were there"
        return text + (f"; {report.failed:,} failed" if report.failed else "")


def duration(seconds: float) -> str:
    """8 s, 5 min, 2 h 10 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
