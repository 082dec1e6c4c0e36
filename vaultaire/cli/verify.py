"""`vaultaire verify`: is everything that was stored still there, and as it was stored?

Exit status: 0 nothing found; 1 something is damaged, or could not be checked; 2 called wrongly. With `--json` one document
goes to stdout. It may run beside a server, and changes nothing but the report that `vaultaire stats` shows.
"""

from __future__ import annotations

import json
import shlex
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from vaultaire.cli.completing import complete_bucket
from vaultaire.cli.options import data_option
from vaultaire.cli.output import binary_size, own_command, print_lines
from vaultaire.cli.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vaultaire.cli.output import Line
    from vaultaire.findings import Affected, Finding, Report
    from vaultaire.store import Store

_SHOWN_FINDINGS: Final = 50
_SHOWN_AFFECTED: Final = 5  # of one finding
_SHOWN_LOST: Final = 100
_METADATA: Final = frozenset({"view", "row-missing", "row-extra", "row-differs", "row-damaged"})
_TRUTH: Final = frozenset({"journal", "checkpoint"})


@click.command("verify")
@data_option
@click.option("--read-data", is_flag=True, help="Decode every chunk and recompute its id; takes more CPU.")
@click.option(
    "--bucket",
    metavar="NAME",
    shell_complete=complete_bucket,
    help="Only what the objects of this bucket need.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(ctx: click.Context, data: Path, read_data: bool, bucket: str | None, as_json: bool) -> None:
    """Check every pack, placement, manifest and metadata row, and name what is damaged.

    \b
    Exit status: 0 all is well, 1 damage was found, 2 wrong call.
    """
    from vaultaire.store import Store
    from vaultaire.verify import NoSuchBucket, verify

    with Store.open(data, kind="command") as store:
        try:
            with Progress() as progress:
                report = verify(store, read_data=read_data, bucket=bucket, on_progress=told_by(progress))
        except NoSuchBucket as error:
            raise click.UsageError(str(error)) from error
        _remember(store, report)
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        print_lines(summary(report, f"{own_command()} repair --data {shlex.quote(str(data))}"))
    ctx.exit(0 if report.clean and not report.skipped else 1)


def told_by(progress: Progress) -> Callable[[str, int, int], None]:
    """Of its stages, verification counts packs in bytes."""
    return lambda stage, done, total: progress.advance(
        stage, done, total, "bytes" if stage == "packs" else "items"
    )


def _remember(store: Store, report: Report) -> None:
    """For `stats`. Not into metadata that is damaged: a commit there might do more harm."""
    from index.kv import KvError
    from vaultaire.reports import put_report

    if any(finding.kind in _METADATA | _TRUTH for finding in report.findings):
        return
    shown = {
        "finished_ms": int(time.time() * 1000),
        "seconds": round(report.seconds, 3),
        "read_data": report.read_data,
        "bucket": report.bucket,
        "findings": len(report.findings) + report.more_findings,
        "affected": len(report.affected),
    }
    with suppress(KvError):
        store.kv.commit(lambda txn: put_report(txn, "verify", shown))


def summary(report: Report, repair: str) -> list[Line]:
    """What a person is told. `repair`: the command that comes next, if something is damaged."""
    lines: list[Line] = [(_checked(report), "")]
    lines += [(f"not checked: {reason}", "yellow") for reason in report.skipped]
    if report.clean:
        result = "no damage found" if not report.skipped else "no damage found in what was checked"
        return [*lines, (result, "bold green" if not report.skipped else "yellow")]
    count = len(report.findings) + report.more_findings
    lines += [("", ""), (f"{count:,} {'finding' if count == 1 else 'findings'}:", "bold")]
    for finding in report.findings[:_SHOWN_FINDINGS]:
        lines += _shown(finding)
    if count > _SHOWN_FINDINGS:
        lines.append((f"  and {count - _SHOWN_FINDINGS:,} more; see them with --json", "dim"))
    affected = report.affected
    return [*lines, ("", ""), *_losses(affected), ("", ""), *_next_steps(report, bool(affected), repair)]


def _checked(report: Report) -> str:
    read = f"{report.packs:,} packs ({binary_size(report.pack_bytes)}), {report.placements:,} placements, "
    if report.bucket is not None:
        read = f"bucket {report.bucket}, {binary_size(report.pack_bytes)} of data, "
    named = f", {report.end_to_end:,} objects against their names" if report.end_to_end else ""
    rows = f"{report.versions:,} versions and parts, {report.rows:,} rows of names{named}"
    return f"checked {read}{rows} in {report.seconds:.1f} s"


def _shown(finding: Finding) -> list[Line]:
    lines: list[Line] = [(f"  {finding.kind}: {finding.message}", "yellow")]
    if finding.affected:
        names = ", ".join(str(each) for each in finding.affected[:_SHOWN_AFFECTED])
        more = len(finding.affected) + finding.more_affected - _SHOWN_AFFECTED
        lines.append((f"    affects {names}{f' and {more:,} more' if more > 0 else ''}", ""))
    return lines


def _losses(affected: Sequence[Affected]) -> list[Line]:
    if not affected:
        return [("Every object can still be read.", "")]
    what = "version is" if len(affected) == 1 else "versions are"
    lines: list[Line] = [(f"{len(affected):,} {what} affected:", "bold")]
    lines += [(f"  {each}", "") for each in affected[:_SHOWN_LOST]]
    if len(affected) > _SHOWN_LOST:
        lines.append((f"  and {len(affected) - _SHOWN_LOST:,} more; see them with --json", "dim"))
    return lines


def _next_steps(report: Report, losses: bool, repair: str) -> list[Line]:
    kinds = {finding.kind for finding in report.findings}
    lines: list[Line] = [("Next:", "bold")]
    if kinds & _METADATA and not kinds & _TRUTH:
        lines.append(
            ("  stop the server, remove the folder meta and start it: it is rebuilt from the journal", "")
        )
    if kinds & _TRUTH:
        lines.append(
            (
                "  restore the named files of journal and checkpoint from a backup, while meta is still sound",
                "",
            )
        )
    if kinds - _METADATA - _TRUTH:
        lines.append((f"  {repair}", ""))
    if losses:
        lines.append(
            ("  or upload the affected objects again: a chunk that comes again heals its copies", "dim")
        )
    return lines
