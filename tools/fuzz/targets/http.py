"""What a client sends of HTTP itself: heads, addresses, signatures, header fields, the framing of bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.fuzz.targets.target import Target, allow, cuts
from vaultaire import head
from vaultaire.chunked import ChunkedDecoder, ChunkedError
from vaultaire.s3 import (
    acl,
    addressing,
    aws_chunked,
    bucket_settings,
    conditions,
    dates,
    expected,
    headers,
    names,
    ranges,
    routing,
    sigv4,
    tags,
    version_ids,
)
from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HTTP_WORDS = (
    b"\r\n", b": ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1", b"%2F", b"%00", b"%C3%28", b"?",
    b"&", b"=", b"/", b"..", b"Range: bytes=", b"x-amz-", b"-", b",", b";", b'"', b"*", b"\t", b"X-Amz-Date", b"acl",
    b"uploads", b"uploadId=", b"versionId=", b"Host: ",
)  # fmt: skip


def take_head(data: bytes) -> None:
    """The same verdict however the bytes were cut into reads."""
    whole = head.take_head(data)
    seen, verdict = b"", None
    for piece in cuts(data):
        searched, seen = len(seen), seen + piece
        verdict = head.take_head(seen, searched)
        if verdict is not None:
            break
    if isinstance(whole, head.Head):
        assert verdict == whole, (whole, verdict)
    elif isinstance(whole, head.Refused):
        assert isinstance(verdict, head.Refused), verdict
    else:
        assert verdict is None, verdict


def take_chunked(data: bytes) -> None:
    assert _unchunk([data]) == _unchunk(cuts(data))


def _unchunk(pieces: Sequence[bytes]) -> tuple[bytes, bool] | None:
    decoder, body = ChunkedDecoder(), b""
    try:
        for piece in pieces:
            if decoder.done:
                break
            body += decoder.feed(piece)
    except ChunkedError:
        return None
    return body, decoder.done


def take_request(data: bytes) -> None:
    """Head, address, query, route, signature, and every header that has a parser; as `service.py` goes about it."""
    found = head.take_head(data)
    if not isinstance(found, head.Head):
        return
    fields = headers.header_map(found.headers)
    query = routing.parse_query(found.query_string)
    host = fields.get(b"host", "")
    address = addressing.split_address(host, found.raw_path, ("s3.example.com",))
    for each in (
        lambda: routing.route(found.method, address.bucket, address.key, query, fields),
        lambda: _verify(sigv4.parse(found.method, found.raw_path, found.query_string, found.headers)),
        lambda: take_fields(fields, query),
    ):
        allow(S3Error, each)


def _verify(claim: sigv4.Claim) -> None:
    if claim.auth is not sigv4.Auth.ANONYMOUS:
        sigv4.verify(claim, "a-secret-key-of-nobody", 1_700_000_000.0)
        raise AssertionError("a signature nobody could make was accepted")


def take_fields(fields: dict[bytes, str], query: dict[str, str]) -> None:
    current = conditions.Current("d41d8cd98f00b204e9800998ecf8427e", 1000, 1_700_000_000_000)
    anything = " ".join(fields.values())
    parsers: list[Callable[[], object]] = [
        lambda: ranges.parse_range(fields.get(b"range"), 1000),
        lambda: ranges.parse_copy_source_range(fields.get(b"x-amz-copy-source-range", anything), 1000),
        lambda: conditions.check_read(fields, current),
        lambda: conditions.check_copy_source(fields, current),
        lambda: conditions.check_rename(fields, current, None),
        lambda: conditions.range_applies(fields, current),
        lambda: conditions.parse_write(fields),
        lambda: conditions.parse_delete(fields),
        lambda: headers.parse_metadata(fields),
        lambda: headers.format_metadata(headers.parse_metadata(fields)),
        lambda: headers.parse_system(fields),
        lambda: headers.refuse_broken_promises(fields),
        lambda: headers.response_overrides(query, anonymous=False),
        lambda: names.parse_copy_source(fields.get(b"x-amz-copy-source", anything)),
        lambda: expected.parse_content_md5(fields),
        lambda: expected.parse_upload_checksum(fields),
        lambda: expected.parse_checksum_type(fields),
        lambda: expected.parse_object_checksum(fields),
        lambda: acl.parse_headers(fields, "me", "me"),
        lambda: tags.parse_header(fields),
        lambda: bucket_settings.ownership_header(fields),
        lambda: version_ids.parse_version(query.get("versionId")),
        lambda: dates.parse_http(anything),
        lambda: dates.parse_iso_ms(anything),
        lambda: dates.parse_basic(anything),
    ]
    for parse in parsers:
        allow(S3Error, parse)


def take_aws_chunked(data: bytes) -> None:
    """Signed and unsigned, with trailers and without; the first two bytes say which, and how long it claims to be."""
    if len(data) < 2:
        return
    kinds = [kind for kind in sigv4.Payload if kind.value.startswith("STREAMING")]
    kind, length, body = kinds[data[0] % len(kinds)], data[1], data[2:]
    assert _unwrap(kind, length, [body]) == _unwrap(kind, length, cuts(body))


def _unwrap(kind: sigv4.Payload, length: int, pieces: Sequence[bytes]) -> tuple[bytes, dict[str, str]] | None:
    verified = sigv4.Verified(
        "AKIA", b"k" * 32, "20260101T000000Z", "20260101/us-east-1/s3/aws4_request", "0" * 64
    )
    decoder = aws_chunked.Decoder(kind, verified, length, ["x-amz-checksum-crc32"])
    try:
        body = b"".join(bytes(view) for piece in pieces for view in decoder.feed(piece))
        found = decoder.finish()
    except S3Error:
        return None
    assert len(body) == length
    return body, found


def _heads() -> list[bytes]:
    signed = (
        b"GET /bucket/key?versionId=null&partNumber=1 HTTP/1.1\r\nHost: localhost\r\nX-Amz-Date: 20260101T000000Z\r\n"
        b'X-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\nRange: bytes=0-9\r\nIf-Match: "a"\r\nAuthorization: AWS4-HMAC-SHA256 '
        b"Credential=AKIA/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        b"Signature=" + b"0" * 64 + b"\r\n\r\n"
    )
    presigned = (
        b"PUT /b/k%20%C3%A9?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20260101%2Fus-east-1%2Fs3%2F"
        b"aws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature="
        + b"0" * 64
        + b" HTTP/1.1\r\nHost: b.s3.example.com\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    put = (
        b"PUT /bucket/key HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n"
        b"x-amz-checksum-crc32: AAAAAA==\r\nx-amz-meta-a: =?UTF-8?B?w6k=?=\r\nx-amz-tagging: a=b&c=d\r\n"
        b"x-amz-acl: public-read\r\nx-amz-copy-source: /b/k?versionId=null\r\nx-amz-copy-source-range: bytes=0-1\r\n"
        b"If-None-Match: *\r\nIf-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: a/b\r\n\r\n"
    )
    return [signed, presigned, put, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\nHEAD /b HTTP/1.0\r\n\r\n"]


def _chunked() -> list[bytes]:
    return [b"5\r\nhello\r\n0\r\n\r\n", b"1;a=b\r\nx\r\nA\r\n0123456789\r\n0\r\nt: v\r\n\r\nGET /"]


def _aws_chunked() -> list[bytes]:
    signature = b";chunk-signature=" + b"0" * 64
    return [
        b"\x00\x05" + b"5" + signature + b"\r\nhello\r\n0" + signature + b"\r\n\r\n",
        b"\x02\x055\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        b"\x02\x003\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
    ]


TARGETS = (
    Target("head", take_head, (), _heads, HTTP_WORDS),
    Target("request", take_request, (S3Error,), _heads, HTTP_WORDS),
    Target("chunked", take_chunked, (), _chunked, (b"\r\n", b"0\r\n", b";", b"ffffffff")),
    Target("aws-chunked", take_aws_chunked, (), _aws_chunked, (b"\r\n", b"0\r\n", b";chunk-signature=", b"x-amz-checksum-crc32:")),
)  # fmt: skip
