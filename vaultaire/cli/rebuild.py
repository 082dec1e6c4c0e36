"""`vaultaire rebuild`: put a damaged data directory in order; say exactly what is lost."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import Failure, print_lines

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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    data: Path, identity_from_packs: bool, accept_loss: bool, forget_names: bool, as_json: bool
) -> None:
    """Rebuild the metadata from checkpoint and journal, mend packs' footers, and name what is lost.

    The server must be stopped. A start does the first by itself when it has to; this is for when it says it cannot.
    """
    from vaultaire.rebuild import rebuild_store

    report = rebuild_store(
        data, identity_from=identity_from_packs, accept_loss=accept_loss, forget_names=forget_names
    )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
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
