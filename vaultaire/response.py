"""The head of an HTTP/1.1 response and the framing of its body: pure.

What it guarantees: no byte an app puts into a header can end the header (a CR or LF in one raises ValueError), the
body is framed by exactly one of Content-Length, chunked and the close of the connection, and a response that may have
no body (HEAD, 204, 304) has none.

RFC 9110, 6.4.1 and 8.6; RFC 9112, 6.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Framing(Enum):
    """How the end of the body is told."""

    LENGTH = "Content-Length"
    CHUNKED = "chunked"
    CLOSE = "the connection closes"
    NONE = "there is no body"


class ResponseHead(NamedTuple):
    data: bytes
    framing: Framing
    left: int  # body bytes to come, for Framing.LENGTH
    close: bool  # the connection ends with this response


_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_BODILESS_STATUS = frozenset((204, 304))
_date = (0, b"")


def date_line() -> bytes:
    """`date: ...` for the present second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, b"date: " + formatdate(now, usegmt=True).encode("ascii") + b"\r\n")
    return _date[1]


def response_head(
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    method: str,
    http_version: str,
    whole_length: int | None,
    close: bool,
) -> ResponseHead:
    """The head for an app's `http.response.start`.

    `whole_length`: the length of the body where it is known without the app's Content-Length (a response of one
    piece). `close`: the connection must end whatever the app says. Raises ValueError for headers that cannot be sent.
    """
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    length: int | None = None
    has_date = False
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-length":
            length = int(value)
            continue
        if lowered == b"connection":
            close = close or value.lower() == b"close"
            continue
        if lowered == b"transfer-encoding":
            continue
        has_date = has_date or lowered == b"date"
        lines.append(b"%b: %b\r\n" % (name, value))
    if not has_date:
        lines.append(date_line())
    framing = _framing(status, method, http_version, length, whole_length)
    if framing is Framing.LENGTH and length is None:
        length = whole_length
    if length is not None and status != 204:
        lines.append(b"content-length: %d\r\n" % length)
    elif framing is Framing.CHUNKED:
        lines.append(b"transfer-encoding: chunked\r\n")
    close = close or framing is Framing.CLOSE
    if close:
        lines.append(b"connection: close\r\n")
    data = b"".join(lines)
    if data.count(b"\n") != len(lines) or data.count(b"\r") != len(lines):
        raise ValueError("a response header holds a line break")
    return ResponseHead(data + b"\r\n", framing, length or 0, close)


def _framing(
    status: int, method: str, http_version: str, length: int | None, whole_length: int | None
) -> Framing:
    if method == "HEAD" or status in _BODILESS_STATUS:
        return Framing.NONE
    if length is not None or whole_length is not None:
        return Framing.LENGTH
    return Framing.CHUNKED if http_version == "1.1" else Framing.CLOSE


def plain_response(status: int, reason: str, *, method: str = "GET", extra: bytes = b"") -> bytes:
    """A whole response of the connection's own: one line of text, and the end of the connection."""
    body = f"{reason}\n".encode()
    head = (
        (_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status)
        + date_line()
        + extra
        + b"content-type: text/plain; charset=utf-8\r\n"
        + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    )
    return head if method == "HEAD" else head + body
