"""Helpers of compressing and decoding threads: order, errors, and nobody waits for what nobody has begun."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from vaultaire.threads import CORES, FrameThreads, _Job


@pytest.fixture
def frames():
    threads = FrameThreads()
    yield threads
    threads.shutdown()


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_results_are_in_the_order_of_the_items(frames: FrameThreads, count: int):
    assert frames.map(lambda n: n * n, iter(range(count))) == [n * n for n in range(count)]


def test_two_items_are_worked_at_together(frames: FrameThreads):
    both = threading.Barrier(2, timeout=30)
    assert sorted(frames.map(lambda _: both.wait(), range(2))) == [0, 1]


def test_while_helpers_are_busy_the_caller_does_it_all(frames: FrameThreads):
    begun, go = threading.Semaphore(0), threading.Event()

    def keep_busy(_: int) -> None:
        begun.release()
        assert go.wait(30)

    others = [threading.Thread(target=frames.map, args=(keep_busy, range(16))) for _ in range(16)]
    for other in others:
        other.start()
    for _ in others:
        begun.acquire()
    assert frames.map(lambda n: -n, range(5)) == [0, -1, -2, -3, -4]
    go.set()
    for other in others:
        other.join()


def test_maps_inside_maps_end(frames: FrameThreads):
    inner = frames.map(lambda n: sum(frames.map(lambda m: n * m, range(4))), range(20))
    assert inner == [6 * n for n in range(20)]


@pytest.mark.parametrize("culprit", [0, 7, 19])
def test_an_error_is_raised_and_nothing_goes_on_behind_it(frames: FrameThreads, culprit: int):
    running = set()

    def work(n: int) -> None:
        running.add(n)
        try:
            if n == culprit:
                raise ValueError(n)
        finally:
            running.discard(n)

    with pytest.raises(ValueError, match=str(culprit)):
        frames.map(work, range(20))
    assert not running


def test_after_an_error_of_a_helper_nothing_more_is_begun():
    begun = []

    def work(n: int) -> None:
        begun.append(n)
        if n == 3:
            raise ValueError(n)

    job = _Job(work, list(range(10)))
    job.help()
    job.take()  # the one who maps finds nothing left
    results, error = job.close()
    assert begun == [0, 1, 2, 3]
    assert list(results) == [0, 1, 2]
    assert isinstance(error, ValueError)
    job.help()  # late
    assert begun == [0, 1, 2, 3]


def test_what_a_map_held_is_let_go_though_helpers_come_late(frames: FrameThreads):
    """All helpers are busy: what was queued for them stays there until they are free."""
    begun, go = threading.Semaphore(0), threading.Event()

    def keep_busy(_: int) -> None:
        begun.release()
        assert go.wait(30)

    other = threading.Thread(target=frames.map, args=(keep_busy, range(4 * CORES)))
    other.start()
    for _ in range(CORES):
        begun.acquire()
    results = frames.map(lambda _: Large(), range(4))
    references = [weakref.ref(each) for each in results]
    del results
    gc.collect()
    assert [reference() for reference in references] == [None] * 4
    go.set()
    other.join()


class Large:
    """Bytes that can be referred to weakly."""


@pytest.mark.parametrize("started", [0, 1])
def test_where_no_helper_can_be_started_the_caller_does_it_all(monkeypatch, started: int):
    monkeypatch.setattr("vaultaire.threads.CORES", 4)
    start, count = threading.Thread.start, iter(range(99))

    def limited(thread: threading.Thread) -> None:
        if next(count) >= started:
            raise RuntimeError("can't start new thread")
        start(thread)

    frames = FrameThreads()
    monkeypatch.setattr(threading.Thread, "start", limited)
    assert frames.map(lambda n: n + 1, range(50)) == list(range(1, 51))
    frames.shutdown()
    assert frames.map(lambda n: n + 1, range(5)) == list(range(1, 6))
