"""The texts of Signature Version 4: Authorization header and presigned query, taken apart and judged.

Pure syntax, no secret and no clock; `vaultaire.s3.sigv4` puts it together. What repeats for every request of a client
(credential, signed headers, common parameters) is parsed once and remembered; only short strings are, so that nobody
can fill the caches with long ones.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from vaultaire.s3 import dates, percent
from vaultaire.s3.errors import S3Error, invalid_argument

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_EXPIRES_SECONDS = 7 * 86_400
MAX_QUERY_PARAMETERS = 256
_MAX_SIGNED_HEADERS = 128
_CACHED_CHARS = 512


class Credential(NamedTuple):
    """Of an Authorization header, all but the signature. `signed_text` is the list as the client wrote it."""

    access_key: str
    day: str
    region: str
    signed_headers: tuple[bytes, ...]
    signed_text: str


def parse_authorization(text: str) -> tuple[Credential, str]:
    """(credential, signature) of an Authorization header. Raises S3Error; the signature is ASCII, else unjudged."""
    head, found, signature = text.rpartition("Signature=")
    if found and len(head) <= _CACHED_CHARS and len(signature) == 64:
        credential = _credential_cached(head)
    else:
        credential, signature = _credential_any_order(text)
    # Any other text is only wrong, but compare_digest raises for what is not ASCII.
    if not signature.isascii():
        raise S3Error("SignatureDoesNotMatch")
    return credential, signature


@lru_cache(maxsize=1024)
def _credential_cached(head: str) -> Credential:
    """Of everything before `Signature=`: the same for all requests of a client and day with the same headers."""
    credential, _ = _credential_any_order(f"{head}Signature={'0' * 64}")
    return credential


def _credential_any_order(authorization: str) -> tuple[Credential, str]:
    mechanism, _, rest = authorization.partition(" ")
    if mechanism != ALGORITHM:
        raise _unsupported(mechanism, authorization)
    components: dict[str, str] = {}
    for piece in rest.split(","):
        name, equals, value = piece.strip().partition("=")
        if not equals or name in components:
            raise malformed_header(f'the authorization component "{piece.strip()}" is malformed.')
        components[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not components.get(name):
            raise malformed_header(f"missing {name}.")
    if len(components) != 3:
        raise malformed_header(
            "the authorization header requires three components: Credential, SignedHeaders, and Signature."
        )
    scope = components["Credential"].rsplit("/", 4)
    problem = _scope_problem(scope)
    if problem is not None:
        raise malformed_header(problem)
    signed_text = components["SignedHeaders"]
    signed = signed_headers(signed_text)
    return Credential(scope[0], scope[1], scope[2], signed, signed_text), components["Signature"]


def _unsupported(mechanism: str, authorization: str) -> S3Error:
    if mechanism == "AWS4-ECDSA-P256-SHA256":
        return sigv4a()
    if mechanism == "AWS":  # version 2
        return sigv2()
    if not mechanism or mechanism == authorization:
        return invalid_argument(
            "Authorization header is invalid -- one and only one ' ' (space) required",
            "Authorization",
            authorization,
        )
    return invalid_argument("Unsupported Authorization Type", "Authorization", authorization)


def _scope_problem(scope: list[str]) -> str | None:
    """What is wrong with `key/day/region/service/aws4_request`, split from the right, if anything."""
    if len(scope) != 5 or not scope[0] or not scope[2]:
        return 'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
    if not dates.is_basic_day(scope[1]):
        return f'incorrect date format "{scope[1]}". This date in the credential must be in the format "yyyyMMdd".'
    if scope[3] != "s3":
        return f'incorrect service "{scope[3]}". This endpoint belongs to "s3".'
    if scope[4] != "aws4_request":
        return f'incorrect terminal "{scope[4]}". This endpoint uses "aws4_request".'
    return None


@lru_cache(maxsize=256)
def signed_headers(text: str) -> tuple[bytes, ...]:
    """The names in `a;b;c`. Raises when `host` is missing, a name comes twice or is not lower-case."""
    names = text.split(";")
    if len(names) > _MAX_SIGNED_HEADERS or len(set(names)) != len(names) or text.lower() != text:
        raise S3Error("AccessDenied", "SignedHeaders is malformed")
    if "host" not in names:
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            extra={"HeadersNotSigned": "host"},
        )
    return tuple(name.encode("latin-1") for name in names)


# --- the presigned query -------------------------------------------------------------------------------------------

REQUIRED_PARAMETERS = frozenset(
    (
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
    )
)
AUTH_PARAMETERS = REQUIRED_PARAMETERS | {"X-Amz-Security-Token"}
_AUTH_LOWER = frozenset(name.lower() for name in AUTH_PARAMETERS)
_V2_PARAMETERS = frozenset(("AWSAccessKeyId", "Signature"))


def split_query(raw_query: bytes) -> tuple[list[tuple[str, str]], bool]:
    """Canonically encoded (name, value) pairs in wire order, and whether any authenticates the request."""
    presigned = False
    pairs: list[tuple[str, str]] = []
    pieces = raw_query.split(b"&")
    if len(pieces) > MAX_QUERY_PARAMETERS:
        raise S3Error("InvalidURI")
    for piece in pieces:
        if not piece:
            continue
        pair = _canonical_pair_cached(piece) if len(piece) <= _CACHED_CHARS else _canonical_pair(piece)
        name = pair[0]
        # A name that is cased otherwise takes no part in authentication; it must not look as if it did.
        if name in _V2_PARAMETERS:
            raise sigv2()
        if name[:6] in ("X-Amz-", "x-amz-") and name.lower() in _AUTH_LOWER:
            presigned = True
        pairs.append(pair)
    return pairs, presigned


def _canonical_pair(piece: bytes) -> tuple[str, str]:
    name, _, value = piece.partition(b"=")
    try:
        return (
            percent.quote_query(percent.decode(name.replace(b"+", b" "))),
            percent.quote_query(percent.decode(value.replace(b"+", b" "))),
        )
    except percent.MalformedEscape:
        raise S3Error("InvalidURI") from None


_canonical_pair_cached = lru_cache(maxsize=2048)(_canonical_pair)


def auth_parameters(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The authenticating parameters, still encoded. Any of them twice, or cased otherwise, is refused.

    Algorithm, date, lifetime and signature have no character that the canonical form would escape.
    """
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in AUTH_PARAMETERS:
            if name in given:
                raise bad_query(f"{name} is specified more than once")
            given[name] = value
        elif name[:1] in "xX" and name.lower() in _AUTH_LOWER:
            raise S3Error("AuthorizationQueryParametersError")
    return given


def decoded(value: str) -> str:
    """A canonically encoded value as Latin-1 text of its bytes."""
    return percent.decode(value.encode("ascii")).decode("latin-1") if "%" in value else value


@lru_cache(maxsize=256)
def presigned_scope(credential: str) -> tuple[str, str, str]:
    scope = decoded(credential).rsplit("/", 4)
    problem = _scope_problem(scope)
    if problem is not None:
        raise bad_query(f"Error parsing the X-Amz-Credential parameter; {problem}")
    return scope[0], scope[1], scope[2]


def form_scope(credential: str) -> tuple[str, str, str]:
    """(access key, day, region) of a form's x-amz-credential field. Raises InvalidArgument."""
    scope = credential.rsplit("/", 4)
    problem = _scope_problem(scope)
    if problem is not None:
        raise invalid_argument(
            f"Error parsing the X-Amz-Credential parameter; {problem}", "x-amz-credential", credential
        )
    return scope[0], scope[1], scope[2]


def parse_expires(text: str) -> int:
    if text.startswith("-") and text[1:].isdecimal():
        raise bad_query("X-Amz-Expires must be non-negative")
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise bad_query("X-Amz-Expires should be a number")
    expires = int(text)
    if expires > MAX_EXPIRES_SECONDS:
        raise bad_query(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less "
            f"than {MAX_EXPIRES_SECONDS} seconds"
        )
    return expires


# --- refusals ------------------------------------------------------------------------------------------------------


def malformed_header(problem: str) -> S3Error:
    return S3Error("AuthorizationHeaderMalformed", f"The authorization header is malformed; {problem}")


def bad_query(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)


def wrong_region(code: str, named: str, region: str) -> S3Error:
    start = (
        "The authorization header is malformed"
        if code == "AuthorizationHeaderMalformed"
        else "Error parsing the X-Amz-Credential parameter"
    )
    return S3Error(
        code,
        f"{start}; the region '{named}' is wrong; expecting '{region}'",
        extra={"Region": region},
        headers=(("x-amz-bucket-region", region),),
    )


def sigv2() -> S3Error:
    return S3Error(
        "InvalidRequest",
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
    )


def sigv4a() -> S3Error:
    return S3Error(
        "NotImplemented",
        "AWS4-ECDSA-P256-SHA256 is not supported. Please use AWS4-HMAC-SHA256.",
    )
