"""What is held for clients is counted, and is no more than what they sent and are being sent."""

import trio

from tests.vaultaire.test_ingest import Bench, body, cut, data_of
from vaultaire.budget import GUARANTEED_BYTES, MemoryBudget
from vaultaire.ingest import INGEST_BYTES
from vaultaire.reading import (
    CROWDED_WINDOW_BYTES,
    HELD_WINDOWS,
    SMALL_SPAN_BYTES,
    ObjectReader,
)

MIB = 1 << 20


async def wait_until(claim):
    with trio.fail_after(10):
        while not claim():  # noqa: ASYNC110  # what threads do sets no event
            await trio.sleep(0.005)


async def test_an_upload_that_stalls_gives_back_what_it_has_processed():
    bench, stalled = Bench(256 * MIB), trio.Event()
    first = body(cut(data_of(9 * MIB), 1, largest=256 << 10), complete=False)

    async def receive():
        event = await first()
        if event["type"] != "http.disconnect":
            return event
        stalled.set()
        return await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        with bench.upload() as upload:
            nursery.start_soon(upload.receive, receive)
            await stalled.wait()
            await wait_until(lambda: not upload._in_hand)
            held = max(INGEST_BYTES, upload._ingest.held_bytes)
            assert held < 3 * MIB
            await wait_until(lambda: bench.budget.held_bytes == upload._arriving + held)
            assert upload._arriving < 9 * MIB
            nursery.cancel_scope.cancel()


async def test_bytes_that_come_one_by_one_cost_no_more_than_others():
    bench = Bench()
    pieces = [b"x"] * 50_000

    class Spy:
        largest = 0

        def update(self, data):
            Spy.largest = max(Spy.largest, len(data))

    upload = await bench.store(body(pieces), Spy())
    assert upload.size == len(pieces)
    assert Spy.largest > 10_000


async def test_tiny_chunks_of_a_body_are_joined_before_they_are_kept():
    class OneByOne:
        def feed(self, data):
            return [data[n : n + 1] for n in range(len(data))]

        def finish(self):
            return {}

    class Count:
        updates = 0

        def update(self, data):
            self.updates += 1

    bench, count, data = Bench(), Count(), data_of(300_000)
    with bench.upload(count) as upload:
        upload._decoder = OneByOne()
        await upload.receive(body(cut(data, 3)))
        assert upload.size == len(data)
    assert count.updates < 20


async def test_slow_readers_hold_one_small_window_each_when_the_budget_is_short():
    bench, data = Bench(), data_of(3 * MIB)
    upload = await bench.store(body(cut(data, 1)))
    budget = MemoryBudget(4 * MIB)
    windows_read = 0

    class Counting(ObjectReader):
        def _read_next(self):
            nonlocal windows_read
            windows_read += 1
            return super()._read_next()

    async def slow(piece):
        assert len(piece) <= SMALL_SPAN_BYTES
        await trio.sleep_forever()

    with budget.admit() as greedy, budget.admit() as lease:
        assert greedy.resize(2 * MIB - 2 * GUARANTEED_BYTES)
        reader = Counting(bench.chunks, bench.threads, lease, upload.manifest, 0, len(data))
        with trio.move_on_after(0.2):
            await reader.send_rest(slow)
    assert windows_read == 1


async def test_a_piece_that_is_sent_keeps_nothing_else_in_memory():
    bench, text = Bench(), b"".join(b"line %09d\n" % n for n in range(30_000))
    upload = await bench.store(body([text]))
    with MemoryBudget(GUARANTEED_BYTES).admit() as lease:
        reader = ObjectReader(bench.chunks, bench.threads, lease, upload.manifest, 0, len(text))
        while (window := await reader.next_window()) is not None:
            for piece in window:
                assert memoryview(memoryview(piece).obj).nbytes == len(piece)


async def test_a_reader_among_many_takes_smaller_windows():
    bench, data = Bench(), data_of(3 * MIB)
    upload = await bench.store(body(cut(data, 1)))
    budget = MemoryBudget(64 * MIB)
    others = [budget.admit() for _ in range(20)]
    with budget.admit() as lease:
        reader = ObjectReader(bench.chunks, bench.threads, lease, upload.manifest, 0, len(data))
        assert lease.bytes == HELD_WINDOWS * CROWDED_WINDOW_BYTES
        pieces = []

        async def send(piece):
            pieces.append(bytes(piece))

        await reader.send_rest(send)
    assert b"".join(pieces) == data
    assert len(others) == 20
    assert max(map(len, pieces)) <= 2 * CROWDED_WINDOW_BYTES


def test_documents_find_room_where_streams_find_none():
    budget = MemoryBudget(64 * GUARANTEED_BYTES)
    with budget.admit() as stream, budget.admit() as document:
        assert stream.resize(31 * GUARANTEED_BYTES)
        assert not document.resize(5 * GUARANTEED_BYTES)
        assert document.resize(16 * GUARANTEED_BYTES, whole=True)
        assert not document.resize(18 * GUARANTEED_BYTES, whole=True)


async def test_uploads_of_noise_that_stall_carry_no_more_than_their_share():
    bench, stalled = Bench(64 * MIB), 0

    def stall_after(data):
        events = body(cut(data, 1, largest=128 << 10), complete=False)

        async def receive():
            nonlocal stalled
            event = await events()
            if event["type"] != "http.disconnect":
                return event
            stalled += 1
            return await trio.sleep_forever()

        return receive

    uploads = []

    async def run(seed):
        with bench.upload() as upload:
            uploads.append(upload)
            await upload.receive(stall_after(data_of(1_300_000, seed)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        for seed in range(30):
            nursery.start_soon(run, seed)
        await wait_until(lambda: stalled == 30 and not any(upload._in_hand for upload in uploads))
        carried = sum(max(0, upload._ingest.held_bytes - INGEST_BYTES) for upload in uploads)
        assert carried <= 4 * MIB
        nursery.cancel_scope.cancel()
    assert bench.budget.carried_bytes == 0
