"""A wall clock that jumps is not believed until it is back, or has stayed there for a day."""

import pytest

from vaultaire.clock_watch import SETTLING_SECONDS, TOLERANCE_SECONDS, ClockWatch

YEAR = 365 * 24 * 3600.0


class Clocks:
    def __init__(self):
        self.now, self.set_by = 1000.0, 1.7e9
        self.watch = ClockWatch(lambda: self.now + self.set_by, lambda: self.now)


@pytest.mark.parametrize("jump", [YEAR, -YEAR, 2 * TOLERANCE_SECONDS])
def test_a_jump_is_not_believed_until_it_is_undone(jump):
    clocks = Clocks()
    assert clocks.watch.is_believable()
    clocks.set_by += jump
    for _ in range(3):
        assert not clocks.watch.is_believable()
        clocks.now += SETTLING_SECONDS / 4
    clocks.set_by -= jump
    assert clocks.watch.is_believable()


def test_a_clock_that_stays_where_it_was_set_is_believed_after_a_day():
    clocks = Clocks()
    clocks.set_by += YEAR
    assert not clocks.watch.is_believable()
    clocks.now += SETTLING_SECONDS
    assert clocks.watch.is_believable()
    clocks.set_by -= YEAR
    assert not clocks.watch.is_believable()


def test_a_clock_that_jumps_again_has_to_settle_again():
    clocks = Clocks()
    for _ in range(5):
        clocks.set_by += YEAR
        assert not clocks.watch.is_believable()
        clocks.now += SETTLING_SECONDS * 0.9


def test_small_corrections_are_followed_however_many():
    clocks = Clocks()
    for _ in range(100):
        clocks.set_by += TOLERANCE_SECONDS / 2
        assert clocks.watch.is_believable()
