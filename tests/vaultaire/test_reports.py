"""Reports that cannot be read are as none: they are no truth, and must not end who asks for them."""

from __future__ import annotations

import pytest

from vaultaire.reports import TABLE, get_report, put_report
from vaultaire.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store", kind="command", create=True) as opened:
        yield opened


@pytest.mark.parametrize("row", [b"", b"{", b"\xff\xfe", b"[]", b"7", b"null"])
def test_a_damaged_report_is_no_report_and_can_be_replaced(store, row):
    store.kv.commit(lambda txn: txn.put(TABLE, b"scrub", row))
    with store.kv.snapshot() as reader:
        assert get_report(reader, "scrub") is None
    store.kv.commit(lambda txn: put_report(txn, "scrub", {"n": 1}))
    with store.kv.snapshot() as reader:
        assert get_report(reader, "scrub") == {"n": 1}
