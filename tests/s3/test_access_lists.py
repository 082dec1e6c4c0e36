"""Ownership controls, access control lists, and the public access block: what is stored, and what it opens.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
"""

from __future__ import annotations

import json

import pytest

from tests.s3.conftest import new_bucket_name
from tests.s3.expect import read, s3_error
from tests.s3.wire import assert_error

ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
FLAGS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@pytest.fixture
def listed_bucket(s3, request):
    """A bucket where lists count."""
    name = new_bucket_name(request.node.originalname)
    s3.create_bucket(Bucket=name, ObjectOwnership="ObjectWriter")
    return name


@pytest.fixture
def other(new_key):
    return new_key("stranger")


def grants_of(answer):
    return sorted((g["Grantee"].get("URI") or g["Grantee"]["ID"], g["Permission"]) for g in answer["Grants"])


def block(s3, bucket, *flags):
    s3.put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration={flag: flag in flags for flag in FLAGS}
    )


# -- ownership controls


@pytest.mark.subset
@pytest.mark.parametrize("ownership", ["BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"])
def test_ownership_controls_round_trip(s3, bucket, ownership):
    with s3_error(404, "OwnershipControlsNotFoundError"):
        s3.get_bucket_ownership_controls(Bucket=bucket)
    controls = {"Rules": [{"ObjectOwnership": ownership}]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=controls)
    assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"] == controls
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    with s3_error(404, "OwnershipControlsNotFoundError"):
        s3.get_bucket_ownership_controls(Bucket=bucket)


@pytest.mark.parametrize(
    "body",
    [
        b"<OwnershipControls/>",
        b"<OwnershipControls><Rule><ObjectOwnership>Mine</ObjectOwnership></Rule></OwnershipControls>",
        b"<OwnershipControls><Rule/><Rule/></OwnershipControls>",
    ],
)
def test_put_ownership_controls_refuses_other_documents(root, bucket, body):
    answer = root.call("PUT", f"/{bucket}", query="ownershipControls", body=body)
    assert_error(answer, 400, "MalformedXML")


def test_create_bucket_with_ownership_and_list(s3, root):
    name = new_bucket_name("created")
    s3.create_bucket(Bucket=name, ObjectOwnership="BucketOwnerPreferred", ACL="public-read")
    controls = s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]
    assert controls == {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    assert root.anonymous("GET", f"/{name}").status == 200
    s3.create_bucket(Bucket=new_bucket_name("created"), ACL="private")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([("x-amz-acl", "public-read")], "InvalidBucketAclWithObjectOwnership"),
        ([("x-amz-grant-read", "id=other")], "InvalidBucketAclWithObjectOwnership"),
        (
            [("x-amz-acl", "public-read"), ("x-amz-object-ownership", "BucketOwnerEnforced")],
            "InvalidBucketAclWithObjectOwnership",
        ),
        ([("x-amz-object-ownership", "Nobody")], "InvalidArgument"),
        ([("x-amz-acl", "secret")], "InvalidArgument"),
    ],
)
def test_create_bucket_refuses_lists_that_would_not_count(root, headers, code):
    name = new_bucket_name("refused")
    assert_error(root.call("PUT", f"/{name}", headers=headers), 400, code)
    assert root.call("HEAD", f"/{name}").status == 404


def test_lists_cannot_be_switched_off_under_who_has_rights_by_one(s3, listed_bucket):
    enforced = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    s3.put_bucket_acl(Bucket=listed_bucket, ACL="public-read")
    with s3_error(400, "InvalidBucketAclWithObjectOwnership"):
        s3.put_bucket_ownership_controls(Bucket=listed_bucket, OwnershipControls=enforced)
    s3.put_bucket_acl(Bucket=listed_bucket, ACL="private")
    s3.put_bucket_ownership_controls(Bucket=listed_bucket, OwnershipControls=enforced)


@pytest.mark.parametrize(
    ("ownership", "acl", "owner"),
    [
        (None, None, "root"),
        ("BucketOwnerEnforced", "bucket-owner-full-control", "root"),
        ("BucketOwnerPreferred", "bucket-owner-full-control", "root"),
        ("BucketOwnerPreferred", None, "stranger"),
        ("ObjectWriter", "bucket-owner-full-control", "stranger"),
        ("ObjectWriter", None, "stranger"),
    ],
)
def test_the_owner_of_what_another_tenant_writes(s3, bucket, other, ownership, acl, owner):
    policy = {"Effect": "Allow", "Principal": {"AWS": "stranger"}, "Action": "s3:PutObject"}
    policy["Resource"] = f"arn:aws:s3:::{bucket}/*"
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": policy}))
    if ownership is not None:
        rules = {"Rules": [{"ObjectOwnership": ownership}]}
        s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=rules)
    headers = [("x-amz-acl", acl)] if acl else []
    assert other.call("PUT", f"/{bucket}/k", headers=headers, body=b"x").status == 200
    assert s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"]["ID"] == owner
    assert read(s3, bucket, "k") == b"x"  # the bucket's tenant reaches all of it
    assert other.call("GET", f"/{bucket}/k").status == (200 if owner == "stranger" else 403)


# -- lists under BucketOwnerEnforced


@pytest.mark.subset
def test_lists_are_off_by_default(root, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", ACL="bucket-owner-full-control")
    for refused in ("public-read", "public-read-write", "authenticated-read"):
        for call in (
            lambda acl: s3.put_object(Bucket=bucket, Key="k", ACL=acl),
            lambda acl: s3.put_object_acl(Bucket=bucket, Key="k", ACL=acl),
            lambda acl: s3.put_bucket_acl(Bucket=bucket, ACL=acl),
            lambda acl: s3.create_multipart_upload(Bucket=bucket, Key="k", ACL=acl),
            lambda acl: s3.copy_object(Bucket=bucket, Key="k2", CopySource=f"{bucket}/k", ACL=acl),
        ):
            with s3_error(400, "AccessControlListNotSupported"):
                call(refused)
    with s3_error(400, "AccessControlListNotSupported"):
        s3.put_object(Bucket=bucket, Key="k", GrantRead=f'uri="{ALL_USERS}"')
    for accepted in ("private", "bucket-owner-full-control"):
        s3.put_bucket_acl(Bucket=bucket, ACL=accepted)
        s3.put_object_acl(Bucket=bucket, Key="k", ACL=accepted)
    for answer in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="k")):
        assert answer["Owner"]["ID"] == "root"
        assert grants_of(answer) == [("root", "FULL_CONTROL")]
    assert root.anonymous("GET", f"/{bucket}/k").status == 403
    with s3_error(404, "NoSuchKey"):
        s3.get_object_acl(Bucket=bucket, Key="missing")


def test_a_list_does_not_count_once_it_is_switched_off(root, s3, listed_bucket):
    s3.put_object(Bucket=listed_bucket, Key="k", Body=b"x", ACL="public-read")
    assert root.anonymous("GET", f"/{listed_bucket}/k").status == 200
    s3.delete_bucket_ownership_controls(Bucket=listed_bucket)
    assert root.anonymous("GET", f"/{listed_bucket}/k").status == 403
    assert grants_of(s3.get_object_acl(Bucket=listed_bucket, Key="k")) == [("root", "FULL_CONTROL")]


# -- lists where they count


@pytest.mark.subset
@pytest.mark.parametrize(
    ("acl", "anonymous", "signed"),
    [
        ("private", "", ""),
        ("public-read", "list", "list"),
        ("public-read-write", "list put delete", "list put delete"),
        ("authenticated-read", "", "list"),
    ],
)
def test_a_canned_list_of_a_bucket_opens_the_bucket(root, s3, listed_bucket, other, acl, anonymous, signed):
    s3.put_bucket_acl(Bucket=listed_bucket, ACL=acl)
    s3.put_object(Bucket=listed_bucket, Key="own", Body=b"x")
    attempts = (("list", "GET", "", ""), ("put", "PUT", "/new", ""), ("delete", "DELETE", "/new", ""),
                ("get", "GET", "/own", ""), ("config", "PUT", "", "tagging"), ("acl", "GET", "", "acl"))  # fmt: skip
    for call, expected in ((root.anonymous, anonymous), (other.call, signed)):
        done = [
            name
            for name, method, path, query in attempts
            if call(method, f"/{listed_bucket}{path}", query=query).status in (200, 204)
        ]
        assert " ".join(done) == expected


@pytest.mark.subset
@pytest.mark.parametrize(
    ("acl", "anonymous", "signed"),
    [("private", 403, 403), ("public-read", 200, 200), ("authenticated-read", 403, 200)],
)
@pytest.mark.parametrize("how", ["put", "acl", "copy", "multipart"])
def test_a_canned_list_of_an_object_opens_the_object(
    root, s3, listed_bucket, other, how, acl, anonymous, signed
):
    target = {"Bucket": listed_bucket, "Key": "k"}
    if how == "multipart":
        upload = s3.create_multipart_upload(**target, ACL=acl)["UploadId"]
        part = s3.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
        s3.complete_multipart_upload(**target, UploadId=upload, MultipartUpload=parts)
    elif how == "copy":
        s3.put_object(Bucket=listed_bucket, Key="source", Body=b"x", ACL="public-read-write")
        s3.copy_object(**target, CopySource=f"{listed_bucket}/source", ACL=acl)
    else:
        s3.put_object(**target, Body=b"x", ACL=acl if how == "put" else "private")
        if how == "acl":
            s3.put_object_acl(**target, ACL=acl)
    path = f"/{listed_bucket}/k"
    assert root.anonymous("GET", path).status == anonymous
    assert root.anonymous("HEAD", path).status == anonymous
    assert other.call("GET", path).status == signed
    for call in (root.anonymous, other.call):
        assert call("DELETE", path).status == 403
        assert call("PUT", path).status == 403
        assert call("GET", path, query="acl").status == 403
        assert call("PUT", path, query="acl", headers=[("x-amz-acl", "public-read")]).status == 403
    assert read(s3, listed_bucket, "k") == b"x"


def test_a_copy_does_not_inherit_the_list_of_its_source(root, s3, listed_bucket):
    s3.put_object(Bucket=listed_bucket, Key="source", Body=b"x", ACL="public-read")
    s3.copy_object(Bucket=listed_bucket, Key="k", CopySource=f"{listed_bucket}/source")
    assert root.anonymous("GET", f"/{listed_bucket}/k").status == 403


@pytest.mark.subset
def test_lists_come_back_as_documents(root, s3, listed_bucket, other):
    s3.put_object(
        Bucket=listed_bucket, Key="k", Body=b"x", GrantRead='id="stranger"', GrantFullControl="id=root"
    )
    expected = [("root", "FULL_CONTROL"), ("stranger", "READ")]
    answer = s3.get_object_acl(Bucket=listed_bucket, Key="k")
    assert grants_of(answer) == expected
    policy = {"Owner": answer["Owner"], "Grants": answer["Grants"]}
    s3.put_bucket_acl(Bucket=listed_bucket, AccessControlPolicy=policy)
    assert grants_of(s3.get_bucket_acl(Bucket=listed_bucket)) == expected
    assert other.call("GET", f"/{listed_bucket}").texts("Key") == ["k"]
    assert other.call("GET", f"/{listed_bucket}/k").body == b"x"
    s3.put_object_acl(Bucket=listed_bucket, Key="k", ACL="private")
    assert other.call("GET", f"/{listed_bucket}/k").status == 403
    policy["Grants"] = [
        *answer["Grants"],
        {"Grantee": {"Type": "CanonicalUser", "ID": "nobody-at-all"}, "Permission": "READ"},
    ]
    with s3_error(400, "InvalidArgument"):
        s3.put_bucket_acl(Bucket=listed_bucket, AccessControlPolicy=policy)
    policy = {"Owner": {"ID": "stranger"}, "Grants": answer["Grants"]}
    with s3_error(403, "AccessDenied"):
        s3.put_bucket_acl(Bucket=listed_bucket, AccessControlPolicy=policy)
    assert_error(
        root.call("PUT", f"/{listed_bucket}", query="acl", body=b"<Other/>"), 400, "MalformedACLError"
    )
    assert_error(root.call("PUT", f"/{listed_bucket}", query="acl"), 400, "MissingSecurityHeader")
    both = root.call(
        "PUT", f"/{listed_bucket}", query="acl", headers=[("x-amz-acl", "private")], body=b"<x/>"
    )
    assert_error(both, 400, "UnexpectedContent")


def test_the_owner_of_an_object_may_change_its_list(s3, listed_bucket, other, root):
    s3.put_bucket_acl(Bucket=listed_bucket, ACL="public-read-write")
    assert other.call("PUT", f"/{listed_bucket}/k", body=b"x").status == 200
    path = f"/{listed_bucket}/k"
    assert root.anonymous("GET", path).status == 403
    assert other.call("PUT", path, query="acl", headers=[("x-amz-acl", "public-read")]).status == 200
    assert root.anonymous("GET", path).body == b"x"
    assert other.call("GET", path, query="acl").texts("Permission") == ["FULL_CONTROL", "READ"]


# -- public access block


@pytest.mark.subset
def test_public_access_block_round_trip(s3, bucket):
    with s3_error(404, "NoSuchPublicAccessBlockConfiguration"):
        s3.get_public_access_block(Bucket=bucket)
    block(s3, bucket, "BlockPublicAcls", "RestrictPublicBuckets")
    found = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert found == {flag: flag in ("BlockPublicAcls", "RestrictPublicBuckets") for flag in FLAGS}
    s3.delete_public_access_block(Bucket=bucket)
    with s3_error(404, "NoSuchPublicAccessBlockConfiguration"):
        s3.get_public_access_block(Bucket=bucket)


def test_put_public_access_block_refuses_other_documents(root, bucket):
    body = b"<PublicAccessBlockConfiguration><BlockPublicAcls>maybe</BlockPublicAcls></PublicAccessBlockConfiguration>"
    assert_error(root.call("PUT", f"/{bucket}", query="publicAccessBlock", body=body), 400, "MalformedXML")


@pytest.mark.subset
def test_block_public_acls_refuses_new_public_lists_and_keeps_old_ones(root, s3, listed_bucket):
    s3.put_object(Bucket=listed_bucket, Key="k", Body=b"x", ACL="public-read")
    block(s3, listed_bucket, "BlockPublicAcls")
    for call in (
        lambda: s3.put_object(Bucket=listed_bucket, Key="k2", ACL="public-read"),
        lambda: s3.put_object(Bucket=listed_bucket, Key="k2", GrantRead=f'uri="{ALL_USERS}"'),
        lambda: s3.put_object_acl(Bucket=listed_bucket, Key="k", ACL="authenticated-read"),
        lambda: s3.put_bucket_acl(Bucket=listed_bucket, ACL="public-read"),
    ):
        with s3_error(403, "AccessDenied"):
            call()
    assert root.anonymous("GET", f"/{listed_bucket}/k").status == 200


@pytest.mark.subset
def test_ignore_public_acls_closes_what_lists_have_opened(root, s3, listed_bucket, other):
    s3.put_bucket_acl(Bucket=listed_bucket, ACL="public-read-write")
    s3.put_object(Bucket=listed_bucket, Key="k", Body=b"x", ACL="public-read")
    block(s3, listed_bucket, "IgnorePublicAcls")
    for method, path in (("GET", "/k"), ("GET", ""), ("PUT", "/new"), ("DELETE", "/k")):
        assert root.anonymous(method, f"/{listed_bucket}{path}").status == 403
        assert other.call(method, f"/{listed_bucket}{path}").status == 403
    s3.delete_public_access_block(Bucket=listed_bucket)
    assert root.anonymous("GET", f"/{listed_bucket}/k").status == 200


def policy_for(bucket, principal):
    found = {
        "Effect": "Allow",
        "Principal": principal,
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    return json.dumps({"Statement": found})


@pytest.mark.subset
def test_block_public_policy_refuses_a_public_policy(root, s3, bucket):
    block(s3, bucket, "BlockPublicPolicy")
    with s3_error(403, "AccessDenied"):
        s3.put_bucket_policy(Bucket=bucket, Policy=policy_for(bucket, "*"))
    with s3_error(404, "NoSuchBucketPolicy"):
        s3.get_bucket_policy(Bucket=bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=policy_for(bucket, {"AWS": "stranger"}))


@pytest.mark.subset
def test_restrict_public_buckets_closes_a_public_policy_to_others(root, s3, bucket, other):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_bucket_policy(Bucket=bucket, Policy=policy_for(bucket, "*"))
    block(s3, bucket, "RestrictPublicBuckets")
    assert root.anonymous("GET", f"/{bucket}/k").status == 403
    assert other.call("GET", f"/{bucket}/k").status == 403
    assert read(s3, bucket, "k") == b"x"
    s3.put_bucket_policy(Bucket=bucket, Policy=policy_for(bucket, {"AWS": "stranger"}))
    assert other.call("GET", f"/{bucket}/k").status == 200
