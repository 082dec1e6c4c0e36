"""`vaultaire stats`: what clients stored, what the disk holds, what deduplication and compression saved.

The figures are defined in `vaultaire.stats`; here they are only shown.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import Failure, binary_size, print_lines, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.cli.output import Line
    from vaultaire.stats import BucketStatistics, StoreStatistics


@click.command("stats")
@data_option
@click.option("--walk", is_flag=True, help="Count the buckets' bytes now, however long it takes.")
@click.option("--history", is_flag=True, help="Show day by day what the store, or a bucket, held.")
@click.option("--bucket", metavar="NAME", help="With --history: of this bucket alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def command(data: Path, walk: bool, history: bool, bucket: str | None, as_json: bool) -> None:
    """Show what is stored and what is saved, in all and per bucket.

    \b
    Of a large store, unique, stored and exclusive bytes per bucket are those
    that collection counted last; their age is shown.
    """
    if bucket is not None and not history:
        raise click.UsageError("--bucket belongs to --history")
    if history:
        show_history(data, bucket, as_json)
        return
    from vaultaire.reports import get_report
    from vaultaire.stats import collect
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        figures = collect(store, walk=walk)
        with store.kv.snapshot() as reader:
            care = {subject: get_report(reader, subject) for subject in ("scrub", "verify")}
    if as_json:
        click.echo(json.dumps({**as_dict(figures), **care}, indent=2))
        return
    print_lines([*summary(figures), *care_lines(care["scrub"], care["verify"], time.time())])
    if figures.buckets:
        print_lines([("", "")])
        print_table(
            ("BUCKET", "TENANT", "OBJECTS", "LOGICAL", "UNIQUE", "DEDUP", "STORED", "EXCLUSIVE"),
            [bucket_row(bucket) for bucket in figures.buckets],
            right=(2, 3, 4, 5, 6, 7),
        )
        print_lines(remarks(figures, time.time()))


def show_history(data: Path, bucket: str | None, as_json: bool) -> None:
    from index.buckets import get_bucket
    from vaultaire import history
    from vaultaire.bucket_writes import WHOLE_STORE
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store, store.kv.snapshot() as reader:
        bucket_id = WHOLE_STORE
        if bucket is not None:
            found = get_bucket(reader, bucket)
            if found is None:
                raise Failure(f"there is no bucket {bucket!r}; vaultaire stats shows all")
            bucket_id = found.id
        days = [history.as_json(day) for day in history.read_history(reader, bucket_id)]
    if as_json:
        click.echo(json.dumps({"bucket": bucket, "days": days}, indent=2))
    elif days:
        print_table(
            ("DAY", "OBJECTS", "LOGICAL", "UNIQUE", "STORED", "EXCLUSIVE", "ADDED"),
            [day_row(day, whole=bucket is None) for day in days],
            right=(1, 2, 3, 4, 5, 6),
        )
    else:
        print_lines([("no history yet: a running server writes it, every day", "dim")])


def day_row(day: dict[str, Any], *, whole: bool) -> tuple[str, ...]:
    """`whole`: of the store, of which nothing is exclusive."""
    sizes = ("logical_bytes", "unique_bytes", "stored_bytes", "exclusive_bytes", "added_bytes")
    shown = ["-" if day[size] is None else binary_size(day[size]) for size in sizes]
    if whole:
        shown[3] = "-"
    return day["day"], f"{day['objects']:,}", *shown


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
        (f"overhead   {binary_size(figures.overhead_bytes)}, journal, checkpoints, parity, reserve", "dim"),
    ]


def care_lines(scrub: dict[str, Any] | None, verify: dict[str, Any] | None, now: float) -> list[Line]:
    """What scrubbing and the last verification say, with their age. `now`: seconds since 1970."""
    lines: list[Line] = []
    if scrub is not None:
        last, damage = scrub["last"], len(scrub["damage"])
        shown = "no full pass yet" if last is None else f"last full pass {_age(last['finished_ms'], now)}"
        if scrub["running"]:
            shown += f", now at {binary_size(scrub['done_bytes'])} of {binary_size(scrub['total_bytes'])}"
        found = f"{damage:,} damaged places: run vaultaire verify" if damage else "no damage"
        lines.append((f"scrub      {shown}, {found}", "yellow" if damage else "dim"))
    if verify is not None:
        findings = verify["findings"]
        found = f"{findings:,} findings" if findings else "no damage"
        lines.append(
            (f"verify     {_age(verify['finished_ms'], now)}, {found}", "yellow" if findings else "dim")
        )
    return lines


def _age(then_ms: int, now: float) -> str:
    seconds = max(0, int(now - then_ms / 1000))
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} seconds ago"


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
