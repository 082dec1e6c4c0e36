"""Backups of a store: one point in time, only what is new, whole or not there, and what the operator is told."""

from __future__ import annotations

import os
import shutil

import pytest

from cas.catalog import condemn, forget_pack, iterate_packs
from index.kv import StorePoisoned
from tests.vaultaire.backup.support import Dying, Killed, Subject, Watched, contents, flipped, full_disk
from vaultaire.backup.checking import check_backups, describe_backups
from vaultaire.backup.destination import backup_numbers, memory_key, read_destination
from vaultaire.backup.folder import FolderPlace
from vaultaire.backup.place import BackupError, DestinationFull
from vaultaire.backup.restoring import restore_backup
from vaultaire.backup.taking import take_backup


@pytest.fixture
def subject(tmp_path):
    with Subject(tmp_path / "store") as made:
        yield made


@pytest.fixture
def place(tmp_path):
    return Watched(tmp_path / "backups")


def restored(place, directory, number=None):
    """What the restored store holds."""
    restore_backup(place, directory, number)
    return contents(directory)


def is_whole(place):
    return check_backups(place).is_whole


# --- one point in time ---


def test_a_backup_is_the_store_as_it_was_and_later_changes_are_not_in_it(subject, place, tmp_path):
    for n in range(5):
        subject.put(b"object %d" % n)
    model = dict(subject.model)
    take_backup(subject.store, place)
    subject.put(b"later")
    subject.delete(b"object 0")
    assert restored(place, tmp_path / "new") == model


def test_what_is_written_while_the_backup_runs_leaves_nothing_dangling(subject, place, tmp_path):
    subject.put(b"before")
    model = dict(subject.model)
    place.on_put = lambda name: subject.put(b"while it runs %d" % len(subject.model))
    take_backup(subject.store, place)
    found = restored(place, tmp_path / "new")
    assert {key: found[key] for key in model} == model
    assert all(subject.model[key] == data for key, data in found.items())


def test_a_pack_collected_while_the_backup_runs_makes_it_take_a_later_moment(subject, place, tmp_path):
    subject.put(b"garbage")
    subject.delete(b"garbage")
    subject.reopen()  # seals the packs
    subject.put(b"kept")
    with subject.store.kv.snapshot() as reader:
        victim = next(pack for pack, row in iterate_packs(reader) if row.state == 2)

    def collect(_):
        place.on_put = lambda _: None
        with subject.store.kv.snapshot() as reader:
            chunks = [
                key for key, row in reader.scan("cas.placements") if row[1:9] == victim.to_bytes(8, "big")
            ]

        def drop(txn):
            condemn(txn, [victim])
            for chunk in chunks:
                txn.delete("cas.placements", chunk)
            forget_pack(txn, victim)

        subject.store.kv.commit(drop)
        subject.store.packs.remove(victim)

    place.on_put = collect
    report = take_backup(subject.store, place)
    assert report.damaged == {}
    assert restored(place, tmp_path / "new") == subject.model


def test_collection_has_to_wait_while_a_backup_runs(subject, place):
    subject.put(b"k")
    seen = []
    place.on_put = lambda _: seen.append(subject.store.run_file.running)
    take_backup(subject.store, place)
    assert min(seen) == 1
    assert subject.store.run_file.running == 0


def test_a_checkpoint_does_not_cut_the_journal_that_is_being_copied(subject, place, tmp_path):
    subject.put(b"k")
    results = []
    place.on_put = lambda _: results.append(subject.store.kv.write_checkpoint())
    take_backup(subject.store, place)
    assert results[0] is None
    assert restored(place, tmp_path / "new") == subject.model


# --- only what is new ---


def test_the_second_backup_copies_only_what_is_new(subject, place, tmp_path):
    subject.put(b"large", size=3_000_000)
    take_backup(subject.store, place)
    place.put_bytes = 0
    nothing = take_backup(subject.store, place)
    assert place.put_bytes < 10_000
    assert nothing.read_bytes < 10_000
    subject.put(b"small", size=50_000)
    place.put_bytes = 0
    take_backup(subject.store, place)
    assert 50_000 < place.put_bytes < 70_000
    assert restored(place, tmp_path / "new") == subject.model


@pytest.mark.parametrize("reopened", [False, True], ids=["open packs", "sealed packs"])
def test_a_pack_that_has_grown_is_not_copied_again(subject, place, tmp_path, reopened):
    subject.put(b"one", size=2_000_000)
    take_backup(subject.store, place)
    subject.put(b"two", size=200_000)
    if reopened:
        subject.reopen()
    report = take_backup(subject.store, place)
    assert 200_000 < report.new_bytes < 250_000
    assert restored(place, tmp_path / "new") == subject.model


def test_across_a_checkpoint_the_journal_goes_on_where_the_last_backup_ended(subject, place, tmp_path):
    for n in range(300):
        subject.put(b"object %d" % n, data=b"x" * 20_000)
    take_backup(subject.store, place)
    subject.store.kv.write_checkpoint()
    subject.put(b"after", size=10_000)
    report = take_backup(subject.store, place)
    assert report.new_bytes < 40_000  # no copy of the checkpoint
    assert restored(place, tmp_path / "new") == subject.model


def test_once_the_journal_was_cut_the_checkpoint_is_copied(subject, place, tmp_path):
    subject.put(b"one")
    take_backup(subject.store, place)
    for n in range(3):
        subject.put(b"more %d" % n, size=10_000)
        subject.store.kv.write_checkpoint()
    subject.put(b"after")
    take_backup(subject.store, place)
    directory = tmp_path / "new"
    assert restored(place, directory) == subject.model
    assert list((directory / "checkpoint").glob("*.ckpt"))


def test_keep_removes_older_backups_and_all_that_only_they_needed(subject, place, tmp_path):
    subject.put(b"old", size=1_000_000)
    take_backup(subject.store, place)
    subject.delete(b"old")
    subject.reopen()
    for n in range(3):
        subject.put(b"new %d" % n)
        take_backup(subject.store, place)
    report = take_backup(subject.store, place, keep=2)
    assert report.removed == [1, 2, 3]
    assert backup_numbers(place) == [4, 5]
    needed = {piece.name for backup in (4, 5) for piece in manifest(place, backup).pieces()}
    assert {name for name, _ in place.items("pieces")} == needed
    assert is_whole(place)
    assert restored(place, tmp_path / "new", 4) == subject.model


def manifest(place, number):
    from vaultaire.backup.destination import read_manifest

    return read_manifest(place, number)[0]


def test_several_points_in_time_are_kept_and_each_can_be_restored(subject, place, tmp_path):
    models = {}
    for n in range(1, 5):
        subject.put(b"object %d" % n)
        if n == 3:
            subject.delete(b"object 1")
        take_backup(subject.store, place)
        models[n] = dict(subject.model)
    for n, model in models.items():
        assert restored(place, tmp_path / f"new{n}", n) == model


def test_a_store_that_went_another_way_trusts_only_its_own_past(subject, place, tmp_path):
    """Two histories of one store use the same numbers for different packs, segments and sequences."""
    subject.put(b"common", size=200_000)
    take_backup(subject.store, place)
    subject.reopen()
    subject.put(b"first way", size=300_000)
    take_backup(subject.store, place)
    first = dict(subject.model)
    restore_backup(place, tmp_path / "other", 1)
    with Subject(tmp_path / "other", seed=2) as other:
        other.model = {b"common": first[b"common"]}
        other.put(b"second way", size=300_000)
        report = take_backup(other.store, place)
        assert report.number == 3
        assert report.base == 1
        assert 300_000 < report.new_bytes < 350_000
        second = dict(other.model)
    subject.put(b"first way goes on", size=10_000)
    report = take_backup(subject.store, place)
    assert report.base == 2
    assert report.new_bytes < 20_000
    assert restored(place, tmp_path / "r2", 2) == first
    assert restored(place, tmp_path / "r3", 3) == second
    assert restored(place, tmp_path / "r4", 4) == subject.model


# --- whole or not there ---


def test_killed_at_any_step_there_is_no_half_backup_and_the_next_one_is_whole(subject, place, tmp_path):
    subject.put(b"first")
    take_backup(subject.store, place)
    step = 0
    while True:
        step += 1
        subject.put(b"object", size=5_000)
        dying = Dying(fatal=step)
        before = describe_backups(place).backups
        try:
            take_backup(subject.store, FolderPlace(tmp_path / "backups", create=True, files=dying), keep=3)
        except Killed:
            assert is_whole(place)
            assert len(backup_numbers(place)) >= min(len(before), 3)
        else:
            break
    assert step > 10
    take_backup(subject.store, place)
    assert is_whole(place)
    assert restored(place, tmp_path / "new") == subject.model


def test_on_a_full_destination_the_error_is_clear_and_the_old_backups_stay(subject, place, tmp_path):
    subject.put(b"first")
    take_backup(subject.store, place)
    model = dict(subject.model)
    for step in range(1, 30):
        subject.put(b"object %d" % step, size=5_000)
        full = full_disk(step)
        try:
            take_backup(subject.store, FolderPlace(tmp_path / "backups", create=True, files=full))
        except DestinationFull as error:
            assert "make room" in str(error)  # noqa: PT017
            assert is_whole(place)
        else:
            break
    assert step > 5
    assert restored(place, tmp_path / "old", 1) == model
    assert restored(place, tmp_path / "new") == subject.model
    assert not list((tmp_path / "backups" / "tmp").iterdir())


def test_a_run_that_was_killed_is_gone_on_with(subject, place, tmp_path):
    subject.put(b"a", size=2_000_000)
    subject.reopen()
    subject.put(b"b", size=2_000_000)

    def die(name):
        if place.put_bytes > 2_000_000:
            raise Killed

    place.on_put = die
    with pytest.raises(Killed):
        take_backup(subject.store, place)
    assert backup_numbers(place) == []
    place.on_put, place.put_bytes = lambda _: None, 0
    take_backup(subject.store, place)
    assert place.put_bytes < 2_500_000
    assert restored(place, tmp_path / "new") == subject.model


def test_a_piece_damaged_at_the_destination_is_mended_by_full(subject, place, tmp_path):
    subject.put(b"k")
    take_backup(subject.store, place)
    victim = max((tmp_path / "backups" / "pieces").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[100] ^= 1
    victim.write_bytes(data)
    assert not is_whole(place)
    take_backup(subject.store, place)
    assert not is_whole(place)  # trusted: nothing is read twice
    take_backup(subject.store, place, full=True)
    assert is_whole(place)


def test_pieces_that_are_gone_at_the_destination_are_copied_again(subject, place, tmp_path):
    subject.put(b"k")
    subject.store.kv.write_checkpoint()
    subject.reopen()
    take_backup(subject.store, place)
    pieces = sorted(p for p in (tmp_path / "backups" / "pieces").rglob("*") if p.is_file())
    for n, piece in enumerate(pieces):
        piece.write_bytes(b"short") if n % 2 else piece.unlink()
        take_backup(subject.store, Watched(tmp_path / "backups"))
        assert check_backups(place, n + 2).is_whole
    assert restored(place, tmp_path / "new") == subject.model


# --- a store that is not sound ---


def test_a_damaged_pack_is_told_and_copied_and_older_backups_stay(subject, place, tmp_path):
    subject.put(b"k", size=300_000)
    take_backup(subject.store, place)
    subject.put(b"l", size=300_000)
    subject.reopen()
    pack = max(subject.pack_files(), key=lambda path: path.stat().st_size)
    size = pack.stat().st_size
    with flipped(pack, size - 150_000):
        report = take_backup(subject.store, place, keep=1)
        path = f"packs/{pack.parent.name}/{pack.name}"
        assert list(report.damaged) == [path]
        assert "damaged at offset" in report.damaged[path]
        assert backup_numbers(place) == [1, 2]
    mended = take_backup(subject.store, place, keep=1)  # it is copied anew once the store has it whole
    assert mended.damaged == {}
    assert restored(place, tmp_path / "new") == subject.model


def test_what_was_damaged_after_it_was_copied_stays_whole_in_the_backups(subject, place, tmp_path):
    subject.put(b"k")
    subject.reopen()
    take_backup(subject.store, place)
    for pack in subject.pack_files():
        pack.unlink()
    assert take_backup(subject.store, place).damaged == {}
    assert restored(place, tmp_path / "new") == subject.model


@pytest.mark.parametrize("what", ["missing", "short"])
def test_a_lost_pack_is_named(subject, place, what):
    subject.put(b"k", size=300_000)
    subject.reopen()
    pack = max(subject.pack_files(), key=lambda path: path.stat().st_size)
    if what == "missing":
        pack.unlink()
    else:
        os.truncate(pack, 1000)
    report = take_backup(subject.store, place)
    assert list(report.damaged) == [f"packs/{pack.parent.name}/{pack.name}"]
    assert what in report.damaged.popitem()[1] or what == "short"


@pytest.mark.parametrize("victim", ["journal", "checkpoint"])
def test_a_damaged_journal_or_checkpoint_is_replaced_by_a_new_checkpoint(subject, place, tmp_path, victim):
    subject.put(b"one")
    subject.store.kv.write_checkpoint()
    subject.put(b"two")
    files = sorted((subject.directory / victim).glob("*.ckpt" if victim == "checkpoint" else "*.log"))
    path = files[0] if victim == "checkpoint" else files[-1]
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    report = take_backup(subject.store, place)
    assert "a new checkpoint was written" in report.warnings[0]
    assert restored(place, tmp_path / "new") == subject.model


def test_a_poisoned_store_is_still_backed_up(subject, place, tmp_path):
    subject.put(b"k")
    subject.store.kv.poison("a test")
    with pytest.raises(StorePoisoned):
        subject.store.kv.commit(lambda txn: txn.put("srv.settings", b"x", b"y"))
    report = take_backup(subject.store, place)
    assert "could not note it" in report.warnings[-1]
    assert restored(place, tmp_path / "new") == subject.model


# --- secrets ---


def test_the_secret_key_is_in_the_backup_with_its_mode(subject, place, tmp_path):
    subject.make_root_key()
    assert take_backup(subject.store, place).has_secrets
    restore_backup(place, tmp_path / "new")
    secret = tmp_path / "new" / "secret.key"
    assert secret.read_bytes() == (subject.directory / "secret.key").read_bytes()
    assert secret.stat().st_mode & 0o777 == 0o600
    for path in (tmp_path / "backups").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_without_secrets_it_is_nowhere_in_the_backup(subject, place, tmp_path):
    subject.make_root_key()
    assert not take_backup(subject.store, place, with_secrets=False).has_secrets
    secret = (subject.directory / "secret.key").read_bytes().strip()
    files = [path for path in (tmp_path / "backups").rglob("*") if path.is_file()]
    assert files
    assert not any(secret in path.read_bytes() for path in files)
    restore_backup(place, tmp_path / "new")
    assert not (tmp_path / "new" / "secret.key").exists()


# --- called wrongly ---


def test_a_folder_with_something_else_is_refused(subject, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.doc").write_text("all I have")
    with pytest.raises(BackupError, match=r"chapter\.doc"):
        FolderPlace(tmp_path / "thesis", create=True)


def test_backups_of_another_store_are_refused(subject, place, tmp_path):
    take_backup(subject.store, place)
    with Subject(tmp_path / "other") as other, pytest.raises(BackupError, match="another store"):
        take_backup(other.store, place)


def test_two_backups_of_one_store_at_a_time_are_refused(subject, place, tmp_path):
    def second(_):
        with pytest.raises(BackupError, match="under way"):
            take_backup(subject.store, Watched(tmp_path / "elsewhere"))

    place.on_put = second
    take_backup(subject.store, place)


def test_two_stores_at_one_folder_at_a_time_are_refused(subject, place, tmp_path):
    shutil.copytree(subject.directory, tmp_path / "twin", ignore=shutil.ignore_patterns("run", "meta"))

    with Subject(tmp_path / "twin") as twin:

        def second(_):
            with pytest.raises(BackupError, match="another process"):
                take_backup(twin.store, FolderPlace(tmp_path / "backups", create=True))

        place.on_put = second
        take_backup(subject.store, place)


def test_everything_is_durable_before_the_manifest_appears_and_before_anything_is_removed(subject, tmp_path):
    """The order that a power cut needs: whatever a folder's entry leads to was synced, then the entry."""

    class Ordered(Dying):
        def __init__(self):
            super().__init__()
            self.unsynced = set()
            self.checked = 0

        def rename(self, source, target):
            if target.parent == tmp_path / "backups" / "backups":
                assert self.unsynced == set()
                self.checked += 1
            super().rename(source, target)
            self.unsynced.add(target.parent)

        def sync_directory(self, path):
            super().sync_directory(path)
            self.unsynced.discard(path)

        def unlink(self, path):
            assert self.unsynced <= {tmp_path / "backups" / "backups"} if "pieces" in str(path) else True
            super().unlink(path)

    files = Ordered()
    for _ in range(3):
        subject.put(b"k")
        take_backup(subject.store, FolderPlace(tmp_path / "backups", create=True, files=files), keep=1)
        assert files.unsynced == set()
    assert files.checked == 3


def test_a_full_destination_during_the_checkpoint_is_not_taken_for_a_damaged_checkpoint(subject, tmp_path):
    subject.put(b"k")
    subject.store.kv.write_checkpoint()
    before = sorted((subject.directory / "checkpoint").iterdir())
    for step in range(1, 12):
        full = full_disk(step)
        with pytest.raises(DestinationFull):
            take_backup(subject.store, FolderPlace(tmp_path / f"b{step}", create=True, files=full))
    assert sorted((subject.directory / "checkpoint").iterdir()) == before


@pytest.mark.parametrize("row", [b"{", b"\xff", b"[]", b"{}", b'{"number": "1", "checksum": "0"}'])
def test_a_damaged_memory_of_the_last_backup_costs_reading_everything_again_and_is_said(
    subject, place, tmp_path, row
):
    subject.put(b"k")
    take_backup(subject.store, place)
    destination = read_destination(place)
    subject.store.kv.commit(lambda txn: txn.put("srv.settings", memory_key(destination), row))
    report = take_backup(subject.store, place)
    assert report.base is None
    assert any("everything is read again" in warning for warning in report.warnings)
    assert restored(place, tmp_path / "new") == subject.model
