"""Verification of a store with everything in it: clean as long as it is whole, and each kind of damage found and named."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cas.catalog import PACKS, PLACEMENTS, PackState, pack_key, put_pack
from cas.pack import TRAILER_BYTES, PackKind
from index import tree
from index.tables import COUNTERS, OBJECTS
from tests.vaultaire.verify_support import (
    LONG_KEY,
    Client,
    _bucket,
    copy_of,
    damage_value,
    fill,
    flip,
    flip_last,
    kinds,
    look,
    names,
)

if TYPE_CHECKING:
    from tests.vaultaire.verify_support import Damaged


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("filled") / "store"
    return directory, fill(directory)


@pytest.fixture
def damaged(filled, tmp_path) -> Damaged:
    directory, versions = filled
    return copy_of(directory, tmp_path / "store", versions)


@pytest.mark.parametrize("options", [{}, {"read_data": True}, {"bucket": "plain", "read_data": True}])
def test_a_whole_store_with_everything_in_it_is_clean(damaged, options):
    report = damaged.verify(**options)
    assert report.findings == []
    assert report.skipped == []
    assert report.clean
    assert report.versions > 0


def test_verifying_changes_nothing(damaged):
    damaged.verify()
    before = {path: path.read_bytes() for path in damaged.directory.rglob("packs/**/*") if path.is_file()}
    damaged.verify(read_data=True)
    after = {path: path.read_bytes() for path in damaged.directory.rglob("packs/**/*") if path.is_file()}
    assert after == before
    assert list((damaged.directory / "tmp").iterdir()) == []


# --- bytes of packs ----------------------------------------------------------------------------------------------


def test_a_flipped_byte_of_a_payload_costs_the_object_that_has_it(damaged):
    pack, frame, _ = damaged.where("plain", b"noise")
    damaged.flip(pack, frame.offset + frame.header.header_length + 10)
    report = damaged.verify()
    assert kinds(report) == ["frame-payload"]
    (finding,) = report.findings
    assert (finding.pack, finding.frame) == (pack, frame.offset)
    assert finding.chunks == frame.header.ids[:1]  # of a raw frame the other chunks are sound
    assert names(finding) == ["plain/copy", "plain/noise"]


def test_versions_are_told_apart(damaged):
    with damaged.store() as store:
        bucket = _bucket(store, "versioned")
        entry = next(iter(Client(store).manifest(bucket, b"doc")))
    assert entry.length > 0
    pack, frame, _ = damaged.where("versioned", b"doc")
    damaged.flip(pack, frame.offset + frame.header.header_length)
    report = damaged.verify()
    named = names(report.findings[0])
    assert named in (
        [f"versioned/doc (version {damaged.versions['new']})"],
        [f"versioned/doc (version {damaged.versions['old']})"],
    )


@pytest.mark.parametrize("place", ["head", "ids", "checksum"])
def test_a_flipped_byte_of_a_frame_header_is_found_and_costs_nothing(damaged, place):
    pack, frame, _ = damaged.where("plain", b"text")
    at = {"head": 9, "ids": 40, "checksum": frame.header.header_length - 1}[place]
    damaged.flip(pack, frame.offset + at)
    report = damaged.verify(read_data=True)
    assert kinds(report) == ["frame-header"]
    assert (report.findings[0].pack, report.findings[0].frame) == (pack, frame.offset)
    assert report.affected == []


@pytest.mark.parametrize(
    ("offset", "kind"), [(20, "pack-header"), (-1, "pack-trailer"), (-TRAILER_BYTES - 9, "pack-footer")]
)
def test_the_ends_of_a_pack_are_checked_and_cost_nothing(damaged, offset, kind):
    pack, _ = next((p, r) for p, r in damaged.packs() if not r.footerless)
    length = damaged.path(pack).stat().st_size
    damaged.flip(pack, offset % length)
    report = damaged.verify()
    assert kinds(report) == [kind]
    assert report.findings[0].pack == pack
    assert report.affected == []


def test_a_truncated_pack_costs_what_lay_behind_the_cut(damaged):
    pack, frame, _ = damaged.where("plain", b"big", 30)
    with open(damaged.path(pack), "r+b") as file:
        file.truncate(frame.offset + 100)
    report = damaged.verify()
    assert kinds(report) == ["pack-truncated"]
    assert report.findings[0].pack == pack
    assert {"plain/big", "plain/copy"} <= set(names(report.findings[0]))
    assert "plain/noise" not in names(report.findings[0])


def test_a_missing_pack_costs_all_that_was_in_it(damaged):
    pack, _, _ = damaged.where("versioned", b"doc")
    damaged.path(pack).unlink()
    report = damaged.verify()
    assert kinds(report) == ["pack-missing"]
    assert set(names(report.findings[0])) >= {
        f"versioned/doc (version {damaged.versions['new']})",
        f"versioned/doc (version {damaged.versions['old']})",
    }
    assert all(each.bucket in ("versioned", "suspended") for each in report.affected)


def test_a_missing_pack_of_nodes_costs_the_objects_that_have_trees(damaged):
    pack, _ = damaged.packs(PackKind.NODE)[0]
    damaged.path(pack).unlink()
    report = damaged.verify()
    assert kinds(report) == ["pack-missing"]
    assert names(report.findings[0]) == ["plain/big", "plain/copy"]


def test_a_part_of_an_upload_is_named(damaged):
    with damaged.store() as store, store.kv.snapshot() as reader:
        from cas.manifest import Manifest
        from index.records import PartRecord
        from tests.vaultaire.verify_support import place_of

        (_, value), *_ = reader.scan("idx.parts")
        entry = next(iter(Manifest.decode(PartRecord.decode(value).manifest)))
        pack, frame, _ = place_of(store, entry.id)
    damaged.flip(pack, frame.offset + frame.header.header_length)
    report = damaged.verify()
    assert names(report.findings[0]) == [f"plain/unfinished (part 3 of upload {damaged.versions['upload']})"]


def test_something_appended_to_a_sealed_pack_is_found(damaged):
    pack, _ = next((p, r) for p, r in damaged.packs() if not r.footerless)
    with open(damaged.path(pack), "ab") as file:
        file.write(b"more")
    assert kinds(damaged.verify()) == ["pack-too-long"]


def test_a_chunk_that_was_stored_wrongly_needs_its_data_to_be_read(damaged):
    """Checksums of a frame that was made of wrong bytes are right."""
    from cas.frame import encode_frame
    from cas.pack import encode_footer

    pack, frame, _ = damaged.where("plain", b"noise")
    with damaged.store() as store:
        row, frames = look(store, pack)
        path = store.packs.path(pack)
        data = bytearray(path.read_bytes())
        raw = data[frame.offset + frame.header.header_length : frame.end]
        raw[5] ^= 1
        chunks, begin = [], 0
        for length in frame.header.lengths:
            chunks.append(bytes(raw[begin : begin + length]))
            begin += length
        wrong = encode_frame(frame.header.ids, chunks)
        assert wrong.total_length == frame.header.total_length
        data[frame.offset : frame.end] = wrong.header + b"".join(wrong.payload)
        headers = [(f.offset, bytes(data[f.offset : f.offset + f.header.header_length])) for f in frames]
        footer = encode_footer(frames[-1].end, headers)
        path.write_bytes(bytes(data[: frames[-1].end]) + footer)
        assert row.length == path.stat().st_size
    assert damaged.verify().clean
    report = damaged.verify(read_data=True)
    assert kinds(report) == ["chunk-id"]
    assert names(report.findings[0]) == ["plain/copy", "plain/noise"]
    report = damaged.verify(bucket="plain", read_data=True)
    assert kinds(report) == ["chunk-unreadable"]
    assert names(report.findings[0]) == ["plain/copy", "plain/noise"]


# --- rows of packs and placements ------------------------------------------------------------------------------------


def test_a_file_that_no_row_knows_is_found_once_its_writer_is_gone(damaged):
    pack, _ = damaged.packs()[0]
    stray = 0xFFFF_0000_0000_0001
    damaged.path(stray).parent.mkdir(exist_ok=True)
    damaged.path(stray).write_bytes(damaged.path(pack).read_bytes())
    report = damaged.verify()
    assert kinds(report) == ["pack-orphan"]
    assert report.findings[0].pack == stray


def test_a_placement_that_points_elsewhere_is_found(damaged):
    _, frame, index = damaged.where("plain", b"noise")
    assert len(frame.header.ids) > 1
    chunk, other = frame.header.ids[index], frame.header.ids[index + 1]

    def point_elsewhere(txn):
        txn.put(PLACEMENTS, chunk, txn.get(PLACEMENTS, other))

    damaged.commit(point_elsewhere)
    report = damaged.verify()
    assert "placement" in kinds(report)
    finding = next(f for f in report.findings if f.kind == "placement")
    assert finding.chunks == (chunk,)
    assert "plain/noise" in names(finding)


def test_a_placement_in_a_pack_where_the_chunk_never_was_is_found(damaged):
    _, frame, index = damaged.where("plain", b"noise")
    _, far, at = damaged.where("plain", b"big", 40)
    chunk, other = frame.header.ids[index], far.header.ids[at]

    def point_elsewhere(txn):
        txn.put(PLACEMENTS, chunk, txn.get(PLACEMENTS, other))

    damaged.commit(point_elsewhere)
    report = damaged.verify()
    finding = next(f for f in report.findings if f.kind == "placement")
    assert finding.chunks == (chunk,)
    assert names(finding) == ["plain/copy", "plain/noise"]
    assert kinds(report) == ["pack-counters", "placement"]


def test_a_placement_in_a_pack_that_is_gone_is_found(damaged):
    _, frame, index = damaged.where("plain", b"noise")
    chunk = frame.header.ids[index]

    def point_nowhere(txn):
        row = txn.get(PLACEMENTS, chunk)
        txn.put(PLACEMENTS, chunk, row[:1] + bytes(7) + b"\x63" + row[9:])

    damaged.commit(point_nowhere)
    finding = next(f for f in damaged.verify().findings if f.kind == "placement")
    assert finding.chunks == (chunk,)
    assert names(finding) == ["plain/copy", "plain/noise"]


def test_wrong_counters_of_packs_are_found(damaged):
    fields = ("frames", "chunks", "raw_bytes", "placed_chunks", "placed_bytes")
    wrong = dict(zip(damaged.packs(), fields, strict=False))
    assert len(wrong) == len(fields)

    def change(txn):
        for (pack, row), field in wrong.items():
            put_pack(txn, pack, replace(row, **{field: getattr(row, field) + 1}))

    damaged.commit(change)
    report = damaged.verify()
    assert kinds(report) == ["pack-counters"] * len(fields)
    for finding, ((pack, _), field) in zip(report.findings, wrong.items(), strict=True):
        assert finding.pack == pack
        assert f" {field} " in finding.message


def test_a_row_that_claims_more_than_its_pack_has_is_found(damaged):
    pack, row = next((p, r) for p, r in damaged.packs() if r.state == PackState.SEALED)
    damaged.commit(lambda txn: put_pack(txn, pack, replace(row, length=row.length + 10)))
    assert kinds(damaged.verify()) == ["pack-truncated"]


def test_a_pack_without_its_row_is_found_by_what_it_costs(damaged):
    pack, _, _ = damaged.where("versioned", b"doc")
    damaged.commit(lambda txn: txn.delete(PACKS, pack_key(pack)))
    report = damaged.verify()
    assert {"pack-orphan", "placement"} == set(kinds(report))


def test_a_missing_node_is_found_with_the_objects_that_need_it(damaged):
    with damaged.store() as store:
        node = next(iter(Client(store).manifest(_bucket(store, "plain"), b"big"))).id
    damaged.commit(lambda txn: txn.delete(PLACEMENTS, node))
    report = damaged.verify()
    assert kinds(report) == ["node-missing", "pack-counters"]
    assert names(report.findings[1]) == ["plain/big", "plain/copy"]
    assert report.findings[1].chunks == (node,)


def test_a_missing_chunk_is_found_with_the_objects_that_need_it(damaged):
    _, frame, index = damaged.where("plain", b"footerless")
    chunk = frame.header.ids[index]
    damaged.commit(lambda txn: txn.delete(PLACEMENTS, chunk))
    report = damaged.verify()
    finding = next(f for f in report.findings if f.kind == "chunk-missing")
    assert finding.chunks == (chunk,)
    assert names(finding) == ["plain/footerless"]


# --- metadata ----------------------------------------------------------------------------------------------------


def row_of(store, bucket: str, key: bytes) -> bytes:
    with store.kv.snapshot() as reader:
        row = tree.find_row(reader, OBJECTS, _bucket(store, bucket).id, key)
    assert row is not None
    return row


@pytest.mark.parametrize("key", [b"inline", LONG_KEY], ids=["short key", "long key"])
def test_a_damaged_record_is_found_with_its_key(damaged, key):
    from vaultaire.verify import verify

    with damaged.store() as store:
        damage_value(store, OBJECTS, row_of(store, "plain", key), flip_last)
        report = verify(store)
    assert kinds(report) == ["row-damaged"]
    assert [(each.bucket, each.key) for each in report.affected] == [("plain", key)]


def test_a_hidden_row_is_found_though_nothing_says_that_it_should_be_there(damaged):
    from vaultaire.verify import verify

    with damaged.store() as store:
        damage_value(store, OBJECTS, row_of(store, "plain", b"inline"), lambda _: None)
        report = verify(store)
    assert "row-missing" in kinds(report)
    finding = next(f for f in report.findings if f.kind == "row-missing")
    assert names(finding) == ["plain/inline"]


def test_a_damaged_placement_is_found_with_the_objects_that_need_it(damaged):
    from vaultaire.verify import verify

    _, frame, index = damaged.where("plain", b"footerless")
    with damaged.store() as store:
        damage_value(store, PLACEMENTS, frame.header.ids[index], flip_last)
        report = verify(store)
    finding = next(f for f in report.findings if f.kind == "row-damaged")
    assert names(finding) == ["plain/footerless"]


def test_a_damaged_row_of_a_pack_is_found(damaged):
    from vaultaire.verify import verify

    pack, _ = damaged.packs()[0]
    with damaged.store() as store:
        damage_value(store, PACKS, pack_key(pack), flip_last)
        report = verify(store)
    finding = next(f for f in report.findings if f.kind == "row-damaged")
    assert finding.pack == pack


def test_a_damaged_journal_record_is_found(damaged):
    from vaultaire.verify import verify

    with damaged.store() as store:
        segment = min((damaged.directory / "journal").iterdir())
        flip(segment, 400)
        report = verify(store)
    assert kinds(report) == ["journal"]
    assert report.affected == []


@pytest.mark.parametrize("victim", ["newest", "older", "sidecar"])
def test_a_damaged_checkpoint_is_found(damaged, victim):
    from vaultaire.verify import verify

    with damaged.store() as store:
        for n in range(2):
            store.kv.commit(lambda txn, n=n: txn.put("srv.settings", b"n", b"%d" % n))
            assert store.kv.write_checkpoint() is not None
        store.kv.commit(lambda txn: txn.put("srv.settings", b"n", b"later"))
        assert verify(store).clean
        older, newest = sorted((damaged.directory / "checkpoint").glob("*.ckpt"))
        path = {"newest": newest, "older": older, "sidecar": newest.with_suffix(".json")}[victim]
        flip(path, 100)
        report = verify(store)
    assert kinds(report) == ["checkpoint"]
    assert report.skipped == []


# --- names -------------------------------------------------------------------------------------------------------


def test_counters_that_are_not_the_sums_are_found(damaged):
    def change(txn):
        row, value = next(iter(list(txn.scan(COUNTERS))))
        txn.put(COUNTERS, row, value[:8] + bytes([value[8] ^ 1]) + value[9:])

    damaged.commit(change)
    report = damaged.verify()
    assert kinds(report) == ["names"]
    assert "counters" in report.findings[0].message


def test_a_record_of_another_size_is_found(damaged):
    from index.records import ObjectRecord

    def change(txn):
        row = tree.find_row(txn, OBJECTS, 1, b"noise")
        record = ObjectRecord.decode(txn.get(OBJECTS, row))
        txn.put(OBJECTS, row, replace(record, size=record.size + 1).encode())

    damaged.commit(change)
    report = damaged.verify()
    assert kinds(report) == ["manifest", "names"]
    assert names(next(f for f in report.findings if f.kind == "manifest")) == ["plain/noise"]


def test_a_row_without_its_bucket_is_found(damaged):
    def change(txn):
        txn.put(COUNTERS, (99).to_bytes(8, "big") + bytes(4), bytes(25))

    damaged.commit(change)
    assert kinds(damaged.verify()) == ["names"]


def test_a_lost_secret_key_is_found(damaged):
    (damaged.directory / "secret.key").rename(damaged.directory / "secret.key.new")
    report = damaged.verify()
    assert kinds(report) == ["secret-key"]


# --- end to end ----------------------------------------------------------------------------------------------------


def test_objects_named_by_their_sha256_are_checked_end_to_end(damaged):
    data = random.Random(1).randbytes(50_000)
    right, wrong = hashlib.sha256(data).hexdigest(), "ab" * 32
    with damaged.store() as store:
        client, bucket = Client(store), _bucket(store, "plain")
        client.put(bucket, b"repo/config", b"not named so")
        client.put(bucket, f"repo/data/{right[:2]}/{right}".encode(), data)
        client.put(bucket, f"repo/snapshots/{hashlib.sha256(b'x').hexdigest()}".encode(), b"x")
        client.put(bucket, f"other/data/{wrong}".encode(), b"no repository: any name will do")
    report = damaged.verify(read_data=True)
    assert report.clean
    assert report.end_to_end == 2
    with damaged.store() as store:
        Client(store).put(_bucket(store, "plain"), f"repo/index/{wrong}".encode(), data)
    assert damaged.verify().clean
    report = damaged.verify(read_data=True)
    assert kinds(report) == ["object-name"]
    assert names(report.findings[0]) == [f"plain/repo/index/{wrong}"]
    assert "what the client sent" in report.findings[0].message


def test_a_report_is_one_json_document(damaged):
    pack, _, _ = damaged.where("plain", b"noise")
    damaged.path(pack).unlink()
    document = json.loads(json.dumps(damaged.verify().to_json()))
    assert document["clean"] is False
    assert document["findings"][0]["kind"] == "pack-missing"
    assert {"bucket": "plain", "key": "noise", "version": "null"} in document["affected"]


def test_a_bucket_that_is_not_there_is_refused(damaged):
    from vaultaire.verify import NoSuchBucket

    with pytest.raises(NoSuchBucket, match="stats"):
        damaged.verify(bucket="nothing")


def test_packs_are_read_the_same_where_there_is_no_direct_io(damaged, monkeypatch):
    import os

    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    pack, frame, _ = damaged.where("plain", b"noise")
    assert damaged.verify(read_data=True).clean
    damaged.flip(pack, frame.offset + frame.header.header_length)
    assert kinds(damaged.verify()) == ["frame-payload"]


def test_collection_does_not_wait_for_the_whole_verification(damaged, monkeypatch):
    """The run file goes on to tell the epoch of the operation that runs, not of the first one there was."""
    import vaultaire.verify
    from cas.catalog import condemn
    from vaultaire.runfile import IDLE

    monkeypatch.setattr(vaultaire.verify, "TICK_SECONDS", -1.0)
    with damaged.store() as store:
        shown = set()

        def on_progress(stage, done, total):
            shown.add(int.from_bytes(store.run_file.path.read_bytes(), "little"))
            store.kv.commit(lambda txn: condemn(txn, []))

        report = vaultaire.verify.verify(store, on_progress=on_progress)
        assert report.clean
        assert len(shown - {IDLE}) > 3
        assert store.run_file.running == 0
