"""The Condition block of a policy statement: operators, the keys they may ask about, and how they are decided. Pure.

A request is seen as facts: key in lower case -> its values (most have one). A key that the request does not have makes
a condition false, and a negated one (StringNotEquals, NotIpAddress, ...) true; with `IfExists` both are true. Several
values of one condition are alternatives, several keys or operators must all hold. `ForAllValues:` and `ForAnyValue:`
are for keys with several values.

A key that this server does not know is refused when the policy is stored: a Deny that can never apply would be worse
than an error. Values of String and Arn conditions may have policy variables (`policy_variables`); one without a value
is an alternative that no request has.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from vaultaire.s3.errors import S3Error
from vaultaire.s3.glob import Glob
from vaultaire.s3.policy_variables import MARK, Template, parse_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Facts = Mapping[str, tuple[str, ...]]
    Test = Callable[[str], bool]

EXISTING_TAG = "s3:existingobjecttag/"
REQUEST_TAG = "s3:requestobjecttag/"
REQUEST_TAG_KEYS = "s3:requestobjecttagkeys"
_TAG_PREFIXES = (EXISTING_TAG, REQUEST_TAG)
LOCK_MODE = "s3:object-lock-mode"
LOCK_UNTIL = "s3:object-lock-retain-until-date"
LOCK_DAYS = "s3:object-lock-remaining-retention-days"
LOCK_HOLD = "s3:object-lock-legal-hold"
LOCK_KEYS = frozenset((LOCK_MODE, LOCK_UNTIL, LOCK_DAYS, LOCK_HOLD))

# What requests here can have, or honestly never have (aws:SourceVpc: no request comes out of a VPC).
_KEYS = frozenset(
    name.lower()
    for name in (
        "aws:CurrentTime",
        "aws:EpochTime",
        "aws:MultiFactorAuthAge",
        "aws:MultiFactorAuthPresent",
        "aws:PrincipalAccount",
        "aws:PrincipalArn",
        "aws:PrincipalIsAWSService",
        "aws:PrincipalOrgID",
        "aws:PrincipalType",
        "aws:Referer",
        "aws:SecureTransport",
        "aws:SourceAccount",
        "aws:SourceArn",
        "aws:SourceIp",
        "aws:SourceVpc",
        "aws:SourceVpce",
        "aws:UserAgent",
        "aws:userid",
        "aws:username",
        "aws:VpcSourceIp",
        "s3:authType",
        "s3:delimiter",
        "s3:LocationConstraint",
        "s3:max-keys",
        *LOCK_KEYS,
        "s3:prefix",
        "s3:RequestObjectTagKeys",
        "s3:ResourceAccount",
        "s3:signatureAge",
        "s3:signatureversion",
        "s3:TlsVersion",
        "s3:VersionId",
        "s3:x-amz-acl",
        "s3:x-amz-content-sha256",
        "s3:x-amz-copy-source",
        "s3:x-amz-grant-full-control",
        "s3:x-amz-grant-read",
        "s3:x-amz-grant-read-acp",
        "s3:x-amz-grant-write",
        "s3:x-amz-grant-write-acp",
        "s3:x-amz-metadata-directive",
        "s3:x-amz-object-ownership",
        "s3:x-amz-server-side-encryption",
        "s3:x-amz-server-side-encryption-aws-kms-key-id",
        "s3:x-amz-server-side-encryption-customer-algorithm",
        "s3:x-amz-storage-class",
        "s3:x-amz-website-redirect-location",
    )
)


@dataclass(frozen=True, slots=True)
class Condition:
    """`operator` with one key and its alternatives."""

    operator: str  # as written, for messages and for `policy.is_public`
    key: str  # lower case
    values: tuple[str, ...]
    tests: tuple[Test, ...]
    negated: bool
    if_exists: bool
    every: bool | None  # True: ForAllValues, False: ForAnyValue, None: neither
    null: bool | None = None  # the operator Null: whether the key must be absent; otherwise None
    templates: tuple[Template, ...] = ()  # the values with variables: their tests are made for each request

    @property
    def keys(self) -> tuple[str, ...]:
        """Every fact that it looks at."""
        return self.key, *(variable.key for template in self.templates for variable in template.variables)

    def holds(self, facts: Facts) -> bool:
        found = facts.get(self.key)
        if self.null is not None:
            return (found is None) is self.null
        if found is None:
            return self.if_exists or self.every is True or (self.negated and self.every is None)
        tests = (*self.tests, *self._filled(facts)) if self.templates else self.tests
        fits = (any(test(value) for test in tests) is not self.negated for value in found)
        return any(fits) if self.every is False else all(fits)

    def _filled(self, facts: Facts) -> Iterator[Test]:
        make = _VARIABLE_OPERATORS[_plain(self.operator)]
        for template in self.templates:
            text = template.fill(facts)
            if text is not None:
                yield make(text)


def malformed(message: str) -> S3Error:
    return S3Error("MalformedPolicy", message)


def parse_conditions(block: object) -> tuple[Condition, ...]:
    """`{operator: {key: value or values}}`. Raises MalformedPolicy."""
    if not isinstance(block, dict):
        raise malformed("Conditions must be an object")
    conditions = []
    for operator, keys in block.items():
        if not isinstance(keys, dict) or not keys:
            raise malformed(f"Condition {operator} must be a non-empty object")
        for key, values in keys.items():
            conditions.append(_parse_condition(operator, key, texts(values, scalars=True)))
    return tuple(conditions)


def texts(value: object, *, scalars: bool = False) -> tuple[str, ...]:
    """A string, or a list of them; with `scalars` numbers and booleans count as their JSON text."""
    listed = value if isinstance(value, list) else [value]
    found = []
    for item in listed:
        if scalars and isinstance(item, bool):
            found.append("true" if item else "false")
        elif scalars and isinstance(item, int | float):
            found.append(str(item))
        elif isinstance(item, str):
            found.append(item)
        else:
            raise malformed("Syntax errors in policy: a string or a list of strings is wanted")
    return tuple(found)


def fact_of(key: str) -> str:
    """A condition key as facts have it: in lower case, but for the name of a tag. Raises MalformedPolicy."""
    lowered = key.lower()
    if lowered.startswith(_TAG_PREFIXES) and lowered.partition("/")[2]:
        return lowered.partition("/")[0] + "/" + key.partition("/")[2]
    if lowered not in _KEYS:
        raise malformed(f"Policy has an invalid condition key: {key}")
    return lowered


def template_of(text: str, *, pattern: bool) -> Template:
    """As `parse_template`. Raises MalformedPolicy."""
    try:
        return parse_template(text, fact_of, pattern=pattern)
    except ValueError as error:
        raise malformed(f"Syntax errors in policy: {error}") from None


def _plain(written: str) -> str:
    """The operator without the quantifier before and IfExists behind."""
    return written.rpartition(":")[2].removesuffix("IfExists")


def _parse_condition(written: str, key: str, values: tuple[str, ...]) -> Condition:
    every = (
        True if written.startswith("ForAllValues:") else False if written.startswith("ForAnyValue:") else None
    )
    if every is None and ":" in written:
        raise malformed(f"Invalid Condition type : {written}")
    name, if_exists = _plain(written), written.endswith("IfExists")
    lowered = fact_of(key)
    if not values:
        raise malformed(f"Condition {written} has no value")
    if name == "Null":
        if if_exists or every is not None or len(values) != 1:
            raise malformed(f"Invalid Condition type : {written}")
        return Condition(written, lowered, values, (), False, False, None, _boolean(values[0]))
    known = _OPERATORS.get(name)
    if known is None:
        raise malformed(f"Invalid Condition type : {written}")
    make, negated = known
    variable = [value for value in values if MARK in value]
    if variable and name not in _VARIABLE_OPERATORS:
        raise malformed(f"{written} does not allow policy variables")
    tests = tuple(make(value) for value in values if MARK not in value)
    templates = tuple(template_of(value, pattern=name in _LIKES) for value in variable)
    return Condition(written, lowered, values, tests, negated, if_exists, every, None, templates)


# --- operators -----------------------------------------------------------------------------------------------------


def _equals(wanted: str) -> Test:
    return wanted.__eq__


def _equals_ignoring_case(wanted: str) -> Test:
    lowered = wanted.lower()
    return lambda value: value.lower() == lowered


def _like(wanted: str) -> Test:
    return Glob(wanted).matches


def _like_inner(wanted: str) -> Test:
    """`wanted` has its wildcards as `glob.wildcards` writes them."""
    return Glob(wanted, inner=True).matches


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise malformed(f"{text!r} is not a boolean")
    return text.lower() == "true"


def _bool(wanted: str) -> Test:
    lowered = "true" if _boolean(wanted) else "false"
    return lambda value: value.lower() == lowered


def _numeric(compare: Callable[[Decimal, Decimal], bool]) -> Callable[[str], Test]:
    def make(wanted: str) -> Test:
        number = _number(wanted)
        if number is None:
            raise malformed(f"{wanted!r} is not a number")

        def test(value: str) -> bool:
            found = _number(value)
            return found is not None and compare(found, number)

        return test

    return make


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    # Comparing 1e999999999 with 1 would write all of its digits down.
    return number if number.is_finite() and abs(number.adjusted()) < 40 and len(text) <= 64 else None


def _dated(compare: Callable[[float, float], bool]) -> Callable[[str], Test]:
    def make(wanted: str) -> Test:
        moment = _moment(wanted)
        if moment is None:
            raise malformed(f"{wanted!r} is not a date")

        def test(value: str) -> bool:
            found = _moment(value)
            return found is not None and compare(found, moment)

        return test

    return make


def _moment(text: str) -> float | None:
    """ISO 8601 (UTC if it names no zone) or seconds since 1970."""
    number = _number(text)
    if number is not None:
        return float(number)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()


def _address(wanted: str) -> Test:
    try:
        network = ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        raise malformed(f"Invalid IP address or network: {wanted}") from None

    def test(value: str) -> bool:
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        if address.version == 6 and address.ipv4_mapped is not None and network.version == 4:
            address = address.ipv4_mapped
        return address.version == network.version and address in network

    return test


_COMPARISONS: dict[str, Callable[[float | Decimal, float | Decimal], bool]] = {
    "Equals": lambda a, b: a == b,
    "LessThan": lambda a, b: a < b,
    "LessThanEquals": lambda a, b: a <= b,
    "GreaterThan": lambda a, b: a > b,
    "GreaterThanEquals": lambda a, b: a >= b,
}

# name -> (makes the test of one value, negated)
_OPERATORS: dict[str, tuple[Callable[[str], Test], bool]] = {
    "StringEquals": (_equals, False),
    "StringNotEquals": (_equals, True),
    "StringEqualsIgnoreCase": (_equals_ignoring_case, False),
    "StringNotEqualsIgnoreCase": (_equals_ignoring_case, True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "ArnEquals": (_like, False),
    "ArnNotEquals": (_like, True),
    "ArnLike": (_like, False),
    "ArnNotLike": (_like, True),
    "Bool": (_bool, False),
    "IpAddress": (_address, False),
    "NotIpAddress": (_address, True),
    "NumericNotEquals": (_numeric(_COMPARISONS["Equals"]), True),
    "DateNotEquals": (_dated(_COMPARISONS["Equals"]), True),
    **{f"Numeric{name}": (_numeric(compare), False) for name, compare in _COMPARISONS.items()},
    **{f"Date{name}": (_dated(compare), False) for name, compare in _COMPARISONS.items()},
}


_LIKES = frozenset(name for name, (make, _) in _OPERATORS.items() if make is _like)
# What makes the test of a value whose variables are filled in.
_VARIABLE_OPERATORS: dict[str, Callable[[str], Test]] = {
    name: _like_inner if name in _LIKES else make
    for name, (make, _) in _OPERATORS.items()
    if name in _LIKES or name.startswith("String")
}


def fixed_values(condition: Condition, keys: Sequence[str]) -> bool:
    """Whether it holds only for some values of one of `keys` that are spelled out, without wildcards and variables."""
    name = condition.operator.removeprefix("ForAnyValue:")
    if condition.key not in keys or condition.negated or condition.templates or name not in (
        "StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike",
    ):  # fmt: skip
        return False
    return not any("*" in value or "?" in value for value in condition.values)
