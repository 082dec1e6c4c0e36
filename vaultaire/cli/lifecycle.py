"""`vaultaire lifecycle run`: carry out the lifecycle rules of all buckets now.

A server does so by itself, some hours apart; this is for who has just made room necessary, or wants to see a new rule
work. It may run beside the server.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import TYPE_CHECKING

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import print_lines
from vaultaire.cli.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.lifecycle import Report


@click.group("lifecycle")
def command() -> None:
    """Carry out lifecycle rules."""


@command.command("run")
@data_option
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run(data: Path, dry_run: bool, as_json: bool) -> None:
    """Expire now what the buckets' rules say, and print how much that was."""
    from vaultaire.audit_log import note_expired
    from vaultaire.lifecycle import Lifecycle
    from vaultaire.store import Store
    from vaultaire.version_expiry import IndexVersions

    with Store.open(data, kind="command") as store, Progress() as progress:
        lifecycle = Lifecycle(
            store.kv,
            store.writer,
            IndexVersions(),
            dry_run=dry_run,
            on_expired=partial(note_expired, store.kv),
        )
        report = lifecycle.run_pass(lambda so_far: progress.advance("expired", so_far.total))
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(report), "dry_run": dry_run}))
        return
    print_lines([(summary(report, dry_run=dry_run), "")])


def summary(report: Report, *, dry_run: bool = False) -> str:
    expired, removed, aborted = (
        ("would expire", "remove", "abort") if dry_run else ("expired", "removed", "aborted")
    )
    return (
        f"{expired} {report.objects:,} objects, {removed} {report.versions:,} noncurrent versions and "
        f"{report.delete_markers:,} delete markers, {aborted} {report.uploads:,} uploads"
    )
