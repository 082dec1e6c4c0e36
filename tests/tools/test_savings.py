"""The benchmark of savings: its corpora are the same each time, its floors bite, and it runs end to end.

All of it, in about 15 minutes: python -m tools.bench.savings
"""

from __future__ import annotations

import hashlib
import itertools
import random
import sys
from typing import TYPE_CHECKING

import pytest

from tools.bench.savings import __main__ as savings
from tools.bench.savings import source
from tools.bench.savings.corpus import Corpus, Site
from tools.bench.savings.stores import Stored
from tools.bench.savings.table import OURS, Row, failures, geometric_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GENERATED = [
    "mysqldump",
    "mysqldump-rows",
    "pg-dump",
    "sqlite",
    "log",
    "csv",
    "json",
    "mbox",
    "tensors-f32",
    "tensors-bf16",
    "tensors-trained",
    "random",
    "noise",
]
SCALE = 0.01


@pytest.mark.parametrize("name", GENERATED)
def test_a_corpus_is_the_same_each_time_and_changes_a_little_between_versions(name, tmp_path):
    corpus = savings.CORPORA[name]
    first, second = (digests(corpus, tmp_path / side) for side in "ab")
    assert first == second
    changes = sum(before != after for before, after in itertools.pairwise(first))
    assert changes == (1 if name == "random" else len(first) - 1)


def digests(corpus: Corpus, work: Path) -> list[str]:
    return [hashlib.sha256(b"".join(map(read, files(site)))).hexdigest() for site in states(corpus, work)]


def states(corpus: Corpus, work: Path) -> Iterator[Path]:
    site = Site(work / "versions", work / "scratch", work, SCALE)
    site.folder.mkdir(parents=True)
    site.scratch.mkdir()
    for _ in corpus.versions(site):
        yield site.folder


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read(path: Path) -> bytes:
    return path.name.encode() + path.read_bytes()


def test_a_folder_holds_a_later_version_of_a_tree_and_nothing_else(tmp_path):
    tree = {
        f"p{n}/f{m}": random.Random(n).randbytes(3000) + b"\nline" * 50 for n in range(9) for m in range(9)
    }
    newer = source.upgrade(tree, random.Random(1), 0.5, depth=1)
    assert newer == source.upgrade(tree, random.Random(1), 0.5, depth=1)
    assert 0 < sum(newer.get(path) == data for path, data in tree.items()) < len(tree)
    source.files(tree, tmp_path)
    source.files(newer, tmp_path)
    assert {str(path.relative_to(tmp_path)): path.read_bytes() for path in files(tmp_path)} == newer


def row(name: str, ours: int, peer: int, bound: str = "", chunks: float = 0.0) -> Row:
    stored = {OURS: Stored(ours, 1.0, chunks), "fixed": Stored(peer, 1.0), "restic": Stored(peer * 2, 1.0)}
    return Row(Corpus(name, "", lambda _: iter(()), bound=bound), 1, 1000, stored)


def test_the_gain_is_over_the_best_peer_and_bounds_are_left_out_of_the_mean():
    rows = [row("a", 100, 200), row("b", 100, 800), row("noise", 1000, 1000, "random")]
    assert [r.gain for r in rows] == [2, 8, 1]
    assert geometric_mean(rows) == pytest.approx(4)
    assert failures(rows, 3.9, complete=True) == []


def test_each_floor_is_named_when_it_is_not_reached():
    rows = [
        row("a", 100, 94),
        row("noise", 1006, 1000, "random"),
        row("locked", 1000, 1000, "encrypted", 2.1),
    ]
    found = failures(rows, 1.35, complete=True)
    assert [line.split()[0] for line in found] == ["the", "a", "noise", "locked"]
    assert not any(line.startswith("the") for line in failures(rows, 1.35, complete=False))


def test_it_runs_end_to_end_and_says_which_peer_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(savings.stores, "tool", missing)
    arguments = [
        "savings",
        "--only",
        "log",
        "--scale",
        "0.02",
        "--peers",
        "fixed",
        "restic",
        "--work",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", [*arguments, "--json", str(tmp_path / "rows.json")])
    assert savings.main() == 2
    said = capsys.readouterr().out
    assert "not run: restic" in said
    cells = next(line for line in said.splitlines() if line.startswith("| log |")).split("|")
    assert int(cells[2]) == 9
    assert float(cells[5]) > 3  # nine versions, each holding those before
    assert '"corpus": "log"' in (tmp_path / "rows.json").read_text()
    assert not list(tmp_path.glob("vaultaire-savings-*"))


def missing(name: str) -> str:
    raise FileNotFoundError(f"{name} is not installed")
