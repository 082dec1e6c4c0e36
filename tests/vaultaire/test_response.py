"""Response heads: one framing each, no header that breaks out."""

from __future__ import annotations

import pytest

from vaultaire.response import Framing, plain_response, response_head


def head(status=200, headers=(), *, method="GET", http_version="1.1", whole_length=None, close=False):
    return response_head(
        status, headers, method=method, http_version=http_version, whole_length=whole_length, close=close
    )


LENGTH = (b"Content-Length", b"7")


@pytest.mark.parametrize(
    ("arguments", "framing", "told", "close"),
    [
        ({"headers": [LENGTH]}, Framing.LENGTH, b"content-length: 7", False),
        ({"whole_length": 3}, Framing.LENGTH, b"content-length: 3", False),
        ({}, Framing.CHUNKED, b"transfer-encoding: chunked", False),
        ({"http_version": "1.0"}, Framing.CLOSE, b"connection: close", True),
        (
            {"http_version": "1.0", "headers": [LENGTH], "close": True},
            Framing.LENGTH,
            b"connection: close",
            True,
        ),
        (
            {"method": "HEAD", "headers": [LENGTH], "whole_length": 0},
            Framing.NONE,
            b"content-length: 7",
            False,
        ),
        ({"status": 304, "headers": [LENGTH], "whole_length": 0}, Framing.NONE, b"content-length: 7", False),
        ({"headers": [LENGTH, (b"connection", b"Close")]}, Framing.LENGTH, b"connection: close", True),
    ],
)
def test_body_is_framed_in_exactly_one_way(arguments, framing, told, close):
    planned = head(**arguments)
    assert planned.framing is framing
    assert told + b"\r\n" in planned.data
    assert planned.close is close
    assert planned.data.count(b"content-length") + planned.data.count(b"transfer-encoding") <= 1


def test_no_content_tells_no_length():
    assert b"content-length" not in head(204, [LENGTH], whole_length=0).data


def test_app_may_not_choose_the_coding_but_may_give_the_date():
    data = head(headers=[(b"Transfer-Encoding", b"gzip"), (b"Date", b"now"), LENGTH]).data
    assert b"gzip" not in data
    assert data.lower().count(b"date:") == 1
    assert b"server:" not in data.lower()


@pytest.mark.parametrize(
    "header", [(b"a", b"b\r\nc: d"), (b"a", b"b\nc"), (b"a\r\nb", b"c"), (b"a", b"b\rc")]
)
def test_header_with_a_line_break_is_not_sent(header):
    with pytest.raises(ValueError, match="line break"):
        head(headers=[header])


def test_answers_of_our_own_end_the_connection():
    data = plain_response(503, "busy", extra=b"retry-after: 1\r\n")
    assert data.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"connection: close\r\n" in data
    assert b"retry-after: 1\r\n" in data
    assert data.endswith(b"content-length: 5\r\nconnection: close\r\n\r\nbusy\n")
    assert plain_response(503, "busy", method="HEAD").endswith(b"\r\n\r\n")
