"""Ranges of the journal between two positions, verified; and the newest whole state where history is damaged."""

from __future__ import annotations

import os
import shutil

import pytest

from index.history import Extent, first_store_id, follow, keep_segments, segment_start
from index.journal import ORIGIN
from index.kv import CorruptJournal
from index.salvage import assess, salvage
from index.segments import list_segments, segment_path
from tests.index.engine import STORE_ID, TABLES, TUNING, open_engine, recover_engine, rows_of


@pytest.fixture
def kv(tmp_path):
    recover_engine(tmp_path)
    made = open_engine(tmp_path, segment_bytes=2000)
    yield made
    made.close()


def put(kv, first, last):
    for n in range(first, last + 1):
        kv.commit(lambda txn, n=n: txn.put("idx.names", b"%04d" % n, b"v" * 100))


def position(kv):
    with kv.snapshot() as reader:
        return reader.position


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_the_extents_lead_from_one_position_to_the_other_whatever_follows(tmp_path, kv):
    put(kv, 1, 40)
    middle = position(kv)
    put(kv, 41, 90)
    goal = position(kv)
    put(kv, 91, 120)
    segments = list_segments(tmp_path / "journal")
    assert len(segments) > 6
    whole = follow(tmp_path, STORE_ID, ORIGIN, goal, by_way_of=middle)
    assert [extent.segment for extent in whole] == [s for s in segments if s <= goal.segment]
    assert all(extent.start == 0 for extent in whole)
    assert whole[-1].end == goal.offset
    for extent in whole[:-1]:
        assert extent.end == segment_path(tmp_path / "journal", extent.segment).stat().st_size
    rest = follow(tmp_path, STORE_ID, middle, goal)
    assert rest[0] == Extent(middle.segment, middle.offset, rest[0].end)
    assert follow(tmp_path, STORE_ID, goal, goal) == [Extent(goal.segment, goal.offset, goal.offset)]


def test_a_segment_begins_where_the_one_before_ended(tmp_path, kv):
    put(kv, 1, 40)
    goal = position(kv)
    for segment in list_segments(tmp_path / "journal"):
        start = segment_start(tmp_path, STORE_ID, segment, goal)
        assert follow(tmp_path, STORE_ID, start, goal)[0].segment == segment
    assert segment_start(tmp_path, STORE_ID, 1, goal) == ORIGIN


@pytest.mark.parametrize("offset", [10, 60, 110, 150])
def test_a_chain_that_is_broken_is_not_followed(tmp_path, kv, offset):
    put(kv, 1, 40)
    goal = position(kv)
    flip(segment_path(tmp_path / "journal", list_segments(tmp_path / "journal")[1]), offset)
    with pytest.raises(CorruptJournal):
        follow(tmp_path, STORE_ID, ORIGIN, goal)


def test_a_missing_segment_is_named(tmp_path, kv):
    put(kv, 1, 40)
    goal = position(kv)
    victim = segment_path(tmp_path / "journal", list_segments(tmp_path / "journal")[1])
    victim.unlink()
    with pytest.raises(CorruptJournal, match=victim.name):
        follow(tmp_path, STORE_ID, ORIGIN, goal)


def test_a_checkpoint_of_another_history_does_not_lie_on_the_way(tmp_path, kv):
    put(kv, 1, 10)
    middle = position(kv)
    put(kv, 11, 20)
    stranger = type(middle)(middle.sequence, middle.segment, middle.offset, bytes(32))
    with pytest.raises(CorruptJournal, match="checkpoint"):
        follow(tmp_path, STORE_ID, ORIGIN, position(kv), by_way_of=stranger)


def test_records_of_another_store_are_not_followed(tmp_path, kv):
    put(kv, 1, 10)
    with pytest.raises(CorruptJournal):
        follow(tmp_path, b"another store id", ORIGIN, position(kv))
    assert first_store_id(tmp_path) == STORE_ID


def test_kept_segments_are_not_cut(tmp_path, kv):
    put(kv, 1, 40)
    with keep_segments(tmp_path), keep_segments(tmp_path):
        assert kv.write_checkpoint() is None
    assert kv.write_checkpoint() is not None


# --- salvage ---


@pytest.fixture
def damaged(tmp_path, kv):
    """A closed store of 60 commits, of which a checkpoint holds 20, and whose journal is damaged somewhere after 40."""
    put(kv, 1, 20)
    kv.write_checkpoint()
    put(kv, 21, 40)
    at = position(kv)
    put(kv, 41, 60)
    kv.close()
    flip(segment_path(tmp_path / "journal", at.segment), at.offset + 140)
    return tmp_path


def salvage_and_check(directory, found, commits):
    """The state is that of `commits`, the store goes on from there, and comes back without LMDB."""
    salvage(directory, found, tables=TABLES, store_id=STORE_ID, aside=directory / "lost", tuning=TUNING)
    recover_engine(directory)
    with_new = open_engine(directory)
    with_new.write_checkpoint()
    put(with_new, 100, 101)
    rows = rows_of(with_new)
    with_new.close()
    assert {int(key) for _, key in rows} == {*range(1, commits + 1), 100, 101}
    shutil.rmtree(directory / "meta")
    recover_engine(directory)
    again = open_engine(directory)
    assert rows_of(again) == rows
    again.close()


def test_lmdb_that_is_ahead_of_the_damage_loses_nothing(damaged):
    found = assess(damaged, store_id=STORE_ID)
    assert found.best == found.view
    assert not found.lost
    salvage_and_check(damaged, found, 60)


def test_without_lmdb_what_lies_before_the_damage_comes_back(damaged):
    shutil.rmtree(damaged / "meta")
    found = assess(damaged, store_id=STORE_ID)
    assert found.best == found.replay
    assert list(found.lost) == list(range(41, 61))
    salvage_and_check(damaged, found, 40)
    assert list((damaged / "lost" / "journal").iterdir())


def test_an_lmdb_with_a_damaged_row_is_not_taken_for_whole(damaged):
    file = damaged / "meta" / "data.mdb"
    good, bad = b"0050" + b"v" * 100, b"0050" + b"v" * 99 + b"w"
    file.write_bytes(file.read_bytes().replace(good, bad))  # in every page that has it, free ones too
    found = assess(damaged, store_id=STORE_ID)
    assert found.view is None
    assert list(found.lost) == list(range(41, 61))


def test_with_nothing_whole_there_is_no_state(damaged):
    shutil.rmtree(damaged / "meta")
    for path in (damaged / "checkpoint").glob("*.ckpt"):
        os.truncate(path, 100)
    segment_path(damaged / "journal", 1).unlink()
    found = assess(damaged, store_id=STORE_ID)
    assert found.best is None
    assert 1 < found.first_seen < found.last_seen == 60


def test_assessing_changes_nothing(damaged):
    before = {path: path.read_bytes() for path in damaged.rglob("*") if path.is_file()}
    assess(damaged, store_id=STORE_ID)
    assert {path: path.read_bytes() for path in damaged.rglob("*") if path.is_file()} == before
