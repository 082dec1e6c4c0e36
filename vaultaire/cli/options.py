"""Option types and options that commands share; every value is parsed here, once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaultaire.s3.addressing import parse_domain

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_DATA = "./vaultaire-data"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", re.IGNORECASE)
_UNIT_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class ByteSize(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """192MiB, 1.5GiB, 500MB, 64k, 1048576. MB is 10^6; M and MiB are 2^20."""

    name = "size"

    def __init__(self, minimum: int) -> None:
        self.minimum = minimum

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None or (not match[2] and match[3].lower() not in ("", "b")):
            self.fail(f"{value!r} is no size; write for example 192MiB", param, ctx)
        base = 1000 if match[2] and match[3].lower() == "b" else 1024
        count = int(float(match[1]) * base ** _POWERS[match[2].lower()])
        if count < self.minimum:
            self.fail(f"{value!r} is too small; the least is {self.minimum >> 20}MiB", param, ctx)
        return count


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """30, 30s, 500ms, 2m, 1h, 90d; more than zero."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = _SECONDS.fullmatch(str(value).strip())
        seconds = float(match[1]) * _UNIT_SECONDS[match[2].lower()] if match else 0.0
        if seconds <= 0:
            self.fail(f"{value!r} is no time above zero; write for example 30 or 30s", param, ctx)
        return seconds


class ListenAddress(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """HOST:PORT as (host, port); an IPv6 address stands in brackets. Port 0: any free one."""

    name = "host:port"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, colon, port = str(value).rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        well_formed = colon and host and port.isascii() and port.isdigit() and int(port) <= 65535
        if not well_formed or (":" in host) != bracketed:
            self.fail(
                f"{value!r} is not HOST:PORT; write for example 127.0.0.1:9000, [::1]:9000, "
                "or 0.0.0.0:9000 for all addresses of this machine",
                param,
                ctx,
            )
        return host, int(port)


class Domain(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """s3.example.org: a name in DNS, without port, in lower case."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        domain = parse_domain(str(value).strip())
        if domain is None:
            self.fail(f"{value!r} is no domain; write for example s3.example.org", param, ctx)
        return domain


class LogPath(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A file to append to, as an absolute path; `-`: standard output; `off` (None): no log."""

    name = "path|-|off"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str | None:
        text = str(value)
        if text in ("", "off"):
            return None
        if text == "-":
            return text
        path = Path(text).absolute()
        if path.is_dir() or not path.parent.is_dir():
            self.fail(f"{text!r} is no file in a directory that exists", param, ctx)
        return str(path)


def _absolute(_: click.Context, __: click.Parameter, value: Path) -> Path:
    return value.absolute()


def data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--data DIR`, as an absolute path in the parameter `data`."""
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_DATA,
        show_default=True,
        envvar="VAULTAIRE_DATA",
        show_envvar=True,
        callback=_absolute,
        help="Directory of the store.",
    )(command)
