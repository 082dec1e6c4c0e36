"""RenameObject: an object takes another key of its bucket, with all that it carries, in one commit.

The record moves as it is: data, metadata, checksums, tags and the time of its last change. Nothing is read or copied,
so it takes the same time for every size. Since source and destination change in one commit, every instant sees the
manifest under exactly one of the two keys.

Where a bucket keeps versions there is nothing that a rename could mean without hiding history (S3 has the operation in
buckets without versioning only): it is refused there.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_RenameObject.html
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from index.objects import get_object as find
from index.tokens import MAX_TOKEN_BYTES, get_token, put_token
from index.versions import rename_object as rename
from vaultaire.s3 import conditions, percent
from vaultaire.s3.call import Call, Response
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.names import MAX_KEY_BYTES
from vaultaire.s3.operations.objects import current_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from index.kv import Reader, Transaction
    from index.records import BucketRecord, ObjectRecord

_PARAMETERS = (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")


async def rename_object(call: Call) -> Response:
    """The object named by `x-amz-rename-source` replaces what is at the request's key."""
    key = call.key
    assert key is not None
    source = parse_rename_source(call.header(b"x-amz-rename-source"))
    for candidate in source_keys(call.require_bucket(), source):
        # A rename reads its source and takes it away: both must be allowed, under every reading of the header.
        call.require("s3:GetObject", candidate)
        call.require("s3:DeleteObject", candidate)
    token = parse_client_token(call.headers)
    digest = _parameters_digest(call.headers, key)

    def commit(txn: Transaction) -> None:
        bucket = call.bucket(txn)
        if token is not None and _was_carried_out(txn, bucket, token, digest):
            return
        if bucket.versioning != "Off":
            raise S3Error(
                "InvalidBucketState",
                "RenameObject needs a bucket without versioning. Copy the object and delete the original instead.",
            )
        from_key, record = _find_source(txn, bucket, source)
        if from_key == key:
            raise S3Error(
                "InvalidRequest",
                "This rename request is illegal because its source and its destination are the same object.",
            )
        destination = find(txn, bucket.id, key)
        current = None if destination is None else current_of(destination)
        conditions.check_rename(call.headers, current_of(record), current)
        rename(txn, bucket, from_key, key, record, change)
        if token is not None:
            put_token(txn, bucket.id, token, digest, change.now_ms)

    change = call.change()
    await call.commit(commit)
    return Response(200)


def parse_rename_source(value: str | None) -> bytes:
    """The header's key, percent-decoded (a `+` is a plus sign). Raises InvalidArgument."""
    try:
        source = percent.decode((value or "").encode("latin-1"))
        source.decode("utf-8")
    except (percent.MalformedEscape, UnicodeError):
        raise invalid_argument("Invalid rename source encoding", "x-amz-rename-source", value) from None
    if not source:
        raise invalid_argument("You must provide a rename source", "x-amz-rename-source", value)
    return source


def source_keys(bucket: BucketRecord, source: bytes) -> list[bytes]:
    """What the header may mean, the likeliest first."""
    own = bucket.name.encode() + b"/"
    return [source, *(source[len(lead) :] for lead in (own, b"/" + own) if source.startswith(lead))]


def _find_source(reader: Reader, bucket: BucketRecord, source: bytes) -> tuple[bytes, ObjectRecord]:
    """AWS's examples name the source as `key`, as `bucket/key`, and clients also send `/bucket/key`.

    The plain key is looked for first: that reading can never name another object than the client means. Raises
    NoSuchKey.
    """
    candidates = source_keys(bucket, source)
    for candidate in candidates:
        if 1 <= len(candidate) <= MAX_KEY_BYTES:
            record = find(reader, bucket.id, candidate)
            if record is not None:
                return candidate, record
    raise S3Error("NoSuchKey", key=candidates[-1])


def parse_client_token(fields: Mapping[bytes, str]) -> bytes | None:
    """`x-amz-client-token`: 1 to 64 visible ASCII characters. Raises InvalidArgument."""
    text = fields.get(b"x-amz-client-token")
    if text is None:
        return None
    if not 1 <= len(text) <= MAX_TOKEN_BYTES or any(not 33 <= ord(char) <= 126 for char in text):
        raise invalid_argument(
            "The client token must have 1 to 64 ASCII characters in the range of 33 to 126",
            "x-amz-client-token",
            text,
        )
    return text.encode("ascii")


def _was_carried_out(reader: Reader, bucket: BucketRecord, token: bytes, digest: bytes) -> bool:
    """Raises IdempotencyParameterMismatch if the token was used for another request."""
    known = get_token(reader, bucket.id, token)
    if known is not None and known != digest:
        raise S3Error("IdempotencyParameterMismatch")
    return known is not None


def _parameters_digest(fields: Mapping[bytes, str], key: bytes) -> bytes:
    """Of everything that makes this request this one. Lengths keep two parameters from being read as one."""
    digest = hashlib.sha256()
    names = (b"x-amz-rename-source", *_PARAMETERS, *(b"x-amz-rename-source-" + name for name in _PARAMETERS))
    for value in (key, *(fields.get(name, "\0").encode("latin-1") for name in names)):
        digest.update(len(value).to_bytes(4, "big"))
        digest.update(value)
    return digest.digest()
