"""`vaultaire serve`: make the store if need be, make sure of the root key, run the supervisor, say how to connect.

The store is opened here only for the set-up, and closed before the first worker starts. `serve` alone creates a store.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vaultaire.cli.endpoint import Endpoint, plan_endpoint, read_endpoint, url_of, write_endpoint
from vaultaire.cli.options import ByteSize, Domain, Duration, ListenAddress, LogPath, data_option
from vaultaire.cli.output import Failure, own_command, print_lines, version
from vaultaire.cli.welcome import Start, welcome
from vaultaire.config import MIB, ServeConfig
from vaultaire.plans import DEFAULT_PLAN, PLANS

if TYPE_CHECKING:
    from vaultaire.access import Principal, RootKey

log = logging.getLogger(__name__)

ROOT_ACCESS_KEY = "VAULTAIRE_ROOT_ACCESS_KEY"
ROOT_SECRET_KEY = "VAULTAIRE_ROOT_SECRET_KEY"


def default_workers() -> int:
    """One up to 2 cores (another process would only compete with it), then half of them, for threads use the rest."""
    if sys.platform == "darwin":  # no robust semaphores: a killed worker could stop its siblings
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


_FILE = click.Path(exists=True, dir_okay=False, readable=True, resolve_path=True, path_type=Path)


@click.command("serve")
@data_option
@click.option(
    "--listen",
    type=ListenAddress(),
    default="127.0.0.1:9000",
    show_default=True,
    envvar="VAULTAIRE_LISTEN",
    show_envvar=True,
    help="Address to listen on; 0.0.0.0:9000 is all of this machine's.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    envvar="VAULTAIRE_WORKERS",
    show_envvar=True,
    help="Server processes.  [default: half the cores]",
)
@click.option(
    "--tls-cert",
    type=_FILE,
    envvar="VAULTAIRE_TLS_CERT",
    show_envvar=True,
    help="Certificate chain (PEM): https.",
)
@click.option(
    "--tls-key", type=_FILE, envvar="VAULTAIRE_TLS_KEY", show_envvar=True, help="Its private key (PEM)."
)
@click.option(
    "--stall-timeout",
    type=Duration(),
    default="30",
    show_default=True,
    envvar="VAULTAIRE_STALL_TIMEOUT",
    show_envvar=True,
    help="Drop a client that makes no progress for so many seconds.",
)
@click.option(
    "--head-timeout",
    type=Duration(),
    default="15",
    show_default=True,
    envvar="VAULTAIRE_HEAD_TIMEOUT",
    show_envvar=True,
    help="Seconds a client has to send the head of a request.",
)
@click.option(
    "--grace",
    type=Duration(),
    default="10",
    show_default=True,
    envvar="VAULTAIRE_GRACE",
    show_envvar=True,
    help="Seconds from SIGTERM to exit, for running requests to end.",
)
@click.option(
    "--memory-budget",
    type=ByteSize(16 * MIB),
    default="192MiB",
    show_default=True,
    envvar="VAULTAIRE_MEMORY_BUDGET",
    show_envvar=True,
    help="Memory for everything that is held for clients, per worker.",
)
@click.option(
    "--collection-rate",
    type=ByteSize(0),
    default="64MiB",
    show_default=True,
    envvar="VAULTAIRE_COLLECTION_RATE",
    show_envvar=True,
    help="Bytes a second that collection may copy to give back the space of what was deleted; 0: no limit.",
)
@click.option(
    "--upload-expiry",
    type=click.FloatRange(0),
    default=7,
    show_default=True,
    envvar="VAULTAIRE_UPLOAD_EXPIRY",
    show_envvar=True,
    help="Abort multipart uploads that got nothing for so many days, where no lifecycle rule decides; 0: never.",
)
@click.option(
    "--parity",
    type=click.IntRange(0, 100),
    envvar="VAULTAIRE_PARITY",
    show_envvar=True,
    metavar="PERCENT",
    help="Parity beside the packs, to mend damage: percent of their size, 0 for none; kept in the store."
    "  [default: 10]",
)
@click.option(
    "--scrub-days",
    type=click.FloatRange(0, 3650),
    default=7.0,
    show_default=True,
    envvar="VAULTAIRE_SCRUB_DAYS",
    show_envvar=True,
    help="Read and verify everything once in so many days; 0 turns it off.",
)
@click.option(
    "--domain",
    "domains",
    type=Domain(),
    multiple=True,
    envvar="VAULTAIRE_DOMAIN",
    show_envvar=True,
    help="Serve buckets as hosts BUCKET.NAME too; may be given several times.",
)
@click.option(
    "--plan",
    type=click.Choice(list(PLANS)),
    default=DEFAULT_PLAN,
    show_default=True,
    envvar="VAULTAIRE_PLAN",
    show_envvar=True,
    help="Limit of tenants that have none of their own: stored.ge 1,000 requests a minute, stored.cloud 10,000.",
)
@click.option(
    "--metrics",
    type=click.Choice(("key", "public", "off")),
    default="key",
    show_default=True,
    envvar="VAULTAIRE_METRICS",
    show_envvar=True,
    help="Who may read /-/metrics: whoever gives an admin or read-only key of the root tenant, everybody, nobody.",
)
@click.option(
    "--metrics-token-file",
    type=_FILE,
    envvar="VAULTAIRE_METRICS_TOKEN_FILE",
    show_envvar=True,
    help="File with a token that may read /-/metrics too (Authorization: Bearer).",
)
@click.option(
    "--metrics-buckets",
    type=click.IntRange(0, 1000),
    default=100,
    show_default=True,
    envvar="VAULTAIRE_METRICS_BUCKETS",
    show_envvar=True,
    help="So many buckets have a label of their own in metrics, the oldest first; all others share one.",
)
@click.option(
    "--access-log",
    type=LogPath(),
    default="off",
    show_default=True,
    envvar="VAULTAIRE_ACCESS_LOG",
    show_envvar=True,
    help="One line per request, to this file; -: to standard output.",
)
@click.option(
    "--access-log-format",
    type=click.Choice(("json", "combined")),
    default="json",
    show_default=True,
    envvar="VAULTAIRE_ACCESS_LOG_FORMAT",
    show_envvar=True,
    help="Of the access log: JSON, or Apache's combined format.",
)
@click.option(
    "--audit-log",
    type=LogPath(),
    default="off",
    show_default=True,
    envvar="VAULTAIRE_AUDIT_LOG",
    show_envvar=True,
    help="Changes of keys, limits, buckets, settings and locks, and deletes, to this file; -: to standard output.",
)
@click.pass_context
def command(
    ctx: click.Context,
    data: Path,
    listen: tuple[str, int],
    workers: int | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    stall_timeout: float,
    head_timeout: float,
    grace: float,
    memory_budget: int,
    collection_rate: int,
    upload_expiry: float,
    parity: int | None,
    scrub_days: float,
    domains: tuple[str, ...],
    plan: str,
    metrics: Literal["key", "public", "off"],
    metrics_token_file: Path | None,
    metrics_buckets: int,
    access_log: str | None,
    access_log_format: Literal["json", "combined"],
    audit_log: str | None,
) -> None:
    """Run the server; the first start creates the store and its root key.

    \b
    VAULTAIRE_ROOT_ACCESS_KEY and VAULTAIRE_ROOT_SECRET_KEY, if set, are the
    root key: at a first start instead of a random one, later in place of the
    one that is stored.
    """
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together: give both, or none for plain http")
    config = ServeConfig(
        data=data,
        host=listen[0],
        port=listen[1],
        workers=workers or default_workers(),
        tls_cert=tls_cert,
        tls_key=tls_key,
        stall_timeout_seconds=stall_timeout,
        head_timeout_seconds=head_timeout,
        grace_seconds=grace,
        memory_budget_bytes=memory_budget,
        collection_bytes_per_second=collection_rate,
        upload_expiry_days=upload_expiry,
        parity_percent=parity,
        scrub_days=scrub_days,
        domains=tuple(dict.fromkeys(domains)),
        plan=plan,
        metrics=metrics,
        metrics_token_file=metrics_token_file,
        metrics_buckets=metrics_buckets,
        access_log=access_log,
        access_log_format=access_log_format,
        audit_log=audit_log,
    )
    given = root_from_environment()
    _check_certificate(config)
    _check_token(config)
    ctx.exit(run(config, given))


def root_from_environment() -> Principal | None:
    """The root key that the operator chose, if any. Raises UsageError."""
    from vaultaire.access import InvalidKey, new_root

    access_key, secret_key = os.environ.get(ROOT_ACCESS_KEY), os.environ.get(ROOT_SECRET_KEY)
    if not access_key and not secret_key:
        return None
    if not access_key or not secret_key:
        raise click.UsageError(f"{ROOT_ACCESS_KEY} and {ROOT_SECRET_KEY} belong together: set both, or none")
    try:
        return new_root(access_key, secret_key)
    except InvalidKey as error:
        raise click.UsageError(f"{ROOT_ACCESS_KEY}, {ROOT_SECRET_KEY}: {error}") from error


def _check_certificate(config: ServeConfig) -> None:
    if config.tls_cert is None or config.tls_key is None:
        return
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_cert, config.tls_key)
        plan_endpoint(config, config.host, config.port)
    except (ssl.SSLError, ValueError) as error:
        raise click.UsageError(
            f"{config.tls_cert} and {config.tls_key} are not a certificate and its unencrypted private key in PEM "
            f"({error})"
        ) from error


def _check_token(config: ServeConfig) -> None:
    if config.metrics_token_file is None:
        return
    from vaultaire.metrics.page import BadToken, read_token

    try:
        read_token(config.metrics_token_file)
    except BadToken as error:
        raise click.UsageError(str(error)) from error


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
            ROOT_ACCESS_KEY,
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
