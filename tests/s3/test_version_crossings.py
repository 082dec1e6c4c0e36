"""Versions and locks where they meet the rest: tags, access lists, attributes, policies, forms, renames."""

from __future__ import annotations

import datetime
import json

import pytest

from tests.s3.conftest import new_bucket_name
from tests.s3.expect import s3_error
from tests.s3.forms import form_request, signed_fields
from tests.s3.wire import assert_error

PUBLIC = "http://acs.amazonaws.com/groups/global/AllUsers"


def later() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=1)


@pytest.fixture
def versioned(s3, request) -> str:
    """A bucket with versions, and with lists that count."""
    name = new_bucket_name(request.node.originalname)
    s3.create_bucket(Bucket=name, ObjectOwnership="ObjectWriter")
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def locked(s3, request) -> str:
    name = new_bucket_name(request.node.originalname)
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def put(s3, bucket, body=b"x", key="k", **rest) -> str:
    return s3.put_object(Bucket=bucket, Key=key, Body=body, **rest)["VersionId"]


def allow(s3, bucket, *actions, effect="Allow"):
    statement = {
        "Effect": effect,
        "Principal": "*",
        "Action": list(actions),
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    s3.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )


def test_tags_are_of_the_version_that_is_named(s3, versioned):
    old = put(s3, versioned, Tagging="a=old")
    new = put(s3, versioned, Tagging="a=new")

    def tags(**which):
        found = s3.get_object_tagging(Bucket=versioned, Key="k", **which)
        return found["VersionId"], [tag["Value"] for tag in found["TagSet"]]

    given = {"TagSet": [{"Key": "a", "Value": "changed"}]}
    answer = s3.put_object_tagging(Bucket=versioned, Key="k", VersionId=old, Tagging=given)
    assert answer["VersionId"] == old
    assert (tags(VersionId=old), tags(VersionId=new), tags()) == (
        (old, ["changed"]),
        (new, ["new"]),
        (new, ["new"]),
    )
    assert s3.get_object(Bucket=versioned, Key="k", VersionId=old)["TagCount"] == 1
    assert s3.delete_object_tagging(Bucket=versioned, Key="k")["VersionId"] == new
    assert (tags(VersionId=old), tags()) == ((old, ["changed"]), (new, []))
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    with s3_error(404, "NoSuchKey"):
        s3.get_object_tagging(Bucket=versioned, Key="k")
    with s3_error(405, "MethodNotAllowed"):
        s3.put_object_tagging(Bucket=versioned, Key="k", VersionId=marker, Tagging=given)
    assert tags(VersionId=old) == (old, ["changed"])


def test_lists_are_of_the_version_that_is_named(root, s3, versioned):
    old, new = put(s3, versioned, b"old"), put(s3, versioned, b"new")
    s3.put_object_acl(Bucket=versioned, Key="k", VersionId=old, ACL="public-read")
    grantees = [
        {
            grant["Grantee"].get("URI")
            for grant in s3.get_object_acl(Bucket=versioned, Key="k", **which)["Grants"]
        }
        for which in ({"VersionId": old}, {"VersionId": new}, {})
    ]
    assert [PUBLIC in found for found in grantees] == [True, False, False]
    answer = root.anonymous("GET", f"/{versioned}/k", query=f"versionId={old}")
    assert (answer.status, answer.body) == (200, b"old")
    assert_error(root.anonymous("GET", f"/{versioned}/k", query=f"versionId={new}"), 403, "AccessDenied")
    assert_error(root.anonymous("GET", f"/{versioned}/k"), 403, "AccessDenied")


def test_attributes_are_of_the_version_that_is_named(s3, versioned):
    old = put(s3, versioned, b"12")
    new = put(s3, versioned, b"1")
    for which, version, size in (({"VersionId": old}, old, 2), ({}, new, 1)):
        found = s3.get_object_attributes(Bucket=versioned, Key="k", ObjectAttributes=["ObjectSize"], **which)
        assert (found["VersionId"], found["ObjectSize"]) == (version, size)


def test_tags_change_under_a_lock(s3, locked):
    version = put(s3, locked, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=later(), Tagging="a=1")
    s3.put_object_tagging(Bucket=locked, Key="k", Tagging={"TagSet": []})
    found = s3.head_object(Bucket=locked, Key="k")
    assert (found["VersionId"], found["ObjectLockMode"]) == (version, "COMPLIANCE")


def test_a_copy_takes_tags_but_no_lock(s3, locked):
    old = put(s3, locked, b"old", ObjectLockLegalHoldStatus="ON", Tagging="a=1")
    put(s3, locked, b"new")
    made = s3.copy_object(Bucket=locked, Key="k", CopySource={"Bucket": locked, "Key": "k", "VersionId": old})
    found = s3.get_object(Bucket=locked, Key="k")
    assert made["CopySourceVersionId"] == old
    assert (found["Body"].read(), found["TagCount"], found["VersionId"]) == (b"old", 1, made["VersionId"])
    assert "ObjectLockLegalHoldStatus" not in found


def test_a_policy_gives_versions_by_their_own_action(root, s3, versioned):
    old = put(s3, versioned, b"old")
    put(s3, versioned, b"new")
    allow(s3, versioned, "s3:GetObject")
    assert root.anonymous("GET", f"/{versioned}/k").body == b"new"
    query = f"versionId={old}"
    assert_error(root.anonymous("GET", f"/{versioned}/k", query=query), 403, "AccessDenied")
    allow(s3, versioned, "s3:GetObjectVersion", "s3:DeleteObject")
    assert root.anonymous("GET", f"/{versioned}/k", query=query).body == b"old"
    assert_error(root.anonymous("DELETE", f"/{versioned}/k", query=query), 403, "AccessDenied")
    assert root.anonymous("DELETE", f"/{versioned}/k").status == 204
    markers = s3.list_object_versions(Bucket=versioned)["DeleteMarkers"]
    assert [marker["Owner"]["ID"] for marker in markers] == ["root"]


def test_governance_is_not_bypassed_by_an_admin_of_another_tenant(s3, locked, new_key):
    version = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=later())
    allow(s3, locked, "s3:DeleteObjectVersion", "s3:PutObjectRetention")
    bypass = [("x-amz-bypass-governance-retention", "true")]
    stranger = new_key("stranger", "admin")
    query = f"versionId={version}"
    assert_error(stranger.call("DELETE", f"/{locked}/k", query=query, headers=bypass), 403, "AccessDenied")
    allow(s3, locked, "s3:BypassGovernanceRetention", effect="Deny")
    doomed = {"Objects": [{"Key": "k", "VersionId": version}]}
    with s3_error(403, "AccessDenied"):
        s3.delete_object(Bucket=locked, Key="k", VersionId=version, BypassGovernanceRetention=True)
    found = s3.delete_objects(Bucket=locked, Delete=doomed, BypassGovernanceRetention=True)
    assert [error["Code"] for error in found["Errors"]] == ["AccessDenied"]
    s3.delete_bucket_policy(Bucket=locked)
    found = s3.delete_objects(Bucket=locked, Delete=doomed, BypassGovernanceRetention=True)
    assert "Errors" not in found


def test_a_form_makes_a_version_with_its_lock(root, s3, locked):
    before = put(s3, locked)
    fields = {"key": "k", "x-amz-object-lock-legal-hold": "ON"}
    answer = root.exchange(form_request(root, locked, signed_fields(root, locked, fields), b"form"))
    assert answer.status == 204
    made = answer.headers["x-amz-version-id"]
    found = s3.get_object(Bucket=locked, Key="k")
    assert (found["VersionId"], found["ObjectLockLegalHoldStatus"], found["Body"].read()) == (
        made,
        "ON",
        b"form",
    )
    assert made != before


def test_a_form_cannot_ask_for_a_lock_that_is_not_kept(root, s3, bucket):
    fields = {"key": "k", "x-amz-object-lock-legal-hold": "ON"}
    answer = root.exchange(form_request(root, bucket, signed_fields(root, bucket, fields), b"form"))
    assert_error(answer, 400, "InvalidRequest")


def test_rename_is_refused_where_there_are_versions(root, s3, versioned):
    put(s3, versioned, key="a")
    answer = root.call("PUT", f"/{versioned}/b", query="renameObject", headers=[("x-amz-rename-source", "a")])
    assert_error(answer, 409, "InvalidBucketState")
