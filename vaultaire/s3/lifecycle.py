"""Lifecycle rules, and what they decide about one object, version or upload at one moment. Pure.

Every deadline is a midnight UTC. One that is counted in days is the time that the days count from, plus the days,
rounded up to the **next** midnight, as S3 does: an object made on 15 January at 10:30 with 3 days goes on 19 January at
00:00. Rules that are not enabled decide nothing. Of several rules the earliest deadline counts: S3 prefers expiring
over keeping.

Documents are read and written by `lifecycle_xml`; what is decided is carried out by `vaultaire.lifecycle`.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-conflicts.html
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from vaultaire.s3.dates import format_http

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAY_MS = 86_400_000
_LAST_SHOWN_MS = 253_402_214_400_000  # 9999-12-31: clients' calendars end there

Tags = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """All that is given must hold. `form` is how the rule was written, so that it is given back likewise."""

    prefix: str | None = None
    tags: Tags = ()
    larger_than: int | None = None  # bytes; exclusive
    smaller_than: int | None = None
    form: Literal["rule-prefix", "filter", "and"] = "filter"

    @property
    def key_prefix(self) -> bytes:
        return (self.prefix or "").encode()

    @property
    def by_size(self) -> bool:
        return self.larger_than is not None or self.smaller_than is not None


@dataclass(frozen=True, slots=True)
class Rule:
    """Of the three `expire_*` at most one is set; days are at least 1."""

    id: str
    enabled: bool
    filter: Filter = Filter()
    expire_days: int | None = None
    expire_at_ms: int | None = None
    expire_lone_marker: bool | None = None
    noncurrent_days: int | None = None
    newer_noncurrent: int | None = None  # so many newer noncurrent versions are kept, however old
    abort_days: int | None = None

    @property
    def expires(self) -> bool:
        return self.expire_days is not None or self.expire_at_ms is not None


Rules = tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """One version of an object, as rules see it."""

    key: bytes
    modified_ms: int
    size: int = 0
    tags: Tags = ()
    delete_marker: bool = False
    noncurrent_since_ms: int | None = None  # when its successor was made; None: it is the current one
    newer_noncurrent: int = 0  # noncurrent versions (no delete markers) that are newer
    alone: bool = False  # a delete marker behind which nothing is left


class Action(Enum):
    KEEP = "keep"
    EXPIRE = "expire"  # delete the current version, as a DELETE without a version id would
    REMOVE = "remove"  # this very version, for good


@dataclass(frozen=True, slots=True)
class Deadline:
    """`rule_id` is the rule's that set it."""

    at_ms: int
    rule_id: str


def deadline_ms(since_ms: int, days: int) -> int:
    """The first midnight after `days` days."""
    return (since_ms // DAY_MS + days + 1) * DAY_MS


# --- decisions -----------------------------------------------------------------------------------------------------


def plan_lifecycle(rules: Rules, now_ms: int, facts: Facts) -> Action:
    """What is due of one version."""
    if facts.noncurrent_since_ms is not None:
        due = any(_noncurrent_due(rule, now_ms, facts) for rule in rules)
        return Action.REMOVE if due else Action.KEEP
    if facts.delete_marker:
        due = facts.alone and any(_marker_due(rule, now_ms, facts) for rule in rules)
        return Action.REMOVE if due else Action.KEEP
    deadline = expiry_of(rules, facts)
    return Action.EXPIRE if deadline is not None and deadline.at_ms <= now_ms else Action.KEEP


def expiry_of(rules: Rules, facts: Facts) -> Deadline | None:
    """When a current object expires, and by which rule; None: never. The first rule wins a tie."""
    deadlines = [
        Deadline(at_ms, rule.id)
        for rule in rules
        if matches(rule, facts) and (at_ms := _expires_at(rule, facts.modified_ms)) is not None
    ]
    return min(deadlines, key=lambda deadline: deadline.at_ms, default=None)


def plan_upload(rules: Rules, now_ms: int, key: bytes, initiated_ms: int) -> Action:
    """What is due of a multipart upload that is neither completed nor aborted."""
    deadline = abort_of(rules, key, initiated_ms)
    return Action.REMOVE if deadline is not None and deadline.at_ms <= now_ms else Action.KEEP


def abort_of(rules: Rules, key: bytes, initiated_ms: int) -> Deadline | None:
    """When an upload is aborted, and by which rule; None: never."""
    deadlines = [
        Deadline(deadline_ms(initiated_ms, rule.abort_days), rule.id)
        for rule in rules
        if rule.enabled and rule.abort_days is not None and key.startswith(rule.filter.key_prefix)
    ]
    return min(deadlines, key=lambda deadline: deadline.at_ms, default=None)


def matches(rule: Rule, facts: Facts) -> bool:
    """Whether the rule is enabled and speaks of this version. A delete marker has no tags and no size."""
    wanted = rule.filter
    if not rule.enabled or not facts.key.startswith(wanted.key_prefix):
        return False
    if facts.delete_marker:
        return not wanted.tags and not wanted.by_size
    if wanted.larger_than is not None and facts.size <= wanted.larger_than:
        return False
    if wanted.smaller_than is not None and facts.size >= wanted.smaller_than:
        return False
    return set(wanted.tags) <= set(facts.tags)


def _expires_at(rule: Rule, modified_ms: int) -> int | None:
    if rule.expire_days is not None:
        return deadline_ms(modified_ms, rule.expire_days)
    return rule.expire_at_ms


def _noncurrent_due(rule: Rule, now_ms: int, facts: Facts) -> bool:
    since = facts.noncurrent_since_ms
    if since is None or rule.noncurrent_days is None or not matches(rule, facts):
        return False
    return facts.newer_noncurrent >= (rule.newer_noncurrent or 0) and (
        deadline_ms(since, rule.noncurrent_days) <= now_ms
    )


def _marker_due(rule: Rule, now_ms: int, facts: Facts) -> bool:
    """A marker with nothing behind it goes on demand, or once it is as old as the rule lets objects become."""
    if not matches(rule, facts):
        return False
    at_ms = _expires_at(rule, facts.modified_ms)
    return bool(rule.expire_lone_marker) or (at_ms is not None and at_ms <= now_ms)


# --- what has to be looked at --------------------------------------------------------------------------------------


def needs_tags(rules: Rules) -> bool:
    return any(rule.enabled and rule.filter.tags for rule in rules)


def prefixes(rules: Rules, concerns: Callable[[Rule], bool]) -> list[bytes]:
    """The key prefixes of the enabled rules that `concerns` picks: ascending, none within another."""
    found: list[bytes] = []
    for prefix in sorted({rule.filter.key_prefix for rule in rules if rule.enabled and concerns(rule)}):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return found


def concerns_objects(rule: Rule) -> bool:
    return rule.expires


def concerns_versions(rule: Rule) -> bool:
    """Noncurrent versions, or delete markers that stand alone."""
    return rule.expires or bool(rule.expire_lone_marker) or rule.noncurrent_days is not None


def concerns_uploads(rule: Rule) -> bool:
    return rule.abort_days is not None


def most_newer_noncurrent(rules: Rules) -> int:
    """How far `Facts.newer_noncurrent` has to be counted."""
    return max((rule.newer_noncurrent or 0 for rule in rules if rule.enabled), default=0)


# --- headers -------------------------------------------------------------------------------------------------------


def expiration_header(deadline: Deadline | None) -> Iterator[tuple[bytes, bytes]]:
    """`x-amz-expiration` of PUT, GET and HEAD."""
    if deadline is not None and deadline.at_ms <= _LAST_SHOWN_MS:
        date, rule_id = format_http(deadline.at_ms), quote(deadline.rule_id, safe="-_.~")
        yield b"x-amz-expiration", f'expiry-date="{date}", rule-id="{rule_id}"'.encode()


def abort_headers(deadline: Deadline | None) -> Iterator[tuple[bytes, bytes]]:
    """`x-amz-abort-date` and `x-amz-abort-rule-id` of CreateMultipartUpload and ListParts."""
    if deadline is not None and deadline.at_ms <= _LAST_SHOWN_MS:
        yield b"x-amz-abort-date", format_http(deadline.at_ms).encode()
        yield b"x-amz-abort-rule-id", quote(deadline.rule_id, safe="-_.~").encode()
