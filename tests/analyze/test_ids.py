"""The set of ids: exact while it has room, and afterwards exact for the ids of its level."""

from __future__ import annotations

import random
import sys

from hypothesis import given
from hypothesis import strategies as st

from vaultaire.analyze.ids import DEPTHS, GROUPS, IdSet, Seen, depth_of, group_of, short_id


@given(st.lists(st.integers(1, 40), max_size=300))
def test_an_id_is_new_exactly_once(shorts):
    ids = IdSet()
    told = ids.add(shorts)
    assert [each is Seen.NEW for each in told] == [shorts.index(s) == i for i, s in enumerate(shorts)]
    assert len(ids) == len(set(shorts))


def test_growing_forgets_nothing():
    draw = random.Random(1)
    shorts = [draw.getrandbits(64) or 1 for _ in range(30_000)]
    ids = IdSet()
    assert set(ids.add(shorts)) == {Seen.NEW}
    assert set(ids.add(shorts)) == {Seen.KNOWN}


def test_ids_that_share_a_shard_and_a_place_are_told_apart():
    same = [(7 << 56) | low for low in range(1, 500)]
    ids = IdSet()
    assert set(ids.add(same)) == {Seen.NEW}
    assert set(ids.add(same)) == {Seen.KNOWN}


def test_a_full_set_keeps_what_is_deep_and_knows_it_from_the_beginning():
    draw = random.Random(2)
    shorts = [draw.getrandbits(64) or 1 for _ in range(20_000)]
    ids = IdSet(limit_ids=3000)
    ids.add(shorts)
    assert ids.level > 0
    assert len(ids) <= 3000
    for short, seen in zip(shorts, ids.add(shorts), strict=True):
        assert seen is (Seen.KNOWN if depth_of(short) >= ids.level else Seen.UNSAMPLED)
    assert len(ids) == sum(depth_of(short) >= ids.level for short in shorts)


def test_a_level_from_the_beginning_takes_its_share():
    draw = random.Random(3)
    told = IdSet(level=3).add([draw.getrandbits(64) or 1 for _ in range(8000)])
    assert 850 < told.count(Seen.NEW) < 1150
    assert told.count(Seen.UNSAMPLED) == 8000 - told.count(Seen.NEW)


def test_places_stay_with_their_ids_whatever_the_tables_do():
    draw = random.Random(5)
    places = {draw.getrandbits(64) or 1: draw.getrandbits(64) for _ in range(20_000)}
    ids = IdSet(limit_ids=3000, places=True)
    ids.add(list(places), places.values())
    assert ids.add(list(places), [7] * len(places)).count(Seen.NEW) == 0, "what is known keeps its place"
    kept = [short for short in places if depth_of(short) >= ids.level]
    assert [ids.place(short) for short in kept] == [places[short] for short in kept]
    ids.forget_places(kept[::2])
    assert [ids.place(short) for short in kept[:4]] == [0, places[kept[1]], 0, places[kept[3]]]
    assert ids.place(12345 << 20) == IdSet().place(1) == 0


def test_memory_is_at_most_twice_eight_bytes_an_id():
    draw = random.Random(4)
    ids = IdSet()
    ids.add([draw.getrandbits(64) or 1 for _ in range(100_000)])
    held = sum(sys.getsizeof(shard._slots) for shard in ids._shards)
    assert held < 17 * 100_000


@given(st.binary(min_size=32, max_size=32))
def test_depth_and_group_are_in_bounds(chunk_id):
    short = short_id(chunk_id)
    assert short
    assert 0 <= depth_of(short) < DEPTHS
    assert 0 <= group_of(short) < GROUPS
