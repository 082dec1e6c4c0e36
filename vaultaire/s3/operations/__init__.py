"""One module per family of operations: parse -> store -> response, nothing else. Here is the table of them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vaultaire.s3 import stored
from vaultaire.s3.operation import Operation
from vaultaire.s3.operations import (
    buckets,
    configurations,
    copies,
    defaults,
    deletes,
    lifecycle,
    listing,
    lists,
    multipart,
    object_attributes,
    object_lock,
    objects,
    post_object,
    renames,
    tagging,
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
    Operation.POST_OBJECT: Handler(post_object.post_object, True),
    Operation.DELETE_OBJECT: Handler(objects.delete_object, True),
    Operation.DELETE_OBJECTS: Handler(deletes.delete_objects, True),
    Operation.GET_OBJECT_ATTRIBUTES: Handler(object_attributes.get_object_attributes, False),
    Operation.RENAME_OBJECT: Handler(renames.rename_object, True),
    Operation.PUT_BUCKET_LIFECYCLE_CONFIGURATION: Handler(lifecycle.put_bucket_lifecycle_configuration, True),
    Operation.GET_BUCKET_LIFECYCLE_CONFIGURATION: Handler(
        lifecycle.get_bucket_lifecycle_configuration, False
    ),
    Operation.DELETE_BUCKET_LIFECYCLE: Handler(lifecycle.delete_bucket_lifecycle, True),
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
    Operation.GET_BUCKET_ACL: Handler(lists.get_bucket_acl, False),
    Operation.PUT_BUCKET_ACL: Handler(lists.put_bucket_acl, True),
    Operation.GET_OBJECT_ACL: Handler(lists.get_object_acl, False),
    Operation.PUT_OBJECT_ACL: Handler(lists.put_object_acl, True),
    Operation.GET_OBJECT_TAGGING: Handler(tagging.get_object_tagging, False),
    Operation.PUT_OBJECT_TAGGING: Handler(tagging.put_object_tagging, True),
    Operation.DELETE_OBJECT_TAGGING: Handler(tagging.delete_object_tagging, True),
    Operation.GET_BUCKET_POLICY: Handler(configurations.get_bucket_policy, False),
    Operation.PUT_BUCKET_POLICY: Handler(configurations.put_bucket_policy, True),
    Operation.DELETE_BUCKET_POLICY: Handler(configurations.deleter(stored.POLICY), True),
    Operation.GET_BUCKET_POLICY_STATUS: Handler(configurations.get_bucket_policy_status, False),
    Operation.PUT_BUCKET_LOGGING: Handler(defaults.put_bucket_logging, True),
    Operation.PUT_BUCKET_NOTIFICATION_CONFIGURATION: Handler(defaults.put_bucket_notification, True),
    Operation.PUT_BUCKET_REQUEST_PAYMENT: Handler(defaults.put_bucket_request_payment, True),
    Operation.PUT_BUCKET_ACCELERATE_CONFIGURATION: Handler(defaults.put_bucket_accelerate, True),
    Operation.GET_BUCKET_CORS: Handler(configurations.getter(stored.CORS), False),
    Operation.PUT_BUCKET_CORS: Handler(configurations.put_bucket_cors, True),
    Operation.DELETE_BUCKET_CORS: Handler(configurations.deleter(stored.CORS), True),
    Operation.GET_BUCKET_ENCRYPTION: Handler(configurations.getter(stored.ENCRYPTION), False),
    Operation.PUT_BUCKET_ENCRYPTION: Handler(configurations.put_bucket_encryption, True),
    Operation.DELETE_BUCKET_ENCRYPTION: Handler(configurations.deleter(stored.ENCRYPTION), True),
    Operation.GET_BUCKET_OWNERSHIP_CONTROLS: Handler(configurations.getter(stored.OWNERSHIP), False),
    Operation.PUT_BUCKET_OWNERSHIP_CONTROLS: Handler(configurations.put_bucket_ownership_controls, True),
    Operation.DELETE_BUCKET_OWNERSHIP_CONTROLS: Handler(configurations.deleter(stored.OWNERSHIP), True),
    Operation.GET_BUCKET_TAGGING: Handler(configurations.getter(stored.TAGGING), False),
    Operation.PUT_BUCKET_TAGGING: Handler(configurations.put_bucket_tagging, True),
    Operation.DELETE_BUCKET_TAGGING: Handler(configurations.deleter(stored.TAGGING), True),
    Operation.GET_PUBLIC_ACCESS_BLOCK: Handler(configurations.getter(stored.PUBLIC_ACCESS_BLOCK), False),
    Operation.PUT_PUBLIC_ACCESS_BLOCK: Handler(configurations.put_public_access_block, True),
    Operation.DELETE_PUBLIC_ACCESS_BLOCK: Handler(configurations.deleter(stored.PUBLIC_ACCESS_BLOCK), True),
    Operation.GET_BUCKET_ANALYTICS_CONFIGURATION: Handler(defaults.no_such_configuration, False),
    Operation.DELETE_BUCKET_ANALYTICS_CONFIGURATION: Handler(defaults.no_such_configuration, True),
    Operation.GET_BUCKET_INTELLIGENT_TIERING_CONFIGURATION: Handler(defaults.no_such_configuration, False),
    Operation.DELETE_BUCKET_INTELLIGENT_TIERING_CONFIGURATION: Handler(defaults.no_such_configuration, True),
    Operation.GET_BUCKET_INVENTORY_CONFIGURATION: Handler(defaults.no_such_configuration, False),
    Operation.DELETE_BUCKET_INVENTORY_CONFIGURATION: Handler(defaults.no_such_configuration, True),
    Operation.GET_BUCKET_METRICS_CONFIGURATION: Handler(defaults.no_such_configuration, False),
    Operation.DELETE_BUCKET_METRICS_CONFIGURATION: Handler(defaults.no_such_configuration, True),
    Operation.GET_BUCKET_VERSIONING: Handler(versioning.get_bucket_versioning, False),
    Operation.PUT_BUCKET_VERSIONING: Handler(versioning.put_bucket_versioning, True),
    Operation.GET_OBJECT_LOCK_CONFIGURATION: Handler(object_lock.get_object_lock_configuration, False),
    Operation.PUT_OBJECT_LOCK_CONFIGURATION: Handler(object_lock.put_object_lock_configuration, True),
    Operation.GET_OBJECT_RETENTION: Handler(object_lock.get_object_retention, False),
    Operation.PUT_OBJECT_RETENTION: Handler(object_lock.put_object_retention, True),
    Operation.GET_OBJECT_LEGAL_HOLD: Handler(object_lock.get_object_legal_hold, False),
    Operation.PUT_OBJECT_LEGAL_HOLD: Handler(object_lock.put_object_legal_hold, True),
}
