"""What is done, what may be overwritten, and how bodies are cut: decided from listings alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.moving.places import Entry
from vaultaire.moving.plans import (
    MAX_PARTS,
    SINGLE_PUT_BYTES,
    Overwrite,
    Verdict,
    backoff_seconds,
    equal_parts,
    etag_parts,
    offsets,
    plan_chain,
    plan_object,
    upload_parts,
    windows,
)

ONE, OTHER = "0" * 32, "1" * 32
MIB = 1 << 20


def entry(size=1, etag=ONE, second=100, ms=0):
    return Entry(b"k", size, etag, second * 1000 + ms)


@pytest.mark.parametrize(
    ("source", "found", "older", "never", "always"),
    [
        (entry(), None, "TAKE", "TAKE", "TAKE"),
        (entry(), entry(), "DONE", "DONE", "DONE"),
        (entry(), entry(second=200), "DONE", "DONE", "DONE"),  # copied there later, or touched
        (entry(ms=999), entry(), "DONE", "DONE", "DONE"),  # a listing of seconds, one of milliseconds
        (entry(second=101), entry(), "REFRESH", "REFRESH", "REFRESH"),
        (entry(etag=OTHER), entry(), "ASK", "ASK", "ASK"),
        (entry(etag="opaque"), entry(), "DONE", "DONE", "DONE"),
        (entry(etag=""), entry(), "DONE", "DONE", "DONE"),
        (entry(etag=OTHER, second=101), entry(), "TAKE", "KEEP", "TAKE"),
        (entry(etag=OTHER, second=99), entry(), "KEEP", "KEEP", "TAKE"),
        (entry(size=2, etag=OTHER), entry(), "KEEP", "KEEP", "TAKE"),
        (entry(size=2, etag=ONE, second=101), entry(), "TAKE", "KEEP", "TAKE"),
        (entry(etag="", second=101), entry(etag=""), "TAKE", "KEEP", "TAKE"),
        (entry(etag="", ms=7), entry(etag="", ms=6), "TAKE", "KEEP", "TAKE"),  # both tell milliseconds
    ],
)
def test_what_is_newer_replaces_and_what_is_the_same_is_left(source, found, older, never, always):
    assert plan_object(source, found, Overwrite.OLDER) is Verdict[older]
    assert plan_object(source, found, Overwrite.NEVER) is Verdict[never]
    assert plan_object(source, found, Overwrite.ALWAYS) is Verdict[always]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.data())
def test_a_chain_goes_on_where_a_killed_run_stopped(source, data):
    taken = data.draw(st.integers(0, len(source)))
    before = data.draw(st.lists(st.integers(4, 6), max_size=3))  # expired at the source since
    count = plan_chain(source, before + source[:taken])
    if taken == 0:
        assert count == (0 if not before else None)
    else:
        assert count is not None
        assert source[:count] == (before + source[:taken])[-count:]
        assert count >= taken  # at least so much is there; repeats may make it look like more of the same


def test_a_chain_with_something_else_on_top_is_left_alone():
    assert plan_chain("abc", "abx") is None
    assert plan_chain("abc", "c") is None  # the newest alone: the others cannot come below it
    assert plan_chain("bc", "ab") == 1
    assert plan_chain("abc", "abc") == 3


@pytest.mark.parametrize(
    ("etag", "parts"),
    [(ONE, 0), (f"{ONE}-1", 1), (f"{ONE}-10000", 10_000), (ONE.upper(), 0), (f"{ONE}-0", None), ("", None),
     ("x" * 32, None), (f"{ONE}-", None), (ONE[:31], None), (f'"{ONE}"', None)],
)  # fmt: skip
def test_only_etags_of_s3s_forms_say_something(etag, parts):
    assert etag_parts(etag) == (parts if etag != ONE.upper() or ONE.upper() == ONE else None)


@given(st.integers(0, 100), st.integers(1, 30))
def test_windows_cover_a_body_in_order(size, width):
    found = list(windows(size, width))
    assert [byte for start, stop in found for byte in range(start, stop)] == list(range(size))
    assert all(0 < stop - start <= width for start, stop in found)


@given(st.integers(1, 50), st.integers(1, 20))
def test_equal_parts_are_found_from_the_first_and_their_number(size, first):
    count = -(-size // first)
    parts = equal_parts(size, count, min(first, size))
    assert sum(parts) == size
    assert len(parts) == count
    assert equal_parts(size, count + 1, first) == ()


def test_parts_that_cannot_be_equal_are_not_guessed():
    assert equal_parts(10, 3, 2) == ()
    assert equal_parts(10, 0, 10) == ()


def test_an_export_uses_the_parts_that_an_object_was_made_of():
    assert upload_parts(11 * MIB, (5 * MIB, 5 * MIB, MIB)) == (5 * MIB, 5 * MIB, MIB)
    assert upload_parts(11 * MIB, (MIB, 10 * MIB)) == ()  # too small a part for S3
    assert upload_parts(11 * MIB, (5 * MIB,)) == ()
    assert upload_parts(SINGLE_PUT_BYTES, ()) == ()
    assert len(upload_parts(SINGLE_PUT_BYTES + 1, ())) == 2


@settings(max_examples=20)
@given(st.integers(SINGLE_PUT_BYTES + 1, 50 << 40))
def test_no_object_needs_more_parts_than_s3_allows(size):
    count = len(upload_parts(size, ()))
    assert 2 <= count <= MAX_PARTS


def test_offsets_of_parts():
    assert offsets([3, 2]) == [(0, 3), (3, 5)]
    assert offsets([]) == []


@given(st.integers(0, 20), st.floats(0, 1000), st.floats(0, 0.99))
def test_pauses_grow_and_obey_the_server_up_to_a_minute(attempt, asked, jitter):
    pause = backoff_seconds(attempt, asked, jitter)
    assert min(asked, 60) <= pause <= 60
    assert backoff_seconds(attempt + 1, 0, jitter) >= backoff_seconds(attempt, 0, jitter) > 0
