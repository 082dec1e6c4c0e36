"""The byte budget: guaranteed bytes for every stream, never more in all than the bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.budget import (
    GUARANTEED_BYTES,
    PATIENCE_SECONDS,
    SLOW_BYTES_PER_SECOND,
    BudgetExhausted,
    MemoryBudget,
)

KIB = 1024


def test_a_stream_is_refused_when_not_even_its_guaranteed_bytes_are_left():
    budget = MemoryBudget(3 * GUARANTEED_BYTES)
    leases = [budget.admit() for _ in range(3)]
    with pytest.raises(BudgetExhausted):
        budget.admit()
    leases[0].release()
    budget.admit()


def test_streams_that_grow_leave_half_for_new_ones():
    budget = MemoryBudget(64 * GUARANTEED_BYTES)
    with budget.admit() as greedy:
        assert greedy.resize(32 * GUARANTEED_BYTES)
        assert not greedy.resize(32 * GUARANTEED_BYTES + 1)
        for _ in range(32):
            budget.admit()
        with pytest.raises(BudgetExhausted):
            budget.admit()


def test_a_refused_resize_changes_nothing_and_shrinking_never_fails():
    budget = MemoryBudget(16 * GUARANTEED_BYTES)
    with budget.admit() as lease:
        assert not lease.resize(1 << 30)
        assert lease.bytes == GUARANTEED_BYTES
        assert lease.resize(0)
        assert lease.bytes == GUARANTEED_BYTES
    assert budget.held_bytes == 0
    assert budget.streams == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40 * GUARANTEED_BYTES)), max_size=60))
def test_what_is_held_is_the_sum_of_the_leases_and_never_above_the_bound(steps):
    budget = MemoryBudget(32 * GUARANTEED_BYTES)
    leases = {}
    for number, wanted in steps:
        if number not in leases:
            try:
                leases[number] = budget.admit()
            except BudgetExhausted:
                continue
        elif wanted % 3 == 0:
            leases.pop(number).release()
        else:
            leases[number].resize(wanted)
        assert budget.held_bytes == sum(lease.bytes for lease in leases.values()) <= budget.total_bytes
        assert budget.streams == len(leases)


def make_crowd(count):
    """A budget with so many streams, a clock to set, and the list of those that were ended."""
    now, ended = [0.0], []
    budget = MemoryBudget(count * GUARANTEED_BYTES, clock=lambda: now[0])
    leases = [budget.admit(lambda n=n: ended.append(n)) for n in range(count)]
    return budget, leases, ended, now


def test_the_stream_that_made_least_of_its_time_goes_for_a_newcomer():
    budget, leases, ended, now = make_crowd(4)
    now[0] = PATIENCE_SECONDS
    for lease, progress in zip(leases, (3000, 100, 200, 1 << 20), strict=True):
        lease.progress_bytes = progress
    budget.admit()
    budget.admit()
    assert ended == [1, 2], "each once, slowest first"
    assert budget.ended_streams == 2


def test_nobody_is_called_slow_at_once_and_fast_streams_stay():
    budget, leases, ended, now = make_crowd(2)
    with pytest.raises(BudgetExhausted):
        budget.admit()
    now[0] = 2 * PATIENCE_SECONDS
    for lease in leases:
        lease.progress_bytes = int(now[0] * SLOW_BYTES_PER_SECOND)
    with pytest.raises(BudgetExhausted):
        budget.admit()
    assert not ended


def test_a_first_burst_is_not_taken_for_speed_when_the_budget_looks_in_time():
    budget, leases, ended, now = make_crowd(2)
    for lease in leases:
        lease.progress_bytes = 64 << 10  # what its buffers let through
    for _ in range(2):
        now[0] += PATIENCE_SECONDS
        budget.look()
    now[0] += 1.0
    for lease in leases:
        lease.progress_bytes += 10
    budget.admit()
    assert len(ended) == 1


def test_a_stream_whose_client_has_done_its_part_stays():
    budget, leases, ended, now = make_crowd(2)
    leases[0].keep()
    now[0] = 60.0
    budget.admit()
    with pytest.raises(BudgetExhausted):
        budget.admit()
    assert ended == [1]


def test_streams_count_for_what_they_cost_beside_their_bytes():
    budget = MemoryBudget(4 * GUARANTEED_BYTES, stream_bytes=GUARANTEED_BYTES)
    budget.admit()
    budget.admit()
    with pytest.raises(BudgetExhausted):
        budget.admit()


def test_a_slow_stream_goes_when_others_hold_more_than_they_were_granted():
    _, leases, ended, now = make_crowd(4)
    now[0] = 60.0
    leases[3].progress_bytes = 1 << 20
    leases[0].progress_bytes = leases[2].progress_bytes = 1
    leases[3].hold(GUARANTEED_BYTES)
    assert not ended
    leases[3].hold(2 * GUARANTEED_BYTES)
    assert ended == [1]


def test_what_is_held_already_keeps_newcomers_out():
    budget = MemoryBudget(8 * GUARANTEED_BYTES)
    with budget.admit() as lease:
        lease.hold(8 * GUARANTEED_BYTES)
        with pytest.raises(BudgetExhausted):
            budget.admit()
    budget.admit()
