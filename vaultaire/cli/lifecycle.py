"""`vaultaire lifecycle run`: carry out the lifecycle rules of all buckets now.

A server does so by itself, some hours apart; this is for who has just made room necessary, or wants to see a new rule
work. It may run beside the server.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import print_lines

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.lifecycle import Report


@click.group("lifecycle")
def command() -> None:
    """Carry out lifecycle rules."""


@command.command("run")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run(data: Path, as_json: bool) -> None:
    """Expire now what the buckets' rules say, and print how much that was."""
    from vaultaire.lifecycle import Lifecycle
    from vaultaire.store import Store
    from vaultaire.version_expiry import IndexVersions

    with Store.open(data, kind="command") as store:
        report = Lifecycle(store.kv, store.writer, IndexVersions()).run_pass()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
        return
    print_lines([(summary(report), "")])


def summary(report: Report) -> str:
    return (
        f"expired {report.objects:,} objects, removed {report.versions:,} noncurrent versions and "
        f"{report.delete_markers:,} delete markers, aborted {report.uploads:,} uploads"
    )
