"""`vaultaire restore`: make a store from a backup, in a new directory."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING

import click

from vaultaire.cli.backup import open_place, place_argument
from vaultaire.cli.options import data_option
from vaultaire.cli.output import Failure, binary_size, own_command, print_lines
from vaultaire.cli.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.backup.restoring import RestoreReport


@click.command("restore")
@place_argument
@data_option
@click.option("--backup", "number", type=click.IntRange(min=1), help="Which one; the newest if not given.")
@click.option(
    "--with-damage", is_flag=True, help="Leave out packs that are damaged in the backup, and name them."
)
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be restored.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def command(
    place: str, data: Path, number: int | None, with_damage: bool, dry_run: bool, as_json: bool
) -> None:
    """Make a store from a backup. The directory given by --data must be new or empty.

    Every byte is verified, and only then the directory becomes a store. If it is interrupted, run it again.
    """
    from vaultaire.backup.restoring import plan_restore, restore_backup

    if dry_run:
        _tell_plan(plan_restore(open_place(place, create=False), data, number), as_json=as_json)
        return
    with Progress() as progress:
        report = restore_backup(
            open_place(place, create=False),
            data,
            number,
            with_damage=with_damage,
            progress=lambda so_far: progress.advance(
                "copied", so_far.copied_bytes, so_far.total_bytes, "bytes"
            ),
        )
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(report), "dry_run": False}))
    else:
        print_lines([(line, "") for line in _summary(report)])
    if report.missing:
        named = "; ".join(f"{path}: {problem}" for path, problem in sorted(report.missing.items()))
        raise Failure(
            f"the store is restored, but these of its files are not whole: {named}. Objects that need them cannot be "
            f"read; `{own_command()} verify --data {shlex.quote(str(data))}` names them"
        )


def _tell_plan(report: RestoreReport, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(report), "dry_run": True}))
    else:
        what = f"would restore backup {report.number} of {report.url} to {report.directory}"
        print_lines(
            [
                (f"{what}: {binary_size(report.total_bytes)} in {report.files:,} files", ""),
                (
                    f"would copy {binary_size(report.copied_bytes)}; nothing was changed, and no byte verified",
                    "",
                ),
            ]
        )
    if report.missing:
        named = "; ".join(f"{path}: {problem}" for path, problem in sorted(report.missing.items()))
        raise Failure(
            f"not all of it can be restored: {named}. See `vaultaire backup {report.url} --check`, and --with-damage"
        )


def _summary(report: RestoreReport) -> list[str]:
    lines = [
        f"restored backup {report.number} of {report.url} to {report.directory}: {binary_size(report.total_bytes)}, "
        f"the metadata up to sequence {report.sequence}",
        f"serve it with: {own_command()} serve --data {shlex.quote(report.directory)}",
    ]
    if not report.has_secrets:
        lines.append(
            "the backup does not hold secret.key: put it there, or make a new root key with: "
            f"{own_command()} key create --root --new-secret-key --data {shlex.quote(report.directory)}"
        )
    return lines
