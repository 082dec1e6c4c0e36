"""Damage in a sealed pack: reads return right bytes or say which chunk is lost, never wrong ones; the disk is mended."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.adoption import inspect
from cas.catalog import PACKS, PLACEMENTS, PackRow, PackState, Placement, get_pack, iterate_packs, pack_key
from cas.damage import damaged_chunks, iterate_damage, packs_to_mend, queue_mending, unqueue_mending
from cas.errors import CorruptChunk, CorruptPack, MissingChunk, PackUnreadable
from cas.loss import needs, recheck_damage, record_loss
from cas.manifest import unpack
from cas.mending import mend_pack
from cas.pack import PackKind
from cas.parity import HEADER_BYTES, digest, encode_pages, plan_geometry
from cas.protection import build_sidecar, check_image, finish, make_sidecar
from cas.store import ChunkStore
from tests.cas.support import Rig, noise, words

PERCENT = 10


class Ward(Rig):
    """A rig with parity, in blocks of 64 bytes, so that a small pack has many."""

    block_bytes = 64

    def open(self, writer: int) -> ChunkStore:
        return ChunkStore(
            self.kv,
            self.packs,
            self.identity,
            writer,
            clock=lambda: self.now,
            pack_target_bytes=self.target,
            sidecars=self.packs.sidecars,
        )

    def seal(self) -> int:
        """Seal the open data pack; its number."""
        self.now += 1e6
        self.store.seal_idle(self.now)
        with self.kv.snapshot() as reader:
            return max(pack for pack, row in iterate_packs(reader) if row.kind == PackKind.DATA)

    def protect(self, pack: int, percent: int = PERCENT) -> None:
        geometry = plan_geometry(len(self.packs.volatile[pack]), percent, self.block_bytes)
        image = bytearray(self.packs.volatile[pack])
        check_image(pack, image)
        self.packs.sidecars.put(pack, finish(build_sidecar(b"S" * 16, pack, image, geometry)))

    def mend(self, pack: int, **options: bool):
        recovery = self.store.recovery
        assert recovery is not None
        return mend_pack(recovery, self.packs, pack, self.row(pack), PERCENT, **options)

    def row(self, pack: int) -> PackRow:
        with self.kv.snapshot() as reader:
            row = get_pack(reader, pack)
        assert row is not None
        return row

    def damaged(self) -> int:
        with self.kv.snapshot() as reader:
            return damaged_chunks(reader)

    def queued(self) -> list[int]:
        with self.kv.snapshot() as reader:
            return packs_to_mend(reader)

    def fresh(self) -> None:
        """A store that has nothing in its caches."""
        self.store = self.open(9)


@pytest.fixture
def ward() -> Ward:
    return Ward()


def filled(ward: Ward, data: bytes, percent: int = PERCENT):
    manifest, _ = ward.put(data)
    pack = ward.seal()
    for each in ward.packs.packs():  # that of the manifest's nodes too
        ward.protect(each, percent)
    return manifest, pack, bytes(ward.packs.volatile[pack])


@pytest.mark.parametrize("data", [noise(300), words(700)], ids=["raw", "zstd"])
def test_every_flipped_byte_of_a_pack_is_made_good_and_mended(ward: Ward, data: bytes):
    manifest, pack, clean = filled(ward, data)
    for position in range(len(clean)):
        ward.packs.volatile[pack][position] ^= 0x40
        ward.store._frames._cache._frames.clear()
        assert ward.get(manifest) == data
        mended = ward.mend(pack)
        assert (mended.mended_blocks, mended.lost) == (1, ())
        assert ward.packs.volatile[pack] == ward.packs.durable[pack] == clean
    assert ward.damaged() == 0


def test_every_flipped_byte_of_a_sidecar_is_seen_and_the_sidecar_made_anew(ward: Ward):
    _, pack, clean = filled(ward, noise(150))
    whole = bytes(ward.packs.sidecars.files[pack])
    for position in range(len(whole)):
        ward.packs.sidecars.files[pack][position] ^= 0x40
        ward.fresh()
        mended = ward.mend(pack)
        assert mended.sidecar == "replaced", position
        assert mended.whole
        ward.fresh()
        assert not ward.mend(pack).changed
        ward.protect(pack)  # in small blocks again
    assert ward.packs.volatile[pack] == clean


def test_damage_in_pack_and_sidecar_at_once_is_mended(ward: Ward):
    manifest, pack, clean = filled(ward, noise(6000))
    rng = random.Random(5)
    for position in range(0, len(ward.packs.sidecars.files[pack]), 997):
        ward.packs.sidecars.files[pack][position] ^= 1
        ward.packs.volatile[pack][rng.randrange(len(clean))] ^= 1
        ward.fresh()
        assert ward.get(manifest) == noise(6000)
        assert ward.mend(pack).whole
        assert ward.packs.volatile[pack] == clean
        ward.protect(pack)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_bursts_up_to_the_promise_are_mended(data):
    ward = Ward()
    content = noise(data.draw(st.integers(100, 8_000)))
    percent = data.draw(st.sampled_from([1, 5, 10, 50, 100]))
    manifest, pack, clean = filled(ward, content, percent)
    g = plan_geometry(len(clean), percent, ward.block_bytes)
    start = data.draw(st.integers(0, len(clean) - 1))
    stop = min(len(clean), start + g.burst_bytes)
    ward.packs.volatile[pack][start:stop] = bytes(byte ^ 0xFF for byte in clean[start:stop])
    assert ward.get(manifest) == content
    assert ward.queued() in ([pack], [])  # a burst in the footer is not met by a read
    assert ward.mend(pack).whole
    assert ward.packs.volatile[pack] == clean


def test_one_block_too_many_is_named_and_never_served(ward: Ward):
    manifest, pack, clean = filled(ward, noise(20_000))
    g = plan_geometry(len(clean), PERCENT, 64)
    group = list(g.members(1))[10 : 10 + g.parity_rows + 1]
    for number in group:
        ward.packs.volatile[pack][number * 64] ^= 1
    with pytest.raises(CorruptChunk):
        ward.get(manifest)
    assert ward.damaged() > 0
    assert ward.queued() == [pack]
    before = bytes(ward.packs.volatile[pack])
    mended = ward.mend(pack)
    assert [start // 64 for start, _ in mended.lost] == group
    assert not mended.whole
    assert ward.packs.volatile[pack] == before


def test_blocks_beside_lost_ones_are_still_mended(ward: Ward):
    manifest, pack, clean = filled(ward, noise(600_000))  # several frames
    g = plan_geometry(len(clean), PERCENT, 64)
    lost = list(g.members(1))[40 : 40 + g.parity_rows + 2]
    lone = list(g.members(2))[5]
    for number in (*lost, lone):
        ward.packs.volatile[pack][number * 64] ^= 1
    mended = ward.mend(pack)
    assert mended.mended_blocks == 1
    assert ward.packs.volatile[pack][lone * 64] == clean[lone * 64]
    assert ward.get(manifest, 0, 10_000) == noise(600_000)[:10_000]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 60), st.integers(0, 30))
def test_whatever_is_flipped_no_wrong_byte_is_served_or_written(seed: int, flips: int, sidecar_flips: int):
    ward, rng = Ward(), random.Random(seed)
    content = noise(12_000)
    manifest, pack, clean = filled(ward, content)
    image, sidecar = ward.packs.volatile[pack], ward.packs.sidecars.files[pack]
    for _ in range(flips):
        image[rng.randrange(len(image))] ^= 1 << rng.randrange(8)
    for _ in range(sidecar_flips):
        sidecar[rng.randrange(len(sidecar))] ^= 1 << rng.randrange(8)
    damaged = bytes(image)
    try:
        assert ward.get(manifest) == content
    except CorruptChunk:
        assert ward.damaged()
    mended = ward.mend(pack)
    for now, before, right in zip(ward.packs.volatile[pack], damaged, clean, strict=True):
        assert now in (before, right)
    if mended.whole:
        assert ward.packs.volatile[pack] == clean


def test_unreadable_sectors_are_read_through_parity_and_mended(ward: Ward):
    content = noise(20_000)
    manifest, pack, clean = filled(ward, content)
    ward.packs.bad_sectors |= {(pack, position) for position in (100, 5000, 5100, 12_345, len(clean) - 3)}
    assert ward.get(manifest) == content
    assert ward.queued() == [pack]
    assert ward.mend(pack).mended_blocks == 5
    assert not ward.packs.bad_sectors
    assert ward.mend(pack).mended_blocks == 0


def test_truncated_pack_gets_its_end_back(ward: Ward):
    content = noise(20_000)
    manifest, pack, clean = filled(ward, content)
    del ward.packs.volatile[pack][-1500:]
    assert ward.get(manifest) == content
    assert ward.mend(pack).whole
    assert ward.packs.volatile[pack] == clean


def test_device_that_does_not_keep_what_is_written_is_found_out(ward: Ward):
    content = noise(5000)
    manifest, pack, _ = filled(ward, content)
    ward.packs.volatile[pack][400] ^= 1
    ward.packs.forgetful.add(pack)
    with pytest.raises(OSError, match="does not keep"):
        ward.mend(pack)
    assert ward.get(manifest) == content


def test_dry_run_changes_nothing(ward: Ward):
    _, pack, _ = filled(ward, noise(5000))
    ward.packs.volatile[pack][400] ^= 1
    ward.packs.sidecars.files[pack][9] ^= 1
    images = bytes(ward.packs.volatile[pack]), bytes(ward.packs.sidecars.files[pack])
    mended = ward.mend(pack, dry_run=True)
    assert (mended.mended_blocks, mended.sidecar) == (1, "replaced")
    assert images == (bytes(ward.packs.volatile[pack]), bytes(ward.packs.sidecars.files[pack]))


def test_footerless_pack_is_served_right_and_never_written(ward: Ward):
    content = noise(9000)
    ingest = ward.store.ingest()
    ingest.feed(content)
    manifest = ingest.finish()
    ward.commit(ingest.publication())
    pack = 1 << 32 | 1

    def poison(txn):
        row = PackRow.decode(pack_key(pack), txn.get(PACKS, pack_key(pack)))
        length = len(ward.packs.volatile[pack])
        txn.put(
            PACKS,
            pack_key(pack),
            replace(row, state=PackState.SEALED, footerless=True, length=length).encode(),
        )

    ward.kv.commit(poison)
    steps = make_sidecar(
        ward.packs, b"S" * 16, pack, len(ward.packs.volatile[pack]), PERCENT, footerless=True
    )
    ward.packs.sidecars.put(pack, finish(steps))
    ward.packs.volatile[pack][700] ^= 1
    before = bytes(ward.packs.volatile[pack])
    assert ward.get(manifest) == content
    assert ward.queued() == []
    mended = ward.mend(pack)
    assert (mended.mended_blocks, mended.unwritten_blocks, mended.whole) == (0, 1, True)
    assert ward.packs.volatile[pack] == before


def test_parity_is_never_made_from_a_damaged_pack(ward: Ward):
    ward.put(noise(500))
    pack = ward.seal()
    clean = bytes(ward.packs.volatile[pack])
    for position in range(len(clean)):
        ward.packs.volatile[pack][position] ^= 2
        with pytest.raises(CorruptPack):
            finish(make_sidecar(ward.packs, b"S" * 16, pack, len(clean), PERCENT, footerless=False))
        ward.packs.volatile[pack][position] ^= 2


def test_pack_that_disagrees_with_its_sidecar_is_not_touched(ward: Ward):
    """A sidecar of other bytes, for whatever reason: its digests match, the pack's checksums do not."""
    _, pack, clean = filled(ward, noise(5000))
    wrong = bytearray(clean)
    wrong[1000] ^= 1
    geometry = plan_geometry(len(clean), PERCENT, 64)
    ward.packs.sidecars.put(pack, finish(build_sidecar(b"S" * 16, pack, wrong, geometry)))
    ward.fresh()
    with pytest.raises(CorruptPack):
        ward.mend(pack)
    assert ward.packs.volatile[pack] == clean


def test_block_that_does_not_have_its_digest_is_never_brought_back(ward: Ward):
    """All that goes into it is sound, and yet the digest says that something else was there."""
    content = noise(3000)
    manifest, pack, clean = filled(ward, content)
    g = plan_geometry(len(clean), PERCENT, 64)
    whole = bytes(ward.packs.sidecars.files[pack])
    header, parity_at = whole[:HEADER_BYTES], g.parity_block(0, 0)[0]
    parity = whole[parity_at : parity_at + g.parity_blocks * 64]
    blocks = [clean[at : at + 64] for at in range(0, len(clean), 64)]
    digests = [
        digest(block) for block in [*blocks, *(parity[at : at + 64] for at in range(0, len(parity), 64))]
    ]
    digests[20] = digest(b"something else")
    pages = encode_pages(header, digests)
    ward.packs.sidecars.put(pack, header + pages + parity + pages + header)
    ward.packs.volatile[pack][20 * 64 + 5] ^= 1
    damaged = bytes(ward.packs.volatile[pack])
    with pytest.raises(CorruptChunk):
        ward.get(manifest)
    assert ward.mend(pack).lost == ((20 * 64, 21 * 64),)
    assert ward.packs.volatile[pack] == damaged


# --- without parity ----------------------------------------------------------------------------------------------


def test_missing_sidecar_is_made(ward: Ward):
    _, pack, _ = filled(ward, noise(5000))
    ward.packs.sidecars.remove(pack)
    assert ward.mend(pack).sidecar == "made"
    assert not ward.mend(pack).changed


def test_every_flipped_byte_of_a_footer_is_mended_from_the_frames(ward: Ward):
    ward.put(noise(3000))
    pack = ward.seal()
    clean = bytes(ward.packs.volatile[pack])
    end = inspect(ward.packs, pack).end
    for position in range(end, len(clean)):
        ward.packs.volatile[pack][position] ^= 2
        mended = ward.mend(pack)
        assert mended.footer_written
        assert mended.whole
        assert ward.packs.volatile[pack] == clean
        ward.packs.sidecars.remove(pack)
        ward.fresh()


def test_frame_that_is_lost_without_parity_is_named(ward: Ward):
    manifest, _ = ward.put(noise(600_000))
    pack = ward.seal()
    second = inspect(ward.packs, pack).frames[1]
    ward.packs.volatile[pack][second.end - 10] ^= 1
    assert ward.mend(pack).lost == ((second.offset, second.end),)
    assert pack not in ward.packs.sidecars.files
    with pytest.raises(CorruptChunk):
        ward.get(manifest)


# --- uploads heal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [noise(20_000), noise(10_000).hex().encode()], ids=["raw", "zstd"])
def test_upload_of_the_same_data_heals_what_is_lost(ward: Ward, data: bytes):
    manifest, _ = ward.put(data)
    pack = ward.seal()
    (frame,) = inspect(ward.packs, pack).frames
    ward.packs.volatile[pack][frame.end - 100] ^= 1
    with pytest.raises(CorruptChunk):
        ward.get(manifest)
    lost = ward.damaged()
    assert lost >= 1
    again, ingest = ward.put(data)
    assert again == manifest
    assert ingest.new_stored_bytes > 0
    assert ward.damaged() == 0
    assert ward.get(manifest) == data
    with ward.kv.snapshot() as reader:
        rows = dict(iterate_packs(reader))
        assert ward.store.statistics(reader).unique_bytes == len(data)
    placed = sum(row.placed_chunks for row in rows.values() if row.kind == PackKind.DATA)
    assert placed == rows[pack].chunks
    assert rows[pack].placed_chunks == rows[pack].chunks - lost
    _, third = ward.put(data)
    assert third.new_stored_bytes == 0


def test_only_the_damaged_chunks_are_stored_again(ward: Ward):
    data = noise(20_000)
    manifest, _ = ward.put(data)
    pack = ward.seal()
    ward.packs.volatile[pack][9000] ^= 1
    with pytest.raises(CorruptChunk):
        ward.get(manifest)
    assert ward.damaged() == 1
    _, ingest = ward.put(data)
    assert 0 < ingest.new_raw_bytes <= 1024


def test_all_of_a_compressed_frame_is_known_to_be_lost_at_once(ward: Ward):
    data = noise(30_000).hex().encode()
    manifest, _ = ward.put(data)
    pack = ward.seal()
    (frame,) = inspect(ward.packs, pack).frames
    ward.packs.volatile[pack][frame.offset + frame.header.header_length] ^= 1
    with pytest.raises(CorruptChunk):
        ward.get(manifest, 59_000, 59_010)
    ward.put(data)
    assert ward.get(manifest) == data


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "zstd"])
def test_only_chunks_that_need_a_lost_byte_are_lost(raw: bool):
    """Frame at 100 with a header of 20; the chunk is raw bytes [30, 40), so bytes [150, 160) of a raw frame."""
    placement = Placement(raw, False, 1, 100, 20, 80, 30, 10, 0)
    assert needs(placement, [(0, 5), (159, 160)])
    assert not needs(placement, [(100, 120)])  # the header: reading does without
    assert needs(placement, [(120, 150)]) is not raw
    assert needs(placement, [(160, 200)]) is not raw
    assert not needs(placement, [(200, 999)])


def test_missing_pack_heals_by_upload(ward: Ward):
    data = noise(600_000)
    manifest, _ = ward.put(data)
    pack = ward.seal()
    del ward.packs.volatile[pack]
    with pytest.raises(MissingChunk):
        ward.get(manifest)
    assert ward.queued() == [pack]
    mended = ward.mend(pack)
    assert mended.lost == ((0, ward.row(pack).length),)
    known = ward.damaged()
    assert finish(record_loss(ward.kv, pack, mended.lost)) == ward.row(pack).chunks - known
    ward.put(data)
    assert ward.get(manifest) == data
    assert ward.damaged() == 0


def test_upload_that_relied_on_the_damaged_copy_does_not_clear_it(ward: Ward):
    """It still carries the placement that was found damaged since: that is no new copy."""
    data = noise(20_000)
    first, second = ward.store.ingest(), ward.store.ingest()
    first.feed(data)
    manifest = first.finish()
    second.feed(data)
    second.finish()
    ward.commit(first.publication())
    for position in range(200, len(ward.packs.volatile[1 << 32 | 1]), 64):
        ward.packs.volatile[1 << 32 | 1][position] ^= 1
    with pytest.raises(CorruptChunk):
        ward.get(manifest)
    lost = ward.damaged()
    assert lost
    ward.commit(second.publication())
    assert ward.damaged() == lost
    ward.put(data)
    ward.put(data)
    with ward.kv.snapshot() as reader:
        assert all(where.pack == 1 << 32 | 1 for _, where in iterate_damage(reader))


def test_chunks_that_can_be_read_again_are_no_longer_counted_as_damaged(ward: Ward):
    data = noise(20_000)
    manifest, _ = ward.put(data)
    pack = ward.seal()
    ward.packs.unreadable.add(pack)
    with pytest.raises(PackUnreadable):
        ward.get(manifest)
    assert ward.damaged()
    assert finish(recheck_damage(ward.kv, ward.store)) == ward.damaged()
    ward.packs.unreadable.clear()
    assert finish(recheck_damage(ward.kv, ward.store)) == 0
    assert ward.damaged() == 0
    assert ward.get(manifest) == data


def test_reading_goes_on_if_damage_cannot_be_recorded(ward: Ward, caplog):
    data = noise(20_000)
    manifest, pack, _ = filled(ward, data)
    ward.packs.volatile[pack][9000] ^= 1

    def refuse(_fn):
        raise OSError("the disk is full")

    ward.kv.commit = refuse  # type: ignore[method-assign]
    assert ward.get(manifest) == data
    assert "could not be recorded" in caplog.text


def test_mending_is_queued_once_and_logged_once(ward: Ward, caplog):
    data = noise(20_000)
    manifest, pack, _ = filled(ward, data)
    ward.packs.volatile[pack][9000] ^= 1
    for _ in range(3):
        assert ward.get(manifest) == data
    assert ward.queued() == [pack]
    assert caplog.text.count("will be mended") == 1
    ward.kv.commit(lambda txn: unqueue_mending(txn, pack))
    assert ward.queued() == []
    ward.kv.commit(lambda txn: queue_mending(txn, pack))
    assert ward.queued() == [pack]


def test_flip_in_memory_only_is_healed_without_touching_the_disk(ward: Ward, caplog):
    data = words(20_000)
    manifest, _, _ = filled(ward, data)
    assert ward.get(manifest) == data
    cache = ward.store._frames._cache
    for kept in cache._frames.values():
        kept.raw = bytes([kept.raw[0] ^ 1]) + kept.raw[1:]
    assert ward.get(manifest) == data
    assert ward.queued() == []
    assert "check memory" in caplog.text
    caplog.clear()
    assert ward.get(manifest) == data
    assert not caplog.text  # what was wrong is not kept


def test_what_parity_gives_is_verified_by_its_id_too(ward: Ward):
    """Nothing is damaged, and yet the catalog leads to the bytes of another chunk."""
    manifest, _, _ = filled(ward, noise(3_000))  # its manifest names chunks, not nodes
    first, second, *_ = [entry.id for entry in unpack(0, manifest.entries)]
    with ward.kv.snapshot() as reader:
        rows = {chunk: reader.get(PLACEMENTS, chunk) for chunk in (first, second)}

    def swap(txn):
        txn.put(PLACEMENTS, first, rows[second])
        txn.put(PLACEMENTS, second, rows[first])

    ward.kv.commit(swap)
    with pytest.raises(CorruptChunk):
        ward.get(manifest)


# --- crashes -----------------------------------------------------------------------------------------------------


def test_mending_cut_short_anywhere_is_finished_by_the_next(ward: Ward):
    content = noise(30_000)
    manifest, pack, clean = filled(ward, content)
    for written in range(6):
        for position in range(500, 3500, 600):
            ward.packs.volatile[pack][position] ^= 1
        write = ward.packs.rewrite

        def cut(pack, pieces, write=write, written=written):
            write(pack, pieces[:written])
            raise OSError("power cut")

        ward.packs.rewrite = cut  # type: ignore[method-assign]
        with pytest.raises(OSError, match="power cut"):
            ward.mend(pack)
        ward.packs.rewrite = write  # type: ignore[method-assign]
        assert ward.get(manifest) == content
        assert ward.mend(pack).whole
        assert ward.packs.volatile[pack] == clean
