"""Which value of each setting holds, and where it comes from: option > environment > file > default. Pure.

Whoever sees a value sees its origin, so `serve`, `config show` and `doctor` cannot disagree. Variables that begin with
VAULTAIRE_ and mean nothing are problems, too: a mistyped one would otherwise be a limit that silently does not hold.
Empty variables count as not set (compose files make such).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vaultaire.config import ServeConfig
from vaultaire.config_file import ConfigError, nearest
from vaultaire.config_settings import BY_NAME, CONFIG_VARIABLE, PREFIX, SETTINGS
from vaultaire.plans import PLANS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultaire.config_file import ConfigFile
    from vaultaire.config_settings import Setting
    from vaultaire.plans import Plan

Origin = Literal["option", "environment", "file", "default"]
Options = Mapping[str, tuple[Any, str]]  # by name of the setting: the value, and how it was written

# Kubernetes makes these in every pod beside a service that is called vaultaire; the tests have their own.
_NOT_OURS = re.compile(
    r"VAULTAIRE_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?|TEST_\w+|FUZZ_SECONDS)"
)


@dataclass(frozen=True, slots=True)
class Effective:
    setting: Setting
    value: Any  # of the setting's kind; None: not set, and there is no default
    given: str  # as the user wrote it
    origin: Origin
    where: str  # --option, VARIABLE, FILE:LINE, or ""


@dataclass(frozen=True, slots=True)
class Resolution:
    file: Path | None
    settings: Mapping[str, Effective]
    plans: Mapping[str, Plan]  # built in and of the file
    problems: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  # of many kinds
        return self.settings[name].value


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One sentence for each VAULTAIRE_* that means nothing here."""
    known = {setting.variable for setting in SETTINGS} | {CONFIG_VARIABLE}
    found = [
        name
        for name, value in sorted(environ.items())
        if name.startswith(PREFIX)
        and name not in known
        and not _NOT_OURS.fullmatch(name)
        # Kubernetes again: VAULTAIRE_PORT=tcp://10.0.0.1:9000. Written by a person it would be a mistake.
        and not (name == "VAULTAIRE_PORT" and "://" in value)
    ]
    return [f"{name}: unknown environment variable{nearest(name, known)}; unset it" for name in found]


def resolve_one(
    setting: Setting, options: Options, environ: Mapping[str, str], file: ConfigFile | None
) -> Effective:
    """Raises ValueError for an unusable variable."""
    name = setting.name
    if name in options:
        return Effective(setting, *options[name], "option", setting.option)
    text = environ.get(setting.variable)
    if text:
        value = parse_texts(setting, text.split() if setting.many else [text])
        return Effective(setting, value, text, "environment", setting.variable)
    if file is not None and name in file.values:
        found = file.values[name]
        return Effective(setting, found.value, found.given, "file", f"{file.path}:{found.line}")
    return Effective(setting, _default(setting), setting.shown_default, "default", "")


def resolve(options: Options, environ: Mapping[str, str], file: ConfigFile | None) -> Resolution:
    """All settings; what is wrong with them, between them or around them is in `problems`."""
    problems = unknown_variables(environ)
    settings: dict[str, Effective] = {}
    for setting in SETTINGS:
        try:
            settings[setting.name] = resolve_one(setting, options, environ, file)
        except ValueError as error:
            problems.append(f"{setting.variable}: {error}")
            settings[setting.name] = resolve_one(setting, {}, {}, file)
    plans = {**PLANS, **(file.plans if file is not None else {})}
    found = Resolution(file.path if file is not None else None, settings, plans, problems)
    problems += _contradictions(found)
    return found


def _contradictions(found: Resolution) -> list[str]:
    problems = []
    plan = found.settings["plan"]
    if plan.value not in found.plans:
        names = ", ".join(sorted(found.plans))
        problems.append(
            f"{plan.where}: there is no plan {plan.value!r}{nearest(plan.value, found.plans)}; there are: {names}"
        )
    for one, other in (("tls_cert", "tls_key"), ("root_access_key", "root_secret_key")):
        for has, lacks in ((one, other), (other, one)):
            if found[has] is not None and found[lacks] is None:
                missing = BY_NAME[lacks]
                ways = f"{missing.option} or {missing.variable}" if missing.has_option else missing.variable
                problems.append(
                    f"{found.settings[has].where}: {one} and {other} belong together: give both, or none ({ways} is missing)"
                )
    return problems


def serve_config(found: Resolution) -> ServeConfig:
    """Raises ConfigError for whatever is wrong."""
    if found.problems:
        raise ConfigError(found.problems)
    host, port = found["listen"]
    special = {"listen", "plan", "root_access_key", "root_secret_key"}
    plain = {
        setting.field or setting.name: found[setting.name]
        for setting in SETTINGS
        if setting.name not in special
    }
    return ServeConfig(host=host, port=port, plan=found.plans[found["plan"]], **plain)


def parse_texts(setting: Setting, texts: Sequence[str]) -> object:
    """What an option or a variable says; several texts only for a setting that has many. Raises ValueError."""
    parsed = [setting.kind.parse(text, Path.cwd()) for text in texts]
    return tuple(dict.fromkeys(parsed)) if setting.many else parsed[-1]


def _default(setting: Setting) -> object:
    if setting.compute_default is not None:
        return setting.compute_default()
    return None if setting.default is None else setting.kind.parse(setting.default, Path.cwd())
