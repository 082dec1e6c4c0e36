"""Configurations of which only S3's default exists: writing that default back succeeds, anything else is a clear no.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLogging.html and its neighbours.
"""

from __future__ import annotations

import pytest

from tests.s3.wire import assert_error

ACCEPTED = {
    "logging": "<BucketLoggingStatus/>",
    "notification": "<NotificationConfiguration/>",
    "requestPayment": "<RequestPaymentConfiguration><Payer>BucketOwner</Payer></RequestPaymentConfiguration>",
    "accelerate": "<AccelerateConfiguration><Status>Suspended</Status></AccelerateConfiguration>",
}
REFUSED = {
    "logging": "<BucketLoggingStatus><LoggingEnabled><TargetBucket>b</TargetBucket></LoggingEnabled></BucketLoggingStatus>",
    "notification": "<NotificationConfiguration><EventBridgeConfiguration/></NotificationConfiguration>",
    "requestPayment": "<RequestPaymentConfiguration><Payer>Requester</Payer></RequestPaymentConfiguration>",
    "accelerate": "<AccelerateConfiguration><Status>Enabled</Status></AccelerateConfiguration>",
    "website": "<WebsiteConfiguration/>",
    "replication": "<ReplicationConfiguration/>",
    "analytics": "<AnalyticsConfiguration/>",
    "inventory": "<InventoryConfiguration/>",
    "metrics": "<MetricsConfiguration/>",
    "intelligent-tiering": "<IntelligentTieringConfiguration/>",
}


@pytest.mark.subset
@pytest.mark.parametrize("name", ACCEPTED)
def test_the_default_may_be_written_back(root, bucket, name):
    before = root.call("GET", f"/{bucket}", query=name)
    assert before.status == 200
    assert root.call("PUT", f"/{bucket}", query=name, body=ACCEPTED[name].encode()).status == 200
    assert root.call("GET", f"/{bucket}", query=name).body == before.body


@pytest.mark.subset
@pytest.mark.parametrize("name", REFUSED)
def test_any_other_value_is_not_implemented_and_changes_nothing(root, bucket, name):
    before = root.call("GET", f"/{bucket}", query=name)
    query = f"{name}&id=1" if name in ("analytics", "inventory", "metrics", "intelligent-tiering") else name
    assert_error(
        root.call("PUT", f"/{bucket}", query=query, body=REFUSED[name].encode()), 501, "NotImplemented"
    )
    after = root.call("GET", f"/{bucket}", query=name)
    assert (after.status, after.code) == (before.status, before.code)


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("body", [b"<Other/>", b"not xml", b"<RequestPaymentConfiguration/>"])
def test_a_document_of_another_kind_is_malformed(root, bucket, name, body):
    answer = root.call("PUT", f"/{bucket}", query=name, body=body)
    assert_error(answer, 400, "MalformedXML")


@pytest.mark.parametrize("name", ["analytics", "inventory", "metrics", "intelligent-tiering"])
def test_one_of_no_configurations_is_not_found(root, bucket, name):
    for method in ("GET", "DELETE"):
        answer = root.call(method, f"/{bucket}", query=f"{name}&id=1")
        assert_error(answer, 404, "NoSuchConfiguration")
    assert root.call("GET", f"/{bucket}", query=name).text("IsTruncated") == "false"


@pytest.mark.parametrize(("name", "code"), [("website", "NoSuchWebsiteConfiguration"),
                                            ("replication", "ReplicationConfigurationNotFoundError")])  # fmt: skip
def test_what_cannot_be_set_can_be_deleted(root, bucket, name, code):
    assert root.call("DELETE", f"/{bucket}", query=name).status == 204
    assert_error(root.call("GET", f"/{bucket}", query=name), 404, code)


@pytest.mark.parametrize("name", [*ACCEPTED, "website"])
def test_a_bucket_that_is_not_there_has_no_configurations(root, name):
    for method in ("GET", "PUT"):
        body = ACCEPTED.get(name, "").encode() if method == "PUT" else b""
        assert_error(root.call(method, "/no-such-bucket-here", query=name, body=body), 404, "NoSuchBucket")
