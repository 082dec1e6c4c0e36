"""All metrics by name: type, labels, meaning. docs/metrics.md says more; a test holds the two against each other.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Family:
    name: str  # of a counter: with its `_total`
    type: Literal["counter", "gauge", "histogram"]
    help: str  # one line
    labels: tuple[str, ...] = ()


# Counted by every process (`slots`).
REQUESTS: Final = "vaultaire_s3_requests_total"
SECONDS: Final = "vaultaire_s3_request_seconds"
BYTES: Final = "vaultaire_s3_bytes_total"
ADDED: Final = "vaultaire_s3_added_bytes_total"
ERRORS: Final = "vaultaire_s3_errors_total"
REFUSED: Final = "vaultaire_s3_refused_total"
DROPPED: Final = "vaultaire_log_dropped_lines_total"

# Upper bounds of the histogram's buckets. A page that is warm takes under a millisecond, a large upload minutes.
SECONDS_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # fmt: skip

COUNTED: Final = (
    Family(REQUESTS, "counter", "S3 requests that are over.", ("operation", "bucket", "status")),
    Family(
        SECONDS,
        "histogram",
        "Time from the head of a request to the last byte of its answer.",
        ("operation",),
    ),
    Family(BYTES, "counter", "Bytes of bodies, as they went over the wire.", ("direction", "bucket")),
    Family(
        ADDED,
        "counter",
        "Bytes that successful uploads added to the store, after deduplication and compression.",
        ("bucket",),
    ),
    Family(ERRORS, "counter", "S3 requests that were answered with an error, by its S3 code.", ("code",)),
    Family(REFUSED, "counter", "S3 requests refused by a limit of the server.", ("reason",)),
    Family(DROPPED, "counter", "Lines that could not be written to a log.", ("log",)),
)

_BUCKET = ("bucket",)
_PROCESS = ("process",)

# What the store says when it is asked (`figures`).
SHOWN: Final = (
    Family(
        "vaultaire_build_info",
        "gauge",
        "Version of Vaultaire and of Python; always 1.",
        ("version", "python"),
    ),
    Family("vaultaire_processes", "gauge", "Server processes that live now.", ("kind",)),
    Family("vaultaire_process_start_time_seconds", "gauge", "When the process began, since 1970.", _PROCESS),
    Family("vaultaire_process_cpu_seconds_total", "counter", "CPU time of the process.", _PROCESS),
    Family(
        "vaultaire_process_anonymous_memory_bytes",
        "gauge",
        "Memory that belongs to the process alone, without mapped files (RssAnon).",
        _PROCESS,
    ),
    Family("vaultaire_process_open_fds", "gauge", "Open file descriptors of the process.", _PROCESS),
    Family("vaultaire_store_buckets", "gauge", "Buckets."),
    Family("vaultaire_store_objects", "gauge", "Object versions, delete markers not counted."),
    Family("vaultaire_store_logical_bytes", "gauge", "What clients stored: the sizes of all versions."),
    Family("vaultaire_store_unique_bytes", "gauge", "Bytes left after deduplication, before compression."),
    Family("vaultaire_store_stored_bytes", "gauge", "What packs and metadata take on the disk."),
    Family("vaultaire_store_chunks", "gauge", "Chunks with a place."),
    Family("vaultaire_store_packs", "gauge", "Pack files.", ("state",)),
    Family("vaultaire_store_commits_total", "counter", "Commits of the metadata since the store was made."),
    Family("vaultaire_store_readonly", "gauge", "1: the store takes no writes (see the log for the reason)."),
    Family("vaultaire_dedup_ratio", "gauge", "Logical bytes by unique bytes."),
    Family("vaultaire_compression_ratio", "gauge", "Unique bytes by stored bytes."),
    Family("vaultaire_bucket_objects", "gauge", "Object versions of the bucket.", _BUCKET),
    Family("vaultaire_bucket_logical_bytes", "gauge", "Sizes of all versions of the bucket.", _BUCKET),
    Family(
        "vaultaire_bucket_unique_bytes", "gauge", "Raw bytes of the chunks that the bucket needs.", _BUCKET
    ),
    Family("vaultaire_bucket_stored_bytes", "gauge", "What these chunks take in packs.", _BUCKET),
    Family("vaultaire_bucket_exclusive_bytes", "gauge", "Raw bytes that only this bucket names.", _BUCKET),
    Family(
        "vaultaire_bucket_last_write_timestamp_seconds",
        "gauge",
        "When an object was last written to the bucket, since 1970.",
        _BUCKET,
    ),
    Family(
        "vaultaire_buckets_measured_timestamp_seconds",
        "gauge",
        "When unique, stored and exclusive bytes of buckets were counted, since 1970.",
    ),
    Family("vaultaire_gc_running", "gauge", "1: collection is at work, or waits for running requests."),
    Family("vaultaire_gc_runs_total", "counter", "Rounds of collection that ended."),
    Family(
        "vaultaire_gc_reclaimed_bytes_total", "counter", "Bytes that collection gave back, copies deducted."
    ),
    Family("vaultaire_gc_last_success_timestamp_seconds", "gauge", "When a round of collection last ended."),
    Family("vaultaire_gc_condemned_packs", "gauge", "Packs that collection is emptying."),
    Family("vaultaire_gc_missing_chunks", "gauge", "Chunks that objects name and that are not there."),
    Family("vaultaire_scrub_running", "gauge", "1: a pass over all packs is under way."),
    Family("vaultaire_scrub_pass_bytes", "gauge", "Bytes of all packs, when this or the last pass began."),
    Family("vaultaire_scrub_done_bytes", "gauge", "Of these, what this or the last pass has read."),
    Family(
        "vaultaire_scrub_last_success_timestamp_seconds", "gauge", "When a pass over all packs last ended."
    ),
    Family("vaultaire_scrub_damaged_places", "gauge", "Damage that scrubbing found and that is still there."),
    Family("vaultaire_verify_last_timestamp_seconds", "gauge", "When `vaultaire verify` last ended."),
    Family("vaultaire_verify_findings", "gauge", "What it found to be wrong."),
    Family("vaultaire_parity_protected_packs", "gauge", "Sealed packs with a parity sidecar."),
    Family(
        "vaultaire_repair_waiting_packs", "gauge", "Packs that are known to be damaged and wait to be mended."
    ),
    Family("vaultaire_journal_bytes", "gauge", "Files of the journal."),
    Family("vaultaire_checkpoint_bytes", "gauge", "Checkpoints."),
    Family("vaultaire_checkpoint_last_timestamp_seconds", "gauge", "When the newest checkpoint was made."),
    Family("vaultaire_lmdb_used_bytes", "gauge", "Pages of LMDB in use."),
    Family("vaultaire_lmdb_map_bytes", "gauge", "How large LMDB may become."),
    Family("vaultaire_lmdb_file_bytes", "gauge", "Length of LMDB's file."),
    Family("vaultaire_disk_free_bytes", "gauge", "Free bytes of the filesystem."),
    Family("vaultaire_disk_available_bytes", "gauge", "Of these, what new data may take."),
    Family("vaultaire_disk_size_bytes", "gauge", "Size of the filesystem."),
)

FAMILIES: Final = (*COUNTED, *SHOWN)
