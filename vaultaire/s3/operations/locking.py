"""Object Lock as requests and answers say it.

What a new version gets of it, and that a locked version stays, is not decided here but where rows are written:
`index.versions`, `index.locks`.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from index.values import Retention
from vaultaire.s3 import dates
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.xml_lock import parse_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from index.records import BucketRecord, ObjectRecord
    from vaultaire.s3.call import Call

_MODE = b"x-amz-object-lock-mode"
_UNTIL = b"x-amz-object-lock-retain-until-date"
_HOLD = b"x-amz-object-lock-legal-hold"


def version_locked() -> S3Error:
    """What a client is told whose change Object Lock forbids."""
    return S3Error("AccessDenied", "Access Denied because object protected by object lock.")


def lock_missing() -> S3Error:
    """What a client is told that wants a lock of a bucket that keeps none."""
    return S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")


def parse_lock_headers(fields: Mapping[bytes, str]) -> tuple[Retention | None, bool | None]:
    """(retention, legal hold) that a request wants for its new version. Raises InvalidArgument."""
    mode_text, until_text, hold = fields.get(_MODE), fields.get(_UNTIL), fields.get(_HOLD)
    if hold not in (None, "ON", "OFF"):
        raise invalid_argument("Legal Hold must be either of 'ON' or 'OFF'", _HOLD.decode(), hold)
    legal_hold = None if hold is None else hold == "ON"
    if mode_text is None and until_text is None:
        return None, legal_hold
    if mode_text is None or until_text is None:
        raise invalid_argument(
            f"{_UNTIL.decode()} and {_MODE.decode()} must both be supplied",
            (_UNTIL if until_text is None else _MODE).decode(),
            None,
        )
    mode, until_ms = parse_mode(mode_text), dates.parse_iso_ms(until_text)
    if mode is None:
        raise invalid_argument("Unknown wormMode directive.", _MODE.decode(), mode_text)
    if until_ms is None:
        raise invalid_argument(
            "The retain until date must be provided in ISO 8601 format", _UNTIL.decode(), until_text
        )
    return Retention(mode, until_ms), legal_hold


def require_lock(bucket: BucketRecord) -> None:
    """Raises InvalidRequest for a bucket without Object Lock."""
    if not bucket.object_lock:
        raise lock_missing()


def require_future(retention: Retention | None, now_ms: int) -> None:
    """Raises InvalidArgument."""
    if retention is not None and retention.until_ms <= now_ms:
        raise invalid_argument(
            "The retain until date must be in the future!",
            _UNTIL.decode(),
            dates.format_iso(max(retention.until_ms, 0)),
        )


def check_lock(
    bucket: BucketRecord, retention: Retention | None, legal_hold: bool | None, now_ms: int
) -> None:
    """Refuse what a request wants before its body is read. Raises InvalidRequest, InvalidArgument."""
    if retention is not None or legal_hold is not None:
        require_lock(bucket)
        require_future(retention, now_ms)


def lock_headers(call: Call, record: ObjectRecord) -> list[tuple[bytes, bytes]]:
    """What GET and HEAD tell of a version's lock: each part of it to whom GetObjectRetention, -LegalHold would."""
    headers: list[tuple[bytes, bytes]] = []
    if record.retention is None and record.legal_hold is None:
        return headers
    version_id = call.query.get("versionId")
    if record.retention is not None and call.allows("s3:GetObjectRetention", call.key, version_id):
        headers.append((_MODE, record.retention.mode.encode()))
        headers.append((_UNTIL, dates.format_iso(record.retention.until_ms).encode()))
    if record.legal_hold is not None and call.allows("s3:GetObjectLegalHold", call.key, version_id):
        headers.append((_HOLD, b"ON" if record.legal_hold else b"OFF"))
    return headers
