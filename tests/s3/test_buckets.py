"""ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html for the names.
"""

from __future__ import annotations

import datetime
from contextlib import suppress

import pytest

from tests.s3.conftest import new_bucket_name
from tests.s3.expect import s3_error
from tests.s3.wire import NAMESPACE, assert_error

ILLEGAL_NAMES = [
    "ab",
    "a" * 64,
    "Upper-case",
    "under_score",
    "192.168.5.4",
    ".leading-dot",
    "trailing-dot.",
    "-leading-hyphen",
    "trailing-hyphen-",
    "two..dots",
    "xn--punycode",
    "sthree-reserved",
    "access-point-s3alias",
    "object-lambda--ol-s3",
    "sp%20ace",
    "%C3%BCmlaut",
]


@pytest.mark.subset
def test_create_bucket_then_head_list_and_delete(s3):
    name = new_bucket_name("life-of-a-bucket")
    assert s3.create_bucket(Bucket=name)["Location"] == f"/{name}"
    head = s3.head_bucket(Bucket=name)
    assert head["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "us-east-1"
    assert name in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    assert s3.delete_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert name not in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    with s3_error(404, "NoSuchBucket"):
        s3.delete_bucket(Bucket=name)


def test_create_bucket_again_keeps_its_objects(s3, bucket):
    s3.put_object(Bucket=bucket, Key="kept", Body=b"x")
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):  # S3 answers 200 in us-east-1, 409 elsewhere
        s3.create_bucket(Bucket=bucket)
    assert s3.head_object(Bucket=bucket, Key="kept")["ContentLength"] == 1


@pytest.mark.parametrize("name", ILLEGAL_NAMES)
def test_create_bucket_with_an_illegal_name_is_refused(root, name):
    assert_error(root.call("PUT", f"/{name}"), 400, "InvalidBucketName")


@pytest.mark.parametrize("name", ["abc", "a" * 63, "with.dots.in-it", "0-9", "1.2.3.4.5"])
def test_create_bucket_with_an_unusual_legal_name(root, name):
    assert root.call("PUT", f"/{name}").status == 200
    assert root.call("DELETE", f"/{name}").status == 204


def test_create_bucket_accepts_a_trailing_slash_and_the_lock_header_off(root):
    name = new_bucket_name("as-rclone-does-it")
    headers = [("x-amz-bucket-object-lock-enabled", "false"), ("x-amz-acl", "private")]
    assert root.call("PUT", f"/{name}/", headers=headers).status == 200
    assert root.call("HEAD", f"/{name}").status == 200


def test_create_bucket_in_another_region_is_refused(root):
    name = new_bucket_name("elsewhere")
    body = _location("eu-west-7")
    assert_error(
        root.call("PUT", f"/{name}", body=body),
        400,
        "IllegalLocationConstraintException",
        "InvalidLocationConstraint",
    )
    assert root.call("HEAD", f"/{name}").status == 404


def test_create_bucket_with_malformed_configuration_is_refused(root):
    name = new_bucket_name("malformed")
    assert_error(root.call("PUT", f"/{name}", body=b"<CreateBucketConfiguration>"), 400, "MalformedXML")
    assert root.call("HEAD", f"/{name}").status == 404


def _location(region: str) -> bytes:
    return (
        '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
    ).encode()


def test_head_bucket_that_does_not_exist_has_no_body(root):
    answer = root.call("HEAD", "/no-such-bucket-anywhere")
    assert (answer.status, answer.body) == (404, b"")
    assert answer.headers["x-amz-request-id"]


@pytest.mark.subset
def test_get_bucket_location_is_empty_for_the_default_region(root, s3, bucket):
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    answer = root.call("GET", f"/{bucket}/", query="location=")
    assert answer.xml.tag == f"{NAMESPACE}LocationConstraint"
    assert_error(root.call("GET", "/no-such-bucket-anywhere", query="location"), 404, "NoSuchBucket")


def test_delete_bucket_that_holds_an_object_is_refused(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k")
    with s3_error(409, "BucketNotEmpty"):
        s3.delete_bucket(Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)


def test_a_bucket_made_again_under_an_old_name_is_empty(s3, bucket):
    s3.put_object(Bucket=bucket, Key="old", Body=b"old")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="open")
    s3.abort_multipart_upload(Bucket=bucket, Key="open", UploadId=upload["UploadId"])
    s3.delete_object(Bucket=bucket, Key="old")
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    with s3_error(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="old")


def test_list_buckets_is_sorted_dated_and_owned(s3):
    names = [new_bucket_name(hint) for hint in ("zz", "aa", "mm")]
    for name in names:
        s3.create_bucket(Bucket=name)
    listed = s3.list_buckets()
    found = [b["Name"] for b in listed["Buckets"]]
    assert set(names) <= set(found)
    assert found == sorted(found)
    assert listed["Owner"]["ID"]
    made = next(b["CreationDate"] for b in listed["Buckets"] if b["Name"] == names[0])
    assert abs(datetime.datetime.now(datetime.UTC) - made) < datetime.timedelta(minutes=5)


def test_list_buckets_by_pages_and_prefix(s3):
    names = sorted(f"paged-{n}-{new_bucket_name('x')}" for n in range(5))
    for name in names:
        s3.create_bucket(Bucket=name)
    found, token = [], {}
    while True:
        page = s3.list_buckets(MaxBuckets=2, Prefix="paged-", **token)
        assert len(page["Buckets"]) <= 2
        found += [b["Name"] for b in page["Buckets"]]
        if "ContinuationToken" not in page:
            break
        token = {"ContinuationToken": page["ContinuationToken"]}
    assert found == names


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "", ""),
        ("GET", "", "list-type=2"),
        ("GET", "", "versions"),
        ("GET", "", "uploads"),
        ("GET", "/key", ""),
        ("PUT", "/key", ""),
        ("DELETE", "/key", ""),
        ("POST", "/key", "uploads"),
        ("DELETE", "", ""),
    ],
)
def test_everything_in_a_missing_bucket_is_no_such_bucket(root, method, path, query):
    answer = root.call(method, f"/no-such-bucket-anywhere{path}", query=query)
    assert_error(answer, 404, "NoSuchBucket")
    assert answer.text("BucketName") in ("no-such-bucket-anywhere", "")
