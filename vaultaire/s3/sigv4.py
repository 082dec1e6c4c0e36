"""Signature Version 4: who sent this request, and was it changed on the way.

Two steps, both pure: `parse` reads the claim (access key, scope, signed headers, kind of payload) and refuses what is
malformed; `verify` recomputes the signature with the claimed key's secret. Between them the caller looks the secret
up. Guarantees:

* What is signed is what came: the path and query are decoded from the wire once and encoded canonically, headers are
  taken in wire order. A request that carries two of anything that matters here is refused, not interpreted.
* Every `x-amz-*` header, and `host`, is signed. Header and query authentication exclude each other.
* `verify` costs the same for an unknown access key as for a known one, and compares in constant time.
* The seed signature of a streaming body, unsigned ones included, is verified like any other, from header or query.

Not here: whether the payload matches its hash (`checksums`), chunk signatures (`aws_chunked`), permissions.

A `+` in a query is a space, here and in `routing.parse_query` alike, so that the signature covers what is executed.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

import hmac
import secrets
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from vaultaire.s3 import dates, percent
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.headers import has_control_characters, header_map
from vaultaire.s3.sigv4_text import (
    ALGORITHM,
    AUTH_PARAMETERS,
    auth_parameters,
    bad_query,
    decoded,
    form_scope,
    malformed_header,
    parse_authorization,
    parse_expires,
    presigned_scope,
    signed_headers,
    sigv2,
    sigv4a,
    split_query,
    wrong_region,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_SKEW_SECONDS = 15 * 60
DEFAULT_REGION = "us-east-1"  # accepted everywhere: what clients without a configured region sign for

_FORM_FIELDS = frozenset(
    ("policy", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-security-token", "x-amz-signature")
)
_HEX = frozenset("0123456789abcdefABCDEF")
_NO_BODY = sha256().hexdigest()


class Auth(Enum):
    """How the request says who it is from."""

    ANONYMOUS = "anonymous"
    HEADER = "header"
    PRESIGNED = "presigned"


class Payload(Enum):
    """What `x-amz-content-sha256` says of the body; values are the wire's."""

    SHA256 = "SHA256"  # the claim carries the digest
    UNSIGNED = "UNSIGNED-PAYLOAD"
    STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


_PAYLOADS = {payload.value: payload for payload in Payload if payload is not Payload.SHA256}


class Claim(NamedTuple):
    """What a request says about itself. Nothing of it is proven before `verify` returned.

    (A named tuple: a frozen dataclass with this many fields takes several microseconds to make.)
    """

    auth: Auth
    payload: Payload
    payload_sha256: str | None  # 64 lower-case hex digits for Payload.SHA256
    headers: dict[bytes, str]  # as header_map; a presigned query's x-amz-* parameters are merged in
    access_key: str = ""
    day: str = ""  # YYYYMMDD, of the scope
    region: str = ""
    timestamp: str = ""  # YYYYMMDDTHHMMSSZ
    seconds: int = 0  # the same, since 1970
    expires: int | None = None  # presigned only, seconds
    signature: str = ""
    canonical_request: str = ""  # Latin-1 text of the bytes that are hashed


class Verified(NamedTuple):
    """Proof, and what the chunks of a streaming body are chained to."""

    access_key: str
    signing_key: bytes
    timestamp: str
    scope: str
    seed_signature: str


# --- parse ---------------------------------------------------------------------------------------------------------


def parse(
    method: str,
    raw_path: bytes,
    raw_query: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    *,
    region: str = DEFAULT_REGION,
) -> Claim:
    """The claim of one request; names in `headers` are lower-case, in wire order. Raises S3Error."""
    fields = header_map(headers)
    presigned = False
    if raw_query:
        pairs, presigned = split_query(raw_query)
    else:
        pairs = []
    authorization = fields.get(b"authorization")
    if authorization is not None:
        if presigned:
            raise invalid_argument(
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
                "parameter or the Authorization header should be specified",
                "Authorization",
                authorization,
            )
        return _parse_header(method, raw_path, pairs, fields, authorization, region)
    if presigned:
        return _parse_presigned(method, raw_path, pairs, fields, region)
    payload, digest = _payload(fields.get(b"x-amz-content-sha256", "UNSIGNED-PAYLOAD"))
    if payload in (Payload.STREAMING_SIGNED, Payload.STREAMING_SIGNED_TRAILER):
        raise S3Error("AccessDenied")  # chunks signed by nobody
    return Claim(Auth.ANONYMOUS, payload, digest, fields)


def _parse_header(
    method: str,
    raw_path: bytes,
    pairs: list[tuple[str, str]],
    fields: dict[bytes, str],
    authorization: str,
    region: str,
) -> Claim:
    credential, signature = parse_authorization(authorization)
    if b"x-amz-security-token" in fields:
        raise S3Error("InvalidToken")
    timestamp, seconds = _timestamp(fields)
    if timestamp[:8] != credential.day:
        raise malformed_header(
            f'Invalid credential date "{credential.day}". This date is not the same as X-Amz-Date: "{timestamp[:8]}".'
        )
    if credential.region != region and credential.region != DEFAULT_REGION:
        raise wrong_region("AuthorizationHeaderMalformed", credential.region, region)
    stated = fields.get(b"x-amz-content-sha256")
    if stated is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    payload, digest = _payload(stated)
    headers = _canonical_headers(fields, credential.signed_headers)
    canonical = _canonical(method, raw_path, pairs, headers, credential.signed_text, stated)
    return Claim(
        Auth.HEADER,
        payload,
        digest,
        fields,
        credential.access_key,
        credential.day,
        credential.region,
        timestamp,
        seconds,
        None,
        signature,
        canonical,
    )


def _parse_presigned(
    method: str, raw_path: bytes, pairs: list[tuple[str, str]], fields: dict[bytes, str], region: str
) -> Claim:
    given = auth_parameters(pairs)
    if given.get("X-Amz-Algorithm", ALGORITHM) == "AWS4-ECDSA-P256-SHA256":
        raise sigv4a()
    if "X-Amz-Security-Token" in given:
        raise S3Error("InvalidToken")
    if len(given) < 6:
        raise S3Error("AuthorizationQueryParametersError")
    if given["X-Amz-Algorithm"] != ALGORITHM:
        raise bad_query(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    timestamp = given["X-Amz-Date"]
    seconds = dates.parse_basic(timestamp)
    if seconds is None:
        raise bad_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    access_key, day, named = presigned_scope(given["X-Amz-Credential"])
    if timestamp[:8] != day:
        raise bad_query(
            f'Invalid credential date "{day}". This date is not the same as X-Amz-Date: "{timestamp[:8]}".'
        )
    if named != region and named != DEFAULT_REGION:
        raise wrong_region("AuthorizationQueryParametersError", named, region)
    expires = parse_expires(given["X-Amz-Expires"])
    signature = given["X-Amz-Signature"]  # canonically encoded, so ASCII
    signed_text = decoded(given["X-Amz-SignedHeaders"])
    signed = signed_headers(signed_text)
    query = [pair for pair in pairs if pair[0] != "X-Amz-Signature"]
    headers = _canonical_headers(fields, signed)
    if len(pairs) > len(given):
        _hoist(pairs, fields)
    stated = fields.get(b"x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    payload, digest = _payload(stated)
    canonical = _canonical(method, raw_path, query, headers, signed_text, stated)
    return Claim(
        Auth.PRESIGNED,
        payload,
        digest,
        fields,
        access_key,
        day,
        named,
        timestamp,
        seconds,
        expires,
        signature,
        canonical,
    )


def _timestamp(fields: dict[bytes, str]) -> tuple[str, int]:
    stated = fields.get(b"x-amz-date")
    if stated is not None:
        seconds = dates.parse_basic(stated)
        if seconds is not None:
            return stated, seconds
    else:
        stated = fields.get(b"date")
        if stated is not None:
            seconds = dates.parse_basic(stated)
            if seconds is None:
                seconds = dates.parse_http(stated)
            if seconds is not None:
                return dates.format_basic(seconds), seconds
    raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")


def _payload(stated: str) -> tuple[Payload, str | None]:
    if stated == _NO_BODY or (len(stated) == 64 and _HEX.issuperset(stated)):
        return Payload.SHA256, stated.lower()
    payload = _PAYLOADS.get(stated)
    if payload is not None:
        return payload, None
    if stated.startswith("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"):
        raise sigv4a()
    raise invalid_argument(
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
        "x-amz-content-sha256",
        stated,
    )


def _hoist(pairs: list[tuple[str, str]], fields: dict[bytes, str]) -> None:
    """Presigners move `x-amz-*` headers into the query; from here on they are headers. A real header wins.

    A parameter can hold what no header can (CR LF): kept as metadata it would split a later response.
    """
    for name, value in pairs:
        if name[:6].lower() == "x-amz-" and name not in AUTH_PARAMETERS:
            text = decoded(value)
            if has_control_characters(text) or "%" in name:
                raise invalid_argument("Header value cannot be represented using ISO-8859-1.", name, text)
            fields.setdefault(name.lower().encode("ascii"), text.strip(" \t"))


# --- canonical form ------------------------------------------------------------------------------------------------


def _canonical(
    method: str,
    raw_path: bytes,
    pairs: list[tuple[str, str]],
    headers: str,
    signed_text: str,
    payload: str,
) -> str:
    try:
        path = percent.quote_path(percent.decode(raw_path))
    except percent.MalformedEscape:
        raise S3Error("InvalidURI") from None
    query = "&".join(["=".join(pair) for pair in sorted(pairs)])
    return f"{method}\n{path}\n{query}\n{headers}\n{signed_text}\n{payload}"


def _canonical_headers(fields: dict[bytes, str], signed: tuple[bytes, ...]) -> str:
    """`name:value` lines of the signed headers, each ended by a newline. A missing one counts as empty."""
    for name in fields:
        if name[:6] == b"x-amz-" and name not in signed:
            raise S3Error(
                "AccessDenied",
                "There were headers present in the request which were not signed",
                extra={"HeadersNotSigned": _unsigned(fields, signed)},
            )
    lines = []
    for name in signed:
        value = fields.get(name, "")
        if "  " in value or "\t" in value:
            value = " ".join(value.split())
        lines.append(f"{name.decode('latin-1')}:{value}\n")
    return "".join(lines)


def _unsigned(fields: dict[bytes, str], signed: tuple[bytes, ...]) -> str:
    names = (name for name in fields if name.startswith(b"x-amz-") and name not in signed)
    return ", ".join(name.decode("latin-1") for name in names)


# --- verify --------------------------------------------------------------------------------------------------------

# Stands in for the secret of an access key that does not exist, so that both refusals cost the same.
_NOBODY = secrets.token_hex(32)


def verify(claim: Claim, secret: str | None, now: float) -> Verified:
    """Proves `claim` with the secret of its access key (None: no such key). `now` is unix seconds.

    Raises RequestTimeTooSkewed, AccessDenied (anonymous, expired, not valid yet), InvalidAccessKeyId and
    SignatureDoesNotMatch; the last one carries what was signed here, so that a client's author can compare.
    """
    if claim.auth is Auth.ANONYMOUS:
        raise S3Error("AccessDenied")
    _check_time(claim, now)
    known = secret is not None
    key = signing_key(secret if secret is not None else _NOBODY, claim.day, claim.region)
    scope = f"{claim.day}/{claim.region}/s3/aws4_request"
    hashed = sha256(claim.canonical_request.encode("latin-1")).hexdigest()
    to_sign = f"{ALGORITHM}\n{claim.timestamp}\n{scope}\n{hashed}"
    expected = hmac.digest(key, to_sign.encode("latin-1"), "sha256").hex()
    matches = hmac.compare_digest(expected, claim.signature)
    if not known:
        raise S3Error("InvalidAccessKeyId", extra={"AWSAccessKeyId": claim.access_key})
    if not matches:
        raise _mismatch(claim, to_sign)
    return Verified(claim.access_key, key, claim.timestamp, scope, claim.signature)


class FormSignature(NamedTuple):
    """What the fields of a form upload say of its signer; `policy` is the field as it came, which is what is signed."""

    policy: str
    access_key: str
    day: str
    region: str
    signature: str


def parse_form(fields: Mapping[str, str], *, region: str = DEFAULT_REGION) -> FormSignature | None:
    """The signature in a form's fields (names in lower case); None: the form is anonymous. Raises InvalidArgument.

    Its date is only the scope's: a policy says itself how long it may be used.
    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html
    """
    if "awsaccesskeyid" in fields:
        raise sigv2()
    if not _FORM_FIELDS & fields.keys():
        return None
    for name in ("policy", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"):
        if not fields.get(name):
            raise invalid_argument(
                f"Bucket POST must contain a field named '{name}'.  "
                "If it is specified, please check the order of the fields.",
                name,
                "",
            )
    if "x-amz-security-token" in fields:
        raise S3Error("InvalidToken")
    algorithm, timestamp = fields["x-amz-algorithm"], fields["x-amz-date"]
    if algorithm == "AWS4-ECDSA-P256-SHA256":
        raise sigv4a()
    if algorithm != ALGORITHM:
        raise invalid_argument(f'X-Amz-Algorithm only supports "{ALGORITHM}"', "x-amz-algorithm", algorithm)
    access_key, day, named = form_scope(fields["x-amz-credential"])
    if dates.parse_basic(timestamp) is None or timestamp[:8] != day:
        raise invalid_argument("X-Amz-Date must be a date of the credential's day", "x-amz-date", timestamp)
    if named != region and named != DEFAULT_REGION:
        raise invalid_argument(
            f"Error parsing the X-Amz-Credential parameter; the region '{named}' is wrong; expecting '{region}'",
            "x-amz-credential",
            fields["x-amz-credential"],
        )
    return FormSignature(fields["policy"], access_key, day, named, fields["x-amz-signature"])


def verify_form(form: FormSignature, secret: str | None) -> None:
    """Proves the policy with the secret of its access key (None: no such key), at the same cost either way.

    Raises InvalidAccessKeyId, SignatureDoesNotMatch.
    """
    key = signing_key(secret if secret is not None else _NOBODY, form.day, form.region)
    expected = hmac.digest(key, form.policy.encode(), "sha256").hex()
    matches = hmac.compare_digest(expected.encode(), form.signature.encode())
    if secret is None:
        raise S3Error("InvalidAccessKeyId", extra={"AWSAccessKeyId": form.access_key})
    if not matches:
        raise S3Error(
            "SignatureDoesNotMatch",
            extra={
                "AWSAccessKeyId": form.access_key,
                "StringToSign": form.policy,
                "SignatureProvided": form.signature,
            },
        )


@lru_cache(maxsize=1024)
def signing_key(secret: str, day: str, region: str) -> bytes:
    """The key all requests of a day and region are signed with. Never log it: for that day it is the secret."""
    key = hmac.digest(f"AWS4{secret}".encode(), day.encode(), "sha256")
    for part in (region.encode("latin-1"), b"s3", b"aws4_request"):
        key = hmac.digest(key, part, "sha256")
    return key


def _check_time(claim: Claim, now: float) -> None:
    if claim.expires is None:
        if abs(now - claim.seconds) > MAX_SKEW_SECONDS:
            raise S3Error(
                "RequestTimeTooSkewed",
                extra={
                    "RequestTime": claim.timestamp,
                    "ServerTime": dates.format_iso(int(now) * 1000),
                    "MaxAllowedSkewMilliseconds": MAX_SKEW_SECONDS * 1000,
                },
            )
        return
    if claim.seconds - now > MAX_SKEW_SECONDS:
        raise S3Error("AccessDenied", "Request is not valid yet")
    if claim.expires == 0 or now > claim.seconds + claim.expires:
        raise S3Error(
            "AccessDenied",
            "Request has expired",
            extra={
                "X-Amz-Expires": claim.expires,
                "Expires": dates.format_iso((claim.seconds + claim.expires) * 1000),
                "ServerTime": dates.format_iso(int(now) * 1000),
            },
        )


def _mismatch(claim: Claim, to_sign: str) -> S3Error:
    def spaced(text: str) -> str:
        return text.encode("latin-1").hex(" ")

    return S3Error(
        "SignatureDoesNotMatch",
        extra={
            "AWSAccessKeyId": claim.access_key,
            "StringToSign": to_sign,
            "SignatureProvided": claim.signature,
            "StringToSignBytes": spaced(to_sign),
            "CanonicalRequest": claim.canonical_request,
            "CanonicalRequestBytes": spaced(claim.canonical_request),
        },
    )
