"""Every parser of outside bytes for a moment: what was ever found, mutations of it, and hypothesis's own ideas.

Longer: python -m tools.fuzz all --seconds 60
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.fuzz import engine
from tools.fuzz.targets import CORPUS, TARGETS, Target, cuts

MUTATIONS = 80  # of each target


@pytest.fixture(params=sorted(TARGETS))
def target(request) -> Target:
    return TARGETS[request.param]


def test_what_was_ever_found_does_no_harm(target):
    for data in target.corpus():
        assert engine.run(target, data) is None


def test_mutations_do_no_harm(target):
    outcome = engine.fuzz(target, target.corpus(), seed=1, count=MUTATIONS)
    assert outcome.finding is None, f"{outcome.finding.data!r}: {outcome.finding.problem}"
    assert outcome.inputs == MUTATIONS


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_and_edits_of_good_ones_do_no_harm(target, data):
    seed = data.draw(st.sampled_from(target.corpus()) | st.binary(max_size=200))
    at = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(at, min(len(seed), at + 20)))
    middle = data.draw(st.binary(max_size=12) | st.sampled_from([*target.words, b""]))
    assert engine.run(target, seed[:at] + middle + seed[end:]) is None


def test_seeds_reach_behind_the_checks():
    """A target whose seeds are all refused would fuzz nothing but the refusal."""
    for name in ("policy", "frame", "manifest", "journal", "checkpoint", "identity"):
        target = TARGETS[name]
        taken = [seed for seed in target.corpus() if _is_taken(target, seed)]
        assert taken, name


def _is_taken(target: Target, seed: bytes) -> bool:
    try:
        target.take(seed)
    except target.allowed:
        return False
    return True


def test_the_engine_finds_what_is_there_and_makes_it_small():
    def take(data: bytes) -> None:
        if b"\xff" in data:
            raise KeyError("planted")

    target = Target("planted", take, (), lambda: [b"a" * 300])
    finding = engine.fuzz(target, target.corpus(), seed=1, count=10_000).finding
    assert finding is not None
    assert engine.smaller(target, finding) == b"\xff"


def test_the_same_seed_gives_the_same_inputs():
    seen: list[list[bytes]] = [[], []]
    for inputs in seen:
        target = Target("noted", lambda data, inputs=inputs: inputs.append(data), (), lambda: [b"abc"])
        engine.fuzz(target, target.corpus(), seed=5, count=50)
    assert seen[0] == seen[1]


def test_cuts_lose_nothing():
    for length in (0, 1, 500):
        assert b"".join(cuts(bytes(length))) == bytes(length)


def test_the_corpus_names_only_targets():
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
