"""The contract of a place for packs, for every engine: the files of `cas.packs` and the fake of `cas.memory_packs`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from cas.errors import MissingPack
from cas.memory_packs import MemoryPacks
from cas.packs import LocalPacks

if TYPE_CHECKING:
    from cas.ports import PackPlace

PACK = 0x0000000700000001


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path) -> PackPlace:
    return LocalPacks(tmp_path) if request.param == "local" else MemoryPacks()


def made(place: PackPlace, data: bytes, pack: int = PACK):
    writer = place.create(pack)
    writer.prepare(len(data))
    writer.write(0, [data])
    writer.sync()
    return writer


def test_what_is_written_is_read_before_any_sync(place):
    writer = place.create(PACK)
    writer.write(0, [b"abc", memoryview(b"defg"), b"", bytearray(b"h")])
    assert place.read(PACK, [(0, 8), (2, 3), (0, 0)]) == [b"abcdefgh", b"cde", b""]
    writer.close()


def test_writes_may_come_in_any_order(place):
    writer = place.create(PACK)
    writer.prepare(10)
    writer.write(5, [b"world"])
    writer.write(0, [b"hello"])
    assert place.read(PACK, [(0, 10)]) == [b"helloworld"]
    writer.close()


def test_many_parts_are_written_in_one_call(place):
    writer = place.create(PACK)
    parts = [bytes([number % 256]) * (number % 5) for number in range(5000)]
    writer.write(3, parts)
    assert place.read(PACK, [(3, sum(map(len, parts)))]) == [b"".join(parts)]
    writer.close()


def test_writers_of_different_ranges_do_not_disturb_each_other(place):
    writer = place.create(PACK)
    writer.prepare(80_000)

    def fill(number: int) -> None:
        for step in range(10):
            writer.write((step * 8 + number) * 1000, [bytes([number]) * 1000])

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = b"".join(bytes([number]) * 1000 for number in range(8)) * 10
    assert place.read(PACK, [(0, 80_000)]) == [expected]
    writer.close()


def test_finish_cuts_what_was_prepared(place):
    writer = made(place, b"abcdef")
    writer.prepare(3 << 20)
    writer.finish(4)
    writer.close()
    assert place.length(PACK) == 4
    assert place.read(PACK, [(0, 100), (2, 2), (9, 1)]) == [b"abcd", b"cd", b""]


def test_pack_number_is_used_once(place):
    made(place, b"x").close()
    with pytest.raises(FileExistsError):
        place.create(PACK)


def test_packs_are_listed_by_writer(place):
    numbers = [PACK, PACK + 1, PACK + 0x100, 3 << 32 | 9]
    for number in numbers:
        made(place, b"x", number).close()
    assert list(place.packs()) == sorted(numbers)
    assert list(place.packs(7)) == [PACK, PACK + 1, PACK + 0x100]
    assert list(place.packs(8)) == []


def test_missing_pack_is_said_to_be_missing(place):
    for call in (
        lambda: place.read(PACK, [(0, 1)]),
        lambda: place.length(PACK),
        lambda: place.seal_at(PACK, 0, b""),
    ):
        with pytest.raises(MissingPack):
            call()


def test_removed_pack_is_gone_also_for_who_read_it_before(place):
    made(place, b"abc").close()
    assert place.read(PACK, [(0, 3)]) == [b"abc"]
    place.remove(PACK)
    place.remove(PACK)
    with pytest.raises(MissingPack):
        place.read(PACK, [(0, 3)])
    assert list(place.packs()) == []


@pytest.mark.parametrize("length", [0, 3, 6])
def test_dead_writers_pack_is_cut_and_gets_its_footer(place, length: int):
    made(place, b"abcdef").close()
    place.seal_at(PACK, length, b"FOOT")
    assert place.length(PACK) == length + 4
    assert place.read(PACK, [(0, 100)]) == [b"abcdef"[:length] + b"FOOT"]


def test_place_goes_on_after_close(place):
    made(place, b"abc").close()
    assert place.read(PACK, [(0, 3)]) == [b"abc"]
    place.close()
    assert place.read(PACK, [(0, 3)]) == [b"abc"]
    place.close()
