"""Whose a new object is, and who else may read it: object ownership, canned lists and grants, applied to one request.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vaultaire.s3 import acl, stored
from vaultaire.s3.bucket_settings import Ownership, PublicAccessBlock
from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from index.records import BucketRecord
    from vaultaire.s3.call import Call


class Rights(NamedTuple):
    """What a record keeps of it. No grants: private."""

    owner: str
    grants: acl.Grants


def new_object_rights(call: Call, bucket: BucketRecord) -> Rights:
    """From the request's headers and the bucket's rules. Raises AccessControlListNotSupported, AccessDenied, ...

    What anonymous clients write belongs to the bucket's owner.
    """
    fields = call.headers
    asks = acl.asked_for(fields)
    writer = call.writing_tenant(bucket)
    if not asks and writer == bucket.owner:
        return Rights(writer, ())
    with call.store.kv.snapshot() as reader:
        ownership, block, _ = stored.access_of(reader, bucket)
    if not ownership.lists_count:
        if asks:
            refuse_lists(fields)
        return Rights(bucket.owner, ())
    grants = acl.parse_headers(fields, writer, bucket.owner)
    if ownership is Ownership.PREFERRED and fields.get(b"x-amz-acl") == "bucket-owner-full-control":
        return Rights(bucket.owner, ())
    if grants is None:
        return Rights(writer, ())
    check_public(grants, block)
    return Rights(writer, normal(grants, writer))


def refuse_lists(fields: Mapping[bytes, str]) -> None:
    """Where lists are switched off, only one that changes nothing is accepted. Raises AccessControlListNotSupported."""
    if fields.get(b"x-amz-acl", "private") not in acl.HARMLESS or any(
        name.startswith(b"x-amz-grant-") for name in fields
    ):
        raise S3Error("AccessControlListNotSupported")


def check_public(grants: acl.Grants, block: PublicAccessBlock) -> None:
    """Raises AccessDenied for a public list under BlockPublicAcls."""
    if block.block_public_acls and acl.is_public(grants):
        raise S3Error(
            "AccessDenied", "Public access control lists are prevented by the BlockPublicAcls setting."
        )


def normal(grants: acl.Grants, owner: str) -> acl.Grants:
    """`private` is kept as no grants."""
    return () if grants == ((owner, "FULL_CONTROL"),) else grants
