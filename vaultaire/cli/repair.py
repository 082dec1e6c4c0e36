"""`vaultaire repair`: mend damaged packs from their parity, make what is missing, and list what cannot be mended.

It may run beside the server, which mends by itself what its readers and its scrub meet; this looks at everything, now.
Exit status: 0 everything is whole, 1 something is lost or could not be mended.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import print_lines
from vaultaire.cli.progress import Progress
from vaultaire.cli.verify import told_by

if TYPE_CHECKING:
    from pathlib import Path

    from cas.mending import Mended
    from vaultaire.cli.output import Line
    from vaultaire.repair import Repair

_SHOWN: int = 1000  # objects and findings listed for people; --json has them all


@click.command("repair")
@data_option
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, data: Path, dry_run: bool, as_json: bool) -> None:
    """Mend what is damaged, and list what cannot be mended.

    Reads everything that is stored. The server may be running.
    """
    from vaultaire.repair import repair
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store, Progress() as progress:
        result = repair(store, dry_run=dry_run, on_progress=told_by(progress))
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        print_lines(summary(result))
    ctx.exit(0 if result.whole else 1)


def summary(result: Repair) -> list[Line]:
    would = "would be " if result.dry_run else ""
    lines: list[Line] = []
    for each in result.mended:
        lines += [(f"pack {each.pack:016x}: {what}", "") for what in _done(each, would)]
    lines += [(f"pack {pack:016x}: not mended: {reason}", "yellow") for pack, reason in result.failed]
    if not result.whole or result.left.findings:
        lines += [(f"found: {finding.message}", "") for finding in result.left.findings[:_SHOWN]]
    affected = result.left.affected
    lines += [(f"cannot be read: {each}", "yellow") for each in affected[:_SHOWN]]
    if len(affected) > _SHOWN:
        lines.append((f"... and {len(affected) - _SHOWN:,} more; see them all with --json", "yellow"))
    if result.whole and result.left.findings:
        lines.append(("whole: what is damaged belongs to no object; collection removes it", "bold"))
    elif result.whole:
        lines.append(("whole: nothing is lost", "bold"))
    elif result.dry_run:
        lines.append(("not whole now; run again without --dry-run to mend what can be", "bold"))
    else:
        lines.append(
            (
                f"not whole: {len(affected):,} objects cannot be read. Upload them again, or restore them",
                "bold",
            )
        )
    return lines


def _done(each: Mended, would: str) -> list[str]:
    done = []
    if each.mended_blocks:
        done.append(f"{each.mended_blocks:,} damaged blocks {would}mended")
    if each.footer_written:
        done.append(f"its footer {would}written anew")
    if each.sidecar in ("made", "replaced", "removed"):
        done.append(f"its parity {would}{each.sidecar}")
    if each.unwritten_blocks:
        done.append(f"{each.unwritten_blocks:,} damaged blocks are made good when they are read")
    if each.lost:
        done.append(f"{sum(stop - start for start, stop in each.lost):,} bytes are beyond repair")
    return done
