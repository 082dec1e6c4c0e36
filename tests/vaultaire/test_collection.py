"""Collection over memory: what is dead comes back, what is needed stays, whatever happens between two steps."""

from __future__ import annotations

import random

import pytest

from cas.adoption import adopt
from cas.catalog import PLACEMENTS, PackState, read_condemned, read_gone
from cas.errors import PackGone
from tests.cas.support import noise, words
from tests.vaultaire.collection_world import POLICY, World
from vaultaire.collection import RETRY_SECONDS, Collector, State
from vaultaire.collection_due import (
    LATER_SECONDS,
    MORE_ROOM_BYTES,
    NO_ROOM_SECONDS,
    SOON_SECONDS,
    Standing,
    plan_round,
)
from vaultaire.collection_report import SUBJECT
from vaultaire.reports import get_report
from vaultaire.runfile import IDLE


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.bucket()
    yield world
    world.end()


SIZE = 2_800  # four to a pack


def data_of(number: int) -> bytes:
    return noise(SIZE, number)


def fill(world: World, count: int = 12) -> None:
    for number in range(count):
        world.put(b"k%d" % number, data_of(number))
    world.seal()


# --- what comes back ----------------------------------------------------------------------------------------------


def test_everything_comes_back_after_everything_was_deleted(world):
    fill(world)
    for number in range(12):
        world.delete(b"k%d" % number)
    progress = world.collect()
    assert world.rows() == {}
    assert world.placed() == {}
    assert list(world.packs.packs()) == []
    assert progress.copied_bytes == 0
    assert progress.freed_bytes > 12 * SIZE
    with world.kv.snapshot() as reader:
        assert not read_condemned(reader)
        assert not read_gone(reader)


def test_what_is_needed_is_copied_and_can_be_read(world):
    fill(world)
    for number in range(12):
        if number % 4:
            world.delete(b"k%d" % number)
    before = sum(row.length for row in world.rows().values())
    progress = world.collect()
    world.seal()
    world.check()
    assert progress.removed_packs > 0
    assert sum(row.length for row in world.rows().values()) < before / 2
    assert [world.get(b"k%d" % n) for n in (0, 4, 8)] == [data_of(n) for n in (0, 4, 8)]


def test_nothing_is_done_where_nothing_was_deleted(world):
    for number in range(12):
        world.put(b"k%d" % number, noise(11_000, number))
    world.seal()
    world.collect()  # may merge what is small
    world.seal()
    rows = world.rows()
    world.collect()
    assert world.rows() == rows


def test_the_bytes_of_an_upload_that_was_given_up_come_back(world):
    ingest = world.chunks.ingest()
    ingest.feed(noise(40_000))
    ingest.finish()
    publication = ingest.publication()
    world.commit(lambda txn: None, publication)
    ingest.abort()
    world.seal()
    assert world.rows()
    world.collect()
    assert world.rows() == {}


def test_trees_versions_and_ranges_keep_what_they_need(world):
    big = noise(60_000, 1) + words(60_000, 2)  # some hundred chunks: a tree
    world.put(b"big", big)
    world.put(b"other", noise(60_000, 3))
    world.copy(b"big", b"copy")
    world.delete(b"big")
    world.delete(b"other")
    world.seal()
    world.collect()
    world.seal()
    assert world.get(b"copy") == big
    world.check()


def test_an_open_pack_is_left_alone(world):
    world.put(b"k", noise(3_000))
    world.delete(b"k")
    world.collect()
    assert [row.state for row in world.rows().values()] == [PackState.OPEN] * len(world.rows())


def test_small_packs_become_one(world):
    for number in range(8):
        world.put(b"k%d" % number, noise(900, number))
        world.seal()
    before = len(world.rows())
    world.collect()
    world.seal()
    assert len(world.rows()) < before / 2
    world.check()
    world.collect()
    world.seal()
    world.check()


# --- waiting ------------------------------------------------------------------------------------------------------


def steps(collector: Collector, most: int = 10_000) -> State:
    """Slices until the collector waits, or has nothing to do."""
    for _ in range(most):
        collector._store.run_file.tick()
        state = collector.run_slice(0.0)
        if state in (State.IDLE, State.WAITING):
            return state
    raise AssertionError("the collector does not come to an end")


def test_nothing_is_condemned_while_an_older_operation_runs(world):
    fill(world)
    for number in range(12):
        world.delete(b"k%d" % number)
    token = world.run_file.begin()
    collector = world.collector()
    assert steps(collector) is State.WAITING
    assert {row.state for row in world.rows().values()} == {PackState.SEALED}
    world.run_file.end(token)
    world.run_file.tick()
    assert steps(collector) is State.IDLE
    assert world.rows() == {}
    collector.close()


def until_condemned(world: World, collector: Collector) -> None:
    for _ in range(1000):
        if any(row.state == PackState.CONDEMNED for row in world.rows().values()):
            return
        world.run_file.tick()
        collector.run_slice(0.0)
    raise AssertionError("nothing is condemned")


def test_an_upload_that_began_before_may_still_rely_on_a_condemned_pack(world):
    data = data_of(3)
    fill(world)
    for number in range(12):
        world.delete(b"k%d" % number)
    collector = world.collector()
    world.run_file.tick()
    # It begins after the survey and before the packs are condemned, finds its chunks there, and takes its time.
    retire = _hook(collector)
    ingest = retire(lambda: world.chunks.ingest(), lambda ingest: ingest.feed(data))
    assert ingest.new_stored_bytes == 0
    assert steps(collector) is State.WAITING
    world.commit_upload(ingest, b"late", data)
    world.run_file.tick()
    assert steps(collector) is State.IDLE
    assert world.get(b"late") == data
    world.seal()
    world.check()
    collector.close()


def _hook(collector: Collector):
    """Run the collector up to the moment before it condemns, do something, and let it condemn."""
    from cas import gc

    def around(make, then):
        made = []
        real = gc.retire

        def retire(kv, packs):
            made.append(make())
            then(made[0])
            return real(kv, packs)

        gc.retire = retire
        try:
            for _ in range(1000):
                if made:
                    break
                collector.run_slice(0.0)
        finally:
            gc.retire = real
        return made[0]

    return around


def test_an_upload_that_began_after_brings_a_copy_of_its_own(world):
    data = data_of(3)
    fill(world)
    for number in range(12):
        world.delete(b"k%d" % number)
    collector = world.collector()
    until_condemned(world, collector)
    world.run_file.tick()
    world.put(b"new", data)
    world.run_file.tick()
    assert steps(collector) is State.IDLE
    assert world.get(b"new") == data
    world.seal()
    world.check()
    collector.close()


def test_a_read_that_found_its_chunks_before_the_swap_can_still_read_them(world):
    fill(world)
    for number in range(12):
        if number % 4:
            world.delete(b"k%d" % number)
    collector = world.collector()
    until_condemned(world, collector)
    world.run_file.tick()
    token = world.run_file.begin()
    with world.kv.snapshot() as reader:
        from cas.manifest import Manifest
        from index.buckets import get_bucket
        from index.objects import get_object

        record = get_object(reader, get_bucket(reader, "b").id, b"k4")
        manifest = Manifest.decode(record.manifest)
        spans = world.chunks.locate(reader, manifest, 0, manifest.size)
    assert steps(collector) is State.WAITING  # swapped, and not removed
    assert b"".join(world.chunks.read(spans)) == data_of(4)
    world.run_file.end(token)
    world.run_file.tick()
    assert steps(collector) is State.IDLE
    world.seal()
    world.check()
    collector.close()


def test_a_copy_made_while_marking_is_safe(world):
    """A copied manifest needs no look at its packs: its source is read again in the commit."""
    fill(world)
    for number in range(12):
        if number != 5:
            world.delete(b"k%d" % number)
    collector = world.collector()
    until_condemned(world, collector)
    world.run_file.tick()
    for _ in range(1000):
        if collector.progress.step == "copying":
            break
        collector.run_slice(0.0)
    world.copy(b"k5", b"a")
    world.delete(b"k5")
    world.run_file.tick()
    assert steps(collector) is State.IDLE
    assert world.get(b"a") == data_of(5)
    collector.close()


def test_the_row_check_refuses_what_relies_on_a_pack_that_is_gone(world):
    """The net below the waiting: an operation that nobody waited for fails, instead of making a dangling object."""
    data = data_of(3)
    fill(world)
    world.delete(b"k3")
    ingest = world.chunks.ingest()
    ingest.feed(data)
    ingest.finish()
    for number in range(12):
        if number != 3:
            world.delete(b"k%d" % number)
    world.run_file._publish(IDLE)  # a lie: the operation is not to be seen
    world.run_file.tick = lambda: IDLE
    world.collect()
    with pytest.raises(PackGone):
        world.commit_upload(ingest, b"late", data)
    ingest.abort()


# --- damage, no room ----------------------------------------------------------------------------------------------


def test_a_live_chunk_that_cannot_be_read_keeps_its_pack_and_stops_nobody(world):
    fill(world)
    for number in range(12):
        if number % 4:
            world.delete(b"k%d" % number)
    with world.kv.snapshot() as reader:
        from cas.manifest import Manifest
        from index.buckets import get_bucket
        from index.objects import get_object

        record = get_object(reader, get_bucket(reader, "b").id, b"k4")
        spans = world.chunks.locate(reader, Manifest.decode(record.manifest), 0, record.size)
    hurt = spans[3].placement
    offset = hurt.frame + hurt.header_length + hurt.inside
    world.packs.volatile[hurt.pack][offset] ^= 0xFF
    progress = world.collect()
    assert progress.kept_packs == 1
    assert "damaged" in progress.errors[0]
    row = world.rows()[hurt.pack]
    assert (row.state, row.damaged, row.placed_chunks) == (PackState.CONDEMNED, True, 1)
    assert world.get(b"k0") == data_of(0)
    assert world.get(b"k8") == data_of(8)
    # The same bytes come again: the object is whole, and the next round removes the pack.
    world.run_file.tick()
    world.put(b"again", data_of(4))
    assert world.get(b"k4") == data_of(4)
    assert world.collect().kept_packs == 0
    assert hurt.pack not in world.rows()
    world.seal()
    world.check()


def test_a_pack_without_a_footer_is_emptied_by_the_catalog(world):
    fill(world)
    for number in range(12):
        if number % 4:
            world.delete(b"k%d" % number)
    for data in world.packs.volatile.values():
        data[-1] ^= 0xFF
    world.collect()
    world.seal()
    world.check()
    assert world.get(b"k4") == data_of(4)


def test_a_node_that_cannot_be_read_lets_nothing_be_dropped(world):
    big = noise(60_000, 1)
    world.put(b"big", big)
    world.put(b"small", data_of(2))
    world.seal()
    world.delete(b"small")
    nodes = [pack for pack, row in world.rows().items() if row.kind == 2]
    sound = {pack: bytes(world.packs.volatile[pack]) for pack in nodes}
    for pack in nodes:
        world.packs.volatile[pack][200:-200] = bytes(len(sound[pack]) - 400)
    placed = sum(world.placed().values())
    progress = world.collect()
    assert not progress.complete
    assert sum(world.placed().values()) == placed
    for pack in nodes:  # repaired
        world.packs.volatile[pack][:] = sound[pack]
    assert world.collect().complete
    assert world.get(b"big") == big
    assert sum(world.placed().values()) < placed


def test_without_room_for_copies_what_needs_none_still_comes_back(world):
    fill(world, 24)
    for number in range(24):
        if not (number < 12 and number % 4 == 0):
            world.delete(b"k%d" % number)
    world.packs.capacity = world.packs.used() + 100
    world.collect()
    for number in (0, 4, 8):
        assert world.get(b"k%d" % number) == data_of(number)
    assert world.packs.used() < 24 * SIZE * 0.75
    world.packs.capacity = None
    world.collect()
    world.seal()
    world.check()


def test_without_room_no_mark_is_made_before_there_is_more(world, monkeypatch):
    fill(world, 24)
    for number in range(24):
        if number % 4:
            world.delete(b"k%d" % number)
    world.packs.capacity = 0
    marks = []
    marked = Collector._marked
    monkeypatch.setattr(Collector, "_marked", lambda self: marks.append(1) or marked(self))
    collector = world.collector()

    def work(seconds: float) -> int:
        """How many marks were made meanwhile."""
        before, until = len(marks), world.now + seconds
        while world.now < until:
            world.now += RETRY_SECONDS / 4
            world.run_file.tick()
            while collector.run_slice(3600) is not State.IDLE:
                pass
        return len(marks) - before

    assert work(2 * RETRY_SECONDS) == 1
    with world.kv.snapshot() as reader:
        assert get_report(reader, SUBJECT)["round"]["lacks_room"]
    assert work(NO_ROOM_SECONDS - 3 * RETRY_SECONDS) == 0
    assert 1 <= work(4 * RETRY_SECONDS) <= 2  # in case that the disk does not say what room it has
    world.packs.capacity = world.packs.used() + MORE_ROOM_BYTES - 1
    assert work(2 * RETRY_SECONDS) == 0
    world.packs.capacity += 1
    assert work(2 * RETRY_SECONDS) == 1
    assert not collector.progress.lacks_room
    collector.close()
    world.seal()
    world.check()
    assert world.packs.used() < 24 * SIZE / 2


# --- crashes ------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """Not an Exception: nothing may handle it."""


class CrashingKv:
    """Dies right before or right after its Nth commit."""

    def __init__(self, kv, at: int, *, after: bool) -> None:
        self._kv = kv
        self._left = at
        self._after = after

    def snapshot(self):
        return self._kv.snapshot()

    def commit(self, fn):
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Crash
        result = self._kv.commit(fn)
        if self._left == 0:
            raise Crash
        return result


class CrashingPacks:
    """Dies right before or right after it removes its Nth pack."""

    def __init__(self, packs, at: int, *, after: bool) -> None:
        self._packs = packs
        self._left = at
        self._after = after

    def __getattr__(self, name):
        return getattr(self._packs, name)

    def remove(self, pack):
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Crash
        self._packs.remove(pack)
        if self._left == 0:
            raise Crash


def crash_world(tmp_path, name: str) -> World:
    world = World(tmp_path / name)
    world.bucket()
    fill(world, 16)
    world.put(b"big", noise(40_000, 77) + data_of(2))
    world.seal()
    for number in range(16):
        if number % 4:
            world.delete(b"k%d" % number)
    return world


def crash_and_go_on(tmp_path, at: int, *, what: str, after: bool, power: bool) -> bool:
    """One history; False if it ended before the crash."""
    world = crash_world(tmp_path, f"{what}-{at}-{after}-{power}")
    kv, packs = world.kv, world.packs
    if what == "commit":
        crashing: object = CrashingKv(kv, at, after=after)
        world.kv = crashing  # type: ignore[assignment]
        world.chunks._kv = crashing  # type: ignore[assignment]
    else:
        world.packs = CrashingPacks(packs, at, after=after)  # type: ignore[assignment]
    crashed = False
    try:
        world.collect()
    except Crash:
        crashed = True
    world.run_file.close()
    if power:
        packs = packs.crash(torn=random.Random(at).randrange(3000))
    heir = World(world.directory, kv, packs, writer=2)
    adopt(kv, packs, 1)
    heir.collect()
    heir.seal()
    heir.check()
    assert heir.get(b"big") == noise(40_000, 77) + data_of(2)
    for number in (0, 4, 8, 12):
        assert heir.get(b"k%d" % number) == data_of(number)
    for number in range(16):
        heir.delete(b"k%d" % number)
    heir.delete(b"big")
    heir.collect()
    with kv.snapshot() as reader:
        assert not list(reader.scan(PLACEMENTS, limit=1))
    assert heir.rows() == {}
    assert list(packs.packs()) == []
    heir.end()
    return crashed


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power cut"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", ["commit", "remove"])
def test_a_collector_may_die_at_any_step(tmp_path, what, after, power):
    at = 1
    while crash_and_go_on(tmp_path, at, what=what, after=after, power=power):
        at += 1
    assert at > (8 if what == "commit" else 3)  # else it says nothing


# --- one at a time, and when --------------------------------------------------------------------------------------


def test_a_slice_stands_back_while_another_process_collects(world):
    fill(world)
    one, other = world.collector(), world.collector()
    assert one._lock.acquire()
    assert other.run_slice(1.0) is State.BUSY
    one._lock.release()
    assert other.run_slice(1.0) is not State.BUSY
    one.close()
    other.close()


def test_a_collector_forgets_what_it_knew_when_another_has_collected_meanwhile(world):
    fill(world)
    for number in range(12):
        world.delete(b"k%d" % number)
    slow, quick = world.collector(), world.collector()
    until_condemned(world, slow)
    quick.run()
    assert world.rows() == {}
    fill(world)
    assert steps(slow) is State.IDLE
    world.check()
    slow.close()
    quick.close()


def standing(at: float = 0.0, sequence: int = 1, logical: int = 0, placed: int = 0, busy: float = 0.0):
    return Standing(at, sequence, logical, placed, busy)


GB = 1 << 30


@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        (None, standing(), True),
        (standing(), standing(at=1e9), False),  # nothing changed
        (standing(logical=GB, placed=GB), standing(SOON_SECONDS, 2, GB // 2, GB), True),  # deleted
        (standing(logical=GB, placed=GB), standing(SOON_SECONDS - 1, 2, GB // 2, GB), False),  # just now
        (standing(logical=GB, placed=GB), standing(SOON_SECONDS, 2, GB, GB + GB // 2), True),  # overwritten
        (standing(logical=GB, placed=GB), standing(SOON_SECONDS, 2, 2 * GB, 2 * GB), False),  # only new data
        (standing(logical=GB, placed=GB), standing(LATER_SECONDS, 2, 2 * GB, 2 * GB), True),
        (standing(busy=60), standing(LATER_SECONDS, 2, GB, GB), False),  # a large store is walked rarely
        (standing(busy=60), standing(3001, 2, GB, GB), True),
        (standing(at=5000), standing(0, 2), True),  # the clock was set back
    ],
)
def test_when_a_round_is_due(last, now, due):
    assert plan_round(last, now) is due


def test_a_round_that_changed_nothing_asks_for_no_other(world):
    fill(world)
    collector = world.collector()
    assert steps(collector) is State.IDLE
    with world.kv.snapshot() as reader:
        first = get_report(reader, SUBJECT)["ended_ms"]
    world.now += 1e6
    assert steps(collector) is State.IDLE
    with world.kv.snapshot() as reader:
        assert get_report(reader, SUBJECT)["ended_ms"] == first
    collector.close()


def test_a_preview_tells_what_would_come_back_and_changes_nothing(world):
    fill(world)
    for number in range(12):
        if number % 4:
            world.delete(b"k%d" % number)
    rows = world.rows()
    collector = world.collector()
    preview = collector.preview()
    collector.close()
    assert world.rows() == rows
    progress = world.collect()
    assert len(preview.plan.packs) == progress.removed_packs
    assert preview.plan.free_bytes == pytest.approx(progress.freed_bytes, rel=0.2)


def test_copying_keeps_to_its_rate(world):
    fill(world)
    for number in range(12):
        if number % 4:
            world.delete(b"k%d" % number)
    collector = Collector(
        world, policy=POLICY, bytes_per_second=3_000, clock=lambda: world.now, monotonic=lambda: world.now
    )
    paced = 0
    world.run_file.tick()
    while (state := collector.run_slice(10.0)) is not State.IDLE:
        assert state is not State.WAITING
        if state is State.PACED:
            paced += 1
            world.now += 1.0
    collector.close()
    copied = collector.progress.copied_bytes
    assert paced >= copied / 3_000 - 2 - 12_000 / 3_000  # a pack's window at a time
    assert paced > 1
