"""`secret.key`: the file under which a store's access keys are encrypted.

Guarantees: it appears complete and durable or not at all, with mode 0600; two processes that start together use
the same one; an existing file is never overwritten, and a replaced one is kept as `secret.key.old`.

The file (in the data directory): 32 random bytes as 64 hexadecimal digits and a line feed. Two keys are derived
from it, each HMAC-SHA256(secret, label): the AES-256-GCM key with the label "vaultaire secret.key: encrypt access
keys, version 1"; the check value with "vaultaire secret.key: check, version 1". The check value reveals nothing; it
is kept in the store to tell whether a file is the right one.

Source: NIST SP 800-38D (random 96-bit nonces: safe up to 2^32 writes under one key).
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import shlex
from typing import TYPE_CHECKING

from cas.packs import sync_directory
from vaultaire.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

SECRET_KEY_FILE = "secret.key"
NEW_ROOT_COMMAND = "vaultaire key create --root --new-secret-key"
NONCE_BYTES = 12
TAG_BYTES = 16

_SECRET_BYTES = 32
_ENCRYPT_LABEL = b"vaultaire secret.key: encrypt access keys, version 1"
_CHECK_LABEL = b"vaultaire secret.key: check, version 1"


class SecretKeyError(StoreError):
    """Base: `secret.key` cannot serve. The objects are untouched; the message names the command that helps."""

    problem = "cannot be used"

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"{directory / SECRET_KEY_FILE} {self.problem}. The objects are intact, but without it the access keys "
            f"cannot be decrypted. Put the right file back; if it is lost, make a new one with a new root key "
            f"(all other access keys are dropped) by: {NEW_ROOT_COMMAND} --data {shlex.quote(str(directory))}"
        )
        self.directory = directory


class SecretKeyMissing(SecretKeyError):
    problem = "is missing"


class SecretKeyWrong(SecretKeyError):
    problem = "is not the one that belongs to this store, or is damaged"


class SecretKeyUnreadable(StoreError):
    """It is there, but not for this user."""

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(
            f"cannot read {directory / SECRET_KEY_FILE} ({reason}); run this as the user that owns the store"
        )
        self.directory = directory


class Undecryptable(Exception):
    """Encrypted under another key, or altered since."""


class SecretKey:
    """The two derived keys. Immutable, thread-safe."""

    def __init__(self, secret: bytes) -> None:
        # 30 ms to import: not for `vaultaire --help`
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(hmac.digest(secret, _ENCRYPT_LABEL, "sha256"))
        self.check = hmac.digest(secret, _CHECK_LABEL, "sha256")
        self.id = self.check[:8]

    def encrypt(self, plain: bytes, associated: bytes) -> bytes:
        """Nonce, ciphertext, tag."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, associated)

    def decrypt(self, sealed: bytes, associated: bytes) -> bytes:
        """Inverse of `encrypt`. Raises Undecryptable."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
        except InvalidTag as error:
            raise Undecryptable from error


def read_secret_key(directory: Path) -> SecretKey:
    """Raises SecretKeyMissing, SecretKeyUnreadable, SecretKeyWrong (not what this module writes)."""
    path = directory / SECRET_KEY_FILE
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
        exposed = path.stat().st_mode & 0o077
    except FileNotFoundError as error:
        raise SecretKeyMissing(directory) from error
    except ValueError as error:  # no hexadecimal digits, no ASCII
        raise SecretKeyWrong(directory) from error
    except OSError as error:
        raise SecretKeyUnreadable(directory, error.strerror or str(error)) from error
    if len(secret) != _SECRET_BYTES:
        raise SecretKeyWrong(directory)
    if exposed:
        log.warning("%s is open to other users; mend it with: chmod 600 %s", path, shlex.quote(str(path)))
    return SecretKey(secret)


def create_secret_key(directory: Path, *, replace: bool = False) -> None:
    """Make the file, durably. One that is there is moved aside if `replace`, else FileExistsError is raised.

    It is linked into place when complete and synced: a kill at any moment leaves no half file, which the next start
    could not tell from a damaged one, and of two processes exactly one wins (a rename would let the last one win,
    after the first has encrypted keys).
    """
    path = directory / SECRET_KEY_FILE
    scratch = directory / "tmp"
    scratch.mkdir(exist_ok=True)
    draft = scratch / f"{SECRET_KEY_FILE}.{secrets.token_hex(8)}"
    _write_synced(draft, secrets.token_hex(_SECRET_BYTES).encode("ascii") + b"\n")
    try:
        if replace and path.exists():
            path.replace(path.with_name(SECRET_KEY_FILE + ".old"))
        os.link(draft, path)
    finally:
        draft.unlink()
    sync_directory(directory)


def _write_synced(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
