"""Uploads share what is in flight; collection's rules decide what may be relied upon."""

from __future__ import annotations

import threading

import pytest

from cas.catalog import PLACEMENTS, PackState, condemn, forget_pack, iterate_packs, pack_of
from cas.errors import PackGone
from cas.pack import PackKind
from tests.cas.support import REAL, Rig, noise, running


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_upload_still_running_is_found_by_another(rig: Rig):
    data = noise(300_000)
    first, manifest = running(rig, data)
    second, same = running(rig, data)
    assert same == manifest
    assert second.new_stored_bytes == 0
    rig.commit(second.publication())  # the second commits alone: it publishes what the first has stored
    first.abort()
    assert rig.get(manifest) == data


def test_frame_not_yet_written_counts_as_a_miss(rig: Rig):
    data = noise(10_000)
    first, second = rig.store.ingest(), rig.store.ingest()
    first.feed(data)  # less than a frame
    second.feed(data)
    manifest = second.finish()
    rig.commit(second.publication())
    first.abort()
    assert second.new_raw_bytes == 10_000
    assert rig.get(manifest) == data


def test_both_of_two_uploads_may_commit(rig: Rig):
    data = noise(300_000)
    first, manifest = running(rig, data)
    second, _ = running(rig, data)
    rig.commit(first.publication(), second.publication())
    with rig.kv.snapshot() as reader:
        assert rig.store.statistics(reader).unique_bytes == 300_000
    assert rig.get(manifest) == data


def test_taken_up_chunks_are_made_durable_by_whoever_takes_them(rig: Rig):
    data = noise(300_000)
    running(rig, data)
    second, manifest = running(rig, data)
    rig.commit(second.publication())
    rig.packs = rig.packs.crash()
    rig.store = rig.open(2)
    assert rig.get(manifest) == data


def test_uploads_in_many_threads_share_what_they_store():
    rig = Rig(REAL)
    data = [noise(2_000_000, seed) for seed in range(2)]
    manifests = {}
    lock = threading.Lock()

    def upload(number: int) -> None:
        for turn in range(3):
            ingest = rig.store.ingest()
            body = data[(number + turn) % 2]
            for start in range(0, len(body), 300_000):
                ingest.feed(body[start : start + 300_000])
            manifest = ingest.finish()
            publication = ingest.publication()
            with lock:
                rig.commit(publication)
            manifests[number, turn] = manifest

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(manifests) == 12
    assert len(set(manifests.values())) == 2
    for (number, turn), manifest in list(manifests.items())[:4]:
        assert rig.get(manifest, window=1 << 20) == data[(number + turn) % 2]
    with rig.kv.snapshot() as reader:
        assert rig.store.statistics(reader).unique_bytes == 4_000_000


def sealed_packs(rig: Rig) -> list[int]:
    rig.store.close()
    rig.store = rig.open(max(pack >> 32 for pack in rig.packs.volatile) + 1)
    with rig.kv.snapshot() as reader:
        return [pack for pack, row in iterate_packs(reader) if row.state == PackState.SEALED]


def test_chunks_of_condemned_packs_are_unknown_but_readable(rig: Rig):
    data = noise(100_000)
    old, _ = rig.put(data)
    packs = sealed_packs(rig)
    rig.kv.commit(lambda txn: condemn(txn, packs))
    new, ingest = rig.put(data)
    assert ingest.new_raw_bytes >= 100_000
    assert new == old
    with rig.kv.snapshot() as reader:
        assert all(pack_of(row) not in packs for _, row in reader.scan(PLACEMENTS))
        assert rig.store.statistics(reader).unique_bytes == 100_000
    rig.kv.commit(lambda txn: [forget_pack(txn, pack) for pack in packs])
    for pack in packs:
        rig.packs.remove(pack)
    assert rig.get(new) == data


def test_chunks_in_flight_in_a_condemned_pack_are_unknown(rig: Rig):
    data = noise(300_000)
    first, _ = running(rig, data)
    rig.store.sync([publication := first.publication()])
    rig.now += 601
    rig.store.seal_idle(rig.now)
    with rig.kv.snapshot() as reader:
        packs = [pack for pack, _ in iterate_packs(reader)]
    rig.kv.commit(lambda txn: condemn(txn, packs))
    second, _ = running(rig, data)
    assert second.new_raw_bytes >= 300_000
    publication.settle(False)


def test_commit_fails_if_a_pack_relied_upon_is_gone(rig: Rig):
    data = noise(100_000)
    rig.put(data)
    packs = sealed_packs(rig)
    ingest, _ = running(rig, data)
    rig.kv.commit(lambda txn: [condemn(txn, packs), *(forget_pack(txn, pack) for pack in packs)])
    with pytest.raises(PackGone):
        rig.commit(ingest.publication())


def test_every_pack_relied_upon_is_checked_also_those_of_early_publications(rig: Rig):
    ingest = rig.store.ingest()
    ingest.feed(noise(2_500_000))
    rig.commit(ingest.take_publication())
    rig.now += 601
    rig.store.seal_idle(rig.now)
    with rig.kv.snapshot() as reader:
        packs = [pack for pack, row in iterate_packs(reader) if row.kind == PackKind.DATA]
    rig.kv.commit(lambda txn: [condemn(txn, packs), *(forget_pack(txn, pack) for pack in packs)])
    ingest.finish()
    with pytest.raises(PackGone):
        rig.commit(ingest.publication())
