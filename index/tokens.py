"""Client tokens: which requests of a bucket were carried out, so that a repeat of one changes nothing.

The row is written in the commit of the request itself: a request was carried out exactly if its token is here. The
wall clock decides only how long a token is remembered, and nobody's data depends on it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from index.errors import CorruptRecord
from index.keys import encode_id
from index.tables import TOKENS

if TYPE_CHECKING:
    from index.kv import OrderedMap, Reader, Transaction

DIGEST_BYTES: Final = 32
MAX_TOKEN_BYTES: Final = 64

_VALUE: Final = struct.Struct(">BQ32s")  # version, when (ms since 1970), digest of the request's parameters
_VERSION: Final = 1
_PAGE_ROWS: Final = 1000


def get_token(reader: Reader, bucket_id: int, token: bytes) -> bytes | None:
    """The digest of the parameters it was used with; None if it is not known. Raises CorruptRecord."""
    value = reader.get(TOKENS, _row(bucket_id, token))
    return None if value is None else decode_token(value)[1]


def put_token(txn: Transaction, bucket_id: int, token: bytes, digest: bytes, now_ms: int) -> None:
    """Remember `token` (1 to 64 bytes) for a request whose parameters have `digest` (32 bytes)."""
    if len(digest) != DIGEST_BYTES:
        raise ValueError(f"a digest has {DIGEST_BYTES} bytes")
    txn.put(TOKENS, _row(bucket_id, token), _VALUE.pack(_VERSION, now_ms, digest))


def forget_tokens(kv: OrderedMap, before_ms: int) -> int:
    """Remove the tokens used before `before_ms`, in commits of a page each; how many. Blocking."""
    forgotten, start = 0, b""
    while True:
        with kv.snapshot() as reader:
            page = list(reader.scan(TOKENS, start, limit=_PAGE_ROWS))
        old = [(row, value) for row, value in page if decode_token(value)[0] < before_ms]
        if old:
            forgotten += kv.commit(lambda txn, old=old: _remove(txn, old))  # type: ignore[misc]  # bound now
        if len(page) < _PAGE_ROWS:
            return forgotten
        start = page[-1][0] + b"\x00"


def _remove(txn: Transaction, rows: list[tuple[bytes, bytes]]) -> int:
    """Only those that are still as they were: a token may have been used again meanwhile."""
    return sum(txn.delete(TOKENS, row) for row, value in rows if txn.get(TOKENS, row) == value)


def _row(bucket_id: int, token: bytes) -> bytes:
    if not 1 <= len(token) <= MAX_TOKEN_BYTES:
        raise ValueError(f"a token has 1 to {MAX_TOKEN_BYTES} bytes")
    return encode_id(bucket_id) + token


def decode_token(value: bytes) -> tuple[int, bytes]:
    """(when, ms since 1970; digest). Raises CorruptRecord."""
    if len(value) != _VALUE.size or value[0] != _VERSION:
        raise CorruptRecord("client token", value.hex())
    _, when_ms, digest = _VALUE.unpack(value)
    return when_ms, digest
