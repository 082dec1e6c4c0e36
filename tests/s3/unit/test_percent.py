"""Percent-encoding: one canonical form, decoded exactly once."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3 import percent


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_quoting_agrees_with_the_standard_library(data):
    assert percent.quote_path(data) == urllib.parse.quote(data, safe="/-_.~")
    assert percent.quote_query(data) == urllib.parse.quote(data, safe="-_.~")


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_what_is_quoted_decodes_to_itself(data):
    assert percent.decode(percent.quote_path(data).encode()) == data
    assert percent.decode(percent.quote_query(data).encode()) == data


@pytest.mark.parametrize("raw", [b"%", b"a%", b"%4", b"%zz", b"%4g", b"% 4", b"%+4", b"%%41", b"x%4\xff"])
def test_a_malformed_escape_is_refused(raw):
    with pytest.raises(percent.MalformedEscape):
        percent.decode(raw)


def test_decoding_happens_once_and_normalises_nothing():
    assert percent.decode(b"/a//../%2E%2e/%252F%2f+%00") == b"/a//../../%2F/+\x00"
