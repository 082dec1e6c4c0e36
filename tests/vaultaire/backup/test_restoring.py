"""Restores and checks: every byte verified first, no store before all is there, and damage named."""

from __future__ import annotations

import json
import shutil

import pytest

from cas.catalog import PackState, iterate_packs
from tests.vaultaire.backup.support import Subject, Watched, contents, flipped
from vaultaire.backup.checking import check_backups
from vaultaire.backup.place import BackupError
from vaultaire.backup.restoring import restore_backup
from vaultaire.backup.taking import take_backup
from vaultaire.cli.backup import open_place
from vaultaire.errors import NotAStore, StoreError
from vaultaire.rebuild import rebuild_store
from vaultaire.store import Store


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with three backups of one store, and what each held."""
    root = tmp_path_factory.mktemp("original")
    place = Watched(root / "backups")
    models = {}
    with Subject(root / "store") as subject:
        subject.make_root_key()
        for n in range(1, 4):
            subject.put(b"object %d" % n, size=150_000)
            subject.put(b"tree %d" % n, data=bytes(range(256)) * 8000)
            if n == 2:
                subject.store.kv.write_checkpoint()
            take_backup(subject.store, place)
            models[n] = dict(subject.model)
            subject.reopen()
    return root, models


@pytest.fixture
def backups(original, tmp_path):
    """A copy of the folder, to be damaged."""
    return shutil.copytree(original[0] / "backups", tmp_path / "backups")


def is_no_store(directory):
    with pytest.raises(NotAStore):
        Store.open(directory, kind="command")
    return True


def test_the_newest_is_restored_unless_another_is_asked_for(original, backups, tmp_path):
    assert restore_backup(Watched(backups), tmp_path / "newest").number == 3
    assert contents(tmp_path / "newest") == original[1][3]
    assert restore_backup(Watched(backups), tmp_path / "first", 1).number == 1
    assert contents(tmp_path / "first") == original[1][1]


def test_a_restored_store_goes_on_as_any_other(original, backups, tmp_path):
    restore_backup(Watched(backups), tmp_path / "new", 2)
    with Subject(tmp_path / "new", seed=9) as subject:
        subject.model = dict(original[1][2])
        subject.put(b"new", size=200_000)
        subject.reopen()
        subject.delete(b"object 1")
        subject.store.kv.write_checkpoint()
        model = dict(subject.model)
    shutil.rmtree(tmp_path / "new" / "meta")
    assert contents(tmp_path / "new") == model


def test_packs_that_were_open_when_they_were_copied_are_sealed_at_the_first_start(
    original, backups, tmp_path
):
    restore_backup(Watched(backups), tmp_path / "new")
    with Store.open(tmp_path / "new", kind="command") as store, store.kv.snapshot() as reader:
        states = {row.state for pack, row in iterate_packs(reader) if pack >> 32 != store.writer}
    assert states == {PackState.SEALED}


def test_every_flipped_byte_is_found_by_check_and_stops_the_restore(original, backups, tmp_path):
    """One byte of each file of the folder, whatever it holds."""
    files = sorted(path for path in backups.rglob("*") if path.is_file())
    assert len(files) > 8
    for n, path in enumerate(files):
        for offset in {0, path.stat().st_size // 2, path.stat().st_size - 2}:
            with flipped(path, offset):
                place = Watched(backups)
                name = path.relative_to(backups).as_posix()
                if name == "vaultaire-backup.json":
                    with pytest.raises(BackupError, match="damaged"):
                        check_backups(place)
                else:
                    report = check_backups(place)
                    assert not report.is_whole
                    assert name in str(report) or path.name in str(report)
                if "00000001" in name or "00000002" in name or not needed_by_newest(original, name):
                    continue
                directory = tmp_path / f"new{n}"
                with pytest.raises(BackupError, match="damaged"):
                    restore_backup(place, directory)
                if directory.exists():
                    assert is_no_store(directory)
                    shutil.rmtree(directory)


def needed_by_newest(original, name):
    newest = (original[0] / "backups" / "backups" / "00000003.json").read_text()
    return not name.startswith("pieces/") or name[-64:] in newest


def test_every_missing_piece_is_found_by_check_and_stops_the_restore(original, backups, tmp_path):
    for n, path in enumerate(sorted(p for p in (backups / "pieces").rglob("*") if p.is_file())):
        moved = path.rename(tmp_path / "aside")
        place = Watched(backups)
        assert not check_backups(place).is_whole
        if needed_by_newest(original, path.name):
            with pytest.raises(BackupError, match="missing"):
                restore_backup(place, tmp_path / f"new{n}")
            assert is_no_store(tmp_path / f"new{n}")
        moved.rename(path)


def test_a_truncated_manifest_is_no_backup(backups, tmp_path):
    path = backups / "backups" / "00000003.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BackupError, match=r"--backup \(1, 2\)"):
        restore_backup(Watched(backups), tmp_path / "new")
    report = check_backups(Watched(backups))
    assert [backup.is_whole for backup in report.backups] == [True, True, False]


def test_a_manifest_cannot_write_outside_of_the_directory(backups, tmp_path):
    from vaultaire.backup.manifest import _sign

    path = backups / "backups" / "00000003.json"
    content = json.loads(path.read_bytes())
    content.pop("checksum")
    for evil in ("../evil", "/tmp/evil", "packs/../../evil", "meta/data.mdb", "run/poisoned", "store.json\n"):
        altered = {**content, "files": [*content["files"], [evil]]}
        path.write_bytes(_sign(altered))
        with pytest.raises(BackupError, match="no file of a store"):
            restore_backup(Watched(backups), tmp_path / "new")


def test_a_restore_that_was_cut_off_is_gone_on_with(original, backups, tmp_path):
    calls = 0
    copied = []
    for fail in range(1, 40):
        place = Watched(backups)
        place.fail_get = fail
        directory = tmp_path / "new"
        try:
            report = restore_backup(place, directory)
        except BackupError:
            calls += 1
            assert not (directory / "store.json").exists()
        else:
            copied.append(report.copied_bytes)
            break
    assert calls > 8
    assert copied[0] < report.total_bytes / 2  # most was there
    assert contents(tmp_path / "new") == original[1][3]
    assert not (tmp_path / "new" / "restore-unfinished").exists()


def test_an_unfinished_restore_is_neither_served_nor_rebuilt(backups, tmp_path):
    place = Watched(backups)
    place.fail_get = 12
    with pytest.raises(BackupError):
        restore_backup(place, tmp_path / "new")
    for create in (False, True):
        with pytest.raises(NotAStore, match="vaultaire restore"):
            Store.open(tmp_path / "new", kind="command", create=create)
    with pytest.raises(NotAStore, match="vaultaire restore"):
        rebuild_store(tmp_path / "new", identity_from=True)


def test_a_restore_that_was_cut_off_verifies_what_is_there(original, backups, tmp_path):
    place = Watched(backups)
    place.fail_get = 12
    with pytest.raises(BackupError):
        restore_backup(place, tmp_path / "new")
    for path in (tmp_path / "new" / "packs").rglob("*.pack"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    restore_backup(Watched(backups), tmp_path / "new")
    assert contents(tmp_path / "new") == original[1][3]


def test_an_unfinished_restore_can_be_finished_with_another_backup(original, backups, tmp_path):
    place = Watched(backups)
    place.fail_get = 12
    with pytest.raises(BackupError):
        restore_backup(place, tmp_path / "new", 3)
    left = {path.name for path in (tmp_path / "new" / "packs").rglob("*.pack")}
    restore_backup(Watched(backups), tmp_path / "new", 1)
    assert contents(tmp_path / "new") == original[1][1]
    assert left - {path.name for path in (tmp_path / "new" / "packs").rglob("*.pack")}


def test_with_damage_all_but_the_damaged_packs_comes_back(original, backups, tmp_path):
    largest = max((p for p in (backups / "pieces").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.unlink()
    report = restore_backup(Watched(backups), tmp_path / "new", with_damage=True)
    assert len(report.missing) == 1
    assert next(iter(report.missing)).startswith("packs/")
    with Store.open(tmp_path / "new", kind="command") as store, store.kv.snapshot() as reader:
        assert sum(1 for _ in iterate_packs(reader)) > 1


@pytest.mark.parametrize("held", ["a store", "a file", "a file and a marker's name"])
def test_a_directory_that_holds_something_is_not_touched(backups, tmp_path, held):
    directory = tmp_path / "new"
    directory.mkdir()
    (directory / "thesis.doc").write_text("all I have")
    if held == "a store":
        (directory / "store.json").write_text("{}")
    before = sorted(directory.iterdir())
    with pytest.raises(StoreError, match="store already" if held == "a store" else "not empty"):
        restore_backup(Watched(backups), directory)
    assert sorted(directory.iterdir()) == before


def test_calls_for_what_is_not_there_say_what_is(backups, tmp_path):
    with pytest.raises(BackupError, match="there are 1, 2, 3"):
        restore_backup(Watched(backups), tmp_path / "new", 7)
    with pytest.raises(BackupError, match="no backup 7"):
        check_backups(Watched(backups), 7)
    with pytest.raises(BackupError, match="no folder"):
        open_place(str(tmp_path / "nowhere"), create=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackupError, match="no backups"):
        check_backups(open_place(str(tmp_path / "empty"), create=False))
    with pytest.raises(BackupError, match="no backups"):
        restore_backup(open_place(str(tmp_path / "empty"), create=False), tmp_path / "new")
    assert not (tmp_path / "new").exists()
