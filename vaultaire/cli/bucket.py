"""`vaultaire bucket create | list | info | quota | delete`: buckets, on the data directory.

They work while the server runs; a change holds for every request that begins after the command returned.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from vaultaire.cli.bucket_quota import quota, quota_lines, show_limit
from vaultaire.cli.options import data_option
from vaultaire.cli.output import Failure, binary_size, own_command, print_lines, print_table
from vaultaire.cli.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from index.counters import NamesStatistics
    from index.quotas import Limits
    from index.records import BucketRecord
    from index.values import Prefixes
    from vaultaire.cli.output import Line
    from vaultaire.emptying import Contents
    from vaultaire.store import Store

_VERSIONING = {"Off": "off", "Enabled": "enabled", "Suspended": "suspended"}


@click.group("bucket")
def command() -> None:
    """Create, list, show, limit and delete buckets."""


command.add_command(quota)


@command.command("create")
@data_option
@click.argument("name")
@click.option("--tenant", default="root", show_default=True, help="Owner of the bucket and of all in it.")
@click.option("--versioning", is_flag=True, help="Keep older versions of objects.")
@click.option("--object-lock", is_flag=True, help="Let versions be locked; keeps versions, for ever.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(data: Path, name: str, tenant: str, versioning: bool, object_lock: bool, as_json: bool) -> None:
    """Create the bucket NAME."""
    from index.buckets import create_bucket, set_versioning
    from index.errors import BucketExists
    from vaultaire.audit_log import note_command
    from vaultaire.principal import InvalidKey, check_tenant
    from vaultaire.s3.names import is_bucket_name
    from vaultaire.store import Store

    if not is_bucket_name(name):
        raise click.UsageError(
            f"{name!r} cannot be the name of a bucket: 3 to 63 characters of a-z 0-9 . - beginning and ending with a "
            "letter or digit"
        )
    try:
        check_tenant(tenant)
    except InvalidKey as error:
        raise click.UsageError(str(error)) from error

    def commit(txn: Any) -> BucketRecord:  # noqa: ANN401
        bucket = create_bucket(txn, name, tenant, int(time.time() * 1000), object_lock=object_lock)
        if versioning:
            set_versioning(txn, bucket, "Enabled")
        return bucket

    with Store.open(data, kind="command") as store:
        try:
            bucket = store.kv.commit(commit)
        except BucketExists as error:
            raise Failure(
                f"the bucket {name!r} exists and belongs to tenant {error.owner!r}; see: vaultaire bucket info {name}"
            ) from error
        note_command(store, "CreateBucket", bucket=name, tenant=tenant)
        shown = _facts(store, bucket.name)
    if as_json:
        click.echo(json.dumps(_as_dict(*shown)))
        return
    click.echo(f"created bucket {name} of tenant {tenant}")


@command.command("list")
@data_option
@click.option("--tenant", help="Only the buckets of this tenant.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def list_(data: Path, tenant: str | None, as_json: bool) -> None:
    """List the buckets with what they hold and what they may hold."""
    from index.buckets import list_buckets
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        with store.kv.snapshot() as reader:
            names = [bucket.name for bucket in list_buckets(reader, owner=tenant).buckets]
        found = [_facts(store, name) for name in names]
    if as_json:
        click.echo(json.dumps([_as_dict(*facts) for facts in found], indent=2))
        return
    if not found:
        click.echo("no buckets" if tenant is None else f"no buckets of tenant {tenant}")
        return
    print_table(
        ("BUCKET", "TENANT", "CREATED", "VERSIONS", "OBJECTS", "LOGICAL", "QUOTA"),
        [_row(*facts) for facts in found],
        right=(4, 5),
    )


def _row(bucket: BucketRecord, counts: NamesStatistics, limits: Limits) -> tuple[str, ...]:
    created = time.strftime("%Y-%m-%d", time.gmtime(bucket.created_ms / 1000))
    versions = "locked" if bucket.object_lock else _VERSIONING[bucket.versioning]
    logical = binary_size(counts.logical_bytes)
    return bucket.name, bucket.owner, created, versions, f"{counts.objects:,}", logical, show_limit(limits)


@command.command("info")
@data_option
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def info(data: Path, name: str, as_json: bool) -> None:
    """Show one bucket: whose it is, what it holds, what it may hold."""
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        facts = _facts(store, name)
    if as_json:
        click.echo(json.dumps(_as_dict(*facts), indent=2))
        return
    print_lines(_info_lines(*facts))


def _facts(store: Store, name: str) -> tuple[BucketRecord, NamesStatistics, Limits]:
    """Raises Failure if there is no such bucket."""
    from index.buckets import get_bucket
    from index.counters import statistics
    from index.quotas import bucket_limits

    with store.kv.snapshot() as reader:
        bucket = get_bucket(reader, name)
        if bucket is None:
            raise no_such_bucket(name)
        return bucket, statistics(reader, bucket.id), bucket_limits(reader, bucket)


def no_such_bucket(name: str) -> Failure:
    return Failure(f"there is no bucket {name!r}; see those there are with: vaultaire bucket list")


def _as_dict(bucket: BucketRecord, counts: NamesStatistics, limits: Limits) -> dict[str, Any]:
    retention = bucket.default_retention
    return {
        "name": bucket.name,
        "tenant": bucket.owner,
        "created_ms": bucket.created_ms,
        "versioning": _VERSIONING[bucket.versioning],
        "object_lock": bucket.object_lock,
        "default_retention": None
        if retention is None
        else {"mode": retention.mode, "count": retention.count, "unit": retention.unit},
        "objects": counts.objects,
        "logical_bytes": counts.logical_bytes,
        "stored_bytes": counts.used_stored_bytes,
        "upload_bytes": counts.part_bytes,
        "prefixes": bucket.prefixes,
        "quota": {
            "logical_bytes": limits.logical_bytes,
            "stored_bytes": limits.stored_bytes,
            "objects": limits.objects,
        },
    }


def _info_lines(bucket: BucketRecord, counts: NamesStatistics, limits: Limits) -> list[Line]:
    from index.quotas import usage_of

    created = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(bucket.created_ms / 1000))
    lines: list[Line] = [
        (f"bucket      {bucket.name}", "bold"),
        (f"tenant      {bucket.owner}", ""),
        (f"created     {created}", ""),
        (f"versioning  {_VERSIONING[bucket.versioning]}", ""),
        (f"lock        {_lock(bucket)}", ""),
        (f"objects     {counts.objects:,}, older versions included", ""),
        (f"logical     {binary_size(counts.logical_bytes)}", ""),
        (
            f"stored      {binary_size(counts.used_stored_bytes)}, about; exactly: vaultaire du {bucket.name}",
            "",
        ),
    ]
    lines.append((f"prefixes    {bucket.prefixes}", ""))
    if counts.part_bytes:
        lines.append((f"uploads     {binary_size(counts.part_bytes)} in parts of unfinished uploads", ""))
    return lines + quota_lines(limits, usage_of(counts))


def _lock(bucket: BucketRecord) -> str:
    if not bucket.object_lock:
        return "no"
    retention = bucket.default_retention
    return "yes" if retention is None else f"yes, {retention.mode} for {retention.count} {retention.unit}"


@command.command("prefixes")
@data_option
@click.argument("name")
@click.argument("policy", type=click.Choice(["off", "auto", "on"]))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prefixes(data: Path, name: str, policy: Prefixes, as_json: bool) -> None:
    """Compress what is new in bucket NAME against earlier data, or not.

    \b
    off    never
    auto   where it follows known data and has lately been worth it (default)
    on     wherever it follows known data; costs more CPU, seldom saves more

    Concerns what is stored from now on; what is there stays as it is.
    """
    from index.buckets import get_bucket, set_prefixes
    from vaultaire.audit_log import note_command
    from vaultaire.store import Store

    def commit(txn: Any) -> None:  # noqa: ANN401
        bucket = get_bucket(txn, name)
        if bucket is None:
            raise no_such_bucket(name)
        set_prefixes(txn, bucket, policy)

    with Store.open(data, kind="command") as store:
        store.kv.commit(commit)
        note_command(store, "SetPrefixes", bucket=name, prefixes=policy)
        shown = _facts(store, name)
    if as_json:
        click.echo(json.dumps(_as_dict(*shown)))
    else:
        click.echo(f"{name}: prefixes {policy}")


@command.command("delete")
@data_option
@click.argument("name")
@click.option("--force", is_flag=True, help="With all objects and versions in it; not if one is locked.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def delete(data: Path, name: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Delete the bucket NAME, which must be empty; uploads in progress go with it.

    There is no way back from --force. Locked versions (Object Lock) are
    never deleted by it: then the bucket stays as it is.
    """
    from index.errors import BucketNotEmpty, NoSuchBucket, VersionLocked
    from vaultaire.audit_log import note_command
    from vaultaire.emptying import empty_bucket, find_contents, remove_bucket
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store, Progress() as progress:
        bucket, _, _ = _facts(store, name)
        found = find_contents(store, bucket, lambda rows: progress.advance("looking", rows))
        _require_deletable(name, found, force=force)
        if not dry_run:
            total = found.versions + found.delete_markers
            try:
                empty_bucket(store, bucket, lambda rows: progress.advance("deleting", rows, total))
                remove_bucket(store, name)
                note_command(store, "DeleteBucket", bucket=name, versions=found.versions)
            except VersionLocked as error:
                raise Failure(f"{error}: it was locked meanwhile; the rest of {name!r} was kept") from error
            except (BucketNotEmpty, NoSuchBucket) as error:
                raise Failure(f"{error}; somebody else changed it meanwhile: try again") from error
    if as_json:
        click.echo(json.dumps(_deletion(name, found, dry_run=dry_run)))
        return
    said = "would delete" if dry_run else "deleted"
    print_lines([(f"{said} bucket {name}{_of_contents(found)}", "")])


def _require_deletable(name: str, found: Contents, *, force: bool) -> None:
    if found.locked:
        raise Failure(
            f"{found.locked:,} versions in {name!r} are locked (Object Lock): nothing was deleted. They can be deleted "
            "when their retention is over, or their legal hold is lifted"
        )
    if (found.versions or found.delete_markers) and not force:
        raise Failure(
            f"the bucket {name!r} is not empty{_of_contents(found)}: nothing was deleted. To delete all that with the "
            f"bucket, for good: {own_command()} bucket delete {name} --force"
        )


def _of_contents(found: Contents) -> str:
    if not (found.versions or found.delete_markers):
        return ""
    markers = f" and {found.delete_markers:,} delete markers" if found.delete_markers else ""
    noun = "version" if found.versions == 1 else "versions"
    return f", with {found.versions:,} {noun} of objects ({binary_size(found.logical_bytes)}){markers}"


def _deletion(name: str, found: Contents, *, dry_run: bool) -> dict[str, Any]:
    return {
        "name": name,
        "deleted": not dry_run,
        "versions": found.versions,
        "delete_markers": found.delete_markers,
        "logical_bytes": found.logical_bytes,
    }
