"""PutObject: bytes, ETags, metadata, limits. https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html"""

from __future__ import annotations

import base64
import hashlib

import pytest

from tests.s3.expect import answer_then_usable_or_closed, assert_refused, keys_of, read, s3_error
from tests.s3.wire import assert_error, content_md5, md5

KIB, MIB = 1 << 10, 1 << 20
SIZES = [0, 1, 4 * KIB - 1, 4 * KIB, 4 * KIB + 1, 64 * KIB, 64 * KIB + 1, MIB - 1, 5 * MIB, 5 * MIB + 1]


@pytest.mark.subset
@pytest.mark.parametrize("size", SIZES)
def test_put_object_reads_back_the_same_with_its_md5_as_etag(s3, bucket, rng, size):
    data = rng.randbytes(size)
    etag = s3.put_object(Bucket=bucket, Key="k", Body=data)["ETag"]
    assert etag == f'"{md5(data)}"'
    got = s3.get_object(Bucket=bucket, Key="k")
    with got["Body"] as body:
        assert body.read() == data
    assert (got["ContentLength"], got["ETag"]) == (size, etag)


def test_put_object_of_compressible_and_repeated_data(s3, bucket, rng):
    text = b"".join(b"%06d the same line again and again\n" % (n % 1000) for n in range(120_000))
    for key, data in {"text": text, "zeros": bytes(3 * MIB), "twice": rng.randbytes(MIB) * 2}.items():
        s3.put_object(Bucket=bucket, Key=key, Body=data)
        assert read(s3, bucket, key) == data


def test_put_object_replaces_the_object_and_all_its_metadata(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"one", Metadata={"a": "1"}, ContentType="text/one")
    s3.put_object(Bucket=bucket, Key="k", Body=b"second")
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["Metadata"], head["ContentType"], head["ContentLength"]) == ({}, "binary/octet-stream", 6)
    assert keys_of(s3, bucket) == ["k"]


@pytest.mark.subset
def test_put_object_keeps_user_and_system_metadata(s3, bucket):
    system = {
        "CacheControl": "max-age=60, must-revalidate",
        "ContentDisposition": 'attachment; filename="a b.txt"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de, en",
        "ContentType": "text/plain; charset=utf-8",
        "WebsiteRedirectLocation": "/elsewhere",
    }
    metadata = {"mtime": "1795331686.584622265", "empty": "", "spaced": "a  b", "case": "Kept As It Is"}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata=metadata, **system)
    for answer in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
        if "Body" in answer:
            answer["Body"].close()
        assert {name: answer[name] for name in system} == system
        assert answer["Metadata"] == metadata


def test_put_object_keeps_expires_as_it_was_sent(root, bucket):
    root.call("PUT", f"/{bucket}/k", headers=[("Expires", "Thu, 01 Dec 2044 16:00:00 GMT")])
    assert root.call("HEAD", f"/{bucket}/k").headers["expires"] == "Thu, 01 Dec 2044 16:00:00 GMT"


def test_put_object_metadata_names_come_back_in_lower_case(root, bucket):
    root.call("PUT", f"/{bucket}/k", headers=[("X-Amz-Meta-CamelCase", "v"), ("x-amz-meta-with-dash", "w")])
    headers = root.call("HEAD", f"/{bucket}/k").headers
    assert (headers["x-amz-meta-camelcase"], headers["x-amz-meta-with-dash"]) == ("v", "w")


def test_put_object_metadata_over_2_kb_is_refused(root, bucket):
    fitting = [("x-amz-meta-a", "v" * (2048 - 1))]
    assert root.call("PUT", f"/{bucket}/fits", headers=fitting).status == 200
    too_large = root.sign("PUT", f"/{bucket}/k", headers=[("x-amz-meta-a", "v" * 2049)], body=b"x")
    assert_refused(root, too_large, 400, "MetadataTooLarge")
    assert root.call("HEAD", f"/{bucket}/k").status == 404


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("aws-chunked", None), ("aws-chunked,gzip", "gzip"), ("gzip, aws-chunked", "gzip"), ("gzip", "gzip")],
)
def test_put_object_does_not_keep_aws_chunked_as_content_encoding(root, bucket, sent, kept):
    root.call("PUT", f"/{bucket}/k", headers=[("Content-Encoding", sent)], body=b"x")
    assert root.call("HEAD", f"/{bucket}/k").headers.get("content-encoding") == kept


def test_put_object_verifies_content_md5(root, bucket):
    data = b"the body"
    good = root.sign("PUT", f"/{bucket}/good", headers=[("Content-MD5", content_md5(data))], body=data)
    assert root.exchange(good).status == 200
    bad = root.sign("PUT", f"/{bucket}/bad", headers=[("Content-MD5", content_md5(b"other"))], body=data)
    assert_refused(root, bad, 400, "BadDigest")
    for value in ("not base64!", "", base64.b64encode(b"too short").decode()):
        request = root.sign("PUT", f"/{bucket}/bad", headers=[("Content-MD5", value)], body=data)
        assert_refused(root, request, 400, "InvalidDigest")
    assert root.call("HEAD", f"/{bucket}/bad").status == 404


def test_put_object_verifies_its_body_hash_before_it_is_visible(root, bucket):
    root.call("PUT", f"/{bucket}/k", body=b"before")
    lie = hashlib.sha256(b"something else").hexdigest()
    for size in (10, 100_000):
        request = root.sign("PUT", f"/{bucket}/k", body=b"x" * size, payload=lie)
        assert_refused(root, request, 400, "XAmzContentSHA256Mismatch")
    assert root.call("GET", f"/{bucket}/k").body == b"before"


def test_put_object_without_a_length_is_refused(root, bucket):
    request = root.sign("PUT", f"/{bucket}/k", length=None)
    assert_error(answer_then_usable_or_closed(root, request), 411, "MissingContentLength")


def test_put_object_over_5_gib_is_refused_before_its_body(root, bucket):
    length = 5 * 1024**3 + 1
    headers = [("Expect", "100-continue")]
    request = root.sign("PUT", f"/{bucket}/k", headers=headers, payload="UNSIGNED-PAYLOAD", length=length)
    with root.connect() as connection:
        connection.send(request.head())
        first = connection.read_line()
        assert b" 400 " in first, first
    assert root.call("HEAD", f"/{bucket}/k").status == 404


def test_put_object_answers_carry_ids_and_the_etag_only(root, bucket):
    answer = root.call("PUT", f"/{bucket}/k", body=b"x")
    assert answer.body == b""
    assert answer.headers["etag"] == f'"{md5(b"x")}"'
    assert answer.headers["x-amz-request-id"]
    assert answer.headers["x-amz-id-2"]


@pytest.mark.parametrize(
    "header",
    [
        ("x-amz-acl", "private"),
        ("x-amz-acl", "bucket-owner-full-control"),
        ("x-amz-storage-class", "STANDARD"),
        ("x-amz-unheard-of", "value"),
    ],
)
def test_put_object_accepts_headers_that_change_nothing(root, bucket, header):
    assert root.call("PUT", f"/{bucket}/k", headers=[header], body=b"x").status == 200


@pytest.mark.parametrize(
    "header",
    [("x-amz-acl", "public-read"), ("x-amz-grant-read", "id=x"), ("x-amz-storage-class", "NO_SUCH_CLASS")],
)
def test_put_object_refuses_what_it_could_not_keep_its_promise_for(root, bucket, header):
    answer = root.call("PUT", f"/{bucket}/k", headers=[header], body=b"x")
    assert answer.status in (400, 501)
    assert_error(answer, answer.status)
    assert root.call("HEAD", f"/{bucket}/k").status == 404


def test_put_object_by_many_at_once_leaves_one_of_them_whole(server, s3, bucket, rng):
    from concurrent.futures import ThreadPoolExecutor

    bodies = [rng.randbytes(200_000) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda body: s3.put_object(Bucket=bucket, Key="k", Body=body), bodies))
    assert read(s3, bucket, "k") in bodies
    with s3_error(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="other")


@pytest.mark.parametrize("location", ["elsewhere", "ftp://a.test/", "httpx://a.test"])
def test_put_object_refuses_a_redirect_that_leads_nowhere(root, bucket, location):
    headers = [("x-amz-website-redirect-location", location)]
    assert_error(root.call("PUT", f"/{bucket}/k", headers=headers), 400, "InvalidRedirectLocation")
    assert root.call("HEAD", f"/{bucket}/k").status == 404
