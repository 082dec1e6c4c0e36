"""The XML of Object Lock: configuration of a bucket, retention and legal hold of a version; read and written.

Anything that the schema does not allow is MalformedXML. Whether a date is in the future is not judged here.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectLockConfiguration.html, API_PutObjectRetention.html and
API_PutObjectLegalHold.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vaultaire.s3 import xml_tree
from vaultaire.s3.dates import format_iso, parse_iso_ms
from vaultaire.s3.errors import S3Error
from vaultaire.s3.xml import document

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

Mode = Literal["GOVERNANCE", "COMPLIANCE"]
Unit = Literal["Days", "Years"]

MAX_DAYS = 36_500
MAX_YEARS = 100


@dataclass(frozen=True, slots=True)
class Default:
    """A bucket's default retention."""

    mode: Mode
    count: int
    unit: Unit


def parse_mode(text: str) -> Mode | None:
    """A retention mode; None for any other text."""
    match text:
        case "GOVERNANCE":
            return "GOVERNANCE"
        case "COMPLIANCE":
            return "COMPLIANCE"
    return None


def parse_configuration(body: bytes) -> Default | None:
    """PutObjectLockConfiguration: the default retention; None if there is no rule.

    Raises MalformedXML, InvalidRetentionPeriod.
    """
    tree = xml_tree.parse(body, "ObjectLockConfiguration")
    found = xml_tree.one_of(tree, frozenset(("ObjectLockEnabled", "Rule")))
    enabled = found.get("ObjectLockEnabled")
    if enabled is None or xml_tree.text_of(enabled) != "Enabled":
        raise S3Error("MalformedXML")
    rule = found.get("Rule")
    return None if rule is None else _default(rule)


def _default(rule: Element) -> Default:
    retention = xml_tree.one_of(rule, frozenset(("DefaultRetention",))).get("DefaultRetention")
    if retention is None:
        raise S3Error("MalformedXML")
    fields = xml_tree.fields(retention, frozenset(("Mode", "Days", "Years")))
    mode = parse_mode(fields.get("Mode", ""))
    if mode is None or ("Days" in fields) == ("Years" in fields):
        raise S3Error("MalformedXML")
    if "Days" in fields:
        return Default(mode, _period(fields["Days"], MAX_DAYS), "Days")
    return Default(mode, _period(fields["Years"], MAX_YEARS), "Years")


def _period(text: str, maximum: int) -> int:
    digits = text.strip().removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise S3Error("MalformedXML")
    period = int(text)
    if period < 1:
        raise S3Error("InvalidRetentionPeriod")
    if period > maximum:
        raise S3Error("InvalidRetentionPeriod", f"Default retention period must not be more than {maximum}.")
    return period


def parse_retention(body: bytes) -> tuple[Mode, int] | None:
    """PutObjectRetention: (mode, milliseconds since 1970); None for an empty element, which takes a retention off.

    Raises MalformedXML.
    """
    tree = xml_tree.parse(body, "Retention")
    fields = xml_tree.fields(tree, frozenset(("Mode", "RetainUntilDate")))
    if not fields:
        return None
    mode, until_ms = parse_mode(fields.get("Mode", "")), parse_iso_ms(fields.get("RetainUntilDate", ""))
    if mode is None or until_ms is None:
        raise S3Error("MalformedXML")
    return mode, until_ms


def parse_legal_hold(body: bytes) -> bool:
    """PutObjectLegalHold: whether it is on. Raises MalformedXML."""
    tree = xml_tree.parse(body, "LegalHold")
    status = xml_tree.fields(tree, frozenset(("Status",))).get("Status")
    if status not in ("ON", "OFF"):
        raise S3Error("MalformedXML")
    return status == "ON"


def configuration(default: Default | None) -> bytes:
    """GetObjectLockConfiguration of a bucket that has Object Lock."""
    rule = ""
    if default is not None:
        rule = (
            f"<Rule><DefaultRetention><Mode>{default.mode}</Mode><{default.unit}>{default.count}</{default.unit}>"
            "</DefaultRetention></Rule>"
        )
    return document("ObjectLockConfiguration", f"<ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}")


def retention(mode: Mode, until_ms: int) -> bytes:
    return document(
        "Retention", f"<Mode>{mode}</Mode><RetainUntilDate>{format_iso(until_ms)}</RetainUntilDate>"
    )


def legal_hold(on: bool) -> bytes:
    return document("LegalHold", f"<Status>{'ON' if on else 'OFF'}</Status>")
