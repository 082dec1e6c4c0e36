"""What S3 answers about configurations that nobody set: the whole truth as long as they cannot be set here.

Tools probe these before they do anything else (mc, Terraform, the SDKs' waiters); a 501 stops some of them. Only for
operations that are not built; the bucket must have been found, and the caller allowed in, before.
"""

from __future__ import annotations

from typing import NamedTuple

from vaultaire.s3 import xml
from vaultaire.s3.errors import S3Error
from vaultaire.s3.operation import Operation


class Stub(NamedTuple):
    status: int
    body: bytes


_NOTHING_LISTED = "<IsTruncated>false</IsTruncated>"
_BODIES: dict[Operation, bytes] = {
    Operation.GET_BUCKET_REQUEST_PAYMENT: xml.request_payment(),
    Operation.GET_BUCKET_LOGGING: xml.empty("BucketLoggingStatus"),
    Operation.GET_BUCKET_NOTIFICATION_CONFIGURATION: xml.empty("NotificationConfiguration"),
    Operation.GET_BUCKET_ACCELERATE_CONFIGURATION: xml.empty("AccelerateConfiguration"),
    Operation.LIST_BUCKET_ANALYTICS_CONFIGURATIONS: xml.document(
        "ListBucketAnalyticsConfigurationResult", _NOTHING_LISTED
    ),
    Operation.LIST_BUCKET_INTELLIGENT_TIERING_CONFIGURATIONS: xml.document(
        "ListBucketIntelligentTieringConfigurationsResult", _NOTHING_LISTED
    ),
    Operation.LIST_BUCKET_INVENTORY_CONFIGURATIONS: xml.document(
        "ListInventoryConfigurationsResult", _NOTHING_LISTED
    ),
    Operation.LIST_BUCKET_METRICS_CONFIGURATIONS: xml.document(
        "ListMetricsConfigurationsResult", _NOTHING_LISTED
    ),
}

_ERRORS: dict[Operation, tuple[str, str | None]] = {
    Operation.RESTORE_OBJECT: (
        "InvalidObjectState",
        "Restore is not allowed for the object's current storage class",
    ),
    Operation.GET_BUCKET_WEBSITE: ("NoSuchWebsiteConfiguration", None),
    Operation.GET_BUCKET_REPLICATION: ("ReplicationConfigurationNotFoundError", None),
}

# Removing what was never set succeeds on S3.
_NO_CONTENT = frozenset(
    (
        Operation.DELETE_BUCKET_REPLICATION,
        Operation.DELETE_BUCKET_WEBSITE,
    )
)


def stub(operation: Operation) -> Stub:
    """The answer of an operation that is not built. Raises its documented S3Error, or NotImplemented."""
    body = _BODIES.get(operation)
    if body is not None:
        return Stub(200, body)
    if operation in _NO_CONTENT:
        return Stub(204, b"")
    code, message = _ERRORS.get(operation, ("NotImplemented", f"{operation.value} is not implemented"))
    raise S3Error(code, message)
