"""Who signs requests: an access key with its tenant, its role and what limits it. The words, without where they are kept.

A tenant is a name: it exists while a key or a bucket names it. What a role may do is decided where requests are
(`vaultaire.s3.ceiling`).
"""

from __future__ import annotations

import base64
import re
import secrets
import string
from dataclasses import dataclass, field
from typing import Final, Literal

from vaultaire.errors import StoreError
from vaultaire.key_limits import MAX_BYTES, MAX_EXEMPT, MAX_SCOPES, UNLIMITED, Limits

Role = Literal["admin", "read-write", "read-only", "append-only"]
# Stored as position + 1: append only.
ROLES: Final[tuple[Role, ...]] = ("admin", "read-write", "read-only", "append-only")

ROOT_TENANT: Final = "root"

# Access keys stand between "/" and "," in the Authorization header, in URLs and in shells: nothing that any of
# them would have to quote. https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html
_ACCESS_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@:~-]{2,127}")
_SECRET = re.compile(r"[\x21-\x7e]{8,128}")
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AccessError(StoreError):
    """Base of what is wrong with an access key."""


class InvalidKey(AccessError, ValueError):
    """An access key, secret, tenant or role that cannot be used. The message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever signs with this key. Its `repr` does not show the secret."""

    access_key: str
    secret_key: str = field(repr=False)
    tenant: str
    role: Role
    root: bool = False
    limits: Limits = UNLIMITED

    @property
    def can_write(self) -> bool:
        return self.role != "read-only"

    @property
    def limited(self) -> bool:
        """Whether the key has less than the whole of what its tenant has, beyond being read-only."""
        return self.role == "append-only" or bool(self.limits.scopes)

    @property
    def anonymous(self) -> bool:
        """Nobody's key: whoever sends requests without a signature."""
        return not self.access_key

    def reaches(self, tenant: str) -> bool:
        """Whether what belongs to `tenant` is open to this key at all (its role still limits what it may do)."""
        return self.root or self.tenant == tenant


# Stands where a request has no key. It has no role to limit it and no tenant; what it may do, a bucket says.
ANONYMOUS = Principal("", "", "", "read-write")


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be listed about a key: everything but its secret."""

    access_key: str
    tenant: str
    role: Role
    root: bool
    created_ms: int
    limits: Limits = UNLIMITED


def check_tenant(tenant: str) -> None:
    """Raises InvalidKey."""
    if not _TENANT.fullmatch(tenant):
        raise InvalidKey(
            "a tenant's name has 1 to 64 characters of A-Z a-z 0-9 . _ - and begins with one of A-Z a-z 0-9"
        )


def new_principal(
    tenant: str,
    role: Role,
    *,
    access_key: str | None = None,
    secret_key: str | None = None,
    root: bool = False,
    limits: Limits = UNLIMITED,
) -> Principal:
    """A validated principal; what is not given is random (90 and 238 bits). Raises InvalidKey."""
    access_key = _random_access_key() if access_key is None else access_key
    secret_key = _random_secret() if secret_key is None else secret_key
    if not _ACCESS_KEY.fullmatch(access_key):
        raise InvalidKey(
            "an access key has 3 to 128 characters of A-Z a-z 0-9 . _ + @ : ~ - and begins with a letter or digit"
        )
    if not _SECRET.fullmatch(secret_key):
        raise InvalidKey("a secret key has 8 to 128 printable ASCII characters without spaces")
    check_tenant(tenant)
    if role not in ROLES:
        raise InvalidKey(f"a role is one of {', '.join(ROLES)}")
    if root and (tenant, role) != (ROOT_TENANT, "admin"):
        raise InvalidKey(f"the root key belongs to tenant {ROOT_TENANT!r} and has the role 'admin'")
    _check_limits(role, limits, root=root)
    return Principal(access_key, secret_key, tenant, role, root, limits)


def _check_limits(role: Role, limits: Limits, *, root: bool) -> None:
    """Raises InvalidKey."""
    if root and limits != UNLIMITED:
        raise InvalidKey("a root key has no limits: it is there for when nothing else works any more")
    if limits.exempt and role != "append-only":
        raise InvalidKey(
            "exempt prefixes belong to the role 'append-only': the other roles have nothing to exempt"
        )
    if len(limits.scopes) > MAX_SCOPES or len(limits.exempt) > MAX_EXEMPT:
        raise InvalidKey(f"a key has at most {MAX_SCOPES} scopes and {MAX_EXEMPT} exempt prefixes")
    if len(limits.encode()) > MAX_BYTES:
        raise InvalidKey(f"the scopes and exempt prefixes of a key take at most {MAX_BYTES} bytes in all")


def new_root(access_key: str | None = None, secret_key: str | None = None) -> Principal:
    return new_principal(ROOT_TENANT, "admin", access_key=access_key, secret_key=secret_key, root=True)


def _random_access_key() -> str:
    return "VK" + base64.b32encode(secrets.token_bytes(12)).decode("ascii")[:18]


def _random_secret() -> str:
    """Letters and digits only: a double click selects it, and no command line takes it for an option."""
    return "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(40))
