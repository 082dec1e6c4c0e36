"""`vaultaire bucket quota`: how much a bucket, or all buckets of a tenant together, may hold."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from vaultaire.cli.options import ByteSize, data_option
from vaultaire.cli.output import Failure, binary_size, print_lines, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from index.kv import Reader, Transaction
    from index.quotas import Limits, Usage
    from vaultaire.cli.output import Line

_LEAVE = "leave"  # what was not asked for stays as it is


class _OrNone(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A value of another type, or `none`: unlimited."""

    def __init__(self, inner: Any) -> None:  # noqa: ANN401  # click's types are generic only since 8.2
        self.inner = inner
        self.name = inner.name

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str | None:
        if value == _LEAVE:
            return _LEAVE
        if str(value).lower() in ("none", "unlimited"):
            return None
        count: int = self.inner.convert(value, param, ctx)
        return count


_SIZE = _OrNone(ByteSize(0))


@click.command("quota")
@data_option
@click.argument("name", required=False)
@click.option("--tenant", help="Of all buckets of this tenant together, instead of one bucket.")
@click.option(
    "--logical", type=_SIZE, default=_LEAVE, metavar="SIZE", help="Bytes as clients see them, or none."
)
@click.option(
    "--stored", type=_SIZE, default=_LEAVE, metavar="SIZE", help="Bytes added to the disk, or none."
)
@click.option(
    "--objects",
    type=_OrNone(click.IntRange(0)),
    default=_LEAVE,
    metavar="N",
    help="Objects, older versions included, or none.",
)
@click.option("--remove", is_flag=True, help="No quota any more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def quota(
    data: Path,
    name: str | None,
    tenant: str | None,
    logical: int | str | None,
    stored: int | str | None,
    objects: int | str | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Limit what bucket NAME, or a tenant, may hold; without limits, show it.

    \b
    vaultaire bucket quota photos --logical 10GiB --objects 1000000
    vaultaire bucket quota --tenant alice --stored 500GiB
    vaultaire bucket quota                          all quotas there are

    A limit that is not named stays as it is. It holds for every request from
    now on; what is there already stays, and can always be deleted.
    """
    wanted = {"logical_bytes": logical, "stored_bytes": stored, "objects": objects}
    asked = {what: limit for what, limit in wanted.items() if limit != _LEAVE}
    if name is not None and tenant is not None:
        raise click.UsageError("name a bucket or a tenant, one at a time")
    if remove and asked:
        raise click.UsageError("--remove and limits exclude each other")
    if name is None and tenant is None:
        if asked or remove:
            raise click.UsageError("say what to limit: the name of a bucket, or --tenant NAME")
        _list(data, as_json)
        return
    if tenant is not None:
        _check_tenant(tenant)
    limits, used = _change(data, name, tenant, asked, remove=remove)
    subject = {"bucket": name} if name is not None else {"tenant": tenant}
    if as_json:
        click.echo(json.dumps({**subject, "quota": asdict(limits), "used": asdict(used)}, indent=2))
        return
    head = f"bucket {name}" if name is not None else f"tenant {tenant}"
    print_lines([(head, "bold"), *(quota_lines(limits, used) or [("no quota", "")])])


def _check_tenant(tenant: str) -> None:
    from vaultaire.principal import InvalidKey, check_tenant

    try:
        check_tenant(tenant)
    except InvalidKey as error:
        raise click.UsageError(str(error)) from error


def _change(
    data: Path, name: str | None, tenant: str | None, asked: dict[str, Any], *, remove: bool
) -> tuple[Limits, Usage]:
    """(the limits from now on, what is used). Raises Failure."""
    from index import quotas
    from vaultaire.audit_log import note_command
    from vaultaire.store import Store

    def commit(txn: Transaction) -> None:
        before, _ = _look(txn, name, tenant)
        after = quotas.UNLIMITED if remove else replace(before, **asked)
        if name is not None:
            quotas.set_bucket_limits(txn, _bucket(txn, name), after)
        else:
            quotas.set_tenant_limits(txn, str(tenant), after)

    with Store.open(data, kind="command") as store:
        if asked or remove:
            try:
                store.kv.commit(commit)
            except ValueError as error:
                raise click.UsageError(str(error)) from error
        with store.kv.snapshot() as reader:
            limits, used = _look(reader, name, tenant)
        if asked or remove:
            note_command(store, "SetQuota", bucket=name, tenant=tenant, **asdict(limits))
        return limits, used


def _look(reader: Reader, name: str | None, tenant: str | None) -> tuple[Limits, Usage]:
    from index import quotas

    if name is not None:
        bucket = _bucket(reader, name)
        return quotas.bucket_limits(reader, bucket), quotas.bucket_usage(reader, bucket.id)
    return quotas.tenant_limits(reader, str(tenant)), quotas.tenant_usage(reader, str(tenant))


def _bucket(reader: Reader, name: str) -> Any:  # noqa: ANN401  # a BucketRecord, imported late
    from index.buckets import get_bucket

    bucket = get_bucket(reader, name)
    if bucket is None:
        raise Failure(f"there is no bucket {name!r}; see those there are with: vaultaire bucket list")
    return bucket


def _list(data: Path, as_json: bool) -> None:
    from index import quotas
    from index.buckets import list_buckets
    from vaultaire.store import Store

    found: list[tuple[str, str, Limits, Usage]] = []
    with Store.open(data, kind="command") as store, store.kv.snapshot() as reader:
        found += [
            ("tenant", tenant, limits, quotas.tenant_usage(reader, tenant))
            for tenant, limits in quotas.limited_tenants(reader)
        ]
        found += [
            ("bucket", bucket.name, limits, quotas.bucket_usage(reader, bucket.id))
            for bucket in list_buckets(reader).buckets
            if (limits := quotas.bucket_limits(reader, bucket))
        ]
    if as_json:
        rows = [
            {kind: name, "quota": asdict(limits), "used": asdict(used)} for kind, name, limits, used in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    if not found:
        click.echo("no quotas; set one with: vaultaire bucket quota NAME --logical SIZE")
        return
    print_table(
        ("OF", "NAME", "LOGICAL", "STORED", "OBJECTS"),
        [(kind, name, *_cells(limits, used)) for kind, name, limits, used in found],
        right=(2, 3, 4),
    )


def _cells(limits: Limits, used: Usage) -> tuple[str, str, str]:
    def cell(limit: int | None, now: int, *, size: bool) -> str:
        if limit is None:
            return "-"
        return f"{binary_size(now)} of {binary_size(limit)}" if size else f"{now:,} of {limit:,}"

    return (
        cell(limits.logical_bytes, used.logical_bytes, size=True),
        cell(limits.stored_bytes, used.stored_bytes, size=True),
        cell(limits.objects, used.objects, size=False),
    )


def quota_lines(limits: Limits, used: Usage) -> list[Line]:
    """One line per limit; none: there is no quota."""
    rows = (
        ("logical", limits.logical_bytes, used.logical_bytes, binary_size),
        ("stored", limits.stored_bytes, used.stored_bytes, binary_size),
        ("objects", limits.objects, used.objects, "{:,}".format),
    )
    lines: list[Line] = []
    for what, limit, now, shown in rows:
        if limit is None:
            continue
        share = f", {100 * now // limit} %" if limit else ""
        full = now >= limit
        more = "; nothing more can be added" if full else ""
        lines.append(
            (f"quota       {what}: {shown(now)} of {shown(limit)}{share}{more}", "yellow" if full else "")
        )
    return lines


def show_limit(limits: Limits) -> str:
    """Of one bucket, short: `10.0 GiB logical, 500 objects`; `-`: none."""
    shown = [
        f"{binary_size(limit)} {what}"
        for what, limit in (("logical", limits.logical_bytes), ("stored", limits.stored_bytes))
        if limit is not None
    ]
    if limits.objects is not None:
        shown.append(f"{limits.objects:,} objects")
    return ", ".join(shown) or "-"
