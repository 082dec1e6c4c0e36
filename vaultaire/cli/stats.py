"""`vaultaire stats`: what clients stored, what the disk holds, what deduplication and compression saved.

The figures are defined in `vaultaire.stats`; here they are only shown.
"""

from __future__ import annotations

import json
import time
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
@click.option("--walk", is_flag=True, help="Count the buckets' bytes now, however long it takes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def command(data: Path, walk: bool, as_json: bool) -> None:
    """Show what is stored and what is saved, in all and per bucket.

    \b
    Of a large store, unique, stored and exclusive bytes per bucket are those
    that collection counted last; their age is shown.
    """
    from vaultaire.stats import collect
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        figures = collect(store, walk=walk)
    if as_json:
        click.echo(json.dumps(as_dict(figures), indent=2))
        return
    print_lines(summary(figures))
    if figures.buckets:
        print_lines([("", "")])
        print_table(
            ("BUCKET", "TENANT", "OBJECTS", "LOGICAL", "UNIQUE", "DEDUP", "STORED", "EXCLUSIVE"),
            [bucket_row(bucket) for bucket in figures.buckets],
            right=(2, 3, 4, 5, 6, 7),
        )
        print_lines(remarks(figures, time.time()))


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
        "buckets_counted_ms": figures.walked_ms,
        "buckets_complete": figures.complete,
        "collection": figures.collection,
        "buckets": {
            bucket.name: {
                "tenant": bucket.owner,
                "objects": bucket.objects,
                "logical_bytes": bucket.logical_bytes,
                "unique_bytes": bucket.unique_bytes,
                "stored_bytes": bucket.stored_bytes,
                "exclusive_bytes": bucket.exclusive_bytes,
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
        (f"overhead   {binary_size(figures.overhead_bytes)}, journal and checkpoints", "dim"),
    ]


def bucket_row(bucket: BucketStatistics) -> tuple[str, ...]:
    ratio = f"x{bucket.logical_bytes / bucket.unique_bytes:.2f}" if bucket.unique_bytes else "-"
    unique, stored, exclusive = (
        "-" if size is None else binary_size(size)
        for size in (bucket.unique_bytes, bucket.stored_bytes, bucket.exclusive_bytes)
    )
    logical = binary_size(bucket.logical_bytes)
    return bucket.name, bucket.owner, f"{bucket.objects:,}", logical, unique, ratio, stored, exclusive


def remarks(figures: StoreStatistics, now: float) -> list[Line]:
    """`now`: seconds since 1970."""
    told: list[Line] = []
    if figures.walked_ms is not None:
        minutes = max(0, round((now - figures.walked_ms / 1000) / 60))
        told.append(
            (f"unique, stored, exclusive: as counted {minutes:,} minutes ago; --walk counts now", "dim")
        )
    if not figures.complete:
        told.append(("not all that objects name could be read: see vaultaire verify", "yellow"))
    return told
