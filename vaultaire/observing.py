"""What a worker does with every request that is over: metrics, last writes, access log and audit log, in that order.

Nothing here may cost a request its answer: an error in it is logged, once a minute, and forgotten.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from index.buckets import list_buckets
from vaultaire import access_log, audit_log
from vaultaire.bucket_writes import BucketWrites
from vaultaire.log_file import LogFile, keep_writing
from vaultaire.metrics.labels import BucketLabels
from vaultaire.metrics.page import MetricsPage, read_token
from vaultaire.metrics.requests import RequestMetrics
from vaultaire.metrics.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from vaultaire.access import Keyring
    from vaultaire.config import ServeConfig
    from vaultaire.s3.observation import Observation
    from vaultaire.store import Store

COMPLAINT_SECONDS: Final = 60.0

log = logging.getLogger("vaultaire.observing")


class Observing:
    """One thread, but for `page`."""

    def __init__(self, store: Store, keyring: Keyring, config: ServeConfig) -> None:
        """Blocking. Raises BadToken, KvError, OSError."""
        run = store.directory / "run"
        labels = BucketLabels(run, config.metrics_buckets)
        with store.kv.snapshot() as reader:
            for bucket in sorted(list_buckets(reader).buckets, key=lambda bucket: bucket.id):
                labels.label(bucket.name)  # the oldest first, whoever is asked for later
        token = read_token(config.metrics_token_file) if config.metrics_token_file is not None else None
        self.page = MetricsPage(
            store,
            keyring,
            BucketLabels(run, config.metrics_buckets).label,
            access=config.metrics,
            token=token,
        )
        self.writes = BucketWrites(time.time)
        self._slot = Slot(run, "worker")
        self._metrics = RequestMetrics(self._slot, labels)
        self._access = LogFile(config.access_log) if config.access_log is not None else None
        self._audit = LogFile(config.audit_log) if config.audit_log is not None else None
        self._access_line: Callable[[Observation, float], bytes] = (
            access_log.combined_line if config.access_log_format == "combined" else access_log.json_line
        )
        self._quiet_until = 0.0

    def observe(self, seen: Observation) -> None:
        """Raises nothing, waits for nothing."""
        try:
            self._metrics.observe(seen)
            self.writes.observe(seen)
            if self._access is not None:
                self._access.add(self._access_line(seen, time.time()))
            if self._audit is not None and seen.operation in audit_log.AUDITED:
                for line in audit_log.request_lines(seen, time.time()):
                    self._audit.add(line)
        except Exception:
            if seen.ended >= self._quiet_until:
                self._quiet_until = seen.ended + COMPLAINT_SECONDS
                log.exception("request %s is missing in metrics or logs", seen.request_id)

    def start(self, nursery: trio.Nursery) -> None:
        """Write the logs until `nursery` is cancelled."""
        for name, log_file in (("access", self._access), ("audit", self._audit)):
            if log_file is not None:
                nursery.start_soon(keep_writing, log_file, partial(self._metrics.dropped, name))

    def close(self) -> None:
        """Idempotent."""
        self._slot.close()
