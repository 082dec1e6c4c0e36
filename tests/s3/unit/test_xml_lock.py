"""The XML of Object Lock: what is read, what is refused, and that what is written comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.s3 import xml_lock
from vaultaire.s3.dates import parse_iso_ms
from vaultaire.s3.errors import S3Error
from vaultaire.s3.xml_lock import Default

modes = st.sampled_from(("GOVERNANCE", "COMPLIANCE"))
defaults = st.none() | st.builds(Default, modes, st.integers(1, 100), st.sampled_from(("Days", "Years")))


def configuration(rule: str, enabled: str = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>") -> bytes:
    return f"<ObjectLockConfiguration>{enabled}{rule}</ObjectLockConfiguration>".encode()


def default(fields: str) -> bytes:
    return configuration(f"<Rule><DefaultRetention>{fields}</DefaultRetention></Rule>")


def code(parse, body: bytes) -> str:
    with pytest.raises(S3Error) as caught:
        parse(body)
    return caught.value.code


@given(defaults)
def test_a_configuration_comes_back(value):
    assert xml_lock.parse_configuration(xml_lock.configuration(value)) == value


@given(modes, st.integers(0, 32_503_680_000_000))
def test_a_retention_comes_back(mode, until_ms):
    assert xml_lock.parse_retention(xml_lock.retention(mode, until_ms)) == (mode, until_ms)


@pytest.mark.parametrize("on", [True, False])
def test_a_legal_hold_comes_back(on):
    assert xml_lock.parse_legal_hold(xml_lock.legal_hold(on)) is on


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (configuration("", enabled=""), "MalformedXML"),
        (configuration("", "<ObjectLockEnabled>Disabled</ObjectLockEnabled>"), "MalformedXML"),
        (configuration("<Rule/>"), "MalformedXML"),
        (configuration("<Rules/>"), "MalformedXML"),
        (default(""), "MalformedXML"),
        (default("<Mode>GOVERNANCE</Mode>"), "MalformedXML"),
        (default("<Mode>governance</Mode><Days>1</Days>"), "MalformedXML"),
        (default("<Days>1</Days>"), "MalformedXML"),
        (default("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>"), "MalformedXML"),
        (default("<Mode>GOVERNANCE</Mode><Days>one</Days>"), "MalformedXML"),
        (default("<Mode>GOVERNANCE</Mode><Days>1e3</Days>"), "MalformedXML"),
        (default("<Mode>GOVERNANCE</Mode><Days>0</Days>"), "InvalidRetentionPeriod"),
        (default("<Mode>GOVERNANCE</Mode><Years>-1</Years>"), "InvalidRetentionPeriod"),
        (default("<Mode>GOVERNANCE</Mode><Days>36501</Days>"), "InvalidRetentionPeriod"),
        (default("<Mode>GOVERNANCE</Mode><Years>101</Years>"), "InvalidRetentionPeriod"),
        (b"<Retention/>", "MalformedXML"),
        (b"", "MissingRequestBodyError"),
    ],
)
def test_a_wrong_configuration_is_refused(body, wanted):
    assert code(xml_lock.parse_configuration, body) == wanted


@pytest.mark.parametrize(
    "fields",
    [
        "<Mode>COMPLIANCE</Mode>",
        "<RetainUntilDate>2100-01-01T00:00:00Z</RetainUntilDate>",
        "<Mode>OTHER</Mode><RetainUntilDate>2100-01-01T00:00:00Z</RetainUntilDate>",
        "<Mode>COMPLIANCE</Mode><RetainUntilDate>tomorrow</RetainUntilDate>",
        "<Mode>COMPLIANCE</Mode><RetainUntilDate>2100-01-01</RetainUntilDate>",
        "<Mode>COMPLIANCE</Mode><RetainUntilDate/>",
    ],
)
def test_half_a_retention_is_refused(fields):
    assert code(xml_lock.parse_retention, f"<Retention>{fields}</Retention>".encode()) == "MalformedXML"


def test_an_empty_retention_takes_it_off():
    assert xml_lock.parse_retention(b"<Retention/>") is None


@pytest.mark.parametrize("body", [b"<LegalHold/>", b"<LegalHold><Status>on</Status></LegalHold>", b"<X/>"])
def test_a_wrong_legal_hold_is_refused(body):
    assert code(xml_lock.parse_legal_hold, body) == "MalformedXML"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T00:00:01", 1000),
        ("1970-01-01T01:00:01.5+01:00", 1500),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("19700101T000001Z", 1000),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ("1970-01-01", None),
        ("Thu, 01 Jan 1970 00:00:01 GMT", None),
        ("1970-13-01T00:00:00Z", None),
        ("T" * 100, None),
        ("", None),
    ],
)
def test_an_instant_is_read_and_rounded_up(text, wanted):
    assert parse_iso_ms(text) == wanted
