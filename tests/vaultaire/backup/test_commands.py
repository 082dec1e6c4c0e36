"""`vaultaire backup` and `restore` as scripts meet them: what they print, how they fail, what they leave alone."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tests.vaultaire.backup.support import Subject, contents
from vaultaire.cli import main


@pytest.fixture
def data(tmp_path):
    with Subject(tmp_path / "data") as subject:
        subject.make_root_key()
        subject.put(b"k")
    return tmp_path / "data"


def vaultaire(*arguments, status=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_backup_list_check_and_restore_in_json(data, tmp_path):
    place = tmp_path / "backups"
    taken = json.loads(vaultaire("backup", place, "--data", data, "--json").stdout)
    assert taken["number"] == 1
    listed = json.loads(vaultaire("backup", place, "--list", "--json").stdout)
    assert [backup["sequence"] for backup in listed["backups"]] == [taken["sequence"]]
    checked = json.loads(vaultaire("backup", place, "--check", "--json").stdout)
    assert checked["is_whole"]
    restored = json.loads(vaultaire("restore", place, "--data", tmp_path / "new", "--json").stdout)
    assert restored["sequence"] == taken["sequence"]
    assert contents(tmp_path / "new") == contents(data)


def test_what_people_read_says_where_the_secrets_are_and_how_to_go_on(data, tmp_path):
    place = tmp_path / "backups"
    assert "whoever can read it" in vaultaire("backup", place, "--data", data).stdout
    assert "serve --data" in vaultaire("restore", place, "--data", tmp_path / "one").stdout
    assert (
        "does not hold secret.key" in vaultaire("backup", place, "--data", data, "--without-secrets").stdout
    )
    assert "--new-secret-key" in vaultaire("restore", place, "--data", tmp_path / "two").stdout
    listed = vaultaire("backup", place, "--list").stdout.splitlines()
    assert [line.split()[-2:] for line in listed[1:]] == [["yes", "whole"], ["no", "whole"]]
    assert "backup 2: whole" in vaultaire("backup", place, "--check", "--backup", 2).stdout


def test_damage_ends_with_status_1_and_names_the_files(data, tmp_path):
    place = tmp_path / "backups"
    packs = sorted((data / "packs").rglob("*.pack"))
    packs[0].unlink()
    done = vaultaire("backup", place, "--data", data, status=1)
    assert f"packs/{packs[0].parent.name}/{packs[0].name} (the file is missing)" in done.stderr
    done = vaultaire("restore", place, "--data", tmp_path / "new", status=1)
    assert packs[0].name in done.stderr
    assert "vaultaire verify" in done.stderr.replace("-m ", "")
    checked = vaultaire("backup", place, "--check")  # the backup itself is as it should be
    assert "in the store itself" in checked.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["backup"], 2, "DIR|s3://BUCKET/PREFIX"),
        (["backup", "{tmp}/b", "--keep", "0"], 2, "--keep"),
        (["backup", "{tmp}/b", "--check", "--full"], 2, "take no backup"),
        (["backup", "{tmp}/b", "--check", "--list"], 2, "choose one"),
        (["backup", "{tmp}/b", "--backup", "1"], 2, "--check"),
        (["backup", "gs://bucket/x"], 2, "neither a folder nor s3://"),
        (["backup", "s3://"], 2, "s3://my-bucket/vaultaire"),
        (["backup", "{tmp}/data/backups"], 2, "lies in the store itself"),
        (["backup", "{tmp}/b", "--data", "{tmp}/nothing"], 2, "not a Vaultaire store"),
        (["backup", "{tmp}/nowhere", "--check"], 1, "no folder"),
        (["backup", "{tmp}/data", "--list"], 1, "no backups"),
        (["restore", "{tmp}/nowhere", "--data", "{tmp}/new"], 1, "no folder"),
        (["restore", "{tmp}/empty", "--data", "{tmp}/new"], 1, "no backups"),
    ],
)
def test_a_wrong_call_says_what_would_be_right_and_makes_nothing(data, tmp_path, arguments, status, said):
    (tmp_path / "empty").mkdir()
    words = [word.format(tmp=tmp_path) for word in arguments]
    if "--data" not in words:
        words += ["--data", str(data)] if words != ["backup"] else []
    done = vaultaire(*words, status=status)
    assert said in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "empty"]


def test_a_store_is_never_restored_over(data, tmp_path):
    vaultaire("backup", tmp_path / "backups", "--data", data)
    before = contents(data)
    assert "store already" in vaultaire("restore", tmp_path / "backups", "--data", data, status=1).stderr
    assert contents(data) == before
