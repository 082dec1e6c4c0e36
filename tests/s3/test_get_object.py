"""GetObject and HeadObject: ranges, conditions, overrides, parts.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html; RFC 9110 sections 13 and 14.
"""

from __future__ import annotations

import email.utils

import pytest

from tests.s3.expect import read, s3_error
from tests.s3.wire import assert_error, md5

MIB = 1 << 20
DATA = bytes(range(256)) * 40  # 10,240 bytes, no two near places alike
SATISFIABLE = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-", 0, 10240),
    ("bytes=5-9", 5, 10),
    ("bytes=10239-10239", 10239, 10240),
    ("bytes=10000-99999", 10000, 10240),
    ("bytes=-1", 10239, 10240),
    ("bytes=-500", 9740, 10240),
    ("bytes=-99999", 0, 10240),
]
UNSATISFIABLE = ["bytes=10240-", "bytes=10240-10241", "bytes=99999-", "bytes=-0"]
IGNORED = ["bytes=a-b", "bytes=5-2", "lines=1-2", "bytes=", "bytes=-", "0-5", "bytes=0-1,5-6"]


@pytest.fixture
def key(root, bucket):
    path = f"/{bucket}/k"
    assert (
        root.call("PUT", path, headers=[("Content-Type", "text/x"), ("x-amz-meta-a", "b")], body=DATA).status
        == 200
    )
    return path


@pytest.mark.subset
@pytest.mark.parametrize(("value", "start", "stop"), SATISFIABLE)
def test_get_object_range_is_206_with_exactly_these_bytes(root, key, value, start, stop):
    answer = root.call("GET", key, headers=[("Range", value)])
    assert (answer.status, answer.body) == (206, DATA[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["etag"] == f'"{md5(DATA)}"'


@pytest.mark.parametrize("value", UNSATISFIABLE)
def test_get_object_range_outside_is_416_and_names_the_size(root, key, value):
    answer = assert_error(root.call("GET", key, headers=[("Range", value)]), 416, "InvalidRange")
    assert answer.text("RangeRequested") == value
    assert answer.text("ActualObjectSize") == str(len(DATA))


@pytest.mark.parametrize("value", IGNORED)
def test_get_object_range_that_means_nothing_is_ignored(root, key, value):
    answer = root.call("GET", key, headers=[("Range", value)])
    assert (answer.status, answer.body) == (200, DATA)


def test_get_object_range_of_an_empty_object_is_416(root, bucket):
    root.call("PUT", f"/{bucket}/empty")
    assert_error(root.call("GET", f"/{bucket}/empty", headers=[("Range", "bytes=0-5")]), 416, "InvalidRange")
    last = root.call("GET", f"/{bucket}/empty", headers=[("Range", "bytes=-5")])
    assert (last.status, last.body, "content-range" in last.headers) == (200, b"", False)


def test_get_object_ranges_across_chunks_of_a_large_object(s3, bucket, rng):
    data = rng.randbytes(7 * MIB + 123)
    s3.put_object(Bucket=bucket, Key="large", Body=data)
    for _ in range(25):
        start = rng.randrange(len(data))
        stop = min(len(data), start + rng.choice([1, 100, 33_000, 400_000, 5 * MIB]))
        assert read(s3, bucket, "large", Range=f"bytes={start}-{stop - 1}") == data[start:stop]


def test_head_object_answers_as_get_does_but_without_body(root, key):
    head, get = root.call("HEAD", key), root.call("GET", key)
    differing = {"date", "x-amz-request-id", "x-amz-id-2"}
    assert head.body == b""
    assert {k: v for k, v in head.headers.items() if k not in differing} == {
        k: v for k, v in get.headers.items() if k not in differing
    }
    assert head.headers["content-length"] == str(len(DATA))
    assert head.headers["accept-ranges"] == "bytes"
    assert head.headers["content-type"] == "text/x"
    assert head.headers["x-amz-meta-a"] == "b"


def test_head_object_range_gives_the_length_of_the_range(root, key):
    answer = root.call("HEAD", key, headers=[("Range", "bytes=0-9")])
    assert (answer.status, answer.headers["content-length"], answer.body) == (206, "10", b"")


def test_get_object_last_modified_is_an_http_date_without_fraction(root, key):
    value = root.call("GET", key).headers["last-modified"]
    assert email.utils.format_datetime(email.utils.parsedate_to_datetime(value), usegmt=True) == value


def test_get_object_that_does_not_exist_names_its_key(root, bucket):
    answer = assert_error(root.call("GET", f"/{bucket}/no%20such%2Bkey"), 404, "NoSuchKey")
    assert answer.text("Key") == "no such+key"


def test_head_object_that_does_not_exist_has_no_body(root, bucket):
    answer = root.call("HEAD", f"/{bucket}/missing")
    assert (answer.status, answer.body) == (404, b"")


# -- conditions: which answer for which pair of headers

YES, NO = f'"{md5(DATA)}"', '"0123456789abcdef0123456789abcdef"'
PAST, FUTURE = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
CONDITIONS = [
    ({"If-Match": YES}, 200),
    ({"If-Match": YES.strip('"')}, 200),
    ({"If-Match": f"{NO}, {YES}"}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": NO}, 412),
    ({"If-None-Match": NO}, 200),
    ({"If-None-Match": YES}, 304),
    ({"If-None-Match": YES.strip('"')}, 304),
    ({"If-None-Match": f"W/{YES}"}, 304),
    ({"If-None-Match": "*"}, 304),
    ({"If-Modified-Since": PAST}, 200),
    ({"If-Unmodified-Since": PAST}, 412),
    ({"If-Unmodified-Since": FUTURE}, 200),
    ({"If-Modified-Since": "not a date"}, 200),
    ({"If-Match": YES, "If-Unmodified-Since": PAST}, 200),
    ({"If-Match": NO, "If-Unmodified-Since": FUTURE}, 412),
    ({"If-None-Match": NO, "If-Modified-Since": "now"}, 200),
    ({"If-None-Match": YES, "If-Modified-Since": PAST}, 304),
]


@pytest.mark.subset
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("conditions", "status"), CONDITIONS, ids=lambda v: str(v).replace(md5(DATA), "ETAG")
)
def test_get_object_conditions(root, key, method, conditions, status):
    now = root.call("HEAD", key).headers["last-modified"]
    headers = [(name, now if value == "now" else value) for name, value in conditions.items()]
    answer = root.call(method, key, headers=headers)
    assert answer.status == status
    if status == 304:
        assert answer.body == b""
        assert answer.headers["etag"] == YES
    elif status == 412 and method == "GET":
        assert_error(answer, 412, "PreconditionFailed")


def test_get_object_not_modified_since_its_own_date(root, key):
    now = root.call("HEAD", key).headers["last-modified"]
    assert root.call("GET", key, headers=[("If-Modified-Since", now)]).status == 304
    assert root.call("GET", key, headers=[("If-Unmodified-Since", now)]).status == 200


# -- overrides


@pytest.mark.subset
def test_get_object_response_overrides_change_this_answer_only(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="text/plain")
    overrides = {
        "ResponseContentType": "application/x; a=b",
        "ResponseCacheControl": "no-cache",
        "ResponseContentDisposition": 'attachment; filename="ü b.txt"',
        "ResponseContentEncoding": "br",
        "ResponseContentLanguage": "fr",
    }
    answer = s3.get_object(Bucket=bucket, Key="k", **{**overrides, "ResponseContentDisposition": "inline"})
    answer["Body"].close()
    assert answer["ContentType"] == "application/x; a=b"
    assert answer["CacheControl"] == "no-cache"
    assert answer["ContentDisposition"] == "inline"
    assert answer["ContentEncoding"] == "br"
    assert answer["ContentLanguage"] == "fr"
    assert s3.head_object(Bucket=bucket, Key="k")["ContentType"] == "text/plain"


def test_get_object_response_override_cannot_inject_a_header(root, key):
    answer = root.call("GET", key, query="response-content-type=a%0D%0AX-Injected%3A%20yes")
    assert "x-injected" not in answer.headers
    assert answer.status in (200, 400)


# -- parts


@pytest.fixture
def parts(s3, bucket, rng):
    """A multipart object of three parts; the parts' bytes."""
    bodies = [rng.randbytes(5 * MIB), rng.randbytes(5 * MIB + 17), rng.randbytes(100)]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    done = [
        {
            "PartNumber": n,
            "ETag": s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=n, Body=b)["ETag"],
        }
        for n, b in enumerate(bodies, 1)
    ]
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": done})
    return bodies


@pytest.mark.subset
def test_get_object_part_number_reads_that_part(s3, bucket, parts):
    start = 0
    for number, data in enumerate(parts, 1):
        answer = s3.get_object(Bucket=bucket, Key="parts", PartNumber=number)
        with answer["Body"] as body:
            assert body.read() == data
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert answer["PartsCount"] == 3
        assert answer["ContentRange"] == f"bytes {start}-{start + len(data) - 1}/{sum(map(len, parts))}"
        head = s3.head_object(Bucket=bucket, Key="parts", PartNumber=number)
        assert (head["ContentLength"], head["PartsCount"]) == (len(data), 3)
        start += len(data)


def test_get_object_part_number_that_does_not_exist(s3, bucket, parts):
    with s3_error(416, "InvalidPartNumber"):
        s3.get_object(Bucket=bucket, Key="parts", PartNumber=4)
    for number in (0, 10_001):
        with s3_error(400, "InvalidArgument"):
            s3.get_object(Bucket=bucket, Key="parts", PartNumber=number)


def test_a_part_number_is_looked_at_before_the_object(root, bucket):
    assert_error(root.call("GET", f"/{bucket}/missing", query="partNumber=0"), 400, "InvalidArgument")
    assert root.call("HEAD", f"/{bucket}/missing", query="partNumber=x").status == 400
    assert root.call("HEAD", f"/{bucket}/missing", query="partNumber=1").status == 404


def test_get_object_part_number_with_range_is_refused(s3, bucket, parts):
    with s3_error(400, "InvalidRequest"):
        s3.get_object(Bucket=bucket, Key="parts", PartNumber=1, Range="bytes=0-1")


def test_get_object_part_one_of_a_plain_object_is_all_of_it(s3, bucket):
    s3.put_object(Bucket=bucket, Key="plain", Body=b"abc")
    answer = s3.get_object(Bucket=bucket, Key="plain", PartNumber=1)
    with answer["Body"] as body:
        assert body.read() == b"abc"
    assert "PartsCount" not in answer
    with s3_error(416, "InvalidPartNumber"):
        s3.get_object(Bucket=bucket, Key="plain", PartNumber=2)


def test_get_object_ranges_across_parts(s3, bucket, parts):
    data = b"".join(parts)
    edge = len(parts[0])
    assert read(s3, bucket, "parts", Range=f"bytes={edge - 10}-{edge + 9}") == data[edge - 10 : edge + 10]
    assert read(s3, bucket, "parts", Range="bytes=-150") == data[-150:]
    assert read(s3, bucket, "parts") == data
