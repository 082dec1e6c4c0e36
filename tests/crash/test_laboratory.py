"""The laboratory's own parts: what is allowed after a crash, and the table of runs."""

from __future__ import annotations

import pytest

from tests.crash import results
from tests.crash.knowledge import Knowledge
from tests.crash.model import (
    UNKNOWN,
    Abort,
    Begin,
    Body,
    Complete,
    Delete,
    DeleteVersion,
    Put,
    PutPart,
    State,
    Version,
    apply,
    same,
)

A, B = Body(1, b"a"), Body(2, b"b")


def told(*messages: tuple[object, ...]) -> Knowledge:
    knowledge = Knowledge.of(["c"])
    for message in messages:
        knowledge.hear(message)
    return knowledge


def test_what_was_acknowledged_must_be_there():
    knowledge = told(("begin", "c", Put("plain", b"k", A)), ("done", "c", ""))
    assert knowledge.judge({"c": State({b"k": A})}) is None
    assert knowledge.judge({"c": State()}) is not None
    assert knowledge.judge({"c": State({b"k": B})}) is not None
    assert knowledge.judge({"c": State({b"k": A, b"l": B})}) is not None


def test_what_was_under_way_is_there_or_not_and_nothing_else():
    knowledge = told(
        ("begin", "c", Put("plain", b"k", A)), ("done", "c", ""), ("begin", "c", Put("plain", b"k", B))
    )
    assert knowledge.judge({"c": State({b"k": A})}) is None
    assert knowledge.judge({"c": State({b"k": B})}) is None
    assert knowledge.judge({"c": State()}) is not None


def test_what_was_refused_is_not_there_unless_the_store_was_poisoned():
    refused = told(("begin", "c", Put("plain", b"k", A)), ("failed", "c", "NoSpace", "full"))
    assert refused.judge({"c": State({b"k": A})}) is not None
    poisoned = told(("begin", "c", Put("plain", b"k", A)), ("failed", "c", "StorePoisoned", "EIO"))
    assert poisoned.judge({"c": State({b"k": A})}) is None
    assert poisoned.judge({"c": State()}) is None


def test_what_was_found_is_what_is_known():
    knowledge = told(("begin", "c", Put("plain", b"k", A)), ("found", {"c": State({b"k": A})}))
    assert knowledge.judge({"c": State()}) is not None


def test_versions_whose_answer_was_lost_match_any_id():
    after = apply(State(), Put("versioned", b"k", A))
    assert after.versions[b"k"] == (Version(UNKNOWN, A),)
    assert same(State(versions={b"k": (Version("01", A),)}), after)
    assert not same(State(versions={b"k": (Version("01", B),)}), after)
    assert not same(State(versions={b"k": (Version("01", A), Version("00", A))}), after)


def test_a_history_of_versions_and_uploads():
    state = apply(State(), Put("versioned", b"k", A), "01")
    state = apply(state, Delete("versioned", b"k"), "02")
    assert [version.id for version in state.versions[b"k"]] == ["02", "01"]
    state = apply(apply(state, DeleteVersion(b"k", "02")), DeleteVersion(b"k", "01"))
    assert state.versions == {}
    state = apply(apply(state, Begin(b"k"), "u"), PutPart("u", 1, A))
    assert apply(state, Abort("u")) == State()
    assert apply(state, Complete("u", A)) == State({b"k": A})
    assert not same(state, State())


@pytest.mark.parametrize(("text", "seeds"), [("7", range(7, 8)), ("0-99", range(100))])
def test_seed_ranges_have_both_ends(text, seeds):
    assert results.parse_seeds(text) == seeds


def test_runs_are_appended_resumed_and_summed(tmp_path):
    table = tmp_path / "RESULTS.md"
    table.write_text("# Results\n\n| date | commit |\n|---|---|\n")
    results.record(
        results.Run("kills", range(10), "1,000 kills, 5 lost (1 twice); in 7 hours", 1, "kill --seeds 0-9"),
        table,
    )
    results.record(results.Run("kills", range(10, 20), "500 kills", 0, "kill --seeds 10-19"), table)
    assert results.next_seed("kills", table) == 20
    assert results.next_seed("others", table) == 0
    assert results.sums(table) == {"kills": {"runs": 2, "findings": 1, "kills": 1500, "lost": 5}}


def test_a_laboratory_that_broke_down_found_nothing():
    for said, told in (
        ("30 kills, 12 acknowledged, 1 findings, 9 ms per kill", True),
        ("2,000 cuts, 40 acknowledged, 1,010 findings; 3 replayed", True),
        ("30 kills, 12 acknowledged, 0 findings, 9 ms per kill", False),
        ("RuntimeError: 7 of them", False),
    ):
        assert results.found_something(said) is told
