"""The list of chores: what is due runs, what fails is tried again and stops nobody else."""

from __future__ import annotations

import os

import pytest

from index.kv import StorePoisoned
from tests.cas.support import noise
from tests.vaultaire.verify_support import Client
from vaultaire.config import ServeConfig
from vaultaire.maintenance import Chore, chores, run_due
from vaultaire.store import Store


def test_a_chore_runs_when_it_is_due_and_not_before():
    calls = []
    chore = Chore("it", lambda: calls.append(1), every=10.0)
    for now in (0.0, 9.9, 10.0, 15.0, 20.0):
        run_due([chore], now)
    assert len(calls) == 3


def test_a_failing_chore_is_tried_again_and_stops_no_other(caplog):
    calls = []

    def fail():
        calls.append("failing")
        raise OSError("the disk is away")

    chores = [Chore("failing", fail), Chore("sound", lambda: calls.append("sound"))]
    run_due(chores, 0.0)
    run_due(chores, 1.0)
    assert calls == ["failing", "sound"] * 2
    assert "failing failed: the disk is away; it will be tried again" in caplog.text


def test_a_poisoned_store_ends_the_process():
    def poisoned():
        raise StorePoisoned("it was")

    with pytest.raises(StorePoisoned):
        run_due([Chore("it", poisoned)], 0.0)


def test_nothing_new_begins_once_the_process_is_to_stop():
    calls = []
    run_due([Chore("it", lambda: calls.append(1))], 0.0, lambda: True)
    assert not calls


@pytest.mark.parametrize("days", [1e-9, 36500.0, 0.0])
def test_it_archives_what_is_as_old_as_it_is_told(tmp_path, monkeypatch, days):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    with Store.open(tmp_path / "data", kind="command", create=True) as store:
        client = Client(store)
        client.put(client.bucket("b"), b"small", noise(1000))
        config = ServeConfig(store.directory, archive_after_days=days)
        collection = next(chore for chore in chores(store, config) if chore.name == "collection")
        monkeypatch.setattr("vaultaire.collection.LOOK_SECONDS", 0.0)
        for _ in range(100):
            store.run_file.tick()
            collection.run()
        with store.kv.snapshot() as reader:
            assert store.chunks.statistics(reader).chunks == (1 if 0 < days < 1 else 0)
