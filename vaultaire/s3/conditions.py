"""Preconditions: If-Match and its family, decided from an object's ETag and time alone.

Pure, so that reads decide on their snapshot and writes inside the commit, against the very row they replace. ETags
are compared without quotes, as S3 does: clients send them quoted, unquoted and half quoted.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html, RFC 9110 section 13
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vaultaire.s3 import dates
from vaultaire.s3.errors import S3Error, invalid_argument

if TYPE_CHECKING:
    from collections.abc import Mapping

ReadOutcome = Literal["proceed", "not-modified"]


@dataclass(frozen=True, slots=True)
class Current:
    """The object as it is now. `etag` without quotes; `modified_ms` since 1970."""

    etag: str
    size: int
    modified_ms: int


def normalize_etag(value: str) -> str:
    """An ETag of a header or XML body as it is stored: without quotes and spaces."""
    return value.strip().strip('"')


def _matches(header: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of ETags names `etag`. A weak one (`W/"x"`) never matches in the strong comparison."""
    for item in header.split(","):
        candidate = item.strip()
        if candidate.startswith("W/"):
            if not weak:
                continue
            candidate = candidate[2:]
        if candidate == "*" or candidate.strip('"') == etag:
            return True
    return False


def failed(condition: str) -> S3Error:
    """412, naming the header that did not hold."""
    return S3Error("PreconditionFailed", extra={"Condition": condition})


# --- reads ---------------------------------------------------------------------------------------------------------


def check_read(fields: Mapping[bytes, str], current: Current) -> ReadOutcome:
    """GET and HEAD. "not-modified" is 304 with the ETag. Raises PreconditionFailed.

    If-Match decides before If-Unmodified-Since, If-None-Match before If-Modified-Since: where the first of a pair is
    present, the second does not count. A date that cannot be read is ignored. Times compare in whole seconds.
    """
    problem = _first_failure(fields, b"", current)
    if problem is None:
        return "proceed"
    if problem in ("if-none-match", "if-modified-since"):
        return "not-modified"
    raise failed(_title(problem))


def check_copy_source(fields: Mapping[bytes, str], current: Current) -> None:
    """`x-amz-copy-source-if-*`: the same rules, but every failure is PreconditionFailed."""
    problem = _first_failure(fields, b"x-amz-copy-source-", current)
    if problem is not None:
        raise failed(f"x-amz-copy-source-{_title(problem)}")


def check_rename(fields: Mapping[bytes, str], source: Current, destination: Current | None) -> None:
    """RenameObject: `x-amz-rename-source-if-*` of the source, the plain ones of what is at the destination now.

    Every failure is PreconditionFailed. If-Match and If-Modified-Since ask for a destination that exists.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_RenameObject.html
    """
    problem = _first_failure(fields, b"x-amz-rename-source-", source)
    if problem is not None:
        raise failed(f"x-amz-rename-source-{_title(problem)}")
    if destination is not None:
        problem = _first_failure(fields, b"", destination)
    else:
        problem = next((name for name in ("if-match", "if-modified-since") if name.encode() in fields), None)
    if problem is not None:
        raise failed(_title(problem))


def _first_failure(fields: Mapping[bytes, str], prefix: bytes, current: Current) -> str | None:
    match = fields.get(prefix + b"if-match")
    if match is not None:
        if not _matches(match, current.etag, weak=False):
            return "if-match"
    else:
        limit = _date(fields, prefix + b"if-unmodified-since")
        if limit is not None and current.modified_ms // 1000 > limit:
            return "if-unmodified-since"
    none_match = fields.get(prefix + b"if-none-match")
    if none_match is not None:
        return "if-none-match" if _matches(none_match, current.etag, weak=True) else None
    since = _date(fields, prefix + b"if-modified-since")
    if since is not None and current.modified_ms // 1000 <= since:
        return "if-modified-since"
    return None


def _date(fields: Mapping[bytes, str], name: bytes) -> int | None:
    stated = fields.get(name)
    return None if stated is None else dates.parse_http(stated)


def _title(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("-"))


def range_applies(fields: Mapping[bytes, str], current: Current) -> bool:
    """If-Range: whether a Range header counts, because the object is still the one the client knows."""
    stated = fields.get(b"if-range")
    if stated is None:
        return True
    if '"' in stated or stated.startswith("W/") or normalize_etag(stated) == current.etag:
        return _matches(stated, current.etag, weak=False)
    limit = dates.parse_http(stated)
    return limit is not None and current.modified_ms // 1000 <= limit


# --- writes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriteCondition:
    """Of PutObject, CompleteMultipartUpload and CopyObject's destination. `if_match` is an ETag or "*"."""

    if_match: str | None
    if_none_match: bool

    def check(self, etag: str | None) -> None:
        """`etag` of the visible object, None if there is none (or a delete marker). Belongs inside the commit.

        Raises PreconditionFailed, or NoSuchKey when something had to be there to match.
        """
        if self.if_none_match and etag is not None:
            raise failed("If-None-Match")
        if self.if_match is not None:
            if etag is None:
                raise S3Error("NoSuchKey")
            if not _matches(self.if_match, etag, weak=False):
                raise failed("If-Match")


def parse_write(fields: Mapping[bytes, str]) -> WriteCondition | None:
    """None if the write is unconditional. Raises NotImplemented for what S3 does not offer on writes either:
    If-None-Match other than `*`, both headers at once, and the conditions on times.
    """
    match = fields.get(b"if-match")
    none_match = fields.get(b"if-none-match")
    if none_match is not None and (normalize_etag(none_match) != "*" or match is not None):
        raise _not_implemented("If-None-Match")
    for name in (b"if-modified-since", b"if-unmodified-since"):
        if name in fields:
            raise _not_implemented(_title(name.decode()))
    if match is None and none_match is None:
        return None
    return WriteCondition(match, none_match is not None)


def _not_implemented(header: str) -> S3Error:
    return S3Error(
        "NotImplemented",
        extra={
            "Header": header,
            "additionalMessage": "We don't accept the provided value of this header for this request",
        },
    )


# --- deletes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeleteCondition:
    """Of DeleteObject, and of each object in DeleteObjects. All that are given must hold."""

    etag: str | None = None  # or "*"
    size: int | None = None
    modified_seconds: int | None = None

    def check(self, current: Current | None) -> None:
        """Raises PreconditionFailed.

        An object that is not there has been deleted already: that is success, but for `*`, which asks whether it is.
        """
        if current is None:
            if self.etag is not None and normalize_etag(self.etag) == "*":
                raise failed("If-Match")
            return
        if self.etag is not None and not _matches(self.etag, current.etag, weak=False):
            raise failed("If-Match")
        if self.size is not None and self.size != current.size:
            raise failed("x-amz-if-match-size")
        if self.modified_seconds is not None and self.modified_seconds != current.modified_ms // 1000:
            raise failed("x-amz-if-match-last-modified-time")


def parse_delete(fields: Mapping[bytes, str]) -> DeleteCondition | None:
    """None if the delete is unconditional. Raises InvalidArgument for a size or time that is none."""
    return delete_condition(
        fields.get(b"if-match"),
        fields.get(b"x-amz-if-match-size"),
        fields.get(b"x-amz-if-match-last-modified-time"),
        names=("If-Match", "x-amz-if-match-size", "x-amz-if-match-last-modified-time"),
    )


def delete_condition(
    etag: str | None, size: str | None, modified: str | None, *, names: tuple[str, str, str]
) -> DeleteCondition | None:
    """From texts of headers or XML; `names` are what an InvalidArgument calls them."""
    if etag is None and size is None and modified is None:
        return None
    bytes_wanted = None
    if size is not None:
        if not (size.isascii() and size.isdigit() and len(size) <= 20):
            raise invalid_argument("The size must be a non-negative integer", names[1], size)
        bytes_wanted = int(size)
    seconds = None
    if modified is not None:
        seconds = dates.parse_http(modified)
        if seconds is None:
            raise invalid_argument("The last modified time is not a date", names[2], modified)
    return DeleteCondition(etag, bytes_wanted, seconds)
