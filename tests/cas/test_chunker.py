"""Content decides where chunks end, never arrival; and it decides for ever the same."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.chunk import DEFAULT_CDC
from cas.chunker import Chunker, CutRules
from cas.errors import UnsupportedFormat
from tests.cas.support import SMALL_CDC, noise, split

REAL_RULES = CutRules.parse(DEFAULT_CDC)
SMALL_RULES = CutRules.parse(SMALL_CDC)

# Lengths of the chunks of three inputs under the default rule. They guard dedup against a library's new version: if
# they change, every store would stop finding what it holds.
NOISE = blake3(b"vaultaire cut vectors").digest(length=1 << 20)
NUMBERS = b"".join(b"%d\n" % n for n in range(100_000))
# fmt: off
GOLDEN = [
    (NOISE, [36032, 8879, 58280, 40911, 66895, 37294, 10480, 13713, 33440, 49111, 43367, 36018, 35369, 34391, 51836,
             39577, 40521, 13473, 38681, 33107, 46363, 56336, 26369, 34455, 35929, 39443, 33890, 38531, 15885]),
    (NUMBERS, [38887, 36707, 34858, 39770, 23457, 22957, 52664, 49578, 41437, 34194, 43212, 36181, 45659, 48989,
               33257, 7083]),
    (bytes(300_000), [131072, 131072, 37856]),
]
# fmt: on


def chunks(rules: CutRules, blocks: list[bytes]) -> list[bytes]:
    chunker = Chunker(rules)
    found = [bytes(chunk) for block in blocks for chunk in chunker.feed(block)]
    return found + [bytes(chunk) for chunk in chunker.finish()]


@pytest.mark.parametrize(("data", "lengths"), GOLDEN, ids=["noise", "numbers", "zeros"])
def test_default_rule_cuts_as_it_always_did(data: bytes, lengths: list[int]):
    assert [len(chunk) for chunk in chunks(REAL_RULES, [data])] == lengths


@pytest.mark.parametrize("step", [1000, 4096, 65536, 131071, 131072, 131073, 1 << 20])
def test_blocks_of_any_size_give_the_golden_chunks(step: int):
    blocks = [NOISE[start : start + step] for start in range(0, len(NOISE), step)]
    assert [len(chunk) for chunk in chunks(REAL_RULES, blocks)] == GOLDEN[0][1]


content = st.one_of(
    st.binary(max_size=6000),
    st.builds(noise, st.integers(0, 20_000), st.integers(0, 50)),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=700), st.integers(0, 20)),
)


@settings(deadline=None)
@given(content, st.lists(st.integers(0, 1 << 20), max_size=12))
def test_any_split_gives_the_same_chunks(data: bytes, cuts: list[int]):
    whole = chunks(SMALL_RULES, [data])
    assert b"".join(whole) == data
    assert chunks(SMALL_RULES, split(data, cuts)) == whole


@settings(deadline=None)
@given(content, st.integers(1, 3000))
def test_settling_early_gives_the_same_chunks_and_holds_less(data: bytes, step: int):
    chunker = Chunker(SMALL_RULES)
    found: list[bytes] = []
    for start in range(0, len(data), step):
        found += [bytes(chunk) for chunk in chunker.feed(data[start : start + step])]
        found += [bytes(chunk) for chunk in chunker.settle()]
        assert chunker.held_bytes < SMALL_RULES.maximum
        assert not chunker.settle(), "all that was complete has been handed out"
    found += [bytes(chunk) for chunk in chunker.finish()]
    assert found == chunks(SMALL_RULES, [data])


def test_byte_by_byte_gives_the_same_chunks():
    data = noise(5000)
    assert chunks(SMALL_RULES, [data[i : i + 1] for i in range(len(data))]) == chunks(SMALL_RULES, [data])


@settings(deadline=None)
@given(content)
def test_lengths_are_within_the_rule(data: bytes):
    lengths = [len(chunk) for chunk in chunks(SMALL_RULES, [data])]
    assert all(length <= 1024 for length in lengths)
    assert all(length >= 64 for length in lengths[:-1])


def test_chunks_of_one_large_block_are_views_onto_it():
    block = noise(20_000)
    for chunk in Chunker(SMALL_RULES).feed(block):
        assert chunk.obj is block


def test_less_than_the_maximum_is_held_back():
    chunker = Chunker(SMALL_RULES)
    for start in range(0, 50_000, 777):
        chunker.feed(noise(777, start))
        assert len(chunker._tail) < 1024


def test_finished_chunker_is_empty():
    chunker = Chunker(SMALL_RULES)
    chunker.feed(b"abc")
    assert [bytes(chunk) for chunk in chunker.finish()] == [b"abc"]
    assert chunker.finish() == []


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "fastcdc2020/1/2",
        "buzhash/1/2/3/nc2",
        "fastcdc2020/32768/8192/131072/nc4",
        "fastcdc2020/64/256/1024/nc2",
    ],
)
def test_unknown_rule_is_refused(rule: str):
    with pytest.raises(UnsupportedFormat):
        CutRules.parse(rule)
