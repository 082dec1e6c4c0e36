"""Are the rows of names consistent? Every row of a bucket decoded, and held against the others it belongs with.

Pure over a `Reader`. One bucket is judged in one snapshot, for its counters are true only at one moment; it is held
for as long as the walk over that bucket's rows takes (some seconds per million).

Checked: records decode, and say what their rows say; data and sizes agree; versions descend and the current one is the
newest; null versions are where they are looked for; uploads and parts belong together; counters are the sums; nodes of
long keys are linked once each; configurations, tokens and quotas decode; what is counted of tenants is the sum of their
buckets; no row belongs to a bucket that is not there; the allocators are ahead. What manifests name is `cas`'s: whoever
calls gets every manifest (`on_manifest`) to check.

Memory: one id per upload in progress, of one bucket.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from index import counters, ids, quotas, tokens, tree, uploads
from index.counters import NOTHING, Counts, NamesStatistics, statistics
from index.errors import NamesError
from index.keys import (
    CONTINUES,
    HEAD_BYTES,
    ROOT,
    decode_id,
    encode_id,
    inverted,
    split_row,
    successor,
)
from index.records import BucketRecord, ObjectRecord, PartRecord, UploadRecord, decode_listing
from index.tables import (
    BUCKET_NAMES,
    BUCKETS,
    CONFIGS,
    COUNTERS,
    META,
    NULL_VERSIONS,
    OBJECTS,
    PARTS,
    QUOTAS,
    TENANT_COUNTERS,
    TOKENS,
    UPLOADS,
    VERSIONS,
)
from index.versions import VERSION_ID_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from index.kv import Reader

_BY_BUCKET: Final = (OBJECTS, VERSIONS, NULL_VERSIONS, UPLOADS, PARTS, COUNTERS, CONFIGS, TOKENS, QUOTAS)
_KEY_TABLES: Final = {OBJECTS: 0, VERSIONS: 8, NULL_VERSIONS: 0, UPLOADS: 16}  # length of the rows' suffixes
_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class NameDamage:
    """A row, or a relation of rows, that no version of this program makes."""

    reason: str
    table: str
    row: bytes
    bucket_id: int | None = None
    key: bytes | None = None  # of the object
    version: ObjectRecord | None = None


@dataclass(slots=True)
class BucketCheck:
    """The check of one bucket; iterate `run`."""

    reader: Reader
    bucket: BucketRecord
    on_rows: Callable[[int], None] = lambda _: None  # how many more were done
    _counted: Counts = NOTHING
    _uploads: set[bytes] = field(default_factory=set)

    def run(self) -> Iterator[NameDamage]:
        parts: list[Callable[[], Iterator[NameDamage]]] = [
            *(partial(self._links, table) for table in _KEY_TABLES),
            self._current,
            self._versions,
            self._null_versions,
            self._in_progress,
            self._parts,
            self._counters,
            self._quota,
            self._configs,
        ]
        for part in parts:
            try:
                yield from part()
            except NamesError as error:  # a row that cannot be followed
                yield self._damage(str(error), BUCKETS, encode_id(self.bucket.id))

    # --- rows of keys -----------------------------------------------------------------------------------------

    def _links(self, table: str) -> Iterator[NameDamage]:
        """Every node of long keys is linked exactly once, and has a row; else keys are hidden or lead nowhere."""
        linked = nodes = (
            0  # sums of ids: sets would take memory, and only faults that cancel each other out would differ
        )
        count = 0
        last = ROOT
        for row, value in self._scan(table):
            node = decode_id(row[_ID_BYTES:HEAD_BYTES]) if len(row) > HEAD_BYTES else -1
            if node not in (ROOT, last):
                nodes += node
                last = node
            try:
                _, suffix = split_row(row)
                if suffix is None:
                    linked += decode_id(value)
                elif len(suffix) != _KEY_TABLES[table]:
                    yield self._damage(f"its suffix has {len(suffix)} bytes", table, row)
            except NamesError as error:
                yield self._damage(str(error), table, row)
            count += 1
            if not count % 1000:
                self.on_rows(1000)
        self.on_rows(count % 1000)
        if linked != nodes:
            reason = "the nodes of keys longer than a row, and the rows that lead to them, do not match"
            yield self._damage(reason, table, encode_id(self.bucket.id))

    def _current(self) -> Iterator[NameDamage]:
        for key, value in tree.walk(self.reader, OBJECTS, self.bucket.id):
            yield from self._object(OBJECTS, key, value, b"")

    def _versions(self) -> Iterator[NameDamage]:
        last: bytes | None = None
        for key, suffix, value in tree.walk_suffixed(self.reader, VERSIONS, self.bucket.id):
            yield from self._object(VERSIONS, key, value, suffix)
            if key != last:
                yield from self._newest(key, suffix)
                last = key

    def _newest(self, key: bytes, suffix: bytes) -> Iterator[NameDamage]:
        """The current object is newer than every other version."""
        row = tree.find_row(self.reader, OBJECTS, self.bucket.id, key)
        value = None if row is None else self.reader.get(OBJECTS, row)
        try:
            if value is not None and inverted(decode_listing(value).sequence) >= suffix:
                yield self._damage("an older version is shown than the newest", OBJECTS, row or b"", key)
        except NamesError:
            pass  # reported where that row is decoded

    def _object(self, table: str, key: bytes, value: bytes, suffix: bytes) -> Iterator[NameDamage]:
        row = tree.find_row(self.reader, table, self.bucket.id, key) or b""
        try:
            record = ObjectRecord.decode(value)
            wrong = self._wrong(table, record, suffix)
        except NamesError as error:
            yield self._damage(str(error), table, row + suffix, key)
            return
        if wrong:
            yield self._damage(wrong, table, row + suffix, key, record)
        self._counted = counters.add_up((self._counted, counters.added(record)))

    def _wrong(self, table: str, record: ObjectRecord, suffix: bytes) -> str:
        """What is wrong with a version; empty: nothing. Raises NamesError."""
        if not 0 < record.sequence <= self.reader.sequence:
            return f"its sequence {record.sequence} is not of this history"
        if table == VERSIONS and suffix != inverted(record.sequence):
            return f"its row is not that of sequence {record.sequence}"
        if table == OBJECTS and record.delete_marker:
            return "a delete marker is shown as the current object"
        if record.version_id is not None and len(record.version_id) != VERSION_ID_BYTES:
            return f"its version id has {len(record.version_id)} bytes"
        if record.inline is not None and len(record.inline) != record.size:
            return f"its data has {len(record.inline)} bytes instead of {record.size}"
        parts = record.parts
        if parts and sum(part.size for part in parts) != record.size:
            return f"its parts do not add up to {record.size} bytes"
        return ""

    def _null_versions(self) -> Iterator[NameDamage]:
        """The rows that say where the null versions are, and the null versions that are there."""
        listed = 0  # a sum, as in `_links`: a key has at most one
        for key, value in tree.walk(self.reader, NULL_VERSIONS, self.bucket.id):
            sequence = decode_id(value)
            listed += sequence
            row = tree.find_row(self.reader, VERSIONS, self.bucket.id, key)
            found = None if row is None else self.reader.get(VERSIONS, row + inverted(sequence))
            if found is None or decode_listing(found).version_id is not None:
                yield self._damage("its null version is not where it was put", NULL_VERSIONS, row or b"", key)
            row = tree.find_row(self.reader, OBJECTS, self.bucket.id, key)
            current = None if row is None else self.reader.get(OBJECTS, row)
            if current is not None and decode_listing(current).version_id is None:
                yield self._damage("it has two null versions", OBJECTS, row or b"", key)
        there = 0
        for _, _, value in tree.walk_suffixed(self.reader, VERSIONS, self.bucket.id):
            head = decode_listing(value)
            if head.version_id is None:
                there += head.sequence
        if listed != there:
            reason = "the null versions and the rows that lead to them do not match"
            yield self._damage(reason, NULL_VERSIONS, encode_id(self.bucket.id))

    # --- uploads ----------------------------------------------------------------------------------------------

    def _in_progress(self) -> Iterator[NameDamage]:
        for key, suffix, value in tree.walk_suffixed(self.reader, UPLOADS, self.bucket.id):
            row = (tree.find_row(self.reader, UPLOADS, self.bucket.id, key) or b"") + suffix
            self._uploads.add(suffix)
            try:
                record = UploadRecord.decode(value)
            except NamesError as error:
                yield self._damage(str(error), UPLOADS, row, key)
                continue
            if record.key != key or record.upload_id != suffix.hex():
                yield self._damage("its record is of another upload", UPLOADS, row, key)

    def _parts(self) -> Iterator[NameDamage]:
        for row, value in self._scan(PARTS):
            upload, number = row[_ID_BYTES:-2], int.from_bytes(row[-2:], "big")
            if upload not in self._uploads:
                yield self._damage("a part of an upload that is not there", PARTS, row)
            try:
                record = PartRecord.decode(value)
            except NamesError as error:
                yield self._damage(str(error), PARTS, row)
                continue
            self._counted = counters.add_up((self._counted, uploads.part_change(record, None)))
            if record.number != number:
                yield self._damage(f"its record is that of part {record.number}", PARTS, row)

    # --- the bucket's other rows ------------------------------------------------------------------------------

    def _counters(self) -> Iterator[NameDamage]:
        row = encode_id(self.bucket.id)
        try:
            said = statistics(self.reader, self.bucket.id)
        except NamesError as error:
            yield self._damage(str(error), COUNTERS, row)
            return
        said = replace(said, correction_bytes=0)
        counted = NamesStatistics(*self._counted)
        if said != counted:
            yield self._damage(f"the counters say {_shown(said)}, there are {_shown(counted)}", COUNTERS, row)

    def _quota(self) -> Iterator[NameDamage]:
        row = encode_id(self.bucket.id)
        found = quotas.bucket_row(self.reader, self.bucket.id)
        if (found is not None) is not self.bucket.limited:
            yield self._damage("its record does not say whether it has a quota", BUCKETS, row)
        tenant = bool(quotas.tenant_limits(self.reader, self.bucket.owner))
        if (found is not None and found[1]) is not tenant:
            yield self._damage("its quota does not say whether its tenant has one", QUOTAS, row)

    def _configs(self) -> Iterator[NameDamage]:
        row = encode_id(self.bucket.id)
        names = [config[_ID_BYTES:] for config, _ in self._scan(CONFIGS)]
        if bool(names) is not self.bucket.configured:
            yield self._damage("its record does not say whether it has configurations", BUCKETS, row)
        for token, value in self._scan(TOKENS):
            try:
                tokens.decode_token(value)
            except NamesError as error:
                yield self._damage(str(error), TOKENS, token)

    def _scan(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        row = encode_id(self.bucket.id)
        return self.reader.scan(table, row, successor(row))

    def _damage(
        self,
        reason: str,
        table: str,
        row: bytes,
        key: bytes | None = None,
        version: ObjectRecord | None = None,
    ) -> NameDamage:
        return NameDamage(reason, table, row, self.bucket.id, key, version)


def check_buckets(reader: Reader) -> Iterator[NameDamage]:
    """The buckets themselves, their names, rows without a bucket, and the allocators."""
    newest = 0
    held: dict[str, Counts] = {tenant: NOTHING for tenant, _ in quotas.limited_tenants(reader)}
    for row, value in reader.scan(BUCKETS):
        try:
            record = BucketRecord.decode(value)
        except NamesError as error:
            yield NameDamage(str(error), BUCKETS, row)
            continue
        newest = max(newest, record.id)
        if record.owner in held:
            counts = counters.counts_of(statistics(reader, record.id))
            held[record.owner] = counters.add_up((held[record.owner], counts))
        if encode_id(record.id) != row:
            yield NameDamage(f"its record is of bucket {record.id}", BUCKETS, row)
        elif reader.get(BUCKET_NAMES, record.name.encode()) != row:
            yield NameDamage(f"the name {record.name!r} does not lead to it", BUCKETS, row, record.id)
    for name, bucket in reader.scan(BUCKET_NAMES):
        if reader.get(BUCKETS, bucket) is None:
            yield NameDamage(f"the name {name!r} leads to no bucket", BUCKET_NAMES, name)
    yield from _check_tenants(reader, held)
    for table in _BY_BUCKET:
        yield from _strangers(reader, table)
    following = reader.get(META, ids.BUCKET)
    if newest and (following is None or decode_id(following) <= newest):
        yield NameDamage("the next bucket id was used already", META, ids.BUCKET)


def buckets_of(reader: Reader) -> list[BucketRecord]:
    """Those whose records can be read, by id."""
    found = []
    for _, value in reader.scan(BUCKETS):
        try:
            found.append(BucketRecord.decode(value))
        except NamesError:
            continue  # `check_buckets` says so
    return found


def _check_tenants(reader: Reader, held: dict[str, Counts]) -> Iterator[NameDamage]:
    """What is counted of tenants with a quota, against what their buckets hold; and nothing of others."""
    for tenant, counts in held.items():
        said = quotas.tenant_statistics(reader, tenant)
        if counters.counts_of(said) != counts:
            reason = f"the counters of tenant {tenant!r} say {_shown(said)}, its buckets {_shown(NamesStatistics(*counts))}"
            yield NameDamage(reason, TENANT_COUNTERS, tenant.encode())
    for row, _ in reader.scan(TENANT_COUNTERS):
        tenant = row.partition(b"\0")[0].decode(errors="replace")
        if tenant not in held:
            yield NameDamage(f"counters of tenant {tenant!r}, which has no quota", TENANT_COUNTERS, row)


def _strangers(reader: Reader, table: str) -> Iterator[NameDamage]:
    """Rows of buckets that are not there: a look per bucket, not per row."""
    start: bytes | None = b""
    while start is not None:
        found = list(reader.scan(table, start, limit=1))
        if not found:
            return
        row = found[0][0]
        if reader.get(BUCKETS, row[:_ID_BYTES]) is None:
            yield NameDamage("a row of a bucket that is not there", table, row)
        start = successor(row[:_ID_BYTES])


def _shown(counts: NamesStatistics) -> str:
    return (
        f"{counts.objects} objects, {counts.logical_bytes} bytes, {counts.inline_bytes} inline, "
        f"{counts.stored_bytes} stored, {counts.part_bytes} in parts, {counts.part_stored_bytes} stored for them"
    )


def key_of_row(reader: Reader, table: str, row: bytes) -> bytes | None:
    """The object key of a row in a table of keys, if its links can be found; for reports only."""
    try:
        segment, _ = split_row(row)
        node = decode_id(row[_ID_BYTES:HEAD_BYTES])
    except NamesError:
        return None
    if node == ROOT:
        return segment
    # A long key: the link that leads here says what comes before. Rare, so a scan over the bucket's rows will do.
    for link, value in reader.scan(table, row[:_ID_BYTES], successor(row[:_ID_BYTES])):
        if link[-2:] == CONTINUES and value == encode_id(node):
            before = key_of_row(reader, table, link)
            return None if before is None else before + segment
    return None
