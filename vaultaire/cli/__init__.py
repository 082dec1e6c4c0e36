"""The command line: `vaultaire serve`, `key`, `env`, `stats` and the care for a store: `gc`, `verify`, `repair`, ...

Guarantees: what a script reads goes to stdout, errors go to stderr, each with its next step; colour and tables only on
a terminal; exit status 0 done, 1 failed, 2 called wrongly or the directory is no store.

Commands are imported when they are called: `serve` restarts in well under two seconds, and `--help` needs no LMDB.
"""

from __future__ import annotations

import errno
import importlib

import click

from vaultaire.cli.output import Failure, WrongDirectory

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
    "backup": "vaultaire.cli.backup",
    "restore": "vaultaire.cli.restore",
    "rebuild": "vaultaire.cli.rebuild",
    "doctor": "vaultaire.cli.doctor",
    "completion": "vaultaire.cli.completion",
}


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class _LazyGroup(click.Group):
    """Finds a command `name` as the attribute `command` of its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name]).command
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            failure = _explained(error)
            if failure is None:
                raise
            raise failure from error


def _explained(error: Exception) -> Failure | None:
    """What the user is told about an expected kind of error; None: it is a defect, show the traceback."""
    from cas.errors import CasError
    from index.kv import KvError
    from vaultaire.errors import NotAStore, StoreError

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
    """Vaultaire: an S3-compatible object store that keeps every byte once.

    Start with `vaultaire serve`; it prints what to paste next.
    """
