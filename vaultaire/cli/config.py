"""`vaultaire config show | check | example`: which settings hold, where they come from, and whether they are in order.

`show` and `serve` take the same options, variables and file by the same code, so what `show` prints is what `serve` does.
Secrets are never printed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaultaire.cli.options import settings_of, settings_options
from vaultaire.cli.output import Failure, print_lines, print_table

if TYPE_CHECKING:
    from vaultaire.config_resolve import Effective, Resolution

_HIDDEN = "(hidden)"


@click.group("config")
def command() -> None:
    """Show and check the configuration: options, environment, file, defaults."""


@command.command("show")
@settings_options
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: sizes in bytes, times in seconds.")
@click.pass_context
def show(ctx: click.Context, data: Path, origin: bool, as_json: bool) -> None:
    """Show the settings that `vaultaire serve` would have here, with the same options.

    What holds is the option, else the environment variable, else the file, else the default.
    """
    found = settings_of(ctx)
    if as_json:
        click.echo(json.dumps(as_dict(found), indent=2))
    else:
        titles = ("SETTING", "VALUE", "ORIGIN") if origin else ("SETTING", "VALUE")
        print_table(titles, [row(effective)[: len(titles)] for effective in found.settings.values()])
        file = str(found.file) if found.file else "none (see `vaultaire config example`)"
        print_lines([("", ""), (f"file: {file}", "dim")])
        print_lines([(f"plan {plan}", "dim") for plan in found.plans.values()])
    _refuse(found.problems)


def row(effective: Effective) -> tuple[str, str, str]:
    setting, shown = effective.setting, effective.given
    if setting.secret and effective.value is not None:
        shown = _HIDDEN
    elif effective.origin == "default" and setting.default is None and isinstance(effective.value, int):
        shown = f"{effective.value} ({setting.default_text})"
    return setting.name, shown, effective.where or "default"


def as_dict(found: Resolution) -> dict[str, object]:
    """Documented in docs/cli.md."""
    return {
        "file": str(found.file) if found.file else None,
        "settings": {
            name: {"value": _plain(effective), "origin": effective.origin, "where": effective.where or None}
            for name, effective in found.settings.items()
        },
        "plans": {
            name: {
                "requests_per_minute": plan.requests_per_minute,
                "bytes_per_second": plan.bytes_per_second,
            }
            for name, plan in found.plans.items()
        },
        "problems": found.problems,
    }


def _plain(effective: Effective) -> object:
    value = effective.value
    if effective.setting.secret and value is not None:
        return _HIDDEN
    if effective.setting.name == "listen":
        return effective.given
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


@command.command("check")
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="[FILE]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path | None, as_json: bool) -> None:
    """Check FILE (or the one that `serve` would read here) and the environment, as `serve` would.

    \b
    Exit status: 0 in order, 1 not in order.
    """
    from vaultaire.config_file import find_file

    path = find_file(file, os.environ)
    problems = find_problems(path)
    if as_json:
        click.echo(json.dumps({"file": str(path) if path else None, "problems": problems}, indent=2))
    _refuse(problems)
    if not as_json:
        where = f"{path} and the environment are" if path else "There is no file, and the environment is"
        print_lines([(f"{where} in order.", "bold green")])


def find_problems(path: Path | None) -> list[str]:
    """What `serve` would refuse; blocking. Secrets are not in it."""
    from vaultaire.cli.serve import check_certificate, check_token, chosen_root
    from vaultaire.config_file import ConfigError, read_file
    from vaultaire.config_resolve import resolve, serve_config

    try:
        found = resolve({}, os.environ, None if path is None else read_file(path))
        config = serve_config(found)
        chosen_root(found)
        check_certificate(config)
        check_token(config)
    except ConfigError as error:
        return list(error.problems)
    return []


@command.command("example")
def example() -> None:
    """Print a file with all settings, each with its default, to edit.

    \b
    vaultaire config example > vaultaire.toml
    """
    click.echo(example_file(), nl=False)


def example_file() -> str:
    """All lines are comments: a setting that is not named keeps its default, also in later versions."""
    from vaultaire.config_settings import SETTINGS

    lines = [*_HEAD]
    group = ""
    for setting in SETTINGS:
        if setting.group != group:
            group = setting.group
            lines += ["", f"# --- {group} ---"]
        about = setting.help + (f" Default: {setting.default_text}." if setting.default is None else "")
        value = setting.example if setting.default is None else json.dumps(setting.default)
        lines += ["", *(f"# {line}" for line in _wrapped(about)), f"#{setting.name} = {value}"]
    return "\n".join([*lines, *_PLANS, ""])


_HEAD = (
    "# Vaultaire's configuration. It is read from --config FILE, VAULTAIRE_CONFIG, ./vaultaire.toml or",
    "# /etc/vaultaire.toml: the first of these that there is, and no other. An option of `vaultaire serve` or an",
    "# environment variable (listen: VAULTAIRE_LISTEN) overrides what stands here.",
    "#",
    "# What is commented out shows the defaults. Sizes: 192MiB, 1.5GiB, 500MB. Times: 500ms, 30s, 2m, 1h. Paths that do",
    "# not begin with / begin at this file. Check it with `vaultaire config check`; `vaultaire config show --origin`",
    "# says what holds. The server reads it when it starts.",
)
_PLANS = (
    "",
    "# --- Plans ---",
    "",
    "# Named limits, for `plan` above and `vaultaire key limit --plan NAME`. What is left out is unlimited.",
    '#[plans."my-plan"]',
    "#requests_per_minute = 600",
    '#bytes_per_second = "50MiB"',
)


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 110)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise Failure("\n  ".join(["the configuration is not in order:", *problems]))
