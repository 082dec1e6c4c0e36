"""A new version of an object: what those that make one have in common; PutObject and PostObject most of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from index.objects import get_object
from index.records import ObjectRecord
from index.versions import put_object
from vaultaire.s3.operations.attributes import stored_checksum

if TYPE_CHECKING:
    from index.kv import Reader, Transaction
    from index.records import BucketRecord
    from vaultaire.ingest import Upload
    from vaultaire.s3.call import Call
    from vaultaire.s3.conditions import WriteCondition
    from vaultaire.s3.expected import Computed
    from vaultaire.s3.operations.attributes import Attributes
    from vaultaire.s3.operations.rights import Rights


class Stored(NamedTuple):
    record: ObjectRecord
    version_id: bytes | None


def check_early(call: Call, bucket: BucketRecord, key: bytes, wanted: WriteCondition | None) -> None:
    """So that a hopeless upload is refused before its body; the commit checks again. Raises PreconditionFailed, ..."""
    if wanted is not None:
        with call.store.kv.snapshot() as reader:
            check_wanted(reader, bucket, key, wanted)


def check_wanted(reader: Reader, bucket: BucketRecord, key: bytes, wanted: WriteCondition | None) -> None:
    """Inside the commit. Raises PreconditionFailed, ... if what is `wanted` of the current object does not hold."""
    if wanted is not None:
        found = get_object(reader, bucket.id, key)
        wanted.check(None if found is None else found.etag)


async def store_object(
    call: Call,
    key: bytes,
    upload: Upload,
    computed: Computed,
    attributes: Attributes,
    rights: Rights,
    wanted: WriteCondition | None,
) -> Stored:
    """Durable on return. Raises what a commit raises, and if what is `wanted` of the current object does not hold."""
    record = ObjectRecord(
        size=upload.size,
        modified_ms=call.now_ms(),
        etag=computed.md5.hex(),
        owner=rights.owner,
        content_type=attributes.content_type,
        headers=attributes.headers,
        metadata=attributes.metadata,
        tags=attributes.tags,
        acl=rights.grants,
        checksum=stored_checksum(computed),
        inline=upload.inline,
        manifest=upload.manifest.encode() if upload.manifest is not None else None,
        new_stored_bytes=upload.new_stored_bytes,
        retention=attributes.retention,
        legal_hold=attributes.legal_hold,
    )
    change = call.change()

    def commit(txn: Transaction) -> bytes | None:
        bucket = call.bucket(txn)
        check_wanted(txn, bucket, key, wanted)
        return put_object(txn, bucket, key, upload.counted(record), change)

    version_id = await call.commit(commit, upload.publications)
    upload.committed = True
    return Stored(record, version_id)
