"""Access keys: who may sign requests, for which tenant, in which role; their secrets encrypted at rest.

Guarantees:

* A secret is on disk only encrypted (AES-256-GCM) under the store's `secret.key`; without that file every object
  stays readable, but nobody can sign in: `SecretKeyMissing`, `SecretKeyWrong`, each naming the way out.
* A changed or deleted key counts from the next `lookup` on: only decrypted secrets are cached, and only for as
  long as the row's bytes stay what they were.
* Access keys are unique in the store; a store that has a root key never loses its last one.
* Role, tenant and root attribute are authenticated with the secret: a row edited by hand is refused, not obeyed.

What a role may do is decided where requests are; here it is only kept. A tenant is a name: it exists while a key or a
bucket names it.

Table "srv.keys": row key = the access key in ASCII. Value, integers big-endian:

    offset  size  field
    0       1     magic 0x4B ("K")
    1       1     version, 1; any other is refused
    2       2     header length H: offset of the nonce. Bytes between the known fields and H are skipped
    4       2     incompatible flags, 0: a reader refuses any bit it does not know
    6       2     compatible flags, 0: a reader skips what it does not know
    8       1     role: 1 admin, 2 read-write, 3 read-only
    9       1     attributes: bit 0 = root key
    10      8     created, milliseconds since 1970 UTC (0: unknown)
    18      8     first 8 bytes of the check value of the `secret.key` that encrypts this row (vaultaire.secret_key)
    26      1     T, length of the tenant's name, 1 to 64
    27      T     tenant, ASCII
    H       12    nonce, random for every write
    H+12    n+16  secret key (ASCII), encrypted, and GCM's tag

Associated data: length of the access key (1 byte), access key, the value's bytes 0 to H.

Table "srv.settings": row "secret-key-check" = 0x43 ("C"), version 1, check value (32 bytes); written in the same
commit as the first access key.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
import secrets
import string
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from vaultaire.errors import StoreError
from vaultaire.secret_key import (
    NONCE_BYTES,
    SECRET_KEY_FILE,
    TAG_BYTES,
    SecretKey,
    SecretKeyError,
    SecretKeyMissing,
    SecretKeyUnreadable,
    SecretKeyWrong,
    Undecryptable,
    create_secret_key,
    read_secret_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from index.kv import Reader, Transaction

log = logging.getLogger(__name__)

__all__ = [
    "ANONYMOUS",
    "ROLES",
    "ROOT_TENANT",
    "TABLES",
    "AccessError",
    "AccessKeyExists",
    "DamagedKey",
    "InvalidKey",
    "KeyInfo",
    "Keyring",
    "LastRootKey",
    "Principal",
    "Role",
    "RootKey",
    "SecretKeyError",
    "SecretKeyMissing",
    "SecretKeyUnreadable",
    "SecretKeyWrong",
    "UnknownAccessKey",
    "new_principal",
    "new_root",
]

Role = Literal["admin", "read-write", "read-only"]
ROLES: tuple[Role, ...] = ("admin", "read-write", "read-only")  # stored as position + 1: append only

KEYS_TABLE = "srv.keys"
SETTINGS_TABLE = "srv.settings"
TABLES = (KEYS_TABLE, SETTINGS_TABLE)
ROOT_TENANT = "root"

_CHECK_ROW = b"secret-key-check"
_CHECK_HEAD = b"C\x01"

_HEAD = struct.Struct(">BBHHHBBQ8sB")
_MAGIC, _VERSION = 0x4B, 1
_ROOT_ATTRIBUTE = 0x01

# Access keys stand between "/" and "," in the Authorization header, in URLs and in shells: nothing that any of
# them would have to quote. https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html
_ACCESS_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@:~-]{2,127}")
_SECRET = re.compile(r"[\x21-\x7e]{8,128}")
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AccessError(StoreError):
    """Base of what this module raises."""


class InvalidKey(AccessError, ValueError):
    """An access key, secret, tenant or role that cannot be used. The message says what is allowed."""


class UnknownAccessKey(AccessError):
    def __init__(self, access_key: str) -> None:
        super().__init__(f"there is no access key {access_key!r}; see them all with: vaultaire key list")
        self.access_key = access_key


class AccessKeyExists(AccessError):
    def __init__(self, access_key: str) -> None:
        super().__init__(
            f"access key {access_key!r} exists already; choose another, or delete it first with: "
            f"vaultaire key delete {access_key}"
        )
        self.access_key = access_key


class LastRootKey(AccessError):
    def __init__(self, access_key: str) -> None:
        super().__init__(
            f"{access_key!r} is the last root key: without one nobody reaches all tenants any more; "
            "make another first with: vaultaire key create --root"
        )
        self.access_key = access_key


class DamagedKey(AccessError):
    """A row that this version cannot read, or that was changed behind our back."""

    def __init__(self, access_key: str, reason: str) -> None:
        super().__init__(
            f"the stored access key {access_key!r} is not usable ({reason}); delete it with: "
            f"vaultaire key delete {access_key}, then create a new one"
        )
        self.access_key = access_key


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever signs with this key. Its `repr` does not show the secret."""

    access_key: str
    secret_key: str = field(repr=False)
    tenant: str
    role: Role
    root: bool = False

    @property
    def can_write(self) -> bool:
        return self.role != "read-only"

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


@dataclass(frozen=True, slots=True)
class RootKey:
    """What `Keyring.ensure_root` did, and the root key that now holds."""

    action: Literal["created", "replaced", "unchanged"]
    principal: Principal
    removed: tuple[str, ...] = ()  # access keys of former root keys


def new_principal(
    tenant: str,
    role: Role,
    *,
    access_key: str | None = None,
    secret_key: str | None = None,
    root: bool = False,
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
    if not _TENANT.fullmatch(tenant):
        raise InvalidKey(
            "a tenant's name has 1 to 64 characters of A-Z a-z 0-9 . _ - and begins with one of A-Z a-z 0-9"
        )
    if role not in ROLES:
        raise InvalidKey(f"a role is one of {', '.join(ROLES)}")
    if root and (tenant, role) != (ROOT_TENANT, "admin"):
        raise InvalidKey(f"the root key belongs to tenant {ROOT_TENANT!r} and has the role 'admin'")
    return Principal(access_key, secret_key, tenant, role, root)


def new_root(access_key: str | None = None, secret_key: str | None = None) -> Principal:
    return new_principal(ROOT_TENANT, "admin", access_key=access_key, secret_key=secret_key, root=True)


def _random_access_key() -> str:
    return "VK" + base64.b32encode(secrets.token_bytes(12)).decode("ascii")[:18]


def _random_secret() -> str:
    """Letters and digits only: a double click selects it, and no command line takes it for an option."""
    return "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(40))


def secret_key_check(reader: Reader) -> bytes | None:
    """The check value of the `secret.key` that belongs to the store; None: it has no access key yet."""
    row = reader.get(SETTINGS_TABLE, _CHECK_ROW)
    return None if row is None else row[len(_CHECK_HEAD) :]


class Keyring:
    """The access keys, seen through `secret.key`. Thread-safe."""

    def __init__(self, directory: Path, secret_key: SecretKey) -> None:
        """`directory`: the store's. Normally made by `load`, `open_or_create` or `replace_secret_key`."""
        self.directory = directory
        self._secret_key = secret_key
        self._cache: dict[str, tuple[bytes, Principal]] = {}

    @classmethod
    def load(cls, directory: Path, reader: Reader) -> Keyring:
        """Read `secret.key` and prove that it belongs to this store.

        Raises SecretKeyMissing, SecretKeyWrong, SecretKeyUnreadable.
        """
        keyring = cls(directory, read_secret_key(directory))
        keyring._verify(reader)
        return keyring

    @classmethod
    def open_or_create(cls, directory: Path, reader: Reader) -> Keyring:
        """As `load`; a store without any access key yet (its first start) gets its `secret.key` here."""
        fresh = reader.get(SETTINGS_TABLE, _CHECK_ROW) is None
        if fresh and not (directory / SECRET_KEY_FILE).exists():
            with contextlib.suppress(FileExistsError):  # another process made it just now: use that one
                create_secret_key(directory)
        return cls.load(directory, reader)

    @classmethod
    def replace_secret_key(cls, directory: Path) -> Keyring:
        """A new `secret.key` in place of a lost or wrong one. Call `reset` next.

        Until `reset` is committed the store still says SecretKeyWrong: a crash in between loses nothing, run again.
        """
        create_secret_key(directory, replace=True)
        return cls(directory, read_secret_key(directory))

    def _verify(self, reader: Reader) -> None:
        stored = reader.get(SETTINGS_TABLE, _CHECK_ROW)
        if stored is not None and stored != _CHECK_HEAD + self._secret_key.check:
            raise SecretKeyWrong(self.directory)

    def lookup(self, reader: Reader, access_key: str) -> Principal | None:
        """The principal, or None if there is no such key. Any string will do. One `reader.get`, mostly no more.

        Raises DamagedKey; SecretKeyError if `secret.key` was replaced by one that does not fit the row.
        """
        if not 3 <= len(access_key) <= 128 or not access_key.isascii():
            return None
        row = reader.get(KEYS_TABLE, access_key.encode("ascii"))
        if row is None:
            self._cache.pop(access_key, None)
            return None
        cached = self._cache.get(access_key)
        if cached is not None and cached[0] == row:
            return cached[1]
        principal = self._decrypt(access_key, row)
        self._cache[access_key] = (row, principal)
        return principal

    def _decrypt(self, access_key: str, row: bytes) -> Principal:
        head = _decode_head(access_key, row)
        if head.secret_id != self._secret_key.id:
            self._reload(head.secret_id)
        try:
            secret = self._secret_key.decrypt(row[head.end :], _associated(access_key, row[: head.end]))
        except Undecryptable as error:
            raise DamagedKey(access_key, "it does not decrypt: the row was altered") from error
        info = head.info
        return Principal(access_key, secret.decode("ascii"), info.tenant, info.role, info.root)

    def _reload(self, secret_id: bytes) -> None:
        """`vaultaire key create --root --new-secret-key` may run beside a server: then the file is newer than we."""
        fresh = read_secret_key(self.directory)
        if fresh.id != secret_id:
            raise SecretKeyWrong(self.directory)
        self._secret_key = fresh

    def put_key(
        self, txn: Transaction, principal: Principal, *, now_ms: int = 0, replace: bool = False
    ) -> None:
        """Store `principal` (from `new_principal`). Raises AccessKeyExists unless `replace`, SecretKeyWrong."""
        self._verify(txn)
        key = principal.access_key.encode("ascii")
        if not replace and txn.get(KEYS_TABLE, key) is not None:
            raise AccessKeyExists(principal.access_key)
        txn.put(SETTINGS_TABLE, _CHECK_ROW, _CHECK_HEAD + self._secret_key.check)
        txn.put(KEYS_TABLE, key, self._encrypt(principal, now_ms))

    def _encrypt(self, principal: Principal, now_ms: int) -> bytes:
        tenant = principal.tenant.encode("ascii")
        end = _HEAD.size + len(tenant)
        role = ROLES.index(principal.role) + 1
        attributes = _ROOT_ATTRIBUTE if principal.root else 0
        key_id = self._secret_key.id
        head = _HEAD.pack(_MAGIC, _VERSION, end, 0, 0, role, attributes, now_ms, key_id, len(tenant)) + tenant
        secret = principal.secret_key.encode("ascii")
        return head + self._secret_key.encrypt(secret, _associated(principal.access_key, head))

    @staticmethod
    def delete_key(txn: Transaction, access_key: str) -> KeyInfo | None:
        """Remove it, decryptable or not; what it was, None if its row could not be read.

        Raises UnknownAccessKey, LastRootKey.
        """
        key = access_key.encode("utf-8")
        row = txn.get(KEYS_TABLE, key) if 1 <= len(key) <= 128 else None
        if row is None:
            raise UnknownAccessKey(access_key)
        try:
            info = _decode_head(access_key, row).info
        except DamagedKey:
            info = None
        if (
            info is not None
            and info.root
            and not any(other.root and other != info for other in Keyring.list_keys(txn))
        ):
            raise LastRootKey(access_key)
        txn.delete(KEYS_TABLE, key)
        return info

    @staticmethod
    def list_keys(reader: Reader) -> Iterator[KeyInfo]:
        """All that can be read, in order of access key; needs no `secret.key`. Lazy, as `Reader.scan`."""
        for key, row in reader.scan(KEYS_TABLE):
            access_key = key.decode("ascii", "replace")
            try:
                yield _decode_head(access_key, row).info
            except DamagedKey as error:
                log.warning("%s", error)

    def root_keys(self, reader: Reader) -> list[Principal]:
        """Decrypted, oldest first: the first one is what `vaultaire env` shows."""
        roots = sorted(
            (info for info in self.list_keys(reader) if info.root), key=lambda info: info.created_ms
        )
        return [principal for info in roots if (principal := self.lookup(reader, info.access_key))]

    def ensure_root(self, txn: Transaction, offered: Principal, *, given: bool, now_ms: int) -> RootKey:
        """Make sure that there is a root key, at every start of the server.

        `offered` (from `new_root`) becomes the root key if there is none. If it is `given` by the operator rather
        than random, it also takes the place of all root keys that there are, unless it is one of them already.
        """
        roots = self.root_keys(txn)
        if not given and roots:
            return RootKey("unchanged", roots[0])
        if offered in roots:
            return RootKey("unchanged", offered)
        same_name = any(root.access_key == offered.access_key for root in roots)
        self.put_key(txn, offered, now_ms=now_ms, replace=same_name)
        removed = () if same_name else tuple(root.access_key for root in roots)
        for access_key in removed:
            self.delete_key(txn, access_key)
        return RootKey("replaced" if roots else "created", offered, removed)

    def reset(self, txn: Transaction, root: Principal, *, now_ms: int) -> list[str]:
        """Make this `secret.key` the store's, with `root` as root key. Returns the access keys that had to go.

        Those are all that were encrypted under another `secret.key`: nothing can decrypt them any more.
        """
        dropped = []
        for key, row in list(txn.scan(KEYS_TABLE)):
            access_key = key.decode("ascii", "replace")
            try:
                self._decrypt(access_key, row)
            except (DamagedKey, SecretKeyError):
                txn.delete(KEYS_TABLE, key)
                dropped.append(access_key)
        txn.delete(SETTINGS_TABLE, _CHECK_ROW)
        self.put_key(txn, root, now_ms=now_ms)
        return dropped


@dataclass(frozen=True, slots=True)
class _Head:
    """The clear part of a row."""

    info: KeyInfo
    secret_id: bytes
    end: int  # offset of the nonce


def _decode_head(access_key: str, row: bytes) -> _Head:
    if len(row) < _HEAD.size:
        raise DamagedKey(access_key, "the row is too short")
    magic, version, end, incompatible, _, role, attributes, created_ms, secret_id, length = _HEAD.unpack_from(
        row
    )
    if magic != _MAGIC or version != _VERSION or incompatible:
        raise DamagedKey(access_key, "written by another version of Vaultaire")
    name_end = _HEAD.size + length
    if not 1 <= role <= len(ROLES) or not name_end <= end <= len(row) - NONCE_BYTES - TAG_BYTES:
        raise DamagedKey(access_key, "the row's fields contradict each other")
    tenant = row[_HEAD.size : name_end].decode("ascii", "replace")
    info = KeyInfo(access_key, tenant, ROLES[role - 1], bool(attributes & _ROOT_ATTRIBUTE), created_ms)
    return _Head(info, secret_id, end)


def _associated(access_key: str, head: bytes) -> bytes:
    name = access_key.encode("ascii")
    return bytes([len(name)]) + name + head
