"""Requests from the grammar, for a bounded time, and all that ever did harm: never a 500, a hang, or a lost connection.

`python -m tools.fuzz.requests` runs the same for as long as one likes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.s3.grammar import Draft, hunt, judge, new_place

SECONDS = float(os.environ.get("VAULTAIRE_FUZZ_SECONDS", "5"))
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))


@pytest.mark.subset
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_does_no_harm(root, path):
    assert judge(Draft.from_json(path.read_text()), root, new_place(root)) is None


def test_requests_from_the_grammar_do_no_harm(root):
    count, finding = hunt(root, SECONDS)
    assert finding is None, f"{finding.problem}\n{finding.draft.to_json()}"
    assert count > 0


def test_a_draft_survives_its_file():
    draft = Draft("PUT", "/$BUCKET/k", [("a", "b")], [("c", "d")], b"\xff\x00", "query", "chunked", [(1, 2)])
    assert Draft.from_json(draft.to_json()) == draft
