"""Access control lists: canned names, headers, documents, and what they allow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.s3.acl import (
    ALL_USERS,
    AUTHENTICATED_USERS,
    GROUPS,
    PERMISSIONS,
    allows,
    canned,
    format_xml,
    is_public,
    parse_headers,
    parse_xml,
    without_public,
)
from vaultaire.s3.errors import S3Error

grantees = st.sampled_from(sorted(GROUPS)) | st.text("abc", min_size=1, max_size=3)
lists = st.lists(st.tuples(grantees, st.sampled_from(PERMISSIONS)), max_size=8, unique=True).map(tuple)


@given(lists.filter(bool))
def test_a_list_comes_back_from_its_document(grants):
    assert parse_xml(format_xml(grants, "me"), "me") == grants


@given(lists, st.none() | st.sampled_from(("a", "b", "me")), st.sampled_from(PERMISSIONS[1:]))
def test_a_list_allows_what_one_of_its_grants_gives(grants, tenant, permission):
    expected = tenant == "me" and (not grants or permission.endswith("_ACP"))
    for grantee, granted in grants:
        member = grantee == ALL_USERS or (tenant is not None and grantee in (tenant, AUTHENTICATED_USERS))
        expected = expected or (member and granted in (permission, "FULL_CONTROL"))
    assert allows(grants, "me", tenant, permission) is expected


@given(lists, st.none() | st.just("b"), st.sampled_from(PERMISSIONS[1:]))
def test_ignoring_public_grants_leaves_nothing_public(grants, tenant, permission):
    left = without_public(grants, "me")
    assert not is_public(left)
    if allows(left, "me", tenant, permission):
        assert allows(grants, "me", tenant, permission)


@pytest.mark.parametrize(
    ("name", "anyone", "signed", "bucket_owner"),
    [
        ("private", "", "", ""),
        ("public-read", "READ", "READ", "READ"),
        ("public-read-write", "READ WRITE", "READ WRITE", "READ WRITE"),
        ("authenticated-read", "", "READ", "READ"),
        ("bucket-owner-read", "", "", "READ"),
        ("bucket-owner-full-control", "", "", "READ WRITE READ_ACP WRITE_ACP"),
        ("aws-exec-read", "", "", ""),
        ("log-delivery-write", "", "", ""),
    ],
)
def test_a_canned_name_means_what_s3_says(name, anyone, signed, bucket_owner):
    grants = canned(name, "writer", "owner")
    for tenant, expected in ((None, anyone), ("other", signed), ("owner", bucket_owner)):
        given = [p for p in ("READ", "WRITE", "READ_ACP", "WRITE_ACP") if allows(grants, "writer", tenant, p)]
        assert " ".join(given) == expected
    assert all(allows(grants, "writer", "writer", permission) for permission in PERMISSIONS)


def test_headers_give_a_list():
    assert parse_headers({b"host": "h"}, "me", "me") is None
    fields = {
        b"x-amz-grant-read": f'uri="{ALL_USERS}", id="other"',
        b"x-amz-grant-full-control": "id=me",
    }
    assert parse_headers(fields, "me", "me") == (
        ("me", "FULL_CONTROL"),
        (ALL_USERS, "READ"),
        ("other", "READ"),
    )


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({b"x-amz-acl": "public"}, "InvalidArgument"),
        ({b"x-amz-acl": ""}, "InvalidArgument"),
        ({b"x-amz-acl": "private", b"x-amz-grant-read": "id=a"}, "InvalidRequest"),
        ({b"x-amz-grant-read": "a"}, "InvalidArgument"),
        ({b"x-amz-grant-read": "id="}, "InvalidArgument"),
        ({b"x-amz-grant-read": "uri=http://other"}, "InvalidArgument"),
        ({b"x-amz-grant-read": f"id={ALL_USERS}"}, "InvalidArgument"),
        ({b"x-amz-grant-read": 'emailAddress="a@b.test"'}, "UnresolvableGrantByEmailAddress"),
        ({b"x-amz-grant-read": ",".join(f"id=t{n}" for n in range(101))}, "MalformedACLError"),
    ],
)
def test_bad_headers_are_refused(fields, code):
    with pytest.raises(S3Error) as caught:
        parse_headers(fields, "me", "me")
    assert caught.value.code == code


def document(grants: str, owner: str = "<Owner><ID>me</ID></Owner>") -> bytes:
    return f"<AccessControlPolicy>{owner}<AccessControlList>{grants}</AccessControlList></AccessControlPolicy>".encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<AccessControlPolicy/>", "MalformedACLError"),
        (b"<Other/>", "MalformedACLError"),
        (b"not xml", "MalformedACLError"),
        (document("", "<Owner><ID>other</ID></Owner>"), "AccessDenied"),
        (document("", "<Owner/>"), "AccessDenied"),
        (document("<Other/>"), "MalformedACLError"),
        (document("<Grant/>"), "MalformedACLError"),
        (document("<Grant><Grantee/><Permission>READ</Permission></Grant>"), "MalformedACLError"),
        (
            document("<Grant><Grantee><ID>a</ID></Grantee><Permission>ALL</Permission></Grant>"),
            "MalformedACLError",
        ),
        (
            document("<Grant><Grantee><URI>x</URI></Grantee><Permission>READ</Permission></Grant>"),
            "InvalidArgument",
        ),
        (
            document(
                "<Grant><Grantee><EmailAddress>a</EmailAddress></Grantee><Permission>READ</Permission></Grant>"
            ),
            "UnresolvableGrantByEmailAddress",
        ),
    ],
)
def test_a_bad_document_is_refused(body, code):
    with pytest.raises(S3Error) as caught:
        parse_xml(body, "me")
    assert caught.value.code == code
