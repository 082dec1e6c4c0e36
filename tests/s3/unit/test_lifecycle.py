"""Lifecycle decisions: deadlines are midnights, filters say what they say, and later is never less due."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.s3.lifecycle import (
    DAY_MS,
    Action,
    Deadline,
    Facts,
    Filter,
    Rule,
    abort_headers,
    abort_of,
    concerns_objects,
    concerns_uploads,
    concerns_versions,
    deadline_ms,
    expiration_header,
    expiry_of,
    matches,
    plan_lifecycle,
    plan_upload,
    prefixes,
)

TIMES = st.integers(0, 4_000_000_000_000)
DAYS = st.integers(1, 4000)


def ms(text: str) -> int:
    return int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


def rule(**fields) -> Rule:
    return Rule(fields.pop("id", "r"), fields.pop("enabled", True), **fields)


def planned(rules, now_ms, **facts) -> Action:
    return plan_lifecycle(
        tuple(rules), now_ms, Facts(facts.pop("key", b"k"), facts.pop("modified_ms", 0), **facts)
    )


# --- deadlines


@pytest.mark.parametrize(
    ("since", "days", "expected"),
    [
        ("2014-01-15T10:30:00", 3, "2014-01-19T00:00:00"),  # AWS's own example
        ("2014-01-15T00:00:00", 3, "2014-01-19T00:00:00"),
        ("2014-01-15T23:59:59.999", 3, "2014-01-19T00:00:00"),
        ("2024-02-28T12:00:00", 1, "2024-03-01T00:00:00"),  # a leap year has a 29th
        ("2023-02-28T12:00:00", 1, "2023-03-02T00:00:00"),
        ("2024-02-29T00:00:01", 365, "2025-03-01T00:00:00"),
        ("1999-12-31T23:00:00", 1, "2000-01-02T00:00:00"),
    ],
)
def test_a_deadline_is_the_midnight_after_the_days(since, days, expected):
    assert deadline_ms(ms(since), days) == ms(expected)


@given(TIMES, DAYS)
def test_a_deadline_is_a_midnight_at_most_a_day_after_the_days(since, days):
    deadline = deadline_ms(since, days)
    assert deadline % DAY_MS == 0
    assert 0 < deadline - (since + days * DAY_MS) <= DAY_MS
    moment = datetime.datetime.fromtimestamp(deadline / 1000, datetime.UTC)
    day = datetime.datetime.fromtimestamp(since / 1000, datetime.UTC).date()
    assert moment.date() == day + datetime.timedelta(days=days + 1)


@given(TIMES, DAYS, TIMES)
def test_an_object_expires_from_its_deadline_on_and_not_before(modified, days, now):
    wanted = Action.EXPIRE if now >= deadline_ms(modified, days) else Action.KEEP
    assert planned([rule(expire_days=days)], now, modified_ms=modified) is wanted


@given(TIMES, st.integers(0, 30_000), TIMES)
def test_a_date_counts_for_objects_of_any_age(modified, day, now):
    wanted = Action.EXPIRE if now >= day * DAY_MS else Action.KEEP
    assert planned([rule(expire_at_ms=day * DAY_MS)], now, modified_ms=modified) is wanted


@given(st.lists(st.tuples(DAYS, st.booleans()), max_size=5), TIMES)
def test_the_earliest_enabled_rule_decides(rows, modified):
    rules = tuple(rule(id=str(n), expire_days=days, enabled=on) for n, (days, on) in enumerate(rows))
    found = expiry_of(rules, Facts(b"k", modified))
    enabled = [r for r in rules if r.enabled]
    if not enabled:
        assert found is None
    else:
        best = min(enabled, key=lambda r: r.expire_days)
        assert found == Deadline(deadline_ms(modified, best.expire_days), best.id)


def test_days_beyond_every_calendar_never_come():
    never = [rule(expire_days=(1 << 31) - 1)]
    assert planned(never, 1 << 50) is Action.KEEP
    assert list(expiration_header(expiry_of(tuple(never), Facts(b"k", 0)))) == []


# --- filters


PREFIX = st.text("ab/", max_size=3)
TAGS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from("12")), unique_by=lambda t: t[0], max_size=3
)
BOUND = st.none() | st.integers(0, 5)


@given(PREFIX, TAGS, BOUND, BOUND, st.text("ab/", min_size=1, max_size=4), TAGS, st.integers(0, 6))
def test_a_filter_holds_if_all_its_conditions_hold(prefix, tags, larger, smaller, key, has, size):
    wanted = rule(filter=Filter(prefix, tuple(tags), larger, smaller, "and"), expire_days=1)
    expected = (
        key.startswith(prefix)
        and all(tag in has for tag in tags)
        and (larger is None or size > larger)
        and (smaller is None or size < smaller)
    )
    assert matches(wanted, Facts(key.encode(), 0, size, tuple(has))) is expected
    disabled = rule(filter=wanted.filter, expire_days=1, enabled=False)
    assert not matches(disabled, Facts(key.encode(), 0, size, tuple(has)))


@given(st.lists(PREFIX, max_size=6), st.text("ab/", min_size=1, max_size=5))
def test_the_prefixes_to_look_at_cover_every_rule_once(texts, key):
    rules = tuple(rule(filter=Filter(text), expire_days=1) for text in texts)
    found = prefixes(rules, concerns_objects)
    assert found == sorted(found)
    covering = [prefix for prefix in found if key.encode().startswith(prefix)]
    assert len(covering) == any(key.startswith(text) for text in texts)


def test_only_enabled_rules_that_concern_it_are_looked_at():
    rules = (
        rule(filter=Filter("a"), expire_days=1),
        rule(filter=Filter("b"), abort_days=1),
        rule(filter=Filter("c"), noncurrent_days=1),
        rule(filter=Filter("d"), expire_lone_marker=True),
        rule(filter=Filter("e"), expire_days=1, enabled=False),
        rule(filter=Filter("f"), expire_lone_marker=False),
    )
    assert prefixes(rules, concerns_objects) == [b"a"]
    assert prefixes(rules, concerns_uploads) == [b"b"]
    assert prefixes(rules, concerns_versions) == [b"a", b"c", b"d"]


# --- versions


@given(TIMES, TIMES, DAYS, TIMES)
def test_noncurrent_days_count_from_the_successor(modified, since, days, now):
    wanted = Action.REMOVE if now >= deadline_ms(since, days) else Action.KEEP
    facts = {"modified_ms": modified, "noncurrent_since_ms": since}
    assert planned([rule(noncurrent_days=days)], now, **facts) is wanted
    assert planned([rule(expire_days=1)], now, **facts) is Action.KEEP  # speaks of the current version
    assert planned([rule(noncurrent_days=days)], now, modified_ms=modified) is Action.KEEP


@given(st.integers(1, 100), st.integers(0, 120))
def test_newer_noncurrent_versions_are_kept_however_old(keep, newer):
    rules = [rule(noncurrent_days=1, newer_noncurrent=keep)]
    found = planned(rules, 100 * DAY_MS, noncurrent_since_ms=0, newer_noncurrent=newer)
    assert found is (Action.REMOVE if newer >= keep else Action.KEEP)


@pytest.mark.parametrize(
    ("rules", "alone", "expected"),
    [
        ([rule(expire_lone_marker=True)], True, Action.REMOVE),
        ([rule(expire_lone_marker=True)], False, Action.KEEP),
        ([rule(expire_lone_marker=False)], True, Action.KEEP),
        ([rule(expire_days=1)], True, Action.REMOVE),
        ([rule(expire_days=1)], False, Action.KEEP),
        ([rule(expire_days=50)], True, Action.KEEP),
        ([rule(expire_at_ms=5 * DAY_MS)], True, Action.REMOVE),
        ([rule(noncurrent_days=1)], True, Action.KEEP),
        ([rule(expire_lone_marker=True, filter=Filter("other"))], True, Action.KEEP),
        ([rule(expire_days=1, filter=Filter(tags=(("a", "b"),)))], True, Action.KEEP),
        ([rule(expire_days=1, filter=Filter(smaller_than=5))], True, Action.KEEP),
    ],
)
def test_a_current_delete_marker_goes_only_if_nothing_is_behind_it(rules, alone, expected):
    assert planned(rules, 10 * DAY_MS, delete_marker=True, alone=alone) is expected


def test_a_noncurrent_delete_marker_goes_like_a_version():
    facts = {"delete_marker": True, "noncurrent_since_ms": 0}
    assert planned([rule(noncurrent_days=3)], 5 * DAY_MS, **facts) is Action.REMOVE
    assert planned([rule(expire_lone_marker=True)], 5 * DAY_MS, **facts) is Action.KEEP


# --- uploads


@given(TIMES, DAYS, TIMES)
def test_an_upload_is_aborted_from_its_deadline_on(initiated, days, now):
    rules = (rule(abort_days=days, filter=Filter("a/")),)
    wanted = Action.REMOVE if now >= deadline_ms(initiated, days) else Action.KEEP
    assert plan_upload(rules, now, b"a/k", initiated) is wanted
    assert plan_upload(rules, now, b"b/k", initiated) is Action.KEEP
    assert plan_upload((rule(expire_days=1),), now, b"a/k", initiated) is Action.KEEP


# --- headers


def test_the_expiration_header_names_date_and_rule():
    rules = (rule(id='a rule/"é"', expire_days=10),)
    found = list(expiration_header(expiry_of(rules, Facts(b"k", ms("2012-12-12T05:00:00")))))
    assert found == [
        (
            b"x-amz-expiration",
            b'expiry-date="Sun, 23 Dec 2012 00:00:00 GMT", rule-id="a%20rule%2F%22%C3%A9%22"',
        )
    ]
    assert list(expiration_header(None)) == []


def test_the_abort_headers_name_date_and_rule():
    rules = (rule(id="tidy", abort_days=1),)
    found = dict(abort_headers(abort_of(rules, b"k", ms("2012-12-12T05:00:00"))))
    assert found == {
        b"x-amz-abort-date": b"Fri, 14 Dec 2012 00:00:00 GMT",
        b"x-amz-abort-rule-id": b"tidy",
    }
