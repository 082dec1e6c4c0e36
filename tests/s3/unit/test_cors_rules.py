"""CORS rules: the document, and which rule answers what, against a naive model."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.cors import (
    METHODS,
    CorsRule,
    format_xml,
    match,
    parse_xml,
    preflight,
    response_headers,
)
from vaultaire.s3.errors import S3Error

hosts = st.sampled_from(("http://a.test", "https://a.test", "https://b.a.test", "https://b.test", "null"))
origin_patterns = st.sampled_from(
    ("*", "http://a.test", "https://*.test", "https://*", "*.a.test", "https://b*")
)
header_names = st.sampled_from(("content-type", "x-amz-date", "x-amz-meta-a", "authorization", "Content-MD5"))
header_patterns = st.sampled_from(("*", "x-amz-*", "X-Amz-Date", "content-*", "authorization"))
rules = st.builds(
    CorsRule,
    st.lists(origin_patterns, min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(METHODS), min_size=1, max_size=3).map(tuple),
    st.lists(header_patterns, max_size=3).map(tuple),
    st.lists(st.sampled_from(("ETag", "x-amz-version-id")), max_size=2).map(tuple),
    st.none() | st.integers(0, 100_000),
    st.none() | st.text("ab<&", max_size=5),
)


def fits(pattern: str, text: str, flags: int = 0) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text, flags) is not None


def naive(listed, origin, method, headers):
    for rule in listed:
        if (
            any(fits(pattern, origin) for pattern in rule.origins)
            and method in rule.methods
            and all(any(fits(p, name, re.IGNORECASE) for p in rule.headers) for name in headers)
        ):
            return rule
    return None


@settings(max_examples=500, deadline=None)
@given(st.lists(rules, max_size=4), hosts, st.sampled_from(METHODS), st.lists(header_names, max_size=3))
def test_the_first_rule_that_allows_everything_answers(listed, origin, method, headers):
    assert match(listed, origin, method, headers) is naive(listed, origin, method, headers)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(rules, min_size=1, max_size=4),
    hosts,
    st.sampled_from(METHODS),
    st.lists(header_names, max_size=3),
)
def test_a_preflight_never_offers_credentials_to_everyone(listed, origin, method, headers):
    if naive(listed, origin, method, headers) is None:
        with pytest.raises(S3Error, match="AccessForbidden"):
            preflight(listed, origin, method, ", ".join(headers))
        return
    answer = dict(preflight(listed, origin, method, ", ".join(headers)))
    allowed = answer[b"access-control-allow-origin"].decode()
    assert allowed in ("*", origin)
    assert (b"access-control-allow-credentials" in answer) is (allowed != "*")
    assert method in answer[b"access-control-allow-methods"].decode().split(", ")
    assert b"Origin" in answer[b"vary"]


@given(st.lists(rules, min_size=1, max_size=4))
def test_rules_come_back_from_their_document(listed):
    assert parse_xml(format_xml(listed)) == tuple(listed)


def test_an_answer_says_what_the_rule_says():
    rule = CorsRule(("https://*.test",), ("PUT", "GET"), ("*",), ("ETag", "x-amz-id-2"), 600)
    assert dict(preflight([rule], "https://a.test", "PUT", "Content-Type,X-Amz-Date")) == {
        b"access-control-allow-origin": b"https://a.test",
        b"access-control-allow-methods": b"PUT, GET",
        b"access-control-allow-headers": b"content-type, x-amz-date",
        b"access-control-expose-headers": b"ETag, x-amz-id-2",
        b"access-control-max-age": b"600",
        b"access-control-allow-credentials": b"true",
        b"vary": b"Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
    }
    assert [name for name, _ in response_headers([rule], "https://b.other", "PUT")] == [b"vary"]
    assert response_headers(None, "https://a.test", "PUT") == []


@pytest.mark.parametrize(
    ("origin", "method", "headers", "code"),
    [
        (None, "GET", None, "BadRequest"),
        ("", "GET", None, "BadRequest"),
        ("http://a.test", None, None, "BadRequest"),
        ("http://a.test", "PATCH", None, "BadRequest"),
        ("http://a.test", "DELETE", None, "AccessForbidden"),
        ("http://other.test", "GET", None, "AccessForbidden"),
        ("http://a.test", "GET", "bad header", "AccessForbidden"),
        ("http://a.test", "GET", ",".join(f"x-amz-{n}" for n in range(65)), "AccessForbidden"),
    ],
)
def test_a_preflight_that_no_rule_allows_is_refused(origin, method, headers, code):
    rule = CorsRule(("http://a.test",), ("GET",), ("*",))
    with pytest.raises(S3Error) as caught:
        preflight([rule], origin, method, headers)
    assert caught.value.code == code


def rule(content: str) -> bytes:
    return f"<CORSConfiguration><CORSRule>{content}</CORSRule></CORSConfiguration>".encode()


ORIGIN, METHOD = "<AllowedOrigin>*</AllowedOrigin>", "<AllowedMethod>GET</AllowedMethod>"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<CORSConfiguration/>", "MalformedXML"),
        (b"<Other/>", "MalformedXML"),
        (rule(ORIGIN), "MalformedXML"),
        (rule(METHOD), "MalformedXML"),
        (rule(ORIGIN + METHOD + "<Other>1</Other>"), "MalformedXML"),
        (rule(ORIGIN + METHOD + "<MaxAgeSeconds>-1</MaxAgeSeconds>"), "MalformedXML"),
        (rule(ORIGIN + METHOD + "<ID>1</ID><ID>2</ID>"), "MalformedXML"),
        (rule(ORIGIN + METHOD + f"<ID>{'i' * 256}</ID>"), "InvalidRequest"),
        (rule("<AllowedOrigin></AllowedOrigin>" + METHOD), "MalformedXML"),
        (rule("<AllowedOrigin>http://*.a.*</AllowedOrigin>" + METHOD), "InvalidRequest"),
        (rule(ORIGIN + "<AllowedMethod>PATCH</AllowedMethod>"), "InvalidRequest"),
        (rule(ORIGIN + "<AllowedMethod>get</AllowedMethod>"), "InvalidRequest"),
        (rule(ORIGIN + METHOD + "<AllowedHeader>*-*</AllowedHeader>"), "InvalidRequest"),
        (rule(ORIGIN + METHOD + "<ExposeHeader>x-*</ExposeHeader>"), "InvalidRequest"),
        (rule(ORIGIN + METHOD + "<ExposeHeader>a b</ExposeHeader>"), "InvalidRequest"),
        (
            b"<CORSConfiguration>" + rule(ORIGIN + METHOD)[19:-20] * 101 + b"</CORSConfiguration>",
            "InvalidRequest",
        ),
        (rule(ORIGIN + METHOD) + b" " * (64 << 10), "EntityTooLarge"),
    ],
)
def test_a_bad_document_is_refused(body, code):
    with pytest.raises(S3Error) as caught:
        parse_xml(body)
    assert caught.value.code == code


def test_a_hundred_rules_are_accepted():
    body = b"<CORSConfiguration>" + rule(ORIGIN + METHOD)[19:-20] * 100 + b"</CORSConfiguration>"
    assert len(parse_xml(body)) == 100
