"""The aws-chunked decoder against an encoder: any split decodes, any flipped byte is refused."""

from __future__ import annotations

import base64
import hmac
import itertools
import zlib
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.aws_chunked import MIN_SIGNED_CHUNK_BYTES, Decoder
from vaultaire.s3.errors import S3Error
from vaultaire.s3.expected import Digests, parse_expected
from vaultaire.s3.sigv4 import Payload, Verified

SIGNED = Payload.STREAMING_SIGNED
SIGNED_TRAILER = Payload.STREAMING_SIGNED_TRAILER
UNSIGNED_TRAILER = Payload.STREAMING_UNSIGNED_TRAILER
KINDS = [SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER]

VERIFIED = Verified("AKIA", b"k" * 32, "20260101T000000Z", "20260101/us-east-1/s3/aws4_request", "5" * 64)
NAME = "x-amz-checksum-crc32"
BIG = MIN_SIGNED_CHUNK_BYTES


def crc(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


class Encoder:
    """What an SDK sends; written from Amazon's description, not from the decoder."""

    def __init__(self, kind: Payload) -> None:
        self.kind = kind
        self.previous = VERIFIED.seed_signature

    def sign(self, suffix: str, *hashes: str) -> str:
        lines = [f"AWS4-HMAC-SHA256-{suffix}", VERIFIED.timestamp, VERIFIED.scope, self.previous, *hashes]
        self.previous = hmac.new(VERIFIED.signing_key, "\n".join(lines).encode(), "sha256").hexdigest()
        return self.previous

    def chunk(self, data: bytes) -> bytes:
        head = f"{len(data):x}"
        if self.kind is not UNSIGNED_TRAILER:
            signature = self.sign("PAYLOAD", sha256(b"").hexdigest(), sha256(data).hexdigest())
            head += f";chunk-signature={signature}"
        return head.encode() + b"\r\n" + (data + b"\r\n" if data else b"")

    def end(self, trailer: tuple[str, str] | None, newline: bytes = b"") -> bytes:
        out = self.chunk(b"")
        if self.kind is not SIGNED and trailer is not None:
            line = ":".join(trailer).encode()
            out += line + newline + b"\r\n"
            if self.kind is SIGNED_TRAILER:
                signature = self.sign("TRAILER", sha256(line + b"\n").hexdigest())
                out += f"x-amz-trailer-signature:{signature}\r\n".encode()
        return out + b"\r\n"


def encode(kind: Payload, chunks: list[bytes]) -> bytes:
    encoder = Encoder(kind)
    body = b"".join(encoder.chunk(chunk) for chunk in chunks)
    return body + encoder.end((NAME, crc(b"".join(chunks))))


def decoder(kind: Payload, length: int) -> Decoder:
    return Decoder(kind, VERIFIED, length, [NAME])


def decode(kind: Payload, length: int, *blocks: bytes) -> tuple[bytes, dict[str, str]]:
    machine = decoder(kind, length)
    payload = b"".join(bytes(piece) for block in blocks for piece in machine.feed(block))
    return payload, machine.finish()


def refusal(kind: Payload, length: int, *blocks: bytes) -> str:
    with pytest.raises(S3Error) as caught:
        decode(kind, length, *blocks)
    return caught.value.code


def chunked(draw, kind: Payload) -> list[bytes]:
    sizes = draw(st.lists(st.integers(BIG if kind is not UNSIGNED_TRAILER else 1, BIG + 9), max_size=3))
    last = draw(st.integers(0, 40))
    return [bytes([65 + i]) * n for i, n in enumerate([*sizes, last]) if n]


# --- what is accepted ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(KINDS), st.data())
def test_any_split_decodes_to_the_same(kind, data):
    chunks = chunked(data.draw, kind)
    payload, body = b"".join(chunks), encode(kind, chunks)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=12)))
    bounds = [0, *cuts, len(body)]
    blocks = [body[a:b] for a, b in itertools.pairwise(bounds)]
    trailers = {} if kind is SIGNED else {NAME: crc(payload)}
    assert decode(kind, len(payload), *blocks) == (payload, trailers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunks", [[], [b"x"], [b"a" * BIG, b"b" * 7]])
def test_single_bytes_decode_to_the_same(kind, chunks):
    payload, body = b"".join(chunks), encode(kind, chunks)
    got, _ = decode(kind, len(payload), *(body[i : i + 1] for i in range(len(body))))
    assert got == payload


def test_payload_is_handed_out_as_views_of_the_block():
    body = bytearray(encode(UNSIGNED_TRAILER, [b"abc"]))
    (piece,) = decoder(UNSIGNED_TRAILER, 3).feed(memoryview(body))
    body[body.index(b"abc")] = ord("x")
    assert bytes(piece) == b"xbc"


def test_a_chunk_may_be_as_large_as_the_payload():
    """The C and Rust SDKs send a part as one chunk; memory stays that of the blocks."""
    machine = decoder(UNSIGNED_TRAILER, 6 << 30)
    assert machine.feed(b"180000000\r\n") == []
    assert len(machine.feed(bytes(1 << 20))[0]) == 1 << 20


def test_minio_go_ends_a_trailer_with_lf_cr_lf():
    encoder = Encoder(SIGNED_TRAILER)
    body = encoder.chunk(b"abc") + encoder.end((NAME, crc(b"abc")), newline=b"\n")
    assert decode(SIGNED_TRAILER, 3, body) == (b"abc", {NAME: crc(b"abc")})


def test_spaces_around_a_trailer_value_do_not_count():
    body = b"3\r\nabc\r\n0\r\n" + NAME.encode() + b": " + crc(b"abc").encode() + b" \r\n\r\n"
    assert decode(UNSIGNED_TRAILER, 3, body)[1] == {NAME: crc(b"abc")}


# --- what is refused -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([SIGNED, SIGNED_TRAILER]), st.data())
def test_any_flipped_bit_of_a_signed_body_is_refused(kind, data):
    body = bytearray(encode(kind, [b"a" * BIG, b"b" * 20]))
    # Half of the draws go into the framing, which is a small part of the bytes.
    frame = [*range(90), *range(len(body) - 300, len(body))]
    index = data.draw(st.integers(0, len(body) - 1) | st.sampled_from(frame))
    flipped = body[index] ^ (1 << data.draw(st.integers(0, 7)))
    same_digit = body[index] | 0x20 == flipped | 0x20 and chr(flipped).isalpha()
    body[index] = flipped
    if same_digit and decodes(kind, BIG + 20, bytes(body)):
        # The case of a size's digit or of a trailer's name; both are no part of what is said.
        return
    assert refusal(kind, BIG + 20, bytes(body))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_flipped_bit_of_an_unsigned_body_is_refused_by_framing_or_checksum(data):
    payload = b"some payload, long enough"
    body = bytearray(encode(UNSIGNED_TRAILER, [payload[:9], payload[9:]]))
    index = data.draw(st.integers(0, len(body) - 1))
    body[index] ^= 1 << data.draw(st.integers(0, 7))
    expected = parse_expected({b"x-amz-trailer": NAME}, trailing=True)
    digests, machine = Digests(expected), decoder(UNSIGNED_TRAILER, len(payload))
    try:
        pieces = machine.feed(body)
        for piece in pieces:
            digests.update(piece)
        digests.check(machine.finish())
    except S3Error:
        return
    assert b"".join(pieces) == payload  # the case of a digit or of the trailer's name


def decodes(kind: Payload, length: int, body: bytes) -> bool:
    try:
        return decode(kind, length, body)[0] == b"a" * BIG + b"b" * 20
    except S3Error:
        return False


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(KINDS), st.data())
def test_a_truncated_body_never_finishes(kind, data):
    body = encode(kind, [b"abc"])
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(S3Error) as caught:
        decode(kind, 3, body[:cut])
    assert caught.value.code == "IncompleteBody"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("garbage", [b"x", b"\r\n", b"0\r\n\r\n"])
def test_anything_behind_the_end_is_refused(kind, garbage):
    body = encode(kind, [b"abc"])
    assert refusal(kind, 3, body + garbage) == "InvalidRequest"
    assert refusal(kind, 3, body, garbage) == "InvalidRequest"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [2, 4, 0])
def test_the_payload_has_exactly_the_announced_length(kind, length):
    assert refusal(kind, length, encode(kind, [b"abc"])) == "IncompleteBody"


@pytest.mark.parametrize(
    "head",
    [b"", b"g", b"-3", b"+3", b"0x3", b"3_0", b" 3", b"3 ", b"3;ext=1", b"1" * 17, b"3\n", "\uff13".encode()],
)
def test_a_chunk_header_is_read_strictly(head):
    assert refusal(UNSIGNED_TRAILER, 3, head + b"\r\nabc\r\n0\r\n\r\n") in (
        "InvalidRequest",
        "IncompleteBody",
    )


@pytest.mark.parametrize(
    "body", [b"3\r\nabcd\r\n0\r\n\r\n", b"3\r\nabc\n0\r\n\r\n", b"3\nabc\r\n0\r\n\r\n", b"3\r\nabc0\r\n\r\n"]
)
def test_line_ends_are_cr_lf_where_they_belong(body):
    assert refusal(UNSIGNED_TRAILER, 3, body)


@pytest.mark.parametrize("step", [1, 300, 5000])
def test_a_line_is_bounded_however_it_arrives(step):
    machine = decoder(UNSIGNED_TRAILER, 3)
    fed = 0
    with pytest.raises(S3Error, match="too long"):  # noqa: PT012  # which feed refuses is the point
        while fed < 10_000:
            fed += step
            machine.feed(b"1" * step)
    assert fed <= 1026 + step


def test_only_the_last_signed_chunk_may_be_small():
    body = encode(SIGNED, [b"a" * (BIG - 1), b"b"])
    assert refusal(SIGNED, BIG, body) == "InvalidChunkSizeError"
    assert decode(UNSIGNED_TRAILER, 2, encode(UNSIGNED_TRAILER, [b"a", b"b"]))[0] == b"ab"


def test_swapped_chunks_break_the_chain():
    first, second = b"a" * BIG, b"b" * BIG
    body = encode(SIGNED, [first, second])
    swapped = body.replace(first, b"!").replace(second, first).replace(b"!", second)
    assert refusal(SIGNED, 2 * BIG, swapped) == "SignatureDoesNotMatch"


def test_the_final_chunk_is_signed_too():
    body = encode(SIGNED, [b"abc"])
    start = body.rindex(b"chunk-signature=") + 16
    forged = body[:start] + b"0" * 64 + body[start + 64 :]
    assert refusal(SIGNED, 3, forged) == "SignatureDoesNotMatch"


def test_a_signed_chunk_without_signature_is_refused():
    assert refusal(SIGNED, 3, b"3\r\nabc\r\n0\r\n\r\n") == "SignatureDoesNotMatch"


LINE = f"{NAME}:{crc(b'abc')}\r\n".encode()


@pytest.mark.parametrize(
    "trailers",
    [
        b"",
        LINE + LINE,
        b"x-amz-checksum-crc32c:AAAAAA==\r\n",
        LINE + b"x-amz-meta-a:b\r\n",
        b"no colon\r\n",
        LINE + b"x-amz-trailer-signature:" + b"0" * 64 + b"\r\n",
    ],
)
def test_unsigned_trailers_are_those_announced(trailers):
    body = b"3\r\nabc\r\n0\r\n" + trailers + b"\r\n"
    assert refusal(UNSIGNED_TRAILER, 3, body) == "MalformedTrailerError"


def test_signed_trailers_need_their_signature():
    body = encode(SIGNED_TRAILER, [b"abc"])
    start = body.index(b"x-amz-trailer-signature")
    assert refusal(SIGNED_TRAILER, 3, body[:start] + b"\r\n") == "MalformedTrailerError"
    forged = body[: start + 24] + b"0" * 64 + body[start + 88 :]
    assert refusal(SIGNED_TRAILER, 3, forged) == "SignatureDoesNotMatch"


def test_a_kind_without_trailers_takes_none():
    encoder = Encoder(SIGNED)
    body = encoder.chunk(b"abc") + encoder.end(None)[:-2] + LINE + b"\r\n"
    assert refusal(SIGNED, 3, body) == "InvalidRequest"


def test_trailers_are_bounded_in_number():
    names = [f"x-{i}" for i in range(40)]
    body = b"0\r\n" + b"".join(f"{name}:v\r\n".encode() for name in names) + b"\r\n"
    machine = Decoder(UNSIGNED_TRAILER, None, 0, names)
    with pytest.raises(S3Error, match="MalformedTrailerError"):
        machine.feed(body)


def test_only_the_streaming_kinds_are_decoded_and_signed_ones_need_a_seed():
    with pytest.raises(ValueError, match="not aws-chunked"):
        Decoder(Payload.UNSIGNED, VERIFIED, 0)
    with pytest.raises(ValueError, match="verified"):
        Decoder(SIGNED, None, 0)


def test_unsigned_chunks_of_a_byte_each_are_refused_before_they_cost_much():
    decoder = Decoder(Payload.STREAMING_UNSIGNED_TRAILER, None, 1 << 20)
    with pytest.raises(S3Error, match="InvalidChunkSizeError"):
        decoder.feed(b"1\r\nx\r\n" * (1 << 20))


def test_small_unsigned_chunks_are_taken_as_long_as_they_are_few():
    decoder = Decoder(Payload.STREAMING_UNSIGNED_TRAILER, None, 1000)
    decoder.feed(b"1\r\nx\r\n" * 1000)
    decoder.feed(b"0\r\n\r\n")
    assert decoder.finish() == {}
