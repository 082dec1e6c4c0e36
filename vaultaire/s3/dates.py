"""The three spellings of time in S3: RFC 1123 in headers, ISO 8601 in XML, ISO 8601 basic in signatures.

Times inside are integers: milliseconds since 1970 (UTC) where stored, seconds where a header can say no more.
Formatting is on the path of every listed key, so days and minutes are formatted once and remembered.
"""

from __future__ import annotations

import calendar
import datetime
import email.utils
import time
from functools import lru_cache

_TWO = [f"{i:02d}" for i in range(60)]
_MILLI = [f".{i:03d}Z" for i in range(1000)]
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY = 86_400


@lru_cache(maxsize=4096)
def _iso_minute(minute: int) -> str:
    t = time.gmtime(minute * 60)
    return f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T{t.tm_hour:02d}:{t.tm_min:02d}:"


@lru_cache(maxsize=512)
def _http_day(day: int) -> str:
    t = time.gmtime(day * _DAY)
    return f"{_WEEKDAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "


def format_iso(ms: int) -> str:
    """`2009-10-12T17:50:30.000Z`."""
    minute, rest = divmod(ms, 60_000)
    second, milli = divmod(rest, 1000)
    return _iso_minute(minute) + _TWO[second] + _MILLI[milli]


def format_http(ms: int) -> str:
    """`Mon, 12 Oct 2009 17:50:30 GMT`; the milliseconds are cut off."""
    day, rest = divmod(ms // 1000, _DAY)
    hour, rest = divmod(rest, 3600)
    minute, second = divmod(rest, 60)
    return f"{_http_day(day)}{_TWO[hour]}:{_TWO[minute]}:{_TWO[second]} GMT"


@lru_cache(maxsize=64)
def _basic_day(day: str) -> int | None:
    """Seconds at the start of the day written `YYYYMMDD`."""
    if not (len(day) == 8 and day.isascii() and day.isdigit()):
        return None
    try:
        date = datetime.date(int(day[:4]), int(day[4:6]), int(day[6:]))
    except ValueError:
        return None
    return calendar.timegm(date.timetuple())


def is_basic_day(day: str) -> bool:
    """Whether `day` is a real day written `YYYYMMDD`."""
    return _basic_day(day) is not None


@lru_cache(maxsize=256)
def parse_basic(text: str) -> int | None:
    """Seconds of `20091012T175030Z`, or None if it is anything else."""
    if len(text) != 16 or text[8] != "T" or text[15] != "Z":
        return None
    clock = text[9:15]
    start = _basic_day(text[:8])
    if start is None or not (clock.isascii() and clock.isdigit()):
        return None
    hour, minute, second = int(clock[:2]), int(clock[2:4]), int(clock[4:])
    if hour > 23 or minute > 59 or second > 60:
        return None
    return start + hour * 3600 + minute * 60 + second


def format_basic(seconds: int) -> str:
    """`20091012T175030Z`."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def parse_http(text: str) -> int | None:
    """Seconds of an HTTP date (any of RFC 9110's three forms) or of an ISO 8601 one; None if it is neither."""
    try:
        parsed = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return _parse_iso(text)
    return _seconds(parsed)


def _parse_iso(text: str) -> int | None:
    try:
        return _seconds(datetime.datetime.fromisoformat(text.strip()))
    except ValueError:
        return None


def parse_iso_ms(text: str) -> int | None:
    """Milliseconds of an ISO 8601 date and time; None for anything else. Fractions of one are rounded up.

    Without an offset it is UTC. A date alone is no instant. Up: a version kept until then is not let go before.
    """
    text = text.strip()
    if len(text) > 64 or "T" not in text:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    except (ValueError, OverflowError):
        return None
    return -(-since // datetime.timedelta(milliseconds=1))


def _seconds(moment: datetime.datetime) -> int | None:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    try:
        return int(moment.timestamp() // 1)
    except (OverflowError, ValueError):
        return None
