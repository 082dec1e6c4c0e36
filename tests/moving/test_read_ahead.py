"""A body's windows come in order, a bounded number of them is held, and every permit is given back."""

from __future__ import annotations

import pytest
import trio

from vaultaire.moving import read_ahead
from vaultaire.moving.places import Attributes, Transient
from vaultaire.moving.read_ahead import AHEAD, with_body

ATTRIBUTES = Attributes(0, "", 0, {})


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(read_ahead, "WINDOW_BYTES", 10)


async def take_all(body):
    taken = []
    more = True
    while more:
        event = await body.receive()
        taken.append(event["body"])
        more = event["more_body"]
    return taken


async def test_windows_come_in_order_however_long_each_takes(autojump_clock):
    async def fetch(start, stop):
        await trio.sleep(100 - start)  # the later, the faster
        return ATTRIBUTES, bytes(range(start, stop))

    permits = trio.Semaphore(8)
    taken = await with_body(fetch, 55, permits, None, take_all)
    assert b"".join(taken) == bytes(range(55))
    assert [len(window) for window in taken] == [10, 10, 10, 10, 10, 5]
    assert permits.value == 8


async def test_what_is_empty_is_asked_for_once(autojump_clock):
    asked = []

    async def fetch(start, stop):
        asked.append((start, stop))
        return ATTRIBUTES, b""

    assert await with_body(fetch, 0, trio.Semaphore(1), None, take_all) == [b""]
    assert asked == [(0, 0)]


async def test_no_more_windows_are_fetched_than_there_are_permits_and_room_ahead(autojump_clock):
    fetched = []

    async def fetch(start, stop):
        fetched.append(start)
        return ATTRIBUTES, bytes(stop - start)

    async def slow(body):
        await trio.sleep(1)
        assert len(fetched) == 2, "as many as there are permits"
        await body.receive()
        await trio.sleep(1)
        assert len(fetched) == 3
        return await take_all(body)

    await with_body(fetch, 1000, trio.Semaphore(2), None, slow)
    fetched.clear()

    async def idle(body):
        await trio.sleep(1)
        return len(fetched)

    assert await with_body(fetch, 1000, trio.Semaphore(100), None, idle) <= AHEAD + 2


async def test_many_bodies_share_few_permits_without_waiting_for_ever(autojump_clock):
    async def fetch(start, stop):
        await trio.sleep(1)
        return ATTRIBUTES, bytes(stop - start)

    permits = trio.Semaphore(2)
    done = []

    async def one(size):
        done.append(sum(map(len, await with_body(fetch, size, permits, None, take_all))))

    async with trio.open_nursery() as nursery:
        for size in (95, 10, 40, 71):
            nursery.start_soon(one, size)
    assert sorted(done) == [10, 40, 71, 95]
    assert permits.value == 2


@pytest.mark.parametrize("at", [0, 30])
async def test_a_window_that_fails_fails_the_body_and_gives_its_permits_back(autojump_clock, at):
    async def fetch(start, stop):
        if start == at:
            raise Transient("gone")
        return ATTRIBUTES, bytes(stop - start)

    permits = trio.Semaphore(3)
    with pytest.raises(Transient):
        await with_body(fetch, 100, permits, None, take_all)
    assert permits.value == 3


async def test_a_user_that_gives_up_gives_the_permits_back(autojump_clock):
    async def fetch(start, stop):
        await trio.sleep(start)
        return ATTRIBUTES, bytes(stop - start)

    async def use(body):
        await body.receive()
        raise ValueError("enough")

    permits = trio.Semaphore(3)
    with pytest.raises(ValueError, match="enough"):
        await with_body(fetch, 100, permits, None, use)
    assert permits.value == 3
