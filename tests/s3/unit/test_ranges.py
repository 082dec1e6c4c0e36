"""Byte ranges."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.errors import S3Error
from vaultaire.s3.ranges import parse_copy_source_range, parse_range

DATA = bytes(range(100))


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 300))
def test_a_range_is_what_slicing_gives(first, length):
    start, stop = parse_range(f"bytes={first}-{first + length}", len(DATA))
    assert DATA[start:stop] == DATA[first : first + length + 1]
    assert parse_range(f"bytes={first}-", len(DATA)) == (first, 100)


@settings(deadline=None)
@given(st.integers(1, 300))
def test_a_suffix_is_the_end(count):
    start, stop = parse_range(f"bytes=-{count}", len(DATA))
    assert DATA[start:stop] == DATA[-count:]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=1",
        "bytes=1-2,4-5",
        "items=0-1",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1_0-20",
        "bytes=0x1-2",
        "bytes=1.0-2",
        "bytes=" + "9" * 30 + "-",
        "bytes=\uff11-2",
    ],
)
def test_what_cannot_be_read_or_is_several_is_ignored(text):
    assert parse_range(text, 100) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("bytes=100-", 100),
        ("bytes=100-200", 100),
        ("bytes=-0", 100),
        ("bytes=0-", 0),
        ("bytes=0-0", 0),
        ("bytes=-0", 0),
    ],
)
def test_what_cannot_be_satisfied_is_416(text, size):
    with pytest.raises(S3Error) as caught:
        parse_range(text, size)
    error = caught.value
    assert (error.code, error.status) == ("InvalidRange", 416)
    assert error.extra == {"RangeRequested": text, "ActualObjectSize": str(size)}
    assert error.headers == (("content-range", f"bytes */{size}"),)


def test_the_unit_may_be_in_any_case_and_spaces_do_not_matter():
    assert parse_range("Bytes=1-2", 100) == (1, 3)
    for spaced in ("bytes= -1", "bytes=0 -1", "bytes = 0-1", "bytes=0-1 "):
        assert parse_range(spaced, 100) is None


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 99))
def test_a_copy_range_lies_inside_its_source(a, b):
    first, last = sorted((a, b))
    assert parse_copy_source_range(f"bytes={first}-{last}", 100) == (first, last + 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes=0",
        "bytes=0-",
        "bytes=-5",
        "0-5",
        "bytes=5-4",
        "bytes=0-100",
        "bytes=0-1,2-3",
        "bytes= 0-1",
        "bytes=a-b",
        "Bytes=0-1",
        "bytes=0-" + "9" * 30,
    ],
)
def test_other_copy_ranges_are_refused(text):
    with pytest.raises(S3Error) as caught:
        parse_copy_source_range(text, 100)
    assert caught.value.code == "InvalidArgument"
    assert caught.value.extra["ArgumentName"] == "x-amz-copy-source-range"
