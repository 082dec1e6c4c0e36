"""GetObjectTagging, PutObjectTagging, DeleteObjectTagging. A bucket's tags are in `configurations`.

Tags are part of the object's record; changing them changes nothing else of it, Last-Modified included.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectTagging.html
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from index.versions import replace_object
from vaultaire.s3 import tags, xml_tree
from vaultaire.s3.body import read_small_body
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.facts import requested_tags
from vaultaire.s3.operations.versioning import require_version, version_headers
from vaultaire.s3.version_ids import parse_version

if TYPE_CHECKING:
    from index.kv import Reader, Transaction
    from index.records import BucketRecord, ObjectRecord


async def get_object_tagging(call: Call) -> Response:
    bucket = call.require_bucket()
    with call.store.kv.snapshot() as reader:
        record = _find(call, reader, bucket)
    response = xml_response(tags.format_xml(record.tags))
    response.headers += version_headers(bucket, record)
    return response


async def put_object_tagging(call: Call) -> Response:
    """All tags are replaced. Raises InvalidTag, MalformedXML, NoSuchKey, AccessDenied (by what the tags are)."""
    call.require_bucket()
    body = await read_small_body(call, xml_tree.MAX_BODY_BYTES)
    given = tags.parse_xml(body, tags.MAX_OBJECT_TAGS)
    version_id = call.query.get("versionId")
    action = "s3:PutObjectVersionTagging" if version_id else "s3:PutObjectTagging"
    call.learn(requested_tags(given))
    call.require(action, call.key, version_id)
    return Response(200, await _set(call, given))


async def delete_object_tagging(call: Call) -> Response:
    return Response(204, await _set(call, ()))


async def _set(call: Call, given: tags.Tags) -> list[tuple[bytes, bytes]]:
    """The headers of the answer."""

    def commit(txn: Transaction) -> list[tuple[bytes, bytes]]:
        bucket = call.bucket(txn)
        record = _find(call, txn, bucket)
        assert call.key is not None
        if record.tags != given:
            replace_object(txn, bucket.id, call.key, replace(record, tags=given))
        return version_headers(bucket, record)

    return await call.commit(commit)


def _find(call: Call, reader: Reader, bucket: BucketRecord) -> ObjectRecord:
    """The version that the request means. Raises NoSuchKey, NoSuchVersion, MethodNotAllowed."""
    assert call.key is not None
    wanted = parse_version(call.query.get("versionId"))
    return require_version(reader, bucket, call.key, wanted, call.method)
