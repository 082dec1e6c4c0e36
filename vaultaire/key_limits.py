"""What narrows an access key beyond its role: where it may work, until when, and what `append-only` leaves free. Pure.

A scope is a bucket, or a bucket and a prefix of its keys, as S3 means prefixes: plain bytes, no wildcard. A key with
scopes does nothing outside them, whatever bucket policies allow. Without scopes it reaches all that its tenant has.

`exempt` are prefixes, counted from the prefix of the scope (or from the beginning of the key), below which an
append-only key may also overwrite and delete: a restic repository has to remove its `locks/`.

Encoded, integers big-endian: expiry u64 (milliseconds since 1970 UTC, 0: never), flags u8 (bit 0: disabled; another
bit is refused), then entries: kind u8 (1 scope's bucket, 2 prefix of the scope before it, 3 exempt prefix; another is
refused), length u16, bytes. What limits is never skipped: a reader that does not know it must refuse the key.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SCOPES: Final = 64
MAX_EXEMPT: Final = 64
MAX_PREFIX_BYTES: Final = 1024
MAX_BYTES: Final = 32 << 10  # encoded; every request of the key reads them

# What append-only has to leave free for a program that keeps locks beside its data.
PRESETS: Final[dict[str, tuple[str, ...]]] = {"restic": ("locks/",)}

_HEAD: Final = struct.Struct(">QB")
_ENTRY: Final = struct.Struct(">BH")
_DISABLED: Final = 0x01
_BUCKET, _PREFIX, _EXEMPT = 1, 2, 3


class Scope(NamedTuple):
    bucket: str
    prefix: bytes = b""  # of keys; none: the whole bucket

    def __str__(self) -> str:
        return f"{self.bucket}/{self.prefix.decode(errors='replace')}" if self.prefix else self.bucket


@dataclass(frozen=True, slots=True)
class Limits:
    """See the module. The default limits nothing."""

    scopes: tuple[Scope, ...] = ()
    exempt: tuple[bytes, ...] = ()
    expires_ms: int = 0
    disabled: bool = False

    def active(self, now_ms: int) -> bool:
        return not self.disabled and (not self.expires_ms or now_ms < self.expires_ms)

    def covers_bucket(self, bucket: str) -> bool:
        """The whole of it."""
        return not self.scopes or any(scope == (bucket, b"") for scope in self.scopes)

    def touches_bucket(self, bucket: str) -> bool:
        """Something in it."""
        return not self.scopes or any(scope.bucket == bucket for scope in self.scopes)

    def covers_prefix(self, bucket: str, prefix: bytes) -> bool:
        """Every key that begins with `prefix` (a whole key is one)."""
        return not self.scopes or any(True for _ in self._covering(bucket, prefix))

    def is_exempt(self, bucket: str, key: bytes) -> bool:
        """Whether `append-only` does not bind there."""
        if not self.exempt:
            return False
        if not self.scopes:
            return key.startswith(self.exempt)
        # "repo" and "repo/" are meant alike: what follows begins behind the slash.
        rests = (key[len(scope.prefix) :] for scope in self._covering(bucket, key))
        return any((rest[1:] if rest[:1] == b"/" else rest).startswith(self.exempt) for rest in rests)

    def _covering(self, bucket: str, prefix: bytes) -> Iterator[Scope]:
        return (scope for scope in self.scopes if scope.bucket == bucket and prefix.startswith(scope.prefix))

    def encode(self) -> bytes:
        parts = [_HEAD.pack(self.expires_ms, _DISABLED if self.disabled else 0)]
        for scope in self.scopes:
            parts.append(_entry(_BUCKET, scope.bucket.encode()))
            if scope.prefix:
                parts.append(_entry(_PREFIX, scope.prefix))
        parts += [_entry(_EXEMPT, prefix) for prefix in self.exempt]
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Limits:
        """Raises ValueError for what this version does not know or cannot read."""
        if len(data) < _HEAD.size:
            raise ValueError("the limits are too short")
        expires_ms, flags = _HEAD.unpack_from(data)
        if flags & ~_DISABLED:
            raise ValueError(f"flags {flags:#x} are not known")
        scopes: list[Scope] = []
        exempt: list[bytes] = []
        for kind, value in _entries(data[_HEAD.size :]):
            if kind == _BUCKET:
                scopes.append(Scope(value.decode()))
            elif kind == _PREFIX and scopes and not scopes[-1].prefix:
                scopes[-1] = Scope(scopes[-1].bucket, value)
            elif kind == _EXEMPT:
                exempt.append(value)
            else:
                raise ValueError(f"entry {kind} is not known")
        return cls(tuple(scopes), tuple(exempt), expires_ms, bool(flags & _DISABLED))


UNLIMITED: Final = Limits()


def parse_scope(text: str) -> Scope:
    """`bucket` or `bucket/prefix`. Raises ValueError; whether the bucket exists does not matter."""
    bucket, _, prefix = text.partition("/")
    if not 3 <= len(bucket) <= 63 or not bucket.isascii():
        raise ValueError(f"{text!r} does not begin with a bucket's name; write BUCKET or BUCKET/PREFIX")
    return Scope(bucket, parse_prefix(prefix) if prefix else b"")


def parse_prefix(text: str) -> bytes:
    """Raises ValueError."""
    prefix = text.encode("utf-8", "surrogateescape")
    if not 1 <= len(prefix) <= MAX_PREFIX_BYTES:
        raise ValueError(f"a prefix has 1 to {MAX_PREFIX_BYTES} bytes")
    return prefix


def _entry(kind: int, value: bytes) -> bytes:
    return _ENTRY.pack(kind, len(value)) + value


def _entries(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        if len(data) - position < _ENTRY.size:
            raise ValueError("an entry is cut off")
        kind, length = _ENTRY.unpack_from(data, position)
        position += _ENTRY.size
        value = data[position : position + length]
        if len(value) != length:
            raise ValueError("an entry is cut off")
        yield kind, value
        position += length
