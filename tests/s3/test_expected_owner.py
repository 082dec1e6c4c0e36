"""`x-amz-expected-bucket-owner`: whoever names the owner of a bucket is refused if it is another.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
"""

from __future__ import annotations

import pytest

from tests.s3.expect import keys_of, s3_error
from tests.s3.wire import assert_error

OWNER = "root"


@pytest.mark.subset
def test_the_owner_that_is_expected_may_be_named(s3, bucket):
    s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=OWNER)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ExpectedBucketOwner=OWNER)
    assert s3.get_object(Bucket=bucket, Key="k", ExpectedBucketOwner=OWNER)["Body"].read() == b"x"
    s3.delete_object(Bucket=bucket, Key="k", ExpectedBucketOwner=OWNER)
    assert keys_of(s3, bucket, ExpectedBucketOwner=OWNER) == []


@pytest.mark.subset
@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("put_object", {"Key": "new", "Body": b"x"}),
        ("get_object", {"Key": "k"}),
        ("delete_object", {"Key": "k"}),
        ("delete_objects", {"Delete": {"Objects": [{"Key": "k"}]}}),
        ("list_objects_v2", {}),
        ("create_multipart_upload", {"Key": "new"}),
        ("put_object_tagging", {"Key": "k", "Tagging": {"TagSet": []}}),
        ("get_bucket_policy", {}),
        ("get_bucket_website", {}),
        ("delete_bucket", {}),
    ],
)
def test_another_owner_than_expected_is_refused_before_anything(s3, bucket, operation, arguments):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with s3_error(403, "AccessDenied"):
        getattr(s3, operation)(Bucket=bucket, ExpectedBucketOwner="111122223333", **arguments)
    assert keys_of(s3, bucket) == ["k"]


def test_head_bucket_of_another_owner(s3, bucket):
    with s3_error(403, "403"):
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="111122223333")


def test_a_bucket_that_is_not_there_has_no_owner(s3):
    with s3_error(404, "NoSuchBucket"):
        s3.list_objects_v2(Bucket="no-such-bucket-here", ExpectedBucketOwner="111122223333")


def test_a_presigned_url_may_name_the_owner(root, s3, bucket):
    """As SDKs presign it: the header is moved into the query."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for owner, status in ((OWNER, 200), ("other", 403)):
        query = [("x-amz-expected-bucket-owner", owner)]
        assert root.exchange(root.presign("GET", f"/{bucket}/k", query=query)).status == status


@pytest.mark.parametrize(("source", "status"), [(OWNER, 200), ("111122223333", 403)])
def test_the_owner_of_a_copys_source(s3, bucket, source, status):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    named = {"Bucket": bucket, "CopySource": f"{bucket}/k", "ExpectedSourceBucketOwner": source}
    copies = (
        lambda: s3.copy_object(Key="copy", ExpectedBucketOwner=OWNER, **named),
        lambda: s3.upload_part_copy(Key="parts", UploadId=upload, PartNumber=1, **named),
    )
    for copy in copies:
        if status == 200:
            copy()
        else:
            with s3_error(403, "AccessDenied"):
                copy()
    assert ("copy" in keys_of(s3, bucket)) is (status == 200)


def test_strangers_learn_no_owner(new_key, bucket):
    """Right or wrong, who may not is told the same."""
    stranger = new_key("stranger")
    for owner in (OWNER, "other"):
        answer = stranger.call("GET", f"/{bucket}", headers=[("x-amz-expected-bucket-owner", owner)])
        assert_error(answer, 403, "AccessDenied")
