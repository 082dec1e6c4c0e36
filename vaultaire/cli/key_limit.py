"""`vaultaire key limit`: how many requests a minute and bytes a second a key or a tenant may use."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vaultaire.cli.completing import complete_access_key
from vaultaire.cli.options import ByteSize, data_option, known_plans
from vaultaire.cli.output import print_table
from vaultaire.config_file import nearest
from vaultaire.plans import (
    MAX_BYTES,
    MAX_REQUESTS,
    Plan,
    list_plans,
    put_plan,
    subject_of_key,
    subject_of_tenant,
)

if TYPE_CHECKING:
    from pathlib import Path


@click.command("limit")
@data_option
@click.argument("access_key", required=False, shell_complete=complete_access_key)
@click.option("--tenant", help="For all keys of this tenant together, instead of one key.")
@click.option(
    "--plan",
    "plan_name",
    metavar="NAME",
    help="core, stored.ge, stored.cloud, or one of the configuration file.",
)
@click.option("--requests", type=click.IntRange(1, MAX_REQUESTS), help="A minute.")
@click.option("--bandwidth", type=ByteSize(1), metavar="SIZE", help="A second, both ways together.")
@click.option("--remove", is_flag=True, help="No limit of its own any more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def limit(
    ctx: click.Context,
    data: Path,
    access_key: str | None,
    tenant: str | None,
    plan_name: str | None,
    requests: int | None,
    bandwidth: int | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Limit ACCESS_KEY or a tenant; without either, list the limits.

    A tenant without a limit has the server's default plan (serve --plan). A named plan is taken as it is now: if the
    configuration file changes it later, give it again.
    """
    named = None if plan_name is None else _named(ctx, plan_name)
    plan = _requested(named, requests, bandwidth, remove)
    if access_key is None and tenant is None:
        if plan is not None or remove:
            raise click.UsageError("say whom to limit: an access key, or --tenant NAME")
        _list(data, as_json)
        return
    if access_key is not None and tenant is not None:
        raise click.UsageError("limit an access key or a tenant, one at a time")
    if plan is None and not remove:
        raise click.UsageError("say the limit: --plan, --requests, --bandwidth, or --remove")
    subject = subject_of_key(access_key) if access_key is not None else subject_of_tenant(str(tenant))
    _set(data, subject, access_key, plan)
    said = "has no limit of its own any more" if plan is None else f"may use {plan}"
    click.echo(json.dumps({"subject": subject, **asdict(plan or Plan())}) if as_json else f"{subject} {said}")


def _named(ctx: click.Context, name: str) -> Plan:
    known = known_plans(ctx)
    if name not in known:
        names = ", ".join(sorted(known))
        raise click.BadParameter(
            f"there is no plan {name!r}{nearest(name, known)}; there are {names}. Others are made in the configuration "
            'file, as [plans."NAME"]',
            ctx,
            param_hint="--plan",
        )
    return known[name]


def _requested(named: Plan | None, requests: int | None, bandwidth: int | None, remove: bool) -> Plan | None:
    numbers = requests is not None or bandwidth is not None
    if (named is not None) + numbers + remove > 1:
        raise click.UsageError("--plan, --requests with --bandwidth, and --remove exclude each other")
    if bandwidth is not None and bandwidth > MAX_BYTES:
        raise click.UsageError("more than 1 TiB a second needs no limit")
    if named is not None:
        return named
    return Plan(requests, bandwidth) if numbers else None


def _set(data: Path, subject: str, access_key: str | None, plan: Plan | None) -> None:
    from vaultaire.access import Keyring, UnknownAccessKey
    from vaultaire.audit_log import note_command
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        with store.kv.snapshot() as reader:
            known = {info.access_key for info in Keyring.list_keys(reader)}
        if access_key is not None and access_key not in known:
            raise UnknownAccessKey(access_key)
        store.kv.commit(lambda txn: put_plan(txn, subject, plan))
        note_command(store, "SetLimit", subject=subject, **asdict(plan or Plan()))


def _list(data: Path, as_json: bool) -> None:
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store, store.kv.snapshot() as reader:
        found = list(list_plans(reader))
    if as_json:
        click.echo(json.dumps([{"subject": subject, **asdict(plan)} for subject, plan in found], indent=2))
        return
    print_table(
        ("KEY OR TENANT", "PLAN", "REQUESTS/MIN", "BYTES/S"),
        [
            (subject, plan.plan or "-", _shown(plan.requests_per_minute), _shown(plan.bytes_per_second))
            for subject, plan in found
        ],
        right=(2, 3),
    )


def _shown(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
