"""Room on the disk: what is admitted, what is kept back, and how the reserve is used up and filled again."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.space import (
    CREDIT_BYTES,
    LEFT_FREE_BYTES,
    MAX_RESERVE_BYTES,
    MIN_RESERVE_BYTES,
    PROBE_SECONDS,
    STEP_BYTES,
    Disk,
    DiskFull,
    Space,
    SpacePolicy,
    counted_bytes,
    needed_bytes,
)

MIB = 1 << 20
POLICY = SpacePolicy(reserve=8 * MIB, floor=4 * MIB)


class SmallSpace(Space):
    """A store's space on a disk of `size` bytes that only this store's reserve and `used` take room on."""

    def __init__(self, directory, size):
        self.now, self.size, self.used, self.looks = 1000.0, size, 0, 0
        super().__init__(directory, policy=POLICY, clock=lambda: self.now)

    def probe(self):
        self.looks += 1
        reserve = self._path.stat().st_size if self._path.exists() else 0
        return Disk(max(0, self.size - self.used - reserve), reserve)


@pytest.fixture
def space(tmp_path):
    made = SmallSpace(tmp_path, 100 * MIB)
    assert made.restore()
    return made


def test_what_does_not_fit_beside_floor_and_claims_is_refused(space):
    free = 100 * MIB - POLICY.reserve - POLICY.floor
    space.require(free)
    with pytest.raises(DiskFull) as refused:
        space.require(free + 1)
    assert (refused.value.needed, refused.value.free) == (free + 1, free)
    with space.claim(10 * MIB), pytest.raises(DiskFull):
        space.require(free)
    space.require(free)


def test_a_claim_counts_for_what_was_sent_and_a_little_more_until_it_is_written(space):
    free = space.policy.available(space.probe())
    claim = space.claim(60 * MIB)
    space.require(free - CREDIT_BYTES)
    claim.written(20 * MIB)
    space.used += 20 * MIB
    space.now += PROBE_SECONDS
    with pytest.raises(DiskFull):
        space.require(free - 20 * MIB - CREDIT_BYTES)
    claim.written(40 * MIB)
    space.used += 40 * MIB
    claim.release()
    claim.release()
    space.now += PROBE_SECONDS
    space.require(free - 60 * MIB)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_an_upload_never_counts_for_more_than_it_needs(left, written):
    assert 0 <= counted_bytes(left, written) <= left


@given(
    st.lists(st.tuples(st.integers(0, 1 << 32), st.lists(st.integers(0, 1 << 31), max_size=5)), max_size=8)
)
def test_after_all_claims_are_released_nothing_is_counted(tmp_path_factory, uploads):
    space = SmallSpace(tmp_path_factory.mktemp("space"), 1 << 60)
    for length, steps in uploads:
        with space.claim(length) as claim:
            for step in steps:
                claim.written(step)
    assert space._claimed == 0


def test_a_refusal_comes_from_a_fresh_look_and_room_is_seen_at_once(space):
    space.used = 95 * MIB
    with pytest.raises(DiskFull):
        space.claim(MIB)
    space.used = 0
    with space.claim(MIB):
        pass


def test_with_plenty_of_room_the_disk_is_looked_at_once_a_second(tmp_path):
    space = SmallSpace(tmp_path, 1 << 40)
    for _ in range(100):
        space.require()
    assert space.looks == 1
    space.now += PROBE_SECONDS
    space.require()
    assert space.looks == 2


def test_the_reserve_is_given_back_in_steps_and_only_when_nothing_else_is_left(space):
    assert not space.make_room(), "there is room"
    space.used = 92 * MIB  # and the reserve has the rest
    for left in range(POLICY.reserve - STEP_BYTES, -1, -STEP_BYTES):
        assert space.make_room()
        assert space.probe().reserve == left
        space.used += STEP_BYTES  # whoever asked has taken it
    assert not space.make_room(), "nothing is left"


def test_a_missing_reserve_is_filled_before_anything_new_is_admitted(space):
    space.used = 92 * MIB
    assert space.make_room()
    with pytest.raises(DiskFull):
        space.require(1)
    assert not space.restore(), "as far as there is room"
    assert space.probe().free == LEFT_FREE_BYTES
    space.used = 0
    with pytest.raises(DiskFull):
        space.require(100 * MIB - POLICY.reserve - POLICY.floor + 1)
    assert space.restore()
    assert space.probe().reserve == POLICY.reserve


def test_as_much_of_the_reserve_as_is_wanted_is_given_back(space):
    space.used = 91 * MIB
    assert space.ensure(MIB)
    assert space.probe().reserve == POLICY.reserve
    assert space.ensure(3 * MIB)
    assert space.probe() == Disk(3 * MIB, POLICY.reserve - 2 * MIB)
    assert not space.ensure(50 * MIB)
    assert space.probe().reserve == 0


def test_a_disk_that_fills_up_meanwhile_leaves_the_reserve_as_it_was(tmp_path, monkeypatch):
    space = SmallSpace(tmp_path, 100 * MIB)

    def full(fd, offset, length):
        os.ftruncate(fd, offset + length // 2)  # some filesystems keep what they had got
        raise OSError(errno.ENOSPC, "injected")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    assert not space.restore()
    assert space.probe().reserve == 0


def test_without_preallocation_more_is_left_free_instead(tmp_path, monkeypatch):
    space = SmallSpace(tmp_path, 100 * MIB)

    def unable(*_):
        raise OSError(errno.EOPNOTSUPP, "injected")

    monkeypatch.setattr(os, "posix_fallocate", unable, raising=False)
    assert not space.restore()
    assert space.policy == SpacePolicy(0, POLICY.reserve + POLICY.floor)
    space.require(100 * MIB - POLICY.reserve - POLICY.floor)


def test_a_system_that_cannot_preallocate_at_all_does_without_the_reserve(tmp_path, monkeypatch):
    """macOS, whose Python has no such function."""
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    space = SmallSpace(tmp_path, 100 * MIB)
    assert not space.restore()
    assert space.policy == SpacePolicy(0, POLICY.reserve + POLICY.floor)
    assert space.restore()  # nothing is missing any more
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 1 << 50))
def test_what_is_kept_back_grows_with_the_filesystem_within_bounds(size):
    policy = SpacePolicy.of(size)
    assert MIN_RESERVE_BYTES <= policy.reserve <= MAX_RESERVE_BYTES
    assert 0 < policy.floor < policy.reserve


def test_more_is_needed_than_the_bytes_alone():
    assert needed_bytes(0) > 0
    assert needed_bytes(1 << 30) > (1 << 30) * 1.03
