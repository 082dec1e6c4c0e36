"""tar-1: the members of a tar are cut out, wherever it begins and whatever happened to it; never a byte is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas import tar_cuts
from cas.tar_cuts import RECORD, TarCuts, find_magic, has_checksum, header_size
from tests.cas import tars
from tests.cas.support import noise, split
from tests.cas.tars import cuts_of, header, member, text

if TYPE_CHECKING:
    from pathlib import Path


def cuts(blocks: list[bytes]) -> list[int]:
    """What the streaming rule cuts; checks that nothing is lost, and how much is held."""
    cutter = TarCuts()
    found, at, given_out = set(), 0, []
    pieces = []
    for block in blocks:
        pieces += [(bytes(piece), ends) for piece, ends in cutter.feed(block)]
        assert cutter.held_bytes < RECORD
    for piece, ends in [*pieces, *cutter.finish()]:
        given_out.append(bytes(piece))
        at += len(piece)
        if ends:
            found.add(at)
    data = b"".join(blocks)
    assert b"".join(given_out) == data
    return sorted(found - {0, len(data)})


TREE = tars.tree(1)
NOISE = noise(3_000)
SPARSE = (
    header("sparse", 8192, b"S", extended=True)
    + bytes(504) + b"\1" + bytes(7) + bytes(512)
    + text(8192, 5)
)  # fmt: skip


# --- the rule ----------------------------------------------------------------------------------------------------


def test_members_of_4_kib_are_segments_and_small_ones_are_not():
    data = member(text(3584, 1)) + member(text(3585, 2)) + member(text(100, 3)) + member(text(5000, 4))
    first = 512 + 3584 + 512
    second = first + 4096 + 512 + 512 + 512
    assert cuts([data]) == [first, first + 4096, second, len(data)][:-1]


def test_headers_of_every_kind_are_walked_over():
    data = b"".join(
        [
            member(b"path=x\n", kind=b"x"),
            member(b"a" * 600, kind=b"L"),
            header(kind=b"5", size=7_000),  # a directory's size says nothing
            header(kind=b"2", link=b"target"),
            header(kind=b"1", size=4096, link=b"target"),  # a hard link has no data
            header(magic=b"ustar  \0"),
            header("wide", size_field=b"\x80" + (5000).to_bytes(11, "big")),
        ]
    )
    assert cuts([data + text(5120, 1) + bytes(1024)]) == [len(data), len(data) + 5120]


def test_map_of_a_sparse_member_belongs_to_its_header():
    assert cuts([SPARSE + bytes(1024)]) == [1536, 1536 + 8192]


def test_members_of_a_tar_in_a_tar_are_cut():
    inner = tars.tree(2, 10)
    found = cuts([member(inner) + bytes(1024)])
    assert set(found) >= {512 + cut for cut in cuts_of(inner)}


def test_members_are_cut_wherever_the_tar_begins():
    for front in (b"!", bytes(511), noise(70_000), text(5000, 7)):
        shifted = cuts([front + TREE])
        expected = {len(front) + cut for cut in cuts_of(TREE)}
        # The one cut that may miss: before the first header, if it is of a folder and is found by its magic alone.
        assert set(shifted) - {len(front)} == expected


def test_behind_damage_the_next_member_is_found():
    whole = cuts_of(TREE)
    for at in range(0, len(TREE), 5_003):
        damaged = bytearray(TREE)
        damaged[at] ^= 0xFF
        found = cuts([bytes(damaged)])
        assert len(set(whole) - set(found)) <= 4
        assert found == cuts_of(bytes(damaged))


def test_input_without_headers_is_one_segment():
    for data in (
        b"",
        b"x",
        noise(300_000),
        text(300_000, 1),
        bytes(300_000),
        b"ustar" * 30_000,
        TREE[512:900],
    ):
        assert cuts([data]) == []


@pytest.mark.parametrize(
    ("field", "size"),
    [
        (b"00000000012\0", 10),
        (b"      12\0", 10),
        (b"12 ", 10),
        (b"777777777777", 8**12 - 1),
        (b"", 0),
        (b"\x80" + b"\xff" * 11, (1 << 88) - 1),
        (b"12\x0099", 10),
        (b"0o12", None),
        (b"1_2", None),
        (b"-12", None),
        (b"+12", None),
        (b"8", None),
        (b"1 2", None),
        (b"\xff" * 12, None),
    ],
)
def test_size_fields(field: bytes, size: int | None):
    assert header_size(header(size_field=field)) == size


def test_checksums_of_signed_bytes_count_too():
    record = bytearray(header("\u00e9"))
    assert has_checksum(bytes(record))
    record[148:156] = b" " * 8
    record[148:156] = b"%06o\0 " % sum(byte - 256 * (byte > 127) for byte in record)
    assert has_checksum(bytes(record))
    record[0] ^= 1
    assert not has_checksum(bytes(record))


# --- any split, any input ----------------------------------------------------------------------------------------

scraps = st.one_of(
    st.builds(header, size=st.integers(0, 9000), kind=st.sampled_from([b"0", b"x", b"5", b"S", b"L", b"7"])),
    st.builds(lambda n, seed: member(text(n, seed)), st.integers(0, 9000), st.integers(0, 9)),
    st.builds(noise, st.integers(0, 1500), st.integers(0, 9)),
    st.builds(bytes, st.integers(0, 1500)),
    st.builds(lambda n: header(size_field=b"\x80" + n.to_bytes(11, "big")), st.integers(0, (1 << 88) - 1)),
    st.builds(
        lambda record, at: record[:at] + b"?" + record[at + 1 :],
        st.just(header(size=5000)),
        st.integers(0, 511),
    ),
    st.just(b"\0\0\0ustar" * 40),
    st.just(SPARSE),
    st.sampled_from(
        [bytes(100) + b"ustar", b"ustar\x0000", b"!", header(size=5000, kind=b"S", extended=True)]
    ),
)
streams = st.lists(scraps, max_size=14).map(b"".join)


@settings(deadline=None, max_examples=200)
@given(streams, st.lists(st.integers(0, 1 << 20), max_size=12))
def test_any_split_of_anything_gives_the_cuts_of_the_rule(data: bytes, ends: list[int]):
    expected = cuts_of(data)
    assert cuts([data]) == expected
    assert cuts(split(data, ends)) == expected


@pytest.mark.parametrize("step", [1, 7, 511, 512, 513, 4096])
def test_feeds_of_any_size_give_the_same_cuts(step: int):
    data = b"?" + tars.tree(3, 8) + header(size=9000)[:500] + SPARSE + tars.tree(4, 4)
    assert cuts([data[at : at + step] for at in range(0, len(data), step)]) == cuts_of(data)


@settings(deadline=None)
@given(streams)
def test_views_are_taken_as_bytes_are(data: bytes):
    cutter = TarCuts()
    pieces = [*cutter.feed(memoryview(data)), *cutter.finish()]
    assert [(bytes(piece), ends) for piece, ends in pieces] == [
        (bytes(piece), ends) for other in [TarCuts()] for piece, ends in [*other.feed(data), *other.finish()]
    ]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 150_000), st.binary(max_size=3)), max_size=20), st.integers(0, 400))
def test_search_finds_every_magic_behind_an_empty_link_name(places: list[tuple[int, bytes]], start: int):
    data = bytearray(150_500)
    for at in range(0, len(data), 9_000):
        data[at : at + 3_000] = NOISE
    for at, scrap in places:
        data[at : at + 100 + len(scrap) + 5] = bytes(100) + scrap + b"ustar"
    stop = len(data) - 300
    found = list(find_magic(bytes(data), start, stop))
    sought = bytes(100) + b"ustar"
    expected = []
    place = data.find(sought, start + 157)
    while 0 <= place < stop + 157:
        expected.append(place - 157)
        place = data.find(sought, place + 1)
    assert found == expected


# --- hostile -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        bytes(100) + b"ustar",
        header(size=1)[:148] + b"0000000\0" + header(size=1)[156:] + b"!",
        header() + b"!",
        header(size=1) + header(size=1)[:148] + b"0000000\0" + header(size=1)[156:],
        b"ustar000",
    ],
    ids=["magics", "wrong sums", "found and lost", "in data", "everywhere"],
)
def test_examinations_are_bounded_by_the_bytes_that_came(pattern: bytes, monkeypatch):
    examined = []
    monkeypatch.setattr(tar_cuts, "has_checksum", lambda record: examined.append(1) or has_checksum(record))
    data = pattern * ((2 << 20) // len(pattern))
    cuts([data])
    assert len(examined) <= 2 * (len(data) // tar_cuts.EXAMINED_EVERY_BYTES + 64) + 2


def test_a_member_of_2_to_the_88_bytes_takes_no_memory():
    data = header(size_field=b"\x80" + b"\xff" * 11) + noise(100_000)
    assert cuts([data]) == [512]


# --- what makes tars ----------------------------------------------------------------------------------------------

LAYOUTS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tars_of_python_are_cut_at_their_members(layout: str):
    data = tars.by_tarfile(LAYOUTS[layout])
    segments = tars.pieces_of(data, cuts([data]))
    for number in range(20):
        wanted = text(number * 1700, number)
        assert len(wanted) <= 3584 or any(segment.startswith(wanted) for segment in segments)


def tar_command() -> list[list[str]]:
    commands = [["tar"]] if shutil.which("tar") else []
    return commands + ([["bsdtar"]] if shutil.which("bsdtar") else [])


@pytest.mark.parametrize("layout", ["ustar", "gnutar", "oldgnu", "pax", "v7", "sparse"])
def test_tars_of_tar_are_cut_at_their_members(layout: str, tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    bodies = {f"{'n' * (20 * n)}{n}": text(1000 + 4000 * n, n) for n in range(5)}
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
    with open(folder / "holes", "wb") as file:
        for n in range(30):
            file.seek(n * 100_000)
            file.write(text(5000, n))
        os.truncate(file.fileno(), 4_000_000)
    for command in tar_command():
        packed = pack(command, layout, tmp_path)
        if packed is None:
            continue  # this tar does not know the format
        found = cuts([packed])
        assert found == cuts_of(packed)
        segments = tars.pieces_of(packed, found)
        large = [body for body in bodies.values() if len(body) > 3584]
        members = [body for body in large if any(segment.startswith(body) for segment in segments)]
        assert members == ([] if layout == "v7" else large)


def pack(command: list[str], layout: str, folder: Path) -> bytes | None:
    options = [f"--format={layout}"] if layout != "sparse" else ["--sparse"]
    done = subprocess.run(
        [*command, *options, "-cf", "-", "folder"], cwd=folder, capture_output=True, check=False
    )
    return done.stdout if done.returncode == 0 else None
