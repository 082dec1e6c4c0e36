"""`vaultaire import` from a foreign server: what arrives, what is proven, what is not sent again."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import threading
from datetime import timedelta

import pytest

from index import buckets
from index.quotas import Limits, set_bucket_limits
from tests.moving.foreign import Answer
from vaultaire.moving import taking
from vaultaire.moving.places import WINDOW_BYTES
from vaultaire.store import Store

MIB = 1 << 20


def put_in_parts(s3, bucket, key, *parts, **attributes):
    begun = s3.create_multipart_upload(Bucket=bucket, Key=key, **attributes)["UploadId"]
    named = {"Bucket": bucket, "Key": key, "UploadId": begun}
    listed = [
        {"PartNumber": number, "ETag": s3.upload_part(PartNumber=number, Body=part, **named)["ETag"]}
        for number, part in enumerate(parts, 1)
    ]
    return s3.complete_multipart_upload(MultipartUpload={"Parts": listed}, **named)["ETag"].strip('"')


def test_objects_arrive_as_they_are_and_nothing_is_read_twice(foreign, subject):
    rng = random.Random(1)
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    large = rng.randbytes(2 * WINDOW_BYTES + 1)
    parts = rng.randbytes(5 * MIB), rng.randbytes(5 * MIB), b"tail"
    s3.put_object(
        Bucket="old", Key="with/all", Body=b"x" * 5000, ContentType="text/x-odd", CacheControl="no-cache",
        ContentDisposition="inline", ContentEncoding="zstd", ContentLanguage="ka", Metadata={"who": "me"},
        Tagging="a=1&b=two%20words", StorageClass="GLACIER_IR",
    )  # fmt: skip
    s3.put_object(Bucket="old", Key="empty", Body=b"")
    s3.put_object(Bucket="old", Key="large", Body=large, ChecksumAlgorithm="SHA256")
    multipart_etag = put_in_parts(s3, "old", "parts", *parts)
    listed = {item["Key"]: item for item in s3.list_objects_v2(Bucket="old")["Contents"]}
    foreign.log.clear()

    report = subject.report("import", "s3://old")

    assert (report["objects"], report["failed"], report["done_objects"]) == (4, 0, 0)
    assert report["verified"] == {"md5": 3, "parts": 1}
    found = subject.objects("old")
    assert {key: body for key, (_, body) in found.items()} == {
        b"with/all": b"x" * 5000, b"empty": b"", b"large": large, b"parts": b"".join(parts),
    }  # fmt: skip
    for key, item in listed.items():
        record = found[key.encode()][0]
        assert record.etag == item["ETag"].strip('"')
        assert record.modified_ms // 1000 == int(item["LastModified"].timestamp())
    record = found[b"with/all"][0]
    assert record.content_type == "text/x-odd"
    assert dict(record.headers) == {
        "cache-control": "no-cache", "content-disposition": "inline", "content-encoding": "zstd",
        "content-language": "ka", "x-amz-storage-class": "GLACIER_IR",
    }  # fmt: skip
    assert record.metadata == (("who", "me"),)
    assert dict(record.tags) == {"a": "1", "b": "two words"}
    record = found[b"parts"][0]
    assert record.etag == multipart_etag
    assert [part.size for part in record.parts] == [5 * MIB, 5 * MIB, 4]

    read = len(foreign.bodies_read())
    report = subject.report("import", "s3://old")
    assert (report["objects"], report["done_objects"], report["moved_bytes"]) == (0, 4, 0)
    assert len(foreign.bodies_read()) == read


def test_every_window_of_a_large_object_asks_for_the_same_state(foreign, subject):
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    s3.put_object(Bucket="old", Key="k", Body=bytes(WINDOW_BYTES + 1))
    subject.report("import", "s3://old")
    asked = [request for request in foreign.log if request.reads_body]
    ranges = sorted(request.headers["range"] for request in asked)  # they are under way at once
    assert ranges == ["bytes=0-8388607", "bytes=8388608-8388608"]
    assert {request.headers["if-match"] for request in asked} == {
        f'"{hashlib.md5(bytes(WINDOW_BYTES + 1)).hexdigest()}"'
    }


def test_prefixes_are_replaced_and_names_stay_without_into(foreign, subject):
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    for key in ("photos/a", "photos/b", "other"):
        s3.put_object(Bucket="old", Key=key, Body=b"x")
    subject.report("import", "s3://old/photos/", "--into", "archive/2026/")
    subject.report("import", "s3://old/photos/")
    assert set(subject.objects("archive")) == {b"2026/a", b"2026/b"}
    assert set(subject.objects("old")) == {b"photos/a", b"photos/b"}


def test_a_dry_run_reads_no_body_and_makes_no_bucket(foreign, subject):
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    s3.put_object(Bucket="old", Key="k", Body=b"x")
    report = subject.report("import", "s3://old", "--dry-run")
    assert (report["objects"], report["dry_run"]) == (1, True)
    assert foreign.bodies_read() == []
    assert subject.objects("old") == {}


def test_what_was_written_here_since_is_kept_and_what_changed_there_is_taken(foreign, subject):
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    for key in ("newer-here", "newer-there", "relabelled"):
        s3.put_object(Bucket="old", Key=key, Body=b"first", Metadata={"v": "1"})
    subject.report("import", "s3://old")
    foreign.change("old", "newer-there", b"other", seconds=5)
    foreign.change("old", "newer-here", b"stale", seconds=-5)
    relabelled = foreign.backend.buckets["old"].keys["relabelled"]
    relabelled.last_modified += timedelta(seconds=5)
    relabelled.set_metadata({"x-amz-meta-v": "2"})
    foreign.log.clear()

    report = subject.report("import", "s3://old")

    assert (report["objects"], report["refreshed"], report["kept"]) == (1, 1, 1)
    assert report["kept_keys"] == ["newer-here"]
    assert foreign.bodies_read() == ["/old/newer-there"]
    found = subject.objects("old")
    assert found[b"newer-here"][1] == b"first"
    assert found[b"newer-there"][1] == b"other"
    assert dict(found[b"relabelled"][0].metadata)["v"] == "2"
    assert subject.report("import", "s3://old", "--overwrite", "never")["objects"] == 0
    assert subject.report("import", "s3://old", "--overwrite", "always")["objects"] == 1
    assert subject.objects("old")[b"newer-here"][1] == b"stale"


def test_all_buckets_with_their_configuration(foreign, subject):
    s3 = foreign.client()
    for name in ("one", "two"):
        s3.create_bucket(Bucket=name)
        s3.put_object(Bucket=name, Key="k", Body=name.encode())
    s3.put_bucket_cors(
        Bucket="one",
        CORSConfiguration={
            "CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://a.example"]}]
        },
    )
    s3.put_bucket_tagging(Bucket="one", Tagging={"TagSet": [{"Key": "team", "Value": "x"}]})
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
              "Action": "s3:GetObject", "Resource": "arn:aws:s3:::one/*"}]}  # fmt: skip
    s3.put_bucket_policy(Bucket="one", Policy=json.dumps(policy))
    report = subject.report("import", "s3://", "--all-buckets", "--bucket-config")
    assert report["objects"] == 2
    taken = {note for note in report["notes"] if note.endswith("taken over") and "not" not in note}
    assert taken == {"setting cors: taken over", "setting tagging: taken over", "setting policy: taken over"}
    assert subject.objects("two")[b"k"][1] == b"two"
    again = subject.report("import", "s3://", "--all-buckets", "--bucket-config")
    assert "setting cors: the bucket here has its own, which stays" in again["notes"]


def test_a_quota_ends_the_import_and_raising_it_lets_it_go_on(foreign, subject):
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    for number in range(4):
        foreign.backend.put_object("old", f"{number}", b"x")
    limit(subject, "old", 2)
    result = subject.run("import", "s3://old", "--parallel", "1")
    assert result.exit_code == 1
    assert "the quota of bucket 'old' for objects is 2" in result.stderr
    assert "vaultaire bucket quota" in result.stderr
    assert len(subject.objects("old")) == 2
    limit(subject, "old", 9)
    report = subject.report("import", "s3://old")
    assert (report["objects"], report["done_objects"]) == (2, 2)


def limit(subject, name, objects):
    def commit(txn):
        bucket = buckets.get_bucket(txn, name) or buckets.create_bucket(txn, name, "root", 1)
        set_bucket_limits(txn, bucket, Limits(objects=objects))

    with Store.open(subject.data, kind="command") as store:
        store.kv.commit(commit)


# --- faults ----------------------------------------------------------------------------------------------------


class Faults:
    """Each key's name says what happens to it; counted, so that a request that is repeated may succeed."""

    def __init__(self, foreign, s3):
        self.s3 = s3
        self.asked = {}
        self.foreign = foreign
        self.lock = threading.Lock()
        foreign.fault = self

    def __call__(self, request, answer):
        if not request.reads_body or not answer.status.startswith("2"):
            return answer
        name = request.path.rpartition("/")[2]
        with self.lock:
            count = self.asked[name] = self.asked.get(name, 0) + 1
        if name == "slow-down" and count <= 2:
            return Answer.error("503 Slow Down", "SlowDown", Retry_After="0")
        if name == "failing-once" and count == 1:
            return Answer.error("500 Internal Server Error", "InternalError")
        if name == "short-once" and count == 1:
            return answer.with_body(answer.body[:-7])
        if name == "wrong-once" and count == 1:
            return answer.with_body(answer.body[:-1] + b"!")
        if name == "wrong-always":
            return answer.with_body(answer.body[:-1] + b"!")
        if name == "forbidden":
            return Answer.error("403 Forbidden", "AccessDenied")
        if name == "archived":
            return Answer.error("403 Forbidden", "InvalidObjectState")
        return answer


GOOD = ["slow-down", "failing-once", "short-once", "wrong-once", "plain", "changes"]
BAD = {"wrong-always": "checksum", "forbidden": "AccessDenied", "archived": "restore it"}


def test_a_source_that_misbehaves_costs_repeats_and_what_cannot_be_had_is_named(
    foreign, subject, monkeypatch
):
    monkeypatch.setattr("vaultaire.moving.transport.backoff_seconds", lambda *_: 0)
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    for key in [*GOOD, *BAD, "vanishes"]:
        s3.put_object(Bucket="old", Key=key, Body=key.encode() * 10)
    foreign.backend.put_object("old", "wrong-once", b"wrong-once" * 10)  # its ETag is all that can tell
    Faults(foreign, s3)
    once = {"changes", "vanishes", "changes-and-vanishes"}
    s3.put_object(Bucket="old", Key="changes-and-vanishes", Body=b"x")

    def meddle(request):
        name = request.path.rpartition("/")[2]
        if request.method == "HEAD" and name == "changes-and-vanishes":
            foreign.backend.buckets["old"].keys.pop(name)
        if request.reads_body and name in once:
            once.discard(name)
            keys = foreign.backend.buckets["old"].keys
            if name == "vanishes":
                keys.pop(name)
            else:
                foreign.change("old", name, b"changed since")

    foreign.before = meddle

    report = subject.report("import", "s3://old", status=1)

    found = {key.decode(): body for key, (_, body) in subject.objects("old").items()}
    assert found == {key: key.encode() * 10 for key in GOOD} | {"changes": b"changed since"}
    failures = {failed["key"]: failed["why"] for failed in report["failures"]}
    assert failures.keys() == BAD.keys()
    assert all(text in failures[key] for key, text in BAD.items()), failures
    assert report["changed"] == 2
    assert report["retries"] >= 5
    assert report["notes"]["objects that were deleted at the source meanwhile"] == 2
    # The next run tries only these.
    foreign.fault = lambda request, answer: answer
    foreign.log.clear()
    report = subject.report("import", "s3://old")
    assert sorted(path.rpartition("/")[2] for path in foreign.bodies_read()) == sorted(BAD)
    assert report["failed"] == 0


def test_an_object_that_changed_within_the_same_second_is_taken(foreign, subject):
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    s3.put_object(Bucket="old", Key="k", Body=b"first")
    subject.report("import", "s3://old")
    foreign.change("old", "k", b"other")  # the same length and time: only the ETag differs
    assert subject.report("import", "s3://old", "--overwrite", "never")["kept_keys"] == ["k"]
    assert subject.report("import", "s3://old")["objects"] == 1
    assert subject.objects("old")[b"k"][1] == b"other"


def test_an_object_that_never_rests_fails_after_some_tries(foreign, subject):
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    s3.put_object(Bucket="old", Key="k", Body=b"0")

    def meddle(request):
        if request.reads_body:
            foreign.change("old", "k", str(len(foreign.log)).encode())

    foreign.before = meddle
    report = subject.report("import", "s3://old", status=1)
    assert "keeps changing" in report["failures"][0]["why"]
    assert report["changed"] == taking.TRIES
    assert subject.objects("old") == {}


def test_what_offers_no_digest_is_counted_so_and_can_be_read_twice(foreign, subject):
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    foreign.backend.put_object("old", "k", b"data")
    foreign.backend.buckets["old"].keys["k"]._etag = "0" * 32  # as of an object encrypted with a key of a KMS
    foreign.fault = lambda request, answer: Answer(
        answer.status,
        [
            *answer.headers,
            *([("x-amz-server-side-encryption", "aws:kms")] if request.path == "/old/k" else []),
        ],
        answer.body,
    )
    report = subject.report("import", "s3://old", "--read-twice")
    assert report["verified"] == {"twice": 1}
    assert len(foreign.bodies_read()) == 2
    record, body = subject.objects("old")[b"k"]
    assert (record.etag, body) == (hashlib.md5(b"data").hexdigest(), b"data")
    # Another ETag here than there, and yet it is known to be done: the source is asked, and sends no body.
    report = subject.report("import", "s3://old")
    assert (report["objects"], report["done_objects"]) == (0, 1)
    assert len(foreign.bodies_read()) == 2


# --- what is told ----------------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_used_is_told_with_the_next_step(foreign, subject, monkeypatch):
    monkeypatch.setattr("vaultaire.moving.transport.backoff_seconds", lambda *_: 0)
    result = subject.run("import", "s3://nothing-here")
    assert result.exit_code == 1
    assert "there is no such bucket" in result.stderr
    result = subject.run("import", "s3://old", "--endpoint-url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "does not answer" in result.stderr
    assert "--endpoint-url" in result.stderr
    foreign.fault = lambda request, answer: Answer.error("403 Forbidden", "InvalidAccessKeyId")
    result = subject.run("import", "s3://old")
    assert "refuses the credentials" in result.stderr
    assert "AWS_ACCESS_KEY_ID" in result.stderr
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    result = subject.run("import", "s3://old")
    assert "there are no credentials" in result.stderr
    assert subject.objects("old") == {}, "nothing is made before the source was reached"


def test_versions_are_not_taken_from_a_bucket_that_may_not_be_asked_whether_it_keeps_them(foreign, subject):
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    s3.put_bucket_versioning(Bucket="old", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"1", b"2"):
        s3.put_object(Bucket="old", Key="k", Body=body)
    refused = Answer.error("403 Forbidden", "AccessDenied")
    foreign.fault = lambda request, answer: refused if "versioning" in request.query else answer
    result = subject.run("import", "s3://old", "--versions")
    assert result.exit_code == 1
    assert "may not be asked" in result.stderr
    assert subject.objects("old") == {}


def test_the_missing_extra_is_named(alone, monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    result = alone.run("import", "s3://old")
    assert result.exit_code == 1
    assert "pip install 'vaultaire[s3]'" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["s3://"],
        ["s3://b", "--all-buckets"],
        ["s3://b/p", "--bucket-config"],
        ["s3://b", "--overwrite", "sometimes"],
        ["s3://b", "--into", "s3://c"],
        ["/tmp"],
        ["/tmp", "--into", "b", "--versions"],
    ],
)
def test_a_wrong_call_ends_with_2(alone, arguments):
    assert alone.run("import", *arguments).exit_code == 2
