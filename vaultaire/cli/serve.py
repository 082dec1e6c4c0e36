"""`vaultaire serve`: make the store if need be, make sure of the root key, run the supervisor, say how to connect.

The store is opened here only for the set-up, and closed before the first worker starts. `serve` alone creates a store.
"""

from __future__ import annotations

import errno
import logging
import shlex
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaultaire.cli.endpoint import Endpoint, plan_endpoint, read_endpoint, url_of, write_endpoint
from vaultaire.cli.options import settings_of, settings_options
from vaultaire.cli.output import Failure, own_command, print_lines, version
from vaultaire.cli.welcome import Start, welcome
from vaultaire.config_file import ConfigError
from vaultaire.config_resolve import serve_config
from vaultaire.config_settings import BY_NAME

if TYPE_CHECKING:
    from vaultaire.access import Principal, RootKey
    from vaultaire.config import ServeConfig
    from vaultaire.config_resolve import Resolution

log = logging.getLogger(__name__)


@click.command("serve")
@settings_options
@click.pass_context
def command(ctx: click.Context, data: Path) -> None:
    """Run the server; the first start creates the store and its root key.

    \b
    What holds is the option, else the environment variable, else the
    configuration file, else the default: see `vaultaire config show`.
    VAULTAIRE_ROOT_ACCESS_KEY and VAULTAIRE_ROOT_SECRET_KEY, if set, are the
    root key: at a first start instead of a random one, later in place of the
    one that is stored.
    """
    settings = settings_of(ctx)
    config = serve_config(settings)
    given = chosen_root(settings)
    check_certificate(config)
    check_token(config)
    ctx.exit(run(config, given))


def chosen_root(settings: Resolution) -> Principal | None:
    """The root key that the operator chose, if any. Raises ConfigError."""
    from vaultaire.access import InvalidKey, new_root

    access_key, secret_key = settings.settings["root_access_key"], settings.settings["root_secret_key"]
    if access_key.value is None:
        return None
    try:
        return new_root(access_key.value, secret_key.value)
    except InvalidKey as error:
        raise ConfigError([f"{access_key.where}, {secret_key.where}: {error}"]) from error


def check_certificate(config: ServeConfig) -> None:
    """Blocking. Raises ConfigError."""
    if config.tls_cert is None or config.tls_key is None:
        return
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_cert, config.tls_key)
        plan_endpoint(config, config.host, config.port)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            [
                f"{config.tls_cert} and {config.tls_key} are not a certificate and its unencrypted private key in PEM "
                f"({error})"
            ]
        ) from error


def check_token(config: ServeConfig) -> None:
    """Blocking. Raises ConfigError."""
    if config.metrics_token_file is None:
        return
    from vaultaire.metrics.page import BadToken, read_token

    try:
        read_token(config.metrics_token_file)
    except BadToken as error:
        raise ConfigError([str(error)]) from error


@dataclass(frozen=True, slots=True)
class Prepared:
    root: RootKey
    given: bool  # the operator chose the root key
    endpoint: Endpoint | None  # announced last time


def prepare(config: ServeConfig, given: Principal | None) -> Prepared:
    """Store, `secret.key` and root key are there, durably, on return. Blocking.

    Raises StoreError (its message is for the operator), OSError.
    """
    from vaultaire.access import Keyring, RootKey, new_root
    from vaultaire.audit_log import note_command, read_audit_log, write_audit_log
    from vaultaire.log_file import STDOUT
    from vaultaire.parity import parity_percent, set_parity_percent
    from vaultaire.store import Store

    audit_log = None if config.audit_log in (None, STDOUT) else Path(config.audit_log)
    offered = given or new_root()
    now_ms = time.time_ns() // 1_000_000
    with Store.open(config.data, kind="command", create=True, by_operator=True) as store:
        with store.kv.snapshot() as reader:
            keyring = Keyring.open_or_create(config.data, reader)
            endpoint = read_endpoint(reader)
            parity = parity_percent(reader)
            known_audit_log = read_audit_log(reader)
            roots = keyring.root_keys(reader)
        if store.kv.read_only_reason() is not None and roots:
            root = RootKey("unchanged", offered if offered in roots else roots[0])
        else:
            if audit_log != known_audit_log:
                store.kv.commit(partial(write_audit_log, path=audit_log))
            if config.parity_percent is not None and config.parity_percent != parity:
                store.kv.commit(partial(set_parity_percent, percent=config.parity_percent))
            root = store.kv.commit(
                lambda txn: keyring.ensure_root(txn, offered, given=given is not None, now_ms=now_ms)
            )
        if root.action != "unchanged":
            note_command(
                store, "CreateKey", access_key=root.principal.access_key, root=True, removed=root.removed
            )
    if root.action == "replaced":
        log.warning(
            "root key %s taken from %s%s",
            root.principal.access_key,
            BY_NAME["root_access_key"].variable,
            f"; removed: {', '.join(root.removed)}" if root.removed else ": it has a new secret",
        )
    return Prepared(root, given is not None, endpoint)


def run(config: ServeConfig, given: Principal | None) -> int:
    """Serve until stopped; the exit status. Raises Failure if the address cannot be had, and what `prepare` raises."""
    from vaultaire import supervisor

    to_introduce: list[Prepared] = []

    def on_ready(_: str, port: int) -> None:  # also after all workers had to be restarted
        while to_introduce:
            introduce(config, to_introduce.pop(), port)
        print_lines([(f"vaultaire: ready on {url_of(config.tls, config.host, port)}", "bold green")])

    try:
        return supervisor.run(
            config, prepare=lambda: to_introduce.append(prepare(config, given)), on_ready=on_ready
        )
    except OSError as error:
        raise _listen_failure(config, error) from error


def introduce(config: ServeConfig, prepared: Prepared, port: int) -> None:
    """Remember the endpoint for `vaultaire env`, then print how to use the server."""
    from vaultaire.cli import command_names

    endpoint = plan_endpoint(config, config.host, port)
    if endpoint != prepared.endpoint:
        from vaultaire.store import Store

        with Store.open(config.data, kind="command") as store:
            if store.kv.read_only_reason() is None:
                store.kv.commit(lambda txn: write_endpoint(txn, endpoint))
    start = Start(
        endpoint=endpoint,
        data=config.data,
        root=prepared.root.principal,
        command=own_command(),
        version=version(),
        first=prepared.root.action == "created",
        secret_known=prepared.given,
        sample=shlex.quote(str(Path(__file__).parent.parent)),
        next_commands=tuple(
            name
            for name in ("stats", "du", "doctor", "key create --tenant me")
            if name.split()[0] in command_names()
        ),
    )
    print_lines(welcome(start))


def _listen_failure(config: ServeConfig, error: OSError) -> OSError | Failure:
    from socket import gaierror

    where = f"{config.host}:{config.port}"
    if error.errno == errno.EADDRINUSE:
        return Failure(
            f"{where} is in use by another program; stop that one, or choose another port: "
            f"--listen {config.host}:{config.port + 1 if config.port < 65535 else 0}"
        )
    if error.errno == errno.EACCES and error.filename is None:
        return Failure(f"{where} is not allowed for this user; choose a port above 1023 with --listen")
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, gaierror):
        return Failure(
            f"{where} is no address of this machine; use --listen with one that is, or 0.0.0.0 for all"
        )
    return error
