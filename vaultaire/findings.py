"""What a verification found: findings, and the objects that each of them makes unreadable.

A `Finding` is one thing that is not as it should be. Its `affected` are the versions (and parts of uploads) that cannot
be read because of it: none, if all bytes can still be had. A `Report` holds them all, up to bounds that keep memory
finite on a disk that is gone; beyond, they are only counted. `to_json` is what `vaultaire verify --json` prints.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cas.catalog import Placement
    from cas.chunk import ChunkId
    from cas.verify import Damage

MAX_FINDINGS: Final = 10_000  # listed
MAX_AFFECTED: Final = 100_000  # listed, of all findings together
_SHOWN_CHUNKS: Final = 100  # of one finding, in JSON


@dataclass(frozen=True, slots=True, order=True)
class Affected:
    """A version of an object, or a part of an upload in progress."""

    bucket: str
    key: bytes
    version: str = "null"  # 32 hexadecimal digits, or `null`
    upload: str | None = None  # its id; then `part` is its number
    part: int | None = None

    def to_json(self) -> dict[str, object]:
        shown = {"bucket": self.bucket, "key": shown_key(self.key)}
        if self.upload is None:
            return {**shown, "version": self.version}
        return {**shown, "upload": self.upload, "part": self.part}

    def __str__(self) -> str:
        where = f"{self.bucket}/{shown_key(self.key)}"
        if self.upload is not None:
            return f"{where} (part {self.part} of upload {self.upload})"
        return where if self.version == "null" else f"{where} (version {self.version})"


def shown_key(key: bytes) -> str:
    """As UTF-8; bytes that are none as \\xNN."""
    return key.decode("utf-8", "backslashreplace")


@dataclass(slots=True, eq=False)
class Finding:
    """`kind`: a `cas.verify.DamageKind`, an `index.verify_engine` kind, or one of `vaultaire.verify`'s own."""

    kind: str
    message: str
    pack: int | None = None
    offset: int | None = None
    frame: int | None = None
    chunks: tuple[bytes, ...] = ()  # wrong in this place, or named and not to be had
    path: str | None = None
    table: str | None = None
    row: bytes | None = None
    affected: list[Affected] = field(default_factory=list)
    more_affected: int = 0  # beyond what is listed
    last_affected: Affected | None = None  # listed or not

    def to_json(self) -> dict[str, object]:
        fields: dict[str, Any] = {
            "kind": self.kind,
            "message": self.message,
            "pack": None if self.pack is None else f"{self.pack:016x}",
            "offset": self.offset,
            "frame": self.frame,
            "chunks": [chunk.hex() for chunk in self.chunks[:_SHOWN_CHUNKS]],
            "path": self.path,
            "table": self.table,
            "row": None if self.row is None else self.row.hex(),
            "affected": [each.to_json() for each in self.affected],
            "more_affected": self.more_affected or None,
        }
        return {name: value for name, value in fields.items() if value is not None and value != []}


@dataclass(slots=True)
class Report:
    """What was checked and what was found."""

    read_data: bool
    bucket: str | None = None  # None: the whole store
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0  # beyond what is listed
    skipped: list[str] = field(default_factory=list)  # what could not be checked, and why
    packs: int = 0
    pack_bytes: int = 0
    placements: int = 0
    versions: int = 0  # and parts of uploads
    rows: int = 0  # of names
    end_to_end: int = 0  # objects whose name is their SHA-256
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Nothing was found; what was skipped is not known to be damaged, nor to be sound."""
        return not self.findings

    @property
    def affected(self) -> list[Affected]:
        """What cannot be read, each once, in order."""
        return sorted({each for finding in self.findings for each in finding.affected})

    def to_json(self) -> dict[str, object]:
        return {
            "clean": self.clean,
            "read_data": self.read_data,
            "bucket": self.bucket,
            "checked": {
                "packs": self.packs,
                "pack_bytes": self.pack_bytes,
                "placements": self.placements,
                "versions": self.versions,
                "rows": self.rows,
                "end_to_end": self.end_to_end,
            },
            "seconds": round(self.seconds, 3),
            "findings": [finding.to_json() for finding in self.findings],
            "more_findings": self.more_findings,
            "affected": [each.to_json() for each in self.affected],
            "skipped": self.skipped,
        }


class Findings:
    """Gathers findings, and remembers which places in packs are in doubt: who wants to know must read there.

    Memory: some 200 bytes per damaged frame.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._affected = 0
        self._places: dict[int, dict[int | None, Finding]] = {}  # pack -> frame (None: all of it)
        self._chunks: dict[bytes, Finding] = {}

    def add(self, finding: Finding) -> Finding:
        if len(self.report.findings) < MAX_FINDINGS:
            self.report.findings.append(finding)
        else:
            self.report.more_findings += 1
        return finding

    def add_damage(self, damage: Damage) -> Finding:
        """Damage of a pack, or of its rows."""
        where = f"pack {damage.pack:016x}"
        if damage.frame is not None:
            where += f", frame at {damage.frame}"
        finding = self.add(
            Finding(
                str(damage.kind),
                f"{where}: {damage.reason}",
                damage.pack,
                damage.offset,
                damage.frame,
                tuple(damage.chunks),
            )
        )
        if damage.doubtful:
            self._places.setdefault(damage.pack, {})[damage.frame] = finding
        elif damage.kind == "placement":
            self.doubt_chunks(damage.chunks, finding)
        return finding

    def doubt_chunks(self, chunks: tuple[ChunkId, ...] | tuple[bytes, ...], finding: Finding) -> None:
        for chunk in chunks:
            self._chunks[chunk] = finding

    def doubt(self, chunk: bytes, placement: Placement | None) -> Finding | None:
        """The finding for which this chunk may be unreadable; None: there is no reason to think so."""
        if placement is not None and (frames := self._places.get(placement.pack)) is not None:
            found = frames.get(placement.frame) or frames.get(None)
            if found is not None:
                return found
        return self._chunks.get(chunk)

    def blame(self, finding: Finding, affected: Affected) -> None:
        """`affected` cannot be read because of `finding`. Objects come one after the other, so repeats do as well."""
        if finding.last_affected == affected:
            return
        finding.last_affected = affected
        if self._affected < MAX_AFFECTED:
            finding.affected.append(affected)
            self._affected += 1
        else:
            finding.more_affected += 1
