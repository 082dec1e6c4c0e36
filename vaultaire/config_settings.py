"""Every setting of the server, once: options of `serve`, variables, file, help texts and documentation are made of this.

A setting `stall_timeout` is the option `--stall-timeout`, the environment variable `VAULTAIRE_STALL_TIMEOUT` and the
key `stall_timeout` of the configuration file. To add one: a row in SETTINGS, a field in `vaultaire.config.ServeConfig`,
and `vaultaire config example > contrib/vaultaire.toml`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultaire.config_values import (
    Address,
    Choice,
    DomainName,
    ExistingFile,
    Folder,
    LogFile,
    Number,
    PlanName,
    Size,
    Text,
    Time,
    Whole,
)
from vaultaire.plans import DEFAULT_PLAN

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultaire.config_values import Given, Kind

MIB: Final = 1 << 20
DEFAULT_DATA: Final = "./vaultaire-data"
PREFIX: Final = "VAULTAIRE_"


def default_workers() -> int:
    """One up to 2 cores (another process would only compete with it), then half of them, for threads use the rest."""
    if sys.platform == "darwin":  # no robust semaphores: a killed worker could stop its siblings
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


@dataclass(frozen=True, slots=True)
class Setting:
    """`default`: as it would stand in the file; None: `default_text` says what holds then, `compute_default` makes it."""

    name: str
    group: str  # heading in the example file
    kind: Kind
    default: Given | None
    help: str  # one sentence; with a full stop
    field: str = ""  # of ServeConfig, if it is not `name`
    default_text: str = ""
    compute_default: Callable[[], object] | None = None
    example: str = ""  # for the file, where there is no default
    many: bool = False  # a list: an array in the file, divided by spaces in the variable, the option repeated
    has_option: bool = True  # secrets have none: other users see a process's arguments
    secret: bool = False

    @property
    def option(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"{PREFIX}{self.name.upper()}"

    @property
    def shown_default(self) -> str:
        return self.default_text if self.default is None else str(self.default)


SETTINGS: Final = (
    Setting("data", "Store", Folder(), DEFAULT_DATA, "Directory of the store."),
    Setting(
        *("listen", "Network", Address(), "127.0.0.1:9000"),
        help="Address to listen on; 0.0.0.0:9000 is all of this machine's.",
    ),
    Setting(
        *("domain", "Network", DomainName(), None, "Serve buckets as hosts BUCKET.NAME too."),
        field="domains",
        default_text="none",
        compute_default=tuple,
        example='["s3.example.org"]',
        many=True,
    ),
    Setting(
        *("tls_cert", "Network", ExistingFile(), None, "Certificate chain (PEM): https. Needs tls_key."),
        default_text="none",
        example='"/etc/vaultaire/cert.pem"',
    ),
    Setting(
        *("tls_key", "Network", ExistingFile(), None, "Its private key (PEM), not encrypted."),
        default_text="none",
        example='"/etc/vaultaire/key.pem"',
    ),
    Setting(
        *("workers", "Processes and memory", Whole(1, 256), None, "Server processes."),
        default_text="half the cores",
        compute_default=default_workers,
        example="2",
    ),
    Setting(
        *("memory_budget", "Processes and memory", Size(16 * MIB), "160MiB"),
        help="Memory for everything that is held for clients, per worker; at least 16MiB.",
        field="memory_budget_bytes",
    ),
    Setting(
        *("stall_timeout", "Times", Time(), "30s"),
        help="Drop a client that makes no progress for so long.",
        field="stall_timeout_seconds",
    ),
    Setting(
        *("head_timeout", "Times", Time(), "15s"),
        help="Time a client has to send the head of a request.",
        field="head_timeout_seconds",
    ),
    Setting(
        *("grace", "Times", Time(), "10s"),
        help="Time from SIGTERM to exit, for running requests to end.",
        field="grace_seconds",
    ),
    Setting(
        *("plan", "Limits", PlanName(), DEFAULT_PLAN),
        help="Limit of tenants that have none of their own: core (no limit), stored.ge (1,000 requests a minute), "
        "stored.cloud (10,000), or a plan of the file.",
    ),
    Setting(
        *("parity", "Care", Whole(0, 100, "PERCENT"), None),
        help="Parity beside the packs, to mend damage: percent of their size, 0 for none; kept in the store.",
        field="parity_percent",
        default_text="10, or as it was set before",
        example="10",
    ),
    Setting(
        *("scrub_days", "Care", Number(0, 3650, "DAYS"), 7),
        help="Read and verify everything once in so many days; 0 turns it off.",
    ),
    Setting(
        *("collection_rate", "Care", Size(), "64MiB"),
        help="Bytes a second that collection may copy to give back the space of what was deleted; 0: no limit.",
        field="collection_bytes_per_second",
    ),
    Setting(
        *("archive_after", "Care", Number(0, 36500, "DAYS"), 0),
        help="Store anew, harder compressed, what nothing was written to for so many days, while the machine is idle; "
        "0: never.",
        field="archive_after_days",
    ),
    Setting(
        *("upload_expiry", "Care", Number(0, 36500, "DAYS"), 7),
        help="Abort multipart uploads that got nothing for so many days, where no lifecycle rule decides; 0: never.",
        field="upload_expiry_days",
    ),
    Setting(
        *("metrics", "Numbers and logs", Choice("key", "public", "off"), "key"),
        help="Who may read /-/metrics: whoever gives an admin or read-only key of the root tenant, everybody, nobody.",
    ),
    Setting(
        *("metrics_token_file", "Numbers and logs", ExistingFile(), None),
        help="File with a token that may read /-/metrics too (Authorization: Bearer).",
        default_text="none",
        example='"/etc/vaultaire/metrics-token"',
    ),
    Setting(
        *("metrics_buckets", "Numbers and logs", Whole(0, 1000), 100),
        help="So many buckets have a label of their own in metrics, the oldest first; all others share one.",
    ),
    Setting(
        *("access_log", "Numbers and logs", LogFile(), "off"),
        help="One line per request, to this file; -: to standard output.",
    ),
    Setting(
        *("access_log_format", "Numbers and logs", Choice("json", "combined"), "json"),
        help="Of the access log: JSON, or Apache's combined format.",
    ),
    Setting(
        *("audit_log", "Numbers and logs", LogFile(), "off"),
        help="Changes of keys, limits, buckets, settings and locks, and deletes, to this file; -: to standard output.",
    ),
    Setting(
        *("root_access_key", "Root key", Text(), None),
        help="With root_secret_key: the root key, at a first start instead of a random one, later in place of the stored one.",
        default_text="random at the first start",
        example='"admin"',
        has_option=False,
    ),
    Setting(
        *("root_secret_key", "Root key", Text(), None),
        help="8 to 128 characters. A file that holds it must be readable by its owner alone.",
        default_text="random at the first start",
        example='"..."',
        has_option=False,
        secret=True,
    ),
)

BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
CONFIG_VARIABLE: Final = f"{PREFIX}CONFIG"
