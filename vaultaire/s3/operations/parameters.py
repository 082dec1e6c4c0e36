"""Query parameters that several operations share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaultaire.s3.errors import S3Error, invalid_argument

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PAGE = 1000


def parse_limit(query: Mapping[str, str], name: str, default: int, *, maximum: int = MAX_PAGE) -> int:
    """`max-keys` and its kin: 0 to 2**31 - 1, cut to `maximum`. Raises InvalidArgument."""
    text = query.get(name)
    if text is None or text == "":
        return min(default, maximum)
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 1 << 31):
        raise invalid_argument(f"Provided {name} not an integer or within integer range", name, text)
    return min(int(text), maximum)


def parse_url_encoding(query: Mapping[str, str]) -> bool:
    """`encoding-type`: absent or `url`. Raises InvalidArgument."""
    text = query.get("encoding-type")
    if not text:
        return False
    if text.lower() != "url":
        raise invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", text)
    return True


def parse_part_number(query: Mapping[str, str]) -> int:
    """1 to 10,000. Raises InvalidArgument."""
    text = query.get("partNumber", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 10_000):
        raise invalid_argument(
            "Part number must be an integer between 1 and 10000, inclusive", "partNumber", text
        )
    return int(text)


def upload_id(query: Mapping[str, str]) -> str:
    """Raises NoSuchUpload for an empty one."""
    text = query.get("uploadId", "")
    if not text:
        raise S3Error("NoSuchUpload", extra={"UploadId": text})
    return text
