"""May this request do that? The one place where it is decided, for every operation.

In this order:

1. The role and the limits of the key are a ceiling (`vaultaire.s3.ceiling`), whoever allows more.
2. A Deny of the bucket's policy wins, for the owner and for root too. Only the policy's own operations are never taken
   from an admin key of the owner's tenant (or of root): nobody is locked out for good.
3. Keys of the bucket's own tenant, and root, may do the rest.
4. Everybody else, anonymous or of another tenant, needs an Allow of the policy (not counted if the policy is public and
   RestrictPublicBuckets is on), or a grant of the bucket's or object's list, where object ownership lets lists count
   (public grants not counted under IgnorePublicAcls).

A bucket's tenant reaches every object in it, also those that another tenant wrote and owns (on AWS it does not).
An operation whose body names what it is about is let in if anything could be allowed, and asks for each item itself.

A decision holds for the request: what changes in policy or lists meanwhile counts for the next one. That the bucket is
still the same one is checked again in every commit (`Call.bucket`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaultaire.s3 import acl, ceiling, stored
from vaultaire.s3.actions import NEEDS, Needs
from vaultaire.s3.bucket_settings import NOTHING_BLOCKED, Ownership, PublicAccessBlock
from vaultaire.s3.errors import S3Error
from vaultaire.s3.facts import existing_tags, request_facts, without_requested
from vaultaire.s3.operation import Operation
from vaultaire.s3.policy import Asked, Verdict
from vaultaire.s3.version_ids import lookup, parse_version

if TYPE_CHECKING:
    from index.kv import Reader
    from index.records import BucketRecord, ObjectRecord
    from vaultaire.access import Principal
    from vaultaire.s3 import lifecycle
    from vaultaire.s3.call import Call
    from vaultaire.s3.facts import Facts
    from vaultaire.s3.policy import Policy

_NEVER_LOCKED = frozenset(("s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"))

# action -> the permission of the bucket's list, and of the object's, that gives it.
_BUCKET_LIST = {
    "s3:ListBucket": "READ",
    "s3:ListBucketVersions": "READ",
    "s3:ListBucketMultipartUploads": "READ",
    "s3:PutObject": "WRITE",
    "s3:DeleteObject": "WRITE",
    "s3:AbortMultipartUpload": "WRITE",
    "s3:ListMultipartUploadParts": "WRITE",
    "s3:GetBucketAcl": "READ_ACP",
    "s3:PutBucketAcl": "WRITE_ACP",
}
_OBJECT_LIST = {
    "s3:GetObject": "READ",
    "s3:GetObjectVersion": "READ",
    "s3:GetObjectAttributes": "READ",
    "s3:GetObjectAcl": "READ_ACP",
    "s3:GetObjectVersionAcl": "READ_ACP",
    "s3:PutObjectAcl": "WRITE_ACP",
    "s3:PutObjectVersionAcl": "WRITE_ACP",
}
_WITH_ATTRIBUTES = frozenset(
    (Operation.PUT_OBJECT, Operation.COPY_OBJECT, Operation.CREATE_MULTIPART_UPLOAD, Operation.POST_OBJECT)
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a bucket says about who may use it; whether new objects carry AES256 unasked, and when they expire."""

    policy: Policy | None = None
    encrypts: bool = False
    expiry: lifecycle.Rules = ()
    ownership: Ownership = Ownership.ENFORCED
    block: PublicAccessBlock = NOTHING_BLOCKED
    grants: acl.Grants = ()


def load_rules(reader: Reader, bucket: BucketRecord, *, own: bool) -> Rules:
    """`own`: the caller reaches the bucket's tenant, so that ownership, block and lists do not matter."""
    if not bucket.configured:
        return NO_RULES
    policy, encrypts, expiry = stored.rules_of(reader, bucket)
    if own:
        return Rules(policy, encrypts, expiry)
    return Rules(policy, encrypts, expiry, *stored.access_of(reader, bucket))


NO_RULES = Rules()


def require_active(principal: Principal, now_ms: int) -> None:
    """Raises InvalidAccessKeyId for a key that is disabled or has expired: only whoever has its secret learns which."""
    limits = principal.limits
    if not limits.active(now_ms):
        reason = "is disabled" if limits.disabled else "has expired"
        raise S3Error("InvalidAccessKeyId", f"The AWS access key ID that you provided {reason}.")


# --- one request ---------------------------------------------------------------------------------------------------


def authorize(call: Call, operation: Operation, *, writes: bool) -> None:
    """Raises AccessDenied, NoSuchBucket. On return the operation may go on with its bucket.

    A POST form says who sends it in its body: PostObject, and only it, passes here unseen and calls `Call.require`.
    """
    principal, needs = call.principal, NEEDS[operation]
    if operation is Operation.POST_OBJECT:
        return
    if not ceiling.admits(
        principal, operation, writes=writes, bucket=call.bucket_name, key=call.key, query=call.query
    ):
        raise S3Error("AccessDenied")
    if needs.kind == "service":
        if principal.anonymous:
            raise S3Error("AccessDenied")
        return
    bucket = call.found_bucket
    if bucket is None:
        raise S3Error("NoSuchBucket", bucket=call.bucket_name)
    check_owner(bucket, call.header(b"x-amz-expected-bucket-owner"))
    rules = call.rules
    if rules.policy is None and principal.reaches(bucket.owner):
        return
    if needs.late and not _known_by_head(operation, rules):
        if not _may_do_something(call, bucket, rules):
            raise S3Error("AccessDenied")
    else:
        key = call.key if needs.kind == "object" else None
        for action in _actions(call, operation, needs, bucket):
            if not decide(call, bucket, rules, action, key, call.query.get("versionId")):
                raise S3Error("AccessDenied")
    call.admit(bucket)


def check_owner(bucket: BucketRecord, expected: str | None) -> None:
    """Raises AccessDenied if the bucket's owner (a tenant) is not whom the request expects; None expects nobody."""
    if expected is not None and expected != bucket.owner:
        raise S3Error("AccessDenied")


def learn(call: Call, more: Facts) -> None:
    """What the body asks for, tags or a lock: conditions see that from here on, and not what headers say of it."""
    if call.rules.policy is not None:
        call.facts = without_requested(_facts(call)) | more


def _known_by_head(operation: Operation, rules: Rules) -> bool:
    """Tags and locks in the body matter only to a policy that asks for them; keys in the body always do."""
    policy = rules.policy
    match operation:
        case Operation.PUT_OBJECT_TAGGING:
            return policy is None or not policy.asks_for_request_tags
        case Operation.PUT_OBJECT_RETENTION | Operation.PUT_OBJECT_LEGAL_HOLD:
            return policy is None or not policy.asks_for_locks
    return False


def _actions(call: Call, operation: Operation, needs: Needs, bucket: BucketRecord) -> list[str]:
    """What the operation needs as this request asks for it."""
    actions = list(needs.actions)
    if needs.versioned is not None and call.query.get("versionId"):
        actions[0] = needs.versioned
    if operation in _WITH_ATTRIBUTES:
        actions += attribute_actions(call, bucket)
    return actions


def attribute_actions(call: Call, bucket: BucketRecord) -> list[str]:
    """What the headers of an upload need beside s3:PutObject.

    A list that grants nothing to others than the two owners needs no s3:PutObjectAcl: that is how policies demand
    `bucket-owner-full-control` of strangers.
    """
    actions = []
    fields = call.headers
    if fields.get(b"x-amz-tagging"):
        actions.append("s3:PutObjectTagging")
    if acl.asked_for(fields):
        try:
            grants = acl.parse_headers(fields, call.principal.tenant, bucket.owner) or ()
        except S3Error:
            grants = ()  # the operation says what is wrong with them
        if not acl.only_for(grants, (call.principal.tenant, bucket.owner)):
            actions.append("s3:PutObjectAcl")
    if fields.get(b"x-amz-object-lock-mode") or fields.get(b"x-amz-object-lock-retain-until-date"):
        actions.append("s3:PutObjectRetention")
    if fields.get(b"x-amz-object-lock-legal-hold"):
        actions.append("s3:PutObjectLegalHold")
    return actions


def _may_do_something(call: Call, bucket: BucketRecord, rules: Rules) -> bool:
    """Whether it is worth reading the body; every item is decided by itself afterwards."""
    if call.principal.reaches(bucket.owner):
        return True
    if rules.policy is not None and rules.policy.allows_anything:
        return True
    return rules.ownership.lists_count and bool(rules.grants)


def decide(
    call: Call,
    bucket: BucketRecord,
    rules: Rules,
    action: str,
    key: bytes | None,
    version_id: str | None = None,
) -> bool:
    """Whether the caller may do `action` to the bucket, or to `key` in it. Looks at the object only if it must."""
    principal = call.principal
    own = principal.reaches(bucket.owner)
    if not ceiling.covers(principal, bucket.name, action, key):
        return False
    if not own and action in _NEVER_LOCKED:
        return False  # a policy cannot give itself away
    verdict = Verdict.SILENT
    if rules.policy is not None and not (own and principal.role == "admin" and action in _NEVER_LOCKED):
        asked = Asked(
            action,
            bucket.name,
            None if key is None else key.decode("utf-8", "surrogateescape"),
            None if principal.anonymous else principal.tenant,
            None if principal.anonymous else principal.access_key,
        )
        facts = _facts(call)
        if key is not None and rules.policy.asks_for_existing_tags:
            record = _look(call, bucket, key, version_id)
            facts = facts | existing_tags(record.tags if record is not None else ())
        verdict = rules.policy.evaluate(asked, facts)
        if verdict is Verdict.DENY:
            return False
    if own:
        return True
    if verdict is Verdict.ALLOW:
        assert rules.policy is not None
        if not (rules.block.restrict_public_buckets and rules.policy.is_public):
            return True
    return rules.ownership.lists_count and _listed(call, bucket, rules, action, key, version_id)


def _facts(call: Call) -> Facts:
    """Of the request, gathered once."""
    if call.facts is None:
        principal = call.principal
        call.facts = request_facts(
            call.claim,
            call.query,
            call.headers,
            of_bucket=call.key is None,
            secure=call.scheme == "https",
            address=call.address,
            tenant=None if principal.anonymous else principal.tenant,
            access_key=None if principal.anonymous else principal.access_key,
            now=call.services.clock(),
        )
    return call.facts


def _listed(
    call: Call, bucket: BucketRecord, rules: Rules, action: str, key: bytes | None, version_id: str | None
) -> bool:
    """Whether the bucket's or the object's list grants it."""
    tenant = None if call.principal.anonymous else call.principal.tenant

    def granted(grants: acl.Grants, owner: str, permission: str) -> bool:
        if rules.block.ignore_public_acls:
            grants = acl.without_public(grants, owner)
        return acl.allows(grants, owner, tenant, permission)

    wanted = _BUCKET_LIST.get(action)
    if wanted is not None and granted(rules.grants, bucket.owner, wanted):
        return True
    wanted = _OBJECT_LIST.get(action)
    if wanted is None or key is None:
        return False
    record = _look(call, bucket, key, version_id)
    if record is None:  # who may list may know that it is not there
        return granted(rules.grants, bucket.owner, "READ")
    return granted(record.acl, record.owner, wanted)


def _look(call: Call, bucket: BucketRecord, key: bytes, version_id: str | None) -> ObjectRecord | None:
    """The object (or the version) as it is now; None if there is none, or a delete marker. Not inside a commit."""
    try:
        wanted = parse_version(version_id or None)
    except S3Error:
        return None  # the operation says what is wrong with it
    with call.store.kv.snapshot() as reader:
        record = lookup(reader, bucket, key, wanted)
    return None if record is None or record.delete_marker else record
