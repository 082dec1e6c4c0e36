"""DeleteObjects: up to 1,000 deletes in one commit, each with its own result.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

from __future__ import annotations

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
from vaultaire.s3.operations.versioning import format_version, lookup, parse_version

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

    change = call.change()

    def commit(txn: Transaction) -> tuple[list[xml.Deleted], list[xml.DeleteFailed]]:
        bucket = call.bucket(txn)
        deleted: list[xml.Deleted] = []
        failed: list[xml.DeleteFailed] = []
        for item in request.items:
            try:
                deleted.append(_delete_one(call, txn, bucket, item, change))
            except (S3Error, VersionLocked) as raised:
                error = raised if isinstance(raised, S3Error) else version_locked()
                failed.append(xml.DeleteFailed(item.key, error.code, error.message, item.version_id))
        return deleted, failed

    deleted, failed = await call.commit(commit)
    return xml_response(xml.delete_result([] if request.quiet else deleted, failed))


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
    deletion = delete(txn, bucket, item.key, call.principal.tenant, change)
    if not deletion.marker:
        return xml.Deleted(item.key)
    return xml.Deleted(item.key, None, True, format_version(deletion.version_id))
