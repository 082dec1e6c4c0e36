"""Verification and rebuilding where frames have bases: what a lost base costs is named, all of it and nothing else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from cas.bases import BASES, iterate_bases
from cas.catalog import PLACEMENTS, decode_placement
from cas.errors import CasError
from cas.gc import find_sealed
from cas.protection import finish, make_sidecar
from tests.cas.support import edited
from tests.vaultaire.verify_support import Client, Damaged, _bucket, copy_of, kinds
from vaultaire.rebuild import rebuild_store
from vaultaire.store import Store

if TYPE_CHECKING:
    from cas.catalog import Placement

LENGTH = 600_000
BODIES = {
    b"first": edited(LENGTH),
    b"second": edited(LENGTH, 1, every=150_000),
    b"other": edited(100_000, seed=4),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """`second` is compressed against `first`, which is deleted; `other` has nothing to do with them."""
    directory = tmp_path_factory.mktemp("filled") / "store"
    for number, (key, data) in enumerate(BODIES.items()):
        with Store.open(directory, kind="command", create=not number) as store:
            client = Client(store, number)
            bucket = _bucket(store, "b") if number else client.bucket("b")
            client.put(bucket, key, data)
    with Store.open(directory, kind="command") as store:
        Client(store, 9).delete(_bucket(store, "b"), b"first")
    return directory


@pytest.fixture
def damaged(filled, tmp_path) -> Damaged:
    return copy_of(filled, tmp_path / "store", {})


def frame_with_bases(damaged: Damaged):
    with damaged.store() as store, store.kv.snapshot() as reader:
        frame, bases = next(iter(iterate_bases(reader)))
        placed = [decode_placement(base, reader.get(PLACEMENTS, base)) for base in bases.ids]
    return frame, bases, placed


def spoil(damaged: Damaged, placement: Placement) -> None:
    """Every chunk of the frame."""
    for at in range(placement.frame + placement.header_length, placement.frame_end, 100):
        damaged.flip(placement.pack, at)


def affected(report) -> list[str]:
    return [str(each) for each in report.affected]


def test_a_whole_store_is_clean(damaged):
    for options in ({}, {"read_data": True}, {"bucket": "b", "read_data": True}):
        report = damaged.verify(**options)
        assert (report.findings, report.skipped) == ([], [])


@pytest.mark.parametrize("read_data", [False, True])
def test_a_damaged_base_costs_what_is_decoded_behind_it(damaged, read_data):
    (pack, frame), _, placed = frame_with_bases(damaged)
    base = placed[0]
    spoil(damaged, base)
    report = damaged.verify(read_data=read_data)
    assert set(kinds(report)) == {"frame-payload", "frame-bases"}
    assert (pack, frame) in {(finding.pack, finding.frame) for finding in report.findings}
    assert affected(report) == ["b/second"]


def test_a_base_without_a_placement_is_named_with_what_it_costs(damaged):
    (pack, frame), bases, _ = frame_with_bases(damaged)
    with damaged.store() as store:
        store.kv.commit(lambda txn: txn.delete(PLACEMENTS, bases.ids[0]))
    report = damaged.verify()
    assert "frame-bases" in kinds(report)
    assert (pack, frame) in {(finding.pack, finding.frame) for finding in report.findings}
    assert affected(report) == ["b/second"]


def test_a_lost_or_wrong_row_of_bases_is_found(damaged):
    (pack, frame), bases, _ = frame_with_bases(damaged)
    key = pack.to_bytes(8, "big") + frame.to_bytes(4, "big")
    with damaged.store() as store:
        with store.kv.snapshot() as reader:
            row = reader.get(BASES, key)
        store.kv.commit(lambda txn: txn.delete(BASES, key))
    assert kinds(damaged.verify()) == ["frame-bases"]
    with damaged.store() as store:
        store.kv.commit(lambda txn: txn.put(BASES, key, row[:8] + row[40:] + row[8:40]))
    assert kinds(damaged.verify()) == ["frame-bases"]
    with damaged.store() as store:
        store.kv.commit(lambda txn: (txn.put(BASES, key, row), txn.put(BASES, key[:8] + b"\0\0\0\1", row)))
    assert kinds(damaged.verify()) == ["frame-bases"]
    assert len(bases.ids) >= 1


def test_parity_mends_a_base_while_it_is_read(damaged):
    _, _, placed = frame_with_bases(damaged)
    base = placed[0]
    with damaged.store() as store:
        for pack, row in find_sealed(store.kv):
            steps = make_sidecar(store.packs, store.identity.store_id, pack, row.length, 10, footerless=False)
            store.sidecars.put(pack, finish(steps))
    damaged.flip(base.pack, base.frame + base.header_length)  # where the payload begins: it cannot be decoded
    with damaged.store() as store:
        client = Client(store)
        manifest = client.manifest(_bucket(store, "b"), b"second")
        data = b"".join(
            piece
            for spans in store.chunks.windows(manifest, 0, manifest.size, 1 << 20)
            for piece in store.chunks.read(spans)
        )
    assert data == BODIES[b"second"]


def test_without_metadata_all_of_it_comes_back_from_the_packs(damaged):
    frame, bases, _ = frame_with_bases(damaged)
    for name in ("meta", "journal", "checkpoint"):
        shutil.rmtree(damaged.directory / name)
    report = rebuild_store(damaged.directory, forget_names=True)
    assert not report.damaged
    with damaged.store() as store:
        with store.kv.snapshot() as reader:
            assert dict(iterate_bases(reader))[frame] == bases
        client = Client(store, 5)
        bucket = client.bucket("b")
        manifest, publication = client.chunked(BODIES[b"second"])
        assert publication is not None
        client.put(bucket, b"second", BODIES[b"second"])
        assert manifest == client.manifest(bucket, b"second")
    assert damaged.verify(read_data=True).clean


def test_the_key_is_verified_by_a_frame_that_can_be_decoded_alone(damaged):
    (pack, _), _, placed = frame_with_bases(damaged)
    for path in [damaged.path(place.pack) for place in placed if place.pack != pack]:
        path.unlink(missing_ok=True)
    identity = (damaged.directory / "store.json").read_text()
    (damaged.directory / "store.json").unlink()
    rebuild_store(damaged.directory, identity_from=True)
    assert (damaged.directory / "store.json").read_text() == identity


def test_reading_says_which_base_is_lost(damaged):
    _, bases, _ = frame_with_bases(damaged)
    with damaged.store() as store:
        store.kv.commit(lambda txn: txn.delete(PLACEMENTS, bases.ids[0]))
        manifest = Client(store).manifest(_bucket(store, "b"), b"second")
        with pytest.raises(CasError, match=bases.ids[0].hex()):
            list(map(store.chunks.read, store.chunks.windows(manifest, 0, manifest.size, 1 << 20)))
