"""The store into a target: `vaultaire export`.

The bucket is listed page by page in short snapshots, each page compared with the target's listing, and what is not there
is sent by `parallel` tasks. Each object is read inside an operation of the store, as a GET is: collection waits for
it, and every chunk is verified before it is sent. Nothing in the store is changed.

With versions all of one key are sent in order by one task, delete markers included; the target's bucket must keep
versions. A killed run leaves the oldest of them there, and the next one goes on after those. A multipart upload that a
kill left open at the target is not continued; the target's own rules remove it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cas.errors import CasError
from index import buckets
from index.errors import NamesError
from index.listing import list_objects, list_versions
from index.objects import get_object
from index.records import ObjectRecord, decode_listing
from index.versions import get_version
from vaultaire.moving.places import Entry, MovingError, ObjectError, PlaceError
from vaultaire.moving.plans import Overwrite, Verdict, plan_chain, plan_object
from vaultaire.moving.transport import share_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import trio

    from index.records import BucketRecord, Listing
    from vaultaire.moving.bench import Bench
    from vaultaire.moving.report import Pace, Report

PAGE_KEYS = 1000


class Target(Protocol):
    """Where an export writes. Of `lookup`, one call at a time."""

    async def lookup(self, keys: Sequence[bytes], *, versions: bool) -> dict[bytes, list[Entry]]:
        """What is there under `keys` (ascending, from call to call too), the newest version first."""
        ...

    async def expected_etag(self, record: ObjectRecord) -> str:
        """The ETag that `record` has, or will have, there."""
        ...

    async def carries_the_same(self, key: bytes, found: Entry, record: ObjectRecord) -> bool:
        """Whether the metadata there is that of `record`."""
        ...

    async def put(self, key: bytes, record: ObjectRecord) -> str:
        """Write it, verified; how. Raises ObjectError, PlaceError, CasError."""
        ...

    async def delete(self, key: bytes) -> None:
        """Put a delete marker on top."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    parallel: int = 8
    overwrite: Overwrite = Overwrite.OLDER
    versions: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Keys of `bucket` that begin with `prefix` go to the target with `replacement` in its place."""

    bucket: str
    prefix: bytes = b""
    replacement: bytes = b""

    def key(self, key: bytes) -> bytes:
        return self.replacement + key.removeprefix(self.prefix)


@dataclass(frozen=True, slots=True)
class Unit:
    """One key: its versions, the oldest first (without `versions`, the one that shows), and what the target has."""

    key: bytes
    versions: list[Listing]
    found: list[Entry]


class Export:
    """One bucket's export. `run` once, inside `with_bench`."""

    def __init__(
        self,
        bench: Bench,
        origin: Origin,
        target: Target,
        options: Options,
        report: Report,
        *,
        pace: Pace,
        on_progress: Callable[[], None],
    ) -> None:
        """`pace` may be one that goes on over several buckets."""
        self._bench = bench
        self._from = origin
        self._target = target
        self._options = options
        self._report = report
        self._pace = pace
        self._on_progress = on_progress

    async def run(self) -> None:
        """Raises PlaceError; KvError of the store."""
        await share_out(self._options.parallel, self._list, self._work)

    # --- listing and deciding -------------------------------------------------------------------------------------

    async def _list(self, sender: trio.MemorySendChannel[Unit]) -> None:
        self._pace.listed = False
        async with sender:
            after: bytes | None = b""
            while after is not None:
                page, after = self._version_page(after) if self._options.versions else self._page(after)
                if page:
                    await self._send_page(sender, page)
                self._on_progress()
            self._pace.listed = True

    async def _send_page(
        self, sender: trio.MemorySendChannel[Unit], page: Sequence[tuple[bytes, list[Listing]]]
    ) -> None:
        keys = [self._from.key(key) for key, _ in page]
        try:
            found = await self._target.lookup(keys, versions=self._options.versions)
        except PlaceError:
            raise
        except ObjectError as error:
            raise PlaceError(f"{self._report.target}: the listing broke off: {error}") from error
        for (key, versions), target_key in zip(page, keys, strict=True):
            unit = Unit(key, versions, found.get(target_key, []))
            if not self._options.versions and self._is_decided(unit):
                continue
            self._pace.find([version.size for version in versions])
            await sender.send(unit)

    def _is_decided(self, unit: Unit) -> bool:
        """Whether the listings tell that nothing is to be sent."""
        verdict = plan_object(
            _as_entry(unit.key, unit.versions[0]), _first(unit.found), self._options.overwrite
        )
        if verdict is Verdict.DONE:
            self._done(unit.versions[0])
            return True
        return False

    def _bucket(self) -> BucketRecord:
        with self._bench.store.kv.snapshot() as reader:
            bucket = buckets.get_bucket(reader, self._from.bucket)
        if bucket is None:
            raise PlaceError(
                f"this store has no bucket {self._from.bucket}; name one with --from BUCKET[/PREFIX]"
            )
        return bucket

    def _page(self, after: bytes) -> tuple[list[tuple[bytes, list[Listing]]], bytes | None]:
        bucket = self._bucket()
        with self._bench.store.kv.snapshot() as reader:
            page = list_objects(reader, bucket.id, prefix=self._from.prefix, after=after, max_keys=PAGE_KEYS)
        rows = [(key, [decode_listing(value)]) for key, value in page.entries]
        return rows, page.last if page.truncated else None

    def _version_page(self, after: bytes) -> tuple[list[tuple[bytes, list[Listing]]], bytes | None]:
        """Whole keys: a page that ends inside a key's versions is followed to their end."""
        bucket = self._bucket()
        grouped: dict[bytes, list[Listing]] = {}
        marker: bytes | None = None
        with self._bench.store.kv.snapshot() as reader:
            while True:
                page = list_versions(
                    reader, bucket.id, prefix=self._from.prefix, key_marker=after, version_id_marker=marker,
                    max_keys=PAGE_KEYS,
                )  # fmt: skip
                for row in page.entries:
                    grouped.setdefault(row.key, []).append(decode_listing(row.value))
                if not page.truncated or not page.entries:
                    end = None
                    break
                last = page.entries[-1].key
                if len(grouped) > 1:
                    del grouped[last]  # it comes whole with the next page
                    end = next(reversed(grouped))
                    break
                # One key with more versions than a page has.
                after, marker = last, grouped[last][-1].version_id or b""
        return [(key, versions[::-1]) for key, versions in grouped.items()], end

    # --- sending --------------------------------------------------------------------------------------------------

    async def _work(self, receiver: trio.MemoryReceiveChannel[Unit]) -> None:
        async with receiver:
            async for unit in receiver:
                try:
                    if self._options.versions:
                        await self._send_versions(unit)
                    else:
                        await self._send_current(unit)
                except PlaceError:
                    raise
                except (MovingError, NamesError, CasError) as error:
                    # A damaged object does not stop the others.
                    self._report.fail(unit.key, str(error))
                self._pace.handled_objects += len(unit.versions)
                self._on_progress()

    async def _send_current(self, unit: Unit) -> None:
        store = self._bench.store
        with store.operation():
            bucket = self._bucket()
            with store.kv.snapshot() as reader:
                record = get_object(reader, bucket.id, unit.key)
            if record is None:
                self._report.note("objects that were deleted here meanwhile")
                return
            if await self._needs_sending(unit, record):
                await self._put(self._from.key(unit.key), record)

    async def _needs_sending(self, unit: Unit, record: ObjectRecord) -> bool:
        found = _first(unit.found)
        entry = Entry(unit.key, record.size, record.etag, record.modified_ms)
        if found is not None and found.size == record.size and found.etag != record.etag:
            # Parts give it another ETag there: which one, the bytes tell.
            entry = entry._replace(etag=await self._target.expected_etag(record))
        verdict = plan_object(entry, found, self._options.overwrite)
        if verdict is Verdict.REFRESH and found is not None:
            key = self._from.key(unit.key)
            same = self._options.overwrite is Overwrite.NEVER or await self._target.carries_the_same(
                key, found, record
            )
            verdict = Verdict.DONE if same else Verdict.TAKE
        if verdict is Verdict.ASK:  # the same length and time, other bytes
            verdict = Verdict.KEEP if self._options.overwrite is Overwrite.NEVER else Verdict.TAKE
        if verdict is Verdict.DONE:
            self._done(record)
        elif verdict is Verdict.KEEP:
            self._report.keep(unit.key)
        if verdict is not Verdict.TAKE:
            self._pace.spare(record.size)
        return verdict is Verdict.TAKE

    async def _send_versions(self, unit: Unit) -> None:
        store, key = self._bench.store, self._from.key(unit.key)
        with store.operation():
            bucket = self._bucket()
            done: int | None = 0
            if unit.found:
                source = [await self._mark(bucket, unit.key, version) for version in unit.versions]
                done = plan_chain(source, [(e.delete_marker, e.size, e.etag) for e in unit.found[::-1]])
            if done is None:
                if self._options.overwrite is not Overwrite.ALWAYS:
                    self._report.keep(unit.key)
                    return
                done = 0
            for version in unit.versions[:done]:
                self._done(version)
                self._pace.spare(version.size)
            for version in unit.versions[done:]:
                await self._send_version(bucket, unit.key, key, version)

    async def _send_version(
        self, bucket: BucketRecord, key: bytes, target_key: bytes, version: Listing
    ) -> None:
        if version.delete_marker:
            if not self._options.dry_run:
                await self._target.delete(target_key)
            self._report.delete_markers += 1
            return
        record = self._version(bucket, key, version)
        if record is None:
            self._report.note("versions that were deleted here meanwhile")
        else:
            await self._put(target_key, record)

    async def _mark(self, bucket: BucketRecord, key: bytes, version: Listing) -> tuple[bool, int, str]:
        record = None if version.delete_marker else self._version(bucket, key, version)
        if record is None:
            return version.delete_marker, 0, ""
        return False, record.size, await self._target.expected_etag(record)

    def _version(self, bucket: BucketRecord, key: bytes, version: Listing) -> ObjectRecord | None:
        """One at a time: a key may have a hundred thousand."""
        with self._bench.store.kv.snapshot() as reader:
            return get_version(reader, bucket.id, key, version.version_id)

    async def _put(self, key: bytes, record: ObjectRecord) -> None:
        if not self._options.dry_run:
            self._report.prove(await self._target.put(key, record))
        self._report.objects += 1
        self._report.moved_bytes += record.size
        self._pace.moved_bytes += record.size

    def _done(self, version: ObjectRecord | Listing) -> None:
        self._report.done_objects += 1
        self._report.done_bytes += version.size


def _first(found: Sequence[Entry]) -> Entry | None:
    return found[0] if found else None


def _as_entry(key: bytes, version: Listing) -> Entry:
    return Entry(key, version.size, version.etag, version.modified_ms)
