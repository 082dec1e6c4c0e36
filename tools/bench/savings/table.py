"""Rows of the table, their ratios, and the floors that they are held against. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.bench.savings.corpus import Corpus
    from tools.bench.savings.stores import Stored

OURS = "vaultaire"
MEAN_FLOORS = {
    "off": 1.35,
    "auto": 1.7,
    "on": 1.7,
}  # ours / best peer, over all corpora, by the bucket's prefixes
CORPUS_FLOOR = 0.95
RANDOM_CEILING = 1.005  # stored / logical
ENCRYPTED_CEILING = 2.0  # chunks per MiB


@dataclass(slots=True)
class Row:
    corpus: Corpus
    versions: int = 0
    logical_bytes: int = 0
    stored: dict[str, Stored] = field(default_factory=dict)  # by store
    seconds: float = 0.0

    def ratio(self, store: str) -> float:
        """Logical / stored: more is better."""
        return self.logical_bytes / self.stored[store].stored_bytes

    def cpu(self, store: str) -> float:
        """Seconds per GB (10^9) of logical data."""
        return self.stored[store].cpu_seconds * 1e9 / self.logical_bytes

    @property
    def peers(self) -> list[str]:
        return [name for name in self.stored if name != OURS]

    @property
    def gain(self) -> float:
        """Ours / best peer; 1 without peers."""
        best = max(map(self.ratio, self.peers), default=self.ratio(OURS))
        return self.ratio(OURS) / best


def geometric_mean(rows: Sequence[Row]) -> float:
    """Of the gains of all corpora that are not there for a bound of their own; 1 of none."""
    gains = [math.log(row.gain) for row in rows if not row.corpus.bound]
    return math.exp(sum(gains) / len(gains)) if gains else 1.0


def failures(rows: Sequence[Row], mean_floor: float, *, complete: bool) -> list[str]:
    """What is below its floor. The mean is held against one only if all corpora were measured."""
    found = []
    mean = geometric_mean(rows)
    if complete and mean < mean_floor:
        found.append(f"the geometric mean is {mean:.3f}, and should be {mean_floor:g}")
    for row in rows:
        name = row.corpus.name
        if row.gain < CORPUS_FLOOR:
            found.append(f"{name} is {row.gain:.3f} of the best peer, and should be {CORPUS_FLOOR}")
        if row.corpus.bound == "random" and row.ratio(OURS) * RANDOM_CEILING < 1:
            found.append(
                f"{name} takes {1 / row.ratio(OURS):.4f} of its size, and should be {RANDOM_CEILING}"
            )
        chunks = row.stored[OURS].chunks_per_mib
        if row.corpus.bound == "encrypted" and chunks > ENCRYPTED_CEILING:
            found.append(f"{name} has {chunks:.2f} chunks per MiB, and should have {ENCRYPTED_CEILING:g}")
    return found


def header(stores: Sequence[str]) -> list[str]:
    """Two lines of a table in Markdown, which `line` continues."""
    names = ["corpus", "states", "logical MB", "stored MB", *stores, "ours / best", "chunks / MiB"]
    names += [f"CPU {name}" for name in stores]
    return ["| " + " | ".join(names) + " |", "|---" + "|---:" * (len(names) - 1) + "|"]


def line(row: Row) -> str:
    ours = row.stored[OURS]
    cells = [
        row.corpus.name,
        str(row.versions),
        f"{row.logical_bytes / 1e6:.0f}",
        f"{ours.stored_bytes / 1e6:.1f}",
    ]
    cells += [f"{row.ratio(name):.2f}" for name in row.stored]
    cells += [f"{row.gain:.2f}", f"{ours.chunks_per_mib:.1f}"]
    cells += [f"{row.cpu(name):.1f}" for name in row.stored]
    return "| " + " | ".join(cells) + " |"


def to_json(row: Row) -> dict[str, object]:
    return {
        "corpus": row.corpus.name,
        "about": row.corpus.about,
        "real": row.corpus.real,
        "bound": row.corpus.bound or None,
        "versions": row.versions,
        "logical_bytes": row.logical_bytes,
        "gain": row.gain,
        "chunks_per_mib": row.stored[OURS].chunks_per_mib,
        "collected_bytes": row.stored[OURS].collected_bytes,
        "database_bytes": row.stored[OURS].database_bytes,
        "seconds": row.seconds,
        "stores": {
            name: {
                "stored_bytes": stored.stored_bytes,
                "ratio": row.ratio(name),
                "cpu_s_per_gb": row.cpu(name),
            }
            for name, stored in row.stored.items()
        },
    }
