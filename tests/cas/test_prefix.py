"""Frames with bases: what changed is stored against what was there, and can be read as long as anything names it."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.bases import BASES, FrameBases, distinct, get_bases, iterate_bases, put_bases
from cas.catalog import (
    PLACEMENTS,
    TABLES,
    PackProgress,
    PackState,
    condemn,
    decode_placement,
    drop_placements,
    forget_pack,
    frame_of,
    has_bases,
    pack_of,
    placement_rows,
)
from cas.chunk import ChunkId, Identity
from cas.damage import Damage, record_damage
from cas.errors import CorruptChunk, CorruptFrame, CorruptRow, MissingChunk, PackGone
from cas.frame import (
    MAX_BASES,
    Codec,
    decode_frame,
    decode_header,
    encode_frame,
    encode_with_bases,
)
from cas.pack import PackKind
from cas.prefix import PREFIX_BYTES, Prefixes
from cas.publishing import publish
from cas.rebuilding import add_lost_packs
from index.kv import CorruptValue
from index.memory_kv import MemoryKv
from tests.cas.support import REAL, Rig, edited, noise, running, split

LENGTH = 100_000
MIDDLE = Identity(b"S" * 16, b"K" * 32, "fastcdc2020/2048/512/8192/nc2")  # larger than the ids that name them


@pytest.fixture
def rig() -> Rig:
    return Rig(MIDDLE)


def frames(rig: Rig) -> dict[tuple[int, int], FrameBases]:
    with rig.kv.snapshot() as reader:
        return dict(iterate_bases(reader))


def placements(rig: Rig) -> dict[bytes, bytes]:
    with rig.kv.snapshot() as reader:
        return dict(reader.scan(PLACEMENTS))


def check_rules(rig: Rig) -> None:
    """Every base is placed, in a frame without bases; every placed frame with bases has its row."""
    rows = placements(rig)
    known = frames(rig)
    for bases in known.values():
        assert all(not has_bases(rows[base]) for base in bases.ids)
    assert {frame_of(row) for row in rows.values() if has_bases(row)} <= known.keys()


# --- what they are for --------------------------------------------------------------------------------------------


def test_a_changed_version_takes_little_and_comes_back(rig: Rig):
    first, _ = rig.put(edited(LENGTH))
    second, ingest = rig.put(edited(LENGTH, 1))
    without = Rig(MIDDLE)
    without.put(edited(LENGTH))
    _, plain = without.put(edited(LENGTH, 1), prefixes=Prefixes.OFF)
    assert ingest.new_stored_bytes < plain.new_stored_bytes / 2
    assert not frames(without)
    assert frames(rig)
    assert rig.get(first) == edited(LENGTH)
    assert rig.get(second) == edited(LENGTH, 1)
    check_rules(rig)


def test_the_third_version_relies_on_the_first_not_on_the_second(rig: Rig):
    versions = [edited(LENGTH, *range(1, n)) for n in range(1, 6)]
    manifests = [rig.put(version)[0] for version in versions]
    assert len(frames(rig)) >= 3
    check_rules(rig)
    rig.store = rig.open(2)
    assert [rig.get(manifest) for manifest in manifests] == versions


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.lists(st.integers(1, 5), max_size=3), min_size=2, max_size=5),
    st.lists(st.integers(0, LENGTH), max_size=4),
    st.tuples(st.integers(0), st.integers(0)),
)
def test_any_history_comes_back_whole_and_in_part(edits, cuts, window):
    rig = Rig(MIDDLE, target=30_000)
    versions = [edited(LENGTH, *each) for each in edits]
    manifests = [rig.put(*split(version, cuts), prefixes=Prefixes.ON)[0] for version in versions]
    check_rules(rig)
    start, stop = sorted(point % (LENGTH + 1) for point in window)
    for version, manifest in zip(versions, manifests, strict=True):
        assert rig.get(manifest, start, stop, window=700) == version[start:stop]


def test_noise_has_no_bases(rig: Rig):
    data = noise(LENGTH)
    rig.put(data)
    rig.put(data[:20_000] + noise(500, 7) + data[20_000:], prefixes=Prefixes.ON)
    assert not frames(rig)


def test_bases_are_bounded_and_so_is_what_is_read_to_find_them():
    rig = Rig(REAL)
    text = edited(3 << 20)
    rig.put(text)
    rig.packs.reads.clear()
    changed = bytearray(text)
    changed[100_000:2_900_000] = edited(2_800_000, 1, seed=5)  # a long stretch that is like nothing
    rig.put(bytes(changed), prefixes=Prefixes.ON)
    for bases in frames(rig).values():
        assert len(bases.ids) <= MAX_BASES
        rows = placements(rig)
        assert sum(decode_placement(base, rows[base]).length for base in bases.ids) <= PREFIX_BYTES
    assert sum(length for _, _, length in rig.packs.reads) < 3 * (3 << 20)


def test_after_tries_for_nothing_there_are_fewer():
    def tries(prefixes: Prefixes) -> int:
        rig = Rig(REAL)
        text = edited(4 << 20)
        rig.put(text)
        pieces = [text[at : at + 262_144] + edited(300_000, seed=at + 9) for at in range(0, 4 << 20, 262_144)]
        ingest = rig.store.ingest(prefixes)
        found = 0
        find = rig.store._finder.find

        def counted(runs):
            nonlocal found
            found += 1
            return find(runs)

        rig.store._finder.find = counted  # type: ignore[method-assign]
        for piece in pieces:
            ingest.feed(piece)
        ingest.finish()
        ingest.abort()
        return found

    assert 0 < tries(Prefixes.AUTO) * 2 < tries(Prefixes.ON)
    assert tries(Prefixes.OFF) == 0


def test_auto_wants_to_save_more_than_on():
    """What reads of the newest version pay for has to be worth it, unless somebody asked for it."""

    def kept(share: int, prefixes: Prefixes) -> bool:
        rig = Rig(REAL)
        text, other = edited(400_000), edited(400_000, seed=8)
        rig.put(text)
        mixed = [
            text[at : at + share] + other[at + share : at + 1000] for at in range(200_000, 400_000, 1000)
        ]
        rig.put(text[:200_000] + b"".join(mixed), prefixes=prefixes)
        return bool(frames(rig))

    assert [kept(share, Prefixes.ON) for share in (100, 200, 800)] == [False, True, True]
    assert [kept(share, Prefixes.AUTO) for share in (100, 200, 800)] == [False, False, True]


# --- uploads side by side -----------------------------------------------------------------------------------------


def test_what_is_in_flight_is_shared_with_its_bases(rig: Rig):
    rig.put(edited(LENGTH))
    changed = edited(LENGTH, 1)
    first, manifest = running(rig, changed)
    second, same = running(rig, changed)
    assert same == manifest
    assert second.new_stored_bytes == 0
    first.abort()
    rig.commit(second.publication())  # it publishes what the first has stored, and against what
    assert frames(rig)
    assert rig.get(manifest) == changed
    check_rules(rig)
    assert not rig.store._known._bases
    assert not len(rig.store._known)


def test_both_commit_and_nothing_stays_in_the_table(rig: Rig):
    rig.put(edited(LENGTH))
    first, _ = running(rig, edited(LENGTH, 1))
    second, manifest = running(rig, edited(LENGTH, 1, 2))
    rig.commit(first.publication(), second.publication())
    assert rig.get(manifest) == edited(LENGTH, 1, 2)
    assert not rig.store._known._bases
    assert not len(rig.store._known)


@pytest.mark.parametrize("prefixes", Prefixes)
def test_a_row_that_cannot_be_read_fails_no_upload_that_does_not_need_it(rig: Rig, monkeypatch, prefixes):
    old, _ = rig.put(edited(LENGTH))
    other = Rig(rig.identity)
    new, _ = other.put(edited(LENGTH, 1))
    only_old = chunks_of(rig, old) - chunks_of(other, new)
    assert only_old
    snapshot = rig.kv.snapshot

    @contextmanager
    def damaged():
        with snapshot() as reader:
            get_many = reader.get_many

            def refuse(table, keys):
                if table == PLACEMENTS and only_old.intersection(keys):
                    raise CorruptValue(table, min(only_old))
                return get_many(table, keys)

            monkeypatch.setattr(reader, "get_many", refuse)
            yield reader

    monkeypatch.setattr(rig.kv, "snapshot", damaged)
    manifest, _ = rig.put(edited(LENGTH, 1), prefixes=prefixes)
    monkeypatch.undo()
    assert rig.get(manifest) == edited(LENGTH, 1)


def chunks_of(rig: Rig, manifest) -> set[bytes]:
    return {span.chunk for spans in rig.store.windows(manifest, 0, manifest.size, 1 << 20) for span in spans}


def test_unpublished_chunks_are_no_bases(rig: Rig):
    running(rig, edited(LENGTH))
    rig.put(edited(LENGTH, 1))
    known = placements(rig)
    assert all(base in known for base in distinct(frames(rig).values()))
    check_rules(rig)


# --- rules of the commit ------------------------------------------------------------------------------------------


def test_a_commit_whose_base_is_gone_fails_as_a_whole(rig: Rig):
    rig.put(edited(LENGTH))
    ingest, _ = running(rig, edited(LENGTH, 1))
    everything = placements(rig)

    def collect(txn) -> None:
        for pack in set(map(pack_of, everything.values())):
            condemn(txn, [pack])
            drop_placements(txn, pack, list(everything))

    rig.kv.commit(collect)
    before = placements(rig)
    publication = ingest.publication()
    rig.store.sync([publication])
    with pytest.raises(PackGone):
        rig.kv.commit(publication.apply)
    assert placements(rig) == before


def test_a_chunk_that_has_to_be_stored_anew_goes_into_a_frame_without_bases(rig: Rig):
    """It may be somebody's base: with bases of its own there would be chains, and loops."""
    rig.put(edited(LENGTH))
    rig.put(edited(LENGTH, 1))
    bases = distinct(frames(rig).values())
    rows = placements(rig)
    rig.kv.commit(lambda txn: record_damage(txn, {base: Damage(*frame_of(rows[base])) for base in bases}))
    rig.put(edited(LENGTH, 2), prefixes=Prefixes.ON)
    rig.put(edited(LENGTH), prefixes=Prefixes.ON)
    check_rules(rig)
    assert all(placements(rig)[base] != rows[base] for base in bases)
    assert rig.get(rig.put(edited(LENGTH, 1))[0]) == edited(LENGTH, 1)


def test_a_frame_with_bases_never_replaces_one_without():
    """Not even where the old placement counts as unknown: who brings one began before that, and may rely on the old."""
    kv = MemoryKv(TABLES)
    chunk = b"c" * 32

    def step(pack: int) -> PackProgress:
        return PackProgress(pack, PackKind.DATA, 0, PackState.SEALED, False, 500, 1, 1, 10, False)

    plain, based, other = (
        placement_rows(pack, 92, Codec.ZSTD, 116, 10, [10], 0, has_bases=pack > 1)[0] for pack in (1, 2, 3)
    )
    bases = {(pack, 92): FrameBases(0, 1, (ChunkId(b"b" * 32),)) for pack in (2, 3)}
    base = placement_rows(4, 92, Codec.ZSTD, 84, 10, [10], 0)[0]
    kv.commit(lambda txn: publish(txn, {chunk: plain, b"b" * 32: base}, (), [step(1), step(4)]))

    def found() -> tuple[bytes | None, bytes | None]:
        with kv.snapshot() as reader:
            return reader.get(PLACEMENTS, chunk), reader.get(BASES, (2 << 32).to_bytes(8, "big"))

    kv.commit(lambda txn: condemn(txn, [1]))
    kv.commit(lambda txn: publish(txn, {chunk: based}, (), [step(2)], bases))
    assert found() == (plain, None)
    kv.commit(lambda txn: record_damage(txn, {chunk: Damage(1, 92)}))
    kv.commit(lambda txn: publish(txn, {chunk: based}, (), [step(2)], bases))
    assert found() == (plain, None)
    kv.commit(lambda txn: drop_placements(txn, 1, [chunk]))
    kv.commit(lambda txn: publish(txn, {chunk: based}, (), [step(2)], bases))
    kv.commit(lambda txn: condemn(txn, [2]))
    kv.commit(lambda txn: publish(txn, {chunk: other}, (), [step(3)], bases))
    assert found()[0] == other  # nobody decodes by what had bases itself


def test_rows_go_with_their_pack(rig: Rig):
    rig.put(edited(LENGTH))
    rig.put(edited(LENGTH, 1))
    ((pack, _), bases), *_ = frames(rig).items()
    rig.kv.commit(lambda txn: put_bases(txn, (pack + 1, 4), bases))
    rig.kv.commit(lambda txn: forget_pack(txn, pack))
    assert set(frames(rig)) == {(pack + 1, 4)}


# --- damage -------------------------------------------------------------------------------------------------------


def stored_against(rig: Rig):
    rig.put(edited(LENGTH))
    manifest, _ = rig.put(edited(LENGTH, 1))
    (frame, bases), *_ = frames(rig).items()
    return manifest, frame, bases


def test_a_lost_base_is_named_and_nothing_wrong_is_served(rig: Rig):
    manifest, _, bases = stored_against(rig)
    rig.kv.commit(lambda txn: txn.delete(PLACEMENTS, bases.ids[0]))
    rig.store = rig.open(2)
    with pytest.raises(MissingChunk, match=bases.ids[0].hex()):
        rig.get(manifest)


def test_a_damaged_base_is_named_and_nothing_wrong_is_served(rig: Rig):
    manifest, _, bases = stored_against(rig)
    placement = decode_placement(bases.ids[0], placements(rig)[bases.ids[0]])
    at = placement.frame + placement.header_length + placement.stored_length // 2
    rig.packs.volatile[placement.pack][at] ^= 1
    rig.store = rig.open(2)
    with pytest.raises(CorruptChunk):
        rig.get(manifest)


def test_a_base_in_a_frame_with_bases_is_refused(rig: Rig):
    """Loops cannot be made; should one be there all the same, reading ends."""
    manifest, frame, bases = stored_against(rig)
    rows = placements(rig)
    own = next(chunk for chunk, row in rows.items() if frame_of(row) == frame)
    rig.kv.commit(lambda txn: txn.put(PLACEMENTS, bases.ids[0], rows[own]))
    rig.store = rig.open(2)
    with pytest.raises(CorruptChunk, match="itself in a frame with bases"):
        rig.get(manifest)


# --- the catalog from packs alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["as written", "the other way round"])
def test_packs_alone_give_all_of_it_back(rig: Rig, order: str):
    versions = [edited(LENGTH, *range(1, n)) for n in range(1, 5)]
    manifests = []
    for number, version in enumerate(versions, 1):
        manifests.append(rig.put(version)[0])
        rig.store.close()
        rig.store = rig.open(number + 1)
    rig.store.close()
    wanted, rows = frames(rig), placements(rig)
    rig.kv = MemoryKv(TABLES)
    if order != "as written":
        packs = list(rig.packs.packs())
        rig.packs.packs = lambda writer=None: iter(packs[::-1])  # type: ignore[method-assign]
    found = add_lost_packs(rig.kv, rig.packs)
    assert not found.damaged
    assert frames(rig) == wanted
    assert placements(rig) == rows
    add_lost_packs(rig.kv, rig.packs)  # after a crash in its middle: once more
    assert (frames(rig), placements(rig)) == (wanted, rows)
    rig.store = rig.open(9)
    assert [rig.get(manifest) for manifest in manifests] == versions


def test_a_frame_whose_base_is_lost_is_reported_and_left_out(rig: Rig):
    rig.put(edited(LENGTH))
    rig.store.close()
    rig.store = rig.open(2)
    rig.put(edited(LENGTH, 1))
    rig.store.close()
    ((based, _), _), *_ = frames(rig).items()
    (lost,) = {pack_of(placements(rig)[base]) for base in distinct(frames(rig).values())}
    del rig.packs.volatile[lost]
    rig.kv = MemoryKv(TABLES)
    found = add_lost_packs(rig.kv, rig.packs)
    assert "is lost" in found.damaged[based]
    assert not frames(rig)


# --- bytes --------------------------------------------------------------------------------------------------------


def with_bases(count: int = 2):
    chunk = edited(4000, 1)
    bases = [SMALL_IDS[n] for n in range(count)]
    prefix = edited(4000)
    plain = encode_frame([b"c" * 32], [chunk])
    return chunk, prefix, bases, encode_with_bases(plain, [b"c" * 32], [chunk], bases, prefix)


SMALL_IDS = [bytes([n % 256, n // 256]) * 16 for n in range(MAX_BASES + 1)]


def test_a_frame_with_bases_comes_back_behind_them_only():
    chunk, prefix, bases, frame = with_bases()
    assert frame is not None
    data = frame.header + b"".join(frame.payload)
    header, raw = decode_frame(data, lambda header: prefix)
    assert raw == chunk
    assert list(header.bases) == bases
    assert len(data) < len(encode_frame([b"c" * 32], [chunk]).payload[0])
    with pytest.raises(CorruptFrame, match="not at hand"):
        decode_frame(data)
    with pytest.raises(CorruptFrame):
        decode_frame(data, lambda header: b"")


def test_what_is_not_worth_it_is_not_made():
    chunk = edited(4000, seed=3)
    plain = encode_frame([b"c" * 32], [chunk])
    assert encode_with_bases(plain, [b"c" * 32], [chunk], SMALL_IDS[:1], edited(4000, seed=4)) is None
    with pytest.raises(ValueError, match="out of bounds"):
        encode_with_bases(plain, [b"c" * 32], [chunk], SMALL_IDS, b"x")


def test_hostile_bases_are_refused():
    from tests.cas.test_frame import with_checksum

    chunk, _, _, frame = with_bases()
    assert frame is not None

    def header(codec: int, *bases: bytes) -> bytes:
        import struct

        plain = bytearray(encode_frame([b"c" * 32], [chunk]).header)
        plain[-16:-16] = b"".join(bases)
        plain[5] = codec
        plain[8:12] = struct.pack(">I", len(plain))
        plain[28:32] = struct.pack(">I", len(bases))
        if codec == Codec.RAW:
            plain[20:24] = plain[16:20]
        return with_checksum(bytes(plain))

    assert decode_header(header(Codec.ZSTD, *SMALL_IDS[:2])).bases == tuple(SMALL_IDS[:2])
    for bad in (
        header(Codec.RAW, SMALL_IDS[0]),
        header(Codec.ZSTD, SMALL_IDS[0], SMALL_IDS[0]),
        header(Codec.ZSTD, b"c" * 32),
        header(Codec.ZSTD, *SMALL_IDS),
    ):
        with pytest.raises(CorruptFrame):
            decode_header(bad)


def test_rows_are_pinned_and_damaged_ones_refused():
    """As FORMAT.md lays them out."""
    kv = MemoryKv(TABLES)
    bases = FrameBases(7, 2, (SMALL_IDS[1], SMALL_IDS[2]))  # type: ignore[arg-type]
    kv.commit(lambda txn: put_bases(txn, (0x0102030405060708, 92), bases))
    with kv.snapshot() as reader:
        ((key, row),) = reader.scan(BASES)
        assert get_bases(reader, (0x0102030405060708, 92)) == bases
        assert get_bases(reader, (1, 92)) is None
    assert key.hex() == "01020304050607080000005c"
    assert row.hex() == "0100" "0002" "00000007" + SMALL_IDS[1].hex() + SMALL_IDS[2].hex()  # fmt: skip
    for bad in (b"", row[:-1], b"\x02" + row[1:], row[:8], row[:8] + bytes(32 * (MAX_BASES + 1))):
        kv.commit(lambda txn, bad=bad: txn.put(BASES, key, bad))
        with kv.snapshot() as reader, pytest.raises(CorruptRow):
            list(iterate_bases(reader))
