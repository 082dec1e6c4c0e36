"""DeleteObjects: up to 1,000 deletes in one commit, each with its own result.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from index.objects import delete_object as delete
from index.objects import get_object as find
from vaultaire.s3 import xml, xml_requests
from vaultaire.s3.body import read_small_body
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error
from vaultaire.s3.names import check_key
from vaultaire.s3.operations.attributes import check_version
from vaultaire.s3.operations.objects import current_of

if TYPE_CHECKING:
    from index.kv import Transaction
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

    def commit(txn: Transaction) -> tuple[list[xml.Deleted], list[xml.DeleteFailed]]:
        bucket = call.bucket(txn)
        deleted: list[xml.Deleted] = []
        failed: list[xml.DeleteFailed] = []
        for number, item in enumerate(request.items):
            try:
                if number in denied:
                    raise S3Error("AccessDenied")
                _delete_one(call, txn, bucket.id, item)
                deleted.append(xml.Deleted(item.key, item.version_id))
            except S3Error as error:
                failed.append(xml.DeleteFailed(item.key, error.code, error.message, item.version_id))
        return deleted, failed

    deleted, failed = await call.commit(commit)
    return xml_response(xml.delete_result([] if request.quiet else deleted, failed))


def _allowed(call: Call, item: DeleteItem) -> bool:
    action = "s3:DeleteObject" if item.version_id is None else "s3:DeleteObjectVersion"
    return item.key_too_long or call.allows(action, item.key, item.version_id)


def _delete_one(call: Call, txn: Transaction, bucket_id: int, item: DeleteItem) -> None:
    """Raises S3Error before anything is changed."""
    check_key(item.key)
    check_version(item.version_id)
    if item.condition is not None:
        found = find(txn, bucket_id, item.key)
        item.condition.check(None if found is None else current_of(found))
    delete(txn, bucket_id, item.key, call.store.writer)
