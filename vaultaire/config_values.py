"""Kinds of values that people write: sizes, times, addresses, numbers, paths. Pure, but for `ExistingFile`.

Each kind reads what stands in an option, an environment variable (both text) or a TOML file (text or a number), and
raises ValueError with an example of what would be right. Options, variables and files therefore mean the same.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, Protocol

from vaultaire.s3.addressing import parse_domain

if TYPE_CHECKING:
    from pathlib import Path

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", re.IGNORECASE)
_UNIT_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PLAN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Given = str | int | float


class Kind(Protocol):
    """`metavar`: how help texts call such a value."""

    metavar: str

    def parse(self, given: Given, base: Path) -> object:
        """`base`: the absolute folder that relative paths begin at. Raises ValueError."""
        ...


def parse_size(given: Given, minimum: int = 0) -> int:
    """Bytes: 192MiB, 1.5GiB, 500MB, 64k, 1048576. MB is 10^6; M and MiB are 2^20. Raises ValueError."""
    match = _SIZE.fullmatch(str(given).strip())
    if match is None or (not match[2] and match[3].lower() not in ("", "b")):
        raise ValueError(f"{given!r} is no size; write for example 192MiB")
    base = 1000 if match[2] and match[3].lower() == "b" else 1024
    count = int(float(match[1]) * base ** _POWERS[match[2].lower()])
    if count < minimum:
        least = f"{minimum >> 20}MiB" if minimum >= 1 << 20 else f"{minimum} bytes"
        raise ValueError(f"{given!r} is too small; the least is {least}")
    return count


def parse_seconds(given: Given) -> float:
    """30, 30s, 500ms, 2m, 1h, 90d; more than zero. Raises ValueError."""
    match = _SECONDS.fullmatch(str(given).strip())
    seconds = float(match[1]) * _UNIT_SECONDS[match[2].lower()] if match else 0.0
    if seconds <= 0:
        raise ValueError(f"{given!r} is no time above zero; write for example 30 or 30s")
    return seconds


def parse_address(given: Given) -> tuple[str, int]:
    """HOST:PORT as (host, port); an IPv6 address stands in brackets. Port 0: any free one. Raises ValueError."""
    host, colon, port = str(given).rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    well_formed = colon and host and port.isascii() and port.isdigit() and int(port) <= 65535
    if not well_formed or (":" in host) != bracketed:
        raise ValueError(
            f"{given!r} is not HOST:PORT; write for example 127.0.0.1:9000, [::1]:9000, "
            "or 0.0.0.0:9000 for all addresses of this machine"
        )
    return host, int(port)


class Size:
    metavar = "SIZE"

    def __init__(self, minimum: int = 0) -> None:
        self.minimum = minimum

    def parse(self, given: Given, base: Path) -> int:
        return parse_size(given, self.minimum)


class Time:
    metavar = "TIME"

    def parse(self, given: Given, base: Path) -> float:
        return parse_seconds(given)


class Address:
    metavar = "HOST:PORT"

    def parse(self, given: Given, base: Path) -> tuple[str, int]:
        return parse_address(given)


class DomainName:
    """s3.example.org: a name in DNS, without port; in lower case."""

    metavar = "NAME"

    def parse(self, given: Given, base: Path) -> str:
        domain = parse_domain(str(given).strip())
        if domain is None:
            raise ValueError(f"{given!r} is no domain; write for example s3.example.org")
        return domain


class Whole:
    """A whole number from `low` to `high`, both inclusive."""

    def __init__(self, low: int, high: int, metavar: str = "N") -> None:
        self.low, self.high, self.metavar = low, high, metavar

    def parse(self, given: Given, base: Path) -> int:
        text = str(given).strip()
        if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII) or not self.low <= int(text) <= self.high:
            raise ValueError(f"{given!r} is no whole number from {self.low} to {self.high}")
        return int(text)


class Number:
    """A number from `low` to `high`, both inclusive."""

    def __init__(self, low: float, high: float, metavar: str = "N") -> None:
        self.low, self.high, self.metavar = low, high, metavar

    def parse(self, given: Given, base: Path) -> float:
        try:
            number = float(given)
        except ValueError:
            number = math.nan
        if not self.low <= number <= self.high:  # not a number is in no range
            raise ValueError(f"{given!r} is no number from {self.low:g} to {self.high:g}")
        return number


class Folder:
    metavar = "DIR"

    def parse(self, given: Given, base: Path) -> Path:
        path = base / _path(given)
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file; name a directory")
        return path


class ExistingFile:
    metavar = "FILE"

    def parse(self, given: Given, base: Path) -> Path:
        path = base / _path(given)
        try:
            with open(path, "rb"):
                return path.resolve()
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror})") from error


class PlanName:
    metavar = "NAME"

    def parse(self, given: Given, base: Path) -> str:
        if not _PLAN_NAME.fullmatch(str(given)):
            raise ValueError(f"{given!r} is no name of a plan; use letters, digits, '.', '_' and '-'")
        return str(given)


class Choice:
    def __init__(self, *words: str) -> None:
        self.words = words
        self.metavar = "|".join(words)

    def parse(self, given: Given, base: Path) -> str:
        if given not in self.words:
            raise ValueError(f"{given!r} is none of: {', '.join(self.words)}")
        return str(given)


class LogFile:
    """A file to append to, as an absolute path; `-`: standard output; `off` (None): no log."""

    metavar = "FILE|-|off"

    def parse(self, given: Given, base: Path) -> str | None:
        if given in ("off", "-"):
            return None if given == "off" else "-"
        path = base / _path(given)
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"{path} is no file in a directory that exists")
        return str(path)


class Text:
    metavar = "TEXT"

    def parse(self, given: Given, base: Path) -> str:
        return str(given)


def _path(given: Given) -> str:
    text = str(given)
    if not text or "\0" in text:
        raise ValueError(f"{given!r} is no path")
    return text
