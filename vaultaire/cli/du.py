"""`vaultaire du`: how much is below a name, and what deleting it would free.

The figures are defined in `vaultaire.du`; here they are only shown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import Failure, binary_size, print_lines, print_table
from vaultaire.cli.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.cli.output import Line
    from vaultaire.du import Group, Report


@click.command("du")
@data_option
@click.argument("path", required=False, metavar="[BUCKET[/PREFIX]]")
@click.option(
    "--depth", type=click.IntRange(0, 100), default=0, metavar="N", help="Show N levels of folders below."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
@click.pass_context
def command(ctx: click.Context, data: Path, path: str | None, depth: int, as_json: bool) -> None:
    """Show how much is in buckets or below a prefix, and what deleting it frees.

    \b
    LOGICAL    what clients stored there, older versions included
    UNIQUE     of that, what is different: every byte once
    STORED     what the unique bytes take on disk
    EXCLUSIVE  of the unique bytes, those that nothing else in the store uses
    FREES      what deleting it all would give back on disk

    PREFIX is one of keys, as in S3: photos/2024 also finds photos/2024-01/a;
    end it with / for a folder. Looks at the whole store, however small the
    part: anything may share its bytes.
    """
    from index.errors import NoSuchBucket
    from vaultaire.du import measure_usage
    from vaultaire.store import Store

    bucket, _, prefix = (path or "").partition("/")
    if path is not None and not bucket:
        raise click.UsageError("write BUCKET or BUCKET/PREFIX, without a / before it")
    with Store.open(data, kind="command") as store, Progress() as progress:
        try:
            report = measure_usage(store, bucket or None, prefix.encode(), depth, progress.advance)
        except NoSuchBucket as error:
            raise Failure(f"{error}; see those there are with: vaultaire bucket list") from error
    if as_json:
        click.echo(json.dumps(as_dict(report), indent=2))
    else:
        _show(report)
    if not report.complete:
        ctx.exit(1)


def as_dict(report: Report) -> dict[str, Any]:
    return {
        "complete": report.complete,
        "missing_chunks": report.missing,
        "errors": report.errors,
        "usage": [
            {
                "name": group.name,
                "bucket": group.bucket,
                "prefix": group.prefix.decode(errors="replace"),
                "depth": group.depth,
                "objects": group.objects,
                "logical_bytes": group.logical_bytes,
                "unique_bytes": group.unique_bytes,
                "stored_bytes": group.stored_bytes,
                "exclusive_bytes": group.exclusive_bytes,
                "freed_bytes": group.freed_bytes,
            }
            for group in report.groups
        ],
    }


def _show(report: Report) -> None:
    if not report.groups:
        click.echo("no buckets")
        return
    print_table(
        ("OBJECTS", "LOGICAL", "UNIQUE", "STORED", "EXCLUSIVE", "FREES", "NAME"),
        [_row(group) for group in report.groups],
        right=(0, 1, 2, 3, 4, 5),
    )
    print_lines(remarks(report))


def _row(group: Group) -> tuple[str, ...]:
    sizes = (
        group.logical_bytes,
        group.unique_bytes,
        group.stored_bytes,
        group.exclusive_bytes,
        group.freed_bytes,
    )
    return f"{group.objects:,}", *map(binary_size, sizes), group.name


def remarks(report: Report) -> list[Line]:
    """The answer in a sentence, if one thing was asked for; and what is not known."""
    told: list[Line] = []
    asked = [group for group in report.groups if group.depth == 0]
    if len(asked) == 1:
        told.append((_sentence(asked[0]), ""))
    if not report.complete:
        told.append(
            (
                "not all that objects name could be read, so these figures are too low or too high: see vaultaire verify",
                "yellow",
            )
        )
    elif report.missing:
        told.append(
            (f"{report.missing:,} chunks that objects name are not there: see vaultaire verify", "yellow")
        )
    return told


def _sentence(group: Group) -> str:
    freed, stored = binary_size(group.freed_bytes), binary_size(group.stored_bytes)
    if not group.stored_bytes:
        return f"Deleting {group.name} would free nothing: nothing is stored there."
    if group.freed_bytes >= group.stored_bytes:
        return f"Deleting {group.name} would free all of its {stored} on disk: nothing else uses them."
    return f"Deleting {group.name} would free {freed} of its {stored} on disk: something else uses the rest."
