"""The byte budget: guaranteed bytes for every stream, never more in all than the bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.budget import GUARANTEED_BYTES, BudgetExhausted, MemoryBudget

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
