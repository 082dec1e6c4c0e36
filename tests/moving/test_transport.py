"""Requests are repeated while that may help, and kept under a rate."""

from __future__ import annotations

import pytest
import trio

from vaultaire.moving.places import ObjectError, Transient
from vaultaire.moving.report import Report
from vaultaire.moving.transport import ATTEMPTS, Pacer, Requests


async def test_a_rate_holds_over_all_tasks(autojump_clock):
    pacer = Pacer(100)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(pacer.wait, 50)
    assert trio.current_time() - began == pytest.approx(4.5)  # the last may begin when nine have gone
    await trio.sleep(100)
    began = trio.current_time()
    await pacer.wait(50)
    assert trio.current_time() == began, "what was not used is not owed"
    await Pacer(None).wait(1 << 40)


async def test_what_fails_in_passing_is_tried_again_and_nothing_else(monkeypatch):
    monkeypatch.setattr("vaultaire.moving.transport.backoff_seconds", lambda *_: 0)
    report = Report("s", "t")
    requests = Requests(2, report)
    left = [Transient("busy"), Transient("busy"), None]

    def call():
        error = left.pop(0)
        if error is not None:
            raise error
        return "answer"

    assert await requests.run(call) == "answer"
    assert report.retries == 2

    asked = []

    def always():
        asked.append(1)
        raise Transient("busy")

    with pytest.raises(Transient):
        await requests.run(always)
    assert len(asked) == ATTEMPTS

    def refused():
        asked.append(2)
        raise ObjectError("no")

    with pytest.raises(ObjectError):
        await requests.run(refused)
    assert asked.count(2) == 1
