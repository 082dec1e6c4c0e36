"""CORS: the configuration, preflights without credentials, and headers on every answer to a page of another origin.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html
"""

from __future__ import annotations

import pytest

from tests.s3.expect import s3_error
from tests.s3.wire import assert_error

PAGE = "https://app.example.com"
RULES = [
    {
        "ID": "app",
        "AllowedOrigins": ["https://*.example.com"],
        "AllowedMethods": ["PUT", "GET", "DELETE"],
        "AllowedHeaders": ["x-amz-*", "Content-Type"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 3000,
    },
    {"AllowedOrigins": ["*"], "AllowedMethods": ["GET", "HEAD"]},
]


@pytest.fixture
def cors_bucket(s3, bucket):
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    s3.put_object(Bucket=bucket, Key="k", Body=b"content")
    return bucket


def preflight(root, path, origin=PAGE, method="PUT", headers=""):
    pairs = [("Origin", origin), ("Access-Control-Request-Method", method)]
    pairs += [("Access-Control-Request-Headers", headers)] if headers else []
    return root.anonymous("OPTIONS", path, headers=pairs)


@pytest.mark.subset
def test_bucket_cors_round_trip(s3, bucket):
    with s3_error(404, "NoSuchCORSConfiguration"):
        s3.get_bucket_cors(Bucket=bucket)
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES
    for _ in range(2):
        s3.delete_bucket_cors(Bucket=bucket)
    with s3_error(404, "NoSuchCORSConfiguration"):
        s3.get_bucket_cors(Bucket=bucket)


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([{"AllowedOrigins": ["*"], "AllowedMethods": ["PATCH"]}], "InvalidRequest"),
        ([{"AllowedOrigins": ["http://*.*"], "AllowedMethods": ["GET"]}], "InvalidRequest"),
        ([{"AllowedOrigins": ["*"], "AllowedMethods": ["GET"], "ExposeHeaders": ["x-*"]}], "InvalidRequest"),
        ([{"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}] * 101, "InvalidRequest"),
        ([], "MalformedXML"),
    ],
)
def test_put_bucket_cors_refuses_bad_rules_and_keeps_the_old(s3, cors_bucket, rules, code):
    with s3_error(400, code):
        s3.put_bucket_cors(Bucket=cors_bucket, CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket=cors_bucket)["CORSRules"] == RULES


@pytest.mark.subset
def test_a_preflight_is_answered_without_credentials(root, cors_bucket):
    answer = preflight(root, f"/{cors_bucket}/any/key", headers="content-type,x-amz-date")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-methods"] == "PUT, GET, DELETE"
    assert answer.headers["access-control-allow-headers"] == "content-type, x-amz-date"
    assert answer.headers["access-control-expose-headers"] == "ETag"
    assert answer.headers["access-control-max-age"] == "3000"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]


def test_a_preflight_for_everyone_names_no_origin_and_no_credentials(root, cors_bucket):
    answer = preflight(root, f"/{cors_bucket}/k", origin="https://evil.test", method="GET")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.subset
@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ({"origin": "https://evil.test"}, 403, "AccessForbidden"),
        ({"origin": "https://app.example.com.evil.test"}, 403, "AccessForbidden"),
        ({"method": "POST"}, 403, "AccessForbidden"),
        ({"headers": "authorization"}, 403, "AccessForbidden"),
        ({"method": "PATCH"}, 400, "BadRequest"),
        ({"origin": ""}, 400, "BadRequest"),
    ],
)
def test_a_preflight_that_no_rule_allows_is_refused(root, cors_bucket, arguments, status, code):
    answer = assert_error(preflight(root, f"/{cors_bucket}/k", **arguments), status, code)
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_of_a_bucket_without_rules_is_refused(root, bucket):
    assert_error(preflight(root, f"/{bucket}/k"), 403, "AccessForbidden")
    assert_error(preflight(root, "/no-such-bucket-here/k"), 403, "AccessForbidden")
    assert_error(preflight(root, "/"), 403, "AccessForbidden")
    assert_error(root.anonymous("OPTIONS", f"/{bucket}/k"), 400, "BadRequest")


@pytest.mark.subset
def test_an_answer_to_a_page_carries_the_headers_of_the_rule(root, cors_bucket):
    answer = root.call("PUT", f"/{cors_bucket}/new", headers=[("Origin", PAGE)], body=b"x")
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-expose-headers"] == "ETag"
    assert answer.headers["access-control-allow-credentials"] == "true"
    everyone = root.call("GET", f"/{cors_bucket}/k", headers=[("Origin", "https://evil.test")])
    assert everyone.body == b"content"
    assert everyone.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in everyone.headers


@pytest.mark.subset
def test_a_page_may_read_the_errors_it_gets(root, cors_bucket):
    page = [("Origin", PAGE)]
    for answer, status in (
        (root.call("GET", f"/{cors_bucket}/missing", headers=page), 404),
        (root.anonymous("GET", f"/{cors_bucket}/k", headers=page), 403),
        (root.call("PUT", f"/{cors_bucket}/k", headers=[*page, ("If-None-Match", "*")], body=b"x"), 412),
    ):
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in answer.headers["vary"]


def test_a_request_with_the_headers_of_a_preflight_is_judged_by_them(root, cors_bucket):
    asked = [("Origin", PAGE), ("Access-Control-Request-Method", "PUT")]
    answer = root.call("GET", f"/{cors_bucket}/k", headers=asked)
    assert answer.body == b"content"
    assert answer.headers["access-control-allow-origin"] == PAGE
    answer = root.call(
        "GET", f"/{cors_bucket}/k", headers=[*asked[:1], ("Access-Control-Request-Method", "TRACE")]
    )
    assert answer.body == b"content"
    assert "access-control-allow-origin" not in answer.headers
    answer = root.call(
        "GET", f"/{cors_bucket}/k", headers=[*asked, ("Access-Control-Request-Headers", "\x80")]
    )
    assert "access-control-allow-origin" not in answer.headers


def test_an_origin_that_no_rule_allows_gets_no_headers(root, cors_bucket):
    answer = root.call("PUT", f"/{cors_bucket}/x", headers=[("Origin", "https://evil.test")], body=b"x")
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]


def test_without_an_origin_or_rules_an_answer_says_nothing_of_it(root, s3, cors_bucket):
    assert "vary" not in root.call("GET", f"/{cors_bucket}/k").headers
    s3.delete_bucket_cors(Bucket=cors_bucket)
    answer = root.call("GET", f"/{cors_bucket}/k", headers=[("Origin", PAGE)])
    assert "access-control-allow-origin" not in answer.headers
    assert root.call("GET", "/", headers=[("Origin", PAGE)]).status == 200
