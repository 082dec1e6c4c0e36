"""What an object carries beside its bytes, from another server's headers into a record and back. Pure.

Kept: content type, cache-control, content-disposition, -encoding, -language, expires, website redirect, the storage
class (a note here: everything is stored alike), user metadata, tags, retention and legal hold where the bucket has
Object Lock. What cannot be kept is noted, never dropped silently.
"""

from __future__ import annotations

import base64
import binascii
import quopri
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from index.locks import is_retained
from index.values import Retention
from vaultaire.moving.places import ObjectError
from vaultaire.s3 import dates, headers
from vaultaire.s3 import tags as tag_rules
from vaultaire.s3.errors import S3Error
from vaultaire.s3.xml_lock import parse_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from index.fields import Pairs
    from index.records import ObjectRecord
    from vaultaire.moving.places import Attributes, Notes

LOCK_NOTE: Final = "retention or legal hold: the bucket here has no Object Lock"
CLASS_NOTE: Final = "storage class: one that S3 does not name"
_WORD: Final = re.compile(r"=\?utf-8\?([bq])\?([^?]*)\?=", re.IGNORECASE)
_CLASS: Final = b"x-amz-storage-class"
_SYSTEM: Final = {
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "x-amz-website-redirect-location": "WebsiteRedirectLocation",
}


@dataclass(frozen=True, slots=True)
class Carried:
    content_type: str | None
    headers: Pairs
    metadata: Pairs
    retention: Retention | None
    legal_hold: bool | None

    def onto(self, record: ObjectRecord, tags: Pairs) -> ObjectRecord:
        """`record` with all of this, and `tags`."""
        return replace(
            record,
            content_type=self.content_type,
            headers=self.headers,
            metadata=self.metadata,
            tags=tags,
            retention=self.retention,
            legal_hold=self.legal_hold,
        )


def check_tags(tags: Pairs) -> Pairs:
    """Raises ObjectError."""
    try:
        return tag_rules.check(tags, tag_rules.MAX_OBJECT_TAGS)
    except S3Error as error:
        raise ObjectError(f"its tags are none that S3 allows: {error}") from error


def parse_carried(attributes: Attributes, notes: Notes, *, object_lock: bool) -> Carried:
    """`object_lock`: the destination's bucket keeps locks. Raises ObjectError."""
    fields: Mapping[bytes, str] = attributes.fields
    try:
        metadata = tuple((name, decode_word(value)) for name, value in headers.parse_metadata(fields))
        try:
            content_type, system = headers.parse_system(fields)
        except S3Error as error:
            if error.code != "InvalidStorageClass":
                raise
            notes.note(CLASS_NOTE)
            content_type, system = headers.parse_system({n: v for n, v in fields.items() if n != _CLASS})
    except S3Error as error:
        raise ObjectError(f"its metadata is none that S3 allows: {error}") from error
    retention, legal_hold = _parse_lock(fields)
    if (retention is not None or legal_hold) and not object_lock:
        notes.note(LOCK_NOTE)
    if not object_lock:
        retention, legal_hold = None, None
    return Carried(content_type, system, metadata, retention, legal_hold)


def _parse_lock(fields: Mapping[bytes, str]) -> tuple[Retention | None, bool | None]:
    """Raises ObjectError for a lock that cannot be read: nothing is imported unlocked that was locked."""
    hold = {"ON": True, "OFF": False}.get(fields.get(b"x-amz-object-lock-legal-hold", ""))
    mode_text = fields.get(b"x-amz-object-lock-mode")
    if mode_text is None:
        return None, hold
    mode = parse_mode(mode_text)
    until_ms = dates.parse_iso_ms(fields.get(b"x-amz-object-lock-retain-until-date", ""))
    if mode is None or until_ms is None:
        raise ObjectError(f"its retention cannot be read: {mode_text}")
    return Retention(mode, until_ms), hold


def decode_word(value: str) -> str:
    """What is not ASCII comes as an RFC 2047 encoded word (several, if it is long)."""
    if "=?" not in value:
        return value
    pieces = value.split()
    decoded = [_decode_piece(piece) for piece in pieces]
    if any(piece is None for piece in decoded):
        return value
    try:
        return b"".join(piece for piece in decoded if piece is not None).decode()
    except UnicodeDecodeError:
        return value


def _decode_piece(piece: str) -> bytes | None:
    match = _WORD.fullmatch(piece)
    if match is None:
        return None
    try:
        if match[1] in "bB":
            return base64.b64decode(match[2], validate=True)
        return quopri.decodestring(match[2].encode(), header=True)
    except (binascii.Error, ValueError):
        return None


def put_parameters(
    record: ObjectRecord, notes: Notes, *, keep_class: bool, object_lock: bool, now_ms: int
) -> dict[str, object]:
    """What an export tells the target about an object, as botocore's PutObject and CreateMultipartUpload name it."""
    found: dict[str, object] = {}
    if record.content_type is not None:
        found["ContentType"] = record.content_type
    for name, value in record.headers:
        if name in _SYSTEM:
            found[_SYSTEM[name]] = value
        elif name == "expires":
            seconds = dates.parse_http(value)
            if seconds is None:
                notes.note("expires: not a date, which this client cannot send")
            else:
                found["Expires"] = seconds
        elif name == _CLASS.decode() and keep_class:
            found["StorageClass"] = value
    metadata = {name: _encode_word(value) for name, value in record.metadata}
    if metadata:
        found["Metadata"] = metadata
    if record.tags:
        found["Tagging"] = urlencode(record.tags)
    retained = is_retained(record.retention, now_ms)  # one that has ended would be refused
    if retained or record.legal_hold:
        if object_lock:
            found |= _lock_parameters(record, retained=retained)
        else:
            notes.note("retention or legal hold: the target bucket has no Object Lock")
    return found


def _lock_parameters(record: ObjectRecord, *, retained: bool) -> dict[str, object]:
    found: dict[str, object] = {}
    if retained and record.retention is not None:
        found["ObjectLockMode"] = record.retention.mode
        found["ObjectLockRetainUntilDate"] = dates.format_iso(record.retention.until_ms)
    if record.legal_hold:
        found["ObjectLockLegalHoldStatus"] = "ON"
    return found


def _encode_word(value: str) -> str:
    """botocore sends ASCII alone; a server that knows the form shows it to clients as ours does."""
    if value.isascii():
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="
