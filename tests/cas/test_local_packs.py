"""What only files can get wrong: names, preallocation, short writes, full disks, descriptors, and who flushes what."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cas.packs
from cas.errors import MissingPack, NoSpace, PackUnreadable
from cas.packs import BLOCK_BYTES, FIRST_EXTENT_BYTES, LARGEST_EXTENT_BYTES, LocalPacks, plan_extent

PACK = 0x00000007_00000A01


def failing(code: int):
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


def test_file_is_named_by_its_number(tmp_path):
    LocalPacks(tmp_path).create(PACK).close()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.pack")] == [
        "01/0000000700000a01.pack"
    ]


def test_file_is_private(tmp_path):
    place = LocalPacks(tmp_path)
    place.create(PACK).close()
    assert place.path(PACK).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system has no posix_fallocate")
def test_extents_double(tmp_path):
    place = LocalPacks(tmp_path)
    writer = place.create(PACK)
    sizes = []
    for length in (
        1,
        FIRST_EXTENT_BYTES,
        FIRST_EXTENT_BYTES + 1,
        2 * FIRST_EXTENT_BYTES + 1,
        5 * FIRST_EXTENT_BYTES,
    ):
        writer.prepare(length)
        sizes.append(place.length(PACK) // FIRST_EXTENT_BYTES)
    writer.close()
    assert sizes == [1, 1, 2, 4, 8]


@given(st.integers(0, 1 << 32), st.integers(1, 1 << 28), st.integers(-(1 << 40), 1 << 40))
def test_extents_cover_what_is_needed_and_take_no_more_on_a_disk_that_is_nearly_full(
    allocated, needed, spare
):
    extent = plan_extent(allocated, needed, spare)
    assert extent >= needed
    assert extent <= max(needed + BLOCK_BYTES, LARGEST_EXTENT_BYTES)
    if extent >= needed + BLOCK_BYTES:
        assert extent <= spare


def test_a_full_disk_is_tried_again_when_room_was_made(tmp_path, monkeypatch):
    asked = []

    def allocate(*arguments):
        if not asked:
            failing(errno.ENOSPC)(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", allocate, raising=False)
    writer = LocalPacks(tmp_path, make_room=lambda: asked.append(True) or True).create(PACK)
    writer.prepare(1)
    writer.close()
    assert asked == [True]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_shows_when_room_is_made(tmp_path, monkeypatch, code: int):
    monkeypatch.setattr(os, "posix_fallocate", failing(code), raising=False)
    writer = LocalPacks(tmp_path).create(PACK)
    with pytest.raises(NoSpace):
        writer.prepare(1)
    writer.close()


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_file_system_without_preallocation_is_no_error(tmp_path, monkeypatch, code: int):
    monkeypatch.setattr(os, "posix_fallocate", failing(code), raising=False)
    place = LocalPacks(tmp_path)
    writer = place.create(PACK)
    writer.prepare(1)
    writer.write(0, [b"abc"])
    writer.finish(3)
    writer.close()
    assert place.read(PACK, [(0, 9)]) == [b"abc"]


def test_platform_without_preallocation_and_vector_writes_works(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.delattr(os, "pwritev", raising=False)
    place = LocalPacks(tmp_path)
    writer = place.create(PACK)
    writer.prepare(10)
    writer.write(1, [b"abc", b"def"])
    writer.finish(7)
    writer.close()
    assert place.read(PACK, [(0, 9)]) == [b"\0abcdef"]


def test_short_writes_go_on_where_they_stopped(tmp_path, monkeypatch):
    whole = os.pwritev

    def short(fd: int, parts: list[memoryview], offset: int) -> int:
        return whole(fd, [b"".join(parts)[:3]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    place = LocalPacks(tmp_path)
    writer = place.create(PACK)
    writer.write(0, [b"ab", b"cdefgh", b"i", b"jkl"])
    writer.close()
    assert place.read(PACK, [(0, 20)]) == [b"abcdefghijkl"]


def test_short_reads_go_on_where_they_stopped(tmp_path, monkeypatch):
    place = LocalPacks(tmp_path)
    writer = place.create(PACK)
    writer.write(0, [b"abcdefghij"])
    writer.close()
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: whole(fd, min(length, 3), offset))
    assert place.read(PACK, [(1, 7), (8, 50)]) == [b"bcdefgh", b"ij"]


def test_full_disk_while_writing_is_no_space(tmp_path, monkeypatch):
    writer = LocalPacks(tmp_path).create(PACK)
    monkeypatch.setattr(os, "pwritev", failing(errno.ENOSPC))
    with pytest.raises(NoSpace):
        writer.write(0, [b"abc"])
    writer.close()


def test_failing_device_is_unreadable_not_corrupt(tmp_path, monkeypatch):
    place = LocalPacks(tmp_path)
    place.create(PACK).close()
    monkeypatch.setattr(os, "pread", failing(errno.EIO))
    with pytest.raises(PackUnreadable):
        place.read(PACK, [(0, 1)])


def test_first_sync_flushes_the_names_that_lead_to_the_file(tmp_path, monkeypatch):
    flushed: list[object] = []
    monkeypatch.setattr(cas.packs, "sync_directory", flushed.append)
    writer = LocalPacks(tmp_path).create(PACK)
    writer.sync()
    writer.sync()
    writer.close()
    assert flushed == [tmp_path / "01", tmp_path]


def test_name_is_flushed_again_if_the_first_flush_failed(tmp_path, monkeypatch):
    writer = LocalPacks(tmp_path).create(PACK)
    monkeypatch.setattr(cas.packs, "sync_directory", failing(errno.EIO))
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            writer.sync()
    writer.close()


def test_few_descriptors_serve_many_packs(tmp_path, monkeypatch):
    monkeypatch.setattr(cas.packs, "MAX_OPEN_FILES", 4)
    place = LocalPacks(tmp_path)
    for number in range(20):
        writer = place.create(number)
        writer.write(0, [bytes([number])])
        writer.close()
    failures: list[object] = []

    def read_all() -> None:
        for turn in range(200):
            number = turn * 7 % 20
            if place.read(number, [(0, 1)]) != [bytes([number])]:
                failures.append(number)

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(place._files._files) == 4
    place.close()
    assert not place._files._files


def test_strange_files_are_no_packs(tmp_path):
    place = LocalPacks(tmp_path)
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "readme.pack").write_text("x")
    place.create(PACK).close()
    assert list(place.packs()) == [PACK]


def test_a_file_that_another_process_removed_is_let_go(tmp_path):
    place, other = LocalPacks(tmp_path), LocalPacks(tmp_path)
    for pack in (PACK, PACK + 1):
        writer = place.create(pack)
        writer.write(0, [b"bytes"])
        writer.close()
        place.read(pack, [(0, 5)])
    other.remove(PACK)
    assert place.read(PACK, [(0, 5)]) == [b"bytes"]  # its space is not free yet
    place.close_removed()
    with pytest.raises(MissingPack):
        place.read(PACK, [(0, 5)])
    assert place.read(PACK + 1, [(0, 5)]) == [b"bytes"]
    place.close()
