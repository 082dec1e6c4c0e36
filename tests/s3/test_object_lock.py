"""Object Lock, as an attacker with every key but the disk would try it: a locked version stays, on every path.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from __future__ import annotations

import datetime
import json
import shutil
import time
from contextlib import ExitStack

import pytest

from tests.s3.conftest import make_boto_client, new_bucket_name
from tests.s3.expect import keys_of, read, s3_error
from tests.s3.keys import new_key
from tests.s3.wire import assert_error

DENIED = "Access Denied because object protected by object lock."
FAR = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
FARTHER = datetime.datetime(2101, 1, 1, 12, 30, 15, tzinfo=datetime.UTC)
NEARER = datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC)
LOCKS = {
    "governance": {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": FAR},
    "compliance": {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": FAR},
    "legal hold": {"ObjectLockLegalHoldStatus": "ON"},
    "all": {
        "ObjectLockMode": "COMPLIANCE",
        "ObjectLockRetainUntilDate": FAR,
        "ObjectLockLegalHoldStatus": "ON",
    },
}


@pytest.fixture
def locked(s3, request) -> str:
    """A bucket made with Object Lock."""
    name = new_bucket_name(request.node.originalname)
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def put(s3, locked):
    """Puts an object with a lock of LOCKS; its version id."""

    def put(lock: str | None = None, key: str = "k", **arguments) -> str:
        asked = {**(LOCKS[lock] if lock else {}), **arguments}
        return s3.put_object(Bucket=locked, Key=key, Body=b"precious", **asked)["VersionId"]

    return put


@pytest.fixture(scope="module")
def writer(server):
    """boto3 as a key that may write but is no admin."""
    with ExitStack() as stack:
        client = make_boto_client(server, **stack.enter_context(new_key(server, "read-write")))
        stack.callback(client.close)
        yield client


def retain(s3, bucket, version, mode, until, key="k", **rest):
    retention = {"Mode": mode, "RetainUntilDate": until} if mode else {}
    s3.put_object_retention(Bucket=bucket, Key=key, VersionId=version, Retention=retention, **rest)


def retention_of(s3, bucket, version, key="k"):
    found = s3.get_object_retention(Bucket=bucket, Key=key, VersionId=version)["Retention"]
    return found["Mode"], found["RetainUntilDate"]


def hold(s3, bucket, version, status, key="k"):
    s3.put_object_legal_hold(Bucket=bucket, Key=key, VersionId=version, LegalHold={"Status": status})


def default(mode: str, **period: int) -> dict:
    return {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": mode, **period}}}


# -- the configuration of a bucket


@pytest.mark.subset
def test_create_bucket_with_object_lock_enables_versioning_for_good(s3, locked):
    assert s3.get_bucket_versioning(Bucket=locked)["Status"] == "Enabled"
    found = s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"]
    assert found == {"ObjectLockEnabled": "Enabled"}
    with s3_error(409, "InvalidBucketState"):
        s3.put_bucket_versioning(Bucket=locked, VersioningConfiguration={"Status": "Suspended"})
    s3.put_bucket_versioning(Bucket=locked, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=locked)["Status"] == "Enabled"


@pytest.mark.subset
def test_object_lock_is_enabled_later_only_on_a_versioned_bucket(s3, bucket):
    with s3_error(404, "ObjectLockConfigurationNotFoundError"):
        s3.get_object_lock_configuration(Bucket=bucket)
    wanted = default("GOVERNANCE", Days=1)
    for status in (None, "Suspended"):
        if status:
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        with s3_error(409, "InvalidBucketState"):
            s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=wanted)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=wanted)
    assert s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"] == wanted
    with s3_error(409, "InvalidBucketState"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})


def test_put_object_lock_configuration_replaces_the_rule_and_never_turns_it_off(s3, locked):
    for wanted in (default("COMPLIANCE", Years=2), default("GOVERNANCE", Days=3)):
        s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=wanted)
        assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == wanted
    for refused, code in (
        (default("GOVERNANCE", Days=1, Years=1), "MalformedXML"),
        (default("governance", Days=1), "MalformedXML"),
        (default("GOVERNANCE", Days=0), "InvalidRetentionPeriod"),
        (default("GOVERNANCE", Years=-1), "InvalidRetentionPeriod"),
        ({"ObjectLockEnabled": "Disabled"}, "MalformedXML"),
        ({}, "MalformedXML"),
    ):
        with s3_error(400, code):
            s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=refused)
    plain = {"ObjectLockEnabled": "Enabled"}
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=plain)
    assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == plain


def test_delete_of_the_object_lock_configuration_is_no_operation(root, locked):
    assert_error(root.call("DELETE", f"/{locked}", query="object-lock"), 405, "MethodNotAllowed")


def test_without_object_lock_nothing_of_it_is_accepted(root, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for arguments in LOCKS.values():
        with s3_error(400, "InvalidRequest"):
            s3.put_object(Bucket=bucket, Key="n", Body=b"x", **arguments)
        with s3_error(400, "InvalidRequest"):
            s3.copy_object(Bucket=bucket, Key="n", CopySource={"Bucket": bucket, "Key": "k"}, **arguments)
        with s3_error(400, "InvalidRequest"):
            s3.create_multipart_upload(Bucket=bucket, Key="n", **arguments)
    for attempt in (
        lambda: retain(s3, bucket, "null", "GOVERNANCE", FAR),
        lambda: hold(s3, bucket, "null", "ON"),
        lambda: s3.get_object_retention(Bucket=bucket, Key="k"),
        lambda: s3.get_object_legal_hold(Bucket=bucket, Key="k"),
    ):
        with s3_error(400, "InvalidRequest"):
            attempt()
    assert keys_of(s3, bucket) == ["k"]


def test_a_refused_lock_costs_no_upload(root, bucket):
    """The answer comes although the body does not: nothing of it was asked for."""
    headers = [("x-amz-object-lock-legal-hold", "ON"), ("Expect", "100-continue")]
    request = root.sign("PUT", f"/{bucket}/k", headers=headers, payload="UNSIGNED-PAYLOAD", length=1000)
    with root.connect() as connection:
        connection.send(request.head())
        assert_error(connection.answer("PUT"), 400, "InvalidRequest")


# -- what new versions get


@pytest.mark.subset
@pytest.mark.parametrize("lock", LOCKS)
def test_put_object_with_a_lock_shows_it(s3, locked, put, lock):
    version = put(lock)
    for answer in (
        s3.head_object(Bucket=locked, Key="k"),
        s3.get_object(Bucket=locked, Key="k", VersionId=version),
    ):
        assert {name: answer.get(name) for name in LOCKS["all"]} == {
            name: LOCKS[lock].get(name) for name in LOCKS["all"]
        }


@pytest.mark.parametrize(
    "headers",
    [
        {"mode": "COMPLIANCE"},
        {"retain-until-date": "2100-01-01T00:00:00Z"},
        {"mode": "compliance", "retain-until-date": "2100-01-01T00:00:00Z"},
        {"mode": "COMPLIANCE", "retain-until-date": "2001-01-01T00:00:00Z"},
        {"mode": "COMPLIANCE", "retain-until-date": "1901-01-01T00:00:00Z"},
        {"mode": "COMPLIANCE", "retain-until-date": "next year"},
        {"mode": "COMPLIANCE", "retain-until-date": ""},
        {"legal-hold": "on"},
        {"legal-hold": ""},
    ],
)
def test_put_object_refuses_half_and_past_locks(root, locked, headers):
    given = [(f"x-amz-object-lock-{name}", value) for name, value in headers.items()]
    assert_error(root.call("PUT", f"/{locked}/k", headers=given, body=b"x"), 400, "InvalidArgument")
    assert_error(root.call("POST", f"/{locked}/k", query="uploads", headers=given), 400, "InvalidArgument")
    assert root.call("HEAD", f"/{locked}/k").status == 404


@pytest.mark.subset
@pytest.mark.parametrize("how", ["put", "copy", "multipart"])
def test_default_retention_is_given_to_every_new_version(s3, locked, how):
    source = s3.put_object(Bucket=locked, Key="source", Body=b"x")["VersionId"]
    with s3_error(404, "NoSuchObjectLockConfiguration"):
        retention_of(s3, locked, source, "source")
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=default("COMPLIANCE", Days=2))
    before = datetime.datetime.now(datetime.UTC)
    version = make(s3, locked, how)
    after = datetime.datetime.now(datetime.UTC)
    mode, until = retention_of(s3, locked, version)
    assert mode == "COMPLIANCE"
    slack = datetime.timedelta(milliseconds=2)
    assert before - slack <= until - datetime.timedelta(days=2) <= after + slack
    assert_stays(s3, locked, version)
    s3.delete_object(Bucket=locked, Key="source", VersionId=source)  # it came before the rule


def make(s3, bucket, how, key="k", **arguments) -> str:
    """A new version of `key`, from an object `source` if it is a copy."""
    target = {"Bucket": bucket, "Key": key}
    if how == "put":
        return s3.put_object(**target, Body=b"x", **arguments)["VersionId"]
    if how == "copy":
        source = {"Bucket": bucket, "Key": "source"}
        return s3.copy_object(**target, CopySource=source, **arguments)["VersionId"]
    upload = {**target, "UploadId": s3.create_multipart_upload(**target, **arguments)["UploadId"]}
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    return s3.complete_multipart_upload(**upload, MultipartUpload=parts)["VersionId"]


@pytest.mark.parametrize("how", ["put", "copy", "multipart"])
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_of_its_own_is_kept_whatever_makes_the_version(s3, locked, how, lock):
    s3.put_object(Bucket=locked, Key="source", Body=b"x")
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=default("GOVERNANCE", Days=1))
    version = make(s3, locked, how, **LOCKS[lock])
    head = s3.head_object(Bucket=locked, Key="k", VersionId=version)
    assert {name: head.get(name) for name in LOCKS[lock]} == LOCKS[lock]
    if lock == "legal hold":
        assert head["ObjectLockMode"] == "GOVERNANCE"
    assert_stays(s3, locked, version, bypass=lock != "governance")


def test_a_copy_does_not_take_the_lock_of_its_source(s3, locked, put):
    put("all", key="source")
    version = make(s3, locked, "copy")
    head = s3.head_object(Bucket=locked, Key="k")
    assert not {*LOCKS["all"]} & {*head}
    s3.delete_object(Bucket=locked, Key="k", VersionId=version)


# -- a locked version stays


def assert_stays(s3, bucket, version, key="k", *, bypass: bool = True) -> None:
    """No way to remove it succeeds, and it can still be read."""
    for extra in ({}, {"BypassGovernanceRetention": True}) if bypass else ({},):
        with s3_error(403, "AccessDenied") as caught:
            s3.delete_object(Bucket=bucket, Key=key, VersionId=version, **extra)
        assert caught.value.response["Error"]["Message"] == DENIED
        objects = [{"Key": key, "VersionId": version}]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects}, **extra)
        assert "Deleted" not in answer
        (failed,) = answer["Errors"]
        assert (failed["Code"], failed["Message"], failed["VersionId"]) == ("AccessDenied", DENIED, version)
    with s3_error(409, "BucketNotEmpty"):
        s3.delete_bucket(Bucket=bucket)
    assert s3.head_object(Bucket=bucket, Key=key, VersionId=version)["VersionId"] == version


@pytest.mark.subset
@pytest.mark.parametrize("lock", ["compliance", "legal hold", "all"])
def test_nobody_removes_a_locked_version(s3, writer, locked, put, lock):
    version = put(lock)
    for client in (s3, writer):
        assert_stays(client, locked, version)
    s3.put_object(Bucket=locked, Key="k", Body=b"over it")
    marker = s3.delete_object(Bucket=locked, Key="k")["VersionId"]
    for client in (s3, writer):
        assert_stays(client, locked, version)
    s3.delete_object(Bucket=locked, Key="k", VersionId=marker)
    assert read(s3, locked, "k", VersionId=version) == b"precious"


@pytest.mark.subset
def test_governance_is_bypassed_by_an_admin_who_says_so_and_by_nobody_else(server, s3, writer, locked, put):
    version = put("governance")
    assert_stays(writer, locked, version)
    assert_stays(s3, locked, version, bypass=False)
    for text in ("false", "", "1"):
        headers = {"x-amz-bypass-governance-retention": text}
        s3.meta.events.register_first("before-sign.s3.DeleteObject", add := adding(headers))
        try:
            with s3_error(403, "AccessDenied"):
                s3.delete_object(Bucket=locked, Key="k", VersionId=version)
        finally:
            s3.meta.events.unregister("before-sign.s3.DeleteObject", add)
    with new_key(server, "admin", tenant="another") as key:
        stranger = make_boto_client(server, **key)
        with s3_error(403, "AccessDenied"):
            stranger.delete_object(Bucket=locked, Key="k", VersionId=version, BypassGovernanceRetention=True)
        stranger.close()
    with new_key(server, "admin") as key:
        admin = make_boto_client(server, **key)
        admin.delete_object(Bucket=locked, Key="k", VersionId=version, BypassGovernanceRetention=True)
        admin.close()
    with s3_error(404, "NoSuchVersion"):
        s3.get_object(Bucket=locked, Key="k", VersionId=version)


def adding(headers):
    def add(request, **_) -> None:
        for name, value in headers.items():
            request.headers[name] = value

    return add


def test_delete_objects_removes_what_is_free_and_names_what_is_not(s3, locked, put):
    kept, free = put("compliance", "kept"), put(None, "free")
    bypassed = put("governance", "bypassed")
    objects = [
        {"Key": k, "VersionId": v} for k, v in (("kept", kept), ("free", free), ("bypassed", bypassed))
    ]
    answer = s3.delete_objects(
        Bucket=locked, Delete={"Objects": objects, "Quiet": False}, BypassGovernanceRetention=True
    )
    assert [row["Key"] for row in answer["Deleted"]] == ["free", "bypassed"]
    assert [row["Key"] for row in answer["Errors"]] == ["kept"]


def test_a_version_is_free_when_its_time_has_passed(s3, locked):
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1.5)
    version = s3.put_object(
        Bucket=locked, Key="k", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until
    )["VersionId"]
    with s3_error(403, "AccessDenied"):
        s3.delete_object(Bucket=locked, Key="k", VersionId=version)
    time.sleep(max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds()) + 0.01)
    s3.delete_object(Bucket=locked, Key="k", VersionId=version)
    s3.delete_bucket(Bucket=locked)


def test_a_null_version_from_before_is_locked_like_any_other(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=default("GOVERNANCE", Days=1))
    retain(s3, bucket, "null", "COMPLIANCE", FAR)
    assert_stays(s3, bucket, "null")
    s3.put_object(Bucket=bucket, Key="k", Body=b"new")
    assert_stays(s3, bucket, "null")
    assert read(s3, bucket, "k", VersionId="null") == b"old"


def test_a_lock_survives_a_restart_and_a_rebuild(new_server):
    server = new_server().start()
    s3 = make_boto_client(server)
    s3.create_bucket(Bucket="bucket", ObjectLockEnabledForBucket=True)
    rule = default("COMPLIANCE", Years=1)
    s3.put_object_lock_configuration(Bucket="bucket", ObjectLockConfiguration=rule)
    version = s3.put_object(Bucket="bucket", Key="k", Body=b"x" * 10_000, **LOCKS["all"])["VersionId"]
    server.stop()
    shutil.rmtree(server.data / "meta")
    server.start()
    assert s3.get_object_lock_configuration(Bucket="bucket")["ObjectLockConfiguration"] == rule
    assert_stays(s3, "bucket", version)
    assert retention_of(s3, "bucket", version) == ("COMPLIANCE", FAR)


# -- retention


@pytest.mark.subset
@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
def test_put_object_retention_prolongs_for_everybody(s3, writer, locked, put, mode):
    version = put()
    retain(writer, locked, version, mode, FAR)
    assert retention_of(s3, locked, version) == (mode, FAR)
    retain(writer, locked, version, mode, FARTHER)
    assert retention_of(s3, locked, version) == (mode, FARTHER)
    retain(writer, locked, version, mode, FARTHER)
    assert_stays(writer, locked, version)


@pytest.mark.subset
def test_compliance_is_never_shortened_changed_or_taken_off(s3, writer, locked, put):
    version = put("compliance")
    for client in (s3, writer):
        for mode, until in (
            ("COMPLIANCE", NEARER),
            ("GOVERNANCE", FAR),
            ("GOVERNANCE", FARTHER),
            (None, None),
        ):
            for extra in ({}, {"BypassGovernanceRetention": True}):
                with s3_error(403, "AccessDenied"):
                    retain(client, locked, version, mode, until, **extra)
    assert retention_of(s3, locked, version) == ("COMPLIANCE", FAR)


@pytest.mark.subset
def test_governance_is_shortened_changed_and_taken_off_only_with_the_bypass(s3, writer, locked, put):
    version = put("governance")
    bypass = {"BypassGovernanceRetention": True}
    weaker = (("GOVERNANCE", NEARER), ("COMPLIANCE", FAR), ("COMPLIANCE", NEARER), (None, None))
    for mode, until in weaker:
        with s3_error(403, "AccessDenied"):
            retain(s3, locked, version, mode, until)
        with s3_error(403, "AccessDenied"):
            retain(writer, locked, version, mode, until, **bypass)
    assert retention_of(s3, locked, version) == ("GOVERNANCE", FAR)
    retain(s3, locked, version, "GOVERNANCE", NEARER, **bypass)
    assert retention_of(s3, locked, version) == ("GOVERNANCE", NEARER)
    retain(s3, locked, version, None, None, **bypass)
    with s3_error(404, "NoSuchObjectLockConfiguration"):
        retention_of(s3, locked, version)
    retain(s3, locked, version, "GOVERNANCE", FAR)
    retain(s3, locked, version, "COMPLIANCE", NEARER, **bypass)
    assert_stays(s3, locked, version)


def test_put_object_retention_must_be_in_the_future(s3, locked, put):
    version = put()
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    with s3_error(400, "InvalidArgument"):
        retain(s3, locked, version, "GOVERNANCE", past)
    with s3_error(400, "MalformedXML"):
        retain(s3, locked, version, "governance", FAR)
    with s3_error(404, "NoSuchObjectLockConfiguration"):
        retention_of(s3, locked, version)


def test_retention_and_hold_of_what_is_not_there(root, s3, locked, put):
    put()
    marker = s3.delete_object(Bucket=locked, Key="k")["VersionId"]
    unknown = "00" * 7 + "01" + "ab" * 8
    for sub, body in (
        (
            "retention",
            b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2100-01-01T00:00:00Z</RetainUntilDate></Retention>",
        ),
        ("legal-hold", b"<LegalHold><Status>ON</Status></LegalHold>"),
    ):
        for method, sent in (("PUT", body), ("GET", b"")):
            for version, status, code in (
                ("", 404, "NoSuchKey"),
                (f"&versionId={marker}", 405, "MethodNotAllowed"),
                (f"&versionId={unknown}", 404, "NoSuchVersion"),
                ("&versionId=malformed", 400, "InvalidArgument"),
            ):
                answer = root.call(method, f"/{locked}/k", query=sub + version, body=sent)
                assert_error(answer, status, code)
        assert_error(root.call("PUT", f"/{locked}/k", query=sub), 400, "MissingRequestBodyError")
        assert_error(root.call("DELETE", f"/{locked}/k", query=sub), 405, "MethodNotAllowed")


def test_retention_of_an_older_version_leaves_the_current_one(s3, locked, put):
    old, new = put(), put()
    retain(s3, locked, old, "COMPLIANCE", FAR)
    assert_stays(s3, locked, old)
    with s3_error(404, "NoSuchObjectLockConfiguration"):
        retention_of(s3, locked, new)
    s3.delete_object(Bucket=locked, Key="k", VersionId=new)
    assert_stays(s3, locked, old)


def test_put_object_retention_without_a_version_means_the_current_one(s3, locked, put):
    put()
    version = put()
    s3.put_object_retention(Bucket=locked, Key="k", Retention={"Mode": "COMPLIANCE", "RetainUntilDate": FAR})
    assert retention_of(s3, locked, version) == ("COMPLIANCE", FAR)


def test_changing_a_lock_changes_nothing_else(s3, locked):
    version = s3.put_object(
        Bucket=locked, Key="k", Body=b"x", Metadata={"a": "b"}, ContentType="text/x", CacheControl="no-store"
    )["VersionId"]
    before = s3.head_object(Bucket=locked, Key="k")
    retain(s3, locked, version, "COMPLIANCE", FAR)
    hold(s3, locked, version, "ON")
    after = s3.head_object(Bucket=locked, Key="k")
    for name in (
        "VersionId",
        "ETag",
        "LastModified",
        "ContentLength",
        "Metadata",
        "ContentType",
        "CacheControl",
    ):
        assert after[name] == before[name]


# -- legal hold


@pytest.mark.subset
def test_legal_hold_holds_until_it_is_lifted_and_no_bypass_helps(s3, writer, locked, put):
    version = put()
    with s3_error(404, "NoSuchObjectLockConfiguration"):
        s3.get_object_legal_hold(Bucket=locked, Key="k", VersionId=version)
    hold(writer, locked, version, "ON")
    found = s3.get_object_legal_hold(Bucket=locked, Key="k", VersionId=version)
    assert found["LegalHold"] == {"Status": "ON"}
    assert_stays(s3, locked, version)
    hold(writer, locked, version, "OFF")
    assert s3.head_object(Bucket=locked, Key="k")["ObjectLockLegalHoldStatus"] == "OFF"
    found = s3.get_object_legal_hold(Bucket=locked, Key="k", VersionId=version)
    assert found["LegalHold"] == {"Status": "OFF"}
    s3.delete_object(Bucket=locked, Key="k", VersionId=version)


def test_lifting_a_hold_leaves_the_retention(s3, locked, put):
    version = put("all")
    hold(s3, locked, version, "OFF")
    assert retention_of(s3, locked, version) == ("COMPLIANCE", FAR)
    assert_stays(s3, locked, version)


def test_put_object_legal_hold_refuses_other_words(s3, locked, put):
    version = put()
    with s3_error(400, "MalformedXML"):
        hold(s3, locked, version, "abc")


# -- roles and tenants


def test_read_only_keys_see_locks_and_change_none(server, s3, locked, put):
    version = put("governance")
    with new_key(server, "read-only") as key:
        reader = make_boto_client(server, **key)
        assert retention_of(reader, locked, version) == ("GOVERNANCE", FAR)
        for attempt in (
            lambda: retain(reader, locked, version, "GOVERNANCE", FARTHER),
            lambda: hold(reader, locked, version, "ON"),
            lambda: reader.put_object_lock_configuration(
                Bucket=locked, ObjectLockConfiguration=default("GOVERNANCE", Days=1)
            ),
        ):
            with s3_error(403, "AccessDenied"):
                attempt()
        reader.close()
    assert retention_of(s3, locked, version) == ("GOVERNANCE", FAR)


# -- policies


def deny(s3, bucket, *actions, principal="*", effect="Deny", **conditions):
    statement = {
        "Effect": effect,
        "Principal": principal,
        "Action": actions,
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    if conditions:
        statement["Condition"] = conditions
    document = {"Version": "2012-10-17", "Statement": [statement]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(document))


def in_days(days: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)


@pytest.mark.subset
def test_a_policy_limits_how_long_a_version_is_retained(s3, locked, put):
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html"""
    version = put(None)
    deny(
        s3,
        locked,
        "s3:PutObjectRetention",
        NumericGreaterThan={"s3:object-lock-remaining-retention-days": "10"},
    )
    for days in (11, 10.5):
        with s3_error(403, "AccessDenied"):
            retain(s3, locked, version, "GOVERNANCE", in_days(days))
        with s3_error(403, "AccessDenied"):
            lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": in_days(days)}
            s3.put_object(Bucket=locked, Key="k", Body=b"", **lock)
    retain(s3, locked, version, "GOVERNANCE", in_days(9.9))
    assert retention_of(s3, locked, version)[0] == "GOVERNANCE"


def test_a_policy_forbids_a_mode_a_date_and_a_hold(s3, locked, put):
    version = put(None)
    deny(s3, locked, "s3:PutObjectRetention", StringEquals={"s3:object-lock-mode": "COMPLIANCE"})
    with s3_error(403, "AccessDenied"):
        retain(s3, locked, version, "COMPLIANCE", FAR)
    retain(s3, locked, version, "GOVERNANCE", FAR)
    retain(s3, locked, version, None, None, BypassGovernanceRetention=True)  # asks for no mode
    until = FAR.strftime("%Y-%m-%dT%H:%M:%SZ")
    deny(s3, locked, "s3:PutObjectRetention", DateGreaterThan={"s3:object-lock-retain-until-date": until})
    with s3_error(403, "AccessDenied"):
        retain(s3, locked, version, "GOVERNANCE", FARTHER)
    retain(s3, locked, version, "GOVERNANCE", FAR)
    deny(s3, locked, "s3:PutObjectLegalHold", StringEquals={"s3:object-lock-legal-hold": "OFF"})
    hold(s3, locked, version, "ON")
    with s3_error(403, "AccessDenied"):
        hold(s3, locked, version, "OFF")
    with s3_error(403, "AccessDenied"):
        s3.put_object(Bucket=locked, Key="k", Body=b"", ObjectLockLegalHoldStatus="OFF")
    deny(s3, locked, "s3:GetObjectRetention")  # so that the bucket can be emptied
    hold(s3, locked, version, "OFF")


def test_a_policy_that_allows_a_lock_of_some_days_to_a_stranger(new_key, s3, locked, put):
    version = put(None)
    stranger = new_key("stranger")
    few = {"NumericLessThanEquals": {"s3:object-lock-remaining-retention-days": "2"}}
    deny(s3, locked, "s3:PutObjectRetention", principal={"AWS": "stranger"}, effect="Allow", **few)
    body = "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{:%Y-%m-%dT%H:%M:%SZ}</RetainUntilDate></Retention>"
    query = f"retention&versionId={version}"
    for days, status in ((3, 403), (1, 200)):
        sent = body.format(in_days(days)).encode()
        assert stranger.call("PUT", f"/{locked}/k", query=query, body=sent).status == status


def test_a_header_says_nothing_of_what_the_body_asks_for(new_key, s3, locked, put):
    version = put(None)
    stranger = new_key("stranger")
    mode = {"StringEquals": {"s3:object-lock-mode": "GOVERNANCE"}}
    deny(s3, locked, "s3:PutObjectRetention", principal={"AWS": "stranger"}, effect="Allow", **mode)
    headers = [("x-amz-object-lock-mode", "GOVERNANCE")]
    body = "<Retention><Mode>{}</Mode><RetainUntilDate>2100-01-01T00:00:00Z</RetainUntilDate></Retention>"
    for sent, status in (
        ("<Retention/>", 403),
        (body.format("COMPLIANCE"), 403),
        (body.format("GOVERNANCE"), 200),
    ):
        query = f"retention&versionId={version}"
        answer = stranger.call("PUT", f"/{locked}/k", query=query, headers=headers, body=sent.encode())
        assert answer.status == status


def test_the_lock_is_shown_to_whom_it_may_be(root, new_key, s3, locked, put):
    """GET and HEAD succeed without the right to see the lock, and leave it out."""
    version = put("governance")
    hold(s3, locked, version, "ON")
    names = {"x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold"}
    stranger = new_key("stranger")

    def seen(caller):
        found = []
        for method in ("GET", "HEAD"):
            answer = caller.call(method, f"/{locked}/k", query=f"versionId={version}")
            assert answer.status == 200
            found.append(names & set(answer.headers))
        assert found[0] == found[1]
        return found[0]

    everything = seen(root)
    assert everything == names
    reading = ("s3:GetObject", "s3:GetObjectVersion")
    for more, shown in (
        ((), set()),
        (("s3:GetObjectLegalHold",), {"x-amz-object-lock-legal-hold"}),
        (("s3:GetObjectRetention",), names - {"x-amz-object-lock-legal-hold"}),
    ):
        deny(s3, locked, *reading, *more, effect="Allow")
        assert seen(stranger) == shown
        assert seen(root) == names
    deny(s3, locked, "s3:GetObjectRetention")
    assert seen(root) == {"x-amz-object-lock-legal-hold"}
    hold(s3, locked, version, "OFF")
