"""Ends: of the committer, of a poisoned or full store, of whatever a process leaves to the next one."""

import pytest
import trio
import trio.testing

from cas.catalog import PackState, iterate_packs
from index.kv import Outcome, StorePoisoned
from index.memory_kv import MemoryKv
from tests.vaultaire.test_commit import Chunks, Publication
from vaultaire.commit import Committer, CommitterEnded
from vaultaire.runfile import RunFile, dead_writers
from vaultaire.store import Store


async def test_after_the_committer_has_ended_nobody_waits_for_it():
    committer = Committer(MemoryKv(["t"]), Chunks(), lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5), pytest.raises(CommitterEnded):
        await committer.commit(lambda txn: None)


async def test_a_store_poisoned_in_the_middle_of_a_batch_is_reported(monkeypatch):
    kv, calls = MemoryKv(["t"]), []

    def half(
        fns,
    ):  # what an engine gives back when the first step of a batch was durable and the next one not
        return [Outcome("done", None, 1), *(Outcome(None, StorePoisoned("sync failed"), 0) for _ in fns[1:])]

    monkeypatch.setattr(kv, "commit_many", half)
    committer, results = Committer(kv, Chunks(), lambda: calls.append(1)), []

    async def one():
        try:
            results.append(await committer.commit(lambda txn: None))
        except StorePoisoned:
            results.append("poisoned")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as clients:
            for _ in range(2):
                clients.start_soon(one)
        nursery.cancel_scope.cancel()
    assert sorted(results) == ["done", "poisoned"]
    assert calls == [1]


async def test_what_is_committed_stays_so_when_settling_another_request_fails():
    class Broken(Publication):
        def settle(self, committed):
            raise OSError("close failed")

    committer, results = Committer(MemoryKv(["t"]), Chunks(), lambda: None), {}

    async def one(name, publication):
        results[name] = await committer.commit(lambda txn: txn.put("t", name, b"v") or "done", [publication])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as clients:
            clients.start_soon(one, b"a", Broken())
            clients.start_soon(one, b"b", Publication())
        nursery.cancel_scope.cancel()
    assert results == {b"a": "done", b"b": "done"}


def put_chunks(store, data):
    ingest = store.chunks.ingest()
    ingest.feed(data)
    ingest.finish()
    publication = ingest.publication()
    store.chunks.sync([publication])
    store.kv.commit(publication.apply)
    publication.settle(True)


def pack_states(store):
    with store.kv.snapshot() as reader:
        return [row.state for _, row in iterate_packs(reader)]


def test_a_store_that_cannot_be_closed_in_order_is_put_in_order_by_the_next_process(tmp_path):
    directory = tmp_path / "data"
    store = Store.open(directory, kind="worker", create=True)
    put_chunks(store, bytes(range(256)) * 1000)
    (directory / "run" / "poisoned").write_text("injected\n")
    with pytest.raises(StorePoisoned):
        store.close()
    with Store.open(directory, kind="worker") as again:
        assert pack_states(again) == [PackState.SEALED]
        run_files = [path.name for path in (directory / "run").glob("*-*")]
        assert run_files == [again.run_file.path.name]


def test_a_pack_that_could_not_be_sealed_for_want_of_room_is_sealed_by_the_next_process(
    tmp_path, monkeypatch
):
    directory = tmp_path / "data"
    store = Store.open(directory, kind="worker", create=True)
    put_chunks(store, bytes(range(256)) * 1000)
    monkeypatch.setattr(
        store.chunks, "close", store.chunks._appender.close
    )  # as with a full disk: nothing is sealed
    store.close()
    with Store.open(directory, kind="worker") as again:
        assert pack_states(again) == [PackState.SEALED]


def test_a_store_closed_in_order_leaves_no_run_file(tmp_path):
    with Store.open(tmp_path / "data", kind="worker", create=True) as store:
        put_chunks(store, bytes(range(256)) * 1000)
    assert list((tmp_path / "data" / "run").iterdir()) == []


def test_a_dead_process_is_adopted_by_one_process_at_a_time(tmp_path):
    RunFile(tmp_path, "worker", 7, lambda: 0).close(remove=False)
    adopting = dead_writers(tmp_path)
    assert next(adopting)[0] == 7
    assert list(dead_writers(tmp_path)) == []
    adopting.close()
    assert [writer for writer, _ in dead_writers(tmp_path)] == [7]
