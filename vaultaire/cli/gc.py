"""`vaultaire gc`: give back now the space of what was deleted.

A server does so by itself, in small steps; this is for who needs the room at once. It may run beside the server: the
maintenance process stands back meanwhile, and requests that began before are waited for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import binary_size, print_lines
from vaultaire.cli.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.cli.output import Line
    from vaultaire.collection import Preview
    from vaultaire.collection_report import Progress as Collected


@click.command("gc")
@data_option
@click.option("--dry-run", is_flag=True, help="Only tell what would come back.")
@click.option(
    "--recompress", is_flag=True, help="Also store anew, harder compressed, what is kept: for archives."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def command(data: Path, dry_run: bool, recompress: bool, as_json: bool) -> None:
    """Give back the space of what was deleted, and print how much that was.

    With --recompress everything else that compresses is read and stored
    anew as well, in larger frames, and small objects leave the database:
    4 to 15 % less on the disk, for small files up to half. A small range
    of an object takes longer to read then.

    \b
    Exit status 1: something that objects name cannot be read, or there
    is no room for copies, so that not all could be done.
    """
    from vaultaire.archiving import Archive
    from vaultaire.collection import Collector
    from vaultaire.effort import collection_effort
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        archive = Archive(store) if recompress else None
        collector = Collector(store, bytes_per_second=0, effort=collection_effort, archive=archive)
        store.before_close.append(collector.close)
        if dry_run:
            preview = collector.preview()
            progress = preview.progress
            click.echo(json.dumps(preview_dict(preview))) if as_json else print_lines(preview_lines(preview))
        else:
            with Progress() as shown:
                progress = collector.run(lambda _, so_far: shown.show(_narrated(so_far)))
            click.echo(json.dumps(progress.as_dict())) if as_json else print_lines(lines(progress))
    if not progress.complete or progress.kept_packs or progress.lacks_room:
        click.get_current_context().exit(1)


def _narrated(progress: Collected) -> str:
    moved = f"{progress.moved_objects:,} objects moved, " if progress.moved_objects else ""
    return f"{progress.step} ({moved}{binary_size(max(0, progress.freed_bytes))} freed so far)"


def lines(progress: Collected) -> list[Line]:
    told: list[Line] = []
    if progress.moved_objects:
        moved = f"{progress.moved_objects:,} small objects ({binary_size(progress.moved_bytes)})"
        taken = binary_size(progress.moved_stored_bytes)
        told += [
            (f"moved {moved} from the database to packs, where they take {taken}", ""),
            ("the database keeps its size until vaultaire rebuild, with the server stopped", "dim"),
        ]
    freed = progress.removed_bytes - progress.copied_bytes
    told.append(
        (
            f"freed {binary_size(max(0, freed))}: removed {progress.removed_packs:,} packs of "
            f"{binary_size(progress.removed_bytes)}, copied {binary_size(progress.copied_bytes)} of them",
            "",
        )
    )
    if freed < 0:
        more = binary_size(-freed)
        told.append((f"{more} more than before: this data gains nothing by larger frames", "yellow"))
    return told + _troubles(progress)


def preview_lines(preview: Preview) -> list[Line]:
    plan = preview.plan
    told: list[Line] = [
        (
            f"would free about {binary_size(plan.free_bytes)}: {len(plan.packs):,} packs would be removed, "
            f"{binary_size(plan.copy_bytes)} of them copied",
            "",
        )
    ]
    if preview.small_objects.objects:
        objects, size = preview.small_objects.objects, binary_size(preview.small_objects.raw_bytes)
        told.append((f"would move {objects:,} small objects ({size}) from the database to packs", ""))
    if preview.condemned:
        told.append((f"{len(preview.condemned):,} packs more are being emptied already", ""))
    return told + _troubles(preview.progress)


def preview_dict(preview: Preview) -> dict[str, object]:
    plan, progress = preview.plan, preview.progress
    return {
        "packs": len(plan.packs),
        "free_bytes": plan.free_bytes,
        "copy_bytes": plan.copy_bytes,
        "condemned_packs": len(preview.condemned),
        "moved_objects": preview.small_objects.objects,
        "moved_bytes": preview.small_objects.raw_bytes,
        "lacks_room": progress.lacks_room,
        "complete": progress.complete,
        "errors": progress.errors,
    }


def _troubles(progress: Collected) -> list[Line]:
    told: list[Line] = []
    if progress.kept_packs:
        told.append(
            (
                f"{progress.kept_packs:,} packs are kept: chunks that are needed cannot be read in them",
                "yellow",
            )
        )
    if not progress.complete:
        told.append(
            (
                "not all that objects name can be read, so nothing was dropped that they may need; see vaultaire verify",
                "yellow",
            )
        )
    if progress.lacks_room:
        told.append(
            (
                "not all was done, for copies need room: delete something, or give the store a larger disk",
                "yellow",
            )
        )
    if progress.kept_packs or not progress.complete:
        told += [(f"  {error}", "dim") for error in progress.errors[:10]]
    return told
