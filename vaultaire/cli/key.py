"""`vaultaire key create | list | rotate | limit | disable | enable | delete`: access keys, on the data directory.

They work while the server runs; a change holds for every request that begins after the command returned. Secrets are
printed by `create` and `rotate`, once.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from typing import TYPE_CHECKING, Any

import click

from vaultaire.cli.completing import complete_access_key
from vaultaire.cli.key_limit import limit
from vaultaire.cli.options import Duration, data_option
from vaultaire.cli.output import Failure, Line, own_command, print_lines, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.access import KeyInfo, Principal
    from vaultaire.key_limits import Limits
    from vaultaire.store import Store

ROLES = ("admin", "read-write", "read-only", "append-only")
PRESETS = ("restic",)
EXPIRES_SOON_MS = 14 * 86_400_000  # the list marks what ends within


@click.group("key")
def command() -> None:
    """Create, list, rotate, limit, disable and delete access keys."""


@command.command("create")
@data_option
@click.option("--tenant", help="Owner of what is stored with this key; it exists as soon as a key names it.")
@click.option("--access-key", help="3 to 128 characters.  [default: random]")
@click.option("--secret-key", help="8 to 128 characters.  [default: random]")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    help="append-only creates, and neither overwrites nor deletes.  [default: read-write]",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="BUCKET[/PREFIX]",
    help="Only there. May be repeated.  [default: all buckets of the tenant]",
)
@click.option(
    "--exempt",
    multiple=True,
    metavar="PREFIX",
    help="With append-only: below it (counted from the scope) everything is allowed. May be repeated.",
)
@click.option("--preset", type=click.Choice(PRESETS), help="Exempt what this program has to delete.")
@click.option(
    "--expires", type=Duration(), metavar="TIME", help="From now, for example 90d.  [default: never]"
)
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
    scopes: tuple[str, ...],
    exempt: tuple[str, ...],
    preset: str | None,
    expires: float | None,
    root: bool,
    new_secret_key: bool,
    as_json: bool,
) -> None:
    """Create an access key and print it; the secret is shown only now."""
    limits = _limits(scopes, exempt, preset, expires)
    principal = _requested(tenant, access_key, secret_key, role, limits, root)
    if new_secret_key and not root:
        raise click.UsageError(
            "--new-secret-key belongs to --root: the first key under a new secret.key is a root key"
        )
    dropped = _start_over(data, principal) if new_secret_key else _add(data, principal)
    if as_json:
        click.echo(json.dumps({**_as_dict(principal), "dropped": dropped}))
        return
    print_lines(_created(principal, data, dropped, new_secret_key))


def _limits(
    scopes: tuple[str, ...], exempt: tuple[str, ...], preset: str | None, expires: float | None
) -> Limits:
    from vaultaire.key_limits import PRESETS as KNOWN_PRESETS
    from vaultaire.key_limits import Limits, parse_prefix, parse_scope

    free = (*exempt, *(KNOWN_PRESETS[preset] if preset is not None else ()))
    try:
        return Limits(
            scopes=tuple(parse_scope(text) for text in scopes),
            exempt=tuple(parse_prefix(text) for text in free),
            expires_ms=0 if expires is None else _now_ms() + int(expires * 1000),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _requested(
    tenant: str | None,
    access_key: str | None,
    secret_key: str | None,
    role: str | None,
    limits: Limits,
    root: bool,
) -> Principal:
    from vaultaire.access import ROLES as KNOWN_ROLES
    from vaultaire.access import InvalidKey, new_principal, new_root
    from vaultaire.key_limits import UNLIMITED

    if root and (tenant is not None or role is not None or limits != UNLIMITED):
        raise click.UsageError(
            "--root takes no --tenant, no --role and no limits: it is admin of tenant 'root'"
        )
    if not root and tenant is None:
        raise click.UsageError("name the owner with --tenant NAME (or make a root key with --root)")
    try:
        if tenant is None:
            return new_root(access_key, secret_key)
        chosen = next(known for known in KNOWN_ROLES if known == (role or "read-write"))
        return new_principal(tenant, chosen, access_key=access_key, secret_key=secret_key, limits=limits)
    except InvalidKey as error:
        raise click.UsageError(str(error)) from error


def _add(data: Path, principal: Principal) -> list[str]:
    from vaultaire.access import Keyring
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        with store.kv.snapshot() as reader:
            keyring = Keyring.load(data, reader)
        store.kv.commit(lambda txn: keyring.put_key(txn, principal, now_ms=_now_ms()))
        _note(store, "CreateKey", principal)
    return []


def _note(store: Store, action: str, principal: Principal, **more: object) -> None:
    """For the audit log."""
    from vaultaire.audit_log import note_command

    limits = principal.limits
    note_command(
        store,
        action,
        access_key=principal.access_key,
        tenant=principal.tenant,
        role=principal.role,
        root=principal.root,
        scopes=[str(scope) for scope in limits.scopes],
        exempt=[prefix.decode(errors="replace") for prefix in limits.exempt],
        expires_ms=limits.expires_ms or None,
        disabled=limits.disabled,
        **more,
    )


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
            dropped = store.kv.commit(lambda txn: keyring.reset(txn, root, now_ms=_now_ms()))
            _note(store, "ResetKeys", root, dropped=dropped)
            return dropped
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
        *((text, "") for text in _limit_lines(principal.limits)),
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


def _limit_lines(limits: Limits) -> list[str]:
    lines = [f"scope       {scope}" for scope in limits.scopes]
    lines += [f"exempt      {prefix.decode(errors='replace')}" for prefix in limits.exempt]
    if limits.expires_ms:
        lines.append(f"expires     {_moment(limits.expires_ms)}")
    return lines


@command.command("list")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(data: Path, as_json: bool) -> None:
    """List the access keys, without their secrets. Last use is known to the hour."""
    from vaultaire.access import Keyring
    from vaultaire.last_used import read_last_used
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store, store.kv.snapshot() as reader:
        keys = list(Keyring.list_keys(reader))
        used = {key.access_key: read_last_used(reader, key.access_key) for key in keys}
    if as_json:
        shown = [{**_as_dict(key), "last_used_ms": used[key.access_key]} for key in keys]
        click.echo(json.dumps(shown, indent=2))
        return
    now_ms = _now_ms()
    print_table(
        ("ACCESS KEY", "TENANT", "ROLE", "SCOPE", "STATE", "CREATED", "LAST USED"),
        [_row(key, used[key.access_key], now_ms) for key in keys],
    )


def _row(key: KeyInfo, used_ms: int, now_ms: int) -> tuple[str, ...]:
    scope = ", ".join(map(str, key.limits.scopes)) or "all"
    role = "root" if key.root else key.role
    return (
        key.access_key,
        key.tenant,
        role,
        scope,
        _state(key.limits, now_ms),
        _moment(key.created_ms),
        _moment(used_ms),
    )


def _state(limits: Limits, now_ms: int) -> str:
    if limits.disabled:
        return "disabled"
    if not limits.expires_ms:
        return "active"
    if limits.expires_ms <= now_ms:
        return "expired"
    soon = "! " if limits.expires_ms - now_ms < EXPIRES_SOON_MS else ""
    return f"{soon}until {_moment(limits.expires_ms)}"


def _moment(unix_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_ms / 1000)) if unix_ms else "-"


@command.command("rotate")
@data_option
@click.argument("access_key", shell_complete=complete_access_key)
@click.option(
    "--grace",
    type=Duration(),
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old key still works.",
)
@click.option("--now", "at_once", is_flag=True, help="The old key ends now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rotate(data: Path, access_key: str, grace: float, at_once: bool, as_json: bool) -> None:
    """Create a successor of ACCESS_KEY with the same rights; the old one ends after a grace period."""
    from vaultaire.access import Keyring, new_principal
    from vaultaire.store import Store

    fresh = new_principal("fresh", "read-only")  # its tenant and role are the old key's in the end
    grace_ms = 0 if at_once else int(grace * 1000)
    with Store.open(data, kind="command") as store:
        with store.kv.snapshot() as reader:
            keyring = Keyring.load(data, reader)
        successor = store.kv.commit(
            lambda txn: keyring.rotate(txn, access_key, fresh, now_ms=_now_ms(), grace_ms=grace_ms)
        )
        _note(store, "RotateKey", successor, replaces=access_key, grace_seconds=grace_ms / 1000)
    if as_json:
        click.echo(json.dumps(_as_dict(successor)))
        return
    print_lines(_created(successor, data, [], new_secret_key=False))
    ends = "has ended" if at_once else f"works until {_moment(_now_ms() + grace_ms)}"
    print_lines([(f"The old key {access_key} {ends}.", "yellow")])


@command.command("disable")
@data_option
@click.argument("access_key", shell_complete=complete_access_key)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def disable(data: Path, access_key: str, as_json: bool) -> None:
    """Refuse requests that are signed with ACCESS_KEY, until it is enabled again."""
    _set_disabled(data, access_key, disabled=True)
    _told(
        as_json,
        {"access_key": access_key, "disabled": True},
        f"disabled access key {access_key}; undo it with: {own_command()} key enable {access_key}",
    )


@command.command("enable")
@data_option
@click.argument("access_key", shell_complete=complete_access_key)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def enable(data: Path, access_key: str, as_json: bool) -> None:
    """Accept requests that are signed with ACCESS_KEY again."""
    limits = _set_disabled(data, access_key, disabled=False)
    expired = "" if limits.active(_now_ms()) else "; it has expired, so rotate it or create another"
    _told(as_json, {"access_key": access_key, "disabled": False}, f"enabled access key {access_key}{expired}")


def _told(as_json: bool, document: dict[str, object], text: str) -> None:
    click.echo(json.dumps(document) if as_json else text)


def _set_disabled(data: Path, access_key: str, *, disabled: bool) -> Limits:
    from vaultaire.access import Keyring, UnknownAccessKey
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        with store.kv.snapshot() as reader:
            keyring = Keyring.load(data, reader)

        def change(txn: Any) -> Principal:  # noqa: ANN401  # a transaction: its type is not imported at start-up
            principal = keyring.lookup(txn, access_key)
            if principal is None:
                raise UnknownAccessKey(access_key)
            limits = dataclasses.replace(principal.limits, disabled=disabled)
            return keyring.set_limits(txn, access_key, limits)

        principal = store.kv.commit(change)
        _note(store, "DisableKey" if disabled else "EnableKey", principal)
        return principal.limits


@command.command("delete")
@data_option
@click.argument("access_key", shell_complete=complete_access_key)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def delete(data: Path, access_key: str, as_json: bool) -> None:
    """Delete ACCESS_KEY: requests signed with it are refused from now on."""
    from vaultaire.access import Keyring
    from vaultaire.audit_log import note_command
    from vaultaire.last_used import forget_last_used
    from vaultaire.plans import put_plan, subject_of_key
    from vaultaire.store import Store

    def remove(txn: Any) -> None:  # noqa: ANN401  # as above
        Keyring.delete_key(txn, access_key)
        forget_last_used(txn, access_key)
        put_plan(txn, subject_of_key(access_key), None)

    with Store.open(data, kind="command") as store:
        store.kv.commit(remove)
        note_command(store, "DeleteKey", access_key=access_key)
    _told(
        as_json,
        {"access_key": access_key, "deleted": True},
        f"deleted access key {access_key}; what was stored with it stays with its tenant",
    )


command.add_command(limit)


def _as_dict(key: Principal | KeyInfo) -> dict[str, object]:
    """Documented in docs/keys.md."""
    shown = {
        field.name: getattr(key, field.name) for field in dataclasses.fields(key) if field.name != "limits"
    }
    limits = key.limits
    return {
        **shown,
        "scopes": [str(scope) for scope in limits.scopes],
        "exempt": [prefix.decode(errors="replace") for prefix in limits.exempt],
        "expires_ms": limits.expires_ms or None,
        "disabled": limits.disabled,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
