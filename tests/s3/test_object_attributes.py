"""GetObjectAttributes: what was asked for, and nothing else; parts in pages.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html
"""

from __future__ import annotations

import base64
import hashlib

import pytest

from tests.s3.expect import s3_error
from tests.s3.wire import assert_error, md5

MIB = 1 << 20
ALL = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
NAMES = ",".join(ALL)


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def ask(root, bucket, *headers, key="k", query="attributes", names=NAMES):
    sent = [("x-amz-object-attributes", names)] if names is not None else []
    return root.call("GET", f"/{bucket}/{key}", query=query, headers=[*sent, *headers])


@pytest.mark.subset
def test_get_object_attributes_of_a_simple_object(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"content", ChecksumAlgorithm="SHA256")
    found = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL)
    assert found["ETag"] == md5(b"content")  # without quotes, unlike everywhere else
    assert found["ObjectSize"] == 7
    assert found["StorageClass"] == "STANDARD"
    assert found["Checksum"] == {"ChecksumSHA256": sha256(b"content"), "ChecksumType": "FULL_OBJECT"}
    assert "ObjectParts" not in found
    assert found["LastModified"] == s3.head_object(Bucket=bucket, Key="k")["LastModified"]


@pytest.mark.parametrize("name", ALL)
def test_get_object_attributes_answers_only_what_was_asked_for(root, bucket, name):
    root.call("PUT", f"/{bucket}/k", body=b"content")
    answer = ask(root, bucket, names=name)
    assert answer.status == 200
    children = [child.tag.rpartition("}")[2] for child in answer.xml]
    assert children == ([] if name == "ObjectParts" else [name])


def test_get_object_attributes_names_may_be_spread_over_headers(root, bucket):
    root.call("PUT", f"/{bucket}/k", body=b"content")
    answer = ask(root, bucket, ("x-amz-object-attributes", " ObjectSize , StorageClass"), names="ETag")
    assert (answer.text("ETag"), answer.text("ObjectSize")) == (md5(b"content"), "7")


@pytest.mark.parametrize("names", [None, "", " , "])
def test_get_object_attributes_without_names_is_refused(root, bucket, names):
    root.call("PUT", f"/{bucket}/k", body=b"content")
    assert_error(ask(root, bucket, names=names), 400, "InvalidRequest")


@pytest.mark.parametrize("names", ["Etag", "ETag,Nothing", "ETag ObjectSize"])
def test_get_object_attributes_of_an_unknown_name_is_refused(root, bucket, names):
    root.call("PUT", f"/{bucket}/k", body=b"content")
    assert_error(ask(root, bucket, names=names), 400, "InvalidArgument")


def test_get_object_attributes_of_what_is_not_there(s3, bucket):
    with s3_error(404, "NoSuchKey"):
        s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ETag"])
    with s3_error(404, "NoSuchBucket"):
        s3.get_object_attributes(Bucket="no-such-bucket-here", Key="k", ObjectAttributes=["ETag"])


def test_get_object_attributes_shows_the_storage_class(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="GLACIER")
    found = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["StorageClass"])
    assert found["StorageClass"] == "GLACIER"


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("If-Match", '"other"', 412),
        ("If-None-Match", "*", 304),
        ("If-Match", "*", 200),
        ("If-Unmodified-Since", "Mon, 12 Oct 2009 17:50:30 GMT", 412),
        ("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT", 304),
    ],
)
def test_get_object_attributes_obeys_conditions(root, bucket, header, value, status):
    root.call("PUT", f"/{bucket}/k", body=b"content")
    answer = ask(root, bucket, (header, value))
    assert answer.status == status
    assert status != 412 or answer.code == "PreconditionFailed"


def test_get_object_attributes_by_version_of_an_unversioned_object(root, bucket):
    root.call("PUT", f"/{bucket}/k", body=b"content")
    assert ask(root, bucket, query="attributes&versionId=null").status == 200
    answer = ask(root, bucket, query="attributes&versionId=3sL4kqtJlcpXroDTDmJ-rmSpXd3dIbrHY")
    assert answer.status in (400, 404)
    assert answer.code in ("InvalidArgument", "NoSuchVersion")


# -- parts


def upload(s3, bucket, bodies, **arguments):
    where = {"Bucket": bucket, "Key": "k"}
    where["UploadId"] = s3.create_multipart_upload(**where, **arguments)["UploadId"]
    algorithm = arguments.get("ChecksumAlgorithm")
    extra = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(**where, PartNumber=number, Body=body, **extra)["ETag"],
        }
        for number, body in bodies.items()
    ]
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})


@pytest.mark.subset
def test_get_object_attributes_of_a_composite_object_pages_through_its_parts(s3, bucket, rng):
    bodies = {2: rng.randbytes(5 * MIB), 3: rng.randbytes(5 * MIB + 1), 7: b"tail"}
    upload(s3, bucket, bodies, ChecksumAlgorithm="SHA256")
    found = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL)
    digests = b"".join(hashlib.sha256(body).digest() for body in bodies.values())
    # Without the "-3" that HeadObject shows.
    assert found["Checksum"] == {"ChecksumSHA256": sha256(digests), "ChecksumType": "COMPOSITE"}
    expected = [
        {"PartNumber": n, "Size": len(body), "ChecksumSHA256": sha256(body)} for n, body in bodies.items()
    ]
    assert found["ObjectParts"] == {
        "TotalPartsCount": 3,
        "PartNumberMarker": 0,
        "NextPartNumberMarker": 7,
        "MaxParts": 1000,
        "IsTruncated": False,
        "Parts": expected,
    }
    marker, seen = 0, []
    for truncated in (True, True, False):
        page = s3.get_object_attributes(
            Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts"], MaxParts=1, PartNumberMarker=marker
        )["ObjectParts"]
        assert (page["PartNumberMarker"], page["MaxParts"], page["TotalPartsCount"]) == (marker, 1, 3)
        assert page["IsTruncated"] is truncated
        seen += page["Parts"]
        marker = page["NextPartNumberMarker"]
    assert seen == expected
    past = s3.get_object_attributes(
        Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts"], PartNumberMarker=7
    )["ObjectParts"]
    assert ("Parts" in past, past["IsTruncated"]) == (False, False)


def test_get_object_attributes_of_a_full_object_checksum_only_counts_the_parts(s3, bucket):
    upload(s3, bucket, {1: b"data"}, ChecksumAlgorithm="CRC64NVME")
    found = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL)
    assert found["ObjectParts"] == {"TotalPartsCount": 1}
    assert found["Checksum"]["ChecksumType"] == "FULL_OBJECT"
    assert found["ETag"].endswith("-1")


@pytest.mark.parametrize("value", ["", "-1", "x", "1e3", "99999999999"])
def test_get_object_attributes_ignores_page_headers_that_are_no_numbers(s3, root, bucket, value):
    upload(s3, bucket, {1: b"data"}, ChecksumAlgorithm="SHA1")
    answer = ask(root, bucket, ("x-amz-max-parts", value), ("x-amz-part-number-marker", value))
    assert answer.status == 200
    assert (answer.text("MaxParts"), answer.text("PartNumberMarker")) == ("1000", "0")
    assert answer.texts("PartNumber") == ["1"]


def test_get_object_attributes_with_no_parts_per_page(s3, root, bucket):
    upload(s3, bucket, {1: b"data"}, ChecksumAlgorithm="SHA1")
    answer = ask(root, bucket, ("x-amz-max-parts", "0"))
    assert (answer.text("MaxParts"), answer.text("IsTruncated"), answer.texts("Part")) == ("0", "false", [])
