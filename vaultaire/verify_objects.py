"""Verification of objects: can every version, and every part of an upload, be read from its first to its last byte?

Manifests are walked down to the placements of their chunks; data is read only in places that are in doubt (found damaged
in the packs), or everywhere with `read_chunks`. So each finding learns which buckets, keys and versions it costs, in one
pass over the names: the set of damaged places is held, never a map from chunks to objects.

With `end_to_end`, objects whose name is the SHA-256 of their bytes (repositories of restic and rustic) are read whole
and compared with it: that covers the way from the client to the disk and back.

Pages of names are read in short snapshots, each object inside an operation: what an existing manifest names can be read
until the operation ends, whatever collection does (`vaultaire.runfile`); so each record is read again inside.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from cas.errors import CasError, CorruptChunk, MissingChunk, PackUnreadable
from cas.manifest import Manifest
from cas.reading import Span
from cas.verify_manifests import ManifestChecker
from index import expiry, tree
from index.errors import NamesError
from index.keys import encode_id, successor
from index.objects import get_object
from index.records import ObjectRecord, PartRecord
from index.tables import OBJECTS, PARTS, UPLOADS, VERSIONS
from vaultaire.findings import Affected, Finding
from vaultaire.reading import read_all
from vaultaire.tolerant import ShortSnapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cas.catalog import Placement
    from cas.chunk import ChunkId
    from cas.verify_manifests import Problem
    from index.records import BucketRecord
    from vaultaire.findings import Findings
    from vaultaire.store import Store
    from vaultaire.tolerant import TolerantMap, TolerantReader

PAGE_ROWS: Final = 500

# https://restic.readthedocs.io/en/stable/100_references.html#repository-format: "All files in a repository are only
# written once and never modified afterwards. [...] the filename is the SHA-256 of its content", but for `config`.
_RESTIC: Final = re.compile(
    rb"(?P<root>(?:.*/)?)(?:data/(?:[0-9a-f]{2}/)?|index/|keys/|locks/|snapshots/)(?P<sha256>[0-9a-f]{64})",
    re.DOTALL,
)


def restic_name(key: bytes) -> tuple[bytes, str] | None:
    """(the repository's root, the SHA-256 that the name claims); None for a name of another form."""
    match = _RESTIC.fullmatch(key)
    return None if match is None else (match["root"], match["sha256"].decode())


class ObjectVerification:
    """See the module. Memory: the nodes that are known to be sound, and with `read_chunks` one bit per chunk."""

    def __init__(
        self,
        store: Store,
        kv: TolerantMap,
        findings: Findings,
        *,
        read_chunks: bool,
        end_to_end: bool,
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        self._store = store
        self._kv = kv
        self._now = ShortSnapshots(kv)
        self._findings = findings
        self._report = findings.report
        self._read_chunks = read_chunks
        self._end_to_end = end_to_end
        self._on_progress = on_progress
        self._checker = ManifestChecker(store.chunks.read_node, self._why_lost)
        self._by_chunk: dict[bytes, Finding] = {}
        self._read: dict[int, bytearray] = {}  # pack -> bit per ordinal: was read, and is sound

    def run(self, bucket: BucketRecord) -> None:
        """All versions and parts of a bucket."""
        for table, page in ((OBJECTS, expiry.object_page), (VERSIONS, expiry.version_page)):
            after: tuple[bytes, bytes] | None = (b"", b"")
            while after is not None:
                with self._kv.snapshot() as reader:
                    rows = page(reader, bucket.id, b"", after, PAGE_ROWS)
                for key, suffix, value in rows:
                    self._check_version(bucket, table, key, suffix, value)
                    self._on_progress("objects", self._report.versions, 0)
                after = rows[-1][:2] if len(rows) == PAGE_ROWS else None
        self._check_parts(bucket)

    # --- versions and parts -----------------------------------------------------------------------------------

    def _check_version(
        self, bucket: BucketRecord, table: str, key: bytes, suffix: bytes, value: bytes
    ) -> None:
        record = _decoded(value)
        if record is None or record.delete_marker:
            return  # one that does not decode is a finding of its row
        self._report.versions += 1
        if record.manifest is None and not self._end_to_end:
            return  # its bytes are in its row, which is checked with the names
        with self._store.operation():
            # Read again, inside the operation: only then is what it names sure to stay.
            row = tree.find_row(self._now, table, bucket.id, key)
            now = None if row is None else self._now.get(table, row + suffix)
            record = None if now is None else _decoded(now)
            if record is None:
                return
            affected = Affected(bucket.name, key, _version(record))
            problems = [] if record.manifest is None else self._check(record.manifest, record.size, affected)
            for finding in problems:
                self._findings.blame(finding, affected)
            if self._end_to_end and not problems:
                self._compare_name(bucket, key, record, affected)

    def _check_parts(self, bucket: BucketRecord) -> None:
        start = encode_id(bucket.id)
        stop = successor(start)
        while rows := list(self._now.scan(PARTS, start, stop, limit=PAGE_ROWS)):
            for row, _ in rows:
                self._check_part(bucket, row)
                self._on_progress("objects", self._report.versions, 0)
            start = rows[-1][0] + b"\0"

    def _check_part(self, bucket: BucketRecord, row: bytes) -> None:
        with self._store.operation():
            value = self._now.get(PARTS, row)
            try:
                record = None if value is None else PartRecord.decode(value)
            except NamesError:
                return
            if record is None:
                return
            self._report.versions += 1
            upload = row[8:-2]
            affected = Affected(bucket.name, b"", "null", upload.hex(), record.number)
            problems = self._check(record.manifest, record.size, affected)
            if problems:
                affected = Affected(
                    bucket.name, self._key_of(bucket, upload), "null", upload.hex(), record.number
                )
            for finding in problems:
                self._findings.blame(finding, affected)

    def _key_of(self, bucket: BucketRecord, upload: bytes) -> bytes:
        with self._kv.snapshot() as reader:
            rows = tree.walk_suffixed(reader, UPLOADS, bucket.id)
            return next((key for key, suffix, _ in rows if suffix == upload), b"")

    # --- manifests --------------------------------------------------------------------------------------------

    def _check(self, encoded: bytes, size: int, affected: Affected) -> list[Finding]:
        """The findings for which it cannot be read."""
        try:
            manifest = Manifest.decode(encoded)
        except CasError as error:
            return [self._findings.add(Finding("manifest", f"{affected}: {error}"))]
        if manifest.size != size:
            reason = f"{affected}: its manifest spans {manifest.size} bytes, its record says {size}"
            return [self._findings.add(Finding("manifest", reason))]
        found: dict[int, Finding] = {}
        for problem in self._checker.check(self._now, manifest):
            finding = self._finding_of(problem)
            found[id(finding)] = finding
        return list(found.values())

    def _finding_of(self, problem: Problem) -> Finding:
        finding = self._findings.doubt(problem.chunk, problem.placement) or self._by_chunk.get(problem.chunk)
        if finding is None:
            kind = "node" if problem.is_node else "chunk"
            place = problem.placement
            finding = self._findings.add(
                Finding(
                    f"{kind}-missing" if place is None else f"{kind}-unreadable",
                    problem.reason,
                    None if place is None else place.pack,
                    None,
                    None if place is None else place.frame,
                    (problem.chunk,),
                )
            )
            self._by_chunk[problem.chunk] = finding
        return finding

    def _why_lost(self, chunk: ChunkId, placement: Placement) -> str | None:
        """Read what is in doubt, or all; what is sound is read once."""
        if self._findings.doubt(chunk, placement) is None and not self._read_chunks:
            return None
        bits = self._read.setdefault(placement.pack, bytearray())
        at, mask = placement.ordinal >> 3, 1 << (placement.ordinal & 7)
        if at < len(bits) and bits[at] & mask:
            return None
        try:
            self._store.chunks.read([Span(chunk, 0, placement.length, placement)])
        except (CorruptChunk, MissingChunk, PackUnreadable) as error:
            return str(error)
        bits.extend(bytes(max(0, at + 1 - len(bits))))
        bits[at] |= mask
        self._report.pack_bytes += placement.length if self._read_chunks else 0
        return None

    # --- end to end -------------------------------------------------------------------------------------------

    def _compare_name(
        self, bucket: BucketRecord, key: bytes, record: ObjectRecord, affected: Affected
    ) -> None:
        named = restic_name(key)
        if named is None or not self._is_repository(bucket, named[0]):
            return
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        try:
            for piece in self._pieces(record):
                sha256.update(piece)
                md5.update(piece)
        except CasError as error:
            self._findings.blame(
                self._findings.add(Finding("object-unreadable", f"{affected}: {error}")), affected
            )
            return
        self._report.end_to_end += 1
        if sha256.hexdigest() == named[1]:
            return
        as_sent = md5.hexdigest() == record.etag
        reason = "these bytes are what the client sent" if as_sent else "its ETag does not match either"
        message = f"{affected}: the SHA-256 of its bytes is {sha256.hexdigest()}, not its name; {reason}"
        self._findings.blame(self._findings.add(Finding("object-name", message)), affected)

    def _pieces(self, record: ObjectRecord) -> Iterator[bytes | memoryview]:
        if record.manifest is None:
            yield record.inline or b""
        else:
            yield from read_all(self._store.chunks, Manifest.decode(record.manifest))

    def _is_repository(self, bucket: BucketRecord, root: bytes) -> bool:
        """Others may have names of 64 hexadecimal digits as well; a repository has its `config`."""
        with self._kv.snapshot() as reader:
            return _exists(reader, bucket, root + b"config")


def _exists(reader: TolerantReader, bucket: BucketRecord, key: bytes) -> bool:
    try:
        return get_object(reader, bucket.id, key) is not None
    except NamesError:
        return False


def _decoded(value: bytes) -> ObjectRecord | None:
    try:
        return ObjectRecord.decode(value)
    except NamesError:
        return None


def _version(record: ObjectRecord) -> str:
    return "null" if record.version_id is None else record.version_id.hex()
