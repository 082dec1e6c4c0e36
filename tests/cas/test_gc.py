"""What is worth collecting: a pure decision. The steps are tested with their driver (tests/vaultaire/test_collection)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from cas.catalog import PackRow, PackState
from cas.gc import Everything, Plan, Policy, plan_collection
from cas.pack import PackKind

if TYPE_CHECKING:
    from collections.abc import Container

MIB = 1 << 20
POLICY = Policy()
EPOCH = 10


def row(
    *,
    length: int = 64 * MIB,
    state: PackState = PackState.SEALED,
    kind: PackKind = PackKind.DATA,
    placed: int | None = None,
    touched: int = 5,
    damaged: bool = False,
) -> PackRow:
    """Raw bytes are twice the stored ones."""
    placed_bytes = 2 * length if placed is None else placed
    return PackRow(
        state,
        kind,
        0,
        length,
        damaged=damaged,
        touched_epoch=touched,
        raw_bytes=2 * length,
        placed_bytes=placed_bytes,
    )


def plan(
    packs: dict[int, tuple[PackRow, float | None]], policy: Policy = POLICY, anew: Container[int] = ()
) -> Plan:
    """`packs`: number -> (row, live share; None: the mark did not know it)."""
    live = {pack: int(row.raw_bytes * share) for pack, (row, share) in packs.items() if share is not None}
    return plan_collection([(pack, row) for pack, (row, _) in packs.items()], live, EPOCH, policy, anew)


def test_a_dead_pack_is_taken_and_a_full_one_is_not():
    assert plan({1: (row(), 0.0), 2: (row(), 1.0)}) == Plan((1,), 0, 64 * MIB)


def test_a_sparse_pack_is_taken_whatever_the_rest():
    many = {number: (row(), 1.0) for number in range(2, 100)}
    assert plan({1: (row(), 0.45), **many}).packs == (1,)


def test_denser_packs_are_taken_while_more_garbage_is_left_than_is_tolerated():
    assert plan({1: (row(), 0.6), 2: (row(), 1.0)}).packs == (1,)  # 20 % of all
    assert plan({1: (row(), 0.85), 2: (row(), 1.0)}).packs == ()  # 7 %
    assert plan({number: (row(), 0.6 + number / 100) for number in range(10)}).packs == tuple(range(7))
    assert plan({number: (row(), 0.95) for number in range(10)}).packs == ()  # nothing to gain


def test_open_and_condemned_packs_are_left_alone():
    assert plan({1: (row(state=PackState.OPEN), 0.0), 2: (row(state=PackState.CONDEMNED), 0.0)}).packs == ()


def test_a_pack_that_something_was_published_into_since_the_mark_began_is_left_alone():
    assert plan({1: (row(touched=EPOCH), 0.0), 2: (row(touched=EPOCH - 1), 0.0)}).packs == (2,)


def test_what_the_mark_did_not_know_counts_as_live_as_far_as_it_is_placed():
    assert plan({1: (row(), None)}).packs == ()
    assert plan({1: (row(placed=0), None)}).packs == (1,)


def test_a_damaged_pack_is_left_to_repair_unless_nothing_of_it_is_needed():
    assert plan({1: (row(damaged=True), 0.1), 2: (row(damaged=True), 0.0)}).packs == (2,)


def test_an_empty_pack_is_taken():
    assert plan({1: (PackRow(PackState.SEALED, PackKind.DATA, 0, 200), None)}).packs == (1,)


def test_small_packs_are_merged_once_they_make_a_larger_one():
    small = row(length=6 * MIB)
    assert plan({1: (small, 1.0), 2: (small, 1.0)}).packs == ()
    assert plan(dict.fromkeys(range(3), (small, 1.0))).packs == (0, 1, 2)
    assert plan({number: (row(length=MIB), 1.0) for number in range(16)}).packs == tuple(range(16))
    other = row(length=6 * MIB, kind=PackKind.NODE)
    assert plan({1: (small, 1.0), 2: (small, 1.0), 3: (other, 1.0)}).packs == ()


def test_a_batch_is_bounded():
    dead = {number: (row(), 0.0) for number in range(10)}
    few = plan(dead, Policy(batch_packs=4))
    assert (few.packs, few.more) == ((0, 1, 2, 3), True)
    sparse = {number: (row(), 0.25) for number in range(10)}
    limited = plan(sparse, Policy(batch_copy_bytes=40 * MIB))
    assert (limited.packs, limited.copy_bytes, limited.more) == ((0, 1), 32 * MIB, True)
    assert plan({1: (row(), 0.25)}, Policy(batch_copy_bytes=1)).packs == (
        1,
    )  # one at least, or it would never end


def test_packs_are_stored_anew_where_that_is_asked_for():
    packs = {
        1: (row(), 1.0),
        2: (row(), 1.0),
        4: (row(damaged=True), 1.0),
        5: (row(touched=EPOCH), 1.0),  # made by the round itself
        6: (row(), 0.3),
    }
    assert plan(packs).packs == (6,)
    assert plan(packs, anew={1, 4, 5, 7}).packs == (1, 6)


rows = st.builds(
    row,
    length=st.integers(100, 64 * MIB),
    state=st.sampled_from(PackState),
    kind=st.sampled_from(PackKind),
    touched=st.integers(0, 20),
    damaged=st.booleans(),
)


@given(st.dictionaries(st.integers(1, 99), st.tuples(rows, st.none() | st.floats(0, 1)), max_size=40))
def test_whatever_the_packs_the_plan_keeps_its_promises(packs):
    planned = plan(packs)
    assert list(planned.packs) == sorted(set(planned.packs))
    for pack in planned.packs:
        found, share = packs[pack]
        assert found.state == PackState.SEALED
        assert found.touched_epoch < EPOCH
        assert not found.damaged or share is not None
    dead = {
        pack
        for pack, (found, share) in packs.items()
        if share == 0 and found.state == PackState.SEALED and found.touched_epoch < EPOCH
    }
    assert dead <= set(planned.packs)
    assert planned.free_bytes >= 0


def test_everything_holds_every_place():
    assert (3, 4) in Everything()
