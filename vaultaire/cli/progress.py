"""How far a long command has come: one line on standard error, with rate and time left. All long commands use it.

Guarantees: nothing is written unless standard error is a terminal that can move its cursor, or if NO_COLOR or CI is
set; at most a few lines a second, however often it is called; the line is gone when the command ends, also by an error.
`progress_line` is pure. Not thread-safe: one thread at a time.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Final, Literal, Self

import click

from vaultaire.cli.output import binary_size

if TYPE_CHECKING:
    from collections.abc import Callable

Unit = Literal["bytes", "items"]

_EVERY_SECONDS: Final = 0.5
_QUIET_SECONDS: Final = 1.0  # what is done by then needs no progress
_RATE_SECONDS: Final = 2.0  # before that a rate is a guess


def wanted() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stderr.isatty()


def progress_line(
    stage: str, done: int, total: int, seconds: float, unit: Unit = "items", *, before: int = 0
) -> str:
    """For example "packs: 1.2 GiB of 8.0 GiB, 15 %, 310.0 MiB/s, 22 s left".

    `total` 0: not known. `seconds` since the stage began, at which time `before` was done already.
    """
    text = f"{stage}: {_amount(done, unit)}" if done or total else stage
    if total:
        text += f" of {_amount(total, unit)}, {min(100, 100 * done // total)} %"
    if seconds >= _RATE_SECONDS and done > before:
        rate = (done - before) / seconds
        text += f", {_amount(int(rate), unit)}/s"
        if total > done:
            text += f", {duration((total - done) / rate)} left"
    return text


def duration(seconds: float) -> str:
    """As people say it: 8 s, 4 min, 3 h 20 min, 2 d 4 h."""
    whole = int(seconds)
    if whole < 90:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 36 else f"{hours // 24} d {hours % 24} h"


class Progress:
    """`with Progress() as progress:`, then `show` or `advance` as often as you like. `shown`: None: as `wanted` says."""

    def __init__(self, *, shown: bool | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._visible = wanted() if shown is None else shown
        self._clock = clock
        self._next = clock() + _QUIET_SECONDS
        self._stage = ""
        self._stage_began = clock()
        self._stage_done = 0
        self._written = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._written:
            click.echo("\r\033[K", nl=False, err=True, color=True)

    def advance(self, stage: str, done: int = 0, total: int = 0, unit: Unit = "items") -> None:
        """`stage` in words; `done` of `total` (0: not known). What is done when a stage is first named is no work of it."""
        if stage != self._stage:
            self._stage, self._stage_began, self._stage_done = stage, self._clock(), done
        seconds = self._clock() - self._stage_began
        if self._due():
            self._write(progress_line(stage, done, total, seconds, unit, before=self._stage_done))

    def show(self, text: str) -> None:
        """For what has no numbers."""
        if self._due():
            self._write(text)

    def _due(self) -> bool:
        if not self._visible or self._clock() < self._next:
            return False
        self._next = self._clock() + _EVERY_SECONDS
        return True

    def _write(self, text: str) -> None:
        columns = shutil.get_terminal_size().columns
        self._written = True
        click.echo(f"\r\033[K{text[: columns - 1]}", nl=False, err=True, color=True)


def _amount(count: int, unit: Unit) -> str:
    return binary_size(count) if unit == "bytes" else f"{count:,}"
