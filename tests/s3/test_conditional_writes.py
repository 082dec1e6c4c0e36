"""If-Match and If-None-Match on what writes: PutObject, CompleteMultipartUpload, CopyObject, DeleteObject.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html and conditional-deletes.html
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.s3.expect import assert_refused, read, s3_error
from tests.s3.wire import assert_error

LOST = ("PreconditionFailed", "ConditionalRequestConflict")
OTHER = '"0123456789abcdef0123456789abcdef"'


@pytest.mark.subset
def test_put_object_if_none_match_creates_once(s3, bucket):
    s3.put_object(Bucket=bucket, Key="lock", Body=b"first", IfNoneMatch="*")
    with s3_error(412, "PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="lock", Body=b"second", IfNoneMatch="*")
    assert read(s3, bucket, "lock") == b"first"
    s3.delete_object(Bucket=bucket, Key="lock")
    s3.put_object(Bucket=bucket, Key="lock", Body=b"third", IfNoneMatch="*")


@pytest.mark.subset
def test_put_object_if_match_replaces_only_what_it_names(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"one")["ETag"]
    with s3_error(412, "PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"two", IfMatch=OTHER)
    assert read(s3, bucket, "k") == b"one"
    s3.put_object(Bucket=bucket, Key="k", Body=b"two", IfMatch=etag)
    with s3_error(412, "PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"three", IfMatch=etag)
    assert read(s3, bucket, "k") == b"two"


def test_put_object_if_match_without_quotes(root, bucket):
    etag = root.call("PUT", f"/{bucket}/k", body=b"one").headers["etag"].strip('"')
    assert root.call("PUT", f"/{bucket}/k", headers=[("If-Match", etag)], body=b"two").status == 200


def test_put_object_if_match_of_nothing_is_no_such_key(s3, bucket):
    with s3_error(404, "NoSuchKey"):
        s3.put_object(Bucket=bucket, Key="nothing", Body=b"x", IfMatch=OTHER)
    with s3_error(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="nothing")


def test_put_object_of_a_large_body_that_fails_its_condition_changes_nothing(root, bucket, rng):
    root.call("PUT", f"/{bucket}/k", body=b"kept")
    body = rng.randbytes(3 << 20)
    request = root.sign("PUT", f"/{bucket}/k", headers=[("If-None-Match", "*")], body=body)
    assert_refused(root, request, 412, "PreconditionFailed")
    assert root.call("GET", f"/{bucket}/k").body == b"kept"


@pytest.mark.parametrize("size", [10, 100_000])
def test_put_object_if_none_match_by_many_at_once_has_one_winner(s3, bucket, rng, size):
    bodies = [rng.randbytes(size) for _ in range(12)]

    def attempt(body: bytes) -> bytes | None:
        try:
            s3.put_object(Bucket=bucket, Key="lock", Body=body, IfNoneMatch="*")
        except s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in LOST:
                raise
            return None
        return body

    with ThreadPoolExecutor(12) as pool:
        winners = [body for body in pool.map(attempt, bodies) if body is not None]
    assert len(winners) == 1
    assert read(s3, bucket, "lock") == winners[0]


def test_put_object_if_match_by_many_at_once_loses_no_update(s3, bucket):
    """A counter behind compare-and-swap: each success saw the value it replaced."""
    s3.put_object(Bucket=bucket, Key="counter", Body=b"0")

    def add(times: int) -> int:
        successes = 0
        for _ in range(times):
            now = s3.get_object(Bucket=bucket, Key="counter")
            value = int(now["Body"].read())
            try:
                s3.put_object(Bucket=bucket, Key="counter", Body=b"%d" % (value + 1), IfMatch=now["ETag"])
            except s3.exceptions.ClientError as error:
                if error.response["Error"]["Code"] not in LOST:
                    raise
            else:
                successes += 1
        return successes

    with ThreadPoolExecutor(6) as pool:
        successes = sum(pool.map(add, [15] * 6))
    assert successes > 0
    assert int(read(s3, bucket, "counter")) == successes


@pytest.mark.subset
def test_complete_multipart_upload_conditions(s3, bucket, rng):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"before")["ETag"]
    data = rng.randbytes(1000)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=data)["ETag"]
    complete = {
        "Bucket": bucket,
        "Key": "k",
        "UploadId": upload,
        "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": part}]},
    }
    with s3_error(412, "PreconditionFailed"):
        s3.complete_multipart_upload(**complete, IfNoneMatch="*")
    with s3_error(412, "PreconditionFailed"):
        s3.complete_multipart_upload(**complete, IfMatch=OTHER)
    assert read(s3, bucket, "k") == b"before"
    s3.complete_multipart_upload(**complete, IfMatch=etag)
    assert read(s3, bucket, "k") == data


def test_copy_object_conditions_on_its_destination(root, bucket):
    root.call("PUT", f"/{bucket}/source", body=b"new")
    etag = root.call("PUT", f"/{bucket}/target", body=b"old").headers["etag"]
    source = ("x-amz-copy-source", f"/{bucket}/source")
    for condition in (("If-None-Match", "*"), ("If-Match", OTHER)):
        answer = root.call("PUT", f"/{bucket}/target", headers=[source, condition])
        assert_error(answer, 412, "PreconditionFailed")
    assert root.call("GET", f"/{bucket}/target").body == b"old"
    assert root.call("PUT", f"/{bucket}/target", headers=[source, ("If-Match", etag)]).status == 200
    assert root.call("GET", f"/{bucket}/target").body == b"new"
    answer = root.call("PUT", f"/{bucket}/fresh", headers=[source, ("If-None-Match", "*")])
    assert answer.status == 200


@pytest.mark.subset
def test_delete_object_if_match_deletes_only_what_it_names(root, bucket):
    etag = root.call("PUT", f"/{bucket}/lock", body=b"x").headers["etag"]
    answer = root.call("DELETE", f"/{bucket}/lock", headers=[("If-Match", OTHER)])
    assert_error(answer, 412, "PreconditionFailed")
    assert root.call("HEAD", f"/{bucket}/lock").status == 200
    assert root.call("DELETE", f"/{bucket}/lock", headers=[("If-Match", etag)]).status == 204
    assert root.call("HEAD", f"/{bucket}/lock").status == 404


def test_delete_object_if_match_any_needs_an_object(root, bucket):
    root.call("PUT", f"/{bucket}/k", body=b"x")
    assert root.call("DELETE", f"/{bucket}/k", headers=[("If-Match", "*")]).status == 204
    answer = root.call("DELETE", f"/{bucket}/k", headers=[("If-Match", "*")])
    assert answer.status in (404, 412)


def test_delete_objects_if_match_per_key(s3, bucket):
    right = s3.put_object(Bucket=bucket, Key="a", Body=b"a")["ETag"]
    s3.put_object(Bucket=bucket, Key="b", Body=b"b")
    wanted = [{"Key": "a", "ETag": right}, {"Key": "b", "ETag": OTHER}]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted})
    assert [entry["Key"] for entry in answer.get("Deleted", ())] == ["a"]
    assert [(entry["Key"], entry["Code"]) for entry in answer["Errors"]] == [("b", "PreconditionFailed")]
    assert read(s3, bucket, "b") == b"b"
