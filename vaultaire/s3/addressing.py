"""Which bucket and key a request is for, in both styles of address.

Path style: `/bucket/key` on any host. Virtual-host style: `/key` on `bucket.DOMAIN`, for the domains that the
operator named; there every path is a key, `/-/...` included. A domain itself, and every other host, is path style.

The signature needs nothing of this: it covers the Host header and the path as they were sent.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from vaultaire.s3.names import parse_key, split_path
from vaultaire.s3.percent import quote_path

if TYPE_CHECKING:
    from collections.abc import Sequence

_PORT = re.compile(r":\d*")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ADDRESS = re.compile(r"[\d.]+")


class Address(NamedTuple):
    """`virtual`: the bucket was named by the host. `bucket` is not judged yet, `key` is."""

    bucket: str | None
    key: bytes | None
    virtual: bool


def parse_domain(text: str) -> str | None:
    """A domain as the operator writes it, in lower case and without a dot at its end; None if it is none."""
    name = text.lower().removesuffix(".")
    if len(name) > 253 or _DOMAIN.fullmatch(name) is None or _ADDRESS.fullmatch(name) is not None:
        return None
    return name


def bucket_of_host(host: str, domains: Sequence[str]) -> str | None:
    """The bucket that a Host header names, in lower case; None: path style. May be no legal name, or empty.

    Of domains that lie in each other the innermost counts, and a domain is never a bucket of another.
    """
    if not domains:
        return None
    name, colon, port = host.rpartition(":")
    if not colon or _PORT.fullmatch(colon + port) is None:
        name = host
    name = name.lower().removesuffix(".")
    if name in domains:
        return None
    inside = [domain for domain in domains if name.endswith(f".{domain}")]
    return name[: -len(max(inside, key=len)) - 1] if inside else None


def split_address(host: str, raw_path: bytes, domains: Sequence[str]) -> Address:
    """Raises what `names.split_path` raises."""
    bucket = bucket_of_host(host, domains) if domains else None
    if bucket is None:
        return Address(*split_path(raw_path), False)
    return Address(bucket, parse_key(raw_path[1:]), True)


def object_url(scheme: str, host: str, bucket: str, key: bytes, *, virtual: bool) -> str:
    """Where the object is, by the address that the client used. `host` is the Host header's text."""
    base = f"{scheme}://{quote(host.encode('latin-1'), safe=':[]')}"
    return f"{base}/{quote_path(key)}" if virtual else f"{base}/{bucket}/{quote_path(key)}"
