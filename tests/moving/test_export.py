"""`vaultaire export` to a foreign server: what arrives there, by which parts, and what is not sent again."""

from __future__ import annotations

import hashlib
import os
import random

import pytest

from tests.moving.foreign import Answer
from tests.moving.test_import import MIB, put_in_parts
from vaultaire.moving import plans


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    """The sizes at which objects are cut, smaller: S3's own least is 5 MiB."""
    monkeypatch.setattr(plans, "SINGLE_PUT_BYTES", MIB)
    monkeypatch.setattr(plans, "PART_BYTES", 5 * MIB)


def seed(foreign, subject):
    """Objects of all kinds, imported: they come with times, parts, metadata and tags."""
    rng = random.Random(5)
    s3 = foreign.client()
    s3.create_bucket(Bucket="old")
    s3.put_object(
        Bucket="old", Key="with/all", Body=b"x" * 9000, ContentType="text/x-odd", CacheControl="no-cache",
        Metadata={"who": "me"}, Tagging="a=1&b=two%20words", StorageClass="STANDARD_IA",
    )  # fmt: skip
    s3.put_object(Bucket="old", Key="empty", Body=b"")
    s3.put_object(Bucket="old", Key="large", Body=rng.randbytes(5 * MIB + 5))
    put_in_parts(s3, "old", "parts", rng.randbytes(5 * MIB), b"tail")
    assert subject.report("import", "s3://old")["objects"] == 4
    return s3


def listing(s3, bucket):
    return {
        item["Key"]: (item["Size"], item["ETag"]) for item in s3.list_objects_v2(Bucket=bucket)["Contents"]
    }


def test_objects_go_as_they_are_and_nothing_is_sent_twice(foreign, subject):
    s3 = seed(foreign, subject)
    foreign.log.clear()

    report = subject.report("export", "s3://new", "--from", "old", "--storage-classes")

    assert (report["objects"], report["failed"]) == (4, 0)
    assert report["verified"] == {"md5": 2, "parts": 2}
    old, new = listing(s3, "old"), listing(s3, "new")
    large = s3.get_object(Bucket="old", Key="large")["Body"].read()
    digests = [
        hashlib.md5(large[i : i + plans.PART_BYTES]).digest() for i in range(0, len(large), plans.PART_BYTES)
    ]
    old["large"] = (len(large), f'"{hashlib.md5(b"".join(digests)).hexdigest()}-2"')
    assert new == old
    for key in old:
        body = s3.get_object(Bucket="new", Key=key)["Body"].read()
        assert body == s3.get_object(Bucket="old", Key=key)["Body"].read()
    found = s3.get_object(Bucket="new", Key="with/all")
    assert (found["ContentType"], found["CacheControl"], found["Metadata"]) == (
        "text/x-odd",
        "no-cache",
        {"who": "me"},
    )
    assert found["StorageClass"] == "STANDARD_IA"
    tags = s3.get_object_tagging(Bucket="new", Key="with/all")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"a": "1", "b": "two words"}
    assert all("content-md5" in request.headers for request in foreign.log if request.sends_body)

    foreign.log.clear()
    report = subject.report("export", "s3://new", "--from", "old")
    assert (report["objects"], report["done_objects"]) == (0, 4)
    assert foreign.bodies_sent() == []


def test_what_is_newer_there_is_kept_and_what_changed_here_is_sent(foreign, subject):
    s3 = seed(foreign, subject)
    subject.report("export", "s3://new/p/", "--from", "old")
    assert set(listing(s3, "new")) == {"p/with/all", "p/empty", "p/large", "p/parts"}
    foreign.change("new", "p/empty", b"written there", seconds=60)
    foreign.change("new", "p/with/all", b"older", seconds=-86400)
    foreign.log.clear()
    report = subject.report("export", "s3://new/p/", "--from", "old")
    assert (report["objects"], report["kept_keys"]) == (1, ["empty"])
    assert foreign.bodies_sent() == ["/new/p/with/all"]
    assert subject.report("export", "s3://new/p/", "--from", "old", "--overwrite", "always")["objects"] == 1
    assert listing(s3, "new")["p/empty"][0] == 0


def test_a_dry_run_changes_nothing(foreign, subject, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_bytes(b"x")
    subject.report("import", str(tmp_path / "files"), "--into", "old")
    report = subject.report("export", "s3://new", "--from", "old", "--dry-run")
    assert report["objects"] == 1
    assert not foreign.backend.buckets
    subject.report("import", str(tmp_path / "files"), "--into", "more/")
    assert subject.report("export", "s3://", "--all-buckets")["objects"] == 2
    assert {name: list(bucket.keys) for name, bucket in foreign.backend.buckets.items()} == {
        "old": ["a"],
        "more": ["a"],
    }


def test_a_target_that_misbehaves(foreign, subject, monkeypatch):
    monkeypatch.setattr("vaultaire.moving.transport.backoff_seconds", lambda *_: 0)
    s3 = seed(foreign, subject)
    asked = {}

    def fault(request, answer):
        if not request.sends_body or not answer.status.startswith("2"):
            return answer
        count = asked[request.path] = asked.get(request.path, 0) + 1
        if request.path == "/new/with/all" and count == 1:
            return Answer.error("503 Slow Down", "SlowDown")
        if request.path == "/new/parts" and "partNumber" in request.query:
            return Answer.error("403 Forbidden", "AccessDenied")
        if request.path == "/new/empty":
            return Answer(
                answer.status,
                [(n, v) for n, v in answer.headers if n.lower() != "etag"] + [("ETag", f'"{"0" * 32}"')],
                b"",
            )
        return answer

    foreign.fault = fault
    report = subject.report("export", "s3://new", "--from", "old", status=1)
    failures = {failed["key"]: failed["why"] for failed in report["failures"]}
    assert failures.keys() == {"parts", "empty"}
    assert "AccessDenied" in failures["parts"]
    assert "other bytes" in failures["empty"]
    assert report["retries"] >= 1
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="new"), "a failed upload is not left there"
    foreign.fault = lambda request, answer: answer
    assert subject.report("export", "s3://new", "--from", "old")["failed"] == 0


def test_a_bucket_that_is_not_here_is_told(subject):
    result = subject.run("export", "s3://nothing")
    assert result.exit_code == 1
    assert "this store has no bucket nothing" in result.stderr
    assert subject.run("export", "s3://").exit_code == 2
    assert subject.run("export", "/tmp/x").exit_code == 2


# --- folders -------------------------------------------------------------------------------------------------------


def test_a_folder_comes_in_and_goes_out_again(alone, tmp_path):
    folder = tmp_path / "files"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "page.html").write_bytes(b"<p>")
    (folder / "a.txt").write_bytes(b"sorts before a/")
    (folder / "große datei").write_bytes(os.urandom(9 * MIB))
    (folder / "empty").write_bytes(b"")
    (folder / "link").symlink_to(folder / "a.txt")
    (folder / "out").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    with open(os.path.join(os.fsencode(folder), b"not-utf8-\xff"), "wb"):
        pass

    report = alone.report("import", str(folder), "--into", "ours/pre/", status=1)

    assert report["objects"] == 4
    assert report["notes"] == {"symbolic links, not followed": 2, "sockets, pipes and devices": 1}
    assert "UTF-8" in report["failures"][0]["why"]
    found = alone.objects("ours")
    assert set(found) == {b"pre/a/b/page.html", b"pre/a.txt", "pre/große datei".encode(), b"pre/empty"}
    record, body = found[b"pre/a/b/page.html"]
    assert (record.content_type, body) == ("text/html", b"<p>")
    assert record.modified_ms == (folder / "a/b/page.html").stat().st_mtime_ns // 1_000_000
    assert record.etag == hashlib.md5(b"<p>").hexdigest()
    (folder / "a.txt").write_bytes(b"newer")
    os.utime(folder / "a.txt", (2_000_000_000, 2_000_000_000))
    report = alone.report("import", str(folder), "--into", "ours/pre/", status=1)
    assert (report["objects"], report["done_objects"]) == (1, 3)

    out = tmp_path / "out"
    assert alone.report("export", str(out), "--from", "ours/pre/")["objects"] == 4
    for name in ("a/b/page.html", "a.txt", "große datei", "empty"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
        assert (out / name).stat().st_mtime_ns // 1_000_000 == (folder / name).stat().st_mtime_ns // 1_000_000
    report = alone.report("export", str(out), "--from", "ours/pre/")
    assert (report["objects"], report["done_objects"]) == (0, 4)
    assert alone.run("import", str(tmp_path / "nowhere"), "--into", "b").exit_code == 1


def test_keys_that_are_no_paths_are_named_and_nothing_is_written_outside(foreign, subject, tmp_path):
    foreign.client().create_bucket(Bucket="old")
    bad = ["../up", "a/../b", "./c", "folder/", "d//e", "n" * 300, "a/file/below"]
    for key in [*bad, "a/file", "good"]:
        foreign.backend.put_object("old", key, key.encode())
    # moto's own paths do not know all of these keys: they come through a folder of another name
    subject.report("import", "s3://old", status=subject.run("import", "s3://old").exit_code)
    have = {key.decode() for key in subject.objects("old")}
    report = subject.report("export", str(tmp_path / "deep" / "out"), "--from", "old", status=1)
    failed = {failure["key"] for failure in report["failures"]}
    # Of a file and a folder of one name, whichever comes first is there.
    lost = "a/file" if "a/file" in failed else "a/file/below"
    never = {*bad, lost} - {"a/file/below"} | {lost}
    written = {
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.is_file() and "data" not in path.parts
    }
    assert failed == have & never
    assert written == {f"deep/out/{key}" for key in have - never}


def test_a_file_in_the_place_of_a_folder_fails_alone(alone, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).write_bytes(name.encode())
    alone.report("import", str(folder), "--into", "ours")
    out = tmp_path / "out"
    (out / "one").mkdir(parents=True)
    report = alone.report("export", str(out), "--from", "ours", status=1)
    assert [failure["key"] for failure in report["failures"]] == ["one"]
    assert (out / "two").read_bytes() == b"two"
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
