"""Operations on buckets: ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html and its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from index.buckets import create_bucket as create
from index.buckets import delete_bucket as delete
from index.buckets import delete_uploads
from index.buckets import list_buckets as list_all
from index.configs import put_config
from index.errors import BucketExists
from vaultaire.s3 import acl, bucket_settings, stored, tags, xml, xml_requests
from vaultaire.s3.body import read_small_body
from vaultaire.s3.bucket_settings import Ownership
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.operations.parameters import parse_limit
from vaultaire.s3.operations.rights import normal

if TYPE_CHECKING:
    from index.kv import Transaction


ROWS_PER_COMMIT = 1000  # of uploads and parts that go with a bucket


async def list_buckets(call: Call) -> Response:
    """The buckets of the caller's tenant, by name."""
    tenant = call.principal.tenant
    limit = parse_limit(call.query, "max-buckets", 10_000, maximum=10_000)
    prefix, after = call.query.get("prefix", ""), call.query.get("continuation-token", "")
    with call.store.kv.snapshot() as reader:
        page = list_all(reader, owner=tenant, prefix=prefix, after=after, limit=limit, only=_in_scope(call))
    buckets = [xml.ListedBucket(bucket.name, bucket.created_ms) for bucket in page.buckets]
    token = buckets[-1].name if page.truncated else None
    paged = any(name in call.query for name in ("max-buckets", "prefix", "continuation-token"))
    body = xml.list_buckets(
        tenant,
        buckets,
        prefix=call.query.get("prefix"),
        continuation_token=token,
        region=call.services.region if paged else None,
    )
    return xml_response(body)


def _in_scope(call: Call) -> frozenset[str] | None:
    scopes = call.principal.limits.scopes
    return frozenset(scope.bucket for scope in scopes) if scopes else None


async def create_bucket(call: Call) -> Response:
    """BucketAlreadyOwnedByYou if the caller's tenant has it, BucketAlreadyExists if another one has."""
    name = call.bucket_name
    assert name is not None
    object_lock = _wants_object_lock(call)
    body = await read_small_body(call)
    location = xml_requests.parse_create_bucket(body)
    given_tags = tags.parse_create_bucket(body)
    if location not in (None, call.services.region, "us-east-1"):
        raise S3Error(
            "InvalidLocationConstraint",
            "The specified location-constraint is not valid",
            extra={"LocationConstraint": location},
        )
    tenant, now_ms = call.principal.tenant, call.now_ms()
    ownership = bucket_settings.ownership_header(call.headers)
    grants = normal(acl.parse_headers(call.headers, tenant, tenant) or (), tenant)
    if grants and not (ownership or Ownership.ENFORCED).lists_count:
        raise S3Error("InvalidBucketAclWithObjectOwnership")

    def commit(txn: Transaction) -> None:
        bucket = create(txn, name, tenant, now_ms, object_lock=object_lock)
        if ownership is not None:
            document = bucket_settings.format_ownership(ownership)
            put_config(txn, bucket.id, stored.OWNERSHIP, stored.wrap(document))
        if given_tags:
            put_config(txn, bucket.id, stored.TAGGING, stored.wrap(tags.format_xml(given_tags)))
        if grants:
            put_config(txn, bucket.id, stored.ACL, stored.wrap(acl.format_xml(grants, tenant)))

    try:
        await call.commit(commit)
    except BucketExists as error:
        code = "BucketAlreadyOwnedByYou" if error.owner == tenant else "BucketAlreadyExists"
        raise S3Error(code, bucket=name) from None
    return Response(200, [(b"location", b"/" + name.encode())])


def _wants_object_lock(call: Call) -> bool:
    name = b"x-amz-bucket-object-lock-enabled"
    text = call.header(name) or "false"
    if text.lower() not in ("true", "false"):
        raise invalid_argument("Invalid value for Object Lock.", name.decode(), text)
    return text.lower() == "true"


async def head_bucket(call: Call) -> Response:
    call.require_bucket()
    return Response(200, [(b"x-amz-bucket-region", call.services.region.encode())])


async def delete_bucket(call: Call) -> Response:
    """Raises BucketNotEmpty. Uploads that are still open are aborted with it, as S3 does."""

    def shrink(txn: Transaction) -> bool:
        return delete_uploads(txn, call.bucket(txn).name, ROWS_PER_COMMIT)

    def commit(txn: Transaction) -> None:
        delete(txn, call.bucket(txn).name)

    while await call.commit(shrink):
        pass  # so that the write lock is never held for long
    await call.commit(commit)
    return Response(204)


async def get_bucket_location(call: Call) -> Response:
    call.require_bucket()
    return xml_response(xml.location_constraint(call.services.region))
