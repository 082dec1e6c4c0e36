"""ListMultipartUploads and ListParts.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html and API_ListParts.html
"""

from __future__ import annotations

import pytest

from tests.s3.expect import s3_error
from tests.s3.wire import assert_error, exchange_many, md5


@pytest.fixture
def open_uploads(s3, bucket) -> list[tuple[str, str]]:
    """Open uploads as (key, id), in the order S3 lists them: by key, then by when they began."""
    keys = ["a/1", "a/2", "a/2", "b", "b/x/y", "c", "ü+ %"]
    return [
        (key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])
        for key in sorted(keys, key=str.encode)
    ]


@pytest.mark.subset
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_list_multipart_uploads_gives_each_once_in_order(s3, bucket, open_uploads, size):
    found, markers = [], {}
    for _ in range(len(open_uploads) + 1):
        page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=size, **markers)
        found += [(upload["Key"], upload["UploadId"]) for upload in page.get("Uploads", ())]
        if not page["IsTruncated"]:
            break
        markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
    assert [key for key, _ in found] == [key for key, _ in open_uploads]
    assert sorted(found) == sorted(open_uploads)


def test_list_multipart_uploads_by_prefix_and_delimiter(s3, bucket, open_uploads):
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [upload["Key"] for upload in page["Uploads"]] == ["b", "c", "ü+ %"]
    assert [entry["Prefix"] for entry in page["CommonPrefixes"]] == ["a/", "b/"]
    page = s3.list_multipart_uploads(Bucket=bucket, Prefix="a/2")
    assert [upload["Key"] for upload in page["Uploads"]] == ["a/2", "a/2"]


def test_list_multipart_uploads_key_marker_alone_skips_all_of_that_key(s3, bucket, open_uploads):
    page = s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a/2")
    assert [upload["Key"] for upload in page["Uploads"]] == ["b", "b/x/y", "c", "ü+ %"]


def test_list_multipart_uploads_entries_name_owner_and_time(s3, bucket, open_uploads):
    for upload in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]:
        assert upload["Initiated"]
        assert upload["Owner"]["ID"]
        assert upload["Initiator"]["ID"]
        assert upload["StorageClass"] == "STANDARD"


def test_list_multipart_uploads_forgets_what_is_over(s3, bucket, open_uploads):
    for key, upload_id in open_uploads[:-1]:
        s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    key, upload_id = open_uploads[-1]
    where = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
    etag = s3.upload_part(**where, PartNumber=1, Body=b"x")["ETag"]
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.subset
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_list_parts_gives_each_once_in_order(s3, bucket, size):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    numbers = [7, 1, 10_000, 3, 2]
    for n in numbers:
        s3.upload_part(**where, PartNumber=n, Body=b"x" * n)
    found, marker = [], 0
    for _ in range(len(numbers) + 1):
        page = s3.list_parts(**where, MaxParts=size, PartNumberMarker=marker)
        found += [(part["PartNumber"], part["Size"], part["ETag"]) for part in page.get("Parts", ())]
        if not page["IsTruncated"]:
            break
        marker = page["NextPartNumberMarker"]
    assert found == [(n, n, f'"{md5(b"x" * n)}"') for n in sorted(numbers)]


def test_list_parts_of_an_upload_without_parts(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    page = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)
    assert "Parts" not in page
    assert page["IsTruncated"] is False
    assert (page["Bucket"], page["Key"], page["UploadId"]) == (bucket, "k", upload)
    assert page["Owner"]["ID"]
    assert page["Initiator"]["ID"]


def test_list_parts_gives_a_thousand_at_most(root, s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="many")["UploadId"]
    queries = (f"partNumber={n}&uploadId={upload}" for n in range(1, 1004))
    requests = (root.sign("PUT", f"/{bucket}/many", query=query, body=b"x") for query in queries)
    assert {answer.status for answer in exchange_many(root, requests)} == {200}
    page = s3.list_parts(Bucket=bucket, Key="many", UploadId=upload)
    assert (len(page["Parts"]), page["IsTruncated"], page["NextPartNumberMarker"]) == (1000, True, 1000)
    rest = s3.list_parts(Bucket=bucket, Key="many", UploadId=upload, PartNumberMarker=1000)
    assert [part["PartNumber"] for part in rest["Parts"]] == [1001, 1002, 1003]


def test_list_parts_of_an_unknown_upload_is_refused(s3, bucket):
    with s3_error(404, "NoSuchUpload"):
        s3.list_parts(Bucket=bucket, Key="k", UploadId="unknown")


@pytest.mark.parametrize("query", ["max-uploads=x", "max-uploads=-1", "encoding-type=x"])
def test_list_multipart_uploads_with_illegal_arguments_is_refused(root, bucket, query):
    assert_error(root.call("GET", f"/{bucket}", query=f"uploads&{query}"), 400, "InvalidArgument")


@pytest.mark.parametrize("query", ["max-parts=x", "max-parts=-1", "part-number-marker=x"])
def test_list_parts_with_illegal_arguments_is_refused(root, s3, bucket, query):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    answer = root.call("GET", f"/{bucket}/k", query=f"uploadId={upload}&{query}")
    assert_error(answer, 400, "InvalidArgument")
