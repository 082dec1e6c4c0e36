"""GetBucketAcl, PutBucketAcl, GetObjectAcl, PutObjectAcl.

Under BucketOwnerEnforced, which is the default, lists are switched off: reading one shows the owner's full control, and
only a list that changes nothing is accepted. A stored list is kept, and counts again when ownership changes back.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketAcl.html and API_PutObjectAcl.html
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from index.configs import delete_config, put_config
from index.versions import replace_object
from vaultaire.s3 import acl, stored
from vaultaire.s3.body import read_small_body
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.operations.rights import check_public, normal, refuse_lists
from vaultaire.s3.operations.versioning import require_version
from vaultaire.s3.version_ids import parse_version

if TYPE_CHECKING:
    from index.kv import Reader, Transaction
    from index.records import BucketRecord, ObjectRecord


async def get_bucket_acl(call: Call) -> Response:
    bucket = call.require_bucket()
    with call.store.kv.snapshot() as reader:
        ownership, _, grants = stored.access_of(reader, bucket)
    return xml_response(acl.format_xml(grants if ownership.lists_count else (), bucket.owner))


async def put_bucket_acl(call: Call) -> Response:
    """By a canned name, by grant headers, or by a document."""
    bucket = call.require_bucket()
    grants = await _requested(call, bucket, bucket.owner)
    if grants is None:
        return Response(200)

    def commit(txn: Transaction) -> None:
        now = call.bucket(txn)
        _check(txn, now, grants)
        kept = normal(grants, now.owner)
        if kept:
            put_config(txn, now.id, stored.ACL, stored.wrap(acl.format_xml(kept, now.owner)))
        else:
            delete_config(txn, now.id, stored.ACL)

    await call.commit(commit)
    return Response(200)


async def get_object_acl(call: Call) -> Response:
    bucket = call.require_bucket()
    with call.store.kv.snapshot() as reader:
        ownership = stored.ownership_of(reader, bucket.id)
        record = _find(call, reader, bucket)
    if not ownership.lists_count:
        return xml_response(acl.format_xml((), bucket.owner))
    return xml_response(acl.format_xml(record.acl, record.owner))


async def put_object_acl(call: Call) -> Response:
    """By a canned name, by grant headers, or by a document. The object is otherwise as it was."""
    bucket = call.require_bucket()
    assert call.key is not None
    with call.store.kv.snapshot() as reader:
        owner = _find(call, reader, bucket).owner
    grants = await _requested(call, bucket, owner)
    if grants is None:
        return Response(200)

    def commit(txn: Transaction) -> None:
        now = call.bucket(txn)
        _check(txn, now, grants)
        record = _find(call, txn, now)
        if record.owner != owner:
            raise S3Error("OperationAborted")
        assert call.key is not None
        replace_object(txn, now.id, call.key, replace(record, acl=normal(grants, owner)))

    await call.commit(commit)
    return Response(200)


def _find(call: Call, reader: Reader, bucket: BucketRecord) -> ObjectRecord:
    assert call.key is not None
    wanted = parse_version(call.query.get("versionId"))
    return require_version(reader, bucket, call.key, wanted, call.method)


async def _requested(call: Call, bucket: BucketRecord, owner: str) -> acl.Grants | None:
    """The list that the request asks for; None if lists are switched off and it changes nothing."""
    body = await read_small_body(call)
    with call.store.kv.snapshot() as reader:
        enforced = not stored.ownership_of(reader, bucket.id).lists_count
    if acl.asked_for(call.headers):
        if body.strip():
            raise S3Error("UnexpectedContent")
        if enforced:
            refuse_lists(call.headers)
            return None
        grants = acl.parse_headers(call.headers, owner, bucket.owner) or ()
    elif not body.strip():
        raise S3Error("MissingSecurityHeader", extra={"MissingHeaderName": "x-amz-acl"})
    else:
        grants = acl.parse_xml(body, bucket.owner if enforced else owner)
        if enforced:
            if not acl.only_for(grants, (bucket.owner,)):
                raise S3Error("AccessControlListNotSupported")
            return None
    _check_grantees(call, grants, (owner, bucket.owner))
    return grants


def _check_grantees(call: Call, grants: acl.Grants, owners: tuple[str, str]) -> None:
    """A grant to nobody is a mistake: every grantee is a group or a tenant that has a key. Raises InvalidArgument."""
    strangers = {grantee for grantee, _ in grants} - acl.GROUPS - {*owners}
    if not strangers:
        return
    with call.store.kv.snapshot() as reader:
        strangers -= {info.tenant for info in call.services.keyring.list_keys(reader)}
    if strangers:
        raise invalid_argument("Invalid id", "CanonicalUser/ID", min(strangers))


def _check(txn: Transaction, bucket: BucketRecord, grants: acl.Grants) -> None:
    """In the commit: lists still count, and this one may be stored."""
    ownership, block, _ = stored.access_of(txn, bucket)
    if not ownership.lists_count:
        raise S3Error("AccessControlListNotSupported")
    check_public(grants, block)
