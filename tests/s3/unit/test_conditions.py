"""Preconditions of reads, copies, writes and deletes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3 import conditions, dates
from vaultaire.s3.conditions import (
    Current,
    DeleteCondition,
    WriteCondition,
    check_copy_source,
    check_read,
    parse_delete,
    parse_write,
    range_applies,
)
from vaultaire.s3.errors import S3Error

ETAG = "d41d8cd98f00b204e9800998ecf8427e"
NOW = 1_800_000_000_500
CURRENT = Current(ETAG, 10, NOW)
BEFORE, SAME, AFTER = (dates.format_http(NOW + shift) for shift in (-2000, 0, 2000))
OTHER = '"0"'
QUOTED = f'"{ETAG}"'

PROCEED, NOT_MODIFIED = "proceed", "not-modified"


def outcome(fields, prefix=b"") -> str:
    try:
        if prefix:
            check_copy_source({prefix + name: value for name, value in fields.items()}, CURRENT)
            return PROCEED
        return check_read(fields, CURRENT)
    except S3Error as error:
        return error.extra["Condition"] if error.status == 412 else error.code


READS = [
    ({}, PROCEED),
    ({b"if-match": QUOTED}, PROCEED),
    ({b"if-match": ETAG}, PROCEED),
    ({b"if-match": ETAG + '"'}, PROCEED),
    ({b"if-match": "*"}, PROCEED),
    ({b"if-match": f"{OTHER}, {QUOTED}"}, PROCEED),
    ({b"if-match": OTHER}, "If-Match"),
    ({b"if-match": f"W/{QUOTED}"}, "If-Match"),
    ({b"if-none-match": OTHER}, PROCEED),
    ({b"if-none-match": QUOTED}, NOT_MODIFIED),
    ({b"if-none-match": ETAG}, NOT_MODIFIED),
    ({b"if-none-match": f"W/{QUOTED}"}, NOT_MODIFIED),
    ({b"if-none-match": "*"}, NOT_MODIFIED),
    ({b"if-none-match": f"{OTHER},{QUOTED}"}, NOT_MODIFIED),
    ({b"if-modified-since": BEFORE}, PROCEED),
    ({b"if-modified-since": SAME}, NOT_MODIFIED),
    ({b"if-modified-since": AFTER}, NOT_MODIFIED),
    ({b"if-unmodified-since": BEFORE}, "If-Unmodified-Since"),
    ({b"if-unmodified-since": SAME}, PROCEED),
    ({b"if-unmodified-since": AFTER}, PROCEED),
    ({b"if-unmodified-since": "whenever"}, PROCEED),
    ({b"if-modified-since": "whenever"}, PROCEED),
    # If-Match decides over If-Unmodified-Since, If-None-Match over If-Modified-Since.
    ({b"if-match": QUOTED, b"if-unmodified-since": BEFORE}, PROCEED),
    ({b"if-match": OTHER, b"if-unmodified-since": AFTER}, "If-Match"),
    ({b"if-none-match": QUOTED, b"if-modified-since": BEFORE}, NOT_MODIFIED),
    ({b"if-none-match": OTHER, b"if-modified-since": AFTER}, PROCEED),
    # 412 comes before 304.
    ({b"if-match": OTHER, b"if-none-match": QUOTED}, "If-Match"),
    ({b"if-match": QUOTED, b"if-none-match": QUOTED}, NOT_MODIFIED),
    ({b"if-unmodified-since": BEFORE, b"if-modified-since": AFTER}, "If-Unmodified-Since"),
]


@pytest.mark.parametrize(("fields", "expected"), READS)
def test_reads(fields, expected):
    assert outcome(fields) == expected


@pytest.mark.parametrize(("fields", "expected"), READS)
def test_copy_sources_fail_where_reads_would_not_be_answered(fields, expected):
    got = outcome(fields, b"x-amz-copy-source-")
    assert (got == PROCEED) == (expected == PROCEED)
    if got != PROCEED:
        assert got.startswith("x-amz-copy-source-If-")


def test_the_conditions_of_the_request_are_not_those_of_the_copy_source():
    check_copy_source({b"if-match": OTHER}, CURRENT)
    assert check_read({b"x-amz-copy-source-if-match": OTHER}, CURRENT) == PROCEED


@pytest.mark.parametrize(
    ("text", "applies"),
    [
        (None, True),
        (QUOTED, True),
        (ETAG, True),
        (OTHER, False),
        (f"W/{QUOTED}", False),
        (SAME, True),
        (BEFORE, False),
        ("whenever", False),
    ],
)
def test_if_range(text, applies):
    assert range_applies({} if text is None else {b"if-range": text}, CURRENT) is applies


def write_outcome(fields, etag) -> str:
    condition = parse_write(fields)
    try:
        if condition is not None:
            condition.check(etag)
    except S3Error as error:
        return error.extra.get("Condition", error.code)
    return PROCEED


@pytest.mark.parametrize(
    ("fields", "existing", "expected"),
    [
        ({}, ETAG, PROCEED),
        ({b"if-none-match": "*"}, None, PROCEED),
        ({b"if-none-match": '"*"'}, None, PROCEED),
        ({b"if-none-match": "*"}, ETAG, "If-None-Match"),
        ({b"if-match": QUOTED}, ETAG, PROCEED),
        ({b"if-match": ETAG}, ETAG, PROCEED),
        ({b"if-match": "*"}, ETAG, PROCEED),
        ({b"if-match": OTHER}, ETAG, "If-Match"),
        ({b"if-match": QUOTED}, None, "NoSuchKey"),
        ({b"if-match": "*"}, None, "NoSuchKey"),
    ],
)
def test_writes(fields, existing, expected):
    assert write_outcome(fields, existing) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {b"if-none-match": QUOTED},
        {b"if-none-match": "*", b"if-match": QUOTED},
        {b"if-modified-since": SAME},
        {b"if-unmodified-since": SAME},
    ],
)
def test_writes_know_no_other_condition(fields):
    with pytest.raises(S3Error) as caught:
        parse_write(fields)
    assert (caught.value.code, caught.value.status) == ("NotImplemented", 501)


def delete_outcome(fields, current) -> str:
    condition = parse_delete(fields)
    try:
        if condition is not None:
            condition.check(current)
    except S3Error as error:
        return error.extra["Condition"]
    return PROCEED


SIZE, TIME = b"x-amz-if-match-size", b"x-amz-if-match-last-modified-time"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, PROCEED),
        ({b"if-match": QUOTED}, PROCEED),
        ({b"if-match": "*"}, PROCEED),
        ({b"if-match": OTHER}, "If-Match"),
        ({SIZE: "10"}, PROCEED),
        ({SIZE: "11"}, "x-amz-if-match-size"),
        ({TIME: SAME}, PROCEED),
        ({TIME: BEFORE}, "x-amz-if-match-last-modified-time"),
        ({b"if-match": QUOTED, SIZE: "11"}, "x-amz-if-match-size"),
        ({b"if-match": QUOTED, SIZE: "10", TIME: SAME}, PROCEED),
    ],
)
def test_deletes(fields, expected):
    assert delete_outcome(fields, CURRENT) == expected
    # Deleted already; only `*` asks whether it is there.
    assert delete_outcome(fields, None) == ("If-Match" if fields.get(b"if-match") == "*" else PROCEED)


@pytest.mark.parametrize("fields", [{SIZE: "-1"}, {SIZE: "ten"}, {SIZE: "1" * 21}, {TIME: "whenever"}])
def test_a_delete_condition_that_says_nothing_is_refused(fields):
    with pytest.raises(S3Error, match="InvalidArgument"):
        parse_delete(fields)


@settings(deadline=None)
@given(st.sampled_from([QUOTED, ETAG, f' "{ETAG}" ', ETAG + '"']))
def test_etags_are_stored_without_quotes(text):
    assert conditions.normalize_etag(text) == ETAG


def test_unconditional_is_none():
    assert parse_write({}) is None
    assert parse_delete({}) is None
    assert WriteCondition(None, False).check(ETAG) is None
    assert DeleteCondition().check(CURRENT) is None
