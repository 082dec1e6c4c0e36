"""`vaultaire export`: objects of this store to any S3 server, or to a folder.

It opens the store like any process, changes nothing in it, and may run beside the server. See `vaultaire.moving`.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import click

from vaultaire.cli.moving import (
    finish,
    following,
    open_remote,
    parse_local,
    parse_server,
    run,
    server_options,
    shown,
)
from vaultaire.cli.options import data_option

if TYPE_CHECKING:
    from pathlib import Path

    from index.values import Versioning
    from vaultaire.moving.bench import Bench
    from vaultaire.moving.exporting import Options
    from vaultaire.moving.report import Report
    from vaultaire.moving.s3_place import S3Place
    from vaultaire.moving.transport import Requests
    from vaultaire.store import Store


@click.command("export")
@click.argument("target", metavar="s3://BUCKET[/PREFIX]|FOLDER")
@data_option
@click.option(
    "--from",
    "origin",
    metavar="BUCKET[/PREFIX]",
    help="What of this store; the target's prefix takes the place of its prefix. "
    "Without it: the target's bucket, the same keys.",
)
@click.option("--all-buckets", is_flag=True, help="All buckets of this store; the target is then s3://")
@click.option(
    "--versions", is_flag=True, help="All versions and delete markers, in order, not only what shows."
)
@click.option(
    "--overwrite",
    type=click.Choice(["older", "never", "always"]),
    default="older",
    show_default=True,
    help="What may be replaced that is there and different: what is older than ours, nothing, all.",
)
@click.option("--storage-classes", is_flag=True, help="Ask the target for each object's storage class.")
@server_options
def command(
    target: str,
    data: Path,
    origin: str | None,
    all_buckets: bool,
    versions: bool,
    overwrite: str,
    storage_classes: bool,
    endpoint_url: str | None,
    profile: str | None,
    parallel: int,
    bandwidth: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy objects of the store to another S3 server, or to files in a folder. The server may run meanwhile.

    Every byte is verified as it is read, and by the target's answer. If it is interrupted, run it again: it goes on, and
    sends nothing again that is done. Credentials are those of the aws command line.

    \b
    Exit status 0: all is there. 1: something could not be moved, and is
    named. 2: called wrongly.
    """
    from vaultaire.moving.exporting import Options
    from vaultaire.moving.plans import Overwrite
    from vaultaire.store import Store

    options = Options(parallel, Overwrite(overwrite), versions, dry_run)
    if not target.startswith("s3://"):
        if all_buckets or versions or storage_classes or endpoint_url or profile:
            raise click.UsageError("a folder has no buckets, versions, storage classes, address or profile")
        if origin is None:
            raise click.UsageError("name what to export with --from BUCKET[/PREFIX]")
        with Store.open(data, kind="command") as store:
            report = _to_folder(store, parse_local(origin), target, options, bandwidth)
            finish(report, "exported", as_json)
        return
    bucket, prefix = parse_server(target, origin, "--from", all_buckets=all_buckets)
    source = (bucket, prefix) if origin is None else parse_local(origin)
    with (
        Store.open(data, kind="command") as store,
        closing(open_remote(bucket, prefix, endpoint_url, profile, parallel)) as place,
    ):
        report = _to_remote(store, source, place, options, bandwidth, keep_class=storage_classes)
        finish(report, "exported", as_json)


def _to_remote(
    store: Store,
    source: tuple[str, bytes],
    place: S3Place,
    options: Options,
    bandwidth: int | None,
    *,
    keep_class: bool,
) -> Report:
    from vaultaire.moving.bench import with_bench
    from vaultaire.moving.exporting import Export, Origin
    from vaultaire.moving.report import Report
    from vaultaire.moving.s3_target import S3Target

    report = Report(shown(*source) if source[0] else "all buckets", place.url, dry_run=options.dry_run)

    async def work(bench: Bench) -> None:
        requests = _requests(options, report, bandwidth)
        with following(report) as follower:
            for name in [source[0]] if source[0] else _bucket_names(store):
                to = place if place.bucket else place.in_bucket(name)
                missing, object_lock = await _prepare(store, name, to, options, requests)
                remote = S3Target(
                    to,
                    bench,
                    requests,
                    report,
                    keep_class=keep_class,
                    object_lock=object_lock,
                    missing=missing,
                )
                origin = Origin(name, source[1], to.prefix)
                moving = Export(
                    bench, origin, remote, options, report, pace=follower.pace, on_progress=follower.show
                )
                await moving.run()

    run(lambda: with_bench(store, options.parallel, work), report)
    return report


def _requests(options: Options, report: Report, bandwidth: int | None) -> Requests:
    from vaultaire.moving.transport import Pacer, Requests

    return Requests(options.parallel, report, Pacer(bandwidth))


def _bucket_names(store: Store) -> list[str]:
    from index.buckets import list_buckets

    with store.kv.snapshot() as reader:
        return [bucket.name for bucket in list_buckets(reader).buckets]


async def _prepare(
    store: Store, name: str, place: S3Place, options: Options, requests: Requests
) -> tuple[bool, bool]:
    """See to it that the target's bucket is there and keeps versions if they go there: (missing, keeps locks)."""
    from index.buckets import get_bucket
    from vaultaire.moving.places import PlaceError
    from vaultaire.moving.transport import FIRST_ATTEMPTS

    with store.kv.snapshot() as reader:
        bucket = get_bucket(reader, name)
    if bucket is None:
        raise PlaceError(f"this store has no bucket {name}; name one with --from BUCKET[/PREFIX]")
    keeps_versions = options.versions and bucket.versioning != "Off"
    if not await requests.run(place.exists, attempts=FIRST_ATTEMPTS):
        if options.dry_run:
            return True, False
        object_lock = options.versions and bucket.object_lock
        versioning: Versioning = "Enabled" if keeps_versions else "Off"
        await requests.run(partial(place.create_bucket, versioning=versioning, object_lock=object_lock))
        return False, object_lock
    if keeps_versions and await requests.run(place.versioning) != "Enabled":
        raise PlaceError(
            f"s3://{place.bucket} keeps no versions; enable versioning on it first, or leave --versions out"
        )
    return False, await requests.run(place.keeps_locks)


def _to_folder(
    store: Store, source: tuple[str, bytes], folder: str, options: Options, bandwidth: int | None
) -> Report:
    from vaultaire.moving.bench import with_bench
    from vaultaire.moving.exporting import Export, Origin
    from vaultaire.moving.folder_place import FolderTarget
    from vaultaire.moving.report import Report

    report = Report(shown(*source), folder, dry_run=options.dry_run)

    async def work(bench: Bench) -> None:
        target = FolderTarget(folder, bench, _requests(options, report, bandwidth))
        with following(report) as follower:
            moving = Export(
                bench,
                Origin(*source),
                target,
                options,
                report,
                pace=follower.pace,
                on_progress=follower.show,
            )
            await moving.run()

    run(lambda: with_bench(store, options.parallel, work), report)
    return report
