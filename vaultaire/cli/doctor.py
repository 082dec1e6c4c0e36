"""`vaultaire doctor`: whether machine and directory are fit to keep a store, beside a running server or without one."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vaultaire.cli.options import chosen_file, data_option
from vaultaire.cli.output import Style, print_lines

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.doctor import Finding, Level

_SIGNS: dict[Level, tuple[str, Style]] = {
    "fine": ("ok     ", ""),
    "warning": ("warning", "yellow"),
    "problem": ("PROBLEM", "bold"),
}


@click.command("doctor")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, data: Path, as_json: bool) -> None:
    """Check settings, disk, flushes, clock, limits, permissions, certificate and a sample of the data.

    \b
    Exit status: 0 no problem (warnings are none), 1 a problem.
    """
    from vaultaire.cli.config import find_problems
    from vaultaire.cli.endpoint import read_endpoint
    from vaultaire.config_file import find_file
    from vaultaire.doctor import examine, judge_configuration
    from vaultaire.store import Store

    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            sign, style = _SIGNS[finding.level]
            print_lines([(f"{sign}  {finding.name:<12}  {finding.text}", style)])

    path = find_file(chosen_file(ctx), os.environ)
    tell(judge_configuration(path, find_problems(path)))
    with Store.open(data, kind="command") as store:
        with store.kv.snapshot() as reader:
            endpoint = read_endpoint(reader)
        for finding in examine(store, endpoint):
            tell(finding)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    ctx.exit(1 if any(finding.level == "problem" for finding in found) else 0)
