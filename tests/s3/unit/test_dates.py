"""The three spellings of time."""

from __future__ import annotations

import datetime
import email.utils

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3 import dates

MOMENTS = st.integers(0, 253_402_300_799_999)


@settings(deadline=None)
@given(MOMENTS)
def test_iso_form_agrees_with_datetime(ms):
    moment = datetime.datetime.fromtimestamp(ms // 1000, datetime.UTC)
    assert dates.format_iso(ms) == f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z".rjust(24, "0")


@settings(deadline=None)
@given(MOMENTS)
def test_header_form_agrees_with_the_standard_library(ms):
    assert dates.format_http(ms) == email.utils.formatdate(ms // 1000, usegmt=True)
    assert dates.parse_http(dates.format_http(ms)) == ms // 1000


@settings(deadline=None)
@given(MOMENTS)
def test_basic_form_round_trips(ms):
    assert dates.parse_basic(dates.format_basic(ms // 1000)) == ms // 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20260101",
        "20260101T000000",
        "20260101t000000Z",
        "20261301T000000Z",
        "20260230T000000Z",
        "20260101T240000Z",
        "20260101T006000Z",
        "2026010aT000000Z",
        "20260101T00000aZ",
        "20260101T-1-1-1Z",
        "\uff12\uff10260101T000000Z"[:16],
    ],
)
def test_what_is_no_basic_date_is_none(text):
    assert dates.parse_basic(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Sun, 06 Nov 1994 09:49:37 +0100", 784111777),
        ("1994-11-06T08:49:37Z", 784111777),
        ("1994-11-06T08:49:37.500Z", 784111777),
        ("yesterday", None),
        ("", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_header_dates_are_read_in_every_form(text, seconds):
    assert dates.parse_http(text) == seconds
