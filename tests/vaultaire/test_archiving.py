"""What is stored anew for good: everything at once, or by itself what is old while the machine is idle."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cas import gc
from cas.bases import iterate_bases
from cas.catalog import PackRow, PackState
from cas.errors import NoSpace
from cas.pack import PackKind
from index.buckets import get_bucket
from index.objects import get_object
from index.records import ObjectRecord
from index.versions import put_object
from tests.cas.support import noise
from tests.vaultaire.collection_world import World
from vaultaire import archiving
from vaultaire.archiving import LEFT_BYTES, LOOK_SECONDS, PAUSE_SECONDS, Archive
from vaultaire.collection import Collector, State

AFTER = 5_000.0  # seconds
FRAME = 1 << 20
POLICY = gc.Policy(target_bytes=4 << 20)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, cdc="fastcdc2020/2048/512/8192/nc2", target=4 << 20)
    world.bucket()
    yield world
    world.end()


def drive(collector: Collector) -> None:
    """Until there is nothing to do."""
    for _ in range(10_000):
        collector._store.run_file.tick()
        if collector.run_slice(3600) is State.IDLE:
            return
    raise AssertionError("the collector does not come to an end")


class Machine:
    """Its server, which archives by itself, and whether it has something else to do."""

    def __init__(self, world: World):
        self.world = world
        self.idle = True
        self.archive = Archive(
            world,  # type: ignore[arg-type]
            after_seconds=AFTER,
            is_idle=lambda: self.idle,
            clock=lambda: world.now,
            monotonic=lambda: world.now,
        )
        self.collector = world.collector(POLICY, archive=self.archive)

    def work(self, seconds: float = 0.0) -> int:
        """After so long, until there is nothing to do; how many packs were removed."""
        self.world.now += seconds
        before = set(self.world.rows())
        drive(self.collector)  # a round because something was changed
        self.world.now += 10
        drive(self.collector)
        self.world.seal()
        return len(before - set(self.world.rows()))


@pytest.fixture
def machine(world):
    machine = Machine(world)
    yield machine
    machine.collector.close()


def everything(world: World):
    collector = world.collector(POLICY, archive=Archive(world))  # type: ignore[arg-type]
    try:
        return collector.run()
    finally:
        collector.close()
        world.seal()


def sources(length: int, start: int, edits: int = 0) -> bytes:
    """Programs, from `start` on; each edit changes some letters, once in 3,000 bytes."""
    text = b"".join(path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py")))
    part = bytearray(text[start : start + length])
    assert len(part) == length
    for edit in range(edits):
        for at in random.Random(edit).sample(range(length - 8), length // 3000):
            part[at : at + 6] = b"edit%02d" % edit
    return bytes(part)


def bases(world: World) -> list:
    with world.kv.snapshot() as reader:
        return list(iterate_bases(reader))


def forget_cached(world: World) -> None:
    world.chunks._frames.forget()


def sealed(world: World, key: bytes, data: bytes) -> None:
    world.put(key, data)
    world.seal()


def stored(world: World) -> int:
    return sum(row.length for row in world.rows().values())


def small_framed(world: World) -> list[int]:
    return [
        pack
        for pack, row in world.rows().items()
        if gc.has_small_frames(world.kv, world.packs, pack, row, FRAME)
    ]


def put_small(world: World, key: bytes, data: bytes, modified_ms: int) -> None:
    record = ObjectRecord(len(data), modified_ms, "0" * 32, "root", inline=data)
    world.kv.commit(lambda txn: put_object(txn, get_bucket(txn, "b"), key, record, world.change()))


def is_inline(world: World, key: bytes) -> bool:
    with world.kv.snapshot() as reader:
        return get_object(reader, get_bucket(reader, "b").id, key).inline is not None


# --- everything, now ----------------------------------------------------------------------------------------------


def test_what_is_archived_takes_less_stays_whole_and_is_left_alone_then(world):
    bodies = {b"k%d" % n: sources(800_000, n // 2 * 1_000_000, n % 2) for n in range(4)}
    for key, body in bodies.items():
        world.put(key, body)
    world.seal()
    assert bases(world)
    before = stored(world)
    progress = everything(world)
    assert progress.complete
    assert progress.freed_bytes > before * 0.02
    assert stored(world) < before * 0.98
    forget_cached(world)
    assert {key: world.get(key) for key in bodies} == bodies
    world.check()
    assert bases(world)  # frames with bases stay as they are, and do not ask for more
    assert small_framed(world) == []
    assert everything(world).removed_packs == 0


def test_a_preview_tells_of_it(world):
    sealed(world, b"k", sources(3_000_000, 0))
    put_small(world, b"small", noise(1000, 1), 1)
    collector = world.collector(POLICY, archive=Archive(world))  # type: ignore[arg-type]
    preview = collector.preview()
    assert len(preview.plan.packs) == 1
    assert preview.small_objects == (1, 1000, 0)
    assert is_inline(world, b"small")
    collector.close()


def test_small_frames_are_those_that_could_be_half_as_many(world):
    sealed(world, b"text", sources(3_000_000, 0))
    [fresh] = small_framed(world)
    row = world.rows()[fresh]
    assert not gc.has_small_frames(world.kv, world.packs, fresh, replace(row, kind=PackKind.NODE), FRAME)
    assert not gc.has_small_frames(world.kv, world.packs, fresh, row, 400_000)
    large = PackRow(PackState.SEALED, PackKind.DATA, 0, 1, frames=6, raw_bytes=3 * FRAME)
    assert not gc.has_small_frames(world.kv, world.packs, 99, large, FRAME)
    assert gc.has_small_frames(world.kv, world.packs, 99, replace(large, frames=7), FRAME)
    one = replace(large, frames=1, raw_bytes=1000)  # all that there is
    assert not gc.has_small_frames(world.kv, world.packs, 99, one, FRAME)


def test_a_pack_whose_footer_cannot_be_read_is_left_to_repair(world):
    for number in range(2):
        world.put(b"k%d" % number, sources(800_000, 0, number))
    world.seal()
    with_bases = [key[0] for key, _ in bases(world)]
    assert with_bases
    assert set(with_bases) & set(small_framed(world))
    world.packs.unreadable |= set(with_bases)
    assert not set(with_bases) & set(small_framed(world))


# --- by itself ----------------------------------------------------------------------------------------------------


def test_what_is_old_enough_is_archived_once(world, machine):
    text = sources(3_000_000, 0)
    sealed(world, b"k", text)
    assert machine.work() == 0
    assert machine.work(LOOK_SECONDS) == 1
    assert small_framed(world) == []
    forget_cached(world)
    assert world.get(b"k") == text
    world.check()
    assert machine.work(LOOK_SECONDS) == 0
    assert machine.work(2 * LOOK_SECONDS) == 0


def test_what_is_young_is_left_alone(world, machine):
    machine.work()
    world.now += LOOK_SECONDS
    sealed(world, b"k", sources(3_000_000, 0))
    assert machine.work() == 0
    assert machine.work(AFTER) == 0  # looked for once a day only
    assert machine.work(LOOK_SECONDS) == 1


def test_nothing_is_archived_while_the_machine_is_busy(world, machine):
    sealed(world, b"k", sources(3_000_000, 0))
    machine.idle = False
    assert machine.work(LOOK_SECONDS) == 0
    machine.idle = True
    assert machine.work(10) == 1


def test_when_the_machine_becomes_busy_the_rest_waits(world, machine, monkeypatch):
    for number in range(3):
        sealed(world, b"k%d" % number, sources(1_000_000, 1_000_000 * number))
    machine.collector._policy = replace(POLICY, batch_packs=1)
    evacuate = Collector._evacuate

    def busy_from_now(self, *arguments):
        machine.idle = False
        return evacuate(self, *arguments)

    monkeypatch.setattr(Collector, "_evacuate", busy_from_now)
    assert machine.work(LOOK_SECONDS) == 1
    assert len(small_framed(world)) == 2
    monkeypatch.undo()
    machine.idle = True
    assert machine.work(10) == 0
    assert machine.work(PAUSE_SECONDS) == 2


def test_small_objects_move_when_they_are_old(world, machine):
    now_ms = int(world.now * 1000)
    put_small(world, b"old", noise(1000, 1), now_ms)
    put_small(world, b"young", noise(1000, 2), now_ms + 1_000_000)
    machine.work(AFTER)
    assert not is_inline(world, b"old")
    assert is_inline(world, b"young")
    assert world.get(b"old") == noise(1000, 1)


def test_a_failure_ends_a_round_for_an_hour(world, machine, monkeypatch):
    sealed(world, b"k", sources(3_000_000, 0))
    machine.work()
    tries = []

    def full(store, until):
        tries.append(until)
        raise NoSpace("injected")
        yield

    world.now += LOOK_SECONDS
    with monkeypatch.context() as patched:
        patched.setattr(archiving, "move_small_objects", full)
        for _ in range(round(PAUSE_SECONDS / 61)):
            world.now += 61
            with suppress(NoSpace):
                drive(machine.collector)
    assert len(tries) == 1
    assert machine.work(PAUSE_SECONDS) == 1


def test_busy_for_a_moment_is_not_the_end_of_all_that_is_old(world, machine, monkeypatch):
    sealed(world, b"k", sources(1_000_000, 0))
    machine.work()
    answers = iter([True] * 5 + [False])  # while its plan is made
    with monkeypatch.context() as patched:
        patched.setattr(machine.archive, "_is_idle", lambda: next(answers, True))
        assert machine.work(LOOK_SECONDS) == 0
    assert next(answers, None) is None
    assert machine.work(PAUSE_SECONDS) == 1


def test_packs_are_looked_for_in_slices(world, machine, monkeypatch):
    for number in range(8):
        sealed(world, b"k%d" % number, sources(500_000, 500_000 * number))
    machine.work()
    read = []
    has_small_frames = gc.has_small_frames

    def slow(*arguments):
        read.append(1)
        world.now += 1.0  # a busy disk
        return has_small_frames(*arguments)

    monkeypatch.setattr(gc, "has_small_frames", slow)
    world.now += LOOK_SECONDS
    most = 0
    for _ in range(100):
        world.run_file.tick()
        before = len(read)
        machine.collector.run_slice(0.4)
        most = max(most, len(read) - before)
        world.now += 1
    assert len(read) >= 8
    assert most == 1


# --- without room -------------------------------------------------------------------------------------------------


def fill(world: World, left: int = 100) -> None:
    world.packs.capacity = world.packs.used() + left


def test_without_room_nothing_is_condemned_or_moved_and_an_upload_finds_its_chunks(world, machine):
    text = sources(1_000_000, 0)
    sealed(world, b"k", text)
    put_small(world, b"small", noise(1000, 1), 1)
    machine.work()
    for left in (100, LEFT_BYTES - 1):
        fill(world, left)
        assert machine.work(LOOK_SECONDS) == 0
        assert {row.state for row in world.rows().values()} == {PackState.SEALED}
        assert small_framed(world)
        assert is_inline(world, b"small")
        world.put(b"again", text)
    fill(world, LEFT_BYTES + (1 << 20))
    machine.work(10)
    assert not is_inline(world, b"small")
    assert small_framed(world) == []


def test_a_command_tells_that_there_is_no_room(world):
    sealed(world, b"k", sources(1_000_000, 0))
    put_small(world, b"small", noise(1000, 1), 1)
    fill(world)
    assert everything(world).lacks_room
    assert is_inline(world, b"small")
    assert small_framed(world)
    world.packs.capacity = None
    progress = everything(world)
    assert (progress.lacks_room, progress.moved_objects, progress.removed_packs) == (False, 1, 1)


def test_who_is_told_nothing_archives_nothing(world):
    sealed(world, b"k", sources(3_000_000, 0))
    put_small(world, b"small", noise(1000, 1), 1)
    collector = world.collector(POLICY)
    for _ in range(3):
        world.now += 400 * LOOK_SECONDS
        drive(collector)
    collector.close()
    assert len(small_framed(world)) == 1
    assert is_inline(world, b"small")
