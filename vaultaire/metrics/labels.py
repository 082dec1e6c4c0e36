"""Which buckets have a label of their own in metrics: a bounded number, the same ones in every process.

The names that were given a label stand in `run/metrics.buckets`, one a line, appended under a `flock`; they keep it
until the server starts anew, also when the bucket is gone. At a start the oldest buckets come first. All others share
the label `_other`, which no bucket can be called. Only names of buckets that exist may be asked for: what strangers
send never makes a label.
"""

from __future__ import annotations

import fcntl
import logging
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

OTHER: Final = "_other"
FILE: Final = "metrics.buckets"

log = logging.getLogger("vaultaire.metrics")


class BucketLabels:
    """One thread per instance; any number of processes."""

    def __init__(self, directory: Path, limit: int) -> None:
        """`directory`: the store's `run/`; `limit`: how many buckets may have a label."""
        self._path = directory / FILE
        self._limit = limit
        self._known: set[str] = set()

    def label(self, bucket: str) -> str:
        """Its own name or `OTHER`."""
        if bucket in self._known:
            return bucket
        if len(self._known) >= self._limit:
            return OTHER
        try:
            self._claim(bucket)
        except OSError as error:
            log.warning("%s: %s; buckets that are new share the label %s", self._path, error, OTHER)
            self._limit = len(self._known)
        return bucket if bucket in self._known else OTHER

    def _claim(self, bucket: str) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # held for microseconds, once per bucket and process
            names = os.pread(fd, os.fstat(fd).st_size, 0).decode("ascii", "replace").split("\n")[:-1]
            if bucket not in names and len(names) < self._limit:
                os.write(fd, f"{bucket}\n".encode())
                names.append(bucket)
            self._known.update(names[: self._limit])
        finally:
            os.close(fd)
