"""RenameObject: another key, nothing else changed; conditions on both sides; idempotent by its token.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_RenameObject.html
"""

from __future__ import annotations

import pytest

from tests.s3.expect import contents_of, keys_of, read, s3_error
from tests.s3.wire import assert_error, md5

PAST, FUTURE = "Mon, 12 Oct 2009 17:50:30 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
SOURCE, OTHER = b"the source", b"the destination"


def rename(root, bucket, source, destination, *headers):
    return root.call(
        "PUT",
        f"/{bucket}/{destination}",
        query="renameObject",
        headers=[("x-amz-rename-source", source), *headers],
    )


@pytest.fixture
def two(root, bucket):
    """A source `a` and a destination `b`."""
    root.call("PUT", f"/{bucket}/a", body=SOURCE)
    root.call("PUT", f"/{bucket}/b", body=OTHER)
    return bucket


@pytest.mark.subset
def test_rename_object_keeps_everything_but_the_key(s3, bucket, rng):
    data = rng.randbytes(300_000)
    s3.put_object(
        Bucket=bucket,
        Key="a",
        Body=data,
        ContentType="text/x",
        Metadata={"m": "v"},
        CacheControl="no-cache",
        ChecksumAlgorithm="SHA256",
    )
    before = s3.get_object(Bucket=bucket, Key="a", ChecksumMode="ENABLED")
    s3.rename_object(Bucket=bucket, Key="dir/b", RenameSource="a")
    assert keys_of(s3, bucket) == ["dir/b"]
    after = s3.get_object(Bucket=bucket, Key="dir/b", ChecksumMode="ENABLED")
    assert after["Body"].read() == data
    kept = ("ETag", "LastModified", "ContentType", "Metadata", "CacheControl", "ChecksumSHA256")
    assert [after[name] for name in kept] == [before[name] for name in kept]
    with s3_error(404, "NoSuchKey"):
        read(s3, bucket, "a")


def test_rename_object_replaces_the_destination(s3, two):
    s3.rename_object(Bucket=two, Key="b", RenameSource="a")
    assert contents_of(s3, two) == {"b": (f'"{md5(SOURCE)}"', SOURCE)}


def test_rename_object_of_a_multipart_object_keeps_its_parts(s3, bucket, rng):
    where = {"Bucket": bucket, "Key": "a"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    bodies = [rng.randbytes(5 << 20), b"tail"]
    parts = [
        {"PartNumber": n, "ETag": s3.upload_part(**where, PartNumber=n, Body=body)["ETag"]}
        for n, body in enumerate(bodies, 1)
    ]
    etag = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})["ETag"]
    s3.rename_object(Bucket=bucket, Key="b", RenameSource="a")
    assert s3.get_object(Bucket=bucket, Key="b", PartNumber=2)["Body"].read() == b"tail"
    assert s3.head_object(Bucket=bucket, Key="b")["ETag"] == etag


@pytest.mark.parametrize("spelling", ["a%20b%2Bc", "a%20b+c", "{bucket}/a%20b+c", "/{bucket}/a%20b%2bc"])
def test_rename_object_takes_the_source_as_key_or_with_its_bucket(root, s3, bucket, spelling):
    root.call("PUT", f"/{bucket}/a%20b%2Bc", body=b"x")
    assert rename(root, bucket, spelling.format(bucket=bucket), "new").status == 200
    assert keys_of(s3, bucket) == ["new"]


def test_rename_object_prefers_the_literal_key_over_the_one_behind_the_bucket(root, s3, bucket):
    root.call("PUT", f"/{bucket}/k", body=b"plain")
    root.call("PUT", f"/{bucket}/{bucket}/k", body=b"nested")
    assert rename(root, bucket, f"{bucket}/k", "new").status == 200
    assert keys_of(s3, bucket) == sorted(["k", "new"])
    assert read(s3, bucket, "new") == b"nested"


def test_rename_object_never_reaches_another_bucket(root, s3, two):
    other = f"{two}-o"
    s3.create_bucket(Bucket=other)
    root.call("PUT", f"/{other}/x", body=b"x")
    assert_error(rename(root, two, f"{other}/x", "new"), 404, "NoSuchKey")
    assert_error(rename(root, two, f"/{other}/x", "new"), 404, "NoSuchKey")
    assert (keys_of(s3, two), keys_of(s3, other)) == (["a", "b"], ["x"])


def test_rename_object_of_what_is_not_there(root, s3, two):
    assert_error(rename(root, two, "nothing", "b"), 404, "NoSuchKey")
    assert read(s3, two, "b") == OTHER
    assert_error(rename(root, "no-such-bucket-here", "a", "b"), 404, "NoSuchBucket")


def test_rename_object_onto_itself_is_refused(root, s3, two):
    assert_error(rename(root, two, "a", "a"), 400, "InvalidRequest")
    assert read(s3, two, "a") == SOURCE


@pytest.mark.parametrize("source", ["", "%zz", "%ff"])
def test_rename_object_with_a_malformed_source_is_refused(root, s3, two, source):
    assert_error(rename(root, two, source, "new"), 400, "InvalidArgument")
    assert keys_of(s3, two) == ["a", "b"]


def test_rename_object_without_a_source_is_refused(root, s3, two):
    assert_error(root.call("PUT", f"/{two}/b", query="renameObject"), 400, "InvalidArgument")
    assert read(s3, two, "b") == OTHER


FAILING = [
    ("x-amz-rename-source-if-match", '"other"', "b"),
    ("x-amz-rename-source-if-none-match", "*", "b"),
    ("x-amz-rename-source-if-none-match", md5(SOURCE), "b"),
    ("x-amz-rename-source-if-modified-since", FUTURE, "b"),
    ("x-amz-rename-source-if-unmodified-since", PAST, "b"),
    ("If-Match", md5(SOURCE), "b"),
    ("If-None-Match", "*", "b"),
    ("If-Modified-Since", FUTURE, "b"),
    ("If-Unmodified-Since", PAST, "b"),
    ("If-Match", "*", "new"),
    ("If-Modified-Since", PAST, "new"),
]
HOLDING = [
    ("x-amz-rename-source-if-match", f'"{md5(SOURCE)}"', "b"),
    ("x-amz-rename-source-if-none-match", '"other"', "b"),
    ("x-amz-rename-source-if-modified-since", PAST, "b"),
    ("x-amz-rename-source-if-unmodified-since", FUTURE, "b"),
    ("If-Match", md5(OTHER), "b"),
    ("If-Match", "*", "b"),
    ("If-Modified-Since", PAST, "b"),
    ("If-Unmodified-Since", FUTURE, "b"),
    ("If-None-Match", "*", "new"),
    ("If-Unmodified-Since", PAST, "new"),
]


@pytest.mark.parametrize(("header", "value", "destination"), FAILING)
def test_rename_object_whose_condition_fails_changes_nothing(root, s3, two, header, value, destination):
    answer = rename(root, two, "a", destination, (header, value))
    assert_error(answer, 412, "PreconditionFailed")
    assert answer.text("Condition").lower() == header.lower()
    assert (read(s3, two, "a"), read(s3, two, "b")) == (SOURCE, OTHER)
    assert keys_of(s3, two) == ["a", "b"]


@pytest.mark.parametrize(("header", "value", "destination"), HOLDING)
def test_rename_object_whose_condition_holds_is_done(root, s3, two, header, value, destination):
    assert rename(root, two, "a", destination, (header, value)).status == 200
    assert read(s3, two, destination) == SOURCE


@pytest.mark.subset
def test_rename_object_repeated_with_its_token_changes_nothing_more(root, s3, two):
    token = ("x-amz-client-token", "t" * 64)
    assert rename(root, two, "a", "new", token).status == 200
    root.call("PUT", f"/{two}/a", body=b"another one")  # meanwhile somebody makes a new source
    assert rename(root, two, "a", "new", token).status == 200
    assert (read(s3, two, "a"), read(s3, two, "new")) == (b"another one", SOURCE)
    assert rename(root, two, "a", "new", ("x-amz-client-token", "other")).status == 200
    assert read(s3, two, "new") == b"another one"


def test_rename_object_with_a_token_of_another_request_is_refused(root, s3, two):
    token = ("x-amz-client-token", "t")
    assert rename(root, two, "a", "new", token).status == 200
    for request in (("b", "new"), ("a", "newer")):
        assert_error(rename(root, two, *request, token), 400, "IdempotencyParameterMismatch")
    answer = rename(root, two, "a", "new", token, ("If-None-Match", "*"))
    assert_error(answer, 400, "IdempotencyParameterMismatch")
    assert keys_of(s3, two) == ["b", "new"]


def test_rename_object_that_failed_leaves_its_token_free(root, two):
    token = ("x-amz-client-token", "t")
    assert_error(rename(root, two, "nothing", "new", token), 404, "NoSuchKey")
    assert rename(root, two, "a", "new", token).status == 200


@pytest.mark.parametrize("token", ["", "t" * 65, "with space"])
def test_rename_object_with_a_malformed_token_is_refused(root, s3, two, token):
    assert_error(rename(root, two, "a", "new", ("x-amz-client-token", token)), 400, "InvalidArgument")
    assert keys_of(s3, two) == ["a", "b"]


def test_delete_bucket_after_a_rename_with_a_token(root, s3, two):
    rename(root, two, "a", "b", ("x-amz-client-token", "t"))
    s3.delete_object(Bucket=two, Key="b")
    s3.delete_bucket(Bucket=two)
