"""Signature V4 in headers and in presigned URLs.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from tests.s3.conftest import make_boto_client
from tests.s3.expect import assert_refused, read
from tests.s3.wire import EMPTY_SHA256, UNSIGNED, Request, assert_error

MINUTE = datetime.timedelta(minutes=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture
def key(root, bucket) -> str:
    """The path of an object that must stay as it is."""
    assert root.call("PUT", f"/{bucket}/kept", body=b"kept").status == 200
    return f"/{bucket}/kept"


@pytest.fixture(autouse=True)
def _state_is_unchanged(request):
    if "key" not in request.fixturenames:
        yield
    else:
        root, key = request.getfixturevalue("root"), request.getfixturevalue("key")
        yield
        assert root.call("GET", key).body == b"kept"
        assert root.call("GET", key.rpartition("/")[0]).texts("Key") == ["kept"]


# -- the Authorization header


@pytest.mark.subset
def test_a_key_nobody_has_is_refused(root, key):
    stranger = replace(root, access_key="NOSUCHACCESSKEY00000")
    assert_refused(root, stranger.sign("PUT", key, body=b"x"), 403, "InvalidAccessKeyId")


@pytest.mark.subset
def test_a_wrong_secret_is_refused(root, key):
    impostor = replace(root, secret_key="wrong")
    for method in ("GET", "PUT", "DELETE"):
        assert_refused(root, impostor.sign(method, key, body=b"x"), 403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("change", ["method", "path", "query", "host", "date", "hash", "header", "signature"])
def test_a_request_changed_after_signing_is_refused(root, key, change):
    good = root.sign("PUT", key, headers=[("x-amz-meta-a", "1")], body=b"x", payload=UNSIGNED)
    signature = good.signature
    flipped = ("0" if signature[0] != "0" else "1") + signature[1:]
    authorization = good.header("Authorization")
    bad = {
        "method": replace(good, method="DELETE"),
        "path": replace(good, target=f"{key}x"),
        "query": replace(good, target=f"{key}?tagging"),
        "host": good.with_header("Host", "localhost"),
        "date": good.with_header("x-amz-date", (now() - MINUTE).strftime("%Y%m%dT%H%M%SZ")),
        "hash": good.with_header("x-amz-content-sha256", EMPTY_SHA256),
        "header": good.with_header("x-amz-meta-a", "2"),
        "signature": good.with_header("Authorization", authorization.replace(signature, flipped)),
    }[change]
    assert_refused(root, bad, 403, "SignatureDoesNotMatch")


@pytest.mark.subset
@pytest.mark.parametrize("minutes", [-16, 16, -60 * 24 * 3, 60 * 24 * 3])
def test_a_clock_too_far_off_is_refused(root, key, minutes):
    request = root.sign("PUT", key, body=b"x", date=now() + minutes * MINUTE)
    assert_refused(root, request, 403, "RequestTimeTooSkewed")


@pytest.mark.parametrize("minutes", [-14, 14])
def test_a_clock_a_little_off_is_accepted(root, key, minutes):
    assert root.call("GET", key, date=now() + minutes * MINUTE).status == 200


def test_no_signature_at_all_is_refused(root, key):
    for method in ("GET", "PUT", "DELETE"):
        bare = Request(method, key, (("Host", root.host), ("Content-Length", "0")))
        assert_refused(root, bare, 403, "AccessDenied")
    assert_refused(root, Request("GET", "/", (("Host", root.host),)), 403, "AccessDenied")


@pytest.mark.parametrize(
    "value",
    [
        "AWS AKIAIOSFODNN7EXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg=",
        "Basic dXNlcjpwYXNz",
        "Bearer token",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/e/f/g, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature="
        + "0" * 64,
        "AWS4-ECDSA-P256-SHA256 Credential=x/20260101/s3/aws4_request, SignedHeaders=host, Signature=00",
        "\xff\xfe",
        "",
    ],
)
def test_an_authorization_that_is_not_signature_v4_is_refused(root, key, value):
    request = root.sign("GET", key).with_header("Authorization", value)
    answer = root.exchange(request)
    assert answer.status in (400, 403, 501), answer
    assert_error(answer, answer.status)


@pytest.mark.parametrize("field", ["Credential", "SignedHeaders", "Signature"])
def test_an_authorization_without_one_of_its_fields_is_refused(root, key, field):
    good = root.sign("GET", key)
    kind, _, rest = good.header("Authorization").partition(" ")
    kept = [part for part in rest.split(", ") if not part.startswith(field)]
    answer = root.exchange(good.with_header("Authorization", f"{kind} {', '.join(kept)}"))
    assert answer.status in (400, 403)
    assert_error(answer, answer.status)


def test_a_scope_of_another_region_service_or_day_is_refused(root, key):
    answer = root.exchange(replace(root, region="eu-west-7").sign("GET", key))
    assert_error(answer, 400, "AuthorizationHeaderMalformed")
    assert answer.text("Region") == "us-east-1"
    answer = root.exchange(replace(root, service="ec2").sign("GET", key))
    assert_error(answer, answer.status, "AuthorizationHeaderMalformed", "SignatureDoesNotMatch")
    tomorrow = (now() + 3 * 24 * 60 * MINUTE).strftime("%Y%m%d")
    good = root.sign("GET", key)
    moved = good.header("Authorization").replace(good.scope[:8], tomorrow, 1)
    answer = root.exchange(good.with_header("Authorization", moved))
    assert_error(answer, answer.status, "AuthorizationHeaderMalformed", "SignatureDoesNotMatch")


@pytest.mark.parametrize("name", ["x-amz-meta-added", "x-amz-copy-source", "x-amz-acl", "x-amz-tagging"])
def test_an_amz_header_that_is_not_signed_is_refused(root, key, name):
    request = root.sign("PUT", key, body=b"x", unsigned=[(name, "value")])
    assert_refused(root, request, 403, "AccessDenied", "SignatureDoesNotMatch")


@pytest.mark.parametrize("missing", ["x-amz-content-sha256", "x-amz-date"])
def test_a_request_without_a_required_header_is_refused(root, key, missing):
    answer = root.exchange(root.sign("PUT", key, body=b"x").with_header(missing, None))
    assert answer.status in (400, 403)
    assert_error(answer, answer.status)


@pytest.mark.parametrize(
    "value", ["", "zz", "0" * 63, "0" * 65, "STREAMING-SOMETHING-ELSE", "unsigned-payload"]
)
def test_an_unknown_payload_hash_is_refused(root, key, value):
    request = root.sign("PUT", key, body=b"x", payload=value)
    answer = root.exchange(request)
    assert answer.status in (400, 403, 501), answer
    assert_error(answer, answer.status)


def test_signed_headers_with_inner_spaces_and_repetition(root, bucket):
    headers = [("x-amz-meta-spaces", "  a   b    c  "), ("x-amz-meta-two", "1"), ("x-amz-meta-two", "2")]
    assert root.call("PUT", f"/{bucket}/k", headers=headers, body=b"x").status == 200


def test_query_parameters_are_signed_whatever_their_order_and_form(root, bucket):
    for query in (
        "uploads",
        "uploads=",
        "prefix=a%20b&list-type=2&delimiter=%2F",
        "list-type=2&prefix=%C3%A9&encoding-type=url",
        "list-type=2&prefix=a%2Bb",
        "list-type=2&prefix=(x)",
        "prefix=&list-type=2&max-keys=1&unknown=1",
        "list-type=2&prefix=~_-.",
    ):
        assert root.call("GET", f"/{bucket}", query=query).status == 200, query


# -- presigned


@pytest.mark.subset
def test_presigned_requests_of_every_method(root, bucket):
    path = f"/{bucket}/dir/k%20%2B"
    assert root.exchange(root.presign("PUT", path, body=b"by url")).status == 200
    assert root.exchange(root.presign("GET", path)).body == b"by url"
    assert root.exchange(root.presign("HEAD", path)).headers["content-length"] == "6"
    ranged = root.presign("GET", path, unsigned=[("Range", "bytes=3-5")])
    assert root.exchange(ranged).body == b"url"
    listing = root.presign("GET", f"/{bucket}", query=[("list-type", "2"), ("prefix", "dir/k +")])
    assert root.exchange(listing).texts("Key") == ["dir/k +"]
    assert root.exchange(root.presign("DELETE", path)).status == 204


@pytest.mark.subset
def test_presigned_by_boto3(server, s3, root, bucket):
    s3.put_object(Bucket=bucket, Key="a b+ü", Body=b"content")
    arguments = {"Bucket": bucket, "Key": "a b+ü", "ResponseContentType": "text/x"}
    signer = make_boto_client(server, signature_version="s3v4")
    url = signer.generate_presigned_url("get_object", Params=arguments, ExpiresIn=604_800)
    signer.close()
    parts = urlsplit(url)
    answer = root.exchange(Request("GET", f"{parts.path}?{parts.query}", (("Host", parts.netloc),)))
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"content", "text/x")


def test_presigned_by_signature_v2_is_refused_and_told_why(root, key):
    query = f"AWSAccessKeyId={root.access_key}&Signature=abc%3D&Expires=1999999999"
    answer = root.exchange(Request("GET", f"{key}?{query}", (("Host", root.host),)))
    assert_error(answer, 400, "InvalidRequest")
    assert "AWS4-HMAC-SHA256" in answer.text("Message")


@pytest.mark.subset
def test_presigned_and_expired_is_refused(root, key):
    request = root.presign("PUT", key, expires=60, date=now() - 2 * MINUTE, body=b"x")
    answer = assert_refused(root, request, 403, "AccessDenied")
    assert "expired" in answer.text("Message")
    assert answer.text("Expires")
    assert answer.text("ServerTime")


def test_presigned_long_ago_but_not_expired_is_accepted(root, key):
    assert (
        root.exchange(root.presign("GET", key, expires=604_800, date=now() - 6 * 24 * 60 * MINUTE)).status
        == 200
    )


def test_presigned_for_the_future_is_refused(root, key):
    request = root.presign("GET", key, date=now() + 20 * MINUTE)
    assert_refused(root, request, 403, "AccessDenied", "RequestTimeTooSkewed")


@pytest.mark.parametrize("expires", ["604801", "-1", "NaN", "", "1e3", "99999999999999999999"])
def test_presigned_with_an_illegal_lifetime_is_refused(root, key, expires):
    request = root.presign("GET", key, expires=expires)
    assert_refused(root, request, 400, "AuthorizationQueryParametersError")


@pytest.mark.parametrize("change", ["path", "method", "expires", "added", "signature", "host"])
def test_presigned_and_changed_is_refused(root, key, change):
    good = root.presign("GET", key, expires=300)
    bad = {
        "path": replace(good, target=good.target.replace("/kept", "/keptx", 1)),
        "method": replace(good, method="DELETE"),
        "expires": replace(good, target=good.target.replace("Expires=300", "Expires=3000")),
        "added": replace(good, target=good.target.replace("?", "?response-content-type=text%2Fhtml&")),
        "signature": replace(good, target=good.target[:-1] + ("0" if good.target[-1] != "0" else "1")),
        "host": good.with_header("Host", "localhost"),
    }[change]
    assert_refused(root, bad, 403, "SignatureDoesNotMatch")


def test_presigned_with_signed_headers_needs_them(root, bucket):
    request = root.presign("PUT", f"/{bucket}/k", headers=[("x-amz-meta-a", "1")], body=b"x")
    assert root.exchange(request).status == 200
    assert root.call("HEAD", f"/{bucket}/k").headers["x-amz-meta-a"] == "1"
    for value in ("2", None):
        assert root.exchange(request.with_header("x-amz-meta-a", value)).status == 403


def test_presigned_does_not_let_an_amz_header_be_added(root, key, bucket):
    for name, value in (("x-amz-meta-added", "1"), ("x-amz-copy-source", f"/{bucket}/kept")):
        request = root.presign("PUT", f"/{bucket}/kept", body=b"x", unsigned=[(name, value)])
        assert_refused(root, request, 403, "AccessDenied", "SignatureDoesNotMatch")


@pytest.mark.parametrize("missing", ["Credential", "Date", "Expires", "SignedHeaders", "Signature"])
def test_presigned_without_one_of_its_parameters_is_refused(root, key, missing):
    good = root.presign("GET", key)
    path, _, query = good.target.partition("?")
    kept = "&".join(item for item in query.split("&") if not item.startswith(f"X-Amz-{missing}="))
    answer = root.exchange(replace(good, target=f"{path}?{kept}"))
    assert answer.status in (400, 403)
    assert_error(answer, answer.status)


def test_a_signature_in_header_and_query_at_once_is_refused(root, key):
    presigned = root.presign("GET", key)
    both = presigned.with_header("Authorization", root.sign("GET", key).header("Authorization"))
    answer = root.exchange(both)
    assert answer.status in (400, 403)
    assert_error(answer, answer.status, "InvalidArgument", "InvalidRequest", "AccessDenied")


def test_presigned_upload_of_a_part_and_completion(s3, root, bucket, rng):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    body = rng.randbytes(100_000)
    query = [("partNumber", "1"), ("uploadId", upload)]
    etag = root.exchange(root.presign("PUT", f"/{bucket}/k", query=query, body=body)).headers["etag"]
    complete = (
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
        f"<ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    ).encode()
    request = root.presign("POST", f"/{bucket}/k", query=[("uploadId", upload)], body=complete)
    assert root.exchange(request).status == 200
    assert read(s3, bucket, "k") == body
