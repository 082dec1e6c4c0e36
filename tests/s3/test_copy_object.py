"""CopyObject. https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html"""

from __future__ import annotations

import time

import pytest

from tests.s3.conftest import new_bucket_name
from tests.s3.expect import keys_of, read, s3_error
from tests.s3.wire import assert_error, md5

MIB = 1 << 20
OTHER = '"0123456789abcdef0123456789abcdef"'
PAST, FUTURE = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"


@pytest.mark.subset
@pytest.mark.parametrize("size", [0, 1, 4096, 3 * MIB + 7])
def test_copy_object_is_the_same_bytes_and_etag(s3, bucket, rng, size):
    data = rng.randbytes(size)
    s3.put_object(Bucket=bucket, Key="a", Body=data)
    result = s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})
    assert result["CopyObjectResult"]["ETag"] == f'"{md5(data)}"'
    assert result["CopyObjectResult"]["LastModified"]
    assert read(s3, bucket, "b") == data == read(s3, bucket, "a")


def test_copy_object_survives_the_end_of_its_source(s3, bucket, rng):
    data = rng.randbytes(MIB)
    s3.put_object(Bucket=bucket, Key="a", Body=data)
    s3.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a")
    s3.put_object(Bucket=bucket, Key="a", Body=b"other")
    s3.delete_object(Bucket=bucket, Key="a")
    assert read(s3, bucket, "b") == data


def test_copy_object_to_another_bucket(s3, bucket):
    other = new_bucket_name("copy-target")
    s3.create_bucket(Bucket=other)
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    s3.copy_object(Bucket=other, Key="deep/b", CopySource=f"{bucket}/a")
    assert read(s3, other, "deep/b") == b"x"


@pytest.mark.parametrize("key", ["k1 é+x", "a%2Fb", "q?x=1&y=2", "dir//file", "percent%25", "ünï/🎉"])
def test_copy_object_source_is_percent_decoded_once(root, s3, bucket, key):
    from urllib.parse import quote

    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for slash in ("", "/"):
        source = f"{slash}{bucket}/{quote(key)}"
        answer = root.call("PUT", f"/{bucket}/copy", headers=[("x-amz-copy-source", source)])
        assert answer.status == 200, answer
        assert read(s3, bucket, "copy") == key.encode()


@pytest.mark.subset
def test_copy_object_copies_or_replaces_metadata(s3, bucket):
    source = f"{bucket}/a"
    s3.put_object(
        Bucket=bucket, Key="a", Body=b"x", Metadata={"m": "1"}, ContentType="text/a", CacheControl="c"
    )
    s3.copy_object(Bucket=bucket, Key="same", CopySource=source, Metadata={"ignored": "yes"})
    s3.copy_object(
        Bucket=bucket,
        Key="new",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"n": "2"},
        ContentType="text/b",
    )
    same, new = (s3.head_object(Bucket=bucket, Key=key) for key in ("same", "new"))
    assert (same["Metadata"], same["ContentType"], same["CacheControl"]) == ({"m": "1"}, "text/a", "c")
    assert (new["Metadata"], new["ContentType"], new.get("CacheControl")) == ({"n": "2"}, "text/b", None)


def test_copy_object_onto_itself_needs_a_change(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"m": "1"})
    before = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    with s3_error(400, "InvalidRequest"):
        s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k")
    time.sleep(1.1)  # Last-Modified is told in whole seconds
    s3.copy_object(
        Bucket=bucket, Key="k", CopySource=f"{bucket}/k", MetadataDirective="REPLACE", Metadata={"m": "2"}
    )
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["Metadata"], head["ContentLength"]) == ({"m": "2"}, 1)
    assert head["LastModified"] > before
    assert read(s3, bucket, "k") == b"x"


def test_copy_object_with_an_unknown_directive_is_refused(root, bucket):
    root.call("PUT", f"/{bucket}/a", body=b"x")
    headers = [("x-amz-copy-source", f"{bucket}/a"), ("x-amz-metadata-directive", "SOMETIMES")]
    assert_error(root.call("PUT", f"/{bucket}/b", headers=headers), 400, "InvalidArgument")


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        ("{bucket}/missing", 404, "NoSuchKey"),
        ("no-such-bucket-anywhere/k", 404, "NoSuchBucket"),
        ("{bucket}", 400, "InvalidArgument"),
        ("{bucket}/", 400, "InvalidArgument"),
        ("", 400, "InvalidArgument"),
        ("/", 400, "InvalidArgument"),
    ],
)
def test_copy_object_from_nowhere_is_refused(root, bucket, source, status, code):
    headers = [("x-amz-copy-source", source.format(bucket=bucket))]
    assert_error(root.call("PUT", f"/{bucket}/copy", headers=headers), status, code)
    assert root.call("HEAD", f"/{bucket}/copy").status == 404


def test_copy_object_of_the_null_version(root, bucket):
    root.call("PUT", f"/{bucket}/a", body=b"x")
    headers = [("x-amz-copy-source", f"{bucket}/a?versionId=null")]
    assert root.call("PUT", f"/{bucket}/b", headers=headers).status == 200
    headers = [("x-amz-copy-source", f"{bucket}/a?versionId=3sL4kqtJlcpXroDTDmJ-rmSpXd3dIbrHY")]
    assert root.call("PUT", f"/{bucket}/c", headers=headers).status in (400, 404)


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"if-match": "ETAG"}, 200),
        ({"if-match": OTHER}, 412),
        ({"if-none-match": OTHER}, 200),
        ({"if-none-match": "ETAG"}, 412),
        ({"if-modified-since": PAST}, 200),
        ({"if-unmodified-since": FUTURE}, 200),
        ({"if-unmodified-since": PAST}, 412),
        ({"if-match": "ETAG", "if-unmodified-since": PAST}, 200),
        ({"if-none-match": "ETAG", "if-modified-since": PAST}, 412),
    ],
)
def test_copy_object_conditions_on_its_source(root, bucket, conditions, status):
    etag = root.call("PUT", f"/{bucket}/a", body=b"x").headers["etag"]
    headers = [("x-amz-copy-source", f"{bucket}/a")]
    for name, value in conditions.items():
        headers.append((f"x-amz-copy-source-{name}", etag if value == "ETAG" else value))
    answer = root.call("PUT", f"/{bucket}/b", headers=headers)
    if status == 200:
        assert answer.status == 200, answer
    else:
        assert_error(answer, 412, "PreconditionFailed")
        assert root.call("HEAD", f"/{bucket}/b").status == 404


def test_copy_object_of_a_multipart_object(s3, bucket, rng):
    bodies = [rng.randbytes(5 * MIB), rng.randbytes(99)]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="mp", ContentType="text/mp")["UploadId"]
    parts = []
    for n, body in enumerate(bodies, 1):
        etag = s3.upload_part(Bucket=bucket, Key="mp", UploadId=upload, PartNumber=n, Body=body)["ETag"]
        parts.append({"PartNumber": n, "ETag": etag})
    s3.complete_multipart_upload(Bucket=bucket, Key="mp", UploadId=upload, MultipartUpload={"Parts": parts})
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/mp")
    assert read(s3, bucket, "copy") == b"".join(bodies)
    assert s3.head_object(Bucket=bucket, Key="copy")["ContentType"] == "text/mp"
    assert keys_of(s3, bucket) == ["copy", "mp"]


def test_copy_object_costs_metadata_only(server, s3, bucket, rng):
    s3.put_object(Bucket=bucket, Key="a", Body=rng.randbytes(16 * MIB))
    before = server.stats()["stored_bytes"]
    for n in range(5):
        s3.copy_object(Bucket=bucket, Key=f"copy-{n}", CopySource=f"{bucket}/a")
    assert server.stats()["stored_bytes"] - before < MIB
