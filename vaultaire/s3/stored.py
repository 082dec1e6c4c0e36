"""A bucket's configurations as the store keeps them (index/SCHEMA.md), and as values that are parsed once.

A stored value is a version byte and the document that S3's GET answers. Parsed ones are cached by their bytes, so a
configuration counts from the commit that stored it on, in every process.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from index.configs import get_config, get_configs
from index.errors import UnsupportedRecord
from vaultaire.s3 import acl, cors, policy, stored_lifecycle
from vaultaire.s3.bucket_settings import (
    NOTHING_BLOCKED,
    Ownership,
    PublicAccessBlock,
    parse_ownership,
    parse_public_access_block,
)

if TYPE_CHECKING:
    from index.kv import Reader
    from index.records import BucketRecord
    from vaultaire.s3 import lifecycle

ACL = "acl"
CORS = "cors"
ENCRYPTION = "encryption"
OWNERSHIP = "ownership"
POLICY = "policy"
PUBLIC_ACCESS_BLOCK = "public-access-block"
TAGGING = "tagging"

_VERSION = b"\x01"
_CACHED = 256  # parsed documents of each kind


def wrap(document: bytes) -> bytes:
    """A document as it is stored."""
    return _VERSION + document


def unwrap(value: bytes) -> bytes:
    """Raises UnsupportedRecord."""
    if value[:1] != _VERSION:
        raise UnsupportedRecord("bucket configuration", f"version {value[:1].hex()} instead of 01")
    return value[1:]


def document(reader: Reader, bucket_id: int, name: str) -> bytes | None:
    """The document as it was stored; None if there is none."""
    value = get_config(reader, bucket_id, name)
    return None if value is None else unwrap(value)


def rules_of(reader: Reader, bucket: BucketRecord) -> tuple[policy.Policy | None, bool, lifecycle.Rules]:
    """The policy, whether there is a default encryption, lifecycle: what requests ask for, in one round trip."""
    value, encryption, expiry = get_configs(reader, bucket.id, (POLICY, ENCRYPTION, stored_lifecycle.CONFIG))
    return (
        None if value is None else _policy(value, bucket.name),
        encryption is not None,
        () if expiry is None else stored_lifecycle.unwrap_rules(expiry),
    )


def cors_of(reader: Reader, bucket_id: int) -> tuple[cors.CorsRule, ...] | None:
    value = get_config(reader, bucket_id, CORS)
    return None if value is None else _cors(value)


def ownership_of(reader: Reader, bucket_id: int) -> Ownership:
    value = get_config(reader, bucket_id, OWNERSHIP)
    return Ownership.ENFORCED if value is None else _ownership(value)


def block_of(reader: Reader, bucket_id: int) -> PublicAccessBlock:
    value = get_config(reader, bucket_id, PUBLIC_ACCESS_BLOCK)
    return NOTHING_BLOCKED if value is None else _block(value)


def acl_of(reader: Reader, bucket: BucketRecord) -> acl.Grants:
    """The bucket's own list, whether it counts or not; () is private."""
    value = get_config(reader, bucket.id, ACL)
    return () if value is None else _acl(value, bucket.owner)


def access_of(reader: Reader, bucket: BucketRecord) -> tuple[Ownership, PublicAccessBlock, acl.Grants]:
    """What decides about strangers, beside the policy; one round trip."""
    ownership, block, grants = get_configs(reader, bucket.id, (OWNERSHIP, PUBLIC_ACCESS_BLOCK, ACL))
    return (
        Ownership.ENFORCED if ownership is None else _ownership(ownership),
        NOTHING_BLOCKED if block is None else _block(block),
        () if grants is None else _acl(grants, bucket.owner),
    )


@lru_cache(maxsize=_CACHED)
def _policy(value: bytes, bucket: str) -> policy.Policy:
    return policy.parse(unwrap(value), bucket)


@lru_cache(maxsize=_CACHED)
def _cors(value: bytes) -> tuple[cors.CorsRule, ...]:
    return cors.parse_xml(unwrap(value))


@lru_cache(maxsize=_CACHED)
def _ownership(value: bytes) -> Ownership:
    return parse_ownership(unwrap(value))


@lru_cache(maxsize=_CACHED)
def _block(value: bytes) -> PublicAccessBlock:
    return parse_public_access_block(unwrap(value))


@lru_cache(maxsize=_CACHED)
def _acl(value: bytes, owner: str) -> acl.Grants:
    return acl.parse_xml(unwrap(value), owner)
