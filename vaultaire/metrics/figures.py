"""What the store says when metrics are asked for: one snapshot, the folders, /proc. Blocking; run it in a thread.

Costs a row per bucket and per pack (a second at some 20 TB), so `Figures` keeps them for a while that grows with what
they cost: a scrape every few seconds, or a stranger at a public page, takes a small part of one thread.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cas.catalog import PackState, iterate_packs
from cas.damage import packs_to_mend
from cas.pack import PackKind
from index import checkpoint
from index.buckets import list_buckets
from index.counters import statistics as name_statistics
from index.kv import KvError
from vaultaire.bucket_writes import get_writes
from vaultaire.cli.output import version
from vaultaire.collection_report import BUCKETS_SUBJECT, SUBJECT
from vaultaire.metrics.labels import OTHER
from vaultaire.parity import SUBJECT as PARITY_SUBJECT
from vaultaire.reports import get_report
from vaultaire.scrub import SUBJECT as SCRUB_SUBJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from index.kv import Reader
    from index.records import BucketRecord
    from vaultaire.metrics.slots import Key, Reading
    from vaultaire.store import Store

    Samples = dict[Key, float]

KEEP_SECONDS: Final = 5.0
KEEP_TIMES: Final = 20  # as long as it took, at least
_BUCKET_USAGE: Final = ("unique_bytes", "stored_bytes", "exclusive_bytes")


class Figures:
    """The figures of one store, counted now and then. Thread-safe."""

    def __init__(
        self, store: Store, label: Callable[[str], str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`label`: a bucket's label in metrics."""
        self._store = store
        self._label = label
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: Samples = {}
        self._until = 0.0

    def get(self) -> Samples:
        """Raises KvError, OSError."""
        with self._lock:
            began = self._monotonic()
            if began >= self._until:
                self._kept = collect(self._store, self._label)
                ended = self._monotonic()
                self._until = ended + max(KEEP_SECONDS, KEEP_TIMES * (ended - began))
            return self._kept


def collect(store: Store, label: Callable[[str], str]) -> Samples:
    """All of `families.SHOWN` but the processes. Raises KvError, OSError."""
    samples: Samples = {("vaultaire_build_info", version(), platform.python_version()): 1}
    with store.kv.snapshot() as reader:
        buckets = sorted(list_buckets(reader).buckets, key=lambda bucket: bucket.id)
        samples |= _of_store(store, reader, len(buckets))
        samples |= _of_buckets(reader, buckets, label)
        samples |= _of_care(reader)
    return samples | _of_disk(store)


def _of_store(store: Store, reader: Reader, buckets: int) -> Samples:
    names = name_statistics(reader)
    engine = store.kv.statistics()
    chunks = placed = pack_bytes = 0
    states = dict.fromkeys(PackState, 0)
    for _, row in iterate_packs(reader):
        states[PackState(row.state)] += 1
        pack_bytes += row.length
        if row.kind == PackKind.DATA:
            chunks += row.placed_chunks
            placed += row.placed_bytes
    unique, stored = placed + names.inline_bytes, pack_bytes + engine.used_bytes
    samples: Samples = {
        ("vaultaire_store_buckets",): buckets,
        ("vaultaire_store_objects",): names.objects,
        ("vaultaire_store_logical_bytes",): names.logical_bytes,
        ("vaultaire_store_unique_bytes",): unique,
        ("vaultaire_store_stored_bytes",): stored,
        ("vaultaire_store_chunks",): chunks,
        ("vaultaire_store_commits_total",): engine.sequence,
        ("vaultaire_store_readonly",): int(store.kv.read_only_reason() is not None),
        ("vaultaire_dedup_ratio",): names.logical_bytes / unique if unique else 1.0,
        ("vaultaire_compression_ratio",): unique / stored if stored else 1.0,
        ("vaultaire_journal_bytes",): engine.journal_bytes,
        ("vaultaire_checkpoint_bytes",): engine.checkpoint_bytes,
        ("vaultaire_lmdb_used_bytes",): engine.used_bytes,
        ("vaultaire_lmdb_map_bytes",): engine.map_bytes,
        ("vaultaire_lmdb_file_bytes",): engine.file_bytes,
    }
    for state, packs in states.items():
        samples["vaultaire_store_packs", state.name.lower()] = packs
    return samples


def _of_buckets(reader: Reader, buckets: Iterable[BucketRecord], label: Callable[[str], str]) -> Samples:
    """Buckets without a label of their own are added up; the newest of their times counts."""
    report = get_report(reader, BUCKETS_SUBJECT) or {}
    usage = report.get("buckets", {})
    samples: Samples = {}
    for bucket in buckets:
        name = label(bucket.name)
        names = name_statistics(reader, bucket.id)
        found = {"objects": names.objects, "logical_bytes": names.logical_bytes}
        if str(bucket.id) in usage:
            found |= {figure: usage[str(bucket.id)][figure] for figure in _BUCKET_USAGE}
        for figure, value in found.items():
            key = (f"vaultaire_bucket_{figure}", name)
            samples[key] = samples.get(key, 0) + value if name == OTHER else value
        last_ms = get_writes(reader, bucket.id).last_ms
        if last_ms:
            key = ("vaultaire_bucket_last_write_timestamp_seconds", name)
            samples[key] = max(samples.get(key, 0), last_ms / 1000)
    _put_time(samples, "vaultaire_buckets_measured_timestamp_seconds", report.get("at_ms"))
    return samples


def _of_care(reader: Reader) -> Samples:
    samples: Samples = {("vaultaire_repair_waiting_packs",): len(packs_to_mend(reader))}
    collection = get_report(reader, SUBJECT)
    if collection is not None:
        progress = collection["round"]
        samples |= {
            ("vaultaire_gc_running",): int(progress["step"] != "idle"),
            ("vaultaire_gc_runs_total",): collection.get("rounds", 0),
            ("vaultaire_gc_reclaimed_bytes_total",): max(0, collection["total_freed_bytes"]),
            ("vaultaire_gc_condemned_packs",): progress["condemned_packs"],
            ("vaultaire_gc_missing_chunks",): progress["missing_chunks"],
        }
        _put_time(samples, "vaultaire_gc_last_success_timestamp_seconds", collection["ended_ms"])
    scrub = get_report(reader, SCRUB_SUBJECT)
    if scrub is not None:
        samples |= {
            ("vaultaire_scrub_running",): int(scrub["running"]),
            ("vaultaire_scrub_pass_bytes",): scrub["total_bytes"],
            ("vaultaire_scrub_done_bytes",): scrub["done_bytes"],
            ("vaultaire_scrub_damaged_places",): len(scrub["damage"]),
        }
        last: dict[str, Any] = scrub["last"] or {}
        _put_time(samples, "vaultaire_scrub_last_success_timestamp_seconds", last.get("finished_ms"))
    verify = get_report(reader, "verify")
    if verify is not None:
        samples["vaultaire_verify_findings",] = verify["findings"]
        _put_time(samples, "vaultaire_verify_last_timestamp_seconds", verify["finished_ms"])
    parity = get_report(reader, PARITY_SUBJECT)
    if parity is not None:
        samples["vaultaire_parity_protected_packs",] = parity["packs_protected"]
    return samples


def _of_disk(store: Store) -> Samples:
    filesystem = os.statvfs(store.directory)
    disk = store.space.probe()
    samples: Samples = {
        ("vaultaire_disk_free_bytes",): disk.free,
        ("vaultaire_disk_available_bytes",): store.space.policy.available(disk),
        ("vaultaire_disk_size_bytes",): filesystem.f_blocks * filesystem.f_frsize,
    }
    with suppress(KvError, OSError):
        newest = checkpoint.newest(store.directory)
        _put_time(
            samples,
            "vaultaire_checkpoint_last_timestamp_seconds",
            int(newest.sidecar.stat().st_mtime * 1000) if newest is not None else None,
        )
    return samples


def _put_time(samples: Samples, name: str, time_ms: int | None) -> None:
    """A time that is not known has no sample: an alert on 1970 helps nobody."""
    if time_ms:
        samples[name,] = time_ms / 1000


# --- processes ----------------------------------------------------------------------------------------------------


def of_processes(readings: Iterable[Reading]) -> Samples:
    """Of the server's processes that live now, by what each left in its file, and by /proc where there is one."""
    samples: Samples = {}
    for reading in readings:
        if not reading.alive:
            continue
        kinds = ("vaultaire_processes", reading.kind)
        samples[kinds] = samples.get(kinds, 0) + 1
        name = f"{reading.kind}-{reading.number}"
        samples["vaultaire_process_start_time_seconds", name] = reading.started_seconds
        with suppress(OSError, ValueError, IndexError):
            samples |= _of_proc(Path(f"/proc/{reading.pid}"), name)
    return samples


def _of_proc(proc: Path, name: str) -> Samples:
    status = (proc / "status").read_text()
    anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    # The program's name, in parentheses, may hold anything; user and system time are 12th and 13th behind it.
    times = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
    return {
        ("vaultaire_process_anonymous_memory_bytes", name): int(anonymous.split()[1]) * 1024,
        ("vaultaire_process_cpu_seconds_total", name): sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
        ("vaultaire_process_open_fds", name): len(os.listdir(proc / "fd")),
    }
