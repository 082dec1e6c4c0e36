"""The command line: `vaultaire serve`, `key`, `env`, `stats` and the care for a store: `gc`, `verify`, `repair`, ...

Guarantees (docs/cli.md): what a script reads goes to stdout, errors go to stderr, each with its next step; colour,
tables and progress only on a terminal. Exit status: 0 done; 1 failed, or damage was found; 2 called wrongly, the
configuration is not in order, or the directory is no store; 130 interrupted; 141 nobody reads the output any more.

Commands are imported when they are called: `serve` restarts in well under two seconds, and `--help` needs no LMDB.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any, NoReturn

import click

from vaultaire.cli.output import Failure, WrongConfiguration, WrongDirectory

_COMMANDS = {
    "serve": "vaultaire.cli.serve",
    "key": "vaultaire.cli.key",
    "env": "vaultaire.cli.env",
    "bucket": "vaultaire.cli.bucket",
    "stats": "vaultaire.cli.stats",
    "du": "vaultaire.cli.du",
    "lifecycle": "vaultaire.cli.lifecycle",
    "gc": "vaultaire.cli.gc",
    "verify": "vaultaire.cli.verify",
    "repair": "vaultaire.cli.repair",
    "analyze": "vaultaire.cli.analyze",
    "import": "vaultaire.cli.import_",
    "export": "vaultaire.cli.export",
    "backup": "vaultaire.cli.backup",
    "restore": "vaultaire.cli.restore",
    "rebuild": "vaultaire.cli.rebuild",
    "doctor": "vaultaire.cli.doctor",
    "config": "vaultaire.cli.config",
    "completion": "vaultaire.cli.completion",
}

# As the help lists them; what is in none is listed last.
_SECTIONS = {
    "Serve": ("serve", "env", "doctor", "config", "completion"),
    "Keys, buckets, sizes": ("key", "bucket", "stats", "du"),
    "Move data": ("analyze", "import", "export"),
    "Care for a store": ("backup", "restore", "verify", "repair", "rebuild", "gc", "lifecycle"),
}

# What other tools call it.
_OTHER_WORDS = {
    "start": "serve",
    "run": "serve",
    "up": "serve",
    "status": "doctor",
    "info": "stats",
    "size": "du",
    "forecast": "analyze",
    "estimate": "analyze",
    "user": "key",
    "check": "verify",
    "fsck": "verify",
    "scrub": "verify",
    "heal": "repair",
    "prune": "gc",
    "mb": "bucket",
    "settings": "config",
}

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
OUTPUT_CLOSED = 141  # 128 + SIGPIPE


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class _LazyGroup(click.Group):
    """Finds a command `name` as the attribute `command` of its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections = {
            **_SECTIONS,
            "Others": tuple(n for n in _COMMANDS if not any(n in s for s in _SECTIONS.values())),
        }
        for title, names in sections.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                if command is not None:
                    rows.append((name, command.get_short_help_str(limit=120)))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from vaultaire.cli.output import own_command

        formatter.write_paragraph()
        formatter.write_text(
            f"Start with `{own_command()} serve`; it prints what to paste next. "
            f"`{own_command()} COMMAND --help` says more."
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        wanted = args[0]
        if wanted not in _COMMANDS and not wanted.startswith("-") and not ctx.resilient_parsing:
            hint = _nearest_command(wanted)
            raise click.UsageError(f"No such command {wanted!r}{hint}. See all with: vaultaire --help", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> NoReturn:  # noqa: ANN401  # click's
        """As click's, but for Ctrl-C and for a reader that is gone (`vaultaire stats | head`)."""
        try:
            status = super().main(*args, standalone_mode=False, **extra)  # type: ignore[call-overload]
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            status = error.exit_code
        except click.Abort:
            click.echo("Interrupted. The store is in order; run the same command again to go on.", err=True)
            status = INTERRUPTED
        except BrokenPipeError:
            status = _closed_output()
        sys.exit(status)

    def invoke(self, ctx: click.Context) -> None:
        try:
            super().invoke(ctx)
        except BrokenPipeError as error:
            raise click.exceptions.Exit(_closed_output()) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            failure = _explained(error)
            if failure is None:
                raise
            raise failure from error


def _closed_output() -> int:
    """The exit status; Python flushes once more at its end, and must not complain then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OUTPUT_CLOSED


def command_names() -> tuple[str, ...]:
    return tuple(_COMMANDS)


def _nearest_command(wanted: str) -> str:
    from vaultaire.config_file import nearest

    known = _OTHER_WORDS.get(wanted)
    return f" (did you mean {known!r}?)" if known in _COMMANDS else nearest(wanted, _COMMANDS)


def _explained(error: Exception) -> Failure | None:
    """What the user is told about an expected kind of error; None: it is a defect, show the traceback."""
    from cas.errors import CasError
    from index.kv import KvError
    from vaultaire.config_file import ConfigError
    from vaultaire.errors import NotAStore, StoreError

    if isinstance(error, ConfigError):
        return WrongConfiguration(str(error))
    if isinstance(error, NotAStore):
        return WrongDirectory(str(error))
    if isinstance(error, (StoreError, KvError, CasError)):
        return Failure(str(error))
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _DISK_ERRORS):
        where = f"{error.filename}: " if error.filename is not None else ""
        return Failure(
            f"{where}{error.strerror}; check that it exists, that this user may use it, "
            "and that the disk is not full"
        )
    return None


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from vaultaire.cli.output import version

        click.echo(f"vaultaire {version()}")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
def main() -> None:
    """Vaultaire: an S3-compatible object store that keeps every byte once."""
