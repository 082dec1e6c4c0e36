"""What is not built answers 501, or S3's documented answer for "none is set"; never the plain operation.

A server that let `PUT /bucket/key?tagging` fall through would replace the object by its tags.
"""

from __future__ import annotations

import pytest

from tests.s3.expect import keys_of, read
from tests.s3.wire import assert_error

NOT_SET = {
    "policy": "NoSuchBucketPolicy",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "tagging": "NoSuchTagSet",
    "cors": "NoSuchCORSConfiguration",
    "encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "website": "NoSuchWebsiteConfiguration",
    "replication": "ReplicationConfigurationNotFoundError",
    "object-lock": "ObjectLockConfigurationNotFoundError",
    "ownershipControls": "OwnershipControlsNotFoundError",
    "publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
    "policyStatus": "NoSuchBucketPolicy",
}
EMPTY = [
    *["acl", "versioning", "notification", "logging", "requestPayment", "accelerate"],
    *["inventory", "analytics", "metrics", "intelligent-tiering"],  # lists of configurations
]
OTHER = ["abac", "metadataTable", "session"]


@pytest.mark.subset
@pytest.mark.parametrize("name", [*NOT_SET, *EMPTY, *OTHER])
def test_get_bucket_subresource_is_never_a_listing(root, bucket, name):
    root.call("PUT", f"/{bucket}/the-key")
    answer = root.call("GET", f"/{bucket}", query=name)
    assert b"the-key" not in answer.body
    if answer.status == 404:
        assert_error(answer, 404, NOT_SET[name])
    elif answer.status == 200:
        assert name in EMPTY
        assert answer.headers["content-type"] == "application/xml"
    else:
        assert_error(answer, 501, "NotImplemented")


def test_get_bucket_versioning_of_a_bucket_without_versions_is_empty(s3, bucket):
    answer = s3.get_bucket_versioning(Bucket=bucket)
    assert "Status" not in answer


@pytest.mark.parametrize("name", [*NOT_SET, *EMPTY, *OTHER, "no-such-thing"])
def test_put_and_delete_bucket_subresource_leave_the_bucket(root, s3, bucket, name):
    root.call("PUT", f"/{bucket}/the-key")
    for method, body in (("PUT", b"<Configuration/>"), ("DELETE", b"")):
        answer = root.call(method, f"/{bucket}", query=name, body=body)
        if name != "no-such-thing":
            assert answer.status in (200, 204, 400, 404, 405, 409, 501), answer
    assert keys_of(s3, bucket) == ["the-key"]


@pytest.mark.subset
@pytest.mark.parametrize(
    "name",
    [
        "acl",
        "tagging",
        "retention",
        "legal-hold",
        "torrent",
        "attributes",
        "restore",
        "select",
        "annotation",
        "renameObject",
    ],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "GET", "HEAD"])
def test_object_subresource_is_never_the_plain_operation(root, s3, bucket, method, name):
    content = b"the content of the object"
    root.call("PUT", f"/{bucket}/k", body=content)
    body = b"<Other/>" if method in ("PUT", "POST") else b""
    answer = root.call(method, f"/{bucket}/k", query=name, body=body)
    assert content not in answer.body
    assert answer.status in (200, 204, 400, 403, 404, 405, 501), answer
    assert read(s3, bucket, "k") == content


@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", "/k"), ("POST", "/k"), ("TRACE", "/k"), ("PUT", None), ("POST", None)]
)
def test_an_unknown_operation_is_refused(root, s3, bucket, method, path):
    root.call("PUT", f"/{bucket}/k", body=b"content")
    answer = root.call(method, f"/{bucket}{path}" if path else "/", body=b"")
    assert_error(
        answer, answer.status, "MethodNotAllowed", "NotImplemented", "InvalidRequest", "MalformedPOSTRequest"
    )
    assert answer.status in (400, 405, 501)
    assert read(s3, bucket, "k") == b"content"


def test_versioned_reads_of_an_unversioned_object(root, bucket):
    root.call("PUT", f"/{bucket}/k", body=b"x")
    assert root.call("GET", f"/{bucket}/k", query="versionId=null").body == b"x"
    answer = root.call("GET", f"/{bucket}/k", query="versionId=3sL4kqtJlcpXroDTDmJ-rmSpXd3dIbrHY")
    assert_error(answer, answer.status, "NoSuchVersion", "InvalidArgument")
    assert answer.status in (400, 404)


def test_parameters_without_meaning_are_ignored(root, bucket):
    assert root.call("PUT", f"/{bucket}/k", query="x-id=PutObject", body=b"x").status == 200
    for query in ("x-id=GetObject", "unheard-of=1", "v=20260101"):
        assert root.call("GET", f"/{bucket}/k", query=query).body == b"x"
