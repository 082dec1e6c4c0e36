"""The form of every answer: ids, error XML, HEAD without body, health pages.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.s3.expect import answer_then_usable_or_closed
from tests.s3.wire import Request, assert_error

FAILING = [
    ("GET", "/no-such-bucket-anywhere", "", 404),
    ("GET", "/{bucket}/missing", "", 404),
    ("PUT", "/Illegal", "", 400),
    ("GET", "/{bucket}", "max-keys=x", 400),
    ("GET", "/{bucket}/k", "uploadId=none", 404),
    ("POST", "/{bucket}", "delete", 400),
    ("DELETE", "/{bucket}/k", "uploadId=none", 404),
    ("DELETE", "/{bucket}", "", 409),
]


@pytest.mark.subset
@pytest.mark.parametrize(("method", "path", "query", "status"), FAILING)
def test_an_error_names_its_resource_and_its_request(root, bucket, method, path, query, status):
    root.call("PUT", f"/{bucket}/k", body=b"x")
    path = path.format(bucket=bucket)
    answer = assert_error(root.call(method, path, query=query), status)
    assert answer.text("Resource") == path
    assert answer.body.startswith(b'<?xml version="1.0" encoding="UTF-8"?>')


@pytest.mark.parametrize(("method", "path", "query", "status"), [f for f in FAILING if f[0] == "GET"])
def test_a_head_error_has_the_status_and_no_body(root, bucket, method, path, query, status):
    root.call("PUT", f"/{bucket}/k", body=b"x")
    request = root.sign("HEAD", path.format(bucket=bucket), query=query)
    answer = answer_then_usable_or_closed(root, request)
    assert answer.body == b""
    assert answer.status in (status, 200, 400, 404, 405, 501)
    assert answer.headers["x-amz-request-id"]


@pytest.mark.subset
def test_every_answer_has_ids_of_its_own(root, bucket):
    requests = [
        root.sign("PUT", f"/{bucket}/k", body=b"x"),
        root.sign("GET", f"/{bucket}/k"),
        root.sign("HEAD", f"/{bucket}/k"),
        root.sign("GET", f"/{bucket}"),
        root.sign("GET", f"/{bucket}/missing"),
        root.sign("HEAD", f"/{bucket}/missing"),
        root.sign("DELETE", f"/{bucket}/k"),
        replace(root, secret_key="x").sign("GET", "/"),
    ]
    answers = [root.exchange(request) for request in requests]
    ids = [answer.headers["x-amz-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(answer.headers["x-amz-id-2"] for answer in answers)


def test_errors_escape_what_the_client_sent(root, bucket):
    answer = root.call("GET", f"/{bucket}/%3Cscript%3E%26%22")
    assert_error(answer, 404, "NoSuchKey")
    assert b"<script>" not in answer.body
    assert answer.text("Key") == '<script>&"'


def test_an_error_about_a_control_character_is_still_xml(root, bucket):
    answer = root.call("GET", f"/{bucket}/%01%0B")
    assert_error(answer, 404, "NoSuchKey")


def test_a_signature_error_shows_what_was_signed(root, bucket):
    answer = replace(root, secret_key="wrong").call("GET", f"/{bucket}/a%20b", query="versionId=null")
    assert_error(answer, 403, "SignatureDoesNotMatch")
    assert answer.text("StringToSign").startswith("AWS4-HMAC-SHA256\n")
    assert f"/{bucket}/a%20b\nversionId=null\n" in answer.text("CanonicalRequest")
    assert answer.text("AWSAccessKeyId") == root.access_key


def test_the_server_does_not_name_its_software_version(root, bucket):
    server = root.call("GET", f"/{bucket}").headers.get("server", "")
    assert not re.search(r"hypercorn|python|\d", server, re.IGNORECASE)


@pytest.mark.subset
@pytest.mark.parametrize("page", ["/-/healthz", "/-/readyz"])
def test_health_pages_need_no_key(root, page):
    assert root.exchange(Request("GET", page, (("Host", root.host),))).status == 200


def test_many_requests_on_one_connection(root, bucket):
    with root.connect() as connection:
        for n in range(50):
            connection.send(root.sign("PUT", f"/{bucket}/k{n % 3}", body=b"x" * n).encode())
            assert connection.answer("PUT").status == 200
            connection.send(root.sign("GET", f"/{bucket}/k{n % 3}").encode())
            assert connection.answer().body == b"x" * n
            connection.send(root.sign("HEAD", f"/{bucket}/k{n % 3}").encode())
            assert connection.answer("HEAD").status == 200


def test_requests_sent_ahead_are_answered_in_order(root, bucket):
    for n in range(5):
        root.call("PUT", f"/{bucket}/k{n}", body=b"%d" % n)
    with root.connect() as connection:
        ahead = [root.sign("GET", f"/{bucket}/k{n}").encode() for n in range(5)]
        connection.send(b"".join(ahead))
        assert [connection.answer().body for _ in range(5)] == [b"%d" % n for n in range(5)]


def test_connection_close_is_honoured(root, bucket):
    request = root.sign("GET", f"/{bucket}", unsigned=[("Connection", "close")])
    with root.connect() as connection:
        connection.send(request.encode())
        assert connection.answer().status == 200
        assert connection.closed()
