"""`vaultaire import`: objects from any S3 server, or from a folder, into this store.

It opens the store like any process and may run beside the server. What it guarantees: `vaultaire.moving`.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
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
    from vaultaire.moving.report import Report
    from vaultaire.moving.s3_place import S3Place
    from vaultaire.moving.taking import Options
    from vaultaire.store import Store


@click.command("import")
@click.argument("source", metavar="s3://BUCKET[/PREFIX]|FOLDER")
@data_option
@click.option(
    "--into",
    metavar="BUCKET[/PREFIX]",
    help="Where to; its prefix takes the place of the source's. Without it: the same bucket, the same keys.",
)
@click.option("--all-buckets", is_flag=True, help="All buckets of the server; the source is then s3://")
@click.option(
    "--versions", is_flag=True, help="All versions and delete markers, in order, not only what shows."
)
@click.option("--bucket-config", is_flag=True, help="Lifecycle, policy, CORS, tags, lock of the bucket, too.")
@click.option(
    "--overwrite",
    type=click.Choice(["older", "never", "always"]),
    default="older",
    show_default=True,
    help="What may be replaced that is there and different: what is older than the source's, nothing, all.",
)
@click.option(
    "--read-twice", is_flag=True, help="Read again what the source offers no digest for, and compare."
)
@click.option("--etag-is-no-md5", is_flag=True, help="The server's ETags are no MD5s: do not compare them.")
@click.option("--anonymous", is_flag=True, help="A public bucket, without credentials.")
@click.option("--tenant", default="root", show_default=True, help="Whom a bucket belongs to that is made.")
@server_options
def command(
    source: str,
    data: Path,
    into: str | None,
    all_buckets: bool,
    versions: bool,
    bucket_config: bool,
    overwrite: str,
    read_twice: bool,
    etag_is_no_md5: bool,
    anonymous: bool,
    tenant: str,
    endpoint_url: str | None,
    profile: str | None,
    parallel: int,
    bandwidth: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy objects from another S3 server, or files of a folder, into the store. The server may run meanwhile.

    Every body is verified; times, ETags, metadata and tags stay. If it is interrupted, run it again: it goes on, and
    reads nothing again that is done. Credentials are those of the aws command line.

    \b
    Exit status 0: all is there. 1: something could not be moved, and is
    named. 2: called wrongly.
    """
    from vaultaire.moving.plans import Overwrite
    from vaultaire.moving.taking import Options
    from vaultaire.store import Store

    _check_tenant(tenant)
    options = Options(
        parallel, Overwrite(overwrite), versions, dry_run, read_twice, bytes_per_second=bandwidth
    )
    if not source.startswith("s3://"):
        if all_buckets or versions or bucket_config or endpoint_url or profile:
            raise click.UsageError("a folder has no buckets, versions, configuration, address or profile")
        if into is None:
            raise click.UsageError("name the bucket with --into BUCKET[/PREFIX]")
        with Store.open(data, kind="command") as store:
            finish(_import_folder(store, source, parse_local(into), options, tenant), "imported", as_json)
        return
    bucket, prefix = parse_server(source, into, "--into", all_buckets=all_buckets)
    if bucket_config and (prefix or (into is not None and "/" in into)):
        raise click.UsageError("--bucket-config goes with a whole bucket, not with a prefix")
    target = None if into is None else parse_local(into)
    remote = partial(open_remote, anonymous=anonymous, etag_is_md5=not etag_is_no_md5)
    with (
        Store.open(data, kind="command") as store,
        closing(remote(bucket, prefix, endpoint_url, profile, parallel)) as place,
    ):
        report = _import_remote(store, place, target, options, tenant, bucket_config=bucket_config)
        finish(report, "imported", as_json)


def _check_tenant(tenant: str) -> None:
    from vaultaire.principal import InvalidKey, new_principal

    try:
        new_principal(tenant, "read-only")
    except InvalidKey as error:
        raise click.BadParameter(str(error), param_hint="--tenant") from error


def _import_remote(
    store: Store,
    place: S3Place,
    into: tuple[str, bytes] | None,
    options: Options,
    tenant: str,
    *,
    bucket_config: bool,
) -> Report:
    from vaultaire.moving.bench import Bench, with_bench
    from vaultaire.moving.importing import Import, NewBucket
    from vaultaire.moving.report import Report
    from vaultaire.moving.settings import take_settings
    from vaultaire.moving.taking import Destination
    from vaultaire.moving.transport import FIRST_ATTEMPTS, Requests

    report = Report(place.url, "all buckets" if not place.bucket else "", dry_run=options.dry_run)

    async def work(bench: Bench) -> None:
        requests = Requests(options.parallel, report)
        names = [place.bucket]
        if not place.bucket:
            names = await requests.run(place.buckets, attempts=FIRST_ATTEMPTS)
        with following(report) as follower:
            for name in names:
                source = place.in_bucket(name, place.prefix)
                to = Destination(name, owner=tenant)
                if into is not None:
                    to = replace(to, bucket=into[0], strip=source.prefix, prefix=into[1])
                if place.bucket:
                    report.target = shown(to.bucket, to.prefix)
                new = NewBucket()
                if options.versions:
                    await requests.run(source.check, attempts=FIRST_ATTEMPTS)
                    new = NewBucket(*await requests.run(partial(_versioning, source)))
                moving = Import(
                    bench, source, to, options, report, pace=follower.pace, on_progress=follower.show
                )
                await moving.run(new)
                if bucket_config:
                    await take_settings(bench, requests, source, to.bucket, report, dry_run=options.dry_run)

    run(lambda: with_bench(store, options.parallel, work), report)
    return report


def _versioning(source: S3Place) -> tuple[Versioning, bool]:
    """How the source's bucket keeps versions, and whether it locks them."""
    return source.versioning(), source.keeps_locks()


def _import_folder(
    store: Store, folder: str, into: tuple[str, bytes], options: Options, tenant: str
) -> Report:
    from vaultaire.moving.bench import Bench, with_bench
    from vaultaire.moving.folder_place import FolderSource
    from vaultaire.moving.importing import Import, NewBucket
    from vaultaire.moving.report import Report
    from vaultaire.moving.taking import Destination

    report = Report(folder, shown(*into), dry_run=options.dry_run)

    async def work(bench: Bench) -> None:
        with following(report) as follower:
            moving = Import(
                bench,
                FolderSource(folder, report),
                Destination(into[0], prefix=into[1], owner=tenant),
                options,
                report,
                pace=follower.pace,
                on_progress=follower.show,
            )
            await moving.run(NewBucket())

    run(lambda: with_bench(store, options.parallel, work), report)
    return report
