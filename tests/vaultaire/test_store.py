"""Opening a data directory: identity, locks, recovery, and what is refused."""

import json
import shutil
import subprocess
import sys

import pytest

from cas.catalog import PackState, iterate_packs
from index.buckets import create_bucket, get_bucket
from index.kv import CorruptJournal, KvError, MapFull, StoreReadOnly
from index.lmdb_kv import NotRecovered
from index.objects import get_object
from index.readonly import FULL
from index.records import ObjectRecord
from index.versions import Change, put_object
from vaultaire.errors import NotAStore, StoreError
from vaultaire.reading import read_all
from vaultaire.stats import collect
from vaultaire.store import Store


def open_store(directory, **options):
    return Store.open(directory, kind="command", **options)


def put(store, bucket, key, data):
    """Store an object as the server does: ingest, sync, then one commit."""
    ingest = store.chunks.ingest()
    ingest.feed(data)
    manifest = ingest.finish()
    publication = ingest.publication()
    store.chunks.sync([publication])
    record = ObjectRecord(len(data), 1, "0" * 32, "root", manifest=manifest.encode())

    def commit(txn):
        publication.apply(txn)
        put_object(txn, bucket, key, record, Change(store.writer, 1, b"8 random"))

    store.kv.commit(commit)
    publication.settle(True)


def read(store, bucket, key):
    from cas.manifest import Manifest

    with store.kv.snapshot() as reader:
        record = get_object(reader, bucket.id, key)
    assert record is not None
    assert record.manifest is not None
    return b"".join(read_all(store.chunks, Manifest.decode(record.manifest)))


def test_only_create_makes_a_store_and_the_message_says_how(tmp_path):
    with pytest.raises(NotAStore, match="vaultaire serve --data"):
        open_store(tmp_path / "new")
    open_store(tmp_path / "new", create=True).close()
    open_store(tmp_path / "new").close()


def test_packs_of_a_dead_process_are_adopted_though_its_run_file_is_lost(tmp_path):
    with open_store(tmp_path / "live", create=True) as store:
        bucket = store.kv.commit(lambda txn: create_bucket(txn, "bucket", "root", 1))
        put(store, bucket, b"key", b"data" * 5000)
        unpublished = store.chunks.ingest()
        unpublished.feed(b"other" * 50_000)
        shutil.copytree(tmp_path / "live", tmp_path / "cut")
        unpublished.abort()
    shutil.rmtree(tmp_path / "cut" / "run")
    stray_pack = (77 << 32) + 1
    stray = tmp_path / "cut" / "packs" / "01" / f"{stray_pack:016x}.pack"
    stray.write_bytes(b"of a process whose first commit never was")
    with open_store(tmp_path / "cut") as store:
        with store.kv.snapshot() as reader:
            rows = dict(iterate_packs(reader))
        assert {row.state for row in rows.values()} == {PackState.SEALED}
        # A file without a row stays where nothing tells whose it is: it may be the row that is lost.
        assert list(store.packs.packs()) == [*rows, stray_pack]
        assert read(store, bucket, b"key") == b"data" * 5000
        assert [path.name for path in (tmp_path / "cut" / "run").iterdir()] == [store.run_file.path.name]


def test_a_directory_that_holds_something_else_is_not_filled_with_a_store(tmp_path):
    (tmp_path / "thesis.doc").write_text("all I have")
    with pytest.raises(StoreError, match="thesis"):
        open_store(tmp_path, create=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


@pytest.mark.parametrize("text", ["{", "[]", "[" * 50_000])
def test_a_damaged_identity_is_refused_with_a_message(tmp_path, text):
    open_store(tmp_path / "s", create=True).close()
    (tmp_path / "s" / "store.json").write_text(text)
    with pytest.raises(StoreError, match=r"store\.json"):
        open_store(tmp_path / "s")


def test_an_identity_of_a_newer_version_is_refused(tmp_path):
    open_store(tmp_path / "s", create=True).close()
    path = tmp_path / "s" / "store.json"
    fields = json.loads(path.read_text())
    fields["format_version"] = 99
    path.write_text(json.dumps(fields))
    with pytest.raises(StoreError):
        open_store(tmp_path / "s")


SIBLING = """
import pathlib, sys
from vaultaire.reading import read_all
from vaultaire.store import Store
from cas.manifest import Manifest
from index.buckets import get_bucket
from index.objects import get_object
from index.readonly import FULL
with Store.open(pathlib.Path(sys.argv[1]), kind="command") as store:
    with store.kv.snapshot() as reader:
        record = get_object(reader, get_bucket(reader, "bucket").id, b"k")
    data = b"".join(read_all(store.chunks, Manifest.decode(record.manifest)))
    sys.stdout.buffer.write(store.writer.to_bytes(4, "big") + data)
"""


def test_writer_numbers_are_never_reused(tmp_path):
    seen = []
    for _ in range(4):
        with open_store(tmp_path / "s", create=True) as store:
            seen.append(store.writer)
    assert seen == sorted(set(seen))


def test_another_process_opens_a_live_store_and_reads_what_was_put(tmp_path):
    data = bytes(range(256)) * 4096
    with open_store(tmp_path / "s", create=True) as store:
        bucket = store.kv.commit(lambda txn: create_bucket(txn, "bucket", "root", 1))
        put(store, bucket, b"k", data)
        sibling = subprocess.run(
            [sys.executable, "-c", SIBLING, str(tmp_path / "s")], capture_output=True, check=True
        )
        assert int.from_bytes(sibling.stdout[:4], "big") > store.writer
        assert sibling.stdout[4:] == data


@pytest.mark.parametrize("closed_cleanly", [True, False])
def test_without_meta_the_next_open_rebuilds_the_same_store(tmp_path, closed_cleanly):
    directory = tmp_path / "s"
    store = open_store(directory, create=True)
    bucket = store.kv.commit(lambda txn: create_bucket(txn, "bucket", "root", 1))
    put(store, bucket, b"k", b"some bytes " * 50_000)
    before = collect(store)
    if closed_cleanly:
        store.close()
    copy = tmp_path / "copy"  # what a power cut would leave, without the view
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("meta", "run"))
    store.close()
    with open_store(copy) as rebuilt:
        with rebuilt.kv.snapshot() as reader:
            assert get_bucket(reader, "bucket") == bucket
        assert read(rebuilt, bucket, b"k") == b"some bytes " * 50_000
        after = collect(rebuilt)
    assert (after.objects, after.logical_bytes, after.unique_bytes) == (
        before.objects,
        before.logical_bytes,
        before.unique_bytes,
    )


def test_a_store_with_packs_but_no_metadata_at_all_is_not_taken_for_a_new_one(tmp_path):
    directory = tmp_path / "s"
    with open_store(directory, create=True) as store:
        bucket = store.kv.commit(lambda txn: create_bucket(txn, "bucket", "root", 1))
        put(store, bucket, b"k", b"x" * 100_000)
    for name in ("meta", "journal", "checkpoint"):
        shutil.rmtree(directory / name)
    with pytest.raises(Exception, match="metadata"):
        open_store(directory)


def test_the_same_bytes_are_stored_once(tmp_path):
    with open_store(tmp_path / "s", create=True) as store:
        bucket = store.kv.commit(lambda txn: create_bucket(txn, "bucket", "root", 1))
        data = b"".join(i.to_bytes(4, "big") for i in range(300_000))
        put(store, bucket, b"one", data)
        first = collect(store)
        put(store, bucket, b"two", data)
        second = collect(store)
    assert second.logical_bytes == 2 * first.logical_bytes
    assert second.unique_bytes == first.unique_bytes == len(data)
    assert second.buckets[0].unique_bytes == len(data)
    assert second.dedup_ratio == 2.0


# Stores that cannot be recovered now


@pytest.fixture
def poisoned_store(tmp_path):
    """Its metadata wants to be rebuilt; it holds one bucket."""
    with open_store(tmp_path, create=True) as store:
        store.kv.commit(lambda txn: create_bucket(txn, "kept", "root", 1))
        store.kv.poison("a sync failed")
    return tmp_path


def refuse_recovery(monkeypatch, error):
    def recover(*_, **__):
        raise error

    monkeypatch.setattr("vaultaire.store.recover", recover)


def assert_readable_only(store):
    with store.kv.snapshot() as reader:
        assert get_bucket(reader, "kept") is not None
    with pytest.raises(StoreReadOnly):
        store.kv.commit(lambda txn: create_bucket(txn, "more", "root", 1))


def test_a_store_without_room_to_recover_is_read_only_until_there_is_some(poisoned_store, monkeypatch):
    with monkeypatch.context() as full:
        refuse_recovery(full, MapFull("no room"))
        for _ in range(2):
            with open_store(poisoned_store) as store:
                assert_readable_only(store)
                assert store.kv.read_only_reason().startswith(FULL)
    with open_store(poisoned_store) as store:
        store.kv.commit(lambda txn: create_bucket(txn, "more", "root", 1))


def test_a_store_that_the_disk_fails_stays_read_only_until_the_operator_starts_it(
    poisoned_store, monkeypatch
):
    with monkeypatch.context() as failing:
        refuse_recovery(failing, KvError("input/output error"))
        with open_store(poisoned_store) as store:
            assert_readable_only(store)
    with open_store(poisoned_store) as store:
        assert_readable_only(store)
    with open_store(poisoned_store, by_operator=True) as store:
        store.kv.commit(lambda txn: create_bucket(txn, "more", "root", 1))
    assert not list((poisoned_store / "run").glob("poisoned*"))


@pytest.mark.parametrize("error", [CorruptJournal("damaged"), NotRecovered("lost")])
def test_what_may_be_wrong_is_not_served_at_all(poisoned_store, monkeypatch, error):
    refuse_recovery(monkeypatch, error)
    with pytest.raises(type(error)):
        open_store(poisoned_store)
    assert not (poisoned_store / "run" / "readonly").exists()


def test_a_process_without_room_for_its_own_rows_can_still_read(tmp_path, monkeypatch):
    with open_store(tmp_path, create=True) as store:
        store.kv.commit(lambda txn: create_bucket(txn, "kept", "root", 1))
    with monkeypatch.context() as full:

        def no_room(*_):
            raise MapFull("no room")

        full.setattr("vaultaire.store._allocate_writer", no_room)
        with open_store(tmp_path) as store:
            assert_readable_only(store)
    with open_store(tmp_path) as store:
        store.kv.commit(lambda txn: create_bucket(txn, "more", "root", 1))
