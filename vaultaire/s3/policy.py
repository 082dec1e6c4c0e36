"""Bucket policies: parsed and checked when they are stored, evaluated for every request. Pure.

A document has up to 20 KB of JSON. A statement applies to a request if its principal, action, resource and every
condition fit; if a Deny applies, nothing allows any more; without any Allow the policy says nothing.

**Principals** are tenants and access keys. `"*"` is everyone, anonymous included; a name is a tenant or an access key;
`arn:aws:iam::TENANT:root` is exactly a tenant, `arn:aws:iam::TENANT:user/ACCESS-KEY` exactly a key; `CanonicalUser` is
a tenant. NotPrincipal is for Deny only, as on AWS.

What cannot be kept is refused (MalformedPolicy), never stored and ignored: actions and condition keys that are not
known, resources of other buckets, actions that no resource of their statement can have, and policy variables
(`policy_variables`) that name no condition key, stand in the bucket's name, or in a document of Version 2008-10-17.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from vaultaire.s3.actions import ACTIONS
from vaultaire.s3.glob import Glob
from vaultaire.s3.policy_conditions import (
    EXISTING_TAG,
    LOCK_KEYS,
    REQUEST_TAG,
    REQUEST_TAG_KEYS,
    Condition,
    fixed_values,
    malformed,
    parse_conditions,
    template_of,
    texts,
)
from vaultaire.s3.policy_variables import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaultaire.s3.policy_conditions import Facts
    from vaultaire.s3.policy_variables import Template

MAX_DOCUMENT_BYTES = 20 << 10
_ARN = "arn:aws:s3:::"
_IAM = "arn:aws:iam::"
_VERSIONS = ("2012-10-17", "2008-10-17")
_STATEMENT_FIELDS = frozenset(
    (
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    )
)
# A statement for everyone is not public if one of these has fixed values. See
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
_CLOSING_KEYS = (
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalorgid",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:userid",
    "aws:username",
)
_WIDEST_IPV4, _WIDEST_IPV6 = 8, 32  # a wider network counts as public


class Verdict(Enum):
    ALLOW = "Allow"
    DENY = "Deny"
    SILENT = "nothing is said"


@dataclass(frozen=True, slots=True)
class Asked:
    """One action of one request. `key` None: about the bucket itself. Without a tenant: anonymous."""

    action: str
    bucket: str
    key: str | None
    tenant: str | None
    access_key: str | None

    @property
    def resource(self) -> str:
        return f"{_ARN}{self.bucket}" if self.key is None else f"{_ARN}{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class Principals:
    """`everyone`, or tenants, access keys (plain names are both), and keys of one tenant."""

    everyone: bool
    names: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    keys: frozenset[tuple[str, str]] = frozenset()

    def include(self, asked: Asked) -> bool:
        if self.everyone:
            return True
        if asked.tenant is None or asked.access_key is None:
            return False
        return (
            asked.tenant in self.names
            or asked.access_key in self.names
            or asked.tenant in self.tenants
            or (asked.tenant, asked.access_key) in self.keys
        )


@dataclass(frozen=True, slots=True)
class Resource:
    """An ARN with wildcards (`glob`), or with variables too (`template`)."""

    pattern: str  # as written
    glob: Glob | None
    template: Template | None = None

    def matches(self, resource: str, facts: Facts) -> bool | None:
        """None: a variable has no value."""
        if self.glob is not None:
            return self.glob.matches(resource)
        assert self.template is not None
        filled = self.template.fill(facts)
        return None if filled is None else Glob(filled, inner=True).matches(resource)


@dataclass(frozen=True, slots=True)
class Statement:
    allow: bool
    principals: Principals
    actions: tuple[Glob, ...]
    resources: tuple[Resource, ...]
    conditions: tuple[Condition, ...]
    not_principals: bool = False
    not_actions: bool = False
    not_resources: bool = False

    def applies(self, asked: Asked, facts: Facts) -> bool:
        return (
            self.principals.include(asked) is not self.not_principals
            and any(glob.matches(asked.action) for glob in self.actions) is not self.not_actions
            and self._covers(asked.resource, facts)
            and all(condition.holds(facts) for condition in self.conditions)
        )

    def _covers(self, resource: str, facts: Facts) -> bool:
        found = [pattern.matches(resource, facts) for pattern in self.resources]
        if self.not_resources and self.allow and None in found:
            return False  # all but nobody knows what is not allowed
        return (True in found) is not self.not_resources


@dataclass(frozen=True, slots=True)
class Policy:
    statements: tuple[Statement, ...]

    def evaluate(self, asked: Asked, facts: Facts) -> Verdict:
        """Deny wins over Allow, in whatever order they stand."""
        verdict = Verdict.SILENT
        for statement in self.statements:
            if verdict is Verdict.ALLOW and statement.allow:
                continue
            if statement.applies(asked, facts):
                if not statement.allow:
                    return Verdict.DENY
                verdict = Verdict.ALLOW
        return verdict

    @property
    def allows_anything(self) -> bool:
        return any(statement.allow for statement in self.statements)

    @property
    def asks_for_existing_tags(self) -> bool:
        """Some condition looks at the tags that the object has."""
        return any(key.startswith(EXISTING_TAG) for key in self._keys())

    @property
    def asks_for_request_tags(self) -> bool:
        """Some condition looks at the tags that the request brings."""
        return any(key.startswith(REQUEST_TAG) or key == REQUEST_TAG_KEYS for key in self._keys())

    @property
    def asks_for_locks(self) -> bool:
        """Some condition looks at the retention or legal hold that the request asks for."""
        return any(key in LOCK_KEYS for key in self._keys())

    def _keys(self) -> Iterator[str]:
        for statement in self.statements:
            for condition in statement.conditions:
                yield from condition.keys
            for resource in statement.resources:
                if resource.template is not None:
                    yield from (variable.key for variable in resource.template.variables)

    @property
    def has_variables(self) -> bool:
        return any(
            any(resource.template for resource in statement.resources)
            or any(condition.templates for condition in statement.conditions)
            for statement in self.statements
        )

    @property
    def is_public(self) -> bool:
        """Some Allow is for everyone, and no condition ties it to spelled-out networks, accounts or keys."""
        return any(
            statement.allow and statement.principals.everyone and not any(map(_closes, statement.conditions))
            for statement in self.statements
        )


def _closes(condition: Condition) -> bool:
    if condition.if_exists or condition.every is True:
        return False
    if condition.operator == "IpAddress" and condition.key == "aws:sourceip":
        return not any(_is_wide(value) for value in condition.values)
    return fixed_values(condition, _CLOSING_KEYS)


def _is_wide(network: str) -> bool:
    found = ipaddress.ip_network(network, strict=False)
    return found.prefixlen < (_WIDEST_IPV4 if found.version == 4 else _WIDEST_IPV6)


# --- parsing -------------------------------------------------------------------------------------------------------


def parse(body: bytes, bucket: str) -> Policy:
    """The policy of `bucket`. Raises MalformedPolicy, which says what is wrong."""
    if len(body) > MAX_DOCUMENT_BYTES:
        raise malformed("Policy exceeds the maximum allowed document size.")
    if not body.strip().startswith(b"{"):
        raise malformed("Policies must be valid JSON and the first byte must be '{'")
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(document, ensure_ascii=False).encode()  # no lone surrogates: they mean something in `glob`
    except (ValueError, RecursionError):
        raise malformed("This policy contains invalid Json") from None
    _fields(document, frozenset(("Version", "Id", "Statement")))
    if document.get("Version", _VERSIONS[1]) not in _VERSIONS:
        raise malformed("The policy must contain a valid version string")
    if not isinstance(document.get("Id", ""), str):
        raise malformed("Syntax errors in policy: Id is a string")
    listed = document.get("Statement")
    if isinstance(listed, dict):
        listed = [listed]
    if not isinstance(listed, list) or not listed:
        raise malformed("Missing required field Statement")
    policy = Policy(tuple(_parse_statement(statement, bucket) for statement in listed))
    if document.get("Version") != _VERSIONS[0] and policy.has_variables:
        raise malformed(f"Policy variables need the Version {_VERSIONS[0]}")
    sids = [statement["Sid"] for statement in listed if statement.get("Sid")]  # empty ones are none
    if len(set(sids)) < len(sids):
        raise malformed("Statement IDs (SID) in a single policy must be unique.")
    return policy


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _fields(value: object, allowed: frozenset[str]) -> None:
    if not isinstance(value, dict):
        raise malformed("Syntax errors in policy: an object is wanted")
    for name in value:
        if name not in allowed:
            raise malformed(f"Unknown field {name}")


def _parse_statement(fields: dict[str, Any], bucket: str) -> Statement:
    _fields(fields, _STATEMENT_FIELDS)
    effect = fields.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise malformed(
            f"Invalid effect: {effect}" if "Effect" in fields else "Missing required field Effect"
        )
    if not isinstance(fields.get("Sid", ""), str):
        raise malformed("Syntax errors in policy: Sid is a string")
    principal, not_principals = _either(fields, "Principal")
    action, not_actions = _either(fields, "Action")
    resource, not_resources = _either(fields, "Resource")
    if not_principals and effect == "Allow":
        raise malformed("Allow with NotPrincipal is not allowed")
    statement = Statement(
        effect == "Allow",
        _parse_principals(principal),
        tuple(_parse_action(text) for text in _some(action, "Action")),
        tuple(_parse_resource(text, bucket, anywhere=not_resources) for text in _some(resource, "Resource")),
        parse_conditions(fields["Condition"]) if "Condition" in fields else (),
        not_principals,
        not_actions,
        not_resources,
    )
    _check_kinds(statement)
    return statement


def _either(fields: dict[str, Any], name: str) -> tuple[Any, bool]:
    """(value, whether it is the Not form); exactly one of the two."""
    if (name in fields) == (f"Not{name}" in fields):
        missing = name not in fields
        raise malformed(
            f"Missing required field {name}" if missing else f"Both {name} and Not{name} are given"
        )
    return (fields[name], False) if name in fields else (fields[f"Not{name}"], True)


def _some(value: object, name: str) -> tuple[str, ...]:
    found = texts(value)
    if not found:
        raise malformed(f"Policy has no {name.lower()}")
    return found


def _parse_principals(value: object) -> Principals:
    if value == "*":
        return Principals(everyone=True)
    if not isinstance(value, dict) or not value or not set(value) <= {"AWS", "CanonicalUser"}:
        raise malformed("Invalid principal in policy")
    everyone = False
    names, tenants, keys = set(), set(), set()
    for text in texts(value.get("AWS", [])):
        if text == "*":
            everyone = True
        elif text.startswith(_IAM):
            tenant, colon, rest = text.removeprefix(_IAM).partition(":")
            kind, _, access_key = rest.partition("/")
            if rest == "root" and tenant:
                tenants.add(tenant)
            elif colon and kind == "user" and tenant and access_key and "*" not in access_key:
                keys.add((tenant, access_key))
            else:
                raise malformed("Invalid principal in policy")
        elif text and not set(text) & set("*?/ ") and not text.startswith("arn:"):
            names.add(text)
        else:
            raise malformed("Invalid principal in policy")
    for text in texts(value.get("CanonicalUser", [])):
        if not text or "*" in text:
            raise malformed("Invalid principal in policy")
        tenants.add(text)
    if not (everyone or names or tenants or keys):
        raise malformed("Invalid principal in policy")
    return Principals(everyone, frozenset(names), frozenset(tenants), frozenset(keys))


def _parse_action(text: str) -> Glob:
    if text != "*" and not text.lower().startswith("s3:"):
        raise malformed("Policy has invalid action")
    glob = Glob(text, fold=True)
    if not any(glob.matches(action) for action in ACTIONS):
        raise malformed("Policy has invalid action")
    return glob


def _parse_resource(text: str, bucket: str, *, anywhere: bool) -> Resource:
    """An ARN of this bucket or of keys in it. What NotResource names may lie elsewhere."""
    if text == "*":
        text = f"{_ARN}*"
    if not text.startswith(_ARN) or len(text) == len(_ARN):
        raise malformed("Policy has invalid resource")
    name = text.removeprefix(_ARN).partition("/")[0]
    if not anywhere and not _may_name(name, bucket):
        raise malformed("Policy has invalid resource")
    if MARK not in text:
        return Resource(text, Glob(text))
    if MARK in name:
        raise malformed("Policy has invalid resource: no policy variables in the name of a bucket")
    return Resource(text, None, template_of(text, pattern=True))


def _may_name(pattern: str, bucket: str) -> bool:
    """Whether the pattern up to its first `/` can mean `bucket`; a `*` may reach over into the key."""
    return Glob(pattern).matches(bucket) or (
        "*" in pattern and Glob(pattern.partition("*")[0] + "*").matches(bucket + "/")
    )


def _check_kinds(statement: Statement) -> None:
    """Every action can be done to some resource of the statement; else it was meant otherwise (`b` for `b/*`)."""
    if statement.not_actions or statement.not_resources:
        return
    patterns = [resource.pattern.removeprefix(_ARN) for resource in statement.resources]
    kinds = {"bucket"} if any("/" not in pattern for pattern in patterns) else set()
    if any("/" in pattern or "*" in pattern for pattern in patterns):
        kinds.add("object")
    for glob in statement.actions:
        if not any(kind in kinds and glob.matches(action) for action, kind in ACTIONS.items()):
            raise malformed("Action does not apply to any resource(s) in statement")
