"""Access keys: who may sign requests, for which tenant, in which role; their secrets encrypted at rest.

Guarantees:

* A secret is on disk only encrypted (AES-256-GCM) under the store's `secret.key`; without that file every object
  stays readable, but nobody can sign in: `SecretKeyMissing`, `SecretKeyWrong`, each naming the way out.
* A changed or deleted key counts from the next `lookup` on: only decrypted secrets are cached, and only for as
  long as the row's bytes stay what they were.
* Access keys are unique in the store; a store that has a root key never loses its last one.

Table "srv.keys": `vaultaire.key_rows`. Table "srv.settings": row "secret-key-check" = 0x43 ("C"), version 1, check
value (32 bytes); written in the same commit as the first access key.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vaultaire.key_rows import DamagedKey, associated, decode_head, encode_head
from vaultaire.principal import (
    ANONYMOUS,
    ROLES,
    ROOT_TENANT,
    AccessError,
    InvalidKey,
    KeyInfo,
    Principal,
    Role,
    new_principal,
    new_root,
)
from vaultaire.secret_key import (
    SECRET_KEY_FILE,
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
    from vaultaire.key_limits import Limits

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

KEYS_TABLE = "srv.keys"
SETTINGS_TABLE = "srv.settings"
TABLES = (KEYS_TABLE, SETTINGS_TABLE)

_CHECK_ROW = b"secret-key-check"
_CHECK_HEAD = b"C\x01"


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


@dataclass(frozen=True, slots=True)
class RootKey:
    """What `Keyring.ensure_root` did, and the root key that now holds."""

    action: Literal["created", "replaced", "unchanged"]
    principal: Principal
    removed: tuple[str, ...] = ()  # access keys of former root keys


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
        head = decode_head(access_key, row)
        if head.secret_id != self._secret_key.id:
            self._reload(head.secret_id)
        try:
            secret = self._secret_key.decrypt(row[head.end :], associated(access_key, row[: head.end]))
        except Undecryptable as error:
            raise DamagedKey(access_key, "it does not decrypt: the row was altered") from error
        info = head.info
        return Principal(access_key, secret.decode("ascii"), info.tenant, info.role, info.root, info.limits)

    def _reload(self, secret_id: bytes) -> None:
        """`vaultaire key create --root --new-secret-key` may run beside a server: then the file is newer than we."""
        fresh = read_secret_key(self.directory)
        if fresh.id != secret_id:
            raise SecretKeyWrong(self.directory)
        self._secret_key = fresh

    def put_key(
        self, txn: Transaction, principal: Principal, *, now_ms: int = 0, overwrite: bool = False
    ) -> None:
        """Store `principal` (from `new_principal`). Raises AccessKeyExists unless `overwrite`, SecretKeyWrong."""
        self._verify(txn)
        key = principal.access_key.encode("ascii")
        if not overwrite and txn.get(KEYS_TABLE, key) is not None:
            raise AccessKeyExists(principal.access_key)
        txn.put(SETTINGS_TABLE, _CHECK_ROW, _CHECK_HEAD + self._secret_key.check)
        txn.put(KEYS_TABLE, key, self._encrypt(principal, now_ms))

    def _encrypt(self, principal: Principal, now_ms: int) -> bytes:
        head = encode_head(principal, now_ms, self._secret_key.id)
        secret = principal.secret_key.encode("ascii")
        return head + self._secret_key.encrypt(secret, associated(principal.access_key, head))

    def set_limits(self, txn: Transaction, access_key: str, limits: Limits) -> Principal:
        """Give a key other limits; they hold for every request that begins later. The key with them.

        Raises UnknownAccessKey, InvalidKey (a root key has none), DamagedKey, SecretKeyWrong.
        """
        principal = self.lookup(txn, access_key)
        row = txn.get(KEYS_TABLE, access_key.encode("ascii")) if principal is not None else None
        if principal is None or row is None:
            raise UnknownAccessKey(access_key)
        changed = new_principal(
            principal.tenant,
            principal.role,
            access_key=access_key,
            secret_key=principal.secret_key,
            root=principal.root,
            limits=limits,
        )
        created_ms = decode_head(access_key, row).info.created_ms
        self.put_key(txn, changed, now_ms=created_ms, overwrite=True)
        return changed

    def rotate(
        self, txn: Transaction, access_key: str, fresh: Principal, *, now_ms: int, grace_ms: int
    ) -> Principal:
        """Put a successor beside a key, with its tenant, role and limits; the old one ends `grace_ms` from now.

        `fresh` (from `new_principal`) gives the new access key and secret. Returns the successor. Raises
        UnknownAccessKey, AccessKeyExists, InvalidKey for a root key (make another, then delete it).
        """
        old = self.lookup(txn, access_key)
        if old is None:
            raise UnknownAccessKey(access_key)
        if old.root:
            raise InvalidKey(
                "a root key does not expire, so it is not rotated: make another with "
                "`vaultaire key create --root`, then delete this one"
            )
        successor = replace(old, access_key=fresh.access_key, secret_key=fresh.secret_key)
        self.put_key(txn, successor, now_ms=now_ms)
        if grace_ms:
            end = min(now_ms + grace_ms, old.limits.expires_ms or now_ms + grace_ms)
            self.set_limits(txn, access_key, replace(old.limits, expires_ms=end))
        else:
            self.delete_key(txn, access_key)
        return successor

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
            info = decode_head(access_key, row).info
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
                yield decode_head(access_key, row).info
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
        self.put_key(txn, offered, now_ms=now_ms, overwrite=same_name)
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
