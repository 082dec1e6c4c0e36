"""`vaultaire key create | list | delete`: access keys, on the data directory, also while the server runs.

A change holds for every request that begins after the command returned. Secrets are printed by `create`, once.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from typing import TYPE_CHECKING

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import Failure, Line, own_command, print_lines, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.access import KeyInfo, Principal

ROLES = ("admin", "read-write", "read-only")


@click.group("key")
def command() -> None:
    """Create, list and delete access keys."""


@command.command("create")
@data_option
@click.option("--tenant", help="Owner of what is stored with this key; it exists as soon as a key names it.")
@click.option("--access-key", help="3 to 128 characters.  [default: random]")
@click.option("--secret-key", help="8 to 128 characters.  [default: random]")
@click.option("--role", type=click.Choice(ROLES), help="[default: read-write]")
@click.option("--root", is_flag=True, help="A root key: it reaches all tenants.")
@click.option(
    "--new-secret-key",
    is_flag=True,
    help="With --root, if secret.key is lost: make a new one. Drops all other access keys.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(
    data: Path,
    tenant: str | None,
    access_key: str | None,
    secret_key: str | None,
    role: str | None,
    root: bool,
    new_secret_key: bool,
    as_json: bool,
) -> None:
    """Create an access key and print it; the secret is shown only now."""
    principal = _requested(tenant, access_key, secret_key, role, root)
    if new_secret_key and not root:
        raise click.UsageError(
            "--new-secret-key belongs to --root: the first key under a new secret.key is a root key"
        )
    dropped = _start_over(data, principal) if new_secret_key else _add(data, principal)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(principal), "dropped": dropped}))
        return
    print_lines(_created(principal, data, dropped, new_secret_key))


def _requested(
    tenant: str | None, access_key: str | None, secret_key: str | None, role: str | None, root: bool
) -> Principal:
    from vaultaire.access import ROLES as KNOWN_ROLES
    from vaultaire.access import InvalidKey, new_principal, new_root

    if root and (tenant is not None or role is not None):
        raise click.UsageError("--root takes no --tenant and no --role: it is admin of tenant 'root'")
    if not root and tenant is None:
        raise click.UsageError("name the owner with --tenant NAME (or make a root key with --root)")
    try:
        if tenant is None:
            return new_root(access_key, secret_key)
        chosen = next(known for known in KNOWN_ROLES if known == (role or "read-write"))
        return new_principal(tenant, chosen, access_key=access_key, secret_key=secret_key)
    except InvalidKey as error:
        raise click.UsageError(str(error)) from error


def _add(data: Path, principal: Principal) -> list[str]:
    from vaultaire.access import Keyring
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        with store.kv.snapshot() as reader:
            keyring = Keyring.load(data, reader)
        store.kv.commit(lambda txn: keyring.put_key(txn, principal, now_ms=_now_ms()))
    return []


def _start_over(data: Path, root: Principal) -> list[str]:
    """A new `secret.key` and its root key; the access keys that could not be decrypted any more."""
    from vaultaire.access import Keyring, SecretKeyError
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        try:
            with store.kv.snapshot() as reader:
                Keyring.load(data, reader)
        except SecretKeyError:
            keyring = Keyring.replace_secret_key(data)
            return store.kv.commit(lambda txn: keyring.reset(txn, root, now_ms=_now_ms()))
    raise Failure(
        "secret.key is in order: nothing to start over for; make another root key with --root alone"
    )


def _created(principal: Principal, data: Path, dropped: list[str], new_secret_key: bool) -> list[Line]:
    env = f"{own_command()} env --data {shlex.quote(str(data))} --access-key {shlex.quote(principal.access_key)}"
    lines: list[Line] = [
        (f"access key  {principal.access_key}", ""),
        (f"secret key  {principal.secret_key}", "bold green"),
        (f"tenant      {principal.tenant}", ""),
        (f"role        {principal.role}{' (root: reaches all tenants)' if principal.root else ''}", ""),
        ("", ""),
        (f'Use it in a shell with: eval "$({env})"', "dim"),
    ]
    if new_secret_key:
        names = ", ".join(dropped) if dropped else "none"
        lines.append((f"A new secret.key was made. Access keys that had to be dropped: {names}", "yellow"))
        if dropped:
            lines.append(
                (
                    "Create those that are still needed again with: vaultaire key create --tenant NAME",
                    "yellow",
                )
            )
    return lines


@command.command("list")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(data: Path, as_json: bool) -> None:
    """List the access keys, without their secrets."""
    from vaultaire.access import Keyring
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store, store.kv.snapshot() as reader:
        keys = list(Keyring.list_keys(reader))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(key) for key in keys], indent=2))
        return
    print_table(("ACCESS KEY", "TENANT", "ROLE", "CREATED"), [_row(key) for key in keys])


def _row(key: KeyInfo) -> tuple[str, str, str, str]:
    created = (
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(key.created_ms / 1000)) if key.created_ms else "-"
    )
    return key.access_key, key.tenant, "root" if key.root else key.role, created


@command.command("delete")
@data_option
@click.argument("access_key")
def delete(data: Path, access_key: str) -> None:
    """Delete ACCESS_KEY: requests signed with it are refused from now on."""
    from vaultaire.access import Keyring
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        store.kv.commit(lambda txn: Keyring.delete_key(txn, access_key))
    click.echo(f"deleted access key {access_key}; what was stored with it stays with its tenant")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
