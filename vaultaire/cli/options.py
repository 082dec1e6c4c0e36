"""Option types and options that commands share; every value is parsed here, once.

The settings of the server become options here (`settings_options`), and all commands find the directory of the store by
`data_option`: option, then VAULTAIRE_DATA, then `data` of the configuration file, then the default. The file is read at
most once, and only by a command that needs it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vaultaire.config_resolve import Resolution, parse_texts, resolve, resolve_one, unknown_variables
from vaultaire.config_settings import BY_NAME, CONFIG_VARIABLE, DEFAULT_DATA, SETTINGS
from vaultaire.config_values import parse_seconds, parse_size
from vaultaire.plans import PLANS

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultaire.config_file import ConfigFile
    from vaultaire.config_settings import Setting
    from vaultaire.plans import Plan

__all__ = ["DEFAULT_DATA", "ByteSize", "Duration", "data_option", "settings_of", "settings_options"]

_GIVEN: Final = "vaultaire.settings"  # keys of click's `meta`, which all contexts of a call share
_FILE: Final = "vaultaire.file"
_CHOSEN: Final = "vaultaire.file.chosen"


class ByteSize(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """192MiB, 1.5GiB, 500MB, 64k, 1048576. MB is 10^6; M and MiB are 2^20."""

    name = "size"

    def __init__(self, minimum: int) -> None:
        self.minimum = minimum

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_size(str(value), self.minimum)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """30, 30s, 500ms, 2m, 1h, 90d; more than zero."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_seconds(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def chosen_file(ctx: click.Context) -> Path | None:
    """By the option `--config`."""
    chosen: Path | None = ctx.meta.get(_CHOSEN)
    return chosen


def config_file(ctx: click.Context) -> ConfigFile | None:
    """The file that holds for this call, read once. Raises ConfigError."""
    if _FILE not in ctx.meta:
        from vaultaire.config_file import find_file, read_file

        path = find_file(chosen_file(ctx), os.environ)
        ctx.meta[_FILE] = None if path is None else read_file(path)
    found: ConfigFile | None = ctx.meta[_FILE]
    return found


def known_plans(ctx: click.Context) -> dict[str, Plan]:
    """Built in and of the configuration file. Raises ConfigError."""
    file = config_file(ctx)
    return {**PLANS, **(file.plans if file is not None else {})}


def settings_of(ctx: click.Context) -> Resolution:
    """All settings as they hold for this call. Raises ConfigError if the file cannot be used."""
    return resolve(ctx.meta.get(_GIVEN, {}), os.environ, config_file(ctx))


def data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--data DIR`, as an absolute path in the parameter `data`; and `--config FILE`, which may name it too."""
    return _config_option(_option(BY_NAME["data"], _take_data, expose_value=True)(command))


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All settings as options; `settings_of` has them. `data` is a parameter."""
    for setting in reversed([each for each in SETTINGS if each.has_option and each.name != "data"]):
        command = _option(setting, _take_setting, expose_value=False)(command)
    return _config_option(_option(BY_NAME["data"], _take_data_strictly, expose_value=True)(command))


def _option(
    setting: Setting,
    callback: Callable[[click.Context, click.Parameter, Any], object],
    *,
    expose_value: bool,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = f"; default: {setting.shown_default}" if setting.shown_default else ""
    repeat = " May be repeated." if setting.many else ""
    return click.option(
        setting.option,
        setting.name,
        metavar=setting.kind.metavar,
        multiple=setting.many,
        callback=callback,
        expose_value=expose_value,
        is_eager=setting.name == "data",
        help=f"{setting.help}{repeat}  [env var: {setting.variable}{default}]",
    )


def _config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_take_config,
        help=f"Configuration file.  [env var: {CONFIG_VARIABLE}; default: vaultaire.toml here or in /etc, if there is one]",
    )(command)


def _take_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    ctx.meta[_CHOSEN] = value


def _take_setting(ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...] | None) -> None:
    if value is None or value == ():
        return
    setting = BY_NAME[str(param.name)]
    texts = (value,) if isinstance(value, str) else value
    try:
        parsed = parse_texts(setting, texts)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    ctx.meta.setdefault(_GIVEN, {})[setting.name] = (parsed, " ".join(texts))


def _take_data(ctx: click.Context, param: click.Parameter, value: str | None) -> Path:
    data = _take_data_strictly(ctx, param, value)
    if not ctx.resilient_parsing:
        for problem in unknown_variables(os.environ):
            click.echo(f"Warning: {problem}", err=True)
    return data


def _take_data_strictly(ctx: click.Context, param: click.Parameter, value: str | None) -> Path:
    """For commands that take up all settings, and refuse themselves what is unknown."""
    from vaultaire.config_file import ConfigError

    _take_setting(ctx, param, value)
    setting, given = BY_NAME["data"], ctx.meta.get(_GIVEN, {})
    decided = setting.name in given or bool(os.environ.get(setting.variable))
    try:
        found = resolve_one(setting, given, os.environ, None if decided else config_file(ctx))
    except ValueError as error:
        raise ConfigError([f"{setting.variable}: {error}"]) from error
    data: Path = found.value
    return data
