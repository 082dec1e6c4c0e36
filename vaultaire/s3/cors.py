"""Cross-origin rules of a bucket: which pages may read which answers. Pure.

A browser asks before it sends (OPTIONS, the preflight), and looks at the headers of the answer afterwards. The first
rule that fits decides. A rule for every origin (`*`) answers `*`, which browsers refuse to combine with credentials; a
named origin, or one with a wildcard inside, is answered by its own name and may send credentials.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/ManageCorsUsing.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CORSRule.html
https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vaultaire.s3 import xml_tree
from vaultaire.s3.errors import S3Error
from vaultaire.s3.glob import Glob
from vaultaire.s3.headers import has_control_characters
from vaultaire.s3.xml import document
from vaultaire.s3.xml_text import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from xml.etree.ElementTree import Element

MAX_RULES = 100
MAX_DOCUMENT_BYTES = 64 << 10
_MAX_ID = 255
_MAX_REQUEST_HEADERS = 64  # of a preflight; more are refused, so that a match stays cheap
METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")
VARY = (b"vary", b"Origin, Access-Control-Request-Headers, Access-Control-Request-Method")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class CorsRule:
    """`headers` are as configured; they match without regard to case."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age_seconds: int | None = None
    id: str | None = None

    @cached_property
    def _origin_globs(self) -> tuple[Glob, ...]:
        return tuple(Glob(origin, single=False) for origin in self.origins)

    @cached_property
    def _header_globs(self) -> tuple[Glob, ...]:
        return tuple(Glob(header, single=False, fold=True) for header in self.headers)

    def origin_answer(self, origin: str) -> str | None:
        """What the answer says about `origin`: itself, `*` if anyone may, None if it may not."""
        if "*" in self.origins:
            return "*"
        return origin if any(glob.matches(origin) for glob in self._origin_globs) else None

    def allows_headers(self, names: Iterable[str]) -> bool:
        return all(any(glob.matches(name) for glob in self._header_globs) for name in names)


# --- deciding ------------------------------------------------------------------------------------------------------


def match(
    rules: Sequence[CorsRule], origin: str, method: str, headers: Sequence[str] = ()
) -> CorsRule | None:
    """The first rule that allows all of it."""
    for rule in rules:
        if method in rule.methods and rule.origin_answer(origin) is not None and rule.allows_headers(headers):
            return rule
    return None


def preflight(
    rules: Sequence[CorsRule] | None, origin: str | None, method: str | None, requested_headers: str | None
) -> Headers:
    """The headers that answer OPTIONS; `rules` None: the bucket has none. Raises AccessForbidden, BadRequest."""
    if not origin:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    if method not in METHODS:
        raise S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {method or 'null'}")
    if rules is None:
        raise S3Error("AccessForbidden")
    found = _match_requested(rules, origin, method, requested_headers)
    if found is None:
        raise S3Error(
            "AccessForbidden",
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request "
            "method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the "
            "resource's CORS spec.",
            extra={"Method": method, "ResourceType": "OBJECT"},
        )
    rule, names = found
    return _answer(rule, origin, names)


def _match_requested(
    rules: Sequence[CorsRule], origin: str, method: str, requested_headers: str | None
) -> tuple[CorsRule, list[str]] | None:
    names = [name.strip().lower() for name in (requested_headers or "").split(",") if name.strip()]
    if len(names) > _MAX_REQUEST_HEADERS or not all(_TOKEN.fullmatch(name) for name in names):
        return None
    rule = match(rules, origin, method, names)
    return None if rule is None else (rule, names)


def response_headers(
    rules: Sequence[CorsRule] | None, origin: str, method: str, requested_headers: str | None = None
) -> Headers:
    """What an actual request's answer carries beside its own headers, errors included.

    A request that has the headers of a preflight is judged by them, as on S3: `method` is then the one they name.
    """
    if rules is None:
        return []
    found = _match_requested(rules, origin, method, requested_headers)
    return [VARY] if found is None else _answer(found[0], origin, found[1])


def _answer(rule: CorsRule, origin: str, requested: Sequence[str]) -> Headers:
    allowed = rule.origin_answer(origin)
    assert allowed is not None
    headers: Headers = [
        (b"access-control-allow-origin", allowed.encode("latin-1")),
        (b"access-control-allow-methods", ", ".join(rule.methods).encode()),
    ]
    if requested:
        headers.append((b"access-control-allow-headers", ", ".join(requested).encode()))
    if rule.expose:
        headers.append((b"access-control-expose-headers", ", ".join(rule.expose).encode()))
    if rule.max_age_seconds is not None:
        headers.append((b"access-control-max-age", b"%d" % rule.max_age_seconds))
    if allowed != "*":
        headers.append((b"access-control-allow-credentials", b"true"))
    return [*headers, VARY]


# --- the document --------------------------------------------------------------------------------------------------

_LISTS = ("AllowedOrigin", "AllowedMethod", "AllowedHeader", "ExposeHeader")


def parse_xml(body: bytes) -> tuple[CorsRule, ...]:
    """1 to 100 rules. Raises MalformedXML, InvalidRequest, EntityTooLarge."""
    if len(body) > MAX_DOCUMENT_BYTES:
        raise S3Error("EntityTooLarge", extra={"MaxSizeAllowed": MAX_DOCUMENT_BYTES})
    rules = []
    for name, child in xml_tree.children(xml_tree.parse(body, "CORSConfiguration")):
        if name != "CORSRule":
            raise S3Error("MalformedXML")
        rules.append(_parse_rule(child))
    if not rules:
        raise S3Error("MalformedXML")
    if len(rules) > MAX_RULES:
        raise S3Error(
            "InvalidRequest",
            f"The number of CORS rules should not exceed allowed limit of {MAX_RULES} rules.",
        )
    return tuple(rules)


def _parse_rule(element: Element) -> CorsRule:
    lists: dict[str, list[str]] = {name: [] for name in _LISTS}
    single: dict[str, str] = {}
    for name, child in xml_tree.children(element):
        text = xml_tree.text_of(child).strip()
        if name in lists:
            lists[name].append(text)
        elif name in ("ID", "MaxAgeSeconds") and name not in single:
            single[name] = text
        else:
            raise S3Error("MalformedXML")
    if not lists["AllowedOrigin"] or not lists["AllowedMethod"]:
        raise S3Error("MalformedXML")
    for method in lists["AllowedMethod"]:
        if method not in METHODS:
            raise S3Error(
                "InvalidRequest",
                f"Found unsupported HTTP method in CORS config. Unsupported method is {method}",
            )
    for name in ("AllowedOrigin", "AllowedHeader"):
        for text in lists[name]:
            if text.count("*") > 1:
                raise S3Error("InvalidRequest", f'{name} "{text}" can not have more than one wildcard.')
            _check_text(text)
    for text in lists["ExposeHeader"]:
        if "*" in text:
            raise S3Error(
                "InvalidRequest",
                f'ExposeHeader "{text}" contains wildcard. We currently do not support wildcard for ExposeHeader.',
            )
        if not _TOKEN.fullmatch(text):
            raise S3Error("InvalidRequest", f'ExposeHeader "{text}" contains invalid character.')
    if len(single.get("ID", "")) > _MAX_ID:
        raise S3Error("InvalidRequest", f"The ID of a CORS rule has at most {_MAX_ID} characters.")
    return CorsRule(
        tuple(lists["AllowedOrigin"]),
        tuple(lists["AllowedMethod"]),
        tuple(lists["AllowedHeader"]),
        tuple(lists["ExposeHeader"]),
        _parse_age(single["MaxAgeSeconds"]) if "MaxAgeSeconds" in single else None,
        single.get("ID"),
    )


def _check_text(text: str) -> None:
    if not text or has_control_characters(text):
        raise S3Error("MalformedXML")


def _parse_age(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 1 << 31):
        raise S3Error("MalformedXML")
    return int(text)


def format_xml(rules: Sequence[CorsRule]) -> bytes:
    """A CORSConfiguration document."""
    return document(
        "CORSConfiguration", "".join([f"<CORSRule>{_format_rule(rule)}</CORSRule>" for rule in rules])
    )


def _format_rule(rule: CorsRule) -> str:
    rows = [f"<ID>{escape(rule.id)}</ID>"] if rule.id is not None else []
    for name, texts in zip(_LISTS, (rule.origins, rule.methods, rule.headers, rule.expose), strict=True):
        rows += [f"<{name}>{escape(text)}</{name}>" for text in texts]
    if rule.max_age_seconds is not None:
        rows.append(f"<MaxAgeSeconds>{rule.max_age_seconds}</MaxAgeSeconds>")
    return "".join(rows)
