"""Percent-encoding as S3 uses it: strict decoding of the wire, and the one canonical encoding.

S3's canonical form (Signature Version 4, and `encoding-type=url` in listings) keeps `A-Za-z0-9-_.~`, writes every
other byte as `%XX` with upper-case digits, and never writes a space as `+`. Paths keep `/` as well.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html (UriEncode)
"""

from __future__ import annotations

import re

UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"
_PATH_SAFE = UNRESERVED + b"/"

_ESCAPES = [b"%%%02X" % i for i in range(256)]
_QUERY_UNSAFE = re.compile(rb"[^A-Za-z0-9\-_.~]+")
_PATH_UNSAFE = re.compile(rb"[^A-Za-z0-9\-_.~/]+")

_DIGITS = b"0123456789abcdefABCDEF"
_OCTETS = {bytes((a, b)): bytes((int(bytes((a, b)), 16),)) for a in _DIGITS for b in _DIGITS}


class MalformedEscape(ValueError):
    """A `%` that is not followed by two hexadecimal digits."""


def decode(raw: bytes) -> bytes:
    """`raw` with every `%XX` replaced, exactly once; `+` stays `+`. Raises MalformedEscape.

    Nothing is normalised: `%2F`, `%00` and `..` come out as the bytes they name.
    """
    if b"%" not in raw:
        return raw
    head, *rest = raw.split(b"%")
    pieces = [head]
    for piece in rest:
        octet = _OCTETS.get(piece[:2])
        if octet is None:
            raise MalformedEscape(f"%{piece[:2]!r} is no percent-encoding")
        pieces.append(octet)
        pieces.append(piece[2:])
    return b"".join(pieces)


def quote_path(data: bytes) -> str:
    """The canonical encoding of a path or key; `/` is kept."""
    # translate() with a delete argument runs in C: what is left, if anything, needs escaping.
    if not data.translate(None, _PATH_SAFE):
        return data.decode("ascii")
    return _PATH_UNSAFE.sub(_escape_run, data).decode("ascii")


def quote_query(data: bytes) -> str:
    """The canonical encoding of a query name or value; `/` is escaped too."""
    if not data.translate(None, UNRESERVED):
        return data.decode("ascii")
    return _QUERY_UNSAFE.sub(_escape_run, data).decode("ascii")


def _escape_run(run: re.Match[bytes]) -> bytes:
    return b"".join(map(_ESCAPES.__getitem__, run[0]))
