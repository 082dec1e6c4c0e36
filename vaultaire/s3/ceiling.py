"""What the role and the limits of an access key let it do at all, whoever owns the bucket and whatever it allows.

A ceiling, never a grant: `vaultaire.s3.authorize` asks here first, then decides by tenant, policy and lists.

* **admin**, **read-write**: everything. **read-only**: what changes nothing.
* **append-only**: reads, and makes what is not there yet: new objects, its own multipart uploads, new buckets, longer
  locks. It overwrites nothing, deletes nothing, changes no tag, list or setting, finishes or aborts no upload of another
  key. What it may do is listed below; an operation that is not listed is refused, so that a new one is safe. Two checks
  need the object and are made elsewhere: `index.versions.Change.create_only` (inside the commit), and
  `Call.require_initiator`. Below an exempt prefix it is a read-write key.
* Scopes: `vaultaire.key_limits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vaultaire.s3.actions import NEEDS
from vaultaire.s3.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultaire.access import Principal

_CREATING: Final = frozenset(
    (
        Operation.CREATE_BUCKET,
        Operation.PUT_OBJECT,
        Operation.POST_OBJECT,
        Operation.COPY_OBJECT,
        Operation.CREATE_MULTIPART_UPLOAD,
        Operation.UPLOAD_PART,
        Operation.UPLOAD_PART_COPY,
        Operation.COMPLETE_MULTIPART_UPLOAD,
        Operation.ABORT_MULTIPART_UPLOAD,  # its own only
        Operation.PUT_OBJECT_RETENTION,  # only ever longer: shortening takes an admin key
        Operation.PUT_OBJECT_LEGAL_HOLD,  # on, not off
        Operation.DELETE_OBJECTS,  # asks for every key: exempt ones may go
    )
)
_DESTROYING: Final = frozenset(("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"))

# Of a bucket that is only partly in scope a key may ask these; lists only below its prefix.
_LISTING: Final = frozenset(
    (
        Operation.LIST_OBJECTS,
        Operation.LIST_OBJECTS_V2,
        Operation.LIST_OBJECT_VERSIONS,
        Operation.LIST_MULTIPART_UPLOADS,
    )
)
_ABOUT_BUCKET: Final = frozenset(
    (
        Operation.HEAD_BUCKET,
        Operation.GET_BUCKET_LOCATION,
        Operation.GET_BUCKET_VERSIONING,
        Operation.GET_OBJECT_LOCK_CONFIGURATION,
    )
)


def admits(
    principal: Principal,
    operation: Operation,
    *,
    writes: bool,
    bucket: str | None,
    key: bytes | None,
    query: Mapping[str, str],
) -> bool:
    """Whether the key may send this request at all."""
    if writes and not principal.can_write:
        return False
    if not principal.limited:
        return True
    bound = writes and principal.role == "append-only" and operation not in _CREATING
    if bound and (bucket is None or key is None or creates_only(principal, bucket, key)):
        return False
    return _in_scope(principal, operation, bucket, key, query)


def _in_scope(
    principal: Principal,
    operation: Operation,
    bucket: str | None,
    key: bytes | None,
    query: Mapping[str, str],
) -> bool:
    limits = principal.limits
    if bucket is None:
        return True  # ListBuckets shows what is in scope
    if key is not None:
        return limits.covers_prefix(bucket, key)
    if limits.covers_bucket(bucket):
        return True
    if operation in _LISTING:
        return limits.covers_prefix(bucket, query.get("prefix", "").encode("utf-8", "surrogateescape"))
    asks_for_each = NEEDS[operation].kind == "object"  # keys in the body: `covers` is asked for every one
    return limits.touches_bucket(bucket) and (asks_for_each or operation in _ABOUT_BUCKET)


def covers(principal: Principal, bucket: str, action: str, key: bytes | None) -> bool:
    """Whether the key may do `action` to one key (or to the bucket) that a request that was let in turned out to mean."""
    if not principal.limited:
        return True
    limits = principal.limits
    if key is None:
        return limits.touches_bucket(bucket)
    if not limits.covers_prefix(bucket, key):
        return False
    return principal.role != "append-only" or action not in _DESTROYING or limits.is_exempt(bucket, key)


def creates_only(principal: Principal, bucket: str, key: bytes) -> bool:
    """Whether what is at `key` must stay as it is."""
    return principal.role == "append-only" and not principal.limits.is_exempt(bucket, key)
