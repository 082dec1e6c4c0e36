"""Every way back of a damaged data directory: by starting, or by `vaultaire rebuild`; and what cannot come back, named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from cas.catalog import PackState, iterate_packs
from cas.pack import PackHeader
from index.kv import CorruptJournal, KvError
from tests.vaultaire.backup.support import Subject, contents
from vaultaire import rebuild
from vaultaire.errors import NotAStore, StoreError
from vaultaire.rebuild import ChangesLost, NamesLost, rebuild_store
from vaultaire.stats import collect
from vaultaire.store import Store, read_identity


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store with two checkpoints, journal behind them, sealed packs of both kinds; and what it holds."""
    directory = tmp_path_factory.mktemp("original") / "store"
    with Subject(directory) as subject:
        subject.make_root_key()
        subject.put(b"tree", size=3_000_000)
        for n in range(6):
            subject.put(b"object %d" % n, size=50_000)
            if n in (1, 2, 3):
                subject.store.kv.write_checkpoint()
        subject.delete(b"object 0")
        subject.reopen()
        subject.put(b"last", size=70_000)
        model = dict(subject.model)
    assert len(list((directory / "checkpoint").glob("*.ckpt"))) == 2
    assert not (directory / "journal" / f"{1:020d}.log").exists()
    return directory, model


@pytest.fixture
def damaged(original, tmp_path):
    """A copy of the store, to be damaged."""
    return shutil.copytree(original[0], tmp_path / "store")


@pytest.fixture
def model(original):
    return original[1]


def newest(directory, pattern):
    return max(directory.glob(pattern))


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x20
    path.write_bytes(data)


def written(segment):
    """Bytes of a journal segment without the zeros written ahead."""
    return len(segment.read_bytes().rstrip(b"\0"))


def footer_length(directory, path):
    with Store.open(directory, kind="command") as store:
        length = path.stat().st_size
        end = int.from_bytes(store.packs.read(int(path.stem, 16), [(length - 20, 8)])[0], "big")
    return length - end


# --- by starting ---


def test_lost_meta_comes_back_by_starting(damaged, model):
    shutil.rmtree(damaged / "meta")
    assert contents(damaged) == model


@pytest.mark.parametrize("suffix", ["ckpt", "json"])
@pytest.mark.parametrize("how", ["lost", "flipped", "truncated"])
def test_a_newest_checkpoint_that_is_gone_is_made_good_by_the_older_one(damaged, model, suffix, how):
    victim = newest(damaged, f"checkpoint/*.{suffix}")
    if how == "lost":
        victim.unlink()
    elif how == "flipped":
        flip(victim, victim.stat().st_size // 2)
    else:
        os.truncate(victim, victim.stat().st_size // 2)
    shutil.rmtree(damaged / "meta")
    assert contents(damaged) == model


def test_a_torn_journal_tail_is_cut_and_nothing_acknowledged_was_in_it(damaged, model):
    segment = newest(damaged, "journal/*.log")
    with open(segment, "ab") as file:
        file.write(b"VltJ" + os.urandom(300))
    shutil.rmtree(damaged / "meta")
    assert contents(damaged) == model


def test_both_checkpoints_lost_is_no_loss_while_lmdb_is_whole_and_a_new_one_is_due(damaged, model):
    shutil.rmtree(damaged / "checkpoint")
    with Store.open(damaged, kind="command") as store:
        assert store.kv.checkpoint_due()
        store.kv.write_checkpoint()
        assert not store.kv.checkpoint_due()
    shutil.rmtree(damaged / "meta")
    assert contents(damaged) == model


def test_a_lost_checkpoint_file_does_not_look_like_a_checkpoint(damaged):
    for path in (damaged / "checkpoint").glob("*.ckpt"):
        path.unlink()
    with Store.open(damaged, kind="command") as store:
        assert store.kv.checkpoint_due()


def test_a_moved_directory_opens(damaged, model, tmp_path):
    damaged.rename(tmp_path / "elsewhere")
    assert contents(tmp_path / "elsewhere") == model


def test_a_copy_of_what_the_readme_says_opens(damaged, model, tmp_path):
    for name in ("store.json", "secret.key"):
        (tmp_path / "copy").mkdir(exist_ok=True)
        shutil.copy(damaged / name, tmp_path / "copy" / name)
    for name in ("packs", "journal", "checkpoint"):
        shutil.copytree(damaged / name, tmp_path / "copy" / name)
    assert contents(tmp_path / "copy") == model


def test_a_copy_without_run_files_seals_the_open_packs_of_processes_it_never_had(tmp_path):
    with Subject(tmp_path / "store") as subject:
        subject.put(b"k", size=300_000)
        ignore = shutil.ignore_patterns("run", "meta")
        shutil.copytree(tmp_path / "store", tmp_path / "copy", ignore=ignore)
        model = dict(subject.model)
    with Store.open(tmp_path / "copy", kind="command") as store:
        with store.kv.snapshot() as reader:
            assert {row.state for _, row in iterate_packs(reader)} == {PackState.SEALED}
        assert not list((tmp_path / "copy" / "run").glob("lost-*"))
    assert contents(tmp_path / "copy") == model


# --- file-level copies of a running store ---


@pytest.mark.parametrize(
    "order", [("packs", "meta", "journal"), ("journal", "packs"), ("meta", "journal", "packs")]
)
def test_a_copy_taken_file_by_file_while_clients_write_never_serves_wrong_bytes(tmp_path, order):
    """Each folder is copied at another moment; the copy may be refused, or miss things and say so, never lie."""
    with Subject(tmp_path / "store") as subject:
        subject.put(b"before", size=200_000)
        versions = {b"before": {subject.model[b"before"]}}
        copy = tmp_path / "copy"
        copy.mkdir()
        shutil.copy(subject.directory / "store.json", copy)
        for n, folder in enumerate(order):
            shutil.copytree(subject.directory / folder, copy / folder)
            for key in (b"same", b"new %d" % n):
                subject.put(key, size=120_000)
                versions.setdefault(key, set()).add(subject.model[key])
    try:
        found = readable(copy)
    except (KvError, StoreError):
        return
    for key, data in found.items():
        assert data in versions[key], key


def readable(directory):
    """As `contents`, without the objects that are refused as missing or damaged."""
    from cas.errors import CasError
    from cas.manifest import Manifest
    from index.buckets import list_buckets
    from index.versions import iterate_versions
    from vaultaire.reading import read_all

    found = {}
    with Store.open(directory, kind="command") as store, store.kv.snapshot() as reader:
        for bucket in list_buckets(reader).buckets:
            for key, record in iterate_versions(reader, bucket.id):
                try:
                    found[key] = b"".join(read_all(store.chunks, Manifest.decode(record.manifest)))
                except CasError:
                    continue
    return found


# --- by `rebuild` ---


def test_rebuild_makes_meta_anew_and_says_from_what(damaged, model):
    with Store.open(damaged, kind="command") as store:
        before = collect(store)
    generation = (damaged / "meta" / "data.mdb").stat().st_ino
    report = rebuild_store(damaged)
    assert report.metadata == "rebuilt"
    assert report.checkpoint_sequence is not None
    assert report.replayed > 0
    assert (damaged / "meta" / "data.mdb").stat().st_ino != generation
    assert contents(damaged) == model
    with Store.open(damaged, kind="command") as store:
        after = collect(store)
    assert (after.objects, after.logical_bytes, after.unique_bytes, after.chunks) == (
        before.objects,
        before.logical_bytes,
        before.unique_bytes,
        before.chunks,
    )


def test_damage_inside_the_journal_is_made_good_by_a_whole_lmdb(damaged, model):
    older = min((damaged / "journal").glob("*.log"))
    flip(older, older.stat().st_size // 2)
    flip(newest(damaged, "checkpoint/*.ckpt"), 5000)
    shutil.copytree(damaged, damaged.parent / "b", ignore=shutil.ignore_patterns("meta"))
    with pytest.raises(CorruptJournal):
        contents(damaged.parent / "b")
    report = rebuild_store(damaged)
    assert report.metadata == "kept"
    assert "Nothing is lost" in report.warnings[0]
    shutil.rmtree(damaged / "meta")
    assert contents(damaged) == model


@pytest.mark.parametrize("how", ["journal gone", "newest segment gone", "newest segment short"])
def test_a_journal_that_ends_before_lmdb_is_no_loss_while_lmdb_is_whole(damaged, model, how):
    segment = newest(damaged, "journal/*.log")
    if how == "journal gone":
        shutil.rmtree(damaged / "journal")
        (damaged / "journal").mkdir()
    elif how == "newest segment gone":
        segment.unlink()
    else:
        os.truncate(segment, written(segment) // 3)
    with pytest.raises(KvError):
        Store.open(damaged, kind="command")
    report = rebuild_store(damaged)
    assert report.metadata == "kept"
    assert report.lost_changes == []
    assert contents(damaged) == model
    with Subject(damaged) as subject:
        subject.model = dict(model)
        subject.put(b"new")
        model = dict(subject.model)
    shutil.rmtree(damaged / "meta")
    assert contents(damaged) == model


def test_damage_inside_the_journal_without_lmdb_loses_what_follows_and_says_so_first(damaged, model):
    segment = newest(damaged, "journal/*.log")
    flip(segment, written(segment) // 2)
    shutil.rmtree(damaged / "meta")
    before = snapshot_of(damaged)
    with pytest.raises(ChangesLost, match="--accept-loss") as caught:
        rebuild_store(damaged)
    lost = caught.value.lost
    assert f"{lost.start} to {lost.stop - 1}" in str(caught.value)
    assert snapshot_of(damaged) == before
    report = rebuild_store(damaged, accept_loss=True)
    assert report.metadata == "cut"
    assert report.lost_changes == [lost.start, lost.stop - 1]
    found = contents(damaged)
    assert b"tree" in found
    assert b"last" not in found
    assert all(found[key] == model[key] for key in found.keys() & model.keys())
    assert list((damaged / "lost-1" / "journal").iterdir())
    with Subject(damaged) as subject:
        subject.put(b"new")
    shutil.rmtree(damaged / "meta")
    assert contents(damaged).keys() == {*found, b"new"}


def snapshot_of(directory):
    """Every file but the lock's, with its bytes."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "store.lock")
    return {path: path.read_bytes() for path in files}


def test_without_checkpoints_and_lmdb_the_loss_is_named_and_nothing_changed(damaged):
    shutil.rmtree(damaged / "checkpoint")
    shutil.rmtree(damaged / "meta")
    first = int(min((damaged / "journal").glob("*.log")).stem)
    before = snapshot_of(damaged)
    with pytest.raises(KvError, match="does not reach back"):
        Store.open(damaged, kind="command")
    with pytest.raises(NamesLost) as caught:
        rebuild_store(damaged)
    said = str(caught.value)
    assert f"changes 1 to {first - 1}" in said
    assert f"the changes {first} to" in said
    assert "vaultaire restore" in said
    assert "--forget-names" in said
    assert snapshot_of(damaged) == before


def test_forget_names_keeps_the_chunks_so_that_uploading_again_costs_no_space(damaged, model):
    for name in ("checkpoint", "meta", "journal"):
        shutil.rmtree(damaged / name)
    (damaged / "run" / "worker-00000001").touch()  # of a dead process: its packs must survive the next start
    with Store.open(damaged.parent / "plain", kind="command", create=True):
        pass
    report = rebuild_store(damaged, forget_names=True)
    assert report.metadata == "empty"
    assert report.added_chunks >= len(model)
    with Subject(damaged) as subject:
        packs = {path: path.stat().st_size for path in subject.pack_files()}
        for key, data in model.items():
            subject.put(key, data=data)
        with subject.store.kv.snapshot() as reader:
            used = {
                pack
                for pack, row in iterate_packs(reader)
                if pack >> 32 == subject.store.writer and row.kind == 1
            }
        assert not used  # not one data chunk was new
    assert all(path.stat().st_size == size for path, size in packs.items())
    assert contents(damaged) == model


def test_a_catalog_that_was_cut_off_is_gone_on_with_and_costs_no_pack_meanwhile(damaged, model):
    """What a crash leaves after the names were forgotten: an empty store, and packs without rows."""
    for name in ("checkpoint", "meta", "journal"):
        shutil.rmtree(damaged / name)
    (damaged / "run" / "worker-00000001").touch()  # of a process that died long ago
    identity = read_identity(damaged)
    rebuild._forget_names(damaged, identity, rebuild.RebuildReport("")).close()
    packs = sorted((damaged / "packs").rglob("*.pack"))
    for _ in range(2):
        Store.open(damaged, kind="command").close()
    assert sorted((damaged / "packs").rglob("*.pack")) == packs
    assert rebuild_store(damaged).added_chunks >= len(model)
    assert rebuild_store(damaged).added_chunks == 0
    with Subject(damaged) as subject:
        for key, data in model.items():
            subject.put(key, data=data)
    assert contents(damaged) == model


def test_names_that_are_not_lost_are_not_forgotten(damaged, model):
    assert rebuild_store(damaged, forget_names=True).metadata == "rebuilt"
    assert contents(damaged) == model


# --- packs ---


def largest_pack(directory):
    return max((directory / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("how", ["cut off", "flipped", "flipped trailer", "half"])
def test_a_lost_footer_is_no_loss_and_rebuild_writes_it_anew(damaged, model, how):
    pack = largest_pack(damaged)
    good = pack.read_bytes()
    length = footer_length(damaged, pack)
    if how == "flipped":
        flip(pack, len(good) - length + 40)
    elif how == "flipped trailer":
        flip(pack, len(good) - 20)
    else:
        os.truncate(pack, len(good) - (length if how == "cut off" else length // 2))
    assert contents(damaged) == model
    report = rebuild_store(damaged)
    assert list(report.mended) == [f"packs/{pack.parent.name}/{pack.name}"]
    assert report.damaged == {}
    assert pack.read_bytes() == good
    assert rebuild_store(damaged).mended == {}


def test_a_lost_footer_over_a_damaged_frame_is_not_written(damaged):
    pack = largest_pack(damaged)
    length = footer_length(damaged, pack)
    os.truncate(pack, pack.stat().st_size - length)
    flip(pack, pack.stat().st_size // 2)
    bad = pack.read_bytes()
    report = rebuild_store(damaged)
    assert "frames are whole up to here" in report.damaged[f"packs/{pack.parent.name}/{pack.name}"]
    assert pack.read_bytes() == bad


@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_a_lost_pack_is_named_and_the_rest_is_served(damaged, model, how):
    pack = largest_pack(damaged)
    pack.unlink() if how == "missing" else os.truncate(pack, 100_000)
    report = rebuild_store(damaged)
    assert list(report.damaged) == [f"packs/{pack.parent.name}/{pack.name}"]
    found = readable(damaged)
    assert found
    assert all(model[key] == data for key, data in found.items())
    lost = {f"bucket/{key.decode()}" for key in model.keys() - found.keys()}
    assert lost
    assert set(report.unreadable) == lost


# --- identity ---


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_store_json_comes_back_from_the_packs(damaged, model, how):
    before = json.loads((damaged / "store.json").read_text())
    if how == "lost":
        (damaged / "store.json").unlink()
    else:
        (damaged / "store.json").write_text("{")
    with pytest.raises(StoreError, match="identity-from-packs"):
        rebuild_store(damaged)
    report = rebuild_store(damaged, identity_from=True)
    assert report.identity == "from packs"
    assert "cut rules" in report.warnings[0]
    assert json.loads((damaged / "store.json").read_text()) == before
    assert contents(damaged) == model


def test_a_store_without_its_identity_is_not_taken_for_a_new_one_and_the_way_out_is_named(damaged):
    (damaged / "store.json").unlink()
    for create in (False, True):
        with pytest.raises(NotAStore, match="--identity-from-packs"):
            Store.open(damaged, kind="command", create=create)


def test_a_damaged_pack_header_does_not_keep_the_identity_from_coming_back(damaged):
    packs = sorted((damaged / "packs").rglob("*.pack"))
    flip(packs[0], 20)
    (damaged / "store.json").unlink()
    assert rebuild_store(damaged, identity_from=True).identity == "from packs"


def test_a_key_that_does_not_fit_the_chunks_is_not_believed(damaged):
    """All headers say the same and have a right checksum, and yet the key is not that of the chunk ids."""
    for path in (damaged / "packs").rglob("*.pack"):
        data = path.read_bytes()
        header, length = PackHeader.decode(data[:4096])
        path.write_bytes(replace(header, key=bytes(32)).encode() + data[length:])
    (damaged / "store.json").unlink()
    with pytest.raises(StoreError, match="does not fit the key"):
        rebuild_store(damaged, identity_from=True)
    assert not (damaged / "store.json").exists()


def test_packs_of_two_stores_do_not_make_an_identity(damaged, tmp_path):
    with Subject(tmp_path / "other", seed=5) as other:
        other.put(b"k")
    for path in other.pack_files():
        shutil.copy(path, damaged / "packs" / path.parent.name / f"00000099{path.name[8:]}")
        data = bytearray(path.read_bytes())
    (damaged / "store.json").unlink()
    stranger = next((damaged / "packs").rglob("00000099*"))
    stranger.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="2 stores"):
        rebuild_store(damaged, identity_from=True)


def test_a_store_without_packs_gets_its_identity_from_the_journal(tmp_path):
    with Store.open(tmp_path / "s", kind="command", create=True) as store:
        store.kv.commit(lambda txn: txn.put("srv.settings", b"mine", b"1"))
        store_id = store.identity.store_id
    (tmp_path / "s" / "store.json").unlink()
    rebuild_store(tmp_path / "s", identity_from=True)
    with Store.open(tmp_path / "s", kind="command") as store, store.kv.snapshot() as reader:
        assert store.identity.store_id == store_id
        assert reader.get("srv.settings", b"mine") == b"1"


# --- called wrongly ---


def test_a_store_in_use_is_not_rebuilt(damaged):
    with Store.open(damaged, kind="command"), pytest.raises(StoreError, match="stop the server"):
        rebuild_store(damaged)


def test_what_is_no_store_is_not_made_one(tmp_path):
    with pytest.raises(NotAStore):
        rebuild_store(tmp_path / "nothing")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.doc").write_text("all I have")
    with pytest.raises(NotAStore):
        rebuild_store(tmp_path / "thesis", identity_from=True)


def test_the_command_prints_json_and_fails_when_packs_are_lost(damaged):
    command = [sys.executable, "-m", "vaultaire", "rebuild", "--data", str(damaged), "--json"]
    good = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(good.stdout)["metadata"] == "rebuilt"
    largest_pack(damaged).unlink()
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert len(json.loads(bad.stdout)["damaged"]) == 1
    assert "bucket/tree" in json.loads(bad.stdout)["unreadable"]
    assert "vaultaire restore" in bad.stderr
