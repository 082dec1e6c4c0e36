"""What an operation needs: the `s3:` actions that policies speak of, and on what.

Every operation is here; a test holds the table against `Operation`. Several actions must all be allowed. `versioned`
replaces the first action when the request names a version. Where only the body tells which keys, tags or locks are meant,
`late` is set: the operation asks for each of them itself (`Call.require`, `Call.allows`).

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from vaultaire.s3.operation import Operation

Kind = Literal["service", "bucket", "object"]


class Needs(NamedTuple):
    kind: Kind
    actions: tuple[str, ...]
    versioned: str | None = None
    late: bool = False


def _service(action: str) -> Needs:
    return Needs("service", (action,))


def _bucket(*actions: str) -> Needs:
    return Needs("bucket", actions)


def _object(*actions: str, versioned: str | None = None, late: bool = False) -> Needs:
    return Needs("object", actions, versioned, late)


_ACCELERATE = "s3:PutAccelerateConfiguration"
_METADATA_TABLE = "s3:UpdateBucketMetadataJournalTableConfiguration"

NEEDS: dict[Operation, Needs] = {
    Operation.ABORT_MULTIPART_UPLOAD: _object("s3:AbortMultipartUpload"),
    Operation.COMPLETE_MULTIPART_UPLOAD: _object("s3:PutObject"),
    Operation.COPY_OBJECT: _object("s3:PutObject"),
    Operation.CREATE_BUCKET: _service("s3:CreateBucket"),
    Operation.CREATE_BUCKET_METADATA_CONFIGURATION: _bucket("s3:CreateBucketMetadataTableConfiguration"),
    Operation.CREATE_BUCKET_METADATA_TABLE_CONFIGURATION: _bucket(
        "s3:CreateBucketMetadataTableConfiguration"
    ),
    Operation.CREATE_MULTIPART_UPLOAD: _object("s3:PutObject"),
    Operation.CREATE_SESSION: _bucket("s3:CreateSession"),
    Operation.DELETE_BUCKET: _bucket("s3:DeleteBucket"),
    Operation.DELETE_BUCKET_ANALYTICS_CONFIGURATION: _bucket("s3:PutAnalyticsConfiguration"),
    Operation.DELETE_BUCKET_CORS: _bucket("s3:PutBucketCORS"),
    Operation.DELETE_BUCKET_ENCRYPTION: _bucket("s3:PutEncryptionConfiguration"),
    Operation.DELETE_BUCKET_INTELLIGENT_TIERING_CONFIGURATION: _bucket(
        "s3:PutIntelligentTieringConfiguration"
    ),
    Operation.DELETE_BUCKET_INVENTORY_CONFIGURATION: _bucket("s3:PutInventoryConfiguration"),
    Operation.DELETE_BUCKET_LIFECYCLE: _bucket("s3:PutLifecycleConfiguration"),
    Operation.DELETE_BUCKET_METADATA_CONFIGURATION: _bucket("s3:DeleteBucketMetadataTableConfiguration"),
    Operation.DELETE_BUCKET_METADATA_TABLE_CONFIGURATION: _bucket(
        "s3:DeleteBucketMetadataTableConfiguration"
    ),
    Operation.DELETE_BUCKET_METRICS_CONFIGURATION: _bucket("s3:PutMetricsConfiguration"),
    Operation.DELETE_BUCKET_OWNERSHIP_CONTROLS: _bucket("s3:PutBucketOwnershipControls"),
    Operation.DELETE_BUCKET_POLICY: _bucket("s3:DeleteBucketPolicy"),
    Operation.DELETE_BUCKET_REPLICATION: _bucket("s3:PutReplicationConfiguration"),
    Operation.DELETE_BUCKET_TAGGING: _bucket("s3:PutBucketTagging"),
    Operation.DELETE_BUCKET_WEBSITE: _bucket("s3:DeleteBucketWebsite"),
    Operation.DELETE_OBJECT: _object("s3:DeleteObject", versioned="s3:DeleteObjectVersion"),
    Operation.DELETE_OBJECT_ANNOTATION: _object("s3:PutObject"),
    Operation.DELETE_OBJECT_TAGGING: _object(
        "s3:DeleteObjectTagging", versioned="s3:DeleteObjectVersionTagging"
    ),
    Operation.DELETE_OBJECTS: _object("s3:DeleteObject", late=True),
    Operation.DELETE_PUBLIC_ACCESS_BLOCK: _bucket("s3:PutBucketPublicAccessBlock"),
    Operation.GET_BUCKET_ABAC: _bucket("s3:GetBucketAbac"),
    Operation.GET_BUCKET_ACCELERATE_CONFIGURATION: _bucket("s3:GetAccelerateConfiguration"),
    Operation.GET_BUCKET_ACL: _bucket("s3:GetBucketAcl"),
    Operation.GET_BUCKET_ANALYTICS_CONFIGURATION: _bucket("s3:GetAnalyticsConfiguration"),
    Operation.GET_BUCKET_CORS: _bucket("s3:GetBucketCORS"),
    Operation.GET_BUCKET_ENCRYPTION: _bucket("s3:GetEncryptionConfiguration"),
    Operation.GET_BUCKET_INTELLIGENT_TIERING_CONFIGURATION: _bucket("s3:GetIntelligentTieringConfiguration"),
    Operation.GET_BUCKET_INVENTORY_CONFIGURATION: _bucket("s3:GetInventoryConfiguration"),
    Operation.GET_BUCKET_LIFECYCLE_CONFIGURATION: _bucket("s3:GetLifecycleConfiguration"),
    Operation.GET_BUCKET_LOCATION: _bucket("s3:GetBucketLocation"),
    Operation.GET_BUCKET_LOGGING: _bucket("s3:GetBucketLogging"),
    Operation.GET_BUCKET_METADATA_CONFIGURATION: _bucket("s3:GetBucketMetadataTableConfiguration"),
    Operation.GET_BUCKET_METADATA_TABLE_CONFIGURATION: _bucket("s3:GetBucketMetadataTableConfiguration"),
    Operation.GET_BUCKET_METRICS_CONFIGURATION: _bucket("s3:GetMetricsConfiguration"),
    Operation.GET_BUCKET_NOTIFICATION_CONFIGURATION: _bucket("s3:GetBucketNotification"),
    Operation.GET_BUCKET_OWNERSHIP_CONTROLS: _bucket("s3:GetBucketOwnershipControls"),
    Operation.GET_BUCKET_POLICY: _bucket("s3:GetBucketPolicy"),
    Operation.GET_BUCKET_POLICY_STATUS: _bucket("s3:GetBucketPolicyStatus"),
    Operation.GET_BUCKET_REPLICATION: _bucket("s3:GetReplicationConfiguration"),
    Operation.GET_BUCKET_REQUEST_PAYMENT: _bucket("s3:GetBucketRequestPayment"),
    Operation.GET_BUCKET_TAGGING: _bucket("s3:GetBucketTagging"),
    Operation.GET_BUCKET_VERSIONING: _bucket("s3:GetBucketVersioning"),
    Operation.GET_BUCKET_WEBSITE: _bucket("s3:GetBucketWebsite"),
    Operation.GET_OBJECT: _object("s3:GetObject", versioned="s3:GetObjectVersion"),
    Operation.GET_OBJECT_ACL: _object("s3:GetObjectAcl", versioned="s3:GetObjectVersionAcl"),
    Operation.GET_OBJECT_ANNOTATION: _object("s3:GetObject", versioned="s3:GetObjectVersion"),
    # AWS asks for s3:GetObject and s3:GetObjectAttributes, or for both of their version forms.
    Operation.GET_OBJECT_ATTRIBUTES: _object(
        "s3:GetObject", "s3:GetObjectAttributes", versioned="s3:GetObjectVersion"
    ),
    Operation.GET_OBJECT_LEGAL_HOLD: _object("s3:GetObjectLegalHold"),
    Operation.GET_OBJECT_LOCK_CONFIGURATION: _bucket("s3:GetBucketObjectLockConfiguration"),
    Operation.GET_OBJECT_RETENTION: _object("s3:GetObjectRetention"),
    Operation.GET_OBJECT_TAGGING: _object("s3:GetObjectTagging", versioned="s3:GetObjectVersionTagging"),
    Operation.GET_OBJECT_TORRENT: _object("s3:GetObjectTorrent", versioned="s3:GetObjectVersionTorrent"),
    Operation.GET_PUBLIC_ACCESS_BLOCK: _bucket("s3:GetBucketPublicAccessBlock"),
    Operation.HEAD_BUCKET: _bucket("s3:ListBucket"),
    Operation.HEAD_OBJECT: _object("s3:GetObject", versioned="s3:GetObjectVersion"),
    Operation.LIST_BUCKET_ANALYTICS_CONFIGURATIONS: _bucket("s3:GetAnalyticsConfiguration"),
    Operation.LIST_BUCKET_INTELLIGENT_TIERING_CONFIGURATIONS: _bucket(
        "s3:GetIntelligentTieringConfiguration"
    ),
    Operation.LIST_BUCKET_INVENTORY_CONFIGURATIONS: _bucket("s3:GetInventoryConfiguration"),
    Operation.LIST_BUCKET_METRICS_CONFIGURATIONS: _bucket("s3:GetMetricsConfiguration"),
    Operation.LIST_BUCKETS: _service("s3:ListAllMyBuckets"),
    Operation.LIST_MULTIPART_UPLOADS: _bucket("s3:ListBucketMultipartUploads"),
    Operation.LIST_OBJECT_ANNOTATIONS: _object("s3:GetObject", versioned="s3:GetObjectVersion"),
    Operation.LIST_OBJECT_VERSIONS: _bucket("s3:ListBucketVersions"),
    Operation.LIST_OBJECTS: _bucket("s3:ListBucket"),
    Operation.LIST_OBJECTS_V2: _bucket("s3:ListBucket"),
    Operation.LIST_PARTS: _object("s3:ListMultipartUploadParts"),
    Operation.PUT_BUCKET_ABAC: _bucket("s3:PutBucketAbac"),
    Operation.PUT_BUCKET_ACCELERATE_CONFIGURATION: _bucket(_ACCELERATE),
    Operation.PUT_BUCKET_ACL: _bucket("s3:PutBucketAcl"),
    Operation.PUT_BUCKET_ANALYTICS_CONFIGURATION: _bucket("s3:PutAnalyticsConfiguration"),
    Operation.PUT_BUCKET_CORS: _bucket("s3:PutBucketCORS"),
    Operation.PUT_BUCKET_ENCRYPTION: _bucket("s3:PutEncryptionConfiguration"),
    Operation.PUT_BUCKET_INTELLIGENT_TIERING_CONFIGURATION: _bucket("s3:PutIntelligentTieringConfiguration"),
    Operation.PUT_BUCKET_INVENTORY_CONFIGURATION: _bucket("s3:PutInventoryConfiguration"),
    Operation.PUT_BUCKET_LIFECYCLE_CONFIGURATION: _bucket("s3:PutLifecycleConfiguration"),
    Operation.PUT_BUCKET_LOGGING: _bucket("s3:PutBucketLogging"),
    Operation.PUT_BUCKET_METRICS_CONFIGURATION: _bucket("s3:PutMetricsConfiguration"),
    Operation.PUT_BUCKET_NOTIFICATION_CONFIGURATION: _bucket("s3:PutBucketNotification"),
    Operation.PUT_BUCKET_OWNERSHIP_CONTROLS: _bucket("s3:PutBucketOwnershipControls"),
    Operation.PUT_BUCKET_POLICY: _bucket("s3:PutBucketPolicy"),
    Operation.PUT_BUCKET_REPLICATION: _bucket("s3:PutReplicationConfiguration"),
    Operation.PUT_BUCKET_REQUEST_PAYMENT: _bucket("s3:PutBucketRequestPayment"),
    Operation.PUT_BUCKET_TAGGING: _bucket("s3:PutBucketTagging"),
    Operation.PUT_BUCKET_VERSIONING: _bucket("s3:PutBucketVersioning"),
    Operation.PUT_BUCKET_WEBSITE: _bucket("s3:PutBucketWebsite"),
    Operation.PUT_OBJECT: _object("s3:PutObject"),
    Operation.PUT_OBJECT_ACL: _object("s3:PutObjectAcl", versioned="s3:PutObjectVersionAcl"),
    Operation.PUT_OBJECT_ANNOTATION: _object("s3:PutObject"),
    Operation.PUT_OBJECT_LEGAL_HOLD: _object("s3:PutObjectLegalHold", late=True),
    Operation.PUT_OBJECT_LOCK_CONFIGURATION: _bucket("s3:PutBucketObjectLockConfiguration"),
    Operation.PUT_OBJECT_RETENTION: _object("s3:PutObjectRetention", late=True),
    Operation.PUT_OBJECT_TAGGING: _object(
        "s3:PutObjectTagging", versioned="s3:PutObjectVersionTagging", late=True
    ),
    Operation.PUT_PUBLIC_ACCESS_BLOCK: _bucket("s3:PutBucketPublicAccessBlock"),
    Operation.RENAME_OBJECT: _object("s3:PutObject"),
    Operation.RESTORE_OBJECT: _object("s3:RestoreObject"),
    Operation.SELECT_OBJECT_CONTENT: _object("s3:GetObject"),
    Operation.UPDATE_BUCKET_METADATA_ANNOTATION_TABLE_CONFIGURATION: _bucket(_METADATA_TABLE),
    Operation.UPDATE_BUCKET_METADATA_INVENTORY_TABLE_CONFIGURATION: _bucket(
        "s3:UpdateBucketMetadataInventoryTableConfiguration"
    ),
    Operation.UPDATE_BUCKET_METADATA_JOURNAL_TABLE_CONFIGURATION: _bucket(_METADATA_TABLE),
    Operation.UPDATE_OBJECT_ENCRYPTION: _object("s3:UpdateObjectEncryption"),
    Operation.UPLOAD_PART: _object("s3:PutObject"),
    Operation.UPLOAD_PART_COPY: _object("s3:PutObject"),
    Operation.POST_OBJECT: _object("s3:PutObject", late=True),
    # Asked by browsers before they ask us: it is answered from the CORS rules alone, whoever it is.
    Operation.CORS_PREFLIGHT: Needs("service", ()),
}

# Actions that no operation above needs by itself, but policies name.
_FURTHER: dict[str, Kind] = {
    "s3:BypassGovernanceRetention": "object",
    "s3:DeleteObjectVersion": "object",
    "s3:DeleteObjectVersionTagging": "object",
    "s3:GetObjectVersion": "object",
    "s3:GetObjectVersionAcl": "object",
    "s3:GetObjectVersionAttributes": "object",
    "s3:GetObjectVersionForReplication": "object",
    "s3:GetObjectVersionTagging": "object",
    "s3:GetObjectVersionTorrent": "object",
    "s3:InitiateReplication": "object",
    "s3:ObjectOwnerOverrideToBucketOwner": "object",
    "s3:PutObjectVersionAcl": "object",
    "s3:PutObjectVersionTagging": "object",
    "s3:ReplicateDelete": "object",
    "s3:ReplicateObject": "object",
    "s3:ReplicateTags": "object",
    "s3:DeleteBucketReplication": "bucket",
    "s3:DeleteBucketCORS": "bucket",
    "s3:DeleteBucketEncryption": "bucket",
    "s3:DeleteBucketLifecycle": "bucket",
    "s3:DeleteBucketOwnershipControls": "bucket",
    "s3:DeleteBucketTagging": "bucket",
    "s3:CreateBucket": "bucket",
    "s3:ListTagsForResource": "bucket",
    "s3:TagResource": "bucket",
    "s3:UntagResource": "bucket",
}

# Every action that a bucket policy may name, and what it is about.
ACTIONS: dict[str, Kind] = {
    **{action: needs.kind for needs in NEEDS.values() if needs.kind != "service" for action in needs.actions},
    **_FURTHER,
}
