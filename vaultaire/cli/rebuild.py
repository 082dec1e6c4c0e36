"""`vaultaire rebuild`: put a damaged data directory in order; say exactly what is lost."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import Failure, print_lines
from vaultaire.cli.progress import Progress
from vaultaire.cli.verify import told_by

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.rebuild import RebuildReport


@click.command("rebuild")
@data_option
@click.option(
    "--identity-from-packs", is_flag=True, help="Make a lost store.json from the headers of the packs."
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="If the newest changes are lost, go on without them. The error without it says which.",
)
@click.option(
    "--forget-names",
    is_flag=True,
    help="If the names cannot be rebuilt, give them up and keep the chunks: uploading again costs no space.",
)
@click.option(
    "--dry-run", is_flag=True, help="Change nothing; read the metadata, and say what would come of it."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    data: Path,
    identity_from_packs: bool,
    accept_loss: bool,
    forget_names: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Rebuild the metadata from checkpoint and journal, mend packs' footers, and name what is lost.

    The server must be stopped. A start does the first by itself when it has to; this is for when it says it cannot.
    """
    from vaultaire.rebuild import plan_rebuild, rebuild_store

    if dry_run:
        report = plan_rebuild(
            data, identity_from=identity_from_packs, accept_loss=accept_loss, forget_names=forget_names
        )
    else:
        with Progress() as progress:
            report = rebuild_store(
                data,
                identity_from=identity_from_packs,
                accept_loss=accept_loss,
                forget_names=forget_names,
                on_progress=told_by(progress),
            )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
    elif dry_run:
        print_lines([(line, "") for line in _forecast(report)])
    else:
        print_lines([(line, "") for line in _summary(report)])
    for warning in report.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if report.damaged:
        named = "; ".join(f"{path}: {problem}" for path, problem in sorted(report.damaged.items()))
        raise Failure(
            f"these packs are not whole: {named}. {len(report.unreadable):,} objects cannot be read because of that (they "
            "are listed above). Put the packs back from a backup: `vaultaire restore` makes them in another directory"
        )


def _forecast(report: RebuildReport) -> list[str]:
    metadata = {
        "rebuilt": f"would rebuild the metadata up to sequence {report.sequence}, the last change there is",
        "kept": f"would keep LMDB, which is whole, up to sequence {report.sequence}",
        "cut": f"would go back to the newest state that is whole, of sequence {report.sequence}",
        "empty": "would forget the names, and keep the chunks of the packs",
    }
    lines = [metadata[report.metadata]]
    if report.lost_changes:
        lines.append(f"changes {report.lost_changes[0]} to {report.lost_changes[1]} would be lost")
    lines.append(f"{report.packs:,} packs are there; they were not looked into")
    return [*lines, "nothing was changed; the same command without --dry-run does it"]


def _summary(report: RebuildReport) -> list[str]:
    metadata = {
        "rebuilt": f"rebuilt the metadata up to sequence {report.sequence}: {_source(report)}",
        "kept": f"kept LMDB, which was whole, up to sequence {report.sequence}, and wrote a checkpoint of it",
        "cut": f"went back to the newest state that is whole, of sequence {report.sequence}, and wrote a checkpoint",
        "empty": f"the store is empty now, and knows {report.added_chunks:,} chunks of {report.added_packs:,} packs",
    }
    lines = [metadata[report.metadata]]
    if report.cut_bytes:
        lines.append(f"cut {report.cut_bytes:,} bytes that nobody was told about off the journal's end")
    lines += [f"damaged, and not needed: {problem}" for problem in report.damaged_checkpoints]
    lines += [f"{path}: {text}" for path, text in sorted(report.mended.items())]
    lines += [f"cannot be read: {name}" for name in report.unreadable]
    lines.append(f"{report.packs:,} packs, {len(report.damaged):,} of them not whole")
    return lines


def _source(report: RebuildReport) -> str:
    if report.checkpoint_sequence is None:
        return f"{report.replayed:,} changes of the journal"
    return f"checkpoint {report.checkpoint_sequence} and {report.replayed:,} changes of the journal"
