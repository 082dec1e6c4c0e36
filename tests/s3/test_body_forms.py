"""The forms a body may take, and every way in which one may be wrong.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.s3.expect import answer_then_usable_or_closed, assert_refused
from tests.s3.wire import (
    SIGNED_CHUNKS,
    SIGNED_CHUNKS_TRAILER,
    UNSIGNED,
    UNSIGNED_CHUNKS_TRAILER,
    ChunkSigner,
    assert_error,
    crc32,
    http_chunked,
    md5,
    signed_chunks,
    streaming_request,
    unsigned_chunks_trailer,
    with_body,
)

KIB, MIB = 1 << 10, 1 << 20
STREAMING = [SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER]
SIZES = [0, 1, 100, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 3 * MIB + 17]


@pytest.mark.subset
@pytest.mark.parametrize("transfer_chunked", [False, True], ids=["length", "transfer-encoding"])
@pytest.mark.parametrize("payload", STREAMING)
@pytest.mark.parametrize("size", SIZES)
def test_a_streaming_body_is_stored_without_its_framing(root, bucket, rng, payload, size, transfer_chunked):
    data = rng.randbytes(size)
    request = streaming_request(root, f"/{bucket}/k", data, payload, transfer_chunked=transfer_chunked)
    answer = root.exchange(request)
    assert (answer.status, answer.headers.get("etag")) == (200, f'"{md5(data)}"'), answer
    got = root.call("GET", f"/{bucket}/k")
    assert got.body == data
    assert "content-encoding" not in got.headers


@pytest.mark.parametrize("size", SIZES)
def test_an_unsigned_body_with_and_without_length(root, bucket, rng, size):
    data = rng.randbytes(size)
    assert root.call("PUT", f"/{bucket}/k", body=data, payload=UNSIGNED).status == 200
    assert root.call("GET", f"/{bucket}/k").body == data


def test_a_streaming_body_arriving_in_tiny_pieces(root, bucket, rng):
    data = rng.randbytes(70_000)
    request = streaming_request(root, f"/{bucket}/k", data, SIGNED_CHUNKS_TRAILER, transfer_chunked=True)
    encoded = request.encode()
    with root.connect() as connection:
        sizes = [1, 2, 3, 5, 8, 13, 4096, 1, 1, 1, 30_000]
        at = 0
        while at < len(encoded):
            size = sizes[at % len(sizes)]
            connection.send(encoded[at : at + size])
            at += size
        assert connection.answer("PUT").status == 200
    assert root.call("GET", f"/{bucket}/k").body == data


def test_a_streaming_body_in_chunks_of_any_size(root, bucket, rng):
    data = rng.randbytes(300_000)
    headers = [("x-amz-decoded-content-length", str(len(data)))]
    for size in (8192, 65_537, 131_072, 1 << 20):
        request = root.sign("PUT", f"/{bucket}/k", headers=headers, payload=SIGNED_CHUNKS, length=None)
        request = with_body(request, signed_chunks(request, data, size))
        assert root.exchange(request).status == 200
        assert root.call("GET", f"/{bucket}/k").body == data


def test_a_streaming_body_uploads_a_part(root, s3, bucket, rng):
    data = rng.randbytes(200_000)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    headers = [("x-amz-decoded-content-length", str(len(data))), ("x-amz-trailer", "x-amz-checksum-crc32")]
    query = f"partNumber=1&uploadId={upload}"
    request = root.sign(
        "PUT", f"/{bucket}/k", query=query, headers=headers, payload=UNSIGNED_CHUNKS_TRAILER, length=None
    )
    body = unsigned_chunks_trailer(data, ("x-amz-checksum-crc32", crc32(data)))
    assert root.exchange(with_body(request, body)).headers["etag"] == f'"{md5(data)}"'


# -- wrong bodies. Each leaves the object as it was.


@pytest.fixture
def target(root, bucket):
    path = f"/{bucket}/kept"
    assert root.call("PUT", path, body=b"before").status == 200
    yield path
    assert root.call("GET", path).body == b"before"
    assert root.call("GET", f"/{bucket}").texts("Key") == ["kept"]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.subset
@pytest.mark.parametrize("transfer_chunked", [False, True], ids=["length", "transfer-encoding"])
@pytest.mark.parametrize("where", ["first data", "last data", "first signature", "last signature"])
def test_a_flipped_byte_in_a_signed_chunk_is_refused(root, target, rng, where, transfer_chunked):
    data = rng.randbytes(150_000)
    request = streaming_request(root, target, data, SIGNED_CHUNKS)
    body = request.body
    at = {
        "first data": body.index(b"\r\n") + 10,
        "last data": body.rindex(b"\r\n0;chunk-signature") - 10,
        "first signature": body.index(b"chunk-signature=") + 20,
        "last signature": body.rindex(b"chunk-signature=") + 20,
    }[where]
    bad = flip(body, at)
    if where.endswith("signature"):  # another hex digit, so that it is a signature, but not this one
        digit = b"0" if body[at : at + 1] != b"0" else b"1"
        bad = body[:at] + digit + body[at + 1 :]
    if transfer_chunked:
        request = request.with_header("Content-Length", None).with_header("Transfer-Encoding", "chunked")
        bad = http_chunked(bad)
    assert_refused(root, replace(request, body=bad), 403, "SignatureDoesNotMatch")


@pytest.mark.subset
@pytest.mark.parametrize("payload", [SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER])
def test_a_wrong_checksum_in_a_trailer_is_refused(root, target, rng, payload):
    data = rng.randbytes(100_000)
    headers = [("x-amz-decoded-content-length", str(len(data))), ("x-amz-trailer", "x-amz-checksum-crc32")]
    request = root.sign("PUT", target, headers=headers, payload=payload, length=None)
    trailer = ("x-amz-checksum-crc32", crc32(b"other"))
    if payload == UNSIGNED_CHUNKS_TRAILER:
        body = unsigned_chunks_trailer(data, trailer)
    else:
        signer = ChunkSigner(request)
        body = signer.chunk(data) + signer.last_chunk_before_trailer() + signer.trailer(*trailer)
    answer = assert_refused(root, with_body(request, body), 400, "BadDigest", "XAmzContentChecksumMismatch")
    assert "crc32" in answer.body.decode().lower()


def test_a_flipped_byte_in_an_unsigned_chunk_is_refused_by_its_trailer(root, target, rng):
    request = streaming_request(root, target, rng.randbytes(100_000), UNSIGNED_CHUNKS_TRAILER)
    bad = replace(request, body=flip(request.body, 70_000))
    assert_refused(root, bad, 400, "BadDigest", "XAmzContentChecksumMismatch")


def test_a_flipped_trailer_signature_is_refused(root, target):
    request = streaming_request(root, target, b"data", SIGNED_CHUNKS_TRAILER)
    at = request.body.index(b"x-amz-trailer-signature:") + 30
    digit = b"0" if request.body[at : at + 1] != b"0" else b"1"
    bad = request.body[:at] + digit + request.body[at + 1 :]
    assert_refused(root, replace(request, body=bad), 403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    "trailer",
    [
        b"",
        b"x-amz-checksum-crc32\r\n",
        b"x-amz-checksum-crc32:\r\n",
        b"x-amz-checksum-crc32:notbase64\r\n",
        b"x-amz-checksum-crc32c:AAAAAA==\r\n",
        b"x-amz-meta-smuggled:yes\r\n",
        b"x-amz-checksum-crc32:%s\r\n" % (b"A" * 40_000),
    ],
)
def test_a_malformed_or_unannounced_trailer_is_refused(root, target, trailer):
    headers = [("x-amz-decoded-content-length", "4"), ("x-amz-trailer", "x-amz-checksum-crc32")]
    request = root.sign("PUT", target, headers=headers, payload=UNSIGNED_CHUNKS_TRAILER, length=None)
    body = b"4\r\ndata\r\n0\r\n" + trailer + b"\r\n"
    answer = answer_then_usable_or_closed(root, with_body(request, body))
    assert answer.status == 400
    assert_error(answer, 400)


@pytest.mark.parametrize("said", [3, 5, 100_000])
@pytest.mark.parametrize("payload", STREAMING)
def test_a_decoded_length_that_does_not_match_is_refused(root, target, payload, said):
    data = b"data"
    headers = [("x-amz-decoded-content-length", str(said))]
    if payload != SIGNED_CHUNKS:
        headers.append(("x-amz-trailer", "x-amz-checksum-crc32"))
    request = root.sign("PUT", target, headers=headers, payload=payload, length=None)
    trailer = ("x-amz-checksum-crc32", crc32(data))
    signer = ChunkSigner(request)
    body = {
        SIGNED_CHUNKS: lambda: signed_chunks(request, data),
        SIGNED_CHUNKS_TRAILER: lambda: (
            signer.chunk(data) + signer.last_chunk_before_trailer() + signer.trailer(*trailer)
        ),
        UNSIGNED_CHUNKS_TRAILER: lambda: unsigned_chunks_trailer(data, trailer),
    }[payload]()
    answer = answer_then_usable_or_closed(root, with_body(request, body))
    assert_error(answer, 400)


@pytest.mark.parametrize("value", [None, "", "x", "-1", "1.5", "99999999999999999999999"])
def test_a_streaming_body_without_a_proper_decoded_length_is_refused(root, target, value):
    headers = [("x-amz-decoded-content-length", value)] if value is not None else []
    request = root.sign("PUT", target, headers=headers, payload=SIGNED_CHUNKS, length=None)
    answer = answer_then_usable_or_closed(root, with_body(request, signed_chunks(request, b"data")))
    assert answer.status in (400, 411), answer
    assert_error(answer, answer.status)


MALFORMED = [
    b"zz\r\ndata\r\n0\r\n\r\n",
    b"\r\ndata\r\n0\r\n\r\n",
    b"-4\r\ndata\r\n0\r\n\r\n",
    b"0x4\r\ndata\r\n0\r\n\r\n",
    b"4\ndata\n0\n\n",
    b"4\r\ndataXX0\r\n\r\n",
    b"4" * 5000 + b"\r\ndata\r\n0\r\n\r\n",
    b"fffffffffffffffffff\r\ndata\r\n0\r\n\r\n",
    b"data that was never framed at all, as an old client would send it",
    b"",
]


@pytest.mark.parametrize("payload", STREAMING)
@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: ascii(body)[:24])
def test_a_malformed_framing_is_refused(root, target, payload, body):
    headers = [("x-amz-decoded-content-length", "4")]
    if payload != SIGNED_CHUNKS:
        headers.append(("x-amz-trailer", "x-amz-checksum-crc32"))
    request = root.sign("PUT", target, headers=headers, payload=payload, length=None)
    answer = answer_then_usable_or_closed(root, with_body(request, body))
    assert answer.status in (400, 403), answer
    assert_error(answer, answer.status)


@pytest.mark.subset
@pytest.mark.parametrize("payload", [*STREAMING, UNSIGNED])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_truncated_body_is_refused_or_dropped(root, target, rng, payload, kept):
    data = rng.randbytes(200_000)
    if payload == UNSIGNED:
        request = root.sign("PUT", target, body=data, payload=UNSIGNED)
    else:
        request = streaming_request(root, target, data, payload)
    cut = replace(request, body=request.body[: int(len(request.body) * kept)])
    answer = answer_then_usable_or_closed(root, cut, end_of_input=True)
    assert answer.status in (0, 400), answer
    if answer.status:
        assert_error(answer, 400, "IncompleteBody", "RequestTimeout")


def test_a_body_that_ends_inside_its_http_chunk_is_refused_or_dropped(root, target, rng):
    request = streaming_request(
        root, target, rng.randbytes(100_000), UNSIGNED_CHUNKS_TRAILER, transfer_chunked=True
    )
    cut = replace(request, body=request.body[:-5])
    answer = answer_then_usable_or_closed(root, cut, end_of_input=True)
    assert answer.status in (0, 400)


def test_bytes_after_the_last_chunk_are_refused(root, target):
    request = streaming_request(root, target, b"data", SIGNED_CHUNKS)
    answer = answer_then_usable_or_closed(root, with_body(request, request.body + b"more"))
    assert_error(answer, 400)


def test_small_inner_chunks_are_refused(root, target):
    """S3 wants chunks of 8 KiB at least, but for the last: many tiny ones are an attack on the server's time."""
    data = b"x" * 3000
    headers = [("x-amz-decoded-content-length", str(len(data)))]
    request = root.sign("PUT", target, headers=headers, payload=SIGNED_CHUNKS, length=None)
    answer = answer_then_usable_or_closed(root, with_body(request, signed_chunks(request, data, 1)))
    assert_error(answer, answer.status, "InvalidChunkSizeError")
    assert answer.status in (400, 403)


# -- expectation


@pytest.mark.subset
def test_100_continue_comes_only_for_a_body_that_is_wanted(root, bucket):
    request = root.sign("PUT", f"/{bucket}/k", headers=[("Expect", "100-continue")], body=b"data")
    with root.connect() as connection:
        connection.send(request.head())
        assert connection.read_line() == b"HTTP/1.1 100 Continue\r\n"
        assert connection.read_line() == b"\r\n"
        connection.send(request.body)
        assert connection.answer("PUT").status == 200
    for bad, status in ((replace(root, secret_key="wrong"), 403), (root, 404)):
        path = f"/{bucket}/k" if status == 403 else "/no-such-bucket-anywhere/k"
        request = bad.sign("PUT", path, headers=[("Expect", "100-continue")], body=b"data")
        with root.connect() as connection:
            connection.send(request.head())
            answer = connection.answer("PUT")
            assert answer.status == status, "the refusal comes instead of 100 Continue"
            assert answer.closes


def test_an_early_refusal_of_a_large_body_reaches_its_sender(root, bucket, rng):
    """The refused body is on its way already: a connection reset would eat the answer."""
    body = rng.randbytes(8 * MIB)
    request = replace(root, secret_key="wrong").sign("PUT", f"/{bucket}/k", body=body)
    for _ in range(5):
        assert_error(answer_then_usable_or_closed(root, request), 403, "SignatureDoesNotMatch")
