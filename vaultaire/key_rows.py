"""The row of an access key: what it says in clear, and how the secret is bound to it. Pure.

Table "srv.keys": row key = the access key in ASCII. Value, integers big-endian:

    offset  size  field
    0       1     magic 0x4B ("K")
    1       1     version, 2; any other is refused
    2       2     header length H: offset of the nonce. Bytes between the known fields and H are skipped
    4       2     incompatible flags, 0: a reader refuses any bit it does not know
    6       2     compatible flags, 0: a reader skips what it does not know
    8       1     role: 1 admin, 2 read-write, 3 read-only, 4 append-only
    9       1     attributes: bit 0 = root key
    10      8     created, milliseconds since 1970 UTC (0: unknown)
    18      8     first 8 bytes of the check value of the `secret.key` that encrypts this row (vaultaire.secret_key)
    26      2     L, length of the limits
    28      1     T, length of the tenant's name, 1 to 64
    29      T     tenant, ASCII
    29+T    L     limits (vaultaire.key_limits)
    H       12    nonce, random for every write
    H+12    n+16  secret key (ASCII), encrypted, and GCM's tag

Associated data: length of the access key (1 byte), access key, the value's bytes 0 to H. So role, tenant, limits and
root attribute are authenticated with the secret: a row edited by hand is refused, not obeyed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultaire.key_limits import Limits
from vaultaire.principal import ROLES, AccessError, KeyInfo
from vaultaire.secret_key import NONCE_BYTES, TAG_BYTES

if TYPE_CHECKING:
    from vaultaire.principal import Principal

_HEAD: Final = struct.Struct(">BBHHHBBQ8sHB")
_MAGIC, _VERSION = 0x4B, 2
_ROOT_ATTRIBUTE: Final = 0x01


class DamagedKey(AccessError):
    """A row that this version cannot read, or that was changed behind our back."""

    def __init__(self, access_key: str, reason: str) -> None:
        super().__init__(
            f"the stored access key {access_key!r} is not usable ({reason}); delete it with: "
            f"vaultaire key delete {access_key}, then create a new one"
        )
        self.access_key = access_key


@dataclass(frozen=True, slots=True)
class Head:
    """The clear part of a row."""

    info: KeyInfo
    secret_id: bytes
    end: int  # offset of the nonce


def encode_head(principal: Principal, created_ms: int, secret_id: bytes) -> bytes:
    """All of a row but the encrypted secret."""
    tenant, limits = principal.tenant.encode("ascii"), principal.limits.encode()
    end = _HEAD.size + len(tenant) + len(limits)
    role = ROLES.index(principal.role) + 1
    attributes = _ROOT_ATTRIBUTE if principal.root else 0
    fixed = _HEAD.pack(
        _MAGIC, _VERSION, end, 0, 0, role, attributes, created_ms, secret_id, len(limits), len(tenant)
    )
    return fixed + tenant + limits


def decode_head(access_key: str, row: bytes) -> Head:
    """Raises DamagedKey."""
    if len(row) < _HEAD.size:
        raise DamagedKey(access_key, "the row is too short")
    magic, version, end, incompatible, _, role, attributes, created_ms, secret_id, limits_bytes, length = (
        _HEAD.unpack_from(row)
    )
    if magic != _MAGIC or version != _VERSION or incompatible:
        raise DamagedKey(access_key, "written by another version of Vaultaire")
    name_end = _HEAD.size + length
    limits_end = name_end + limits_bytes
    if not 1 <= role <= len(ROLES) or not limits_end <= end <= len(row) - NONCE_BYTES - TAG_BYTES:
        raise DamagedKey(access_key, "the row's fields contradict each other")
    tenant = row[_HEAD.size : name_end].decode("ascii", "replace")
    try:
        limits = Limits.decode(row[name_end:limits_end])
    except ValueError as error:
        raise DamagedKey(access_key, str(error)) from error
    info = KeyInfo(
        access_key, tenant, ROLES[role - 1], bool(attributes & _ROOT_ATTRIBUTE), created_ms, limits
    )
    return Head(info, secret_id, end)


def associated(access_key: str, head: bytes) -> bytes:
    """What the secret's encryption authenticates."""
    name = access_key.encode("ascii")
    return bytes([len(name)]) + name + head
