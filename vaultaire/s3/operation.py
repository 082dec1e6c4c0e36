"""S3's operations by name, and which sub-resource and method means which.

All of them are here, whether they are built or not: what is known is answered by its name (or NotImplemented), and can
never be taken for the plain operation on the bucket or object.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

from __future__ import annotations

from enum import Enum


class Operation(Enum):
    """Values are S3's API names, which logs, metrics and policies use."""

    ABORT_MULTIPART_UPLOAD = "AbortMultipartUpload"
    COMPLETE_MULTIPART_UPLOAD = "CompleteMultipartUpload"
    COPY_OBJECT = "CopyObject"
    CREATE_BUCKET = "CreateBucket"
    CREATE_BUCKET_METADATA_CONFIGURATION = "CreateBucketMetadataConfiguration"
    CREATE_BUCKET_METADATA_TABLE_CONFIGURATION = "CreateBucketMetadataTableConfiguration"
    CREATE_MULTIPART_UPLOAD = "CreateMultipartUpload"
    CREATE_SESSION = "CreateSession"
    DELETE_BUCKET = "DeleteBucket"
    DELETE_BUCKET_ANALYTICS_CONFIGURATION = "DeleteBucketAnalyticsConfiguration"
    DELETE_BUCKET_CORS = "DeleteBucketCors"
    DELETE_BUCKET_ENCRYPTION = "DeleteBucketEncryption"
    DELETE_BUCKET_INTELLIGENT_TIERING_CONFIGURATION = "DeleteBucketIntelligentTieringConfiguration"
    DELETE_BUCKET_INVENTORY_CONFIGURATION = "DeleteBucketInventoryConfiguration"
    DELETE_BUCKET_LIFECYCLE = "DeleteBucketLifecycle"
    DELETE_BUCKET_METADATA_CONFIGURATION = "DeleteBucketMetadataConfiguration"
    DELETE_BUCKET_METADATA_TABLE_CONFIGURATION = "DeleteBucketMetadataTableConfiguration"
    DELETE_BUCKET_METRICS_CONFIGURATION = "DeleteBucketMetricsConfiguration"
    DELETE_BUCKET_OWNERSHIP_CONTROLS = "DeleteBucketOwnershipControls"
    DELETE_BUCKET_POLICY = "DeleteBucketPolicy"
    DELETE_BUCKET_REPLICATION = "DeleteBucketReplication"
    DELETE_BUCKET_TAGGING = "DeleteBucketTagging"
    DELETE_BUCKET_WEBSITE = "DeleteBucketWebsite"
    DELETE_OBJECT = "DeleteObject"
    DELETE_OBJECT_ANNOTATION = "DeleteObjectAnnotation"
    DELETE_OBJECT_TAGGING = "DeleteObjectTagging"
    DELETE_OBJECTS = "DeleteObjects"
    DELETE_PUBLIC_ACCESS_BLOCK = "DeletePublicAccessBlock"
    GET_BUCKET_ABAC = "GetBucketAbac"
    GET_BUCKET_ACCELERATE_CONFIGURATION = "GetBucketAccelerateConfiguration"
    GET_BUCKET_ACL = "GetBucketAcl"
    GET_BUCKET_ANALYTICS_CONFIGURATION = "GetBucketAnalyticsConfiguration"
    GET_BUCKET_CORS = "GetBucketCors"
    GET_BUCKET_ENCRYPTION = "GetBucketEncryption"
    GET_BUCKET_INTELLIGENT_TIERING_CONFIGURATION = "GetBucketIntelligentTieringConfiguration"
    GET_BUCKET_INVENTORY_CONFIGURATION = "GetBucketInventoryConfiguration"
    GET_BUCKET_LIFECYCLE_CONFIGURATION = "GetBucketLifecycleConfiguration"
    GET_BUCKET_LOCATION = "GetBucketLocation"
    GET_BUCKET_LOGGING = "GetBucketLogging"
    GET_BUCKET_METADATA_CONFIGURATION = "GetBucketMetadataConfiguration"
    GET_BUCKET_METADATA_TABLE_CONFIGURATION = "GetBucketMetadataTableConfiguration"
    GET_BUCKET_METRICS_CONFIGURATION = "GetBucketMetricsConfiguration"
    GET_BUCKET_NOTIFICATION_CONFIGURATION = "GetBucketNotificationConfiguration"
    GET_BUCKET_OWNERSHIP_CONTROLS = "GetBucketOwnershipControls"
    GET_BUCKET_POLICY = "GetBucketPolicy"
    GET_BUCKET_POLICY_STATUS = "GetBucketPolicyStatus"
    GET_BUCKET_REPLICATION = "GetBucketReplication"
    GET_BUCKET_REQUEST_PAYMENT = "GetBucketRequestPayment"
    GET_BUCKET_TAGGING = "GetBucketTagging"
    GET_BUCKET_VERSIONING = "GetBucketVersioning"
    GET_BUCKET_WEBSITE = "GetBucketWebsite"
    GET_OBJECT = "GetObject"
    GET_OBJECT_ACL = "GetObjectAcl"
    GET_OBJECT_ANNOTATION = "GetObjectAnnotation"
    GET_OBJECT_ATTRIBUTES = "GetObjectAttributes"
    GET_OBJECT_LEGAL_HOLD = "GetObjectLegalHold"
    GET_OBJECT_LOCK_CONFIGURATION = "GetObjectLockConfiguration"
    GET_OBJECT_RETENTION = "GetObjectRetention"
    GET_OBJECT_TAGGING = "GetObjectTagging"
    GET_OBJECT_TORRENT = "GetObjectTorrent"
    GET_PUBLIC_ACCESS_BLOCK = "GetPublicAccessBlock"
    HEAD_BUCKET = "HeadBucket"
    HEAD_OBJECT = "HeadObject"
    LIST_BUCKET_ANALYTICS_CONFIGURATIONS = "ListBucketAnalyticsConfigurations"
    LIST_BUCKET_INTELLIGENT_TIERING_CONFIGURATIONS = "ListBucketIntelligentTieringConfigurations"
    LIST_BUCKET_INVENTORY_CONFIGURATIONS = "ListBucketInventoryConfigurations"
    LIST_BUCKET_METRICS_CONFIGURATIONS = "ListBucketMetricsConfigurations"
    LIST_BUCKETS = "ListBuckets"
    LIST_MULTIPART_UPLOADS = "ListMultipartUploads"
    LIST_OBJECT_ANNOTATIONS = "ListObjectAnnotations"
    LIST_OBJECT_VERSIONS = "ListObjectVersions"
    LIST_OBJECTS = "ListObjects"
    LIST_OBJECTS_V2 = "ListObjectsV2"
    LIST_PARTS = "ListParts"
    PUT_BUCKET_ABAC = "PutBucketAbac"
    PUT_BUCKET_ACCELERATE_CONFIGURATION = "PutBucketAccelerateConfiguration"
    PUT_BUCKET_ACL = "PutBucketAcl"
    PUT_BUCKET_ANALYTICS_CONFIGURATION = "PutBucketAnalyticsConfiguration"
    PUT_BUCKET_CORS = "PutBucketCors"
    PUT_BUCKET_ENCRYPTION = "PutBucketEncryption"
    PUT_BUCKET_INTELLIGENT_TIERING_CONFIGURATION = "PutBucketIntelligentTieringConfiguration"
    PUT_BUCKET_INVENTORY_CONFIGURATION = "PutBucketInventoryConfiguration"
    PUT_BUCKET_LIFECYCLE_CONFIGURATION = "PutBucketLifecycleConfiguration"
    PUT_BUCKET_LOGGING = "PutBucketLogging"
    PUT_BUCKET_METRICS_CONFIGURATION = "PutBucketMetricsConfiguration"
    PUT_BUCKET_NOTIFICATION_CONFIGURATION = "PutBucketNotificationConfiguration"
    PUT_BUCKET_OWNERSHIP_CONTROLS = "PutBucketOwnershipControls"
    PUT_BUCKET_POLICY = "PutBucketPolicy"
    PUT_BUCKET_REPLICATION = "PutBucketReplication"
    PUT_BUCKET_REQUEST_PAYMENT = "PutBucketRequestPayment"
    PUT_BUCKET_TAGGING = "PutBucketTagging"
    PUT_BUCKET_VERSIONING = "PutBucketVersioning"
    PUT_BUCKET_WEBSITE = "PutBucketWebsite"
    PUT_OBJECT = "PutObject"
    PUT_OBJECT_ACL = "PutObjectAcl"
    PUT_OBJECT_ANNOTATION = "PutObjectAnnotation"
    PUT_OBJECT_LEGAL_HOLD = "PutObjectLegalHold"
    PUT_OBJECT_LOCK_CONFIGURATION = "PutObjectLockConfiguration"
    PUT_OBJECT_RETENTION = "PutObjectRetention"
    PUT_OBJECT_TAGGING = "PutObjectTagging"
    PUT_PUBLIC_ACCESS_BLOCK = "PutPublicAccessBlock"
    RENAME_OBJECT = "RenameObject"
    RESTORE_OBJECT = "RestoreObject"
    SELECT_OBJECT_CONTENT = "SelectObjectContent"
    UPDATE_BUCKET_METADATA_ANNOTATION_TABLE_CONFIGURATION = "UpdateBucketMetadataAnnotationTableConfiguration"
    UPDATE_BUCKET_METADATA_INVENTORY_TABLE_CONFIGURATION = "UpdateBucketMetadataInventoryTableConfiguration"
    UPDATE_BUCKET_METADATA_JOURNAL_TABLE_CONFIGURATION = "UpdateBucketMetadataJournalTableConfiguration"
    UPDATE_OBJECT_ENCRYPTION = "UpdateObjectEncryption"
    UPLOAD_PART = "UploadPart"
    UPLOAD_PART_COPY = "UploadPartCopy"
    POST_OBJECT = "PostObject"
    CORS_PREFLIGHT = "CorsPreflight"


# (sub-resource, method) of a bucket, and of an object. A sub-resource named here with another method: MethodNotAllowed.
BUCKET: dict[tuple[str, str], Operation] = {
    ("abac", "GET"): Operation.GET_BUCKET_ABAC,
    ("abac", "PUT"): Operation.PUT_BUCKET_ABAC,
    ("accelerate", "GET"): Operation.GET_BUCKET_ACCELERATE_CONFIGURATION,
    ("accelerate", "PUT"): Operation.PUT_BUCKET_ACCELERATE_CONFIGURATION,
    ("acl", "GET"): Operation.GET_BUCKET_ACL,
    ("acl", "PUT"): Operation.PUT_BUCKET_ACL,
    ("analytics", "DELETE"): Operation.DELETE_BUCKET_ANALYTICS_CONFIGURATION,
    ("analytics", "GET"): Operation.LIST_BUCKET_ANALYTICS_CONFIGURATIONS,
    ("analytics", "PUT"): Operation.PUT_BUCKET_ANALYTICS_CONFIGURATION,
    ("cors", "DELETE"): Operation.DELETE_BUCKET_CORS,
    ("cors", "GET"): Operation.GET_BUCKET_CORS,
    ("cors", "PUT"): Operation.PUT_BUCKET_CORS,
    ("delete", "POST"): Operation.DELETE_OBJECTS,
    ("encryption", "DELETE"): Operation.DELETE_BUCKET_ENCRYPTION,
    ("encryption", "GET"): Operation.GET_BUCKET_ENCRYPTION,
    ("encryption", "PUT"): Operation.PUT_BUCKET_ENCRYPTION,
    ("intelligent-tiering", "DELETE"): Operation.DELETE_BUCKET_INTELLIGENT_TIERING_CONFIGURATION,
    ("intelligent-tiering", "GET"): Operation.LIST_BUCKET_INTELLIGENT_TIERING_CONFIGURATIONS,
    ("intelligent-tiering", "PUT"): Operation.PUT_BUCKET_INTELLIGENT_TIERING_CONFIGURATION,
    ("inventory", "DELETE"): Operation.DELETE_BUCKET_INVENTORY_CONFIGURATION,
    ("inventory", "GET"): Operation.LIST_BUCKET_INVENTORY_CONFIGURATIONS,
    ("inventory", "PUT"): Operation.PUT_BUCKET_INVENTORY_CONFIGURATION,
    ("lifecycle", "DELETE"): Operation.DELETE_BUCKET_LIFECYCLE,
    ("lifecycle", "GET"): Operation.GET_BUCKET_LIFECYCLE_CONFIGURATION,
    ("lifecycle", "PUT"): Operation.PUT_BUCKET_LIFECYCLE_CONFIGURATION,
    ("location", "GET"): Operation.GET_BUCKET_LOCATION,
    ("logging", "GET"): Operation.GET_BUCKET_LOGGING,
    ("logging", "PUT"): Operation.PUT_BUCKET_LOGGING,
    ("metadataAnnotationTable", "PUT"): Operation.UPDATE_BUCKET_METADATA_ANNOTATION_TABLE_CONFIGURATION,
    ("metadataConfiguration", "DELETE"): Operation.DELETE_BUCKET_METADATA_CONFIGURATION,
    ("metadataConfiguration", "GET"): Operation.GET_BUCKET_METADATA_CONFIGURATION,
    ("metadataConfiguration", "POST"): Operation.CREATE_BUCKET_METADATA_CONFIGURATION,
    ("metadataInventoryTable", "PUT"): Operation.UPDATE_BUCKET_METADATA_INVENTORY_TABLE_CONFIGURATION,
    ("metadataJournalTable", "PUT"): Operation.UPDATE_BUCKET_METADATA_JOURNAL_TABLE_CONFIGURATION,
    ("metadataTable", "DELETE"): Operation.DELETE_BUCKET_METADATA_TABLE_CONFIGURATION,
    ("metadataTable", "GET"): Operation.GET_BUCKET_METADATA_TABLE_CONFIGURATION,
    ("metadataTable", "POST"): Operation.CREATE_BUCKET_METADATA_TABLE_CONFIGURATION,
    ("metrics", "DELETE"): Operation.DELETE_BUCKET_METRICS_CONFIGURATION,
    ("metrics", "GET"): Operation.LIST_BUCKET_METRICS_CONFIGURATIONS,
    ("metrics", "PUT"): Operation.PUT_BUCKET_METRICS_CONFIGURATION,
    ("notification", "GET"): Operation.GET_BUCKET_NOTIFICATION_CONFIGURATION,
    ("notification", "PUT"): Operation.PUT_BUCKET_NOTIFICATION_CONFIGURATION,
    ("object-lock", "GET"): Operation.GET_OBJECT_LOCK_CONFIGURATION,
    ("object-lock", "PUT"): Operation.PUT_OBJECT_LOCK_CONFIGURATION,
    ("ownershipControls", "DELETE"): Operation.DELETE_BUCKET_OWNERSHIP_CONTROLS,
    ("ownershipControls", "GET"): Operation.GET_BUCKET_OWNERSHIP_CONTROLS,
    ("ownershipControls", "PUT"): Operation.PUT_BUCKET_OWNERSHIP_CONTROLS,
    ("policy", "DELETE"): Operation.DELETE_BUCKET_POLICY,
    ("policy", "GET"): Operation.GET_BUCKET_POLICY,
    ("policy", "PUT"): Operation.PUT_BUCKET_POLICY,
    ("policyStatus", "GET"): Operation.GET_BUCKET_POLICY_STATUS,
    ("publicAccessBlock", "DELETE"): Operation.DELETE_PUBLIC_ACCESS_BLOCK,
    ("publicAccessBlock", "GET"): Operation.GET_PUBLIC_ACCESS_BLOCK,
    ("publicAccessBlock", "PUT"): Operation.PUT_PUBLIC_ACCESS_BLOCK,
    ("replication", "DELETE"): Operation.DELETE_BUCKET_REPLICATION,
    ("replication", "GET"): Operation.GET_BUCKET_REPLICATION,
    ("replication", "PUT"): Operation.PUT_BUCKET_REPLICATION,
    ("requestPayment", "GET"): Operation.GET_BUCKET_REQUEST_PAYMENT,
    ("requestPayment", "PUT"): Operation.PUT_BUCKET_REQUEST_PAYMENT,
    ("session", "GET"): Operation.CREATE_SESSION,
    ("tagging", "DELETE"): Operation.DELETE_BUCKET_TAGGING,
    ("tagging", "GET"): Operation.GET_BUCKET_TAGGING,
    ("tagging", "PUT"): Operation.PUT_BUCKET_TAGGING,
    ("uploads", "GET"): Operation.LIST_MULTIPART_UPLOADS,
    ("versioning", "GET"): Operation.GET_BUCKET_VERSIONING,
    ("versioning", "PUT"): Operation.PUT_BUCKET_VERSIONING,
    ("versions", "GET"): Operation.LIST_OBJECT_VERSIONS,
    ("website", "DELETE"): Operation.DELETE_BUCKET_WEBSITE,
    ("website", "GET"): Operation.GET_BUCKET_WEBSITE,
    ("website", "PUT"): Operation.PUT_BUCKET_WEBSITE,
}

OBJECT: dict[tuple[str, str], Operation] = {
    ("acl", "GET"): Operation.GET_OBJECT_ACL,
    ("acl", "PUT"): Operation.PUT_OBJECT_ACL,
    ("annotation", "DELETE"): Operation.DELETE_OBJECT_ANNOTATION,
    ("annotation", "GET"): Operation.LIST_OBJECT_ANNOTATIONS,
    ("annotation", "PUT"): Operation.PUT_OBJECT_ANNOTATION,
    ("attributes", "GET"): Operation.GET_OBJECT_ATTRIBUTES,
    ("encryption", "PUT"): Operation.UPDATE_OBJECT_ENCRYPTION,
    ("legal-hold", "GET"): Operation.GET_OBJECT_LEGAL_HOLD,
    ("legal-hold", "PUT"): Operation.PUT_OBJECT_LEGAL_HOLD,
    ("renameObject", "PUT"): Operation.RENAME_OBJECT,
    ("restore", "POST"): Operation.RESTORE_OBJECT,
    ("retention", "GET"): Operation.GET_OBJECT_RETENTION,
    ("retention", "PUT"): Operation.PUT_OBJECT_RETENTION,
    ("select", "POST"): Operation.SELECT_OBJECT_CONTENT,
    ("tagging", "DELETE"): Operation.DELETE_OBJECT_TAGGING,
    ("tagging", "GET"): Operation.GET_OBJECT_TAGGING,
    ("tagging", "PUT"): Operation.PUT_OBJECT_TAGGING,
    ("torrent", "GET"): Operation.GET_OBJECT_TORRENT,
    ("uploads", "POST"): Operation.CREATE_MULTIPART_UPLOAD,
}

# The sub-resource alone asks for a list; with this parameter it asks for one of them.
NAMED: dict[Operation, tuple[str, Operation]] = {
    Operation.LIST_BUCKET_ANALYTICS_CONFIGURATIONS: ("id", Operation.GET_BUCKET_ANALYTICS_CONFIGURATION),
    Operation.LIST_BUCKET_INTELLIGENT_TIERING_CONFIGURATIONS: (
        "id",
        Operation.GET_BUCKET_INTELLIGENT_TIERING_CONFIGURATION,
    ),
    Operation.LIST_BUCKET_INVENTORY_CONFIGURATIONS: ("id", Operation.GET_BUCKET_INVENTORY_CONFIGURATION),
    Operation.LIST_BUCKET_METRICS_CONFIGURATIONS: ("id", Operation.GET_BUCKET_METRICS_CONFIGURATION),
    Operation.LIST_OBJECT_ANNOTATIONS: ("annotationName", Operation.GET_OBJECT_ANNOTATION),
}
