"""Metrics and logs of a running server with three workers, against what clients did.

Tests of this module share one server, in the order of the file, but for the one that kills it.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from tests.s3.conftest import make_caller
from tests.s3.harness import Server
from tests.s3.wire import content_md5, exchange_many

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

TOKEN = "0123456789abcdef-of-the-tests"
WAIT_SECONDS = 30.0


class Observed:
    """The server, its logs, and what clients did to it so far."""

    def __init__(self, server, folder):
        self.server = server
        self.caller = make_caller(server)
        self.access_log, self.audit_log = folder / "access.log", folder / "audit.log"
        self.token = folder / "token"
        self.statuses = Counter()
        self.bytes_in = self.bytes_out = 0

    def requests(self, *wanted):
        """(method, path, query, body) each, over many connections."""
        signed = [
            self.caller.sign(method, path, query=query, body=body) for method, path, query, body in wanted
        ]
        answers = exchange_many(self.caller, signed, connections=12)
        for answer, (_, _, _, body) in zip(answers, wanted, strict=True):
            self.note(answer, len(body))
        return answers

    def note(self, answer, bytes_in=0):
        self.statuses[str(answer.status)] += 1
        self.bytes_in += bytes_in
        self.bytes_out += len(answer.body)

    def page(self, headers=()):
        return self.caller.anonymous("GET", "/-/metrics", headers=headers)

    def scrape(self):
        """(name, labels) -> value."""
        answer = self.page([("authorization", f"Bearer {TOKEN}")])
        assert answer.status == 200, answer
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }

    def counts(self):
        """Requests by status, and bytes, over all labels."""
        statuses, directions = Counter(), Counter()
        for (name, *labels), value in self.scrape().items():
            if name == "vaultaire_s3_requests_total":
                statuses[dict(labels)["status"]] += int(value)
            if name == "vaultaire_s3_bytes_total":
                directions[dict(labels)["direction"]] += int(value)
        return statuses, directions["in"], directions["out"]

    def settled(self):
        """What is counted, once it is what clients did: a request is counted just after its answer has left."""
        expected = (self.statuses, self.bytes_in, self.bytes_out)
        assert wait_for(lambda: self.counts() == expected), (self.counts(), expected)

    def lines(self, path):
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def wait_for(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def observed(tmp_path_factory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    (folder / "token").write_text(f"{TOKEN}\n")
    arguments = ["--metrics-token-file", str(folder / "token"), "--metrics-buckets", "3"]
    arguments += ["--access-log", str(folder / "access.log"), "--audit-log", str(folder / "audit.log")]
    with Server(folder / "data", workers=3, arguments=arguments) as server:
        found = Observed(server, folder)
        found.note(found.caller.call("PUT", "/photos"))
        yield found


def puts(count, size=100, bucket="photos"):
    return [("PUT", f"/{bucket}/{size}-{number}", "", bytes(size)) for number in range(count)]


def test_the_sums_of_three_workers_are_what_clients_did(observed):
    observed.requests(*puts(40), *puts(4, 300_000))
    observed.requests(
        *[("GET", f"/photos/100-{number}", "", b"") for number in range(40)],
        ("GET", "/photos/nothing-there", "", b""),
        ("GET", "/photos", "list-type=2", b""),
        ("DELETE", "/photos/100-7", "", b""),
    )
    observed.settled()
    samples = observed.scrape()
    by_operation = ("vaultaire_s3_requests_total", ("bucket", "photos"), ("operation", "PutObject"))
    assert samples[(*by_operation, ("status", "200"))] == 44
    assert samples["vaultaire_s3_request_seconds_count", ("operation", "PutObject")] == 44
    assert samples["vaultaire_s3_errors_total", ("code", "NoSuchKey")] == 1
    assert samples["vaultaire_processes", ("kind", "worker")] == 3
    assert len([key for key in samples if key[0] == "vaultaire_process_anonymous_memory_bytes"]) >= 3


def test_nothing_is_lost_with_a_killed_worker(observed):
    before, _, _ = observed.counts()
    total = sum(
        observed.statuses.values()
    )  # logs are about other tests: a killed worker takes its last lines along
    assert wait_for(lambda: len(observed.lines(observed.access_log)) >= total)
    assert wait_for(lambda: "100-7" in observed.audit_log.read_text())
    old = observed.server.kill_worker()
    assert wait_for(
        lambda: len(observed.server.worker_pids()) == 3 and old not in observed.server.worker_pids()
    )
    after, _, _ = observed.counts()
    assert all(after[status] >= count for status, count in before.items()), "a counter went back"
    observed.requests(*puts(30, 50))
    observed.settled()
    assert wait_for(lambda: observed.scrape()["vaultaire_processes", ("kind", "worker")] == 3)


def test_strangers_learn_nothing_and_make_no_labels(observed):
    answers = [
        observed.page(),
        observed.page([("authorization", "Bearer " + TOKEN[:-1])]),
        observed.page([("authorization", "Basic " + base64.b64encode(b"a:b").decode())]),
    ]
    assert [answer.status for answer in answers] == [401] * 3
    assert not any(b"photos" in answer.body for answer in answers)
    credentials = f"{observed.server.access_key}:{observed.server.secret_key}".encode()
    assert observed.page([("authorization", "Basic " + base64.b64encode(credentials).decode())]).status == 200
    for path in ("/invented-bucket/key", "/photos/key-of-a-stranger", "/%22%0Ainvented/x"):
        observed.note(observed.caller.anonymous("GET", path))
    wrong = make_caller(observed.server, "NOBODY0001", "not-a-secret-at-all")
    observed.note(wrong.call("GET", "/photos/x"))
    observed.settled()
    page = observed.page([("authorization", f"Bearer {TOKEN}")]).body.decode()
    assert "invented" not in page
    assert "stranger" not in page
    assert "NOBODY" not in page


def test_buckets_beyond_the_limit_share_a_label(observed):
    for number in range(6):
        observed.note(observed.caller.call("PUT", f"/bucket-{number}"))
        observed.requests(*puts(2, 10, f"bucket-{number}"))
    observed.settled()
    named = {dict(labels)["bucket"] for (_, *labels) in observed.scrape() if "bucket" in dict(labels)}
    assert len(named - {"", "_other"}) == 3
    assert "_other" in named


def test_what_a_limit_refuses_is_counted_by_its_reason(observed):
    observed.server.cli(
        *(
            "key",
            "create",
            "--tenant",
            "limited",
            "--access-key",
            "LIMITED01",
            "--secret-key",
            "a-secret-of-limited",
        )
    )
    observed.server.cli("key", "limit", "LIMITED01", "--requests", "2")
    limited = make_caller(observed.server, "LIMITED01", "a-secret-of-limited")
    for _ in range(5):
        observed.note(limited.call("GET", "/"))
    etag = observed.caller.call("HEAD", "/photos/100-1").headers["etag"]
    observed.statuses["200"] += 1
    unchanged = observed.caller.call("GET", "/photos/100-1", headers=[("if-none-match", etag)])
    assert unchanged.status == 304
    observed.note(unchanged)
    observed.settled()
    samples = observed.scrape()
    assert samples["vaultaire_s3_refused_total", ("reason", "rate")] == 3
    assert samples["vaultaire_s3_errors_total", ("code", "SlowDown")] == 3
    assert ("vaultaire_s3_errors_total", ("code", "NotModified")) not in samples


def test_openmetrics_is_read_by_its_own_parser(observed):
    headers = [("authorization", f"Bearer {TOKEN}"), ("accept", "application/openmetrics-text")]
    answer = observed.page(headers)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = list(openmetrics_parser.text_string_to_metric_families(answer.body.decode()))
    assert {"vaultaire_s3_requests", "vaultaire_store_logical_bytes"} <= {family.name for family in families}


def test_each_request_has_one_line_in_the_access_log(observed):
    forged = "a%0A%7B%22forged%22%3A1%7D"
    observed.requests(("PUT", f"/photos/{forged}", "", b"x"))
    total = sum(observed.statuses.values())
    assert wait_for(lambda: len(observed.lines(observed.access_log)) >= total)
    lines = observed.lines(observed.access_log)
    assert len(lines) == total
    assert Counter(str(line["status"]) for line in lines) == observed.statuses
    assert sum(line["bytes_in"] for line in lines) == observed.bytes_in
    assert sum(line["bytes_out"] for line in lines) == observed.bytes_out
    assert len({line["request_id"] for line in lines}) == total
    assert [line["key"] for line in lines if "forged" in (line["key"] or "")] == ['a\n{"forged":1}']
    assert observed.server.secret_key not in observed.access_log.read_text()


def test_a_presigned_url_cannot_be_used_by_who_reads_the_log(observed):
    request = observed.caller.presign("GET", "/photos/100-1")
    observed.note(observed.caller.exchange(request))
    signature = request.target.rpartition("X-Amz-Signature=")[2].partition("&")[0]
    assert len(signature) == 64
    assert wait_for(lambda: b"X-Amz-Signature=REDACTED" in observed.access_log.read_bytes())
    assert signature.encode() not in observed.access_log.read_bytes()


def test_logs_are_rotated_under_the_running_server(observed):
    observed.settled()
    total = sum(observed.statuses.values())
    assert wait_for(lambda: len(observed.lines(observed.access_log)) == total)
    moved = observed.access_log.with_suffix(".1")
    observed.access_log.rename(moved)
    assert observed.server.process is not None
    os.kill(observed.server.process.pid, signal.SIGHUP)
    for pid in observed.server.worker_pids():
        os.kill(pid, signal.SIGHUP)
    observed.requests(*puts(10, 5))
    assert wait_for(lambda: len(observed.lines(observed.access_log)) == 10)
    assert len(observed.lines(moved)) == total
    assert observed.server.alive()


def test_changes_are_audited_whoever_makes_them(observed):
    observed.server.cli(
        "key", "create", "--tenant", "audited", "--access-key", "AUDITED01", "--role", "read-only"
    )
    reader = make_caller(observed.server, "AUDITED01", "whatever-it-is")
    created = json.loads(
        observed.server.cli("key", "create", "--tenant", "root", "--role", "read-only", "--json").stdout
    )
    reader = make_caller(observed.server, created["access_key"], created["secret_key"])
    assert reader.call("DELETE", "/photos/100-1").status == 403
    delete = b"<Delete><Object><Key>100-2</Key></Object><Object><Key>100-3</Key></Object></Delete>"
    answer = observed.caller.call(
        "POST", "/photos", query="delete", body=delete, headers=[("content-md5", content_md5(delete))]
    )
    assert answer.status == 200
    observed.server.cli("key", "delete", "AUDITED01")
    observed.server.cli("bucket", "create", "audited")
    observed.server.cli("bucket", "quota", "audited", "--objects", "5")
    observed.server.cli("bucket", "delete", "audited")

    def found():
        return {
            (line["source"], line["action"], line.get("access_key"), line.get("key"), line["result"])
            for line in observed.lines(observed.audit_log)
        }

    root = observed.server.access_key
    expected = {
        ("s3", "CreateBucket", root, None, "ok"),
        ("s3", "DeleteObject", root, "100-7", "ok"),
        ("s3", "DeleteObject", created["access_key"], "100-1", "AccessDenied"),
        ("s3", "DeleteObjects", root, "100-2", "ok"),
        ("s3", "DeleteObjects", root, "100-3", "ok"),
        ("command", "CreateKey", "AUDITED01", None, "ok"),
        ("command", "DeleteKey", "AUDITED01", None, "ok"),
        ("command", "CreateBucket", None, None, "ok"),
        ("command", "SetQuota", None, None, "ok"),
        ("command", "DeleteBucket", None, None, "ok"),
    }
    assert wait_for(lambda: expected <= found()), expected - found()
    assert created["secret_key"] not in observed.audit_log.read_text()


def test_last_writes_survive_a_restart_and_counters_begin_anew(observed):
    observed.server.restart()
    samples = observed.scrape()
    written = samples["vaultaire_bucket_last_write_timestamp_seconds", ("bucket", "photos")]
    assert 0 < time.time() - written < 3600
    assert not any(key[0] == "vaultaire_s3_requests_total" for key in samples)
