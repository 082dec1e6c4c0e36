"""Configurations of a bucket that are a document each: policy, CORS, encryption, ownership, public access block, tags.

Put: the document is read, parsed (which refuses what is wrong), and stored in its canonical form. Get: as stored. Delete:
gone, whether it was there or not.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketPolicy.html and its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from index.configs import delete_config, put_config
from vaultaire.s3 import acl, bucket_settings, cors, policy, stored, tags, xml
from vaultaire.s3.body import read_small_body
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from index.kv import Transaction
    from index.records import BucketRecord

_ABSENT = {
    stored.CORS: "NoSuchCORSConfiguration",
    stored.ENCRYPTION: "ServerSideEncryptionConfigurationNotFoundError",
    stored.OWNERSHIP: "OwnershipControlsNotFoundError",
    stored.POLICY: "NoSuchBucketPolicy",
    stored.PUBLIC_ACCESS_BLOCK: "NoSuchPublicAccessBlockConfiguration",
    stored.TAGGING: "NoSuchTagSet",
}


def getter(name: str) -> Callable[[Call], Awaitable[Response]]:
    """Get*: the stored document, or the error that says that there is none."""

    async def get(call: Call) -> Response:
        return xml_response(_document(call, name))

    return get


def deleter(name: str) -> Callable[[Call], Awaitable[Response]]:
    """Delete*: 204, whether there was one or not."""

    async def delete(call: Call) -> Response:
        await call.commit(lambda txn: delete_config(txn, call.bucket(txn).id, name))
        return Response(204)

    return delete


def putter(
    name: str,
    canonical: Callable[[bytes], bytes],
    *,
    status: int = 200,
    check: Callable[[Transaction, BucketRecord, bytes], None] | None = None,
) -> Callable[[Call], Awaitable[Response]]:
    """Put*: `canonical` parses the body and says what is stored; `check` may refuse it inside the commit."""

    async def put(call: Call) -> Response:
        body = await read_small_body(call)
        document = await call.services.threads.compute(lambda: canonical(body))

        def commit(txn: Transaction) -> None:
            bucket = call.bucket(txn)
            if check is not None:
                check(txn, bucket, document)
            put_config(txn, bucket.id, name, stored.wrap(document))

        await call.commit(commit)
        return Response(status)

    return put


def _document(call: Call, name: str) -> bytes:
    bucket = call.require_bucket()
    with call.store.kv.snapshot() as reader:
        document = stored.document(reader, bucket.id, name)
    if document is None:
        raise S3Error(_ABSENT[name], bucket=bucket.name)
    return document


# --- policy --------------------------------------------------------------------------------------------------------


async def put_bucket_policy(call: Call) -> Response:
    """Kept as it was sent, byte by byte. Raises MalformedPolicy, AccessDenied (BlockPublicPolicy)."""
    body = await read_small_body(call)
    name = call.require_bucket().name
    parsed = await call.services.threads.compute(lambda: policy.parse(body, name))

    def commit(txn: Transaction) -> None:
        bucket = call.bucket(txn)
        if parsed.is_public and stored.block_of(txn, bucket.id).block_public_policy:
            raise S3Error(
                "AccessDenied",
                "Public policies are prevented by the BlockPublicPolicy setting in Block Public Access.",
            )
        put_config(txn, bucket.id, stored.POLICY, stored.wrap(body))

    await call.commit(commit)
    return Response(204)


async def get_bucket_policy(call: Call) -> Response:
    return Response(200, [(b"content-type", b"application/json")], _document(call, stored.POLICY))


async def get_bucket_policy_status(call: Call) -> Response:
    body, name = _document(call, stored.POLICY), call.require_bucket().name
    return xml_response(xml.policy_status(policy.parse(body, name).is_public))


# --- ownership -----------------------------------------------------------------------------------------------------


def check_ownership(txn: Transaction, bucket: BucketRecord, document: bytes) -> None:
    """Lists are not switched off under someone who has rights by one. Raises InvalidBucketAclWithObjectOwnership."""
    if bucket_settings.parse_ownership(document).lists_count:
        return
    if not acl.only_for(stored.acl_of(txn, bucket), (bucket.owner,)):
        raise S3Error("InvalidBucketAclWithObjectOwnership")


# --- all of them ---------------------------------------------------------------------------------------------------

put_bucket_cors = putter(stored.CORS, lambda body: cors.format_xml(cors.parse_xml(body)))
put_bucket_encryption = putter(stored.ENCRYPTION, bucket_settings.parse_encryption)
put_bucket_ownership_controls = putter(
    stored.OWNERSHIP,
    lambda body: bucket_settings.format_ownership(bucket_settings.parse_ownership(body)),
    check=check_ownership,
)
put_public_access_block = putter(
    stored.PUBLIC_ACCESS_BLOCK,
    lambda body: bucket_settings.format_public_access_block(bucket_settings.parse_public_access_block(body)),
)
put_bucket_tagging = putter(
    stored.TAGGING, lambda body: tags.format_xml(tags.parse_xml(body, tags.MAX_BUCKET_TAGS)), status=204
)
