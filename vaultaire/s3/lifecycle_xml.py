"""The LifecycleConfiguration document: read with S3's rules and errors, and written. Pure.

What is written reads back as the same rules; it is what the store keeps and GetBucketLifecycleConfiguration answers.
Transitions are refused, not ignored: there is one storage class here, and a rule that does nothing would be believed.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from vaultaire.s3.dates import format_iso
from vaultaire.s3.errors import S3Error
from vaultaire.s3.lifecycle import DAY_MS, Filter, Rule, Rules
from vaultaire.s3.names import MAX_KEY_BYTES
from vaultaire.s3.xml import document
from vaultaire.s3.xml_text import escape
from vaultaire.s3.xml_tree import children, fields, one_of, parse, text_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

    from vaultaire.s3.lifecycle import Tags

MAX_RULES = 1000
MAX_ID_CHARACTERS = 255
MAX_NEWER_NONCURRENT = 100
_MAX_DAYS = (1 << 31) - 1
_TRANSITIONS = ("Transition", "NoncurrentVersionTransition")
_ACTIONS = ("Expiration", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload")
_RULE_FIELDS = frozenset(("ID", "Status", "Prefix", "Filter", *_ACTIONS))
_SIZES = ("ObjectSizeGreaterThan", "ObjectSizeLessThan")
_FILTER_FIELDS = frozenset(("Prefix", "Tag", "And", *_SIZES))


# --- read ----------------------------------------------------------------------------------------------------------


def parse_lifecycle(body: bytes, new_id: Callable[[], str]) -> Rules:
    """1 to 1,000 rules, in their order; `new_id` names those that came without a name.

    Raises MalformedXML, InvalidArgument, InvalidRequest, NotImplemented.
    """
    rules: list[Rule] = []
    ids: set[str] = set()
    for name, element in children(parse(body, "LifecycleConfiguration")):
        if name != "Rule" or len(rules) >= MAX_RULES:
            raise S3Error("MalformedXML")
        rule = _rule(element, new_id)
        if rule.id in ids:
            raise _invalid("Rule ID must be unique. Found same ID for more than one rule")
        ids.add(rule.id)
        rules.append(rule)
    if not rules:
        raise S3Error("MalformedXML")
    return tuple(rules)


def _rule(element: Element, new_id: Callable[[], str]) -> Rule:
    for name, _ in children(element):
        if name in _TRANSITIONS:
            raise S3Error(
                "NotImplemented",
                f"{name} is not supported: this server has one storage class. Remove the action from the rule.",
                extra={"Element": name},
            )
    found = one_of(element, _RULE_FIELDS)
    rule_id = text_of(found["ID"]) if "ID" in found else ""
    if len(rule_id) > MAX_ID_CHARACTERS:
        raise _invalid("ID length should not exceed allowed limit of 255")
    status = text_of(found["Status"]) if "Status" in found else ""
    if status not in ("Enabled", "Disabled") or ("Prefix" in found) == ("Filter" in found):
        raise S3Error("MalformedXML")
    wanted = _rule_prefix(found["Prefix"]) if "Prefix" in found else _filter(found["Filter"])
    if not any(action in found for action in _ACTIONS):
        raise S3Error("InvalidRequest", "At least one action needs to be specified in a rule")
    days, at_ms, marker = _expiration(found.get("Expiration"), wanted)
    noncurrent_days, newer = _noncurrent(found.get("NoncurrentVersionExpiration"))
    return Rule(
        rule_id or new_id(),
        status == "Enabled",
        wanted,
        days,
        at_ms,
        marker,
        noncurrent_days,
        newer,
        _abort(found.get("AbortIncompleteMultipartUpload"), wanted),
    )


def _rule_prefix(element: Element) -> Filter:
    return Filter(prefix=_prefix(text_of(element)), form="rule-prefix")


def _filter(element: Element) -> Filter:
    """At most one condition; several stand in And."""
    found = one_of(element, _FILTER_FIELDS)
    if len(found) > 1:
        raise S3Error("MalformedXML")
    if "And" in found:
        return _and(found["And"])
    return Filter(
        prefix=_prefix(text_of(found["Prefix"])) if "Prefix" in found else None,
        tags=(_tag(found["Tag"]),) if "Tag" in found else (),
        larger_than=_size(found.get(_SIZES[0])),
        smaller_than=_size(found.get(_SIZES[1])),
    )


def _and(element: Element) -> Filter:
    tags: list[tuple[str, str]] = []
    others: dict[str, Element] = {}
    for name, child in children(element):
        if name == "Tag":
            tags.append(_tag(child))
        elif name in ("Prefix", *_SIZES) and name not in others:
            others[name] = child
        else:
            raise S3Error("MalformedXML")
    if not tags and not others:
        raise S3Error("MalformedXML")
    if len({key for key, _ in tags}) < len(tags):
        raise S3Error("InvalidRequest", "Duplicate Tag Keys are not allowed.")
    larger, smaller = _size(others.get(_SIZES[0])), _size(others.get(_SIZES[1]))
    if larger is not None and smaller is not None and larger >= smaller:
        raise S3Error(
            "InvalidRequest",
            "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.",
        )
    prefix = _prefix(text_of(others["Prefix"])) if "Prefix" in others else None
    return Filter(prefix, tuple(tags), larger, smaller, "and")


def _prefix(text: str) -> str:
    if len(text.encode()) > MAX_KEY_BYTES:
        raise S3Error("InvalidRequest", "The maximum size of a prefix is 1024.")
    return text


def _tag(element: Element) -> tuple[str, str]:
    found = fields(element, frozenset(("Key", "Value")))
    key, value = found.get("Key", ""), found.get("Value")
    if value is None:
        raise S3Error("MalformedXML")
    if not 1 <= len(key) <= 128:
        raise S3Error("InvalidTag", "The TagKey you have provided is invalid")
    if len(value) > 256:
        raise S3Error("InvalidTag", "The TagValue you have provided is invalid")
    return key, value


def _size(element: Element | None) -> int | None:
    if element is None:
        return None
    text = text_of(element).strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise S3Error("MalformedXML")
    return int(text)


def _expiration(element: Element | None, wanted: Filter) -> tuple[int | None, int | None, bool | None]:
    """(days, date in ms, lone markers), one of them."""
    if element is None:
        return None, None, None
    found = fields(element, frozenset(("Days", "Date", "ExpiredObjectDeleteMarker")))
    if len(found) != 1:
        raise S3Error("MalformedXML")
    if "Days" in found:
        return _positive(found["Days"], "Days", "Expiration"), None, None
    if "Date" in found:
        return None, _midnight(found["Date"]), None
    if wanted.tags:
        raise S3Error("InvalidRequest", "ExpiredObjectDeleteMarker cannot be specified with Tags.")
    text = found["ExpiredObjectDeleteMarker"].strip()
    if text not in ("true", "false"):
        raise S3Error("MalformedXML")
    return None, None, text == "true"


def _noncurrent(element: Element | None) -> tuple[int | None, int | None]:
    if element is None:
        return None, None
    found = fields(element, frozenset(("NoncurrentDays", "NewerNoncurrentVersions")))
    if "NoncurrentDays" not in found:
        raise S3Error("MalformedXML")
    action = "NoncurrentVersionExpiration"
    days = _positive(found["NoncurrentDays"], "NoncurrentDays", action)
    if "NewerNoncurrentVersions" not in found:
        return days, None
    newer = _positive(found["NewerNoncurrentVersions"], "NewerNoncurrentVersions", action)
    if newer > MAX_NEWER_NONCURRENT:
        raise _invalid(
            f"'NewerNoncurrentVersions' for {action} action must be at most {MAX_NEWER_NONCURRENT}"
        )
    return days, newer


def _abort(element: Element | None, wanted: Filter) -> int | None:
    if element is None:
        return None
    found = fields(element, frozenset(("DaysAfterInitiation",)))
    if not found:
        raise S3Error("MalformedXML")
    action = "AbortIncompleteMultipartUpload"
    days = _positive(found["DaysAfterInitiation"], "DaysAfterInitiation", action)
    if wanted.tags:
        raise S3Error("InvalidRequest", f"{action} cannot be specified with Tags.")
    if wanted.by_size:
        raise S3Error("InvalidRequest", f"{action} cannot be specified with Object Size.")
    return days


def _positive(text: str, name: str, action: str) -> int:
    text = text.strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 12):
        raise S3Error("MalformedXML")
    number = int(text)
    if number < 1:
        raise _invalid(f"'{name}' for {action} action must be a positive integer")
    if number > _MAX_DAYS:
        raise S3Error("MalformedXML")
    return number


def _midnight(text: str) -> int:
    """An ISO 8601 date or time in ms; without a zone it is UTC."""
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        ms = (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(
            milliseconds=1
        )
    except (ValueError, OverflowError):
        raise S3Error("MalformedXML") from None
    if ms % DAY_MS or moment.microsecond:
        raise _invalid("'Date' must be at midnight GMT")
    if ms < 0:
        raise S3Error("MalformedXML")
    return ms


def _invalid(message: str) -> S3Error:
    return S3Error("InvalidArgument", message)


# --- write ---------------------------------------------------------------------------------------------------------


def format_lifecycle(rules: Rules) -> bytes:
    """The document, as S3 would give these rules back."""
    return document("LifecycleConfiguration", "".join(map(_format_rule, rules)))


def _format_rule(rule: Rule) -> str:
    status = "Enabled" if rule.enabled else "Disabled"
    return (
        f"<Rule>{_element('ID', rule.id)}{_format_filter(rule.filter)}<Status>{status}</Status>"
        f"{_format_expiration(rule)}{_format_noncurrent(rule)}{_format_abort(rule)}</Rule>"
    )


def _element(name: str, value: object) -> str:
    return "" if value is None else f"<{name}>{escape(str(value))}</{name}>"


def _format_filter(wanted: Filter) -> str:
    if wanted.form == "rule-prefix":
        return _element("Prefix", wanted.prefix)
    inner = (
        f"{_element('Prefix', wanted.prefix)}{_format_tags(wanted.tags)}"
        f"{_element(_SIZES[0], wanted.larger_than)}{_element(_SIZES[1], wanted.smaller_than)}"
    )
    return f"<Filter><And>{inner}</And></Filter>" if wanted.form == "and" else f"<Filter>{inner}</Filter>"


def _format_tags(tags: Tags) -> str:
    return "".join(f"<Tag>{_element('Key', key)}{_element('Value', value)}</Tag>" for key, value in tags)


def _format_expiration(rule: Rule) -> str:
    if rule.expire_days is not None:
        return f"<Expiration><Days>{rule.expire_days}</Days></Expiration>"
    if rule.expire_at_ms is not None:
        return f"<Expiration><Date>{format_iso(rule.expire_at_ms)}</Date></Expiration>"
    if rule.expire_lone_marker is not None:
        flag = "true" if rule.expire_lone_marker else "false"
        return f"<Expiration><ExpiredObjectDeleteMarker>{flag}</ExpiredObjectDeleteMarker></Expiration>"
    return ""


def _format_noncurrent(rule: Rule) -> str:
    if rule.noncurrent_days is None:
        return ""
    inner = _element("NoncurrentDays", rule.noncurrent_days)
    inner += _element("NewerNoncurrentVersions", rule.newer_noncurrent)
    return f"<NoncurrentVersionExpiration>{inner}</NoncurrentVersionExpiration>"


def _format_abort(rule: Rule) -> str:
    if rule.abort_days is None:
        return ""
    inner = _element("DaysAfterInitiation", rule.abort_days)
    return f"<AbortIncompleteMultipartUpload>{inner}</AbortIncompleteMultipartUpload>"
