"""How much is below a name, and what deleting it would free: per bucket, or per prefix of keys.

A **group** is a bucket, the keys that begin with a prefix, or a folder below either (keys up to a `/`), with all their
versions, and the parts of uploads in progress to them. Of each group, exactly as in `vaultaire.stats`:

* `objects`, `logical_bytes`: number and sizes of its versions, without delete markers; parts do not count.
* `unique_bytes`: raw bytes of the chunks that it names, once each, and of its objects kept inline.
* `stored_bytes`: what these take in packs (each pack's ratio taken as even) and inline.
* `exclusive_bytes`: of the unique ones, those that nothing outside the group names: no other key, version, bucket or
  upload in progress of the whole store.
* `freed_bytes`: of the stored ones likewise. Deleting the whole group frees so much, once collection has come round.

So the exclusive bytes of folders need not add up to those of their parent: what two folders share is exclusive to
neither, but to the parent, if nobody else has it.

How: manifests of all names of one snapshot are copied into a file without a name in `tmp/`, those of a group side by
side (keys are walked in order). Then, level by level, each group is marked with bits of its own; what is in two of them,
or in one and in what lies outside, is shared; if anything is, each is walked once more against that.

Memory: up to four bits per chunk of the store, and `MAX_GROUPS` groups. Time: a walk over the whole store, whatever the
group, and two more over the groups per level. The snapshot lasts only as long as the copying. Collection pauses
meanwhile (it would move chunks from where they were seen). Changes nothing.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from heapq import merge
from operator import itemgetter
from typing import IO, TYPE_CHECKING, Final

from cas.catalog import iterate_packs
from cas.marking import Bits
from index import tree
from index.buckets import get_bucket, list_buckets
from index.errors import NamesError, NoSuchBucket
from index.keys import encode_id, successor
from index.manifests import iterate_manifests
from index.records import decode_listing, decode_manifest
from index.tables import OBJECTS, PARTS, UPLOADS, VERSIONS
from vaultaire.collector_lock import CollectorLock
from vaultaire.errors import StoreError
from vaultaire.roots import read_manifests, write_manifest
from vaultaire.survey import stored_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cas.catalog import PackRow
    from cas.marking import Marker
    from index.kv import Reader
    from index.records import BucketRecord
    from vaultaire.store import Store

    Tell = Callable[[str, int, int], object]
    """Stage, done, total (0: not known): versions while names are read, then bytes of manifests."""
    Range = tuple[int, int]

MAX_GROUPS: Final = 100_000
ROWS_PER_LOOK: Final = 1000  # between two looks at the disk's room
ERRORS_KEPT: Final = 20
_BUFFER_BYTES: Final = 1 << 18
_IS_OBJECT, _IS_PART = True, False


class TooManyGroups(StoreError):
    def __init__(self) -> None:
        super().__init__(
            f"there are more than {MAX_GROUPS:,} folders in that: ask with a smaller --depth, or for a longer PREFIX"
        )


@dataclass(slots=True)
class Group:
    """Figures of one bucket, prefix or folder: see the module."""

    bucket: str
    prefix: bytes  # what its keys begin with
    depth: int  # levels below what was asked for
    objects: int = 0
    logical_bytes: int = 0
    inline_bytes: int = 0
    unique_bytes: int = 0
    stored_bytes: int = 0
    exclusive_bytes: int = 0
    freed_bytes: int = 0
    place: Range = (0, 0)  # of its manifests in the file

    @property
    def name(self) -> str:
        path = self.prefix.decode(errors="replace")
        return f"{self.bucket}/{path}" if path else self.bucket


@dataclass(slots=True)
class Report:
    groups: list[Group] = field(default_factory=list)  # in order of names, each before those in it
    damaged: int = 0  # records and nodes that could not be read: what they name is not known
    missing: int = 0  # chunks that are named, and not there
    errors: list[str] = field(default_factory=list)  # the first of those

    @property
    def complete(self) -> bool:
        return not self.damaged

    def tell(self, errors: Iterable[str]) -> None:
        self.errors += [error for error in errors if error not in self.errors]
        del self.errors[ERRORS_KEPT:]


def measure_usage(
    store: Store,
    bucket: str | None,
    prefix: bytes = b"",
    depth: int = 0,
    tell: Tell = lambda stage, done, total: None,
) -> Report:
    """Of `bucket` (None: of each), or of its keys that begin with `prefix`, and of the folders `depth` levels below.

    Blocking, as long as a walk over the store takes. Raises NoSuchBucket, TooManyGroups, DiskFull, OSError, KvError.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # a disk that takes no writes: nobody collects there
            lock = CollectorLock(store.directory / "run" / "collector.lock")
            stack.callback(lock.close)
            lock.acquire(wait=True)
        stack.enter_context(store.operation())  # the nodes that are read stay
        file = stack.enter_context(
            tempfile.TemporaryFile(dir=store.directory / "tmp", buffering=_BUFFER_BYTES)
        )
        names = _Names(store, file, bucket, prefix, depth, tell)
        names.read()
        _Survey(store, file, names.report, names.scope, tell).run()
        return names.report


# --- Names -----------------------------------------------------------------------------------------------------


class _Names:
    """Copies manifests out, those of the scope in order of keys, and counts what needs no chunks."""

    def __init__(
        self, store: Store, file: IO[bytes], bucket: str | None, prefix: bytes, depth: int, tell: Tell
    ) -> None:
        self._store = store
        self._file = file
        self._bucket = bucket
        self._prefix = prefix
        self._depth = depth
        self._tell = tell
        self._rows = 0
        self.report = Report()
        self.scope: Range = (0, 0)  # where the manifests of what was asked for are

    def read(self) -> None:
        with self._store.kv.snapshot() as reader:
            if self._bucket is not None and get_bucket(reader, self._bucket) is None:
                raise NoSuchBucket(self._bucket)
            for bucket in list_buckets(reader).buckets:
                if self._bucket in (None, bucket.name):
                    self._read_bucket(reader, bucket)
                else:
                    for manifest in iterate_manifests(reader, bucket.id, self._note):
                        self._take(manifest)
        if self._bucket is None:
            self.scope = (0, self._file.tell())
        self._file.flush()

    def _read_bucket(self, reader: Reader, bucket: BucketRecord) -> None:
        inside = successor(self._prefix) if self._prefix else None
        if self._prefix:
            self._read_keys(reader, bucket, b"", self._prefix, [])
        start = self._file.tell()
        root = self._open(Group(bucket.name, self._prefix, 0))
        self._read_keys(reader, bucket, self._prefix, inside, [root])
        self.scope = (start, self._file.tell())
        if self._prefix and inside is not None:
            self._read_keys(reader, bucket, inside, None, [])

    def _read_keys(
        self, reader: Reader, bucket: BucketRecord, start: bytes, stop: bytes | None, path: list[Group]
    ) -> None:
        """Keys from `start` to `stop`. `path`: the group they are all in; empty: outside."""
        for key, is_object, value in _versions_and_parts(reader, bucket.id, start, stop):
            if path:
                self._follow(path, key)
            try:
                manifest = decode_manifest(value)
                if path and is_object:
                    _count(path, value, inline=manifest is None)
            except NamesError as error:
                self._note(error)
                continue
            self._take(manifest)
        self._close(path, 0)

    def _follow(self, path: list[Group], key: bytes) -> None:
        """Leave the folders that `key` is not in, enter those that it is in."""
        kept = len(path)
        while kept > 1 and not key.startswith(path[kept - 1].prefix):
            kept -= 1
        self._close(path, kept)
        while len(path) <= self._depth:
            end = key.find(b"/", len(path[-1].prefix))
            if end < 0:
                return
            path.append(self._open(Group(path[0].bucket, key[: end + 1], len(path))))

    def _open(self, group: Group) -> Group:
        if len(self.report.groups) >= MAX_GROUPS:
            raise TooManyGroups
        group.place = (self._file.tell(), self._file.tell())
        self.report.groups.append(group)
        return group

    def _close(self, path: list[Group], kept: int) -> None:
        while len(path) > kept:
            group = path.pop()
            group.place = (group.place[0], self._file.tell())

    def _take(self, manifest: bytes | None) -> None:
        if manifest is not None:
            write_manifest(self._file, manifest)
        self._rows += 1
        if not self._rows % ROWS_PER_LOOK:
            self._store.space.require()
            self._tell("reading names", self._rows, 0)

    def _note(self, error: NamesError) -> None:
        self.report.damaged += 1
        self.report.tell([str(error)])


def _versions_and_parts(
    reader: Reader, bucket_id: int, start: bytes, stop: bytes | None
) -> Iterator[tuple[bytes, bool, bytes]]:
    """(key, whether it is a version, record) in order of keys: versions, and parts of uploads in progress."""
    current = ((key, _IS_OBJECT, value) for key, value in tree.walk(reader, OBJECTS, bucket_id, start, stop))
    others = (
        (key, _IS_OBJECT, value)
        for key, _, value in tree.walk_suffixed(reader, VERSIONS, bucket_id, start, stop)
    )
    parts = (
        (key, _IS_PART, value)
        for key, upload, _ in tree.walk_suffixed(reader, UPLOADS, bucket_id, start, stop)
        for value in _parts_of(reader, encode_id(bucket_id) + upload)
    )
    return merge(current, others, parts, key=itemgetter(0))


def _parts_of(reader: Reader, prefix: bytes) -> list[bytes]:
    return [value for _, value in reader.scan(PARTS, prefix, successor(prefix))]  # at most 10,000


def _count(path: Sequence[Group], value: bytes, *, inline: bool) -> None:
    head = decode_listing(value)
    if head.delete_marker:
        return
    for group in path:
        group.objects += 1
        group.logical_bytes += head.size
        group.inline_bytes += head.size if inline else 0


# --- Chunks ----------------------------------------------------------------------------------------------------


class _Survey:
    """Marks what groups name, level by level."""

    def __init__(self, store: Store, file: IO[bytes], report: Report, scope: Range, tell: Tell) -> None:
        self._store = store
        self._file = file
        self._report = report
        self._tell = tell
        self._end = file.tell()
        self._scope = scope
        self._levels: defaultdict[int, list[Group]] = defaultdict(list)
        for group in report.groups:
            self._levels[group.depth].append(group)
        self._done = 0
        # Outside once; each level once for what is shared and, at most, once more for what of that is whose.
        self._total = self._end + len(self._levels) * 2 * (scope[1] - scope[0])
        self._packs: dict[int, PackRow] = {}

    def run(self) -> None:
        with self._store.kv.snapshot() as reader:
            self._packs = dict(iterate_packs(reader))
        start, end = self._scope
        outside = self._marked([(0, start), (end, self._end)]).bits
        for groups in self._levels.values():
            self._measure(groups, outside)

    def _measure(self, groups: Sequence[Group], outside: Bits) -> None:
        """`groups` are disjoint, and in order of their places."""
        seen, shared = Bits(), Bits()
        for group in groups:
            marker = self._marked([group.place])
            group.unique_bytes = marker.raw_bytes + group.inline_bytes
            group.stored_bytes = stored_of(self._packs, marker.fresh) + group.inline_bytes
            group.exclusive_bytes, group.freed_bytes = group.unique_bytes, group.stored_bytes
            shared.update(seen.common(marker.bits))
            seen.update(marker.bits)
        # What is in the scope, but in no group of this level: objects above it.
        for others in (outside, self._marked(_gaps(self._scope, groups)).bits):
            shared.update(seen.common(others))
        del seen
        if not shared:
            return
        for group in groups:
            marker = self._marked([group.place], shared)
            group.exclusive_bytes = marker.raw_bytes - marker.shared_bytes + group.inline_bytes
            group.freed_bytes = stored_of(self._packs, marker.fresh) + group.inline_bytes

    def _marked(self, places: Iterable[Range], earlier: Bits | None = None) -> Marker:
        marker = self._store.chunks.marker(earlier)
        for start, end in places:
            for manifest in read_manifests(self._file, start, end):
                for _ in marker.add(manifest):
                    self._tell("counting chunks", self._done, self._total)
                self._done += len(manifest)
            self._tell("counting chunks", self._done, self._total)
        marker.finish()
        if earlier is None:
            self._report.damaged += marker.unreadable
            self._report.missing += marker.missing
            self._report.tell(marker.errors)
        return marker


def _gaps(scope: Range, groups: Sequence[Group]) -> Iterator[Range]:
    """What of `scope` lies in none of `groups`."""
    at, end = scope
    for group in groups:
        if at < group.place[0]:
            yield at, group.place[0]
        at = max(at, group.place[1])
    if at < end:
        yield at, end
