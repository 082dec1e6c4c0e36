"""The connection under S3: usable or closed after every refusal, 100 only to the welcome, and nothing a proxy says counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.s3.conftest import new_bucket_name
from tests.s3.examples import EXAMPLES, Line, by_header, make_place
from tests.s3.expect import answer_then_usable_or_closed, keys_of
from tests.s3.forms import form_request, signed_fields
from tests.s3.wire import SIGNED_CHUNKS, UNSIGNED, assert_error, content_md5, http_chunked, streaming_request
from vaultaire.s3.operation import Operation
from vaultaire.s3.operations import OPERATIONS

MIB = 1 << 20
EXPECT = ("Expect", "100-continue")
BUILT = sorted(OPERATIONS, key=lambda operation: operation.value)
WITH_BODY = [op for op in BUILT if EXAMPLES[op].body and op is not Operation.POST_OBJECT]
named = pytest.mark.parametrize("operation", WITH_BODY, ids=lambda operation: operation.value)


@pytest.fixture
def line(root):
    made = Line(root)
    yield made
    made.close()


@pytest.fixture
def place(root, line):
    return make_place(line, root, EXAMPLES[Operation.PUT_OBJECT])


# -- Expect: 100-continue


def first_line(caller, request) -> bytes:
    """What comes first after the head alone."""
    with caller.connect() as connection:
        connection.send(request.head())
        return connection.read_line()


def in_another_bucket(example, place):
    absent = new_bucket_name("absent")
    return replace(example, path=example.path.replace(place.bucket, absent).replace(place.empty, absent))


@pytest.mark.subset
@named
def test_a_refused_body_is_never_asked_for(root, line, operation):
    place = make_place(line, root, EXAMPLES[operation])
    example = replace(EXAMPLES[operation].at(place), headers=(*EXAMPLES[operation].headers, EXPECT))
    stranger = replace(root, secret_key="some-other-secret")
    assert first_line(root, by_header(stranger, example)).startswith(b"HTTP/1.1 403 ")
    anonymous = by_header(root, example).with_header("Authorization", None)
    assert first_line(root, anonymous).split()[1] in (b"400", b"403")
    if operation is not Operation.CREATE_BUCKET:
        missing = by_header(root, in_another_bucket(example, place))
        assert first_line(root, missing).startswith(b"HTTP/1.1 404 ")


@named
def test_a_welcome_body_is_asked_for_and_taken(root, line, operation):
    place = make_place(line, root, EXAMPLES[operation])
    example = replace(EXAMPLES[operation].at(place), headers=(*EXAMPLES[operation].headers, EXPECT))
    request = by_header(root, example)
    with root.connect() as connection:
        connection.send(request.head())
        assert connection.read_line() == b"HTTP/1.1 100 Continue\r\n"
        assert connection.read_line() == b"\r\n"
        connection.send(request.body)
        assert connection.answer(request.method).status in example.statuses


def test_an_upload_whose_condition_fails_is_never_asked_for(root, place):
    request = root.sign(
        "PUT", f"/{place.bucket}/kept", headers=[EXPECT, ("If-None-Match", "*")], body=b"x" * MIB
    )
    assert first_line(root, request).startswith(b"HTTP/1.1 412 ")
    part = root.sign(
        "PUT", f"/{place.bucket}/part", query="partNumber=1&uploadId=none", headers=[EXPECT], body=b"x"
    )
    assert first_line(root, part).startswith(b"HTTP/1.1 404 ")


def test_a_form_is_asked_for_because_its_proof_is_inside(root, bucket):
    request = form_request(root, bucket, signed_fields(root, bucket, {"key": "k"}), b"x", headers=[EXPECT])
    with root.connect() as connection:
        connection.send(request.head())
        assert connection.read_line() == b"HTTP/1.1 100 Continue\r\n"
        connection.read_line()
        connection.send(request.body)
        assert connection.answer().status == 204
    plain = form_request(root, bucket, {}, b"x", headers=[EXPECT]).with_header("Content-Type", "text/plain")
    assert first_line(root, plain).startswith(b"HTTP/1.1 412 ")


# -- keep-alive after a refusal


def wrong_requests(root, place, example):
    """(status, request) of each kind of refusal, before, inside and after the body."""
    good = by_header(root, example)
    yield 403, by_header(replace(root, secret_key="some-other-secret"), example)
    yield (
        403,
        replace(good, headers=tuple(h for h in good.headers if h[0] == "Host" or h[0] == "Content-Length")),
    )
    yield 403, good.with_header("x-amz-meta-added", "unsigned")
    wrong = replace(example, headers=(*example.headers, ("Content-MD5", content_md5(b"other"))))
    yield 400, by_header(root, wrong)
    yield 400, replace(good, body=b"?" * len(good.body))


@pytest.mark.subset
@named
def test_the_connection_goes_on_after_every_refusal(root, line, operation):
    """A small body is taken in and forgotten; the next request is answered."""
    place = make_place(line, root, EXAMPLES[operation])
    example = EXAMPLES[operation].at(place)
    for status, request in wrong_requests(root, place, example):
        chunked = replace(
            request.with_header("Content-Length", None).with_header("Transfer-Encoding", "chunked"),
            body=http_chunked(request.body, 7),
        )
        # An upload must say its length: 411 comes before what is only known from the body.
        for sent, right in ((request, (status,)), (chunked, (status, 411))):
            answer = answer_then_usable_or_closed(root, sent)
            assert answer.status in right, (sent, answer)
            assert not answer.closes


@named
def test_a_large_refused_body_does_not_come_to_be_a_request(root, line, operation, rng):
    """Unread or half read: the connection is closed behind the answer, or the next request is the next one."""
    place = make_place(line, root, EXAMPLES[operation])
    example = EXAMPLES[operation].at(place)
    smuggled = root.sign("PUT", f"/{place.bucket}/smuggled", body=b"x").encode()
    body = (smuggled * (3 * MIB // len(smuggled)))[: 3 * MIB]
    stranger = replace(root, secret_key="some-other-secret")
    for caller in (stranger, root):
        request = caller.sign(
            example.method,
            example.path,
            query=example.query,
            headers=[*example.headers, ("Content-MD5", content_md5(b"other"))],
            body=body,
        )
        assert 400 <= answer_then_usable_or_closed(root, request).status < 500
    assert root.call("HEAD", f"/{place.bucket}/smuggled").status == 404


def test_requests_sent_ahead_of_a_refusal_are_answered_in_order(root, bucket, s3):
    bad = replace(root, secret_key="some-other-secret").sign("PUT", f"/{bucket}/bad", body=b"bad" * 1000)
    good = root.sign("PUT", f"/{bucket}/good", body=b"good" * 1000)
    with root.connect() as connection:
        connection.send((bad.encode() + good.encode()) * 3)
        for status in [403, 200] * 3:
            answer = connection.answer("PUT")
            assert answer.status == status
            if answer.closes:  # over TLS, where a body that is here already cannot be seen to be
                assert connection.closed()
                break
    assert keys_of(s3, bucket) in ([], ["good"])
    assert root.call("HEAD", f"/{bucket}/bad").status == 404


def test_an_upload_refused_in_its_middle_ends_in_step(root, bucket, rng):
    """A wrong chunk signature shows half-way: what is left of the body is no request."""
    request = streaming_request(root, f"/{bucket}/k", rng.randbytes(MIB), SIGNED_CHUNKS)
    at = len(request.body) // 2
    broken = replace(request, body=request.body[:at] + b"\x00" * 64 + request.body[at + 64 :])
    answer = answer_then_usable_or_closed(root, broken)
    assert answer.status in (400, 403)
    assert root.call("HEAD", f"/{bucket}/k").status == 404


# -- proxies

FORWARDED = [
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Original-Url", "/evil/k"),
    ("X-Http-Method-Override", "DELETE"),
    ("Forwarded", "host=evil.example;proto=https;for=127.0.0.1"),
]


def test_what_a_proxy_says_changes_nothing(root, bucket, server):
    path = f"/{bucket}/k"
    assert root.exchange(root.sign("PUT", path, body=b"x", unsigned=FORWARDED)).status == 200
    assert root.exchange(root.sign("GET", path, unsigned=FORWARDED)).body == b"x"
    assert root.exchange(root.presign("GET", path, unsigned=FORWARDED)).body == b"x"
    upload = root.call("POST", f"/{bucket}/m", query="uploads").text("UploadId")
    etag = root.call("PUT", f"/{bucket}/m", query=f"partNumber=1&uploadId={upload}", body=b"p").headers[
        "etag"
    ]
    xml = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    request = root.sign(
        "POST", f"/{bucket}/m", query=f"uploadId={upload}", body=xml.encode(), unsigned=FORWARDED
    )
    assert root.exchange(request).text("Location") == f"{server.url}/{bucket}/m"


def test_a_forwarded_host_is_not_what_was_signed(root, bucket):
    request = root.sign("GET", f"/{bucket}").with_header("Host", "internal.example")
    assert_error(
        root.exchange(request.with_header("X-Forwarded-Host", root.host)), 403, "SignatureDoesNotMatch"
    )


@pytest.mark.parametrize("accepted", ["identity", "gzip", "gzip, deflate, br", "gzip;q=1.0,  *;q=0.5"])
def test_a_signed_accept_encoding_passes_untouched(root, bucket, accepted):
    headers = [("Accept-Encoding", accepted)]
    body = b"compressible " * 1000
    assert root.call("PUT", f"/{bucket}/k", body=body, headers=headers).status == 200
    answer = root.call("GET", f"/{bucket}/k", headers=headers)
    assert answer.body == body
    assert "content-encoding" not in answer.headers
    assert "content-encoding" not in root.call("GET", f"/{bucket}", headers=headers).headers


def test_an_unsigned_payload_needs_no_header_that_a_proxy_could_drop(root, bucket):
    request = root.sign("PUT", f"/{bucket}/k", payload=UNSIGNED, body=b"x")
    chunked = request.with_header("Content-Length", None).with_header("Transfer-Encoding", "chunked")
    answer = answer_then_usable_or_closed(root, replace(chunked, body=http_chunked(b"x")))
    assert answer.status == 411, "S3 wants to know the length of a plain upload"
