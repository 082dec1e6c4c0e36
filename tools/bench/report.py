"""Rows of a run: collected while it goes, shown as a table with ratios, kept as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of ours, and that of the yardstick if there is one. `ratio` above 1 is in our favour."""

    name: str
    unit: str
    ours: float
    other: float | None = None
    smaller_is_better: bool = False
    wanted_ratio: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        if not self.other or not self.ours:
            return None
        return self.other / self.ours if self.smaller_is_better else self.ours / self.other

    @property
    def reached(self) -> bool | None:
        if self.wanted_ratio is None or self.ratio is None:
            return None
        return self.ratio >= self.wanted_ratio


@dataclass(slots=True)
class Section:
    title: str
    other: str  # the yardstick's name
    rows: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    quick: bool
    sections: list[Section] = field(default_factory=list)
    console: Console = field(default_factory=Console)

    def section(self, title: str, other: str = "") -> Section:
        self.sections.append(Section(title, other))
        self.console.print(f"[bold]{title}[/bold]")
        return self.sections[-1]

    def add(self, section: Section, row: Row) -> None:
        section.rows.append(row)
        shown = f"  {row.name}: {number(row.ours)} {row.unit}"
        if row.other is not None:
            shown += f", {section.other} {number(row.other)}"
        self.console.print(shown, highlight=False)

    def print(self) -> None:
        for section in self.sections:
            self.console.print(_table(section))

    def write_json(self, path: Path) -> None:
        machine = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
            "load": os.getloadavg(),
        }
        sections = [
            {
                "title": s.title,
                "other": s.other,
                "rows": [{**asdict(row), "ratio": row.ratio, "reached": row.reached} for row in s.rows],
            }
            for s in self.sections
        ]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        document = {"date": now, "quick": self.quick, "machine": machine, "sections": sections}
        path.write_text(json.dumps(document, indent=2) + "\n")


def _table(section: Section) -> Table:
    table = Table(title=section.title, title_justify="left", title_style="bold")
    table.add_column("measured")
    for heading in ("vaultaire", section.other, "ratio", "wanted"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    table.add_column("note")
    for row in section.rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        style = {None: "", True: "green", False: "red"}[row.reached]
        wanted = "" if row.wanted_ratio is None else f"{row.wanted_ratio:.2f}"
        other = "" if row.other is None else number(row.other)
        table.add_row(row.name, number(row.ours), other, ratio, wanted, row.unit, row.note, style=style)
    return table


def number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
