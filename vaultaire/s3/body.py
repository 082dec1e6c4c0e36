"""The body of a request: how it is framed, what it must hash to, and receiving it with all of that verified.

Two ways in: `receive_upload` for object data (streamed into the chunk store), `read_small_body` for XML documents.
Both return only after length, chunk signatures, trailers and every digest the client sent were verified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cas.prefix import Prefixes
from vaultaire.budget import BudgetExhausted
from vaultaire.ingest import INLINE_MAX_BYTES, BodyTooLarge, ClientGone, Upload
from vaultaire.s3.aws_chunked import Decoder
from vaultaire.s3.checksums import Algorithm
from vaultaire.s3.errors import S3Error
from vaultaire.s3.expected import Digests, parse_expected
from vaultaire.s3.sigv4 import Payload

if TYPE_CHECKING:
    from index.records import BucketRecord
    from vaultaire.s3.call import Call
    from vaultaire.s3.expected import Computed, Expected

GIB = 1 << 30
MAX_PUT_BYTES = (
    5 * GIB
)  # one PUT or one part: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MAX_XML_BYTES = 2 << 20

_CHUNKED = (
    Payload.STREAMING_SIGNED,
    Payload.STREAMING_SIGNED_TRAILER,
    Payload.STREAMING_UNSIGNED_TRAILER,
)
_TRAILING = (Payload.STREAMING_SIGNED_TRAILER, Payload.STREAMING_UNSIGNED_TRAILER)


@dataclass(frozen=True, slots=True)
class BodyPlan:
    """What is known of a body before its first byte."""

    length: (
        int | None
    )  # decoded bytes; None: the body's own framing tells (HTTP chunked without announcement)
    decoder: Decoder | None
    expected: Expected


def plan_body(
    call: Call, *, max_bytes: int, need_length: bool = True, checksum_is_of_body: bool = True
) -> BodyPlan:
    """Read the headers that describe the body. Raises MissingContentLength, EntityTooLarge, InvalidArgument, ...

    `checksum_is_of_body` False: an `x-amz-checksum-*` header speaks of the object, as in CompleteMultipartUpload.
    """
    claim = call.claim
    chunked = claim.payload in _CHUNKED
    name = b"x-amz-decoded-content-length" if chunked else b"content-length"
    length = _parse_length(call.header(name), name)
    if length is None and (chunked or need_length):
        raise S3Error("MissingContentLength")
    if length is not None and length > max_bytes:
        raise S3Error("EntityTooLarge", extra={"ProposedSize": length, "MaxSizeAllowed": max_bytes})
    headers = call.headers
    if not checksum_is_of_body:
        headers = {name: value for name, value in headers.items() if not name.startswith(b"x-amz-checksum-")}
    expected = parse_expected(
        headers, payload_sha256=claim.payload_sha256, trailing=claim.payload in _TRAILING
    )
    decoder = None
    if chunked:
        assert length is not None
        decoder = Decoder(claim.payload, call.verified, length, expected.trailer_names)
    return BodyPlan(length, decoder, expected)


def _parse_length(text: str | None, name: bytes) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise S3Error("InvalidArgument", f"Invalid value for {name.decode()}.")
    return int(text)


def new_upload(
    call: Call,
    plan: BodyPlan,
    digests: Digests,
    bucket: BucketRecord,
    *,
    inline_max_bytes: int = INLINE_MAX_BYTES,
    max_bytes: int = MAX_PUT_BYTES,
) -> Upload:
    """An upload; its `with` raises BudgetExhausted. Use it at once: it holds a claim on the disk. Raises DiskFull."""
    services = call.services
    name = b"content-length"  # of a form, whose file may be as long
    length = plan.length if plan.length is not None else _parse_length(call.header(name), name)
    call.upload = Upload(
        services.store.chunks,
        services.committer,
        services.budget,
        services.threads,
        decoder=plan.decoder,
        digests=digests,
        max_bytes=max_bytes,
        inline_max_bytes=inline_max_bytes,
        prefixes=Prefixes(bucket.prefixes),
        end=call.end,
        claim=services.store.space.claim(length or 0),
    )
    return call.upload


def new_digests(plan: BodyPlan, default: Algorithm | None = None) -> Digests:
    """S3 computes CRC64NVME when nobody names a checksum; so do we."""
    return Digests(plan.expected, default or Algorithm.CRC64NVME)


async def receive_upload(call: Call, plan: BodyPlan, digests: Digests, upload: Upload) -> Computed:
    """Take the body into `upload` and prove it. Raises S3Error, ClientGone, CasError."""
    try:
        await upload.receive(call.receive)
    except BodyTooLarge:
        raise S3Error("EntityTooLarge", extra={"MaxSizeAllowed": MAX_PUT_BYTES}) from None
    if plan.length is not None and upload.size != plan.length:
        raise S3Error("IncompleteBody")
    return digests.check(upload.trailers)


async def read_small_body(
    call: Call, max_bytes: int = MAX_XML_BYTES, *, checksum_is_of_body: bool = True
) -> bytes:
    """A whole XML document, proven. Raises S3Error, ClientGone, BudgetExhausted (it is held while it comes)."""
    plan = plan_body(call, max_bytes=max_bytes, need_length=False, checksum_is_of_body=checksum_is_of_body)
    digests = Digests(plan.expected)
    body = bytearray()
    with call.services.budget.admit() as lease:
        more = True
        while more:
            event = await call.receive()
            if event["type"] == "http.disconnect":
                raise ClientGone
            block = event.get("body", b"")
            for piece in plan.decoder.feed(block) if plan.decoder is not None else (block,):
                body += piece
            if len(body) > max_bytes:
                raise S3Error("EntityTooLarge", extra={"MaxSizeAllowed": max_bytes})
            if not lease.resize(len(body), whole=True):
                raise BudgetExhausted
            more = event.get("more_body", False)
    whole = bytes(body)
    digests.update(whole)
    trailers = plan.decoder.finish() if plan.decoder is not None else None
    if plan.length is not None and len(whole) != plan.length:
        raise S3Error("IncompleteBody")
    digests.check(trailers)
    return whole
