"""Multipart uploads: create, upload, copy, complete, abort.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

import datetime
from itertools import pairwise

import pytest

from tests.s3.expect import assert_refused, keys_of, read, s3_error
from tests.s3.wire import assert_error, md5, multipart_etag

MIB = 1 << 20


class Upload:
    """One open upload, with the calls that the tests make on it."""

    def __init__(self, s3, bucket: str, key: str = "k", **arguments) -> None:
        self.s3 = s3
        self.where = {"Bucket": bucket, "Key": key}
        self.where["UploadId"] = s3.create_multipart_upload(**self.where, **arguments)["UploadId"]
        self.etags: dict[int, str] = {}

    @property
    def id(self) -> str:
        return self.where["UploadId"]

    def part(self, number: int, body: bytes, **arguments) -> str:
        answer = self.s3.upload_part(**self.where, PartNumber=number, Body=body, **arguments)
        self.etags[number] = answer["ETag"]
        return answer["ETag"]

    def copy(self, number: int, source: str, **arguments) -> dict:
        answer = self.s3.upload_part_copy(**self.where, PartNumber=number, CopySource=source, **arguments)
        self.etags[number] = answer["CopyPartResult"]["ETag"]
        return answer["CopyPartResult"]

    def complete(self, numbers=None, **arguments) -> dict:
        parts = [{"PartNumber": n, "ETag": self.etags[n]} for n in numbers or sorted(self.etags)]
        return self.s3.complete_multipart_upload(**self.where, MultipartUpload={"Parts": parts}, **arguments)

    def abort(self) -> None:
        self.s3.abort_multipart_upload(**self.where)


@pytest.fixture
def upload(s3, bucket) -> Upload:
    return Upload(s3, bucket)


@pytest.mark.subset
def test_complete_multipart_upload_joins_the_parts(s3, bucket, upload, rng):
    bodies = [rng.randbytes(5 * MIB), rng.randbytes(5 * MIB), rng.randbytes(12345)]
    for n, body in enumerate(bodies, 1):
        assert upload.part(n, body) == f'"{md5(body)}"'
    with s3_error(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="k")
    result = upload.complete()
    assert result["ETag"] == f'"{multipart_etag(bodies)}"'
    assert (result["Bucket"], result["Key"]) == (bucket, "k")
    assert read(s3, bucket, "k") == b"".join(bodies)
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentLength"], head["ETag"]) == (sum(map(len, bodies)), result["ETag"])


def test_complete_multipart_upload_with_uneven_parts_out_of_order_and_gaps(s3, bucket, upload, rng):
    bodies = {
        9_999: rng.randbytes(77),
        3: rng.randbytes(6 * MIB + 1),
        700: rng.randbytes(5 * MIB),
        1: rng.randbytes(5 * MIB + 4097),
    }
    for number, body in bodies.items():
        upload.part(number, body)
    ordered = [bodies[n] for n in sorted(bodies)]
    assert upload.complete()["ETag"] == f'"{multipart_etag(ordered)}"'
    assert read(s3, bucket, "k") == b"".join(ordered)


def test_complete_multipart_upload_may_leave_parts_out(s3, bucket, upload, rng):
    bodies = [rng.randbytes(5 * MIB) for _ in range(3)]
    for n, body in enumerate(bodies, 1):
        upload.part(n, body)
    upload.complete([1, 3])
    assert read(s3, bucket, "k") == bodies[0] + bodies[2]


def test_upload_part_again_replaces_it(s3, bucket, upload, rng):
    upload.part(1, rng.randbytes(MIB))
    last = rng.randbytes(1000)
    upload.part(1, last)
    upload.complete()
    assert read(s3, bucket, "k") == last


def test_complete_multipart_upload_of_one_small_and_of_one_empty_part(s3, bucket):
    for body in (b"tiny", b""):
        upload = Upload(s3, bucket, "small")
        upload.part(1, body)
        assert upload.complete()["ETag"] == f'"{multipart_etag([body])}"'
        assert read(s3, bucket, "small") == body


@pytest.mark.subset
def test_create_multipart_upload_gives_the_object_its_metadata(s3, bucket):
    upload = Upload(s3, bucket, ContentType="text/x", Metadata={"a": "b"}, CacheControl="no-store")
    upload.part(1, b"x")
    upload.complete()
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentType"], head["Metadata"], head["CacheControl"]) == ("text/x", {"a": "b"}, "no-store")


def test_complete_multipart_upload_repeated_gives_the_same_answer(upload, rng):
    upload.part(1, rng.randbytes(100))
    first = upload.complete()
    assert upload.complete()["ETag"] == first["ETag"]


def test_complete_multipart_upload_replaces_the_object_at_once(s3, bucket, upload):
    s3.put_object(Bucket=bucket, Key="k", Body=b"before", Metadata={"old": "1"})
    upload.part(1, b"after")
    assert read(s3, bucket, "k") == b"before"
    upload.complete()
    assert read(s3, bucket, "k") == b"after"
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {}


def test_two_uploads_to_one_key_do_not_mix(s3, bucket):
    one, two = Upload(s3, bucket), Upload(s3, bucket)
    assert one.id != two.id
    one.part(1, b"one")
    two.part(1, b"two")
    two.complete()
    one.complete()
    assert read(s3, bucket, "k") == b"one"


@pytest.mark.parametrize("missing_or_wrong", ["never uploaded", "wrong etag"])
def test_complete_multipart_upload_with_an_invalid_part_is_refused(s3, bucket, upload, missing_or_wrong):
    upload.part(1, b"x")
    if missing_or_wrong == "never uploaded":
        upload.etags[2] = upload.etags[1]
    else:
        upload.etags[1] = f'"{md5(b"other")}"'
    with s3_error(400, "InvalidPart"):
        upload.complete()
    assert keys_of(s3, bucket) == []
    upload.etags = {1: f'"{md5(b"x")}"'}
    upload.complete()


def test_complete_multipart_upload_out_of_order_is_refused(upload, rng):
    for n in (1, 2):
        upload.part(n, rng.randbytes(5 * MIB))
    with s3_error(400, "InvalidPartOrder"):
        upload.complete([2, 1])
    with s3_error(400, "InvalidPartOrder"):
        upload.complete([1, 1])


def test_complete_multipart_upload_with_a_small_inner_part_is_refused(s3, bucket, upload, rng):
    upload.part(1, rng.randbytes(5 * MIB - 1))
    upload.part(2, b"x")
    with s3_error(400, "EntityTooSmall"):
        upload.complete()
    assert keys_of(s3, bucket) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<CompleteMultipartUpload/>",
        b"<CompleteMultipartUpload><Part></Part></CompleteMultipartUpload>",
        b"<CompleteMultipartUpload><Part><PartNumber>x</PartNumber><ETag>y</ETag></Part></CompleteMultipartUpload>",
        b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>",
        b"<Unrelated/>",
        b"<CompleteMultipartUpload>",
    ],
)
def test_complete_multipart_upload_malformed_is_refused(root, bucket, upload, body):
    upload.part(1, b"x")
    answer = root.call("POST", f"/{bucket}/k", query=f"uploadId={upload.id}", body=body)
    assert answer.status == 400, answer
    assert_error(answer, 400, "MalformedXML", "InvalidRequest", "MissingRequestBodyError", "InvalidPart")
    upload.complete()


def test_complete_multipart_upload_takes_etags_without_quotes_and_escaped_ones(root, bucket, s3):
    for quote in ("", "&quot;", '"'):
        upload = Upload(s3, bucket)
        etag = upload.part(1, b"x").strip('"')
        body = (
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
            f"<ETag>{quote}{etag}{quote}</ETag></Part></CompleteMultipartUpload>"
        )
        answer = root.call("POST", f"/{bucket}/k", query=f"uploadId={upload.id}", body=body.encode())
        assert answer.status == 200, answer


@pytest.mark.subset
def test_abort_multipart_upload_of_another_time_than_expected_is_refused(root, s3, bucket, upload):
    begun = s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]["Initiated"]
    query = f"uploadId={upload.id}"
    for moment, status in ((begun + datetime.timedelta(seconds=5), 412), ("yesterday", 400), (begun, 204)):
        shown = moment if isinstance(moment, str) else moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = [("x-amz-if-match-initiated-time", shown)]
        assert root.call("DELETE", f"/{bucket}/k", query=query, headers=headers).status == status
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_abort_multipart_upload_forgets_it(s3, bucket, upload):
    upload.part(1, b"x")
    upload.abort()
    with s3_error(404, "NoSuchUpload"):
        upload.part(2, b"x")
    with s3_error(404, "NoSuchUpload"):
        upload.complete([1])
    with s3_error(404, "NoSuchUpload"):
        s3.list_parts(**upload.where)
    with s3_error(404, "NoSuchUpload"):
        upload.abort()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("upload_id", ["unknown", "", "..%2F..", "%00", "a" * 2000])
def test_an_unknown_upload_is_no_such_upload(root, bucket, upload_id):
    for method, query in (("PUT", "partNumber=1&"), ("DELETE", ""), ("GET", "")):
        answer = root.call(method, f"/{bucket}/k", query=f"{query}uploadId={upload_id}")
        assert_error(answer, 404, "NoSuchUpload")


def test_an_upload_belongs_to_its_key(root, bucket, upload):
    answer = root.call("PUT", f"/{bucket}/other", query=f"partNumber=1&uploadId={upload.id}", body=b"x")
    assert_error(answer, 404, "NoSuchUpload")


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", "1.5", "", "99999999999999999999"])
def test_upload_part_with_an_illegal_number_is_refused(root, bucket, upload, number):
    query = f"partNumber={number}&uploadId={upload.id}"
    request = root.sign("PUT", f"/{bucket}/k", query=query, body=b"x")
    assert_refused(root, request, 400, "InvalidArgument")


def test_upload_part_over_5_gib_is_refused_before_its_body(root, bucket, upload):
    query = f"partNumber=1&uploadId={upload.id}"
    headers = [("Expect", "100-continue")]
    size = 5 * 1024**3 + 1
    request = root.sign(
        "PUT", f"/{bucket}/k", query=query, headers=headers, payload="UNSIGNED-PAYLOAD", length=size
    )
    with root.connect() as connection:
        connection.send(request.head())
        assert b" 400 " in connection.read_line()


# -- part copies


@pytest.mark.subset
def test_upload_part_copy_of_ranges_at_any_offset(s3, bucket, upload, rng):
    data = rng.randbytes(12 * MIB + 345)
    s3.put_object(Bucket=bucket, Key="source", Body=data)
    cuts = [0, 5 * MIB + 1, 10 * MIB + 3333, len(data)]
    slices = list(pairwise(cuts))
    for n, (start, stop) in enumerate(slices, 1):
        result = upload.copy(n, f"{bucket}/source", CopySourceRange=f"bytes={start}-{stop - 1}")
        assert result["LastModified"]
    upload.complete()
    assert read(s3, bucket, "k") == data


def test_upload_part_copy_whole_and_mixed_with_uploads(s3, bucket, upload, rng):
    source, middle = rng.randbytes(5 * MIB + 9), rng.randbytes(5 * MIB)
    s3.put_object(Bucket=bucket, Key="source", Body=source)
    upload.copy(1, f"{bucket}/source")
    upload.part(2, middle)
    upload.copy(3, f"{bucket}/source", CopySourceRange="bytes=100-199")
    upload.complete()
    assert read(s3, bucket, "k") == source + middle + source[100:200]


def test_upload_part_copy_of_an_empty_and_of_an_inline_object(s3, bucket, upload):
    s3.put_object(Bucket=bucket, Key="inline", Body=b"0123456789")
    upload.copy(1, f"{bucket}/inline", CopySourceRange="bytes=2-5")
    upload.complete()
    assert read(s3, bucket, "k") == b"2345"
    s3.put_object(Bucket=bucket, Key="empty")
    again = Upload(s3, bucket, "k")
    again.copy(1, f"{bucket}/empty")
    again.complete()
    assert read(s3, bucket, "k") == b""


def test_upload_part_copy_survives_the_end_of_its_source(s3, bucket, upload, rng):
    data = rng.randbytes(MIB)
    s3.put_object(Bucket=bucket, Key="source", Body=data)
    upload.copy(1, f"{bucket}/source")
    s3.delete_object(Bucket=bucket, Key="source")
    upload.complete()
    assert read(s3, bucket, "k") == data


@pytest.mark.parametrize(
    "value", ["bytes=0-1000", "bytes=1000-2000", "bytes=5-2", "bytes=5-", "bytes=-5", "0-5", "bytes=a-b", ""]
)
def test_upload_part_copy_with_an_improper_range_is_refused(root, s3, bucket, upload, value):
    s3.put_object(Bucket=bucket, Key="source", Body=b"x" * 100)
    headers = [("x-amz-copy-source", f"{bucket}/source"), ("x-amz-copy-source-range", value)]
    query = f"partNumber=1&uploadId={upload.id}"
    answer = root.call("PUT", f"/{bucket}/k", query=query, headers=headers)
    assert answer.status in (400, 416)
    assert_error(answer, answer.status, "InvalidArgument", "InvalidRange", "InvalidRequest")
    assert "Parts" not in s3.list_parts(**upload.where)


def test_upload_part_copy_conditions_on_its_source(s3, bucket, upload):
    etag = s3.put_object(Bucket=bucket, Key="source", Body=b"x")["ETag"]
    with s3_error(412, "PreconditionFailed"):
        upload.copy(1, f"{bucket}/source", CopySourceIfNoneMatch=etag)
    with s3_error(412, "PreconditionFailed"):
        upload.copy(1, f"{bucket}/source", CopySourceIfMatch='"0123456789abcdef0123456789abcdef"')
    upload.copy(1, f"{bucket}/source", CopySourceIfMatch=etag)


def test_upload_part_copy_from_nowhere_is_refused(upload, bucket):
    with s3_error(404, "NoSuchKey"):
        upload.copy(1, f"{bucket}/missing")
    with s3_error(404, "NoSuchBucket"):
        upload.copy(1, "no-such-bucket-anywhere/k")


def test_part_copies_and_complete_cost_metadata_only(server, s3, bucket, upload, rng):
    s3.put_object(Bucket=bucket, Key="source", Body=rng.randbytes(20 * MIB))
    before = server.stats()["stored_bytes"]
    for n in range(3):
        start = 1_234_567 * (n + 1)
        upload.copy(n + 1, f"{bucket}/source", CopySourceRange=f"bytes={start}-{start + 12 * MIB}")
    upload.complete()
    assert server.stats()["stored_bytes"] - before < MIB
