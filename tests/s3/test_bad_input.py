"""Bytes that no client should send: the documented error, state unchanged, no hang, never a 500.

Requests of wrong form are refused before S3 looks at them; requests of right form and wrong content by S3's table.
"""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from tests.s3.expect import answer_then_usable_or_closed, assert_refused, keys_of
from tests.s3.wire import UNSIGNED, assert_error, content_md5, http_chunked

MIB = 1 << 20


@pytest.fixture
def kept(root, bucket, s3):
    """A bucket that must hold exactly this object after the test."""
    assert root.call("PUT", f"/{bucket}/kept", body=b"kept").status == 200
    yield bucket
    assert keys_of(s3, bucket) == ["kept"]
    assert root.call("GET", f"/{bucket}/kept").body == b"kept"


def send_raw(caller, data: bytes):
    """The answer to these bytes, and whether the connection is closed after it; (None, True) for a mere close."""
    with caller.connect() as connection:
        connection.send(data)
        try:
            answer = connection.answer()
        except ConnectionError:
            return None, True
        return answer, connection.closed(3.0) if answer.closes else False


@pytest.mark.subset
@pytest.mark.parametrize(
    "extra",
    [
        [("Content-Length", "4"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "gzip, chunked")],
        [("Transfer-Encoding", "identity")],
        [("Content-Length", "4"), ("Content-Length", "5")],
        [("Content-Length", "+4")],
        [("Content-Length", "4x")],
        [("Content-Length", "-1")],
        [("Content-Length", "0x4")],
    ],
    ids=str,
)
def test_an_ambiguous_body_length_is_refused_and_nothing_after_it_runs(root, kept, extra):
    """Request smuggling: what follows on the connection must not be taken for a request."""
    request = root.sign("PUT", f"/{kept}/smuggled", payload=UNSIGNED, length=None, unsigned=extra)
    follow_up = root.sign("PUT", f"/{kept}/second", body=b"x").encode()
    answer, closed = send_raw(root, request.head() + http_chunked(b"data") + follow_up)
    assert closed
    assert answer is None or answer.status in (400, 411, 501)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded: header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nName : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G\x80T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\x80\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\r\nGARBAGE\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
    ids=lambda data: ascii(data)[:48],
)
def test_a_head_that_is_not_http_is_refused_and_the_connection_closed(root, kept, data):
    with root.connect() as connection:
        connection.send(data)
        connection.half_close()
        try:
            answer = connection.answer()
        except ConnectionError:
            return
        assert 400 <= answer.status < 500 or answer.status in (501, 505), answer
        assert connection.closed()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"h%d: v\r\n" % n for n in range(8000)) + b"\r\n",
    ],
    ids=["target", "one header", "many headers"],
)
def test_a_head_without_end_is_refused_and_the_connection_closed(root, head):
    with root.connect() as connection:
        connection.send(head)
        with suppress(ConnectionError):
            assert connection.answer().status in (400, 414, 431)
        assert connection.closed()


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b"]><Delete><Object><Key>&j;</Key></Object></Delete>"
)
XML = {
    "bomb": BOMB,
    "external entity": b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&x;</Key></Object></Delete>',
    "unclosed": b"<Delete><Object><Key>kept</Key>",
    "two roots": b"<Delete></Delete><Delete></Delete>",
    "deep": b"<Delete>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</Delete>",
    "not utf-8": b'<?xml version="1.0" encoding="UTF-8"?><Delete><Object><Key>\xff\xfe</Key></Object></Delete>',
    "utf-7": b'<?xml version="1.0" encoding="UTF-7"?><Delete/>',
    "binary": bytes(range(256)),
    "json": b'{"Delete": []}',
}


@pytest.mark.subset
@pytest.mark.parametrize("name", XML)
def test_malformed_or_hostile_xml_is_refused(root, s3, kept, name):
    body = XML[name]
    upload = s3.create_multipart_upload(Bucket=kept, Key="mp")["UploadId"]
    md5 = [("Content-MD5", content_md5(body))]
    for method, path, query, headers in (
        ("POST", f"/{kept}", "delete", md5),
        ("POST", f"/{kept}/mp", f"uploadId={upload}", []),
        ("PUT", "/never-made", "", []),
    ):
        request = root.sign(method, path, query=query, headers=headers, body=body)
        assert_refused(root, request, 400, "MalformedXML", "MaxMessageLengthExceeded", "InvalidRequest")
    assert root.call("HEAD", "/never-made").status == 404


def test_an_xml_body_without_bound_is_refused(root, kept):
    body = b"<Delete>" + b"<Object><Key>x</Key></Object>" * 400_000 + b"</Delete>"
    headers = [("Content-MD5", content_md5(body))]
    request = root.sign("POST", f"/{kept}", query="delete", headers=headers, body=body)
    answer = answer_then_usable_or_closed(root, request)
    assert_error(answer, 400, "MalformedXML", "MaxMessageLengthExceeded", "EntityTooLarge")


@pytest.mark.parametrize(
    "query",
    [
        "uploads&uploads",
        "list-type=3",
        "list-type=2&list-type=1",
        "list-type=2&prefix=%FF",
        "delimiter=%00",
        "marker=%ED%A0%80",
        "versionId=",
        "max-keys=",
        "%00=1",
        "a=b=c&&&=&=x",
        "prefix=" + "x" * 5000,
        "list-type=2&continuation-token=" + "A" * 3000,
    ],
    ids=lambda query: query[:40],
)
def test_odd_queries_are_answered_without_a_500(root, kept, query):
    answer = answer_then_usable_or_closed(root, root.sign("GET", f"/{kept}", query=query))
    assert answer.status < 500 or answer.status == 501, answer


@pytest.mark.parametrize("seed", range(30))
def test_requests_with_random_damage_are_answered_or_dropped(root, kept, seed):
    """One byte of a good request changed: it may still be good, but it is never a 500 and never a hang."""
    rng = random.Random(seed)
    request = root.sign(
        "GET", f"/{kept}/kept", query="response-content-type=text%2Fx", headers=[("Range", "bytes=0-1")]
    )
    data = bytearray(request.encode())
    for _ in range(rng.choice([1, 1, 2, 5])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    with root.connect() as connection:
        connection.send(bytes(data))
        connection.half_close()
        try:
            answer = connection.answer()
        except (ConnectionError, TimeoutError):
            return
        assert answer.status < 500 or answer.status in (501, 505), (bytes(data), answer)


def test_a_put_with_an_empty_key_or_only_slashes(root, kept):
    assert root.call("PUT", f"/{kept}//", body=b"x").status == 200, "'/' is a legal key"
    assert root.call("DELETE", f"/{kept}//").status == 204


@pytest.mark.parametrize("path", ["//", "///key", "/%2F", "/%00/key", "/..", "/.", "/a%20b/key", "/%FF/key"])
def test_paths_without_a_legal_bucket_are_refused(root, path):
    for method in ("GET", "PUT"):
        answer = root.call(method, path)
        assert answer.status in (400, 404, 405, 501), answer
        assert_error(answer, answer.status)


def test_a_body_where_none_belongs_is_taken_or_refused_but_never_run(root, kept):
    """A GET with a body: its bytes are not the next request."""
    inner = root.sign("PUT", f"/{kept}/smuggled", body=b"x").encode()
    request = root.sign("GET", f"/{kept}/kept", body=inner)
    with root.connect() as connection:
        connection.send(request.encode())
        first = connection.answer()
        assert first.status in (200, 400)
        if not first.closes:
            connection.send(root.sign("GET", f"/{kept}/kept").encode())
            assert connection.answer().body == b"kept"
