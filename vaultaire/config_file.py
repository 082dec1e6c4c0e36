"""The configuration file: TOML, strict. Pure, but for `find_file` and `read_file`.

Keys are the names of `vaultaire.config_settings`; tables `[plans."NAME"]` hold named limits. Whatever is not known is
refused with the nearest name, whatever is known is checked, and all that is wrong is said at once, each with its line.

Guarantees: a file is read whole or refused; nothing is looked up or executed. What it may hold is bounded by
MAX_FILE_BYTES. tomllib keeps no lines of keys: `_lines` finds them again by a plain scan. A key inside a text of several
lines may mislead it, and then a message names the wrong line; no value comes from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vaultaire.config_settings import BY_NAME, CONFIG_VARIABLE
from vaultaire.config_values import PlanName, Size, Whole
from vaultaire.errors import StoreError
from vaultaire.plans import MAX_BYTES, MAX_REQUESTS, PLANS, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vaultaire.config_settings import Setting

# The first that exists is the only one that is read. Not the data directory: it is named by the file, and is backed up
# and restored as a whole, with what belongs to this machine left out.
SEARCHED: Final = (Path("vaultaire.toml"), Path("/etc/vaultaire.toml"))
MAX_FILE_BYTES: Final = 1 << 20

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*[.=]""")
_PLAN_KEYS: Final[dict[str, Whole | Size]] = {
    "requests_per_minute": Whole(1, MAX_REQUESTS),
    "bytes_per_second": Size(1),
}


class ConfigError(StoreError):
    """The configuration cannot be used. `problems`: one sentence each, with file and line or the variable's name."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n  ".join(["the configuration is not in order:", *self.problems]))


@dataclass(frozen=True, slots=True)
class FileValue:
    value: object  # parsed; for a setting that has many: a tuple
    given: str  # as it stands in the file, nearly
    line: int


@dataclass(frozen=True, slots=True)
class ConfigFile:
    path: Path
    values: Mapping[str, FileValue]  # by name of the setting
    plans: Mapping[str, Plan]


def nearest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)", or nothing if no known name is like it."""
    import difflib

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""


def find_file(chosen: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: `chosen` by option, else by variable, else the first of SEARCHED that exists; None: none."""
    if chosen is None and environ.get(CONFIG_VARIABLE):
        chosen = Path(environ[CONFIG_VARIABLE])
    if chosen is not None:
        return chosen.absolute()
    return next((path.absolute() for path in SEARCHED if path.exists()), None)


def read_file(path: Path) -> ConfigFile:
    """Blocking. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
            others_read = bool(_mode(file.fileno()) & 0o077)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([f"{path}: is too large to be a configuration"])
    try:
        parsed = parse_file(path, content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is no text in UTF-8"]) from error
    secrets = [name for name in parsed.values if BY_NAME[name].secret]
    if secrets and others_read:
        raise ConfigError([f"{path}: holds {secrets[0]} and can be read by others: chmod 600 {path}"])
    return parsed


def parse_file(path: Path, text: str) -> ConfigFile:
    """`path`: for messages, and where relative paths begin. Raises ConfigError."""
    import tomllib

    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError([f"{path}: is no TOML: {error}"]) from error
    reader = _Reader(path, _lines(text))
    for name, value in document.items():
        if name == "plans":
            reader.read_plans(value)
        else:
            reader.read_setting(name, value)
    if reader.problems:
        raise ConfigError(reader.problems)
    return ConfigFile(path, reader.values, reader.plans)


class _Reader:
    def __init__(self, path: Path, lines: Mapping[tuple[str, ...], int]) -> None:
        self._path = path
        self._lines = lines
        self.values: dict[str, FileValue] = {}
        self.plans: dict[str, Plan] = {}
        self.problems: list[str] = []

    def _refuse(self, where: tuple[str, ...], problem: str) -> None:
        self.problems.append(f"{self._path}:{self._lines.get(where, 1)}: {problem}")

    def read_setting(self, name: str, value: object) -> None:
        setting = BY_NAME.get(name)
        if setting is None:
            what = "section" if isinstance(value, dict) else "key"
            hint = nearest(name.replace("-", "_"), [*BY_NAME, "plans"])
            self._refuse((name,), f"unknown {what} {name!r}{hint}")
            return
        try:
            parsed = self._parse(setting, value)
        except ValueError as error:
            self._refuse((name,), f"{name}: {error}")
            return
        self.values[name] = FileValue(parsed, _given(value), self._lines.get((name,), 1))

    def _parse(self, setting: Setting, value: object) -> object:
        base = self._path.parent
        if not setting.many:
            return setting.kind.parse(_scalar(value), base)
        listed = value if isinstance(value, list) else [value]
        return tuple(dict.fromkeys(setting.kind.parse(_scalar(each), base) for each in listed))

    def read_plans(self, value: object) -> None:
        if not isinstance(value, dict):
            self._refuse(("plans",), 'plans: write each as a section of its own, [plans."my-plan"]')
            return
        for name, fields in value.items():
            self._read_plan(name, fields)

    def _read_plan(self, name: str, fields: Any) -> None:  # noqa: ANN401  # whatever TOML can hold
        where = ("plans", name)
        try:
            PlanName().parse(name, self._path)
        except ValueError as error:
            self._refuse(where, str(error))
            return
        if name in PLANS:
            self._refuse(where, f"the plan {name!r} is built in; choose another name")
            return
        if not isinstance(fields, dict):
            self._refuse(where, f'plans: write it as a section, [plans."{name}"]')
            return
        numbers = {key: self._plan_number((*where, key), key, value) for key, value in fields.items()}
        known = {key: number for key, number in numbers.items() if key in _PLAN_KEYS}
        self.plans[name] = Plan(**known, plan=name)

    def _plan_number(self, where: tuple[str, ...], key: str, value: object) -> int | None:
        if key not in _PLAN_KEYS:
            self._refuse(where, f"unknown key {key!r} of a plan{nearest(key, _PLAN_KEYS)}")
            return None
        try:
            number = _PLAN_KEYS[key].parse(_scalar(value), self._path)
            if number > MAX_BYTES:
                raise ValueError("more than 1 TiB a second needs no limit")
            return number
        except ValueError as error:
            self._refuse(where, f"{key}: {error}")
            return None


def _scalar(value: object) -> str | int | float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        kind = {bool: "true or false", list: "a list", dict: "a section"}.get(type(value), "a date or time")
        raise ValueError(f"{kind} makes no sense here")
    return value


def _given(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Keys and section headers with their line, from 1."""
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            section = tuple(
                part.strip("\"'") for part in re.findall(r'"[^"]*"|\'[^\']*\'|[^.\s]+', header[1])
            )
            for depth in range(1, len(section) + 1):
                found.setdefault(section[:depth], number)
        elif key := _KEY.match(line):
            found.setdefault((*section, next(filter(None, key.groups()), "")), number)
    return found


def _mode(fd: int) -> int:
    import os

    return os.fstat(fd).st_mode
