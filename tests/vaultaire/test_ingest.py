"""Receiving bodies: whatever the pieces and the budget, the same bytes; whatever fails, nothing is left behind."""

import hashlib
import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import cas.ingest
from cas.adoption import inspect
from cas.catalog import TABLES
from cas.chunk import Identity
from cas.errors import CasError, NoSpace
from cas.memory_packs import MemoryPacks
from cas.store import ChunkStore
from index.memory_kv import MemoryKv
from index.records import ObjectRecord
from vaultaire.budget import GUARANTEED_BYTES, BudgetExhausted, MemoryBudget
from vaultaire.commit import Committer
from vaultaire.ingest import INLINE_MAX_BYTES, UPLOAD_BYTES, BodyTooLarge, ClientGone, Upload
from vaultaire.reading import read_all
from vaultaire.threads import Threads

MIB = 1 << 20


class Md5:
    def __init__(self):
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, data):
        self._md5.update(data)

    def digest(self):
        return self._md5.digest()


def body(pieces, *, complete=True):
    """An ASGI receive over `pieces`; without `complete` the client leaves after them."""
    events = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if complete:
        events.append({"type": "http.request", "body": b"", "more_body": False})
    else:
        events.append({"type": "http.disconnect"})
    waiting = iter(events)

    async def receive():
        await trio.lowlevel.checkpoint()
        return next(waiting)

    return receive


def cut(data, seed, largest=200_000):
    random_source = random.Random(seed)
    position = 0
    while position < len(data):
        length = random_source.randint(1, largest)
        yield data[position : position + length]
        position += length


class Bench:
    def __init__(self, budget_bytes=64 * MIB):
        self.kv = MemoryKv(TABLES)
        self.packs = MemoryPacks()
        self.chunks = ChunkStore(self.kv, self.packs, Identity.create(), 1)
        self.committer = Committer(self.kv, self.chunks, lambda: None)
        self.budget = MemoryBudget(budget_bytes)
        self.threads = Threads()

    def upload(self, digests=None, **options):
        return Upload(
            self.chunks,
            self.committer,
            self.budget,
            self.threads,
            decoder=None,
            digests=digests or Md5(),
            announced=options.pop("announced", 0),
            max_bytes=options.pop("max_bytes", 1 << 30),
            **options,
        )

    async def store(self, receive, digests=None):
        failure = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.committer.run)
            try:
                with self.upload(digests) as upload:
                    await upload.receive(receive)
                    await self.committer.commit(lambda txn: None, upload.publications)
                    upload.committed = True
            except Exception as error:  # out of the nursery, or it comes as a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return upload

    def read(self, upload):
        if upload.inline is not None:
            return upload.inline
        return b"".join(read_all(self.chunks, upload.manifest))


def data_of(size, seed=1):
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize(
    "size",
    [0, 1, INLINE_MAX_BYTES, INLINE_MAX_BYTES + 1, GUARANTEED_BYTES, GUARANTEED_BYTES + 1, 9 * MIB + 7],
)
async def test_a_body_comes_back_as_it_was_sent(size):
    bench, data, digests = Bench(), data_of(size), Md5()
    upload = await bench.store(body(cut(data, 2)), digests)
    assert upload.size == size
    assert bench.read(upload) == data
    assert digests.digest() == hashlib.md5(data, usedforsecurity=False).digest()
    assert (upload.inline is None) == (size > INLINE_MAX_BYTES)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 30), size=st.integers(0, 600_000), budget=st.sampled_from([2, 9, 64]))
def test_neither_pieces_nor_budget_change_what_is_stored(seed, size, budget):
    async def main():
        bench, data = Bench(budget * GUARANTEED_BYTES), data_of(size, seed)
        upload = await bench.store(body(cut(data, seed)))
        assert bench.read(upload) == data
        assert bench.budget.held_bytes == 0

    trio.run(main)


async def test_a_client_that_leaves_releases_everything():
    bench = Bench()
    with pytest.raises(ClientGone):
        await bench.store(body(cut(data_of(3 * MIB), 3), complete=False))
    assert bench.budget.held_bytes == 0
    assert bench.budget.streams == 0
    with bench.kv.snapshot() as reader:
        assert bench.chunks.statistics(reader).chunks == 0


async def test_a_cancelled_upload_releases_everything():
    bench = Bench()

    async def never():
        await trio.sleep_forever()

    with trio.move_on_after(0), bench.upload() as upload:
        await upload.receive(never)
    assert bench.budget.held_bytes == 0


async def test_a_body_beyond_the_limit_is_refused_without_being_taken_in_whole():
    bench = Bench()
    with pytest.raises(BodyTooLarge), bench.upload(max_bytes=MIB) as upload:
        await upload.receive(body(b"x" * MIB for _ in range(1000)))
    assert upload.size < 40 * MIB
    assert bench.budget.held_bytes == 0


async def test_what_is_held_stays_under_the_budget_whatever_comes():
    bench, most = Bench(16 * GUARANTEED_BYTES), 0
    receive = body(cut(data_of(8 * MIB), 5, largest=64_000))

    async def watching():
        nonlocal most
        most = max(most, bench.budget.held_bytes)
        return await receive()

    await bench.store(watching)
    assert GUARANTEED_BYTES < most <= bench.budget.total_bytes


async def test_an_upload_without_room_is_refused_at_once():
    bench = Bench(GUARANTEED_BYTES)
    with bench.upload(), pytest.raises(BudgetExhausted), bench.upload():
        pass


async def test_an_upload_is_admitted_with_memory_for_what_it_cannot_do_without():
    bench = Bench()
    for announced, guaranteed in ((0, GUARANTEED_BYTES), (100_000, 100_000), (1 << 40, UPLOAD_BYTES)):
        with bench.upload(announced=announced):
            assert bench.budget.held_bytes == guaranteed


async def test_what_was_written_is_taken_off_the_claim_on_the_disk():
    class Claim:
        total, released = 0, False

        def written(self, length):
            self.total += length

        def release(self):
            self.released = True

    bench, data, claim = Bench(), data_of(3 * MIB), Claim()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        with bench.upload() as upload:
            upload._claim = claim
            await upload.receive(body(cut(data, 7)))
            assert claim.total == len(data)
            assert not claim.released
        nursery.cancel_scope.cancel()
    assert claim.released


async def test_the_same_body_twice_adds_nothing():
    bench, data = Bench(), data_of(3 * MIB)
    first = await bench.store(body(cut(data, 7)))
    second = await bench.store(body(cut(data, 8)))
    assert first.new_stored_bytes > 0
    assert second.new_stored_bytes == 0
    assert bench.read(second) == data


def small_uploads(count, size=6000):
    return [data_of(size, seed) for seed in range(count)]


async def put_all(bench, bodies, commit):
    """All of them at once, each committed by `commit(upload, number)`; the uploads, and what they failed with."""
    uploads, failures = {}, {}
    bench.committer = Committer(bench.kv, bench.chunks, lambda: None)  # one that ran has ended

    async def put(number):
        try:
            with bench.upload() as upload:
                await upload.receive(body([bodies[number]]))
                await commit(upload, number)
                upload.committed = True
                uploads[number] = upload
        except CasError as error:
            failures[number] = type(error)

    async with trio.open_nursery() as nursery:
        for number in range(len(bodies)):
            nursery.start_soon(put, number)
        while len(bench.committer._waiting) < len(bodies):
            await trio.lowlevel.checkpoint()
        with trio.move_on_after(0):  # what waits is served to the end, as one group
            await bench.committer.run()
    return uploads, failures


def commits(bench, records=None):
    async def commit(upload, number):
        record = ObjectRecord(upload.size, 1, "0" * 32, "root", manifest=upload.manifest.encode())

        def fn(txn):
            if records is not None:
                records[number] = upload.counted(record)

        await bench.committer.commit(fn, upload.publications)

    return commit


async def test_small_uploads_of_one_group_share_a_frame_and_its_cost():
    bench, bodies, records = Bench(), small_uploads(5), {}
    uploads, failures = await put_all(bench, bodies, commits(bench, records))
    assert not failures
    assert [bench.read(uploads[number]) for number in range(5)] == bodies
    (pack,) = bench.packs.packs()
    (frame,) = inspect(bench.packs, pack).frames
    assert sum(record.new_stored_bytes for record in records.values()) == frame.header.total_length
    assert all(record.new_stored_bytes > 6000 for record in records.values())
    assert all(
        upload.new_stored_bytes == records[number].new_stored_bytes for number, upload in uploads.items()
    )


async def test_what_waits_for_its_commit_counts_as_held_until_then(monkeypatch):
    monkeypatch.setattr(cas.ingest, "TAIL_RAW_BYTES", 64 << 10)  # more than is guaranteed to a stream
    bench, bodies = Bench(), small_uploads(3, 60_000)
    held = []

    async def commit(upload, number):
        held.append(bench.budget.held_bytes)
        await commits(bench)(upload, number)

    await put_all(bench, bodies, commit)
    assert max(held) == 3 * 60_000
    assert bench.budget.held_bytes == 0


async def test_a_full_disk_in_the_commit_fails_the_uploads_and_leaves_nothing_behind():
    bench, bodies = Bench(), small_uploads(5)
    bench.packs.capacity = 9000
    uploads, failures = await put_all(bench, bodies, commits(bench))
    assert len(uploads) == 1
    assert set(failures.values()) == {NoSpace}
    assert bench.budget.held_bytes == len(bench.chunks._known) == 0
    bench.packs.capacity = None
    again, failures = await put_all(bench, bodies, commits(bench))
    assert not failures
    assert [bench.read(again[number]) for number in range(5)] == bodies
