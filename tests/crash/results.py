"""RESULTS.md: one row per run of a laboratory, appended by the run itself (`--record`), resumed by seed range.

    python -m tests.crash.results                 what was run so far, in sums
    python -m tests.crash.results NAME            the first seed of NAME that no row covers yet

A row is written only after its run has ended, whatever it found: a run with findings is a row too.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
REPOSITORY = Path(__file__).resolve().parents[2]
COUNT = re.compile(r"\b(\d[\d,]*) ([a-z]+)")
FINDINGS = re.compile(r"\b[1-9][\d,]* findings")
REMARK = re.compile(r"\([^)]*\)|[;:].*")  # in a row's counts


@dataclass(frozen=True, slots=True)
class Run:
    """`what` names the laboratory, `counts` says how much was done: "1,000 kills, 9,120 acknowledged"."""

    what: str
    seeds: range
    counts: str
    faults: int
    command: str

    def row(self, today: str, commit: str) -> str:
        seeds = f"{self.seeds.start}-{self.seeds.stop - 1}"
        cells = (today, commit, self.what, seeds, self.counts, str(self.faults), f"`{self.command}`")
        return "| " + " | ".join(cells) + " |\n"


def parse_seeds(text: str) -> range:
    """ "7" or "0-99", both ends included. Raises ValueError."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def record(run: Run, path: Path = RESULTS) -> None:
    """Append one row. The commit is marked with "+" if the working tree differs from it."""
    changed = "+" if _git("status", "--porcelain", "--untracked-files=no", "--", "*.py") else ""
    commit = _git("rev-parse", "--short=9", "HEAD") + changed
    with open(path, "a") as file:
        file.write(run.row(datetime.datetime.now(datetime.UTC).date().isoformat(), commit))


def found_something(said: str) -> bool:
    """Does a laboratory's closing line tell of findings? One that only broke down says none."""
    return FINDINGS.search(said) is not None


def rows(path: Path = RESULTS) -> list[list[str]]:
    """The cells of every row that `record` wrote."""
    found = [
        [cell.strip() for cell in line.strip("|\n ").split("|")] for line in path.read_text().splitlines()
    ]
    return [cells for cells in found if len(cells) == 7 and re.fullmatch(r"\d{4}-\d\d-\d\d", cells[0])]


def next_seed(what: str, path: Path = RESULTS) -> int:
    """The first seed that no run of `what` has had."""
    done = [parse_seeds(cells[3]) for cells in rows(path) if cells[2] == what]
    return max((seeds.stop for seeds in done), default=0)


def sums(path: Path = RESULTS) -> dict[str, dict[str, int]]:
    """Per laboratory: runs, findings, and every count by its noun; remarks in brackets or behind a colon do not count."""
    totals: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for cells in rows(path):
        totals[cells[2]]["runs"] += 1
        totals[cells[2]]["findings"] += int(cells[5])
        for number, noun in COUNT.findall(REMARK.sub("", cells[4])):
            totals[cells[2]][noun] += int(number.replace(",", ""))
    return totals


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> int:
    if len(sys.argv) > 1:
        print(next_seed(sys.argv[1]))
        return 0
    for what, counts in sorted(sums().items()):
        print(f"{what}: " + ", ".join(f"{number:,} {noun}" for noun, number in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
