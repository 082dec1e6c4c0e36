"""Byte ranges: the Range header of reads, and the range of an UploadPartCopy. Results are half-open.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html, RFC 9110 section 14
"""

from __future__ import annotations

from vaultaire.s3.errors import S3Error, invalid_argument

_MAX_DIGITS = 20  # beyond any size; int() of a long text is slow


def parse_range(value: str | None, size: int) -> tuple[int, int] | None:
    """(start, stop) for 206, or None for the whole object with 200. Raises InvalidRange (416).

    Ignored, as S3 does: a unit other than bytes, bad syntax, a range that ends before it starts, several ranges.
    Unsatisfiable: a start at or behind the end, a suffix of no bytes, anything of an empty object.
    """
    if value is None:
        return None
    bounds = _bounds(value)
    if bounds is None:
        return None
    first, last = bounds
    if first is None:
        assert last is not None
        start, stop = max(0, size - last), size
        satisfiable = last > 0  # of an empty object it is all there is (RFC 9110, 14.1.2)
    else:
        start, stop = first, size if last is None else min(last + 1, size)
        satisfiable = first < size
    if not satisfiable:
        raise S3Error(
            "InvalidRange",
            extra={"RangeRequested": value, "ActualObjectSize": size},
            headers=(("content-range", f"bytes */{size}"),),
        )
    return start, stop


def _bounds(value: str) -> tuple[int | None, int | None] | None:
    """(first, last) inclusive, (None, n) for a suffix, (first, None) for an open end; None if it is to be ignored."""
    unit, equals, spec = value.partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    left, dash, right = spec.partition("-")
    if not dash:
        return None
    if not (_is_number(left) or not left) or not (_is_number(right) or not right) or not (left or right):
        return None
    first = int(left) if left else None
    last = int(right) if right else None
    if first is not None and last is not None and last < first:
        return None
    return first, last


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def parse_copy_source_range(value: str, size: int) -> tuple[int, int]:
    """`x-amz-copy-source-range`: exactly `bytes=first-last`, inside the source. Raises InvalidArgument."""
    left, dash, right = value.removeprefix("bytes=").partition("-")
    if not value.startswith("bytes=") or not dash or not _is_number(left) or not _is_number(right):
        raise invalid_argument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            "x-amz-copy-source-range",
            value,
        )
    first, last = int(left), int(right)
    if last < first or last >= size:
        raise invalid_argument(
            f"Range specified is not valid for source object of size: {size}",
            "x-amz-copy-source-range",
            value,
        )
    return first, last + 1
