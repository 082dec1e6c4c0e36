"""One module per family of operations: parse -> store -> response, nothing else. Here is the table of them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vaultaire.s3.operation import Operation
from vaultaire.s3.operations import (
    buckets,
    copies,
    deletes,
    listing,
    multipart,
    object_lock,
    objects,
    versioning,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vaultaire.s3.call import Call, Response


class Handler(NamedTuple):
    """`writes`: needs a role that may change data."""

    run: Callable[[Call], Awaitable[Response]]
    writes: bool


OPERATIONS: dict[Operation, Handler] = {
    Operation.LIST_BUCKETS: Handler(buckets.list_buckets, False),
    Operation.CREATE_BUCKET: Handler(buckets.create_bucket, True),
    Operation.HEAD_BUCKET: Handler(buckets.head_bucket, False),
    Operation.DELETE_BUCKET: Handler(buckets.delete_bucket, True),
    Operation.GET_BUCKET_LOCATION: Handler(buckets.get_bucket_location, False),
    Operation.PUT_OBJECT: Handler(objects.put_object, True),
    Operation.GET_OBJECT: Handler(objects.get_object, False),
    Operation.HEAD_OBJECT: Handler(objects.head_object, False),
    Operation.DELETE_OBJECT: Handler(objects.delete_object, True),
    Operation.DELETE_OBJECTS: Handler(deletes.delete_objects, True),
    Operation.COPY_OBJECT: Handler(copies.copy_object, True),
    Operation.LIST_OBJECTS: Handler(listing.list_objects, False),
    Operation.LIST_OBJECTS_V2: Handler(listing.list_objects_v2, False),
    Operation.LIST_OBJECT_VERSIONS: Handler(listing.list_object_versions, False),
    Operation.CREATE_MULTIPART_UPLOAD: Handler(multipart.create_multipart_upload, True),
    Operation.UPLOAD_PART: Handler(multipart.upload_part, True),
    Operation.UPLOAD_PART_COPY: Handler(copies.upload_part_copy, True),
    Operation.COMPLETE_MULTIPART_UPLOAD: Handler(multipart.complete_multipart_upload, True),
    Operation.ABORT_MULTIPART_UPLOAD: Handler(multipart.abort_multipart_upload, True),
    Operation.LIST_PARTS: Handler(listing.list_parts, False),
    Operation.LIST_MULTIPART_UPLOADS: Handler(listing.list_multipart_uploads, False),
    Operation.GET_BUCKET_VERSIONING: Handler(versioning.get_bucket_versioning, False),
    Operation.PUT_BUCKET_VERSIONING: Handler(versioning.put_bucket_versioning, True),
    Operation.GET_OBJECT_LOCK_CONFIGURATION: Handler(object_lock.get_object_lock_configuration, False),
    Operation.PUT_OBJECT_LOCK_CONFIGURATION: Handler(object_lock.put_object_lock_configuration, True),
    Operation.GET_OBJECT_RETENTION: Handler(object_lock.get_object_retention, False),
    Operation.PUT_OBJECT_RETENTION: Handler(object_lock.put_object_retention, True),
    Operation.GET_OBJECT_LEGAL_HOLD: Handler(object_lock.get_object_legal_hold, False),
    Operation.PUT_OBJECT_LEGAL_HOLD: Handler(object_lock.put_object_legal_hold, True),
}
