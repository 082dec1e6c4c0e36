"""What a frame would be compressed against is found in the source, and only where a store would have it."""

from __future__ import annotations

from cas.catalog import has_bases
from cas.prefix import MAX_SKIP_BYTES, PREFIX_BYTES, Run
from vaultaire.analyze import earlier
from vaultaire.analyze.earlier import BASE_BYTES, LEAST_BYTES, NO_ANCHOR, Earlier, EarlierFinder, place_of
from vaultaire.analyze.sources import Item, Unread

MIB = 1 << 20
DATA = bytes(range(256)) * (4 * MIB // 256)


def make(read_again=None):
    found = Earlier(read_again or (lambda item, start, length: DATA[start : start + length]))
    return found, EarlierFinder(found)


def begin(found, end=4 * MIB):
    number = found.begin(Item(b"old", len(DATA)))
    found.advance(number, end)
    return number


def test_what_follows_the_anchor_is_taken():
    found, finder = make()
    number = begin(found)
    chosen = finder.find([Run(found.row(place_of(number, MIB), 0), 0, 1000)])
    assert chosen.prefix == DATA[MIB : MIB + 1500 + BASE_BYTES]
    assert len(set(chosen.ids)) == len(chosen.ids) == 2


def test_runs_that_overlap_take_nothing_twice_and_all_have_a_bound():
    found, finder = make()
    row = found.row(place_of(begin(found), MIB), 0)
    chosen = finder.find([Run(row, 0, 1000), Run(row, 1000, 1000)])
    assert chosen.prefix == DATA[MIB : MIB + 1500 + BASE_BYTES]
    assert len(finder.find([Run(row, 0, 2 * MIB)]).prefix) == PREFIX_BYTES
    assert finder.find([Run(row, MAX_SKIP_BYTES + 1, 1000)]) is None


def test_only_what_was_looked_at_before_counts():
    """Of two objects that are read side by side none is compressed against what the other has not shown yet."""
    found, finder = make()
    number = begin(found, end=MIB + 600)
    row = found.row(place_of(number, MIB), 0)
    found.advance(number, 2 * MIB)
    assert finder.find([Run(row, 0, 1000)]).prefix == DATA[MIB : MIB + 600]
    assert finder.find([Run(found.row(place_of(number, 2 * MIB), 0), 0, 1000)]) is None
    assert found.row(place_of(number, MIB), own=number) == NO_ANCHOR


def test_small_and_forgotten_objects_are_no_anchors(monkeypatch):
    monkeypatch.setattr(earlier, "REMEMBERED", 2)
    found, finder = make()
    assert found.begin(Item(b"small", LEAST_BYTES - 1)) == 0
    assert place_of(0, MIB) == 0
    assert place_of(1, 1 << 50) == 0
    first = begin(found)
    old = found.row(place_of(first, MIB), 0)
    begin(found), begin(found)
    assert found.row(place_of(first, MIB), 0) == found.row(0, 0) == NO_ANCHOR
    assert has_bases(NO_ANCHOR)
    assert not has_bases(old)
    assert finder.find([Run(old, 0, 1000)]) is None


def test_what_cannot_be_read_again_is_left_out():
    def gone(item, start, length):
        raise Unread("gone")

    found, finder = make(gone)
    assert finder.find([Run(found.row(place_of(begin(found), MIB), 0), 0, 1000)]) is None
