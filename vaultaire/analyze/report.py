"""The answer: what would be stored, where the saving comes from, what is in its way. Pure; text and JSON.

`as_dict` is the document of docs/cli.md; `lines` and the tables are for people, `vaultaire.analyze.html` for browsers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cas.chunker import CutRules
from vaultaire.analyze.curve import curve
from vaultaire.analyze.kinds import Nature
from vaultaire.analyze.tally import (
    Ratios,
    divide,
    interval,
    metadata_weight,
    new_bytes,
    store_metadata,
    weigh,
)

if TYPE_CHECKING:
    from vaultaire.analyze.curve import Point
    from vaultaire.analyze.running import Findings
    from vaultaire.analyze.tally import Part, Shares
    from vaultaire.moving.report import Failed
    from vaultaire.moving.report import Report as Notes

WORTH_A_WARNING: Final = 0.01  # of all bytes


@dataclass(frozen=True, slots=True)
class Group:
    """A folder, or a type."""

    name: str
    nature: Nature
    objects: int
    shares: Shares


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Data that does not shrink, and what to do about it: a warning, for users."""

    kind: str
    bytes: int
    share: float
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    source: str
    complete: bool  # all that is there was read
    interrupted: bool
    failure: str | None
    seconds: float
    objects: int
    inline_objects: int
    chunks: int  # different ones
    packs: int
    shares: Shares
    incompressible_bytes: int  # of the unique ones
    sampled: float  # share of the chunks that were followed
    compressed: float  # share of the new data that was compressed
    chosen: bool  # the sample was asked for; else memory asked for it
    error_bytes: float | None  # half of the 95 % interval; None: unknown
    folders: tuple[Group, ...]  # by what they store
    types: tuple[Group, ...]
    curve: tuple[Point, ...]
    warnings: tuple[Obstacle, ...]
    notes: dict[str, int]
    failed: int
    failures: tuple[Failed, ...]

    @property
    def dedup_ratio(self) -> float:
        return _ratio(self.shares.logical_bytes, self.shares.unique_bytes)

    @property
    def compression_ratio(self) -> float:
        return _ratio(self.shares.unique_bytes, self.shares.stored_bytes)

    @property
    def ratio(self) -> float:
        return _ratio(self.shares.logical_bytes, self.shares.stored_bytes)


def _ratio(above: int, below: int) -> float:
    return above / below if below else 1.0


def conclude(found: Findings, notes: Notes, *, source: str, level: int, cdc: str) -> Answer:
    """`level`: the one that was asked for. `cdc`: the rule in force."""
    total = found.total
    new, new_error = new_bytes(total, found.spread.new_squares, found.level)
    ratios = Ratios.of(total, found.level).with_new_bytes(
        new / total.chunked_bytes if total.chunked_bytes else 1.0
    )
    whole = weigh(found.total, ratios)
    metadata = store_metadata(found.total, whole, found.records)
    shares = whole.with_metadata(metadata.total)
    data = found.total.data
    error = interval(whole, total.inline_bytes, new_error, found.spread, level)
    types = _groups(found, {name: part for name, (_, part) in found.types.items()}, ratios, metadata.total)
    return Answer(
        source=source,
        complete=not (found.interrupted or found.failure or notes.failed),
        interrupted=found.interrupted,
        failure=found.failure,
        seconds=found.seconds,
        objects=total.objects,
        inline_objects=total.inline_objects,
        chunks=shares.new_chunks,
        packs=metadata.pack_count,
        shares=shares,
        incompressible_bytes=round(
            (whole.unique_bytes - total.inline_bytes) * data.plain_raw_bytes / max(1, data.raw_bytes)
        ),
        sampled=2.0**-found.level,
        compressed=2.0**-level,
        chosen=bool(level),
        error_bytes=error,
        folders=_groups(found, found.folders, ratios, metadata.total),
        types=types,
        curve=tuple(curve(shares, found.total, CutRules.parse(cdc).average, found.others)),
        warnings=tuple(_warnings(types, shares.logical_bytes)),
        notes=dict(notes.notes),
        failed=notes.failed,
        failures=tuple(notes.failures),
    )


def _groups(
    found: Findings, parts: dict[str, Part], ratios: Ratios, metadata_bytes: int
) -> tuple[Group, ...]:
    own = [Ratios.of(part, found.level, ratios) for part in parts.values()]
    # Of a sample each part is a ratio of its own; together they shall come to what all of it comes to.
    apart = sum(part.chunked_bytes * each.new_bytes for part, each in zip(parts.values(), own, strict=True))
    factor = found.total.chunked_bytes * ratios.new_bytes / apart if found.level and apart else 1.0
    weighed = [
        weigh(part, each.with_new_bytes(each.new_bytes * factor))
        for part, each in zip(parts.values(), own, strict=True)
    ]
    weights = [metadata_weight(part, each) for part, each in zip(parts.values(), weighed, strict=True)]
    groups = [
        Group(
            name,
            found.types[name][0] if parts is not found.folders else Nature.PLAIN,
            part.objects,
            each.with_metadata(share),
        )
        for (name, part), each, share in zip(
            parts.items(), weighed, divide(metadata_bytes, weights), strict=True
        )
    ]
    return tuple(sorted(groups, key=lambda group: (-group.shares.stored_bytes, group.name)))


_ADVICE: Final = {
    Nature.REPOSITORY: "a backup repository: it is deduplicated and encrypted or compressed already and does not shrink here; "
    "back up the plain files instead, by rclone, aws s3 sync or as tars, to save what this forecast cannot show",
    Nature.ENCRYPTED: "encrypted data: nothing in it repeats or compresses; encrypt disks or the transport instead, if that "
    "is enough for you",
    Nature.COMPRESSED: "compressed already, so versions of it share next to nothing; store the plain form "
    "(tar instead of tar.gz, dumps without -Z) and let the store compress it",
    Nature.MEDIA: "media and packaged files, compressed for good: only exact copies are saved",
}


def _warnings(types: tuple[Group, ...], logical_bytes: int) -> list[Obstacle]:
    warnings = []
    for nature, advice in _ADVICE.items():
        groups = [group for group in types if group.nature is nature]
        size = sum(group.shares.logical_bytes for group in groups)
        if size and size >= WORTH_A_WARNING * logical_bytes:
            names = ", ".join(group.name for group in groups[:6]) + (" ..." if len(groups) > 6 else "")
            warnings.append(Obstacle(nature.value, size, size / logical_bytes, f"{names}: {advice}"))
    least = WORTH_A_WARNING * logical_bytes
    dense = [g for g in types if g.nature is Nature.PLAIN and g.shares.unique_bytes > least and _noisy(g)]
    if dense:
        size = sum(group.shares.unique_bytes for group in dense)
        text = "does not compress, whatever it is called: encrypted or compressed data look like this"
        names = ", ".join(group.name for group in dense[:6])
        warnings.append(Obstacle("incompressible", size, size / logical_bytes, f"{names}: {text}"))
    return warnings


def _noisy(group: Group) -> bool:
    """Less than 1 % came off what is new of it."""
    return group.shares.compression_saved_bytes < 0.01 * group.shares.unique_bytes


def as_dict(answer: Answer) -> dict[str, Any]:
    """As docs/cli.md has it."""
    low, high = bounds(answer)
    return {
        "source": answer.source,
        "complete": answer.complete,
        "interrupted": answer.interrupted,
        "failure": answer.failure,
        "seconds": answer.seconds,
        "objects": answer.objects,
        "inline_objects": answer.inline_objects,
        "chunks": answer.chunks,
        "packs": answer.packs,
        **_shares(answer.shares),
        "dedup_ratio": answer.dedup_ratio,
        "compression_ratio": answer.compression_ratio,
        "incompressible_bytes": answer.incompressible_bytes,
        "sample": {
            "chunks": answer.sampled,
            "compressed": answer.compressed,
            "chosen": answer.chosen,
            "stored_low_bytes": low,
            "stored_high_bytes": high,
        },
        "folders": [_group(group) for group in answer.folders],
        "types": [{**_group(group), "nature": group.nature.value} for group in answer.types],
        "curve": [
            {
                "average_bytes": point.average_bytes,
                "chunks": point.chunks,
                "unique_bytes": point.unique_bytes,
                "stored_bytes": point.stored_bytes,
                "measured": point.measured,
            }
            for point in answer.curve
        ],
        "warnings": [
            {"kind": each.kind, "bytes": each.bytes, "share": each.share, "text": each.text}
            for each in answer.warnings
        ],
        "notes": answer.notes,
        "failed": answer.failed,
        "failures": [{"key": each.key, "why": each.why} for each in answer.failures],
    }


def _shares(shares: Shares) -> dict[str, int]:
    return {
        "logical_bytes": shares.logical_bytes,
        "unique_bytes": shares.unique_bytes,
        "stored_bytes": shares.stored_bytes,
        "dedup_saved_bytes": shares.dedup_saved_bytes,
        "compression_saved_bytes": shares.compression_saved_bytes,
        "prefix_saved_bytes": shares.prefix_saved_bytes,
        "metadata_bytes": shares.metadata_bytes,
    }


def _group(group: Group) -> dict[str, Any]:
    return {"name": group.name, "objects": group.objects, **_shares(group.shares)}


def is_exact(answer: Answer) -> bool:
    """Every chunk was followed and every new one compressed."""
    return answer.sampled == 1 and answer.compressed == 1


def bounds(answer: Answer) -> tuple[int | None, int | None]:
    """The 95 % interval of the stored bytes; both the figure itself if nothing was sampled; None if it cannot be told."""
    if answer.error_bytes is None:
        return None, None
    stored = answer.shares.stored_bytes
    return max(0, round(stored - answer.error_bytes)), round(stored + answer.error_bytes)
