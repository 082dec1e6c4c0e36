"""Counting requests: one call per request, a microsecond or two, in memory shared with the other workers.

Cardinality is bounded: operations, statuses and error codes are S3's own; a bucket has a label only if it exists, and
only so many of them (`labels`). When the file of a worker is nearly full, buckets that it has not met yet count as
`_other`; if even that has no place the count is lost, and only the sum of another label misses it.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from vaultaire.metrics.families import (
    ADDED,
    BYTES,
    DROPPED,
    ERRORS,
    REFUSED,
    REQUESTS,
    SECONDS,
    SECONDS_BOUNDS,
)
from vaultaire.metrics.labels import OTHER
from vaultaire.metrics.text import Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultaire.metrics.labels import BucketLabels
    from vaultaire.metrics.slots import Key, Slot
    from vaultaire.s3.observation import Observation

UNKNOWN: Final = "Unknown"  # refused before the operation was known: a wrong signature, a malformed path
_SPARE_BYTES: Final = 256 << 10  # for what has no bucket's name in it
_NANOSECONDS: Final = 1_000_000_000
_HISTOGRAM_WORDS: Final = len(SECONDS_BOUNDS) + 2  # the last one: the sum, in nanoseconds


class RequestMetrics:
    """One thread."""

    def __init__(self, slot: Slot, labels: BucketLabels) -> None:
        self._slot = slot
        self._labels = labels
        # Indices of words by what is at hand in a request: no strings are joined for it.
        self._requests: dict[tuple[str, str, int], int] = {}
        self._words: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, int] = {}

    def observe(self, seen: Observation) -> None:
        """Count a request that is over."""
        words = self._slot.words
        operation = seen.operation.value if seen.operation is not None else UNKNOWN
        bucket = self._labels.label(seen.found.name) if seen.found is not None else ""
        place = self._requests.get((operation, bucket, seen.status))
        if place is None:
            place = self._find_request(operation, bucket, seen.status)
        if place:
            words[place] += 1
        place = self._seconds.get(operation)
        if place is None:
            place = self._slot.find((SECONDS, operation), _HISTOGRAM_WORDS) or 0
            self._seconds[operation] = place
        if place:
            seconds = seen.ended - seen.started
            words[place + bisect_left(SECONDS_BOUNDS, seconds)] += 1
            words[place + _HISTOGRAM_WORDS - 1] += int(seconds * _NANOSECONDS)
        if seen.bytes_in:
            self._add("in", bucket, seen.bytes_in)
        if seen.bytes_out:
            self._add("out", bucket, seen.bytes_out)
        if (added := seen.added_bytes) > 0:
            self._add("added", bucket, added)
        if seen.code is not None:
            self._add("code", seen.code, 1)
        if seen.refused is not None:
            self._add("refused", seen.refused, 1)

    def dropped(self, log: str, lines: int) -> None:
        """Lines of `log` could not be written."""
        self._add("dropped", log, lines)

    def _add(self, what: str, label: str, count: int) -> None:
        place = self._words.get((what, label))
        if place is None:
            place = self._words[what, label] = self._find_word(what, label)
        if place:
            self._slot.words[place] += count

    def _find_request(self, operation: str, bucket: str, status: int) -> int:
        place = self._find((REQUESTS, operation, bucket, str(status)), bucket, 2)
        self._requests[operation, bucket, status] = place
        return place

    def _find_word(self, what: str, label: str) -> int:
        match what:
            case "in" | "out":
                return self._find((BYTES, what, label), label, 2)
            case "added":
                return self._find((ADDED, label), label, 1)
            case "code":
                return self._find((ERRORS, label))
            case "refused":
                return self._find((REFUSED, label))
        return self._find((DROPPED, label))

    def _find(self, key: Key, bucket: str = "", at: int = 0) -> int:
        """The word of `key`, or of the same with `OTHER` at position `at`; 0: there is no room (word 0 is the header)."""
        named = bucket not in ("", OTHER)
        place = self._slot.find(key, spare=_SPARE_BYTES if named else 0)
        if place is None and named:
            place = self._slot.find((*key[:at], OTHER, *key[at + 1 :]))
        return place or 0


def split(
    totals: Mapping[Key, tuple[int, ...]],
) -> tuple[dict[Key, float], dict[Key, Histogram]]:
    """What all processes counted, as samples and histograms. Entries of another version of the program are left out."""
    samples: dict[Key, float] = {}
    histograms: dict[Key, Histogram] = {}
    for key, values in totals.items():
        labels = _LABELS.get(key[0])
        if key[0] == SECONDS:
            if len(key) == 2 and len(values) == _HISTOGRAM_WORDS:
                histograms[key] = Histogram(values[:-1], values[-1] / _NANOSECONDS)
        elif labels is not None and len(key) == 1 + labels and len(values) == 1:
            samples[key] = values[0]
    return samples, histograms


_LABELS: Final = {REQUESTS: 3, BYTES: 2, ADDED: 1, ERRORS: 1, REFUSED: 1, DROPPED: 1}
