"""Group commit: everybody learns their own fate, and only once it is decided."""

import pytest
import trio
import trio.testing

from cas.errors import PackPoisoned
from index.kv import StorePoisoned
from index.memory_kv import MemoryKv
from vaultaire.commit import Committer


class Chunks:
    """The chunk store as the committer sees it: records what was made durable, fails where told."""

    def __init__(self):
        self.synced = []
        self.failures_in_a_row = 0

    def sync(self, publications):
        for publication in publications:
            if publication.poisoned:
                raise PackPoisoned(1, 0, "injected")
        self.synced.append(len(publications))


class Publication:
    def __init__(self, poisoned=False):
        self.poisoned = poisoned
        self.events = []

    def apply(self, txn):
        self.events.append("applied")

    def settle(self, committed):
        self.events.append(committed)


@pytest.fixture
def kv():
    return MemoryKv(["t"])


@pytest.fixture
def poisoned_calls():
    return []


@pytest.fixture
async def committer(kv, poisoned_calls, nursery):
    committer = Committer(kv, Chunks(), lambda: poisoned_calls.append(1))
    nursery.start_soon(committer.run)
    return committer


async def test_a_commit_returns_what_its_function_returned_and_is_visible(committer, kv):
    assert await committer.commit(lambda txn: txn.put("t", b"k", b"v") or 42) == 42
    with kv.snapshot() as reader:
        assert reader.get("t", b"k") == b"v"


async def test_those_who_wait_share_one_sync(committer, autojump_clock):
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(committer.commit, lambda txn: None, [Publication()])
    assert sum(committer._chunks.synced) == 20
    assert len(committer._chunks.synced) < 20


async def test_a_function_that_raises_fails_alone(committer, kv):
    errors = []

    async def one(number):
        def fn(txn):
            txn.put("t", bytes([number]), b"v")
            if number == 3:
                raise KeyError(number)

        try:
            await committer.commit(fn)
        except KeyError as error:
            errors.append(error.args[0])

    async with trio.open_nursery() as nursery:
        for number in range(1, 6):
            nursery.start_soon(one, number)
    assert errors == [3]
    with kv.snapshot() as reader:
        assert [key for key, _ in reader.scan("t")] == [b"\x01", b"\x02", b"\x04", b"\x05"]


async def test_bytes_that_cannot_be_made_durable_fail_their_own_request_only(committer, kv):
    bad, good = Publication(poisoned=True), Publication()
    results = {}

    async def one(name, publication):
        try:
            await committer.commit(lambda txn: txn.put("t", name, b"v"), [publication])
            results[name] = "committed"
        except PackPoisoned:
            results[name] = "poisoned"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, b"bad", bad)
        nursery.start_soon(one, b"good", good)
    assert results == {b"bad": "poisoned", b"good": "committed"}
    assert bad.events == [False]
    assert good.events == ["applied", True]
    with kv.snapshot() as reader:
        assert reader.get("t", b"bad") is None


async def test_a_client_that_leaves_during_its_commit_changes_nothing_about_it(committer, kv):
    with trio.CancelScope() as scope:
        scope.cancel()
        await committer.commit(lambda txn: txn.put("t", b"k", b"v"))
    with kv.snapshot() as reader:
        assert reader.get("t", b"k") == b"v"


async def test_a_poisoned_store_is_reported_and_every_waiter_is_told(
    committer, kv, poisoned_calls, monkeypatch
):
    def poisoned(fns):
        raise StorePoisoned("a sync of the journal failed")

    monkeypatch.setattr(kv, "commit_many", poisoned)
    publication = Publication()
    with pytest.raises(StorePoisoned):
        await committer.commit(lambda txn: None, [publication])
    assert poisoned_calls == [1]
    assert publication.events == [False]


async def test_what_was_handed_over_before_the_end_is_still_decided(kv):
    committer = Committer(kv, Chunks(), lambda: None)
    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        outer.start_soon(committer.commit, lambda txn: txn.put("t", b"k", b"v"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with kv.snapshot() as reader:
        assert reader.get("t", b"k") == b"v"
