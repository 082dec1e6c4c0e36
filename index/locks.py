"""Object lock: whether a version may be removed, and whether its retention may be changed. Pure decisions.

They are asked by the functions of `index.versions` that remove or rewrite a row, not by their callers: no operation,
command or maintenance task can forget them. What holds:

* A legal hold: nobody removes the version while it is on. It does not touch retention.
* COMPLIANCE retention: until its time nobody removes the version, shortens it, or changes its mode.
* GOVERNANCE retention: the same, but for a caller that bypasses it. Who may is decided by whoever makes a `Change`.
* Retention may always be prolonged in its own mode. One whose time has passed holds nothing back.

Delete markers are never locked. Time is the server's wall clock: what S3 promises is a date.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from index.records import ObjectRecord
    from index.values import DefaultRetention, Retention

_DAY_MS: Final = 86_400_000
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MS: Final = datetime.timedelta(milliseconds=1)


def is_retained(retention: Retention | None, now_ms: int) -> bool:
    """Whether `retention` is in force. It ends at its instant: an object kept until t may go at t."""
    return retention is not None and now_ms < retention.until_ms


def may_remove(record: ObjectRecord, now_ms: int, *, bypass: bool) -> bool:
    """Whether this very version may be deleted or overwritten."""
    if record.delete_marker:
        return True
    if record.legal_hold:
        return False
    retention = record.retention
    if retention is None or not is_retained(retention, now_ms):
        return True
    return bypass and retention.mode == "GOVERNANCE"


def may_retain(current: Retention | None, wanted: Retention | None, now_ms: int, *, bypass: bool) -> bool:
    """Whether `wanted` (None: no retention) may take the place of `current`.

    From GOVERNANCE to COMPLIANCE needs the bypass as well: else anybody who may write could lock for ever what an
    administrator meant to be able to unlock.
    """
    if current is None or not is_retained(current, now_ms):
        return True
    if wanted is not None and wanted.mode == current.mode and wanted.until_ms >= current.until_ms:
        return True
    return bypass and current.mode == "GOVERNANCE"


def default_until_ms(default: DefaultRetention, now_ms: int) -> int:
    """When the retention of a version that appears now ends.

    Years are calendar years; from 29 February to a year without one it is 1 March: never shorter than promised.
    """
    if default.unit == "Days":
        return now_ms + default.count * _DAY_MS
    begin = _EPOCH + now_ms * _MS
    year = begin.year + default.count
    try:
        end = begin.replace(year=year)
    except ValueError:
        end = begin.replace(year=year, month=3, day=1)
    return (end - _EPOCH) // _MS
