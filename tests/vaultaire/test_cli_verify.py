"""`vaultaire verify` as operators and scripts meet it: what it prints, and its exit status."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

import vaultaire.findings
from tests.vaultaire.verify_support import copy_of, fill
from vaultaire.cli import main
from vaultaire.cli.verify import summary
from vaultaire.findings import Affected, Finding, Findings, Report
from vaultaire.reports import get_report
from vaultaire.store import Store


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("filled") / "store"
    return directory, fill(directory)


@pytest.fixture
def damaged(filled, tmp_path):
    directory, versions = filled
    return copy_of(directory, tmp_path / "store", versions)


def run(directory, *arguments: str, status: int):
    result = CliRunner().invoke(main, ["verify", "--data", str(directory), *arguments])
    assert result.exit_code == status, result.output
    return result


def test_a_whole_store_is_said_to_be_so_with_status_0(damaged):
    result = run(damaged.directory, status=0)
    assert result.stdout.splitlines()[-1] == "no damage found"
    assert result.stderr == ""
    document = json.loads(run(damaged.directory, "--json", "--read-data", status=0).stdout)
    assert document["clean"] is True
    assert document["read_data"] is True
    assert document["checked"]["packs"] == 6
    with Store.open(damaged.directory, kind="command") as store, store.kv.snapshot() as reader:
        assert get_report(reader, "verify")["findings"] == 0


def test_damage_is_named_with_what_it_costs_and_what_to_do_and_status_1(damaged):
    pack, frame, _ = damaged.where("plain", b"noise")
    damaged.flip(pack, frame.offset + frame.header.header_length)
    lines = run(damaged.directory, status=1).stdout.splitlines()
    assert (
        f"  frame-payload: pack {pack:016x}, frame at {frame.offset}: the payload's checksum does not match"
        in lines
    )
    assert "    affects plain/copy, plain/noise" in lines
    assert "2 versions are affected:" in lines
    assert any("vaultaire repair --data" in line or "-m vaultaire repair --data" in line for line in lines)
    assert json.loads(run(damaged.directory, "--json", status=1).stdout)["clean"] is False


def test_one_bucket_may_be_asked_for(damaged):
    pack, _, _ = damaged.where("versioned", b"doc")
    damaged.path(pack).unlink()
    assert "bucket plain" in run(damaged.directory, "--bucket", "plain", "--read-data", status=0).stdout
    run(damaged.directory, "--bucket", "versioned", "--read-data", status=1)


def test_a_wrong_call_has_status_2(damaged, tmp_path):
    assert "vaultaire stats" in run(damaged.directory, "--bucket", "nothing", status=2).stderr
    run(damaged.directory, "--no-such-option", status=2)
    assert "is not a Vaultaire store" in run(tmp_path / "none", status=2).stderr


def test_what_could_not_be_checked_is_no_success(damaged, monkeypatch):
    from index import verify_engine

    monkeypatch.setattr(verify_engine, "ROOM_BYTES", 1 << 60)
    lines = run(damaged.directory, status=1).stdout.splitlines()
    assert any("not checked" in line and "of free space" in line for line in lines)
    assert lines[-1] == "no damage found in what was checked"


@pytest.mark.parametrize(
    ("kind", "step"),
    [("row-missing", "remove the folder meta"), ("journal", "from a backup"), ("pack-missing", "repair")],
)
def test_each_kind_of_damage_has_its_next_step(kind, step):
    report = Report(read_data=False, findings=[Finding(kind, "it")])
    assert any(step in text for text, _ in summary(report, "vaultaire repair"))


def test_meta_is_not_to_be_removed_while_the_journal_is_damaged():
    report = Report(read_data=False, findings=[Finding("row-missing", "it"), Finding("journal", "it")])
    assert not any("remove the folder meta" in text for text, _ in summary(report, "vaultaire repair"))


def test_reports_stay_within_their_bounds(monkeypatch):
    monkeypatch.setattr(vaultaire.findings, "MAX_FINDINGS", 200)
    monkeypatch.setattr(vaultaire.findings, "MAX_AFFECTED", 300)
    findings = Findings(Report(read_data=False))
    one = findings.add(Finding("chunk-missing", "the first"))
    for n in range(205):
        findings.add(Finding("chunk-missing", str(n)))
    assert len(findings.report.findings) == 200
    assert findings.report.more_findings == 6
    for n in range(303):
        findings.blame(one, Affected("b", b"%d" % n))
        findings.blame(one, Affected("b", b"%d" % n))
    assert len(one.affected) == 300
    assert one.more_affected == 3
    lines = summary(findings.report, "vaultaire repair")
    assert len(lines) < 250
    assert any("--json" in text for text, _ in lines)


def test_keys_are_shown_whatever_their_bytes():
    assert str(Affected("b", b"a\xff\xc3\xbc")) == "b/a\\xffü"
    assert str(Affected("b", b"k", "ab" * 16)) == f"b/k (version {'ab' * 16})"
    assert Affected("b", b"k", "null", "cd", 3).to_json() == {
        "bucket": "b",
        "key": "k",
        "upload": "cd",
        "part": 3,
    }


def test_a_store_in_another_place_is_verified_there(damaged, tmp_path):
    moved = tmp_path / "moved store"
    shutil.move(damaged.directory, moved)
    run(moved, status=0)
