"""Wildcards: against a naive definition, and never expensive."""

from __future__ import annotations

import time
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.glob import Glob, wildcards

patterns = st.text("ab*?A", max_size=12)
texts = st.text("abA?*", max_size=14)


def naive(pattern: str, text: str, *, single: bool = True) -> bool:
    """The definition: a star is nothing, or one character and the star again."""

    @cache
    def match(i: int, j: int) -> bool:
        if i == len(pattern):
            return j == len(text)
        if pattern[i] == "*":
            return match(i + 1, j) or (j < len(text) and match(i, j + 1))
        if j == len(text):
            return False
        return (pattern[i] == text[j] or (single and pattern[i] == "?")) and match(i + 1, j + 1)

    return match(0, 0)


@settings(deadline=None, max_examples=1000)
@given(patterns, texts)
def test_a_glob_matches_what_the_definition_says(pattern, text):
    assert Glob(pattern).matches(text) is naive(pattern, text)
    assert Glob(pattern, single=False).matches(text) is naive(pattern, text, single=False)
    assert Glob(pattern, fold=True).matches(text) is naive(pattern.lower(), text.lower())


@given(st.lists(st.sampled_from(["a", "b", "*", "?", "${*}", "${?}"]), max_size=8), texts)
def test_wildcards_that_stand_for_themselves(pieces, text):
    plain = {"${*}": "*", "${?}": "?"}
    glob = Glob("".join(plain.get(piece) or wildcards(piece) for piece in pieces), inner=True)
    stand_ins = {"${*}": "[", "${?}": "]"}
    pattern = "".join(stand_ins.get(piece, piece) for piece in pieces)
    assert glob.matches(text) is naive(pattern, text.replace("*", "[").replace("?", "]"))


@given(texts)
def test_a_pattern_without_wildcards_is_fixed(text):
    assert Glob(text).fixed is (not set(text) & {"*", "?"})
    assert Glob(text, single=False).fixed is ("*" not in text)


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 2000 + "b", "*?a" * 2000 + "b", "a*" * 3000 + "?", "?" * 5000 + "*b", "*" * 10_000 + "?b"],
)
def test_no_pattern_makes_a_text_expensive(pattern):
    glob, text = Glob(pattern), "a" * 8000
    began = time.process_time()
    assert not glob.matches(text) or pattern.endswith("?")
    assert time.process_time() - began < 1.0
