"""The policy of a form upload: what its author signed away, and whether a form stays within it.

Pure: `parse_policy` reads the document, `check_form` holds the fields of a form against it. Guarantees:

* Every condition is enforced, on any field; one that cannot be understood refuses the whole policy.
* Every field of the form is covered by a condition, but for the few that AWS exempts, so that nobody can add one; and
  so is the bucket, which is the one the request goes to, whatever a field says (CVE-2023-43040).
* Names of fields and operators count in any case, values and the two keys of the document exactly.
* It has an end: `expiration` is required.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

from __future__ import annotations

import binascii
import datetime
import json
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Not covered by the policy: they prove it, or are the upload itself.
_EXEMPT = frozenset(("policy", "x-amz-signature", "file"))
_IGNORED_PREFIX = "x-ignore-"
# AWS's escapes that JSON has not: \$ keeps a variable from being one, \v is a vertical tab.
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_EXPIRATION = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z")
_MAX_LENGTH = 1 << 63


@dataclass(frozen=True, slots=True)
class Condition:
    """`field` is in lower case, without the `$`. `text` is the condition as AWS shows it in a refusal."""

    operator: Literal["eq", "starts-with"]
    field: str
    value: str
    text: str


@dataclass(frozen=True, slots=True)
class LengthRange:
    """Bytes of the file, both ends included."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Policy:
    expires_seconds: float  # since 1970
    conditions: tuple[Condition, ...]
    lengths: tuple[LengthRange, ...]

    @property
    def length(self) -> LengthRange | None:
        """What satisfies every content-length-range, if there is any. It may be empty (least > most)."""
        if not self.lengths:
            return None
        return LengthRange(max(r.least for r in self.lengths), min(r.most for r in self.lengths))


# --- parse ---------------------------------------------------------------------------------------------------------


def parse_policy(encoded: str) -> Policy:
    """The policy in the field of that name (base64 of JSON). Raises InvalidPolicyDocument."""
    document = _decode(encoded)
    if not isinstance(document, dict):
        _invalid("Policy must be a JSON object.")
    for name in document:
        if name not in ("expiration", "conditions"):
            _invalid(f"Unexpected: '{_shown(name)}'")
    if "expiration" not in document:
        _invalid("Policy missing expiration.")
    if "conditions" not in document:
        _invalid("Policy missing conditions.")
    conditions: list[Condition] = []
    lengths: list[LengthRange] = []
    listed = document["conditions"]
    if not isinstance(listed, list) or not listed:
        _invalid("Policy conditions must be a list that is not empty.")
    for entry in listed:
        parsed = _parse_condition(entry)
        if isinstance(parsed, LengthRange):
            lengths.append(parsed)
        else:
            conditions.append(parsed)
    return Policy(_parse_expiration(document["expiration"]), tuple(conditions), tuple(lengths))


def _decode(encoded: str) -> object:
    try:
        # Line breaks are what many encoders put in; nothing else may stand between the digits.
        raw = b64decode("".join(encoded.split()).encode("ascii"), validate=True)
        text = _ESCAPE.sub(_json_escape, raw.decode("utf-8-sig"))
        return json.loads(text, object_pairs_hook=_no_doubles)
    except (binascii.Error, UnicodeError, ValueError, RecursionError):
        _invalid("Invalid JSON.")


def _json_escape(match: re.Match[str]) -> str:
    return {"$": "$", "v": "\\u000b"}.get(match[1], match[0])


def _no_doubles(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Two parsers may disagree about which one of two equal names counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _parse_expiration(stated: object) -> float:
    if not isinstance(stated, str) or _EXPIRATION.fullmatch(stated) is None:
        _invalid(f"Invalid 'expiration' value: '{_shown(stated)}'")
    try:
        moment = datetime.datetime.strptime(stated[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        _invalid(f"Invalid 'expiration' value: '{_shown(stated)}'")
    return moment.replace(tzinfo=datetime.UTC).timestamp() + float("0" + (stated[19:-1] or ".0"))


def _parse_condition(entry: object) -> Condition | LengthRange:
    if isinstance(entry, dict):
        if len(entry) != 1:
            _invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
        ((name, value),) = entry.items()
        if not isinstance(value, str):
            _invalid("Invalid Simple-Condition: value must be a string.")
        return Condition("eq", _field(f"${name}"), value, _as_text("eq", f"${name}", value))
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str):
        _invalid("Invalid Condition: it must be an object, or a list of an operator and two operands.")
    operator, first, second = entry[0].lower(), entry[1], entry[2]
    if operator == "content-length-range":
        return LengthRange(_length(first), _length(second))
    if operator not in ("eq", "starts-with"):
        _invalid(f"Invalid Condition: unknown operation '{_shown(entry[0])}'.")
    if not isinstance(first, str) or not isinstance(second, str):
        _invalid("Invalid Condition: operands must be strings.")
    kind: Literal["eq", "starts-with"] = "eq" if operator == "eq" else "starts-with"
    return Condition(kind, _field(first), second, _as_text(kind, first, second))


def _field(name: str) -> str:
    if len(name) < 2 or not name.startswith("$"):
        _invalid("Invalid Condition: a field is named with a '$' before it.")
    return name[1:].lower()


def _length(stated: object) -> int:
    if isinstance(stated, str) and stated.isascii() and stated.isdigit() and len(stated) < 20:
        stated = int(stated)
    if not isinstance(stated, int) or isinstance(stated, bool) or not 0 <= stated <= _MAX_LENGTH:
        _invalid("Invalid Condition: content-length-range takes two numbers of bytes.")
    return stated


def _as_text(operator: str, field: str, value: str) -> str:
    return json.dumps([operator, field, value])


def _shown(value: object) -> str:
    return str(value).encode("ascii", "backslashreplace").decode("ascii")[:100]


def _invalid(problem: str) -> NoReturn:
    raise S3Error("InvalidPolicyDocument", f"Invalid Policy: {problem}")


# --- check ---------------------------------------------------------------------------------------------------------


def check_form(policy: Policy, bucket: str, fields: Mapping[str, str], now: float) -> None:
    """All but the file's length. `fields` by lower-case name, `bucket` from the request's address.

    Raises AccessDenied, with the first reason found.
    """
    if now >= policy.expires_seconds:
        raise refused("Policy expired.")
    judged = {**fields, "bucket": bucket}
    for condition in policy.conditions:
        if not _holds(condition, judged.get(condition.field, "")):
            raise refused(f"Policy Condition failed: {condition.text}")
    covered = {condition.field for condition in policy.conditions}
    extra = [name for name in judged if name not in covered and not _exempt(name)]
    if extra:
        raise refused(f"Extra input fields: {', '.join(sorted(extra))}")


def _holds(condition: Condition, given: str) -> bool:
    if condition.operator == "eq":
        return given == condition.value
    if condition.field == "content-type" and "," in given:
        return all(kind.strip().startswith(condition.value) for kind in given.split(","))
    return given.startswith(condition.value)


def _exempt(name: str) -> bool:
    return name in _EXEMPT or name.startswith(_IGNORED_PREFIX)


def refused(reason: str) -> S3Error:
    return S3Error("AccessDenied", f"Invalid according to Policy: {reason}")
