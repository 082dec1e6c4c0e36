"""What commands print: plain text into pipes and files, colour and tables on a terminal.

`rich` is imported only for a terminal (it costs a script nothing), and obeys NO_COLOR.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Style = Literal["", "bold", "dim", "bold green", "yellow"]
Line = tuple[str, Style]


class Failure(click.ClickException):
    """Ends the command with a message for the user: what is wrong, and what to do next."""

    exit_code = 1

    def format_message(self) -> str:
        """With the commands that it advises as they can be called here (`.venv/bin/vaultaire`, if that is how)."""
        from vaultaire.cli import command_names

        advised = rf"(?<![\w/.-])vaultaire(?= (?:{'|'.join(command_names())})\b)"
        return re.sub(advised, lambda _: own_command(), self.message)


class WrongDirectory(Failure):
    """The directory is no store."""

    exit_code = 2


class WrongConfiguration(Failure):
    """Options, environment and file together make no configuration."""

    exit_code = 2


def version() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version("vaultaire")
    except PackageNotFoundError:
        return "(not installed, run from its source)"


def on_terminal() -> bool:
    return sys.stdout.isatty()


def print_lines(lines: Iterable[Line]) -> None:
    """One line each, never wrapped: commands are there to be pasted. Flushed."""
    if on_terminal():
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False)
        for text, style in lines:
            console.print(Text(text, style=style), soft_wrap=True)
    else:
        click.echo("".join(f"{text}\n" for text, _ in lines), nl=False)
    sys.stdout.flush()


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """`right`: positions of the columns that align to the right."""
    if on_terminal():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for position, title in enumerate(titles):
            table.add_column(title, justify="right" if position in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        Console(highlight=False).print(table)
        return
    widths = [max(len(row[position]) for row in (titles, *rows)) for position in range(len(titles))]
    for row in (titles, *rows):
        cells = [
            cell.rjust(width) if position in right else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def binary_size(count: int) -> str:
    """As people read it: 0 B, 1.5 KiB, 412.0 GiB."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1023.95:  # 1023.96 would print as 1024.0
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} PiB"


def own_command() -> str:
    """How this program can be called again from any folder: `vaultaire`, or its path when that is not in PATH."""
    called = sys.argv[0]
    if called.endswith(os.path.join("vaultaire", "__main__.py")):
        return f"{shlex.quote(sys.executable)} -m vaultaire"
    found = shutil.which("vaultaire")
    if os.path.basename(called) != "vaultaire" or (found and os.path.samefile(found, called)):
        return "vaultaire"
    return shlex.quote(os.path.abspath(called))
