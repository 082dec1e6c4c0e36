"""Appending side by side, flushing together, and never trusting what a failed flush leaves."""

from __future__ import annotations

import threading

import pytest

from cas.catalog import PackState
from cas.errors import NoSpace, PackPoisoned
from cas.frame import encode_frame
from cas.memory_packs import MemoryPacks
from cas.openpack import OpenPack
from cas.pack import PackHeader, PackKind, read_contents, scan_contents
from tests.cas.support import SMALL, noise

PACK = 1 << 32 | 1


def frame(seed: int, length: int = 100):
    return encode_frame([noise(32, seed)], [noise(length, seed)])


def opened(place: MemoryPacks, target: int = 1 << 20, pack: int = PACK) -> OpenPack:
    header = PackHeader.of(SMALL, pack, PackKind.DATA)
    return OpenPack(place.create(pack), header, target_bytes=target, born=0.0)


def append(pack: OpenPack, seed: int = 0) -> int:
    """The end of the appended frame."""
    made = frame(seed)
    placed = pack.append(made, 1)
    assert placed is not None
    return placed[0] + made.total_length


def contents(place: MemoryPacks):
    data = bytes(place.volatile[PACK])
    return read_contents(PACK, lambda offset, length: data[offset : offset + length], len(data))


def test_frames_follow_one_another_and_count_their_chunks():
    place = MemoryPacks()
    pack = opened(place)
    first = pack.append(frame(1), 3)
    second = pack.append(frame(2), 2)
    assert first == (92, 0)
    assert second == (92 + frame(1).total_length, 3)


def test_nothing_is_durable_before_it_is_asked_for():
    place = MemoryPacks()
    pack = opened(place)
    end = append(pack)
    assert pack.progress().length == 0
    assert PACK not in place.durable
    progress = pack.make_durable(end)
    assert (progress.length, progress.frames, progress.chunks, progress.raw_bytes) == (end, 1, 1, 100)
    assert progress.state == PackState.OPEN
    assert len(place.durable[PACK]) == end


def test_durable_bytes_are_not_flushed_again():
    place = MemoryPacks()
    pack = opened(place)
    first = append(pack, 1)
    second = append(pack, 2)
    pack.make_durable(second)
    pack.make_durable(first)
    pack.make_durable(second)
    assert place.syncs == 1


def test_one_flush_serves_all_who_wait():
    place = MemoryPacks()
    pack = opened(place)
    inside, go = threading.Event(), threading.Event()
    flush = pack._writer.sync
    flushes = []

    def slow() -> None:
        flushes.append(1)
        inside.set()
        assert go.wait(5)
        flush()

    pack._writer.sync = slow  # type: ignore[method-assign]
    first = threading.Thread(target=pack.make_durable, args=(append(pack, 0),))
    first.start()
    assert inside.wait(5)
    ends = [append(pack, seed) for seed in range(1, 9)]
    later = [threading.Thread(target=pack.make_durable, args=(end,)) for end in ends]
    for thread in later:
        thread.start()
    go.set()
    for thread in [first, *later]:
        thread.join(5)
    assert len(flushes) == 2
    assert pack.progress().length == ends[-1]


def test_flush_waits_for_writes_below_but_not_for_later_ones():
    place = MemoryPacks()
    pack = opened(place)
    gates = {seed: threading.Event() for seed in (1, 2, 3)}
    started = {seed: threading.Event() for seed in (1, 2, 3)}
    write = pack._writer.write
    order = iter((1, 2, 3))

    def gated(offset: int, parts) -> None:
        seed = next(order)
        started[seed].set()
        assert gates[seed].wait(5)
        write(offset, parts)

    pack._writer.write = gated  # type: ignore[method-assign]
    threads = []
    for seed in (1, 2, 3):
        threads.append(threading.Thread(target=append, args=(pack, seed)))
        threads[-1].start()
        assert started[seed].wait(5)
    end_of_second = pack._totals[1][0]
    done = threading.Event()
    waiter = threading.Thread(target=lambda: (pack.make_durable(end_of_second), done.set()))
    waiter.start()
    gates[2].set()
    assert not done.wait(0.05)  # the first write is still under way
    gates[1].set()
    assert done.wait(5)
    assert pack.progress().length == end_of_second
    gates[3].set()
    for thread in [*threads, waiter]:
        thread.join(5)


def test_full_pack_takes_no_more_and_is_sealed_when_made_durable():
    place = MemoryPacks()
    pack = opened(place, target=400)
    end = append(pack, 1)
    assert pack.append(frame(2, 200), 1) is None
    assert pack.append(frame(3, 1), 1) is None
    progress = pack.make_durable(end)
    assert progress.state == PackState.SEALED
    assert progress.length == len(place.durable[PACK]) > end
    assert contents(place).sealed


def test_frame_larger_than_the_target_has_a_pack_for_itself():
    pack = opened(MemoryPacks(), target=200)
    assert pack.append(frame(1, 5000), 1) is not None
    assert pack.append(frame(2, 1), 1) is None


def test_failed_flush_seals_at_the_last_durable_length_and_is_never_retried():
    place = MemoryPacks()
    pack = opened(place)
    durable = append(pack, 1)
    pack.make_durable(durable)
    lost = append(pack, 2)
    place.failing_syncs.add(PACK)
    with pytest.raises(PackPoisoned) as caught:
        pack.make_durable(lost)
    assert caught.value.durable == durable
    place.failing_syncs.clear()
    syncs = place.syncs
    with pytest.raises(PackPoisoned):
        pack.make_durable(lost)
    with pytest.raises(PackPoisoned):
        pack.seal()
    assert place.syncs == syncs
    progress = pack.make_durable(durable)
    assert (progress.state, progress.footerless) == (PackState.SEALED, True)
    assert (progress.length, progress.frames, progress.chunks) == (durable, 1, 1)
    assert pack.append(frame(3), 1) is None


def test_everyone_who_waits_learns_of_a_failed_flush():
    place = MemoryPacks()
    pack = opened(place)
    place.failing_syncs.add(PACK)
    failures: list[PackPoisoned] = []

    def wait(end: int) -> None:
        try:
            pack.make_durable(end)
        except PackPoisoned as error:
            failures.append(error)

    threads = [threading.Thread(target=wait, args=(append(pack, seed),)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(failures) == 5
    assert place.syncs == 1


def test_no_space_leaves_the_pack_as_it_was():
    place = MemoryPacks()
    pack = opened(place)
    end = append(pack, 1)
    place.capacity = end + 10
    with pytest.raises(NoSpace):
        pack.append(frame(2), 1)
    place.capacity = None
    assert append(pack, 3) > end
    pack.seal()
    assert len(contents(place).frames) == 2


def test_write_that_found_no_space_is_taken_back_if_it_was_the_last():
    place = MemoryPacks()
    pack = opened(place)
    append(pack, 1)
    write = pack._writer.write

    def full(offset: int, parts) -> None:
        raise NoSpace("injected")

    pack._writer.write = full  # type: ignore[method-assign]
    with pytest.raises(NoSpace):
        pack.append(frame(2), 1)
    pack._writer.write = write  # type: ignore[method-assign]
    append(pack, 3)
    progress = pack.seal()
    assert (progress.frames, progress.chunks) == (2, 2)
    assert len(scan_contents(PACK, lambda o, n: bytes(place.volatile[PACK][o : o + n])).frames) == 2


def test_failed_write_poisons_for_what_came_behind_it():
    place = MemoryPacks()
    pack = opened(place)
    durable = append(pack, 1)
    pack.make_durable(durable)
    place.failing_writes.add(PACK)
    with pytest.raises(PackPoisoned):
        pack.append(frame(2), 1)
    assert pack.append(frame(3), 1) is None
    assert pack.progress().footerless
    assert pack.progress().length == durable


def test_pack_without_room_for_its_footer_stays_open_until_there_is():
    place = MemoryPacks()
    pack = opened(place)
    end = append(pack, 1)
    place.capacity = end
    assert pack.seal().state == PackState.OPEN
    assert len(place.durable[PACK]) >= end
    place.capacity = None
    assert pack.seal().state == PackState.SEALED
    assert contents(place).sealed


def test_pack_in_an_object_store_is_sealed_by_its_first_flush():
    place = MemoryPacks()
    place.sync_ends_pack = True
    pack = opened(place)
    end = append(pack, 1)
    assert pack.make_durable(end).state == PackState.SEALED
    assert pack.append(frame(2), 1) is None
    assert contents(place).sealed
    assert place.syncs == 1


def test_threads_append_without_holes():
    place = MemoryPacks()
    pack = opened(place)

    def work(seed: int) -> None:
        for step in range(30):
            pack.make_durable(append(pack, seed * 100 + step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    progress = pack.seal()
    assert (progress.frames, progress.chunks) == (120, 120)
    assert [f.header for f in contents(place).frames] == [
        f.header for f in scan_contents(PACK, lambda o, n: bytes(place.volatile[PACK][o : o + n])).frames
    ]
    assert place.syncs <= 121
