"""uniform-1: noise is joined to about 1 MiB, found again behind insertions, and nothing else is touched."""

from __future__ import annotations

import itertools
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.chunk import DEFAULT_CDC
from cas.chunker import Chunker, CutRules
from cas.cutter import Cutter
from cas.uniform import MAX_JOINED_BYTES, is_uniform
from tests.cas import tars
from tests.cas.support import noise, split

MIB = 1 << 20
REAL_RULES = CutRules.parse(DEFAULT_CDC)
RULES = CutRules.parse("fastcdc2020/16384/8192/32768/nc2")


def cut(blocks: list[bytes], rules: CutRules = REAL_RULES, *, tar: bool = False) -> list[bytes]:
    cutter = Cutter(rules, tar=tar, uniform=True)
    found = [bytes(chunk) for block in blocks for chunk in cutter.feed(block)]
    return found + [bytes(chunk) for chunk in cutter.finish()]


def base(data: bytes, rules: CutRules = REAL_RULES) -> list[bytes]:
    chunker = Chunker(rules)
    return [bytes(chunk) for chunk in chunker.feed(data) + chunker.finish()]


def looks_uniform(data: bytes) -> bool:
    return is_uniform(memoryview(data), zlib.crc32(data[-64:]))


def test_noise_is_joined_to_about_1_mib():
    data = noise(64 * MIB)
    chunks = cut([data[at : at + 4 * MIB] for at in range(0, len(data), 4 * MIB)])
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= MAX_JOINED_BYTES
    assert 0.5 < len(chunks) / 64 < 2


def test_compressible_data_is_cut_as_without():
    for data in (tars.text(3 * MIB, 1), bytes(MIB), bytes(range(256)) * 4096):
        assert cut([data]) == base(data)


def test_noise_joins_neither_with_what_stands_before_nor_behind():
    data = tars.text(300_000, 1) + noise(400_000) + tars.text(300_000, 2)
    joined = cut([data])
    assert b"".join(joined) == data
    assert set(joined) >= {chunk for chunk in base(data) if not looks_uniform(chunk)}
    assert len(joined) < len(base(data))


def test_noise_is_found_again_behind_an_insertion():
    data = noise(32 * MIB)
    first = cut([data])
    second = cut([data[:5000] + b"inserted" + data[5000:]])
    assert sum(map(len, set(second) - set(first))) < 5 * MIB


@pytest.mark.parametrize("period", [64 << 10, 256 << 10, MIB])
def test_noise_that_repeats_is_stored_about_once(period: int):
    assert sum(map(len, set(cut([noise(period) * (16 * MIB // period)])))) <= 3 * period


def test_noise_in_members_of_a_tar_stays_inside_them():
    bodies = [noise(200_000, seed) for seed in range(5)]
    data = b"".join(map(tars.member, bodies))
    ends = set(itertools.accumulate(map(len, cut([data], tar=True))))
    assert ends >= set(tars.cuts_of(data))
    assert len(ends) < len(base(data)) / 2


content = st.lists(
    st.one_of(
        st.builds(noise, st.integers(0, 300_000), st.integers(0, 5)),
        st.builds(tars.text, st.integers(0, 60_000), st.integers(0, 5)),
        st.builds(lambda n, seed: tars.member(noise(n, seed)), st.integers(0, 90_000), st.integers(0, 5)),
    ),
    max_size=6,
).map(b"".join)


@settings(deadline=None, max_examples=40)
@given(content, st.lists(st.integers(0, 1 << 22), max_size=8))
def test_any_split_gives_the_same_chunks(data: bytes, ends: list[int]):
    whole = cut([data], RULES, tar=True)
    assert b"".join(whole) == data
    assert cut(split(data, ends), RULES, tar=True) == whole


def test_small_feeds_give_the_same_chunks():
    data = tars.tree(5, 12) + noise(500_000)
    for step in (700, 65_536):
        assert cut([data[at : at + step] for at in range(0, len(data), step)], tar=True) == cut(
            [data], tar=True
        )


@settings(deadline=None, max_examples=40)
@given(content, st.integers(1000, 200_000))
def test_who_is_short_of_memory_holds_no_more_than_a_base_chunk(data: bytes, step: int):
    cutter = Cutter(RULES, tar=True, uniform=True)
    found = []
    for at in range(0, len(data), step):
        found += [bytes(chunk) for chunk in cutter.feed(data[at : at + step])]
        assert cutter.held_bytes < MAX_JOINED_BYTES + RULES.maximum + 512
        found += [bytes(chunk) for chunk in cutter.settle()]
        assert cutter.held_bytes < RULES.maximum + 512
    found += [bytes(chunk) for chunk in cutter.finish()]
    assert b"".join(found) == data


def test_chunks_of_noise_in_one_block_are_views_onto_it():
    block = noise(8 * MIB)
    assert all(chunk.obj is block for chunk in Cutter(REAL_RULES, tar=True, uniform=True).feed(block))


def test_what_looks_like_noise():
    rng = random.Random(1)
    assert sum(looks_uniform(rng.randbytes(36_000)) for _ in range(300)) == 300
    assert looks_uniform(zlib.compress(noise(40_000)))
    floats = b"".join(rng.randbytes(3) + bytes([rng.choice((0x3E, 0x3D, 0xBE, 0xBD))]) for _ in range(9_000))
    assert not looks_uniform(floats)
    assert not looks_uniform(tars.text(40_000, 1))
    assert not looks_uniform(bytes(40_000))
    assert not looks_uniform(noise(8191))
    assert looks_uniform(noise(8192))
