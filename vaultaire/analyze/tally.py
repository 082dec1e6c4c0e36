"""Counters of what was looked at, and what follows from them. Pure.

For every part (all of it, a folder, a type) these hold, in bytes, and are never negative but for prefix and compression:

    unique = logical - dedup_saved            every different byte once, as `vaultaire stats` counts it
    stored = unique - compression_saved - prefix_saved + metadata

`metadata`: headers of frames (once more in the footers of packs), packs' own bytes, manifest nodes, and the pages of LMDB
without the inline objects in them. The store's is divided among its parts by what each causes.

**Estimates.** With all chunks in the set the figures are exact counts. Else new bytes are those of the new chunks in the
sample, divided by p, the share of all ids in it; with variance (1 - p) / p^2 x the sum of their squared lengths, for every
id is in the sample or not by itself (Horvitz and Thompson 1952; Poisson sampling). A ratio to all bytes of the same chunks
would do better where little repeats, but a few chunks that repeat without end spoil its interval, and zeros do. Parts
are divided by such ratios, then brought in line with the whole. Compression is a ratio, payload / raw of the frames that
were compressed, its variance that of 64 random groups (Wolter, Introduction to Variance Estimation, ch. 2). The
interval is two standard errors, both variances added. It covers the chance of the sample, not the 2 % of the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from cas.chunk import ID_BYTES, Identity
from cas.openpack import TARGET_BYTES
from cas.pack import PackHeader, PackKind, encode_footer
from vaultaire.analyze.pages import PAGE_BYTES, Rows
from vaultaire.analyze.trial import Frames, Sighted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultaire.analyze.trial import Spread, Trial

PLACEMENT_KEY: Final = 32
PLACEMENT_VALUE: Final = 31
BASES_KEY: Final = 12
BASES_VALUE: Final = 8  # and an id for each
PACK_KEY: Final = 8
PACK_VALUE: Final = 72
FIXED_PAGES: Final = 7  # of tables that a store with one bucket and one key has a row or some in; measured
FOOTER_OFFSET: Final = 8  # of a frame in its pack's footer, beside its header
NORMAL_DEVIATES: Final = 2.0  # 95 %
LEAST_GROUPS: Final = 8  # with something in them, for a variance to mean anything
LEAST_CHUNKS: Final = 30  # likewise

_PACK_OVERHEAD: Final = len(PackHeader.of(Identity(bytes(16), bytes(32)), 0, PackKind.DATA).encode()) + len(
    encode_footer(0, [])
)


@dataclass(slots=True)
class Part:
    """Sums over the objects of one part."""

    objects: int = 0
    inline_objects: int = 0
    logical_bytes: int = 0
    inline_bytes: int = 0
    chunks: int = 0  # known ones included
    row_bytes: int = 0  # what the objects' records take, inline bytes included
    sighted: Sighted = field(default_factory=Sighted)
    data: Frames = field(default_factory=Frames)
    nodes: Frames = field(default_factory=Frames)

    @property
    def chunked_bytes(self) -> int:
        return self.logical_bytes - self.inline_bytes

    def take_inline(self, size: int, row_bytes: int) -> None:
        self.objects += 1
        self.inline_objects += 1
        self.logical_bytes += size
        self.inline_bytes += size
        self.row_bytes += row_bytes

    def take(self, trial: Trial, row_bytes: int) -> None:
        self.objects += 1
        self.logical_bytes += trial.size
        self.chunks += trial.chunks
        self.row_bytes += row_bytes
        self.sighted.merge(trial.sighted)
        self.data.merge(trial.data)
        self.nodes.merge(trial.nodes)

    def merge(self, other: Part) -> None:
        self.objects += other.objects
        self.inline_objects += other.inline_objects
        self.logical_bytes += other.logical_bytes
        self.inline_bytes += other.inline_bytes
        self.chunks += other.chunks
        self.row_bytes += other.row_bytes
        self.sighted.merge(other.sighted)
        self.data.merge(other.data)
        self.nodes.merge(other.nodes)


@dataclass(frozen=True, slots=True)
class Shares:
    """See the module."""

    logical_bytes: int
    unique_bytes: int
    payload_bytes: int  # inline objects included
    prefix_saved_bytes: int
    metadata_bytes: int
    new_chunks: int

    @property
    def stored_bytes(self) -> int:
        return self.payload_bytes + self.metadata_bytes

    @property
    def dedup_saved_bytes(self) -> int:
        return self.logical_bytes - self.unique_bytes

    @property
    def compression_saved_bytes(self) -> int:
        return self.unique_bytes - self.payload_bytes - self.prefix_saved_bytes


@dataclass(frozen=True, slots=True)
class Ratios:
    """What the parts that were seen of something say about all of it."""

    new_bytes: float  # of chunked bytes
    new_chunks: float  # per new byte
    payload: float  # of new bytes
    prefix_saved: float  # likewise
    headers: float  # bytes per new chunk, in frames and in footers
    with_bases: float  # frames per new chunk
    bases: float  # likewise

    @classmethod
    def of(cls, part: Part, level: int, instead: Ratios | None = None) -> Ratios:
        """`instead`: of a larger part, where this one has too little of its own."""
        sighted, data = part.sighted, part.data
        new, seen = sum(sighted.new_bytes[level:]), sum(sighted.seen_bytes[level:])
        headers = 2 * data.header_bytes + FOOTER_OFFSET * data.count
        other = instead or cls(1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
        return cls(
            new / seen if seen else other.new_bytes,
            sum(sighted.new_chunks[level:]) / new if new else other.new_chunks,
            data.payload_bytes / data.raw_bytes if data.raw_bytes else other.payload,
            data.prefix_saved_bytes / data.raw_bytes if data.raw_bytes else other.prefix_saved,
            headers / data.chunks if data.chunks else other.headers,
            data.with_bases / data.chunks if data.chunks else other.with_bases,
            data.bases / data.chunks if data.chunks else other.bases,
        )

    def with_new_bytes(self, ratio: float) -> Ratios:
        return replace(self, new_bytes=min(1.0, max(0.0, ratio)))


@dataclass(frozen=True, slots=True)
class Unweighed:
    """A part without its share of the store's metadata."""

    logical_bytes: int
    unique_bytes: int
    payload_bytes: int
    prefix_saved_bytes: int
    new_chunks: int
    frame_bytes: int  # headers, in packs and footers
    node_bytes: int
    with_bases: int  # frames
    bases: int  # of all of them

    def with_metadata(self, metadata_bytes: int) -> Shares:
        return Shares(
            self.logical_bytes,
            self.unique_bytes,
            self.payload_bytes,
            self.prefix_saved_bytes,
            metadata_bytes,
            self.new_chunks,
        )

    def count_bases(self, rows: Rows) -> int:
        """Count the rows of frames with bases; what they take."""
        if not self.with_bases:
            return 0
        return rows.add(BASES_KEY, BASES_VALUE + ID_BYTES * self.bases // self.with_bases, self.with_bases)


def weigh(part: Part, ratios: Ratios) -> Unweighed:
    """What a part comes to."""
    unique = round(part.chunked_bytes * ratios.new_bytes)
    new_chunks = round(unique * ratios.new_chunks)
    nodes = part.nodes
    return Unweighed(
        part.logical_bytes,
        unique + part.inline_bytes,
        round(unique * ratios.payload) + part.inline_bytes,
        round(unique * ratios.prefix_saved),
        new_chunks,
        round(new_chunks * ratios.headers),
        2 * nodes.header_bytes + nodes.payload_bytes + FOOTER_OFFSET * nodes.count,
        round(new_chunks * ratios.with_bases),
        round(new_chunks * ratios.bases),
    )


@dataclass(frozen=True, slots=True)
class Metadata:
    """Of a whole store, in bytes."""

    frames: int
    nodes: int
    packs: int
    pack_count: int
    pages: int  # inline objects not included

    @property
    def total(self) -> int:
        return self.frames + self.nodes + self.packs + self.pages


def store_metadata(total: Part, found: Unweighed, records: Rows) -> Metadata:
    """`records`: the rows of objects."""
    data_bytes = found.payload_bytes - total.inline_bytes + found.frame_bytes
    packs = math.ceil(data_bytes / TARGET_BYTES) + math.ceil(found.node_bytes / TARGET_BYTES)
    placements, pack_rows, bases = Rows(), Rows(), Rows()
    placements.add(PLACEMENT_KEY, PLACEMENT_VALUE, found.new_chunks + total.nodes.chunks)
    pack_rows.add(PACK_KEY, PACK_VALUE, packs)
    found.count_bases(bases)
    pages = FIXED_PAGES + records.pages + placements.pages + pack_rows.pages + bases.pages
    return Metadata(
        found.frame_bytes,
        found.node_bytes,
        packs * _PACK_OVERHEAD,
        packs,
        max(0, pages * PAGE_BYTES - total.inline_bytes),
    )


def divide(amount: int, weights: Sequence[int]) -> list[int]:
    """`amount` in whole shares by weight that add up to it (largest remainders); equal ones if all weights are 0."""
    whole = sum(weights)
    if not weights:
        return []
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    shares = [amount * weight // whole for weight in weights]
    rest = [amount * weight % whole for weight in weights]
    for place in sorted(range(len(weights)), key=lambda each: -rest[each])[: amount - sum(shares)]:
        shares[place] += 1
    return shares


def metadata_weight(part: Part, found: Unweighed) -> int:
    """How much of the store's metadata a part causes."""
    rows = Rows().add(PLACEMENT_KEY, PLACEMENT_VALUE, found.new_chunks + part.nodes.chunks)
    rows += found.count_bases(Rows())
    return found.frame_bytes + found.node_bytes + rows + max(0, part.row_bytes - part.inline_bytes)


# --- intervals ------------------------------------------------------------------------------------------------------


def relative_error(numerators: Sequence[int], denominators: Sequence[int], share: float) -> float | None:
    """The standard error of sum / sum, as a part of it, from random groups; None: too few of them to say.

    `share`: how much of the whole was sampled, in (0, 1].
    """
    groups = [(n, d) for n, d in zip(numerators, denominators, strict=True) if d]
    above, below = sum(n for n, _ in groups), sum(d for _, d in groups)
    if len(groups) < LEAST_GROUPS or not above:
        return None
    ratio = above / below
    squares = sum((n - ratio * d) ** 2 for n, d in groups)
    return math.sqrt((1 - share) * len(groups) / (len(groups) - 1) * squares) / above


def new_bytes(part: Part, squares: Sequence[int], level: int) -> tuple[float, float | None]:
    """How many of its chunked bytes are new, and the standard error of that; None: too little was seen to say.

    `squares`: sums of squared lengths of new chunks, by depth.
    """
    new = sum(part.sighted.new_bytes[level:])
    if not level:
        return float(new), 0.0
    share = 2.0**-level
    enough = sum(part.sighted.new_chunks[level:]) >= LEAST_CHUNKS
    error = math.sqrt((1 - share) * sum(squares[level:])) / share
    return min(new / share, float(part.chunked_bytes)), error if enough else None


def interval(
    found: Unweighed, inline_bytes: int, new_error: float | None, spread: Spread, skipped: int
) -> float | None:
    """Half the width, in bytes, of the 95 % interval of what is stored; None: too little was seen to say.

    `new_error`: the standard error of the new bytes. Of 2^`skipped` stretches one was compressed.
    """
    unique = found.unique_bytes - inline_bytes
    if not unique:
        return 0.0
    compression = relative_error(spread.payload_bytes, spread.raw_bytes, 2.0**-skipped) if skipped else 0.0
    if new_error is None or compression is None:
        return None
    payload = found.payload_bytes - inline_bytes
    return NORMAL_DEVIATES * math.hypot(new_error / unique, compression) * payload
