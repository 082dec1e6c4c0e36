"""What collection tells: the progress of a round, and the reports that it leaves for `stats`, metrics and the next round.

Each function that saves is one short commit or a few. Blocking.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cas.catalog import statistics as pack_statistics
from index import quotas
from index.counters import statistics as name_statistics
from vaultaire.collection_due import Standing
from vaultaire.reports import get_report, put_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from index.kv import OrderedMap, Transaction
    from vaultaire.survey import Usage

SUBJECT: Final = "collection"  # of the report on rounds
BUCKETS_SUBJECT: Final = "buckets"  # of the report on what buckets hold

ERRORS_KEPT: Final = 20
CORRECTIONS_PER_COMMIT: Final = 500  # buckets; bounds how long the write lock is held

log = logging.getLogger("vaultaire.collection")


@dataclass(slots=True)
class Progress:
    """Of one round, or of all that one command did. Sizes in bytes."""

    step: str = "idle"
    removed_packs: int = 0
    removed_bytes: int = 0  # stored bytes of the packs removed
    copied_bytes: int = 0  # stored bytes written for what was live in them
    moved_objects: int = 0  # small ones, from the database to packs
    moved_bytes: int = 0  # raw
    moved_stored_bytes: int = 0  # what they take in packs
    lacks_room: bool = False  # something was not done, for the disk has no room for copies
    condemned_packs: int = 0  # still to be removed
    kept_packs: int = 0  # condemned, and kept since something live in them cannot be read
    missing_chunks: int = 0  # named, but not there
    complete: bool = True  # all that is named could be followed
    errors: list[str] = field(default_factory=list)  # the first of what could not be read
    marked_seconds: float = 0.0  # time spent on marking

    @property
    def freed_bytes(self) -> int:
        """On the disk now. What small objects took in the database is free for other rows, not for the disk."""
        return self.removed_bytes - self.copied_bytes - self.moved_stored_bytes

    def tell(self, errors: Sequence[str]) -> None:
        """Remember the first of them."""
        for error in errors:
            if len(self.errors) < ERRORS_KEPT and error not in self.errors:
                self.errors.append(error)

    def note(self, incomplete: bool, errors: Sequence[str], missing: int) -> None:
        """What a walk over all manifests has come to."""
        self.complete &= not incomplete
        self.missing_chunks = max(self.missing_chunks, missing)
        self.tell(errors)
        for error in errors:
            log.error("while marking: %s", error)
        if incomplete:
            log.error(
                "something that objects name cannot be read: nothing they may need is dropped until it is "
                "repaired or deleted (vaultaire verify names it)"
            )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "freed_bytes": self.freed_bytes}


def standing_now(kv: OrderedMap, now_seconds: float) -> Standing:
    with kv.snapshot() as reader:
        names = name_statistics(reader)
        packs = pack_statistics(reader)
        logical = names.logical_bytes - names.inline_bytes
        return Standing(now_seconds, reader.sequence, logical, packs.unique_bytes)


def saved_standing(kv: OrderedMap) -> Standing | None:
    """That of the last round, whoever made it."""
    with kv.snapshot() as reader:
        report = get_report(reader, SUBJECT)
    try:
        return Standing(**report["standing"]) if report else None
    except (KeyError, TypeError):
        return None  # of another version


def save_progress(
    kv: OrderedMap, progress: Progress, standing: Standing | None, now_ms: int, *, ended: bool = False
) -> None:
    told = progress.as_dict()
    saved = asdict(standing) if standing is not None else None

    def commit(txn: Transaction) -> None:
        before = get_report(txn, SUBJECT) or {}
        total = before.get("total_freed_bytes", 0)
        report = {"at_ms": now_ms, "round": told, "standing": saved}
        report["ended_ms"] = now_ms if ended else before.get("ended_ms")
        report["rounds"] = before.get("rounds", 0) + ended
        report["total_freed_bytes"] = total + (told["freed_bytes"] if ended else 0)
        put_report(txn, SUBJECT, report)

    kv.commit(commit)


def save_usage(kv: OrderedMap, usage: Usage, now_ms: int, seconds: float) -> None:
    """What each bucket holds, for `stats`; and for quotas what each really takes. `seconds`: what the count took."""
    buckets = {str(bucket_id): asdict(found) for bucket_id, found in usage.buckets.items()}
    report = {
        "at_ms": now_ms,
        "seconds": round(seconds, 3),
        "complete": not usage.incomplete,
        "buckets": buckets,
    }
    kv.commit(lambda txn: put_report(txn, BUCKETS_SUBJECT, report))
    corrections = [] if usage.incomplete else list(usage.corrections.items())
    for first in range(0, len(corrections), CORRECTIONS_PER_COMMIT):
        batch = corrections[first : first + CORRECTIONS_PER_COMMIT]
        kv.commit(partial(_correct, batch))


def _correct(corrections: Sequence[tuple[int, int]], txn: Transaction) -> None:
    """Let quotas know what buckets really take. Exact beside uploads: what came since was counted since."""
    for bucket_id, correction_bytes in corrections:
        quotas.correct(txn, bucket_id, correction_bytes)
