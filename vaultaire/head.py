"""One HTTP/1.1 request head, sans-io: bytes in; a head, a refusal, or "more bytes" out.

What it guarantees: an accepted head has exactly one reading. Lines end in CRLF and nothing else, there is no folding,
no control byte, no space where a lenient parser might see a name, one origin-form target, one Host, and one framing of
the body at most (Content-Length or chunked, never both, each once). Whatever a proxy in front may believe about such
a head is what we believe too, so a second request cannot be smuggled in a body. The same bytes are accepted or
refused alike however they were cut into reads.

Lines are cut here, stricter than h11 cuts them (it lets bare LF, folding and control bytes pass); h11 then judges
names, framing and Host of the result. A differential test holds this to a subset of what h11 accepts.

Left to others: bodies (vaultaire.chunked, vaultaire.exchange), what method and path mean (vaultaire.s3).

RFC 9112 (HTTP/1.1), sections 2 to 6; RFC 9110, 5.5 (field values), 7.2 (Host), 10.1.1 (Expect).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11

MAX_HEAD_BYTES = (
    32 * 1024
)  # S3 itself takes 8 KiB of headers; presigned URLs with session tokens need some room
MAX_TARGET_BYTES = 8 * 1024  # a 1,024 byte key, percent-encoded, plus the longest presigned query seen

_TCHAR = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Every byte that has no place in a line. CR and LF are counted apart; TAB is white space inside a value.
_CONTROL = bytes(byte for byte in (*range(0x20), 0x7F) if byte not in b"\t\r\n")
_DIGITS = re.compile(rb"[0-9]{1,19}")  # below 10^19 every value fits 64 bits
_HOST = re.compile(rb"[-A-Za-z0-9._~!$&'()*+,;=:%\[\]]*")  # RFC 3986 host [":" port], loosely
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"expect", b"connection", b"host"))
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}


@dataclass(frozen=True, slots=True)
class Head:
    """An accepted request head. `size` counts the bytes it took, up to and with the empty line."""

    method: str
    raw_path: bytes  # the target up to "?", exactly as sent; begins with "/"
    query_string: bytes  # after "?", exactly as sent
    http_version: str
    headers: list[tuple[bytes, bytes]]  # names in lower case, values without outer white space, in wire order
    size: int
    content_length: int | None  # None: no such header; a request without one and not chunked has no body
    chunked: bool
    expects_continue: bool
    keep_alive: bool  # the client may send another request after this one

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)


@dataclass(frozen=True, slots=True)
class Refused:
    """No head we serve. Answer `status` and close: where the next request begins cannot be known."""

    status: int
    reason: str


class _Refusal(Exception):  # control flow inside this module
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.verdict = Refused(status, reason)


def take_head(data: bytes, searched: int = 0) -> Head | Refused | None:
    """The head at the start of `data`; None while it is incomplete and nothing is wrong with it yet.

    `searched`: so many bytes at the start are known to hold no complete head (the length at the last call), so that
    a head that drips in byte by byte costs no more than one that comes at once.
    """
    start = 2 if data[:2] == b"\r\n" else 0  # one empty line before a request is forgiven: RFC 9112, 2.2
    end = data.find(b"\r\n\r\n", max(start, searched - 3))
    try:
        if end < 0:
            _check_beginning(data, start, searched)
            return None
        if end + 4 - start > MAX_HEAD_BYTES:
            raise _Refusal(431, "request head is longer than 32 KiB")
        return _parse(data[start:end], end + 4)
    except _Refusal as refusal:
        return refusal.verdict


def _check_beginning(data: bytes, start: int, searched: int) -> None:
    """Refuse at once what can no longer become a head, rather than wait for the deadline."""
    if len(data) - start >= MAX_HEAD_BYTES:
        raise _Refusal(431, "request head is longer than 32 KiB")
    if len(data) > start and data[start] <= 0x20 and data[start:] != b"\r":
        raise _Refusal(400, "no request line (TLS on a cleartext port?)")
    fresh = max(start, searched)
    # A CRLF that ends in the fresh bytes may begin one byte before them.
    if data.count(b"\n", fresh) != data.count(b"\r\n", max(fresh - 1, 0)):
        raise _Refusal(400, "a line ends in a bare LF")


def _parse(text: bytes, size: int) -> Head:
    """`text` is the head without its last two CRLF."""
    lines = text.split(b"\r\n")
    if text.count(b"\n") != len(lines) - 1 or text.count(b"\r") != len(lines) - 1:
        raise _Refusal(400, "a line ends in a bare CR or LF")
    if len(text.translate(None, _CONTROL)) != len(text):
        raise _Refusal(400, "control byte in the request head")
    method, target, version = _split_request_line(lines[0])
    headers = [_split_field(line) for line in lines[1:]]
    # All names at once: one pass in C instead of a match per header.
    if b"".join([name for name, _ in headers]).translate(None, _TCHAR):
        raise _Refusal(400, "illegal header name")
    _judge(method, target, version, headers)
    raw_path, _, query_string = target.partition(b"?")
    framing = [(name, value) for name, value in headers if name in _FRAMING]
    length, chunked, expects, close = _framing(framing, version)
    return Head(
        method=method.decode("ascii"),
        raw_path=raw_path,
        query_string=query_string,
        http_version=version,
        headers=headers,
        size=size,
        content_length=length,
        chunked=chunked,
        expects_continue=expects,
        keep_alive=version == "1.1" and not close,
    )


def _split_request_line(line: bytes) -> tuple[bytes, bytes, str]:
    words = line.split(b" ")
    if len(words) != 3:
        raise _Refusal(400, "malformed request line")
    method, target, version = words
    if version not in _VERSIONS:
        known = version.startswith(b"HTTP/") and len(version) == 8
        raise _Refusal(505 if known else 400, "this server speaks HTTP/1.1")
    if method != method.upper():  # methods are case-sensitive; a lenient peer might still take "get" for GET
        raise _Refusal(400, "method in lower case")
    if method == b"CONNECT":
        raise _Refusal(400, "CONNECT is for proxies")
    if len(target) > MAX_TARGET_BYTES:
        raise _Refusal(414, "request target is longer than 8 KiB")
    if target[:1] != b"/":  # absolute-form names a second host, "*" no resource
        raise _Refusal(400, "request target must begin with a slash")
    return method, target, _VERSIONS[version]


def _split_field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    # A folded line begins with white space, which the check of all names refuses.
    if not colon or not name:
        raise _Refusal(400, "malformed header line")
    return name.lower(), value.strip(b" \t")


def _judge(method: bytes, target: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """h11's own verdict on target, method, lengths, codings and Host.

    `_parsed` skips its check of each name and value, which the callers above have made already, and stricter: that
    is worth 25 microseconds a request.
    """
    try:
        h11.Request(
            method=method, target=target, http_version=version.encode(), headers=headers, _parsed=True
        )
    except h11.LocalProtocolError as error:
        raise _Refusal(error.error_status_hint, str(error)) from None


def _framing(fields: list[tuple[bytes, bytes]], version: str) -> tuple[int | None, bool, bool, bool]:
    """(content length, chunked, expects 100-continue, close) from the few fields that decide them."""
    length: int | None = None
    chunked = expects = close = False
    for name, value in fields:
        if name == b"host":
            if not _HOST.fullmatch(value):
                raise _Refusal(400, "malformed Host")
        elif name == b"content-length":
            if length is not None or not _DIGITS.fullmatch(value):
                raise _Refusal(400, "Content-Length must be one number, given once")
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = True  # h11 refused every coding but one "chunked"
        elif name == b"expect":
            expects = expects or value.lower() == b"100-continue"
        else:
            close = close or b"close" in [token.strip() for token in value.lower().split(b",")]
    if chunked and (length is not None or version == "1.0"):
        raise _Refusal(400, "Transfer-Encoding with Content-Length, or in HTTP/1.0")
    return length, chunked, expects and version == "1.1", close
