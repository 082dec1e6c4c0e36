"""Access log and audit log: whole lines, nothing secret, nothing forged, never at a request's expense."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from vaultaire import log_file
from vaultaire.access import ANONYMOUS, new_principal
from vaultaire.access_log import combined_line, json_line, redact_query
from vaultaire.audit_log import (
    AUDITED,
    Expired,
    note_command,
    note_expired,
    read_audit_log,
    request_lines,
    write_audit_log,
)
from vaultaire.log_file import LogFile, append, keep_writing, open_log
from vaultaire.s3.observation import Observation
from vaultaire.s3.operation import Operation
from vaultaire.store import Store

NOW = 1_790_000_000.25
PRINCIPAL = new_principal("photos", "read-write", access_key="PHOTOS01", secret_key="the-secret-of-photos")
ROOT = Path(__file__).resolve().parents[2]


def request(**more):
    scope = {
        "method": "PUT",
        "raw_path": b"/photos/a%20b",
        "query_string": b"",
        "http_version": "1.1",
        "client": ("10.0.0.1", 4711),
        "headers": [(b"user-agent", b"rclone/1.70")],
    }
    scope.update({name: more.pop(name) for name in list(more) if name in scope})
    seen = Observation(scope, "0123456789ABCDEF")
    seen.operation, seen.bucket, seen.key, seen.status = Operation.PUT_OBJECT, "photos", b"a b", 200
    seen.principal, seen.claimed, seen.bytes_in = PRINCIPAL, "PHOTOS01", 10
    seen.started, seen.first_byte, seen.ended, seen.complete = 1.0, 1.5, 2.0, True
    for name, value in more.items():
        setattr(seen, name, value)
    return seen


# --- lines ---------------------------------------------------------------------------------------------------------


def test_a_line_of_json_says_all():
    line = json_line(request(query_string=b"x-id=PutObject"), NOW)
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "time": "2026-09-21T14:13:20.250Z",
        "request_id": "0123456789ABCDEF",
        "remote": "10.0.0.1",
        "access_key": "PHOTOS01",
        "tenant": "photos",
        "operation": "PutObject",
        "method": "PUT",
        "bucket": "photos",
        "key": "a b",
        "status": 200,
        "error": None,
        "bytes_in": 10,
        "bytes_out": 0,
        "seconds": 1.0,
        "first_byte_seconds": 0.5,
        "complete": True,
        "query": "x-id=PutObject",
        "user_agent": "rclone/1.70",
    }


def test_a_combined_line_is_apaches():
    assert combined_line(request(bytes_out=5), NOW).decode() == (
        '10.0.0.1 - PHOTOS01 [21/Sep/2026:14:13:20 +0000] "PUT /photos/a%20b HTTP/1.1" 200 5 "-" "rclone/1.70" '
        "0123456789ABCDEF PutObject - photos 10 1.000000 0.500000\n"
    )


def test_a_request_of_which_nothing_is_known_has_a_line_too():
    seen = request(
        client=None, headers=[], operation=None, bucket=None, key=None, first_byte=None, status=499
    )
    seen.principal, seen.claimed = ANONYMOUS, ""
    shown = json.loads(json_line(seen, NOW))
    assert shown["operation"] is shown["bucket"] is shown["key"] is shown["first_byte_seconds"] is None
    assert (shown["remote"], shown["tenant"], shown["status"]) == ("-", "", 499)
    assert combined_line(seen, NOW).startswith(b"- - - [")


hostile = st.binary(max_size=60).filter(bool) | st.sampled_from(
    [b"a\nb", b'"} {"x":1', b"\x1b[2J", b"\\", b"\r\n127.0.0.1 - root", "\u2028\u202e".encode()]
)


@given(hostile, hostile, hostile, hostile)
def test_nobody_forges_a_line(key, agent, query, path):
    seen = request(
        key=key,
        claimed=agent.decode("latin-1"),
        bucket=agent.decode("latin-1"),
        query_string=query,
        raw_path=b"/" + path,
        headers=[(b"user-agent", agent), (b"referer", agent)],
        method=agent.decode("latin-1"),
    )
    for line in (json_line(seen, NOW), combined_line(seen, NOW), *request_lines(seen, NOW)):
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    shown = json.loads(json_line(seen, NOW))
    assert shown["key"] == key.decode("utf-8", "replace")
    assert shown["user_agent"] == agent.decode("latin-1")
    assert shown["status"] == 200
    pattern = rb'\S+ - \S+ \[[^\]]+\] "[^"]*" 200 - "[^"]*" "[^"]*" [0-9A-F]{16} PutObject - photos 10 [\d.]+ [\d.]+\n'
    assert re.fullmatch(pattern, combined_line(seen, NOW))


@pytest.mark.parametrize(
    "query",
    [
        b"X-Amz-Signature=deadbeef&X-Amz-Date=20260921T000000Z",
        b"x-amz-signature=deadbeef",
        b"X%2DAmz%2dSignature=deadbeef",
        b"+X-Amz-Signature+=deadbeef",
        b"a=b&X-Amz-Security-Token=deadbeef",
        b"AWSAccessKeyId=x&Signature=deadbeef&Expires=1",
        b"X-Amz-Something-New=deadbeef",
    ],
)
def test_what_signs_a_url_is_redacted(query):
    seen = request(query_string=query)
    for line in (json_line(seen, NOW), combined_line(seen, NOW)):
        assert b"deadbeef" not in line
        assert b"REDACTED" in line


def test_a_presigned_url_in_the_referer_is_redacted():
    seen = request(headers=[(b"referer", b"https://h/photos/a?X-Amz-Signature=deadbeef")])
    assert b'"https://h/photos/a"' in combined_line(seen, NOW)


def test_the_rest_of_a_query_is_shown():
    query = b"prefix=a%20b&list-type=2&acl&X-Amz-Date=20260921T000000Z&X-Amz-Expires=60"
    assert redact_query(query) == query.decode()
    assert redact_query(b"uploads") == "uploads"


def test_what_clients_make_long_is_cut():
    seen = request(
        query_string=b"a=" + b"x" * 100_000,
        raw_path=b"/" + b"y" * 100_000,
        headers=[(b"user-agent", b"z" * 100_000)],
        claimed="k" * 100_000,
        bucket="b" * 100_000,
    )
    for line in (json_line(seen, NOW), combined_line(seen, NOW), *request_lines(seen, NOW)):
        assert len(line) < 12_000


# --- files ---------------------------------------------------------------------------------------------------------


def lines_of(path):
    data = path.read_bytes()
    assert not data or data.endswith(b"\n")
    return data.splitlines()


def put(log, *lines):
    for line in lines:
        log.add(line + b"\n")
    log.write(log.take())


def test_a_file_that_was_renamed_or_removed_is_opened_anew(tmp_path):
    path = tmp_path / "access.log"
    log = LogFile(str(path))
    put(log, b"one")
    path.rename(tmp_path / "access.log.1")
    put(log, b"two")
    assert lines_of(tmp_path / "access.log.1") == [b"one"]
    assert lines_of(path) == [b"two"]
    path.unlink()
    put(log, b"three")
    assert lines_of(path) == [b"three"]
    path.write_bytes(b"")  # copytruncate
    put(log, b"four")
    assert lines_of(path) == [b"four"]
    assert path.stat().st_mode & 0o777 & ~0o640 == 0
    log.close()


def test_what_waits_is_bounded_and_losses_are_counted(monkeypatch):
    monkeypatch.setattr(log_file, "MAX_WAITING_BYTES", 100)
    log = LogFile("/nowhere/at/all")
    for _ in range(50):
        log.add(b"0123456789\n")
    assert len(log.take()) == 10
    assert log.dropped == 40


_APPEND = """
import sys
from vaultaire.log_file import LogFile
log = LogFile(sys.argv[1])
for batch in range(40):
    for number in range(50):
        log.add(f"{sys.argv[2]} {batch} {number} {'x' * (number * 37)}\\n".encode())
    log.write(log.take())
"""


def test_several_processes_write_whole_lines(tmp_path):
    path = tmp_path / "access.log"
    writers = [subprocess.Popen([sys.executable, "-c", _APPEND, str(path), name], cwd=ROOT) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = [line.split(b" ") for line in lines_of(path)]
    assert len(found) == 3 * 40 * 50
    assert all(len(line) == 4 and line[3] == b"x" * (int(line[2]) * 37) for line in found)


_FULL = """
import resource, signal, sys
from vaultaire.log_file import LogFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
log = LogFile(sys.argv[1])
lost = 0
for number in range(30):
    log.add(b"%d " % number + b"y" * 9_000 + b"\\n")
    try:
        log.write(log.take())
    except OSError:
        lost += 1
print(lost)
"""


def test_on_a_full_disk_no_line_is_cut(tmp_path):
    path = tmp_path / "access.log"
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = lines_of(path)
    assert len(found) == 11
    assert int(done.stdout) == 19
    assert all(len(line) > 9_000 and line.endswith(b"y") for line in found)


def test_lines_to_a_pipe_are_cut_at_line_ends():
    pieces = list(log_file._pieces([b"a" * 3000 + b"\n", b"b" * 2000 + b"\n", b"c" * 9000 + b"\n", b"d\n"]))
    assert [len(piece) for piece in pieces] == [3001, 2001, 9001, 2]


async def test_the_writer_counts_what_is_lost_and_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(log_file, "FLUSH_SECONDS", 0.01)
    missing = tmp_path / "folder"
    log, lost, told = LogFile(str(missing / "access.log")), [], trio.Event()

    def tell(lines):
        lost.append(lines)
        told.set()

    with caplog.at_level(logging.ERROR, "vaultaire.logs"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_writing, log, tell)
            log.add(b"one\n")
            log.add(b"two\n")
            await told.wait()
            missing.mkdir()
            log.add(b"three\n")
            nursery.cancel_scope.cancel()
    assert lost == [2]
    assert len(caplog.records) == 1
    assert lines_of(missing / "access.log") == [b"three"]


# --- audit ---------------------------------------------------------------------------------------------------------


def test_what_changes_or_deletes_is_audited_and_nothing_else():
    audited = {operation.value for operation in AUDITED}
    assert {
        "CreateBucket",
        "DeleteBucket",
        "DeleteObject",
        "DeleteObjects",
        "PutBucketPolicy",
        "DeleteBucketPolicy",
        "PutBucketVersioning",
        "PutBucketLifecycleConfiguration",
        "PutObjectLockConfiguration",
        "PutObjectRetention",
        "PutObjectLegalHold",
        "RenameObject",
        "AbortMultipartUpload",
    } <= audited
    assert not audited & {"PutObject", "UploadPart", "CopyObject", "CompleteMultipartUpload"}
    assert not any(name.startswith(("Get", "Head", "List")) for name in audited)


def audit(**more):
    return [json.loads(line) for line in request_lines(request(**more), NOW)]


def test_an_audit_line_says_who_did_what_and_how_it_ended():
    assert audit() == []
    (refused,) = audit(operation=Operation.DELETE_OBJECT, status=403, code="AccessDenied")
    assert refused == {
        "time": "2026-09-21T14:13:20.250Z",
        "source": "s3",
        "request_id": "0123456789ABCDEF",
        "remote": "10.0.0.1",
        "access_key": "PHOTOS01",
        "tenant": "photos",
        "action": "DeleteObject",
        "bucket": "photos",
        "key": "a b",
        "version_id": None,
        "result": "AccessDenied",
    }
    assert audit(operation=Operation.DELETE_OBJECT, status=204)[0]["result"] == "ok"
    assert audit(operation=Operation.DELETE_OBJECT, status=499)[0]["result"] == "499"


def test_each_key_of_a_batch_has_its_line():
    class Call:
        principal = PRINCIPAL
        deleted = ((b"a", None, None), (b"b", "version", "AccessDenied"))

    lines = audit(operation=Operation.DELETE_OBJECTS, key=None, call=Call())
    assert [(line["key"], line["version_id"], line["result"]) for line in lines] == [
        ("a", None, "ok"),
        ("b", "version", "AccessDenied"),
    ]


def test_commands_write_to_the_servers_audit_log(tmp_path, caplog):
    path = tmp_path / "audit.log"
    with Store.open(tmp_path / "data", kind="command", create=True) as store:
        note_command(store, "DeleteKey", access_key="X")
        assert not path.exists()
        store.kv.commit(lambda txn: write_audit_log(txn, path))
        note_command(store, "DeleteKey", access_key="X\n")
        (line,) = lines_of(path)
        shown = json.loads(line)
        assert (shown["source"], shown["action"], shown["access_key"], shown["result"]) == (
            "command",
            "DeleteKey",
            "X\n",
            "ok",
        )
        assert shown["user"]
        store.kv.commit(lambda txn: write_audit_log(txn, tmp_path / "missing" / "audit.log"))
        note_command(store, "DeleteKey", access_key="X")
        assert "not in the audit log" in caplog.text
        store.kv.commit(lambda txn: write_audit_log(txn, None))
        with store.kv.snapshot() as reader:
            assert read_audit_log(reader) is None


def test_what_lifecycle_removes_is_in_the_audit_log(tmp_path):
    path = tmp_path / "audit.log"
    with Store.open(tmp_path / "data", kind="command", create=True) as store:
        expired = [Expired("ExpireObject", "b", b"k\n\xff", None), Expired("ExpireUpload", "b", b"k", "u1")]
        note_expired(store.kv, expired)
        store.kv.commit(lambda txn: write_audit_log(txn, path))
        note_expired(store.kv, expired)
    one, two = map(json.loads, lines_of(path))
    assert one.pop("time").endswith("Z")
    assert one == {
        "source": "lifecycle",
        "action": "ExpireObject",
        "bucket": "b",
        "key": "k\n\ufffd",
        "version_id": None,
        "result": "ok",
    }
    assert (two["action"], two["upload_id"]) == ("ExpireUpload", "u1")


def test_a_log_is_no_terminal_and_for_its_owner_and_group(tmp_path):
    before = os.umask(0)
    try:
        fd = open_log(str(tmp_path / "log"))
    finally:
        os.umask(before)
    append(fd, b"x\n")
    os.close(fd)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640
