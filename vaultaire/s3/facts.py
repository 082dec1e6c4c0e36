"""What a request is to the conditions of a policy: facts by their condition key. Pure.

Keys are those of `policy_conditions`, lower case. What a request does not have is left out, not empty.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/amazon-s3-policy-keys.html
"""

from __future__ import annotations

import contextlib
import datetime
from typing import TYPE_CHECKING

from vaultaire.s3 import dates, tags
from vaultaire.s3.errors import S3Error
from vaultaire.s3.policy_conditions import (
    EXISTING_TAG,
    LOCK_DAYS,
    LOCK_HOLD,
    LOCK_KEYS,
    LOCK_MODE,
    LOCK_UNTIL,
    REQUEST_TAG,
    REQUEST_TAG_KEYS,
)
from vaultaire.s3.sigv4 import Auth

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaultaire.s3.sigv4 import Claim

Facts = dict[str, tuple[str, ...]]

_QUERY = {"prefix": "s3:prefix", "delimiter": "s3:delimiter", "max-keys": "s3:max-keys"}
_HEADERS = {
    b"user-agent": "aws:useragent",
    b"referer": "aws:referer",
    **{
        name.encode(): f"s3:{name}"
        for name in (
            "x-amz-acl",
            "x-amz-content-sha256",
            "x-amz-copy-source",
            "x-amz-grant-full-control",
            "x-amz-grant-read",
            "x-amz-grant-read-acp",
            "x-amz-grant-write",
            "x-amz-grant-write-acp",
            "x-amz-metadata-directive",
            "x-amz-object-ownership",
            "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-aws-kms-key-id",
            "x-amz-server-side-encryption-customer-algorithm",
            "x-amz-storage-class",
            "x-amz-website-redirect-location",
        )
    },
}
_DAY_MS = 86_400_000
_AUTH = {Auth.HEADER: "REST-HEADER", Auth.PRESIGNED: "REST-QUERY-STRING"}


def request_facts(
    claim: Claim,
    query: Mapping[str, str],
    headers: Mapping[bytes, str],
    *,
    of_bucket: bool,
    secure: bool,
    address: str | None,
    tenant: str | None,
    access_key: str | None,
    now: float,
) -> Facts:
    """Everything but tags of the object itself. `of_bucket`: the request is about no object (so it may list)."""
    found: Facts = {
        "aws:securetransport": ("true" if secure else "false",),
        "aws:currenttime": (datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(),),
        "aws:epochtime": (str(int(now)),),
        "aws:principaltype": ("User" if access_key is not None else "Anonymous",),
    }
    if address is not None:
        found["aws:sourceip"] = (address,)
    if tenant is not None and access_key is not None:
        found["aws:principalaccount"] = (tenant,)
        found["aws:principalarn"] = (f"arn:aws:iam::{tenant}:user/{access_key}",)
        found["aws:username"] = found["aws:userid"] = (access_key,)
        found["s3:authtype"] = (_AUTH[claim.auth],)
        found["s3:signatureversion"] = ("AWS4-HMAC-SHA256",)
        found["s3:signatureage"] = (str(max(0, int((now - claim.seconds) * 1000))),)
    for header, key in _HEADERS.items():
        if header in headers:
            found[key] = (headers[header],)
    if of_bucket:
        for parameter, key in _QUERY.items():
            if parameter in query:
                found[key] = (query[parameter],)
    elif "versionId" in query:
        found["s3:versionid"] = (query["versionId"],)
    with contextlib.suppress(S3Error):  # the operation refuses the header itself; until then it has no tags
        found.update(requested_tags(tags.parse_header(headers)))
    if b"x-amz-object-lock-mode" in headers or b"x-amz-object-lock-retain-until-date" in headers:
        until = dates.parse_iso_ms(headers.get(b"x-amz-object-lock-retain-until-date", ""))
        found.update(requested_retention(headers.get(b"x-amz-object-lock-mode"), until, now))
    if b"x-amz-object-lock-legal-hold" in headers:
        found[LOCK_HOLD] = (headers[b"x-amz-object-lock-legal-hold"],)
    return found


def without_requested(facts: Facts) -> Facts:
    """Less the tags and locks that headers ask for: where a body asks, headers of that kind mean nothing."""
    return {
        key: value
        for key, value in facts.items()
        if key not in LOCK_KEYS and key != REQUEST_TAG_KEYS and not key.startswith(REQUEST_TAG)
    }


def requested_retention(mode: str | None, until_ms: int | None, now: float) -> Facts:
    """The retention that a request asks for. Days are counted up: of ten days and an hour there are eleven left."""
    found: Facts = {} if mode is None else {LOCK_MODE: (mode,)}
    if until_ms is not None:
        found[LOCK_UNTIL] = (dates.format_iso(until_ms),)
        found[LOCK_DAYS] = (str(-((int(now * 1000) - until_ms) // _DAY_MS)),)
    return found


def requested_hold(on: bool) -> Facts:
    """The legal hold that a request asks for."""
    return {LOCK_HOLD: ("ON" if on else "OFF",)}


def requested_tags(pairs: Sequence[tuple[str, str]]) -> Facts:
    """The tags that a request brings, as facts; none of them if it brings none."""
    if not pairs:
        return {}
    return {
        REQUEST_TAG_KEYS: tuple(key for key, _ in pairs),
        **{REQUEST_TAG + key: (value,) for key, value in pairs},
    }


def existing_tags(pairs: Sequence[tuple[str, str]]) -> Facts:
    """The tags that the object has already."""
    return {EXISTING_TAG + key: (value,) for key, value in pairs}
