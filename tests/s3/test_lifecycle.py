"""Lifecycle configurations: set, given back, refused, announced in headers, and carried out.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html
"""

from __future__ import annotations

import datetime
import json
import time

import pytest

from tests.s3.conftest import make_boto_client
from tests.s3.expect import keys_of, s3_error
from tests.s3.wire import assert_error
from vaultaire.store import Store

PAST = datetime.datetime(2020, 2, 29, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
RULE = {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}


def put(s3, bucket, *rules, **arguments):
    return s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}, **arguments
    )


@pytest.mark.subset
def test_put_bucket_lifecycle_configuration_is_given_back(s3, bucket):
    rules = [
        {
            "ID": "one",
            "Status": "Enabled",
            "Filter": {
                "And": {"Prefix": "a/", "Tags": [{"Key": "k", "Value": "v"}], "ObjectSizeLessThan": 9}
            },
            "Expiration": {"Days": 3},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 2, "NewerNoncurrentVersions": 1},
        },
        {
            "ID": "two",
            "Status": "Disabled",
            "Prefix": "b/",
            "Expiration": {"Date": PAST},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 4},
        },
    ]
    put(s3, bucket, *rules)
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert found["Rules"] == rules
    assert found["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"


def test_put_bucket_lifecycle_configuration_names_rules_without_an_id(s3, bucket):
    bare = {name: value for name, value in RULE.items() if name != "ID"}
    put(s3, bucket, {**bare, "Filter": {"Prefix": "a"}}, bare)
    first, second = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert first["ID"] != second["ID"]
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [first, second]


def test_put_bucket_lifecycle_configuration_replaces_the_one_before(s3, bucket):
    put(s3, bucket, RULE, {**RULE, "ID": "other"})
    answer = put(s3, bucket, RULE, TransitionDefaultMinimumObjectSize="varies_by_storage_class")
    assert answer["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert found["Rules"] == [RULE]
    assert found["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"


def test_put_bucket_lifecycle_configuration_refuses_an_unknown_minimum_size(s3, root, bucket):
    headers = [("x-amz-transition-default-minimum-object-size", "huge")]
    answer = root.call("PUT", f"/{bucket}", query="lifecycle", headers=headers, body=b"<x/>")
    assert_error(answer, 400, "InvalidArgument")


@pytest.mark.subset
@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"Expiration": {"Days": 0}}, 400, "InvalidArgument"),
        ({"Expiration": {"Date": PAST + DAY / 2}}, 400, "InvalidArgument"),
        ({"ID": "x" * 256}, 400, "InvalidArgument"),
        ({"Status": "enabled"}, 400, "MalformedXML"),
        ({"Prefix": "a"}, 400, "MalformedXML"),
        ({"Expiration": {}}, 400, "MalformedXML"),
        ({"Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}, 501, "NotImplemented"),
    ],
)
def test_put_bucket_lifecycle_configuration_refuses_what_it_would_not_do(s3, bucket, change, status, code):
    put(s3, bucket, RULE)
    with s3_error(status, code):
        put(s3, bucket, {**RULE, "ID": "other"}, {**RULE, **change})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [RULE]


def test_put_bucket_lifecycle_configuration_of_a_body_with_a_wrong_checksum_changes_nothing(root, s3, bucket):
    body = b"<LifecycleConfiguration/>"
    answer = root.call(
        "PUT", f"/{bucket}", query="lifecycle", headers=[("x-amz-checksum-crc32", "AAAAAA==")], body=body
    )
    assert_error(answer, 400, "BadDigest")
    with s3_error(404, "NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_delete_bucket_lifecycle(s3, bucket):
    put(s3, bucket, RULE)
    for _ in range(2):
        s3.delete_bucket_lifecycle(Bucket=bucket)
        with s3_error(404, "NoSuchLifecycleConfiguration"):
            s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_a_lifecycle_configuration_goes_with_its_bucket(s3, bucket):
    put(s3, bucket, RULE)
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    with s3_error(404, "NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_lifecycle_of_a_bucket_that_is_not_there(s3):
    name = "no-such-bucket-here"
    with s3_error(404, "NoSuchBucket"):
        put(s3, name, RULE)
    with s3_error(404, "NoSuchBucket"):
        s3.get_bucket_lifecycle_configuration(Bucket=name)
    with s3_error(404, "NoSuchBucket"):
        s3.delete_bucket_lifecycle(Bucket=name)


def test_lifecycle_belongs_to_the_owner_and_to_keys_that_write(server, s3, bucket):
    put(s3, bucket, RULE)
    for role, tenant in (("read-only", "root"), ("admin", "stranger")):
        key = json.loads(server.cli("key", "create", "--tenant", tenant, "--role", role, "--json").stdout)
        client = make_boto_client(server, access_key=key["access_key"], secret_key=key["secret_key"])
        with s3_error(403, "AccessDenied"):
            put(client, bucket, {**RULE, "ID": "x"})
        with s3_error(403, "AccessDenied"):
            client.delete_bucket_lifecycle(Bucket=bucket)
        client.close()
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [RULE]


# -- announced


def expiry(modified: datetime.datetime, days: int, rule_id: str = "r") -> str:
    midnight = modified.replace(hour=0, minute=0, second=0) + (days + 1) * DAY
    return f'expiry-date="{midnight:%a, %d %b %Y} 00:00:00 GMT", rule-id="{rule_id}"'


@pytest.mark.subset
def test_the_expiration_is_announced_where_an_object_is_written_and_read(s3, bucket):
    put(s3, bucket, {**RULE, "Filter": {"Prefix": "a"}, "Expiration": {"Days": 10}})
    written = s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    modified = s3.head_object(Bucket=bucket, Key="a")["LastModified"]
    wanted = expiry(modified, 10)
    assert written["Expiration"] == wanted
    assert s3.head_object(Bucket=bucket, Key="a")["Expiration"] == wanted
    assert s3.get_object(Bucket=bucket, Key="a")["Expiration"] == wanted
    copied = s3.copy_object(Bucket=bucket, Key="a2", CopySource=f"{bucket}/a")
    assert copied["Expiration"] == expiry(copied["CopyObjectResult"]["LastModified"], 10)
    assert "Expiration" not in s3.put_object(Bucket=bucket, Key="b", Body=b"x")
    s3.delete_bucket_lifecycle(Bucket=bucket)
    assert "Expiration" not in s3.head_object(Bucket=bucket, Key="a")


def test_the_end_of_an_upload_and_of_its_object_are_announced(s3, bucket):
    put(s3, bucket, {**RULE, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}})
    where = {"Bucket": bucket, "Key": "k"}
    begun = s3.create_multipart_upload(**where)
    now = begun["ResponseMetadata"]["HTTPHeaders"]
    assert begun["AbortRuleId"] == "r"
    today = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert begun["AbortDate"] in (today + 3 * DAY, today + 2 * DAY), now  # midnight may have passed meanwhile
    where["UploadId"] = begun["UploadId"]
    listed = s3.list_parts(**where)
    assert (listed["AbortDate"], listed["AbortRuleId"]) == (begun["AbortDate"], begun["AbortRuleId"])
    etag = s3.upload_part(**where, PartNumber=1, Body=b"x")["ETag"]
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    assert done["Expiration"] == expiry(s3.head_object(Bucket=bucket, Key="k")["LastModified"], 1)


# -- carried out


@pytest.mark.subset
def test_lifecycle_run_expires_what_is_due_while_the_server_runs(server, s3, bucket, put_many):
    put_many([f"old/{n:04d}" for n in range(250)])
    put_many(["new", "older"])
    put(
        s3,
        bucket,
        {**RULE, "Filter": {"Prefix": "old/"}, "Expiration": {"Date": PAST}},
        {**RULE, "ID": "later"},
    )
    report = json.loads(server.cli("lifecycle", "run", "--json").stdout)
    # The server's own pass may have come first.
    assert 0 <= report["objects"] <= 250
    assert keys_of(s3, bucket) == ["new", "older"]
    assert "expired 0 objects" in server.cli("lifecycle", "run").stdout


def test_the_maintenance_process_expires_what_is_due_by_itself(new_server):
    server = new_server().start()
    client = make_boto_client(server)
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="k", Body=b"x")
    put(client, "bucket", {**RULE, "Expiration": {"Date": PAST}})
    server.stop()
    # As if its last pass had been long ago.
    with Store.open(server.data, kind="command") as store:
        store.kv.commit(lambda txn: txn.delete("srv.settings", b"lifecycle"))
    server.start()
    deadline = time.monotonic() + 20
    while keys_of(client, "bucket"):
        assert time.monotonic() < deadline, server.log_text()[-4000:]
        time.sleep(0.05)
    client.close()
