"""doctor: each fact is judged as it should be, and a sound store on this machine is told so."""

from __future__ import annotations

import json
import random
import stat

import pytest
from click.testing import CliRunner

from tests.vaultaire.verify_support import fill
from vaultaire import doctor
from vaultaire.cli import main
from vaultaire.doctor import GIB
from vaultaire.store import Store

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR


@pytest.mark.parametrize(
    ("finding", "level", "says"),
    [
        (doctor.judge_file_system("ext4"), "fine", "ext4"),
        (doctor.judge_file_system(None), "fine", "unknown"),
        (doctor.judge_file_system("nfs4"), "problem", "local disk"),
        (doctor.judge_file_system("tmpfs"), "warning", "restarts"),
        (doctor.judge_file_system("overlay"), "warning", "volume"),
        (doctor.judge_space(100 * GIB, 200 * GIB, 10**6, 10**7), "fine", "100.0 GiB of 200.0"),
        (doctor.judge_space(100 * GIB, 200 * GIB, 0, 0), "fine", "100.0"),
        (doctor.judge_space(100 * GIB, 200 * GIB, 10, 10**7), "warning", "10 more files"),
        (doctor.judge_space(9 * GIB, 200 * GIB, 10**6, 10**7), "warning", "plan"),
        (doctor.judge_space(GIB // 5, 2 * GIB, 10**6, 10**7), "problem", "refused"),
        (doctor.judge_flushes([0.001] * 16, volatile=False), "fine", "1.00 ms"),
        (doctor.judge_flushes([0.1] * 16, volatile=False), "warning", "slow"),
        (doctor.judge_flushes([0.000001] * 16, volatile=False), "warning", "power cut"),
        (doctor.judge_flushes([0.000001] * 16, volatile=True), "fine", "ms"),
        (doctor.judge_open_files(None), "fine", "unlimited"),
        (doctor.judge_open_files(512), "problem", "LimitNOFILE"),
        (doctor.judge_open_files(2048), "warning", "raise"),
        (doctor.judge_open_files(1 << 20), "fine", "1,048,576"),
        (doctor.judge_permissions(DIRECTORY | 0o700, FILE | 0o600, 7, 7), "fine", "alone"),
        (doctor.judge_permissions(DIRECTORY | 0o700, None, 7, 7), "problem", "--new-secret-key"),
        (doctor.judge_permissions(DIRECTORY | 0o700, FILE | 0o640, 7, 7), "problem", "chmod 600"),
        (doctor.judge_permissions(DIRECTORY | 0o777, FILE | 0o600, 7, 7), "problem", "chmod 700"),
        (doctor.judge_permissions(DIRECTORY | 0o700, FILE | 0o600, 7, 0), "warning", "user 7"),
        (doctor.judge_clock(1000.0, None, None), "fine", "1970"),
        (doctor.judge_clock(1000.0, 1059.0, True), "fine", "keeps it synchronised"),
        (doctor.judge_clock(1000.0, None, False), "warning", "chrony"),
        (doctor.judge_clock(1000.0, 8200.0, True), "problem", "2.0 h behind"),
        (doctor.judge_chunks(0, []), "fine", "none"),
        (doctor.judge_chunks(64, []), "fine", "64"),
        (doctor.judge_chunks(64, ["ab"]), "problem", "vaultaire repair"),
        (doctor.judge_format(1, None), "fine", "format 1"),
        (doctor.judge_format(1, "a flush failed"), "problem", "a flush failed"),
        (doctor.judge_configuration(None, []), "fine", "no file"),
        (doctor.judge_configuration(None, ["VAULTAIRE_X: unknown"]), "problem", "config check"),
        (doctor.judge_map(GIB, 100 * GIB), "fine", "1.00 GiB"),
        (doctor.judge_map(90 * GIB, 100 * GIB), "warning", "full"),
        (doctor.judge_certificate(None), "fine", "no https"),
        (doctor.judge_certificate(-1), "problem", "expired"),
        (doctor.judge_certificate(3), "warning", "3 days"),
        (doctor.judge_certificate(60), "fine", "60 days"),
    ],
)
def test_judgements(finding, level, says):
    assert finding.level == level
    assert says in finding.text


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    Store.open(path, kind="command", create=True).close()
    (path / "secret.key").write_text("00" * 32)
    (path / "secret.key").chmod(0o600)
    return path


def run(data, *options):
    return CliRunner().invoke(main, ["doctor", "--data", str(data), *options])


def test_a_store_is_examined_and_nothing_is_left_behind(data):
    result = run(data, "--json")
    found = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert found["permissions"]["level"] == "fine"
    assert set(found) >= {"file system", "disk space", "flushes", "open files", "clock", "metadata"}
    assert result.exit_code == any(finding["level"] == "problem" for finding in found.values())
    assert list((data / "tmp").iterdir()) == []


def test_a_problem_is_shown_with_what_to_do_and_as_status(data):
    (data / "secret.key").chmod(0o644)
    result = run(data)
    assert result.exit_code == 1
    assert "PROBLEM  permissions" in result.stdout
    assert "chmod 600" in result.stdout


def test_a_directory_that_is_no_store_is_status_2(tmp_path):
    assert run(tmp_path / "nothing").exit_code == 2


def test_a_sample_finds_damaged_chunks(tmp_path):
    directory = tmp_path / "store"
    fill(directory)
    with Store.open(directory, kind="command") as store:
        read, damaged = doctor.sample_chunks(store, random.Random(1).randbytes)
        assert read > 0
        assert damaged == []
    pack = max((directory / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[4096:-4096] = bytes(len(content) - 8192)
    pack.write_bytes(content)
    with Store.open(directory, kind="command") as store:
        read, damaged = doctor.sample_chunks(store, random.Random(1).randbytes)
    assert 0 < len(damaged) <= read <= 2 * doctor.SAMPLED_CHUNKS


def test_a_mistyped_variable_is_a_problem(data, monkeypatch):
    monkeypatch.setenv("VAULTAIRE_GRAC", "3")
    result = run(data)
    assert result.exit_code == 1
    assert "did you mean 'VAULTAIRE_GRACE'?" in result.stdout
