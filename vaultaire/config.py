"""What `vaultaire serve` runs with: one frozen value, handed from the command line to supervisor and workers.

Options, environment and file are parsed by `vaultaire.config_resolve` (the settings themselves, once, are a table in
`vaultaire.config_settings`); from here on the values are trusted. The value crosses a process border as JSON (`to_json`,
`from_json`), never by inheritance.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vaultaire.plans import DEFAULT_PLAN, PLANS, Plan

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """Settings of one server. Paths are absolute; times are seconds; sizes are bytes."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 9000  # 0: any free port; the supervisor prints the one it got
    workers: int = 1
    tls_cert: Path | None = None  # both or none
    tls_key: Path | None = None
    stall_timeout_seconds: float = 30.0  # without progress in either direction
    head_timeout_seconds: float = 15.0  # from the first byte of a request head to its last
    grace_seconds: float = 10.0  # from SIGTERM to exit
    memory_budget_bytes: int = 160 * MIB  # per worker, for everything held for clients
    plan: Plan = PLANS[DEFAULT_PLAN]  # of tenants without a limit of their own
    domains: tuple[str, ...] = ()  # lower case; `bucket.DOMAIN` is virtual-host style
    collection_bytes_per_second: int = 64 * MIB  # copied by collection, at most; 0: no limit
    archive_after_days: float = 0.0  # since the last write: see `vaultaire.archiving`; 0: never
    upload_expiry_days: float = 7.0  # without activity, unless a lifecycle rule decides; 0: never
    scrub_days: float = 7.0  # in which every pack is read and verified once; 0: never
    parity_percent: int | None = None  # of the packs; None: as it was set before
    metrics: Literal["key", "public", "off"] = "key"  # who may read /-/metrics: see `vaultaire.metrics.page`
    metrics_token_file: Path | None = None
    metrics_buckets: int = 100  # with a label of their own
    access_log: str | None = None  # an absolute path, or "-": standard output
    access_log_format: Literal["json", "combined"] = "json"
    audit_log: str | None = None  # likewise

    @property
    def tls(self) -> bool:
        return self.tls_cert is not None

    def to_json(self) -> str:
        fields = dataclasses.asdict(self)
        return json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in fields.items()})

    @classmethod
    def from_json(cls, text: str) -> ServeConfig:
        fields = json.loads(text)
        for name in ("data", "tls_cert", "tls_key", "metrics_token_file"):
            if fields[name] is not None:
                fields[name] = Path(fields[name])
        fields["domains"] = tuple(fields["domains"])
        fields["plan"] = Plan(**fields["plan"])
        return cls(**fields)
