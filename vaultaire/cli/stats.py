"""`vaultaire stats`: what clients stored, what the disk holds, what deduplication and compression saved.

The figures are defined in `vaultaire.stats`; here they are only shown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import binary_size, print_lines, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.cli.output import Line
    from vaultaire.stats import BucketStatistics, StoreStatistics


@click.command("stats")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def command(data: Path, as_json: bool) -> None:
    """Show what is stored and what is saved, in all and per bucket."""
    from vaultaire.stats import collect
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        figures = collect(store)
    if as_json:
        click.echo(json.dumps(as_dict(figures), indent=2))
        return
    print_lines(summary(figures))
    if figures.buckets:
        print_lines([("", "")])
        print_table(
            ("BUCKET", "TENANT", "OBJECTS", "LOGICAL", "UNIQUE", "DEDUP"),
            [bucket_row(bucket) for bucket in figures.buckets],
            right=(2, 3, 4, 5),
        )


def as_dict(figures: StoreStatistics) -> dict[str, object]:
    return {
        "objects": figures.objects,
        "logical_bytes": figures.logical_bytes,
        "unique_bytes": figures.unique_bytes,
        "stored_bytes": figures.stored_bytes,
        "overhead_bytes": figures.overhead_bytes,
        "dedup_ratio": figures.dedup_ratio,
        "compression_ratio": figures.compression_ratio,
        "chunks": figures.chunks,
        "packs": figures.packs,
        "buckets": {
            bucket.name: {
                "tenant": bucket.owner,
                "objects": bucket.objects,
                "logical_bytes": bucket.logical_bytes,
                "unique_bytes": bucket.unique_bytes,
            }
            for bucket in figures.buckets
        },
    }


def summary(figures: StoreStatistics) -> list[Line]:
    return [
        (f"objects    {figures.objects:,}", ""),
        (f"logical    {binary_size(figures.logical_bytes)}, what clients stored", ""),
        (f"unique     {binary_size(figures.unique_bytes)}, dedup x{figures.dedup_ratio:.2f}", ""),
        (
            f"stored     {binary_size(figures.stored_bytes)}, compression x{figures.compression_ratio:.2f}",
            "bold",
        ),
        (f"overhead   {binary_size(figures.overhead_bytes)}, journal, checkpoints, reserve", "dim"),
    ]


def bucket_row(bucket: BucketStatistics) -> tuple[str, ...]:
    ratio = f"x{bucket.logical_bytes / bucket.unique_bytes:.2f}" if bucket.unique_bytes else "-"
    sizes = binary_size(bucket.logical_bytes), binary_size(bucket.unique_bytes)
    return bucket.name, bucket.owner, f"{bucket.objects:,}", *sizes, ratio
