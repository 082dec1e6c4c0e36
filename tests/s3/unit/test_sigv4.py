"""Signatures: botocore's are accepted, anything changed is not."""

from __future__ import annotations

import calendar
import datetime
import hashlib
import hmac
import urllib.parse

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3 import sigv4
from vaultaire.s3.errors import S3Error
from vaultaire.s3.sigv4 import Auth, Payload, parse, verify
from vaultaire.s3.sigv4_text import REQUIRED_PARAMETERS

ACCESS, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
HOST = "127.0.0.1:9000"

Wire = tuple[str, bytes, bytes, list[tuple[bytes, bytes]]]

KEYS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)
TRICKY = st.lists(
    st.sampled_from(["/", "//", ".", "..", "%", "%2F", "+", " ", "é", "\U0001f600", "a", "~", "'()*!", "&="]),
    min_size=1,
    max_size=8,
).map("".join)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
QUERIES = st.lists(st.tuples(TRICKY, TRICKY | st.just("")), max_size=5)
REGIONS = st.sampled_from(["us-east-1", "eu-west-3"])


def signed(
    signer=S3SigV4Auth,
    method="GET",
    path="/bucket/key",
    query=(),
    headers=(),
    region="us-east-1",
    body=b"",
    **options,
) -> tuple[Wire, float]:
    """A request as botocore signs it, on the wire; and the moment it was signed."""
    encoded = "&".join(
        f"{urllib.parse.quote(n, safe='-_.~')}={urllib.parse.quote(v, safe='-_.~')}" for n, v in query
    )
    url = f"http://{HOST}{path}" + (f"?{encoded}" if encoded else "")
    request = AWSRequest(method, url, headers=dict(headers), data=body)
    signer(Credentials(ACCESS, SECRET), "s3", region, **options).add_auth(request)
    split = urllib.parse.urlsplit(request.url)
    wire_headers = [(b"host", HOST.encode())]
    for name, value in request.headers.items():
        wire_headers.append(
            (name.lower().encode(), value if isinstance(value, bytes) else value.encode("latin-1"))
        )
    stamp = dict(wire_headers).get(b"x-amz-date", b"").decode() or dict(
        urllib.parse.parse_qsl(split.query)
    ).get("X-Amz-Date")
    moment = calendar.timegm(datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").timetuple())
    return (method, split.path.encode(), split.query.encode(), wire_headers), moment


def refusal(wire: Wire, now: float, secret: str | None = SECRET, region: str = "us-east-1") -> S3Error:
    with pytest.raises(S3Error) as caught:
        verify(parse(*wire, region=region), secret, now)
    return caught.value


def with_header(wire: Wire, name: bytes, value: bytes | None) -> Wire:
    method, path, query, headers = wire
    kept = [(n, v) for n, v in headers if n != name]
    return method, path, query, kept if value is None else [*kept, (name, value)]


# --- what is accepted ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(KEYS | TRICKY, QUERIES, VALUES, REGIONS)
def test_botocore_header_signatures_hold(key, query, value, region):
    path = "/bucket/" + urllib.parse.quote(key, safe="/~")
    wire, now = signed(path=path, query=query, headers={"x-amz-meta-x": value}, region=region)
    claim = parse(*wire, region=region)
    assert (claim.auth, claim.access_key, claim.region) == (Auth.HEADER, ACCESS, region)
    verified = verify(claim, SECRET, now)
    assert verified.seed_signature == claim.signature


@settings(deadline=None, max_examples=60)
@given(KEYS | TRICKY, QUERIES, REGIONS, st.integers(1, 604800))
def test_botocore_presigned_queries_hold(key, query, region, expires):
    path = "/bucket/" + urllib.parse.quote(key, safe="/~")
    wire, now = signed(S3SigV4QueryAuth, path=path, query=query, region=region, expires=expires)
    claim = parse(*wire, region=region)
    assert (claim.auth, claim.payload) == (Auth.PRESIGNED, Payload.UNSIGNED)
    verify(claim, SECRET, now + expires)
    assert refusal(wire, now + expires + 1, region=region).message == "Request has expired"


@settings(deadline=None)
@given(st.sampled_from("'()*!+@:=,;$&~"))
def test_the_path_is_verified_whatever_the_client_escapes(char):
    wire, now = signed(path="/bucket/" + urllib.parse.quote(char, safe="/~"))
    method, _, query, headers = wire
    for spelling in (char, f"%{ord(char):02X}", f"%{ord(char):02x}"):
        verify(parse(method, b"/bucket/" + spelling.encode(), query, headers), SECRET, now)


def test_query_order_empty_values_and_plus_for_space_do_not_matter():
    wire, now = signed(query=[("delete", ""), ("prefix", "a b"), ("b", "1")])
    method, path, _, headers = wire
    verify(parse(method, path, b"b=1&delete&prefix=a+b", headers), SECRET, now)


def test_runs_of_spaces_in_signed_headers_are_one():
    wire, now = signed(headers={"x-amz-meta-a": "a   b \t c"})
    verify(parse(*wire), SECRET, now)


def test_repeated_headers_are_joined_in_wire_order():
    wire, now = signed(headers={"x-amz-meta-a": "1,2"})
    wire = with_header(wire, b"x-amz-meta-a", b"1")
    wire[3].append((b"x-amz-meta-a", b"2"))
    verify(parse(*wire), SECRET, now)


def test_the_components_of_the_header_may_come_in_any_order():
    wire, now = signed()
    text = dict(wire[3])[b"authorization"].decode()
    a, b, c = text.removeprefix("AWS4-HMAC-SHA256 ").split(", ")
    wire = with_header(wire, b"authorization", f"AWS4-HMAC-SHA256 {c},{b} , {a}".encode())
    verify(parse(*wire), SECRET, now)


@pytest.mark.parametrize("date", ["{0:%a, %d %b %Y %H:%M:%S GMT}", "{0:%Y%m%dT%H%M%SZ}"])
def test_the_date_header_stands_in_for_x_amz_date(date):
    moment = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    text, stamp = date.format(moment), "20260304T050607Z"
    empty = hashlib.sha256().hexdigest()
    canonical = f"GET\n/b\n\ndate:{text}\nhost:h\nx-amz-content-sha256:{empty}\n\ndate;host;x-amz-content-sha256\n{empty}"
    scope = "20260304/us-east-1/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = sigv4.signing_key(SECRET, "20260304", "us-east-1")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/{scope}, "
        f"SignedHeaders=date;host;x-amz-content-sha256, Signature={signature}"
    )
    headers = [
        (b"host", b"h"),
        (b"date", text.encode()),
        (b"x-amz-content-sha256", empty.encode()),
        (b"authorization", authorization.encode()),
    ]
    verify(parse("GET", b"/b", b"", headers), SECRET, moment.timestamp())


def test_the_default_region_is_accepted_beside_the_configured_one():
    wire, now = signed(region="us-east-1")
    verify(parse(*wire, region="eu-west-3"), SECRET, now)


# --- what is refused -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_any_flipped_byte_of_what_is_signed_is_refused(data):
    signer = data.draw(st.sampled_from([S3SigV4Auth, S3SigV4QueryAuth]))
    wire, now = signed(
        signer, method="PUT", query=[("a", "b")], headers={"x-amz-acl": "private", "content-type": "t"}
    )
    method, path, query, headers = wire
    place = data.draw(st.integers(-3, len(headers) - 1))

    def flip(raw: bytes) -> bytes:
        index = data.draw(st.integers(0, len(raw) - 1))
        return (
            raw[:index]
            + bytes((raw[index] ^ data.draw(st.sampled_from([1, 2, 4, 16, 32])),))
            + raw[index + 1 :]
        )

    if place == -3:
        method = "POST"
    elif place == -2:
        path = b"/" + flip(path[1:])
    elif place == -1:
        query = flip(query) if query else b"x=y"
    else:
        name, value = headers[place]
        headers = [*headers[:place], (name, flip(value)), *headers[place + 1 :]]
    changed = (method, path, query, headers)
    try:
        claim = parse(*changed)
        if claim.auth is Auth.ANONYMOUS:
            return  # names nobody
        secret = SECRET if claim.access_key == ACCESS else None
        verified = verify(claim, secret, now)
    except S3Error:
        return
    # Equivalent spellings (the case of an escape, white space) are the same request.
    assert claim.canonical_request == parse(*wire).canonical_request
    assert verified.seed_signature == parse(*wire).signature


def test_a_wrong_secret_is_refused_with_what_was_signed_here():
    wire, now = signed()
    error = refusal(wire, now, secret="wrong")
    assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)
    assert error.extra["CanonicalRequest"].startswith("GET\n/bucket/key\n\nhost:127.0.0.1:9000\n")
    assert error.extra["StringToSign"].startswith("AWS4-HMAC-SHA256\n2")
    assert bytes.fromhex(error.extra["StringToSignBytes"]).decode() == error.extra["StringToSign"]
    assert SECRET not in str(error.extra)


def test_an_unknown_access_key_is_refused_whatever_it_signed():
    wire, now = signed()
    assert refusal(wire, now, secret=None).code == "InvalidAccessKeyId"


def test_an_anonymous_request_proves_nothing():
    claim = parse("GET", b"/b/k", b"", [(b"host", b"h")])
    assert (claim.auth, claim.payload) == (Auth.ANONYMOUS, Payload.UNSIGNED)
    with pytest.raises(S3Error, match="AccessDenied"):
        verify(claim, SECRET, 0.0)


@pytest.mark.parametrize("shift", [901, -901])
def test_a_clock_that_is_off_by_more_than_15_minutes_is_refused(shift):
    wire, now = signed()
    error = refusal(wire, now + shift)
    assert (error.code, error.status) == ("RequestTimeTooSkewed", 403)
    assert error.extra["MaxAllowedSkewMilliseconds"] == "900000"


@pytest.mark.parametrize("shift", [900, -900])
def test_15_minutes_are_still_fine(shift):
    wire, now = signed()
    verify(parse(*wire), SECRET, now + shift)


def test_a_presigned_request_from_the_future_is_not_valid_yet():
    wire, now = signed(S3SigV4QueryAuth, expires=60)
    verify(parse(*wire), SECRET, now - 900)
    assert refusal(wire, now - 901).message == "Request is not valid yet"


def test_an_unsigned_amz_header_is_refused():
    for signer in (S3SigV4Auth, S3SigV4QueryAuth):
        wire, now = signed(signer)
        error = refusal(with_header(wire, b"x-amz-acl", b"public-read"), now)
        assert (error.code, error.extra["HeadersNotSigned"]) == ("AccessDenied", "x-amz-acl")


def test_other_unsigned_headers_are_nobodys_business():
    wire, now = signed()
    verify(parse(*with_header(wire, b"user-agent", b"any")), SECRET, now)


def test_host_must_be_signed():
    wire, now = signed()
    text = dict(wire[3])[b"authorization"].replace(b"SignedHeaders=host;", b"SignedHeaders=")
    assert refusal(with_header(wire, b"authorization", text), now).extra["HeadersNotSigned"] == "host"


def test_both_kinds_of_authentication_at_once_are_refused():
    wire, now = signed()
    query_wire, _ = signed(S3SigV4QueryAuth)
    error = refusal((wire[0], wire[1], query_wire[2], wire[3]), now)
    assert (error.code, error.extra["ArgumentName"]) == ("InvalidArgument", "Authorization")
    assert refusal((wire[0], wire[1], b"x-amz-signature=1", wire[3]), now).code == "InvalidArgument"


@pytest.mark.parametrize(
    "name", ["X-Amz-Signature", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"]
)
def test_a_doubled_authentication_parameter_is_refused(name):
    wire, now = signed(S3SigV4QueryAuth)
    values = dict(urllib.parse.parse_qsl(wire[2].decode()))
    doubled = wire[2] + b"&" + urllib.parse.urlencode({name: values[name]}).encode()
    assert refusal((wire[0], wire[1], doubled, wire[3]), now).code == "AuthorizationQueryParametersError"
    lower = wire[2] + b"&" + urllib.parse.urlencode({name.lower(): "x"}).encode()
    assert refusal((wire[0], wire[1], lower, wire[3]), now).code == "AuthorizationQueryParametersError"


@pytest.mark.parametrize(
    "name",
    [b"authorization", b"x-amz-date", b"x-amz-content-sha256"],
)
def test_a_doubled_authentication_header_is_refused(name):
    wire, now = signed()
    wire[3].append((name, dict(wire[3])[name]))
    assert refusal(wire, now).status in (400, 403)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"/s3/", b"/ec2/", "AuthorizationHeaderMalformed"),
        (b"/aws4_request", b"/aws5_request", "AuthorizationHeaderMalformed"),
        (b"Credential=AKIA", b"Credentials=AKIA", "AuthorizationHeaderMalformed"),
        (b"Credential=" + ACCESS.encode() + b"/", b"Credential=/", "AuthorizationHeaderMalformed"),
        (b", Signature=", b", Sig=", "AuthorizationHeaderMalformed"),
        (b"SignedHeaders=host;", b"SignedHeaders=host;host;", "AccessDenied"),
        (b"SignedHeaders=host;", b"SignedHeaders=Host;", "AccessDenied"),
        (b"AWS4-HMAC-SHA256 ", b"AWS4-HMAC-SHA256", "InvalidArgument"),
        (b"AWS4-HMAC-SHA256 ", b"Bearer ", "InvalidArgument"),
        (b"AWS4-HMAC-SHA256 ", b"AWS4-ECDSA-P256-SHA256 ", "NotImplemented"),
        (b"AWS4-HMAC-SHA256 ", b"AWS ", "InvalidRequest"),
        (b"Signature=", b"Signature=0", "SignatureDoesNotMatch"),
        (b"Signature=", "Signature=é".encode("latin-1"), "SignatureDoesNotMatch"),
        (b"Signature=", b"Signature=X, Signature=", "AuthorizationHeaderMalformed"),
        (b", SignedHeaders", b", Extra=1, SignedHeaders", "AuthorizationHeaderMalformed"),
    ],
)
def test_a_malformed_authorization_header_is_refused(old, new, code):
    wire, now = signed()
    text = dict(wire[3])[b"authorization"]
    assert old in text
    assert refusal(with_header(wire, b"authorization", text.replace(old, new)), now).code == code


def test_a_scope_of_another_day_is_refused():
    wire, now = signed()
    text = dict(wire[3])[b"authorization"]
    day = text.split(b"/")[1]
    wire = with_header(wire, b"authorization", text.replace(day, b"20200101"))
    assert refusal(wire, now).code == "AuthorizationHeaderMalformed"


def test_a_wrong_region_is_named_in_body_and_header():
    wire, now = signed(region="mars-1")
    error = refusal(wire, now, region="eu-west-3")
    assert (error.code, error.extra["Region"]) == ("AuthorizationHeaderMalformed", "eu-west-3")
    assert ("x-amz-bucket-region", "eu-west-3") in error.headers
    wire, now = signed(S3SigV4QueryAuth, region="mars-1")
    assert refusal(wire, now).code == "AuthorizationQueryParametersError"


def test_version_2_is_told_to_move_on():
    headers = [(b"host", b"h"), (b"authorization", b"AWS AKIA:c2ln")]
    with pytest.raises(S3Error, match="Please use AWS4-HMAC-SHA256"):
        parse("GET", b"/b", b"", headers)
    with pytest.raises(S3Error, match="Please use AWS4-HMAC-SHA256"):
        parse("GET", b"/b", b"AWSAccessKeyId=a&Signature=b&Expires=1", [(b"host", b"h")])


def test_session_tokens_are_refused():
    wire, now = signed(headers={"x-amz-security-token": "t"})
    assert refusal(wire, now).code == "InvalidToken"
    wire, now = signed(S3SigV4QueryAuth, query=[("X-Amz-Security-Token", "t")])
    assert refusal(wire, now).code == "InvalidToken"


@pytest.mark.parametrize("date", [b"yesterday", b"20260101", None])
def test_a_missing_or_bad_date_is_refused(date):
    wire, now = signed()
    assert refusal(with_header(wire, b"x-amz-date", date), now).code == "AccessDenied"


@pytest.mark.parametrize(
    ("expires", "code"),
    [
        (b"604801", "AuthorizationQueryParametersError"),
        (b"-1", "AuthorizationQueryParametersError"),
        (b"1.5", "AuthorizationQueryParametersError"),
        (b"NaN", "AuthorizationQueryParametersError"),
        (b"", "AuthorizationQueryParametersError"),
        (b"9" * 30, "AuthorizationQueryParametersError"),
        (b"0", "AccessDenied"),
    ],
)
def test_the_lifetime_of_a_presigned_query_is_bounded(expires, code):
    wire, now = signed(S3SigV4QueryAuth, expires=77)
    query = wire[2].replace(b"X-Amz-Expires=77", b"X-Amz-Expires=" + expires)
    assert refusal((wire[0], wire[1], query, wire[3]), now - 100).code == code


@pytest.mark.parametrize("name", sorted(REQUIRED_PARAMETERS))
def test_a_presigned_query_without_one_of_its_parameters_is_refused(name):
    wire, now = signed(S3SigV4QueryAuth)
    pieces = [piece for piece in wire[2].split(b"&") if not piece.startswith(name.encode())]
    assert (
        refusal((wire[0], wire[1], b"&".join(pieces), wire[3]), now).code
        == "AuthorizationQueryParametersError"
    )


@pytest.mark.parametrize("query", [b"a=%", b"a=%zz", b"%4=1", b"&".join([b"a=1"] * 257)])
def test_a_malformed_or_endless_query_is_refused(query):
    with pytest.raises(S3Error, match="InvalidURI"):
        parse("GET", b"/b", query, [(b"host", b"h")])


# --- payload kinds -------------------------------------------------------------------------------------------------


class _Stating(S3SigV4Auth):
    """Signs a request whose x-amz-content-sha256 the test chose."""

    stated = ""

    def payload(self, request):
        return self.stated

    def _modify_request_before_signing(self, request):
        super()._modify_request_before_signing(request)
        del request.headers["X-Amz-Content-SHA256"]
        request.headers["X-Amz-Content-SHA256"] = self.stated


@pytest.mark.parametrize("payload", [p for p in Payload if p is not Payload.SHA256])
def test_the_kind_of_payload_is_read_and_its_signature_verified(payload):
    signer = type("Signer", (_Stating,), {"stated": payload.value})
    wire, now = signed(signer, method="PUT")
    claim = parse(*wire)
    assert (claim.payload, claim.payload_sha256) == (payload, None)
    verify(claim, SECRET, now)
    assert refusal(wire, now, secret="wrong").code == "SignatureDoesNotMatch"


def test_a_hashed_payload_keeps_its_digest():
    wire, _ = signed(method="PUT", body=b"hello")
    claim = parse(*wire)
    assert (claim.payload, claim.payload_sha256) == (Payload.SHA256, hashlib.sha256(b"hello").hexdigest())


@pytest.mark.parametrize(
    ("stated", "code"),
    [
        ("nonsense", "InvalidArgument"),
        ("SHA256", "InvalidArgument"),
        ("0" * 63, "InvalidArgument"),
        ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "NotImplemented"),
        ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER", "NotImplemented"),
    ],
)
def test_other_payload_kinds_are_refused(stated, code):
    signer = type("Signer", (_Stating,), {"stated": stated})
    wire, now = signed(signer, method="PUT")
    assert refusal(wire, now).code == code


def test_header_authentication_without_a_payload_hash_is_refused():
    wire, now = signed()
    assert refusal(with_header(wire, b"x-amz-content-sha256", None), now).code == "InvalidRequest"


def test_nobody_can_have_signed_the_chunks_of_an_anonymous_request():
    headers = [(b"host", b"h"), (b"x-amz-content-sha256", Payload.STREAMING_SIGNED.value.encode())]
    with pytest.raises(S3Error, match="AccessDenied"):
        parse("PUT", b"/b/k", b"", headers)


def test_amz_parameters_of_a_presigned_query_count_as_headers():
    wire, now = signed(
        S3SigV4QueryAuth, method="PUT", query=[("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-meta-a", "b c")]
    )
    claim = parse(*wire)
    verify(claim, SECRET, now)
    assert claim.headers[b"x-amz-checksum-crc32"] == "AAAAAA=="
    assert claim.headers[b"x-amz-meta-a"] == "b c"


def test_a_streaming_payload_named_in_the_query_is_verified_too():
    """A server that looked for it in the header only once skipped the signature (CVE-2026-41145)."""
    wire, now = signed(
        S3SigV4QueryAuth,
        method="PUT",
        query=[("X-Amz-Content-Sha256", Payload.STREAMING_UNSIGNED_TRAILER.value)],
    )
    assert parse(*wire).payload is Payload.STREAMING_UNSIGNED_TRAILER
    assert refusal(wire, now, secret="wrong").code == "SignatureDoesNotMatch"


def test_a_parameter_that_no_header_could_hold_is_refused():
    wire, now = signed(S3SigV4QueryAuth, method="PUT", query=[("x-amz-meta-a", "b\r\nset-cookie: x")])
    assert refusal(wire, now).code == "InvalidArgument"
