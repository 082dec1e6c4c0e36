"""What follows from the counters: shares add up, intervals hold the truth."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from cas.chunk import Identity
from cas.chunker import CutRules
from vaultaire.analyze.curve import Other, curve, scaled_rules
from vaultaire.analyze.ids import IdSet, Seen, depth_of
from vaultaire.analyze.pages import PAGE_BYTES, Rows
from vaultaire.analyze.tally import Part, Ratios, divide, interval, new_bytes, relative_error, weigh
from vaultaire.analyze.trial import Spread

weights = st.lists(st.integers(0, 10**15), max_size=50)


@given(st.integers(0, 10**15), weights)
def test_a_divided_amount_adds_up_and_no_share_is_off_by_one(amount, weights):
    shares = divide(amount, weights)
    assert sum(shares) == (amount if weights else 0)
    whole = sum(weights)
    for share, weight in zip(shares, weights, strict=True):
        assert share >= 0
        if whole:
            assert abs(share * whole - amount * weight) < whole


@st.composite
def parts(draw):
    """A part as trials leave it: what is new is not more than what is seen."""
    part = Part(objects=draw(st.integers(1, 9)), chunks=0)
    for depth in range(draw(st.integers(1, 6))):
        seen = draw(st.integers(0, 10**9))
        chunks = draw(st.integers(0, 10**5))
        part.sighted.seen_bytes[depth], part.sighted.new_bytes[depth] = seen, draw(st.integers(0, seen))
        part.sighted.seen_chunks[depth], part.sighted.new_chunks[depth] = (
            chunks,
            draw(st.integers(0, chunks)),
        )
        part.chunks += chunks
    part.inline_bytes = draw(st.integers(0, 10**6))
    part.logical_bytes = sum(part.sighted.seen_bytes) + part.inline_bytes
    data = part.data
    data.raw_bytes = sum(part.sighted.new_bytes)
    data.payload_bytes = draw(st.integers(0, data.raw_bytes))
    data.prefix_saved_bytes = draw(st.integers(0, data.raw_bytes - data.payload_bytes))
    data.count = data.chunks = sum(part.sighted.new_chunks)
    data.header_bytes = 100 * data.count
    return part


@given(parts(), st.integers(0, 10**6))
def test_shares_add_up(part, metadata):
    found = weigh(part, Ratios.of(part, 0))
    shares = found.with_metadata(metadata)
    saved = shares.dedup_saved_bytes + shares.compression_saved_bytes + shares.prefix_saved_bytes
    assert shares.stored_bytes == shares.logical_bytes - saved + metadata
    assert 0 <= shares.dedup_saved_bytes <= shares.logical_bytes


@given(parts())
def test_without_a_sample_the_figures_are_the_counts(part):
    found = weigh(part, Ratios.of(part, 0))
    assert found.unique_bytes == sum(part.sighted.new_bytes) + part.inline_bytes
    assert found.payload_bytes == part.data.payload_bytes + part.inline_bytes
    if found.unique_bytes > part.inline_bytes:
        assert found.new_chunks == sum(part.sighted.new_chunks)


@given(st.lists(st.tuples(st.integers(16, 32), st.integers(0, 9000)), max_size=60))
def test_pages_hold_the_rows_and_are_not_twice_as_many(rows):
    table = Rows()
    taken = sum(table.add(key, value) for key, value in rows)
    if rows:
        assert table.pages * PAGE_BYTES >= sum(key + value for key, value in rows)
        assert table.pages * PAGE_BYTES <= taken + 2 * PAGE_BYTES + taken // 10
    else:
        assert table.pages == 0


def test_a_long_row_has_pages_of_its_own():
    table = Rows()
    table.add(32, 4096)
    assert table.own_pages == 2
    table.add(32, 1000)
    assert table.own_pages == 2


# --- estimates against the truth --------------------------------------------------------------------------------


def world(seed, chunks=1500):
    """Chunks with the number of their copies, skewed as data is; (id, length, copies)."""
    draw = random.Random(seed)
    return [
        (draw.getrandbits(64) or 1, draw.randint(8192, 131072), int(draw.paretovariate(1.4)))
        for _ in range(chunks)
    ]


def look(chunks, level):
    ids, part, spread = IdSet(level=level), Part(), Spread()
    for short, length, copies in chunks:
        for _ in range(min(copies, 200)):
            (seen,) = ids.add([short])
            part.logical_bytes += length
            part.chunks += 1
            if seen is Seen.UNSAMPLED:
                continue
            depth = depth_of(short)
            part.sighted.seen_bytes[depth] += length
            part.sighted.seen_chunks[depth] += 1
            if seen is Seen.NEW:
                part.sighted.new_bytes[depth] += length
                part.sighted.new_chunks[depth] += 1
                spread.new_squares[depth] += length**2
    return part, spread


def test_the_interval_holds_the_truth_nine_times_in_ten_or_more():
    """95 % is what it says."""
    held, tries, wide = 0, 40, 0
    for seed in range(tries):
        chunks = world(seed)
        truth = sum(length for _, length, _ in chunks)
        part, spread = look(chunks, 2)
        estimate, error = new_bytes(part, spread.new_squares, 2)
        held += abs(estimate - truth) <= 2 * error
        wide += error > 0.1 * truth
    assert held >= 0.9 * tries
    assert wide == 0  # it says something


def test_a_full_set_estimates_as_one_that_sampled_from_the_beginning():
    chunks = world(99)
    ids = IdSet(limit_ids=500)
    whole, _ = look(chunks, 0)
    for short, _, copies in chunks:
        for _ in range(min(copies, 200)):
            ids.add([short])
    sampled, _ = look(chunks, ids.level)
    assert ids.level > 0
    # Counted by depth from the first chunk on, the complete run has the same sums for the depths that stay.
    assert whole.sighted.new_bytes[ids.level :] == sampled.sighted.new_bytes[ids.level :]
    assert weigh(whole, Ratios.of(whole, ids.level)) == weigh(sampled, Ratios.of(sampled, ids.level))


def test_nothing_sampled_has_no_error_and_too_few_groups_say_nothing():
    part, spread = look(world(5), 0)
    found = weigh(part, Ratios.of(part, 0))
    assert new_bytes(part, spread.new_squares, 0) == (found.unique_bytes, 0)
    assert interval(found, 0, 0.0, spread, 0) == 0
    few, spread = look(world(5, chunks=3), 1)
    assert new_bytes(few, spread.new_squares, 1)[1] is None
    assert relative_error([3, 4], [5, 6], 0.1) is None
    assert relative_error([0] * 20, [1] * 20, 0.1) is None


# --- the curve --------------------------------------------------------------------------------------------------


def test_forks_of_one_size_share_their_ids():
    other = Other(Identity(b"S" * 16, b"K" * 32), 65536)
    data = random.Random(6).randbytes(300_000)
    forks = [other.fork(), other.fork()]
    for fork in forks:
        fork.feed(data)
        fork.finish()
        other.merge(fork)
    assert sum(other.sighted.seen_bytes) == 600_000
    assert sum(other.sighted.new_bytes) == 300_000


def test_a_curve_that_measured_the_same_size_again_agrees_with_it():
    identity = Identity(b"S" * 16, b"K" * 32)
    average = CutRules.parse(identity.cdc).average
    assert scaled_rules(CutRules.parse(identity.cdc), average) == CutRules.parse(identity.cdc)
    part = Part(objects=1, logical_bytes=10**6, chunks=30)
    part.sighted.seen_bytes[0] = part.sighted.new_bytes[0] = part.data.raw_bytes = 10**6
    part.sighted.seen_chunks[0] = part.sighted.new_chunks[0] = part.data.chunks = 30
    part.data.payload_bytes = 400_000
    shares = weigh(part, Ratios.of(part, 0)).with_metadata(5000)
    other = Other(identity, average)
    other.chunks, other.sighted = 30, part.sighted
    own, same = curve(shares, part, average, [other])
    assert (own.stored_bytes, own.unique_bytes) == (same.stored_bytes, same.unique_bytes)
    assert (own.measured, same.measured) == (True, False)
