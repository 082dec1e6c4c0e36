"""Scopes and exempt prefixes against their plain meaning; the encoding refuses what it does not know."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.key_limits import UNLIMITED, Limits, Scope, parse_prefix, parse_scope

prefixes = st.binary(min_size=1, max_size=5)
scopes = st.builds(Scope, st.sampled_from(["aaa", "bbb"]), st.one_of(st.just(b""), prefixes))
limits = st.builds(
    Limits,
    st.lists(scopes, max_size=3).map(tuple),
    st.lists(prefixes, max_size=3).map(tuple),
    st.integers(0, 2**64 - 1),
    st.booleans(),
)


@given(limits)
def test_what_is_encoded_is_read_again(given_limits):
    assert Limits.decode(given_limits.encode()) == given_limits


@given(limits, st.data())
def test_damage_is_refused_or_is_other_limits_but_never_a_crash(given_limits, data):
    row = bytearray(given_limits.encode())
    row[data.draw(st.integers(0, len(row) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ValueError):
        Limits.decode(bytes(row[: data.draw(st.integers(0, len(row)))]))


@given(limits, st.sampled_from(["aaa", "bbb", "ccc"]), st.binary(max_size=6))
def test_a_key_is_covered_if_it_begins_with_a_scope(given_limits, bucket, key):
    naive = not given_limits.scopes or any(
        scope.bucket == bucket and key[: len(scope.prefix)] == scope.prefix for scope in given_limits.scopes
    )
    assert given_limits.covers_prefix(bucket, key) == naive
    if naive:
        assert given_limits.touches_bucket(bucket)
    if given_limits.covers_bucket(bucket):
        assert naive


def test_no_limits_cover_everything_and_exempt_nothing():
    assert UNLIMITED.covers_bucket("any")
    assert UNLIMITED.covers_prefix("any", b"")
    assert UNLIMITED.active(1 << 60)
    assert not UNLIMITED.is_exempt("any", b"locks/1")


@pytest.mark.parametrize(
    ("scope", "key", "exempt"),
    [
        (None, b"locks/1", True),
        (None, b"repo/locks/1", False),
        (Scope("b"), b"locks/1", True),
        (Scope("b", b"repo/"), b"repo/locks/1", True),
        (Scope("b", b"repo"), b"repo/locks/1", True),
        (Scope("b", b"repo/"), b"locks/1", False),
        (Scope("b", b"repo/"), b"repo/data/locks/1", False),
        (Scope("c"), b"locks/1", False),
    ],
)
def test_exempt_prefixes_are_counted_from_the_scope(scope, key, exempt):
    given_limits = Limits(() if scope is None else (scope,), (b"locks/",))
    assert given_limits.is_exempt("b", key) == exempt


@pytest.mark.parametrize(
    "row", [b"", bytes(8), bytes(8) + b"\x02", bytes(9) + b"\x09\x00\x00", bytes(9) + b"\x02\x00\x01a"]
)
def test_what_is_not_known_is_refused(row):
    with pytest.raises(ValueError, match=r"short|known"):
        Limits.decode(row)


def test_a_key_ends_at_its_moment():
    assert Limits(expires_ms=10).active(9)
    assert not Limits(expires_ms=10).active(10)
    assert not Limits(disabled=True).active(0)


def test_scopes_as_people_write_them():
    assert parse_scope("bucket") == Scope("bucket")
    assert parse_scope("bucket/") == Scope("bucket")
    assert parse_scope("bucket/a/b") == Scope("bucket", b"a/b")
    for wrong in ("", "ab", "/x", "b\u00fccket/x", "x" * 64):
        with pytest.raises(ValueError, match="BUCKET"):
            parse_scope(wrong)
    with pytest.raises(ValueError, match="1024"):
        parse_prefix("x" * 1025)
