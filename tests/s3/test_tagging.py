"""Tags of objects and buckets: by header and by sub-resource, on every way an object comes into being.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
"""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.s3.conftest import new_bucket_name
from tests.s3.expect import read, s3_error
from tests.s3.wire import assert_error

TAGS = [{"Key": "team", "Value": "storage"}, {"Key": "a b", "Value": "é/@"}]
HEADER = urlencode([(tag["Key"], tag["Value"]) for tag in TAGS])


def tags_of(s3, bucket, key):
    return s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]


def tagging(*pairs) -> bytes:
    rows = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in pairs)
    return f"<Tagging><TagSet>{rows}</TagSet></Tagging>".encode()


@pytest.mark.subset
def test_put_object_keeps_the_tags_of_its_header(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging=HEADER)
    assert tags_of(s3, bucket, "k") == TAGS
    assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2
    assert s3.head_object(Bucket=bucket, Key="k")["TagCount"] == 2
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert tags_of(s3, bucket, "k") == []
    assert "TagCount" not in s3.get_object(Bucket=bucket, Key="k")


@pytest.mark.subset
def test_put_object_tagging_replaces_all_tags_and_nothing_else(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 10_000, Metadata={"m": "1"}, Tagging="old=1")
    before = s3.head_object(Bucket=bucket, Key="k")
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": TAGS})
    assert tags_of(s3, bucket, "k") == TAGS
    after = s3.head_object(Bucket=bucket, Key="k")
    for name in ("ETag", "LastModified", "ContentLength", "Metadata"):
        assert before[name] == after[name]
    assert read(s3, bucket, "k") == b"x" * 10_000
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]


@pytest.mark.subset
def test_delete_object_tagging_removes_all_tags(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Tagging=HEADER)
    for _ in range(2):
        assert s3.delete_object_tagging(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert tags_of(s3, bucket, "k") == []


def test_object_tagging_of_a_key_longer_than_a_segment(s3, bucket):
    key = "k" * 1000
    s3.put_object(Bucket=bucket, Key=key)
    s3.put_object_tagging(Bucket=bucket, Key=key, Tagging={"TagSet": TAGS})
    assert tags_of(s3, bucket, key) == TAGS


@pytest.mark.parametrize("operation", ["get", "put", "delete"])
def test_object_tagging_of_a_missing_object_or_bucket(s3, bucket, operation):
    call = getattr(s3, f"{operation}_object_tagging")
    rest = {"Tagging": {"TagSet": TAGS}} if operation == "put" else {}
    with s3_error(404, "NoSuchKey"):
        call(Bucket=bucket, Key="missing", **rest)
    with s3_error(404, "NoSuchBucket"):
        call(Bucket="no-such-bucket-here", Key="k", **rest)
    s3.put_object(Bucket=bucket, Key="k")
    with s3_error(404, "NoSuchVersion"):
        call(Bucket=bucket, Key="k", VersionId="00" * 16, **rest)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (tagging(*((f"k{n}", "v") for n in range(11))), "InvalidTag"),
        (tagging(("k", "1"), ("k", "2")), "InvalidTag"),
        (tagging(("", "1")), "InvalidTag"),
        (tagging(("k" * 129, "1")), "InvalidTag"),
        (tagging(("k", "v" * 257)), "InvalidTag"),
        (tagging(("aws:k", "v")), "InvalidTag"),
        (tagging(("k", "a*b")), "InvalidTag"),
        (b"<Tagging/>", "MalformedXML"),
        (b"<Other/>", "MalformedXML"),
        (b"", "MissingRequestBodyError"),
    ],
)
def test_put_object_tagging_refuses_bad_tags_and_changes_nothing(root, s3, bucket, body, code):
    s3.put_object(Bucket=bucket, Key="k", Tagging="kept=1")
    assert_error(root.call("PUT", f"/{bucket}/k", query="tagging", body=body), 400, code)
    assert tags_of(s3, bucket, "k") == [{"Key": "kept", "Value": "1"}]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("a=1&a=2", "InvalidArgument"),
        ("a=%zz", "InvalidArgument"),
        ("=1", "InvalidArgument"),
        ("a=%3C", "InvalidTag"),
    ],
)
def test_put_object_refuses_a_bad_tagging_header(root, bucket, header, code):
    answer = root.call("PUT", f"/{bucket}/k", headers=[("x-amz-tagging", header)], body=b"x")
    assert_error(answer, 400, code)
    assert root.call("HEAD", f"/{bucket}/k").status == 404


@pytest.mark.subset
def test_copy_object_takes_tags_along_unless_told_to_replace_them(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging=HEADER)
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="copied", CopySource=source)
    s3.copy_object(Bucket=bucket, Key="ignored", CopySource=source, Tagging="new=1")
    s3.copy_object(Bucket=bucket, Key="new", CopySource=source, Tagging="new=1", TaggingDirective="REPLACE")
    s3.copy_object(Bucket=bucket, Key="none", CopySource=source, TaggingDirective="REPLACE")
    assert tags_of(s3, bucket, "copied") == TAGS
    assert tags_of(s3, bucket, "ignored") == TAGS
    assert tags_of(s3, bucket, "new") == [{"Key": "new", "Value": "1"}]
    assert tags_of(s3, bucket, "none") == []
    with s3_error(400, "InvalidArgument"):
        s3.copy_object(Bucket=bucket, Key="bad", CopySource=source, TaggingDirective="MERGE")


def test_a_multipart_upload_carries_its_tags(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", Tagging=HEADER)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="k",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert tags_of(s3, bucket, "k") == TAGS


@pytest.mark.subset
def test_bucket_tagging_round_trip(s3, bucket):
    with s3_error(404, "NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=bucket)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": TAGS})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == TAGS
    s3.delete_bucket_tagging(Bucket=bucket)
    with s3_error(404, "NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=bucket)
    s3.delete_bucket_tagging(Bucket=bucket)


def test_bucket_tagging_takes_fifty_tags_and_no_more(root, s3, bucket):
    fifty = [(f"k{n}", "v") for n in range(50)]
    assert root.call("PUT", f"/{bucket}", query="tagging", body=tagging(*fifty)).status == 204
    more = tagging(*fifty, ("k50", "v"))
    assert_error(root.call("PUT", f"/{bucket}", query="tagging", body=more), 400, "InvalidTag")
    assert len(s3.get_bucket_tagging(Bucket=bucket)["TagSet"]) == 50


def test_create_bucket_keeps_its_tags(s3, root):
    name = new_bucket_name("tagged")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"Tags": TAGS})
    assert s3.get_bucket_tagging(Bucket=name)["TagSet"] == TAGS
    name = new_bucket_name("badly-tagged")
    with s3_error(400, "InvalidTag"):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"Tags": [TAGS[0], TAGS[0]]})
    assert root.call("HEAD", f"/{name}").status == 404


def test_configurations_go_with_their_bucket(s3, root):
    name = new_bucket_name("again")
    s3.create_bucket(Bucket=name)
    s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": TAGS})
    s3.delete_bucket(Bucket=name)
    with s3_error(404, "NoSuchBucket"):
        s3.get_bucket_tagging(Bucket=name)
    s3.create_bucket(Bucket=name)
    with s3_error(404, "NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=name)


def test_tags_survive_a_restart_and_a_rebuild_of_the_metadata(new_server):
    import shutil

    from tests.s3.conftest import make_boto_client

    server = new_server().start()
    s3 = make_boto_client(server)
    s3.create_bucket(Bucket="tagged")
    s3.put_object(Bucket="tagged", Key="k", Tagging=HEADER)
    s3.put_bucket_tagging(Bucket="tagged", Tagging={"TagSet": TAGS})
    server.stop()
    shutil.rmtree(server.data / "meta")
    server.start()
    assert tags_of(s3, "tagged", "k") == TAGS
    assert s3.get_bucket_tagging(Bucket="tagged")["TagSet"] == TAGS
    s3.close()
