"""The grammar of S3 requests, for fuzzing: what clients may send, and what nobody should.

A `Draft` is a request before it is signed: it can be kept as JSON (`tests/s3/corpus`) and be signed again at any time.
Three of four begin as an operation's own example and are changed in some places; the others are put together from the
words that S3 knows and some that it does not.

The invariant that `judge` holds a server to: whatever comes, it answers in time, never with a fault of its own (500),
and afterwards the connection takes the next request or is closed.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from tests.s3.examples import (
    EXAMPLES,
    Example,
    Line,
    Place,
    by_header,
    by_query,
    by_signed_chunks,
    by_unsigned_trailer,
    make_place,
)
from tests.s3.forms import BOUNDARY, encode_form, signed_fields
from tests.s3.wire import Request, http_chunked
from vaultaire.s3.operation import BUCKET, OBJECT, Operation

if TYPE_CHECKING:
    from tests.s3.wire import Caller

PATIENCE_SECONDS = 10.0  # no answer for so long is a hang


@dataclass(frozen=True, slots=True)
class Draft:
    """`$BUCKET` and so on as in `examples.Place`. `edits` change bytes of the finished request, behind the signature."""

    method: str
    path: str
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    proof: str = "header"  # header, query, chunks, trailer, none, form
    framing: str = "length"  # length, chunked
    edits: list[tuple[int, int]] = field(
        default_factory=list
    )  # (per mille of the request's length, the new byte)

    def to_json(self) -> str:
        fields = asdict(self)
        fields["body"] = base64.b64encode(self.body).decode()
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Draft:
        fields = json.loads(text)
        fields["body"] = base64.b64decode(fields["body"])
        for name in ("query", "headers", "edits"):
            fields[name] = [tuple(pair) for pair in fields[name]]
        return cls(**fields)


# -- from a draft to bytes


def build(draft: Draft, caller: Caller, place: Place) -> Request:
    """The request, signed now."""
    query = "&".join(f"{name}={value}" if value else name for name, value in draft.query)
    # Latin-1 text, as the examples keep bodies as text of their own.
    example = Example(draft.method, draft.path, query, "", tuple(draft.headers)).at(place)
    example = replace(example, path=example.path or "/")
    body = place.fill(draft.body.decode("latin-1")).encode("latin-1")
    request = _proven(draft.proof, caller, place, example, body)
    if draft.framing == "chunked":
        request = request.with_header("Content-Length", None).with_header("Transfer-Encoding", "chunked")
        request = replace(request, body=http_chunked(request.body, 13))
    return request


@dataclass(frozen=True, slots=True)
class _WithBytes(Example):
    raw: bytes = b""

    @property
    def data(self) -> bytes:
        return self.raw


def _proven(proof: str, caller: Caller, place: Place, example: Example, body: bytes) -> Request:
    given = _WithBytes(example.method, example.path, example.query, "", example.headers, raw=body)
    match proof:
        case "query":
            return by_query(caller, given)
        case "chunks":
            return by_signed_chunks(caller, given)
        case "trailer":
            return by_unsigned_trailer(caller, given)
        case "none":
            request = by_header(caller, given)
            return request.with_header("Authorization", None)
        case "form":
            fields = signed_fields(caller, place.bucket, {"key": "form", "x-amz-meta-a": "b"})
            whole = encode_form(fields, body)
            sent = (
                ("Host", caller.host),
                ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}"),
                ("Content-Length", str(len(whole))),
                *example.headers,
            )
            target = f"{example.path}?{example.query}" if example.query else example.path
            return Request("POST", target, sent, whole)
    return by_header(caller, given)


def encode(request: Request, draft: Draft) -> bytes:
    data = bytearray(request.encode())
    for where, byte in draft.edits:
        data[where * (len(data) - 1) // 1000] = byte
    return bytes(data)


# -- the judgement


def judge(draft: Draft, caller: Caller, place: Place) -> str | None:
    """What is wrong with how the server took this request; None: nothing."""
    try:
        request = build(draft, caller, place)
        data = encode(request, draft)
    except UnicodeError:  # a text that no header can hold
        return None
    with caller.connect(PATIENCE_SECONDS) as connection:
        connection.send(data)
        # Its length may be anything after edits: the end of the input is what the server must not wait for in vain.
        # TLS has no such end that would leave an answer readable: there, waiting for more is right.
        unending = bool(draft.edits) and caller.url.startswith("https:")
        if unending:
            connection.socket.settimeout(0.5)
        elif draft.edits:
            connection.half_close()
        try:
            answer = connection.answer(request.method)
        except TimeoutError:
            return None if unending else "no answer in time"
        except http.client.HTTPException as error:
            return f"the answer is no HTTP: {error!r}"
        except ConnectionError:
            return None if draft.edits else "closed without an answer"
        if answer.status == 500 or answer.status > 507:
            return f"answered {answer.status} {answer.code}"
        if unending:
            return None
        if draft.edits:
            return None if connection.closed(PATIENCE_SECONDS) else "not closed after the client's end"
        if answer.closes:
            return None if connection.closed(PATIENCE_SECONDS) else "said that it closes, and did not"
        connection.send(caller.sign("GET", "/").encode())
        try:
            follower = connection.answer()
        except (TimeoutError, ConnectionError) as error:
            return f"the next request on the connection got no answer: {error!r}"
        return None if follower.status == 200 else f"the next request was answered {follower.status}"


# -- what there is to say

_WORDS = sorted({name for name, _ in (*BUCKET, *OBJECT)})
_PARAMETERS = [
    *(
        "prefix",
        "delimiter",
        "marker",
        "max-keys",
        "list-type",
        "continuation-token",
        "start-after",
        "encoding-type",
    ),
    *("fetch-owner", "key-marker", "version-id-marker", "versionId", "partNumber", "uploadId", "max-parts"),
    *("part-number-marker", "max-uploads", "upload-id-marker", "max-buckets", "x-id", "id", "unknown"),
    *(
        "response-content-type",
        "response-expires",
        "X-Amz-Expires",
        "X-Amz-Signature",
        "x-amz-acl",
        "Signature",
    ),
]
_VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "0",
            "1",
            "-1",
            "2",
            "1000",
            "10001",
            "99999999999999999999",
            "url",
            "null",
            "true",
            "a/b",
            "/",
            "%2F",
            "%00",
            "%C3%A9",
            "%FF",
            "%",
            "%zz",
            "+",
            "$UPLOAD",
            "0" * 32,
            "kept",
            "%0D%0A",
            "a" * 1100,
            "\x7f",
        ]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="&#?"), max_size=12),
)
_METHODS = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "X"])
_PATHS = st.one_of(
    st.sampled_from(
        [
            "/",
            "//",
            "/$BUCKET",
            "/$BUCKET/",
            "/$BUCKET/kept",
            "/$BUCKET/part",
            "/$EMPTY",
            "/$BUCKET//",
            "/$BUCKET/.",
            "/$BUCKET/..",
            "/../$BUCKET",
            "/$BUCKET/%00",
            "/$BUCKET/%FF",
            "/$BUCKET/%",
            "/$BUCKET/%2",
            "/absent/k",
            "/UPPER/k",
            "/a",
            "/-/healthz",
            "/-/",
            "/-/x",
            "/$BUCKET%2Fkept",
            "/$BUCKET/" + "k" * 1024,
            "/$BUCKET/" + "%C3%A9" * 513,
            "/" + "a" * 64 + "/k",
            "/127.0.0.1/k",
            "/*",
            "/$BUCKET/a+b",
            "/$BUCKET/;",
        ]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=20).map(
        lambda text: f"/$BUCKET/{text}"
    ),
)
_NUMBERS = ["0", "1", "-1", "5", "18446744073709551616", "x", ""]
_DATES = [
    "Wed, 21 Oct 2015 07:28:00 GMT",
    "2099-01-01T00:00:00Z",
    "0",
    "yesterday",
    "Thu, 32 Foo 9999 99:99:99 GMT",
]
_ETAGS = ['"abc"', "*", "abc", 'W/"a"', '"', ",", '"a","b"', '"d41d8cd98f00b204e9800998ecf8427e"', "$ETAG"]
_HEADERS: dict[str, list[str]] = {
    "Range": [
        "bytes=0-1",
        "bytes=-1",
        "bytes=1-",
        "bytes=5-1",
        "bytes=0-0,2-3",
        "bytes=-",
        "x",
        "bytes=99-",
        "bytes=-0",
    ],
    **dict.fromkeys(("If-Match", "If-None-Match", "x-amz-copy-source-if-match", "If-Range"), _ETAGS),
    **dict.fromkeys(
        (
            "If-Modified-Since",
            "If-Unmodified-Since",
            "x-amz-copy-source-if-modified-since",
            "Expires",
        ),
        _DATES,
    ),
    "Content-MD5": ["1B2M2Y8AsgTpgAmY7PhCfg==", "x", "", "AAAA"],
    "Content-Type": ["text/plain", "", "multipart/form-data", "multipart/form-data; boundary=x", "a\xe9"],
    "Content-Encoding": ["aws-chunked", "gzip", "aws-chunked,gzip", ","],
    "x-amz-copy-source": [
        "$BUCKET/kept",
        "/$BUCKET/kept",
        "$BUCKET%2Fkept",
        "absent/k",
        "x",
        "",
        "%",
        "$BUCKET/kept?versionId=null",
    ],
    "x-amz-copy-source-range": ["bytes=0-1", "bytes=0-99", "bytes=1-0", "x"],
    "x-amz-rename-source": ["$BUCKET/kept", "/$BUCKET/absent", "%", ""],
    "x-amz-metadata-directive": ["COPY", "REPLACE", "x"],
    "x-amz-tagging-directive": ["COPY", "REPLACE", "x"],
    "x-amz-tagging": ["a=b", "a=b&a=c", "%", "=", "a" * 200 + "=b", "&".join(f"k{n}=v" for n in range(11))],
    "x-amz-meta-a": ["b", "\xe9", "=?UTF-8?Q?x?=", "c" * 2100],
    "x-amz-storage-class": ["STANDARD", "GLACIER", "x"],
    "x-amz-acl": ["private", "public-read", "authenticated-read", "x"],
    "x-amz-grant-read": ["id=x", 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'],
    "x-amz-server-side-encryption": ["AES256", "aws:kms", "x"],
    "x-amz-server-side-encryption-customer-algorithm": ["AES256"],
    "x-amz-checksum-algorithm": ["CRC32", "SHA256", "CRC64NVME", "XXHASH64", "x"],
    "x-amz-checksum-type": ["FULL_OBJECT", "COMPOSITE", "x"],
    "x-amz-checksum-crc32": ["AAAAAA==", "x", ""],
    "x-amz-checksum-sha256": ["x", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="],
    "x-amz-checksum-mode": ["ENABLED", "x"],
    "x-amz-sdk-checksum-algorithm": ["CRC32", "x"],
    "x-amz-trailer": ["x-amz-checksum-crc32", "x-amz-checksum-x", "x", ","],
    "x-amz-decoded-content-length": _NUMBERS,
    "x-amz-object-attributes": ["ETag", "Checksum,ObjectParts", "x", ""],
    "x-amz-object-lock-mode": ["GOVERNANCE", "COMPLIANCE", "x"],
    "x-amz-object-lock-retain-until-date": _DATES,
    "x-amz-object-lock-legal-hold": ["ON", "OFF", "x"],
    "x-amz-bucket-object-lock-enabled": ["true", "false", "x"],
    "x-amz-bypass-governance-retention": ["true", "x"],
    "x-amz-object-ownership": ["BucketOwnerEnforced", "ObjectWriter", "x"],
    "x-amz-if-match-size": _NUMBERS,
    "x-amz-if-match-last-modified-time": _DATES,
    "x-amz-expected-bucket-owner": ["root", "x"],
    "x-amz-security-token": ["x"],
    "x-amz-mfa": ["1 2"],
    "Origin": ["http://example.org", "null", "*", "x"],
    "Access-Control-Request-Method": ["GET", "PUT", "x"],
    "Access-Control-Request-Headers": ["x-amz-date", ",", "a, b,"],
    "Expect": ["100-continue", "x"],
    "Connection": ["close", "keep-alive", "x"],
    "Accept-Encoding": ["gzip", "identity"],
    "Referer": ["http://example.org/"],
}
_HEADER = st.sampled_from(sorted(_HEADERS)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(_HEADERS[name]))
)
_BODIES = [example.data for example in EXAMPLES.values() if example.body]
_PIECES = [
    *(
        b"<",
        b">",
        b"&",
        b"&amp;",
        b"&#0;",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
        b"<?xml version='1.0'?>",
        b"<![CDATA[x]]>",
    ),
    *(
        b"<Key>kept</Key>",
        b"<Object>",
        b"</Object>",
        b"<Tag/>",
        b"{",
        b"}",
        b"[",
        b'"',
        b"null",
        b"\x00",
        b"\xff",
    ),
    *(b"-1", b"99999999999999999999", b"1e999", b"true", b"*", b"\r\n", b"--", b" ", b"<a>" * 50, b"[" * 50),
]


@st.composite
def _changed(draw: st.DrawFn, body: bytes) -> bytes:
    """`body` with a few pieces cut out, put in or doubled."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(body)))
        stop = draw(st.integers(start, min(start + 40, len(body))))
        put = draw(st.one_of(st.sampled_from(_PIECES), st.just(body[start:stop] * 2), st.binary(max_size=6)))
        body = body[:start] + put + body[stop:]
    return body


_PROOFS = st.sampled_from(["header", "header", "header", "query", "chunks", "trailer", "none", "form"])
_FRAMINGS = st.sampled_from(["length", "length", "length", "chunked"])
# Bytes changed behind the signature are mostly refused at once: a seventh of the requests is enough of that.
_EDITS = st.integers(0, 6).flatmap(
    lambda which: (
        st.just([])
        if which < 6  # the greatest: hypothesis is fond of zero
        else st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=3)
    )
)
_QUERY = st.lists(
    st.tuples(st.one_of(st.sampled_from(_WORDS), st.sampled_from(_PARAMETERS)), _VALUES), max_size=3
)


@st.composite
def _from_example(draw: st.DrawFn) -> Draft:
    """An operation's own request with something changed, or nothing."""
    example = draw(st.sampled_from(list(EXAMPLES.values())))
    query = [piece.partition("=")[::2] for piece in example.query.split("&") if piece]
    if draw(st.booleans()):
        query += draw(_QUERY)
    return Draft(
        draw(_METHODS) if draw(st.integers(0, 5)) == 5 else example.method,
        draw(_PATHS) if draw(st.integers(0, 3)) == 3 else example.path,
        query,
        [*example.headers, *draw(st.lists(_HEADER, max_size=4))],
        draw(_changed(example.data)),
        draw(_PROOFS),
        draw(_FRAMINGS),
        draw(_EDITS),
    )


_FREE = st.builds(
    Draft,
    _METHODS,
    _PATHS,
    _QUERY,
    st.lists(_HEADER, max_size=5),
    st.one_of(st.just(b""), st.binary(max_size=64), st.sampled_from(_BODIES).flatmap(_changed)),
    _PROOFS,
    _FRAMINGS,
    _EDITS,
)

drafts = st.integers(0, 3).flatmap(lambda which: _FREE if which == 3 else _from_example())


# -- the hunt

ROUND = 150  # requests; each round has a place of its own, for they leave little of it whole


@dataclass(frozen=True, slots=True)
class Finding:
    draft: Draft  # the smallest one found
    problem: str


def hunt(caller: Caller, seconds: float, first_seed: int = 0) -> tuple[int, Finding | None]:
    """Requests from the grammar until the time is over or one does harm: how many there were, and that one."""
    end = time.monotonic() + seconds
    count = 0
    number = first_seed
    while time.monotonic() < end:
        tried, finding = _round(caller, number, end + seconds)
        count += tried
        number += 1
        if finding is not None:
            return count, finding
    return count, None


def _round(caller: Caller, number: int, end: float) -> tuple[int, Finding | None]:
    """`end`: shrinking has one, too."""
    place = new_place(caller)
    tried = 0
    finding: Finding | None = None

    @seed(number)
    @settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(drafts)
    def one_round(draft: Draft) -> None:
        nonlocal tried, finding
        if time.monotonic() > end:
            return
        tried += 1
        problem = judge(draft, caller, place)
        if problem is not None:
            finding = Finding(draft, problem)
            raise AssertionError(problem)

    try:
        one_round()
    except (AssertionError, Flaky):
        if finding is None:
            raise
    return tried, finding


def new_place(caller: Caller) -> Place:
    line = Line(caller)
    try:
        return make_place(line, caller, EXAMPLES[Operation.PUT_OBJECT])
    finally:
        line.close()
