"""Access control lists: who has which permission, from headers, canned names and XML. Pure.

A grantee is a tenant (its canonical user id is its name) or one of Amazon's groups (its URI); an access key has no
grants of its own. The owner always may read and write the list itself. No grants at all means `private`.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaultaire.s3 import xml_tree
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.xml import document
from vaultaire.s3.xml_text import escape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from xml.etree.ElementTree import Element

Grants = tuple[tuple[str, str], ...]  # (grantee, permission)

ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED_USERS = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
LOG_DELIVERY = "http://acs.amazonaws.com/groups/s3/LogDelivery"
PUBLIC = frozenset((ALL_USERS, AUTHENTICATED_USERS))
GROUPS = PUBLIC | {LOG_DELIVERY}
PERMISSIONS = ("FULL_CONTROL", "READ", "WRITE", "READ_ACP", "WRITE_ACP")
MAX_GRANTS = 100
_XSI = "http://www.w3.org/2001/XMLSchema-instance"

# Name -> grants beside the owner's own.
_CANNED: dict[str, Grants] = {
    "private": (),
    "public-read": ((ALL_USERS, "READ"),),
    "public-read-write": ((ALL_USERS, "READ"), (ALL_USERS, "WRITE")),
    "authenticated-read": ((AUTHENTICATED_USERS, "READ"),),
    "aws-exec-read": (),
    "log-delivery-write": ((LOG_DELIVERY, "WRITE"), (LOG_DELIVERY, "READ_ACP")),
}
_HEADERS = {
    b"x-amz-grant-full-control": "FULL_CONTROL",
    b"x-amz-grant-read": "READ",
    b"x-amz-grant-write": "WRITE",
    b"x-amz-grant-read-acp": "READ_ACP",
    b"x-amz-grant-write-acp": "WRITE_ACP",
}
# Canned lists that give nothing to anyone but the owners: good wherever lists are switched off.
HARMLESS = frozenset(("private", "bucket-owner-full-control", "bucket-owner-read"))


# --- deciding ------------------------------------------------------------------------------------------------------


def allows(grants: Grants, owner: str, tenant: str | None, permission: str) -> bool:
    """Whether `tenant` (None: anonymous) has `permission`. The owner has what a list cannot take away."""
    if tenant is not None and tenant == owner and permission in ("READ_ACP", "WRITE_ACP"):
        return True
    if not grants:
        return tenant is not None and tenant == owner
    return any(
        granted in (permission, "FULL_CONTROL") and _includes(grantee, tenant) for grantee, granted in grants
    )


def _includes(grantee: str, tenant: str | None) -> bool:
    return grantee == ALL_USERS or (tenant is not None and grantee in (AUTHENTICATED_USERS, tenant))


def is_public(grants: Grants) -> bool:
    return any(grantee in PUBLIC for grantee, _ in grants)


def without_public(grants: Grants, owner: str) -> Grants:
    """What is left of a list whose public grants are ignored."""
    return tuple(grant for grant in grants if grant[0] not in PUBLIC) or ((owner, "FULL_CONTROL"),)


def only_for(grants: Grants, tenants: Sequence[str]) -> bool:
    return all(grantee in tenants for grantee, _ in grants)


# --- headers -------------------------------------------------------------------------------------------------------


def asked_for(fields: Mapping[bytes, str]) -> bool:
    """Whether the request says anything about a list."""
    return b"x-amz-acl" in fields or any(name in fields for name in _HEADERS)


def parse_headers(fields: Mapping[bytes, str], owner: str, bucket_owner: str) -> Grants | None:
    """The list that `x-amz-acl` or `x-amz-grant-*` ask for; None without them. Raises InvalidArgument, ..."""
    name = fields.get(b"x-amz-acl")
    given = [(field, permission) for field, permission in _HEADERS.items() if field in fields]
    if name is not None and given:
        raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
    if name is not None:
        return canned(name, owner, bucket_owner)
    if not given:
        return None
    grants: list[tuple[str, str]] = []
    for field, permission in given:
        grants += [(grantee, permission) for grantee in _parse_grantees(field, fields[field])]
    return checked(grants)


def canned(name: str, owner: str, bucket_owner: str) -> Grants:
    """Raises InvalidArgument."""
    own = ((owner, "FULL_CONTROL"),)
    if name in ("bucket-owner-read", "bucket-owner-full-control"):
        if owner == bucket_owner:
            return own
        return (*own, (bucket_owner, "READ" if name == "bucket-owner-read" else "FULL_CONTROL"))
    further = _CANNED.get(name)
    if further is None:
        raise invalid_argument("Invalid canned ACL", "x-amz-acl", name)
    return (*own, *further)


def _parse_grantees(field: bytes, text: str) -> list[str]:
    """`id="tenant", uri="http://..."`."""
    found = []
    for piece in text.split(","):
        kind, _, value = piece.strip().partition("=")
        value = value.strip().strip('"')
        if kind == "emailAddress":
            raise S3Error("UnresolvableGrantByEmailAddress", extra={"Email": value})
        if kind == "id" and value and value not in GROUPS:
            found.append(value)
        elif kind == "uri":
            found.append(_group(value))
        else:
            raise invalid_argument("Argument format not recognized", field.decode(), text)
    return found


def _group(uri: str) -> str:
    if uri not in GROUPS:
        raise invalid_argument("Invalid group uri", "uri", uri)
    return uri


def checked(grants: Sequence[tuple[str, str]]) -> Grants:
    """Without repetitions. Raises MalformedACLError if there are too many, or a grantee is no possible tenant."""
    unique = tuple(dict.fromkeys(grants))
    if len(unique) > MAX_GRANTS:
        raise S3Error("MalformedACLError", f"An ACL has at most {MAX_GRANTS} grants")
    for grantee, _ in unique:
        if len(grantee) > 256 or not grantee.isascii():
            raise invalid_argument("Invalid id", "CanonicalUser/ID", grantee[:256])
    return unique


# --- the document --------------------------------------------------------------------------------------------------


def parse_xml(body: bytes, owner: str) -> Grants:
    """The grants of an AccessControlPolicy whose owner is `owner`. Raises MalformedACLError, AccessDenied, ..."""
    try:
        tree = xml_tree.parse(body, "AccessControlPolicy")
        found = xml_tree.one_of(tree, frozenset(("Owner", "AccessControlList")))
        stated = xml_tree.fields(found["Owner"], frozenset(("ID", "DisplayName"))).get("ID")
        grants = [_parse_grant(child) for _, child in xml_tree.children(found["AccessControlList"])]
    except KeyError:
        raise S3Error("MalformedACLError") from None
    except S3Error as error:
        if error.code == "MalformedXML":
            raise S3Error("MalformedACLError") from None
        raise
    if stated != owner:
        raise S3Error("AccessDenied", "The owner of an ACL cannot be changed")
    return checked(grants)


def _parse_grant(element: Element) -> tuple[str, str]:
    if xml_tree.local(element.tag) != "Grant":
        raise S3Error("MalformedACLError")
    found = xml_tree.one_of(element, frozenset(("Grantee", "Permission")))
    permission = xml_tree.text_of(found["Permission"])
    if permission not in PERMISSIONS:
        raise S3Error("MalformedACLError")
    grantee = found["Grantee"]
    fields = xml_tree.fields(grantee, frozenset(("ID", "DisplayName", "URI", "EmailAddress", "Type")))
    kind = grantee.get(f"{{{_XSI}}}type") or fields.get("Type")
    if kind == "AmazonCustomerByEmail" or (kind is None and "EmailAddress" in fields):
        raise S3Error("UnresolvableGrantByEmailAddress", extra={"Email": fields.get("EmailAddress")})
    if kind == "Group" or (kind is None and "URI" in fields):
        return _group(fields.get("URI", "")), permission
    if kind not in (None, "CanonicalUser") or not fields.get("ID"):
        raise S3Error("MalformedACLError")
    return fields["ID"], permission


def format_xml(grants: Grants, owner: str) -> bytes:
    """An AccessControlPolicy document."""
    shown = grants or ((owner, "FULL_CONTROL"),)
    rows = [f"<Grant>{_grantee(grantee)}<Permission>{name}</Permission></Grant>" for grantee, name in shown]
    text = escape(owner)
    return document(
        "AccessControlPolicy",
        f"<Owner><ID>{text}</ID><DisplayName>{text}</DisplayName></Owner>"
        f"<AccessControlList>{''.join(rows)}</AccessControlList>",
    )


def _grantee(grantee: str) -> str:
    text = escape(grantee)
    if grantee in GROUPS:
        return f'<Grantee xmlns:xsi="{_XSI}" xsi:type="Group"><URI>{text}</URI></Grantee>'
    return (
        f'<Grantee xmlns:xsi="{_XSI}" xsi:type="CanonicalUser"><ID>{text}</ID>'
        f"<DisplayName>{text}</DisplayName></Grantee>"
    )
