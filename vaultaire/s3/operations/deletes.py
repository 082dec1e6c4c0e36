"""DeleteObjects: up to 1,000 deletes in one commit, each with its own result.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from index.errors import VersionLocked
from index.versions import delete_object as delete
from index.versions import delete_version
from vaultaire.s3 import xml, xml_requests
from vaultaire.s3.body import read_small_body
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error
from vaultaire.s3.names import check_key
from vaultaire.s3.operations.locking import version_locked
from vaultaire.s3.operations.objects import current_object
from vaultaire.s3.version_ids import format_version, lookup, parse_version

if TYPE_CHECKING:
    from index.kv import Transaction
    from index.records import BucketRecord
    from index.versions import Change
    from vaultaire.s3.xml_requests import DeleteItem


async def delete_objects(call: Call) -> Response:
    call.require_bucket()
    body = await read_small_body(call)
    # In a thread: a thousand long keys take some milliseconds, malformed documents more.
    request = await call.services.threads.compute(lambda: xml_requests.parse_delete_objects(body))
    # Likewise: a policy with many statements takes its time over 1,000 keys.
    denied = await call.services.threads.compute(
        lambda: {number for number, item in enumerate(request.items) if not _allowed(call, item)}
    )
    bypassing = await call.services.threads.compute(
        lambda: {
            n
            for n, item in enumerate(request.items)
            if not item.key_too_long and call.may_bypass(item.key, item.version_id)
        }
    )
    change = call.change()

    def commit(txn: Transaction) -> tuple[list[xml.Deleted], list[xml.DeleteFailed]]:
        bucket = call.bucket(txn)
        deleted: list[xml.Deleted] = []
        failed: list[xml.DeleteFailed] = []
        for number, item in enumerate(request.items):
            try:
                if number in denied:
                    raise S3Error("AccessDenied")
                own = replace(change, bypass=number in bypassing)
                deleted.append(_delete_one(call, txn, bucket, item, own))
            except (S3Error, VersionLocked) as raised:
                error = raised if isinstance(raised, S3Error) else version_locked()
                failed.append(xml.DeleteFailed(item.key, error.code, error.message, item.version_id))
        return deleted, failed

    deleted, failed = await call.commit(commit)
    call.deleted = [(done.key, done.version_id or done.delete_marker_version_id, None) for done in deleted]
    call.deleted += [(refused.key, refused.version_id, refused.code) for refused in failed]
    return xml_response(xml.delete_result([] if request.quiet else deleted, failed))


def _allowed(call: Call, item: DeleteItem) -> bool:
    action = "s3:DeleteObject" if item.version_id is None else "s3:DeleteObjectVersion"
    return item.key_too_long or call.allows(action, item.key, item.version_id)


def _delete_one(
    call: Call, txn: Transaction, bucket: BucketRecord, item: DeleteItem, change: Change
) -> xml.Deleted:
    """Raises S3Error, VersionLocked before anything is changed."""
    check_key(item.key)
    version = parse_version(item.version_id)
    if item.condition is not None:
        item.condition.check(current_object(lookup(txn, bucket, item.key, version)))
    if version is not None:
        removed = delete_version(txn, bucket, item.key, version.raw, change)
        if removed is None or not removed.delete_marker:
            return xml.Deleted(item.key, item.version_id)
        return xml.Deleted(item.key, item.version_id, True, item.version_id)
    deletion = delete(txn, bucket, item.key, call.writing_tenant(bucket), change)
    if not deletion.marker:
        return xml.Deleted(item.key)
    return xml.Deleted(item.key, None, True, format_version(deletion.version_id))
