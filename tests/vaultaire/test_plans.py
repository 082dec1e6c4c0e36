"""Limits as they are stored, and as a worker remembers them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.memory_kv import MemoryKv
from vaultaire.plans import TABLE, DamagedLimit, Plan, PlanBook, get_plans, list_plans, put_plan

SUBJECTS = ("tenant/a", "tenant/b", "key/A", "key/B")
plans = st.none() | st.builds(Plan, st.none() | st.integers(1, 9), st.none() | st.integers(1, 9))
changes = st.lists(st.tuples(st.sampled_from(SUBJECTS), plans), max_size=20)


@given(changes)
def test_what_is_remembered_is_what_is_stored_whenever_it_changes(changes):
    kv, book = MemoryKv([TABLE]), PlanBook(Plan())
    for subject, plan in changes:
        with kv.snapshot() as before:
            kv.commit(lambda txn, subject=subject, plan=plan: put_plan(txn, subject, plan))
            with kv.snapshot() as after:
                for reader in (before, after):
                    for subjects in (SUBJECTS[:2], SUBJECTS[2:], SUBJECTS[1:2]):
                        assert book.get(reader, *subjects) == tuple(get_plans(reader, *subjects))
        with kv.snapshot() as reader:
            assert [subject for subject, _ in list_plans(reader)] == sorted(
                subject for subject in SUBJECTS if get_plans(reader, subject) != [None]
            )


def test_a_limit_that_cannot_be_read_is_never_taken_for_none():
    kv, book = MemoryKv([TABLE]), PlanBook(Plan())
    kv.commit(lambda txn: put_plan(txn, "key/A", Plan(3)))
    kv.commit(lambda txn: txn.put(TABLE, b"key/A", b"{}"))
    for _ in range(2):
        with kv.snapshot() as reader, pytest.raises(DamagedLimit, match="vaultaire key limit"):
            book.get(reader, "tenant/a", "key/A")
