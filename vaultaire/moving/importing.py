"""A source into the store: `vaultaire import`.

The source is listed page by page; each page is compared with what the destination shows, and what is to be taken goes
to `parallel` tasks. A body is fetched in windows, several ahead of the upload that takes them in order, each repeated
by itself when the connection breaks; the proof runs over what goes into the store. Then one commit looks at the
destination again (nobody wrote there meanwhile) and makes the object visible with its bytes, times and metadata.

With versions, all of one key are taken in order by one task, each in its own commit, delete markers included, null
versions as null versions. A killed run leaves the oldest of them, and the next one goes on after those.

Errors of the store (a full disk, a failing one) and of the place end the run; those of one object are reported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from index import buckets
from index.errors import NamesError, QuotaExceeded, VersionLocked
from index.objects import get_object
from index.records import ObjectRecord, encode_parts
from index.versions import NONCE_BYTES, Change, delete_object, list_key, put_object
from vaultaire.ingest import Upload
from vaultaire.moving.carried import parse_carried
from vaultaire.moving.places import (
    WINDOW_BYTES,
    Changed,
    Entry,
    Gone,
    MovingError,
    ObjectError,
    PlaceError,
    WrongBytes,
)
from vaultaire.moving.plans import Overwrite, Verdict, etag_parts, plan_chain, plan_object, windows
from vaultaire.moving.proof import Proof
from vaultaire.moving.read_ahead import with_body
from vaultaire.moving.report import Pace
from vaultaire.moving.transport import FIRST_ATTEMPTS, Pacer, Requests, share_out
from vaultaire.s3 import tags as tag_rules
from vaultaire.s3.errors import S3Error
from vaultaire.s3.names import check_bucket_name, check_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from index.kv import Transaction
    from index.records import BucketRecord
    from index.values import Versioning
    from vaultaire.moving.bench import Bench
    from vaultaire.moving.places import Attributes, Source
    from vaultaire.moving.proof import Proven
    from vaultaire.moving.read_ahead import Body
    from vaultaire.moving.report import Report

    Page = tuple[Sequence[Entry], str | None]

TRIES: Final = 3  # of an object that changes, or whose bytes are wrong
MAX_BYTES: Final = 50 << 40  # of one object


@dataclass(frozen=True, slots=True)
class Options:
    parallel: int = 8
    overwrite: Overwrite = Overwrite.OLDER
    versions: bool = False
    dry_run: bool = False
    read_twice: bool = False
    bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """Keys that begin with `strip` go to `bucket`, with `prefix` in its place."""

    bucket: str
    strip: bytes = b""
    prefix: bytes = b""
    owner: str = "root"  # tenant of a bucket that is made

    def key(self, source: bytes) -> bytes:
        return self.prefix + source.removeprefix(self.strip)


@dataclass(frozen=True, slots=True)
class NewBucket:
    """How the destination's bucket is made, if it is not there."""

    versioning: Versioning = "Off"
    object_lock: bool = False


class Import:
    """One bucket's (or folder's) import. `run` once, inside `with_bench`."""

    def __init__(
        self, bench: Bench, source: Source, destination: Destination, options: Options, report: Report
    ) -> None:
        self._bench = bench
        self._source = source
        self._to = destination
        self._options = options
        self._report = report
        self._requests = Requests(options.parallel, report, Pacer(options.bytes_per_second))
        self._windows = trio.Semaphore(2 * options.parallel)  # bounds the memory of all bodies together
        self.pace = Pace()  # may be one that goes on over several buckets
        self.on_progress: Callable[[], None] = lambda: None

    async def run(self, new_bucket: NewBucket) -> None:
        """Raises PlaceError; KvError, CasError, StoreError of the store."""
        first = await self._first_page()
        if not self._options.dry_run:
            await self._ensure_bucket(new_bucket)
        await share_out(self._options.parallel, partial(self._list, first=first), self._work)

    async def _first_page(self) -> Page:
        """An address, key or bucket that is wrong is told at once, before anything is made."""
        try:
            return await self._requests.run(
                lambda: self._source.pages(None, versions=self._options.versions), attempts=FIRST_ATTEMPTS
            )
        except PlaceError:
            raise
        except MovingError as error:
            raise PlaceError(str(error)) from error

    async def _ensure_bucket(self, new: NewBucket) -> None:
        name = self._to.bucket
        try:
            check_bucket_name(name)
        except S3Error as error:
            raise PlaceError(
                f"{name!r} cannot be a bucket here ({error}); name another one with --into"
            ) from error

        def commit(txn: Transaction) -> None:
            bucket = buckets.get_bucket(txn, name)
            if bucket is None:
                bucket = buckets.create_bucket(
                    txn, name, self._to.owner, self._bench.now_ms, object_lock=new.object_lock
                )
                if new.versioning != "Off" and not new.object_lock:
                    buckets.set_versioning(txn, bucket, new.versioning)
            elif self._options.versions and new.versioning != "Off" and bucket.versioning == "Off":
                raise PlaceError(
                    f"bucket {name} keeps no versions; enable versioning on it first, import into another bucket "
                    "with --into, or leave --versions out"
                )

        await self._bench.committer.commit(commit)

    # --- listing and deciding -------------------------------------------------------------------------------------

    async def _list(self, sender: trio.MemorySendChannel[list[Entry]], first: Page) -> None:
        group: list[Entry] = []
        page, token = first
        self.pace.listed = False
        async with sender:
            while True:
                if self._options.versions:
                    for entry in page:
                        if group and group[0].key != entry.key:
                            await self._send(sender, group)
                            group = []
                        group.append(entry)
                else:
                    for entry in self._undecided(page):
                        await self._send(sender, [entry])
                self.on_progress()
                if token is None:
                    break
                page, token = await self._next_page(token)
            if group:
                await self._send(sender, group)
            self.pace.listed = True

    async def _send(self, sender: trio.MemorySendChannel[list[Entry]], unit: list[Entry]) -> None:
        self.pace.find([entry.size for entry in unit])
        await sender.send(unit)

    async def _next_page(self, token: str) -> Page:
        try:
            return await self._requests.run(
                partial(self._source.pages, token, versions=self._options.versions)
            )
        except ObjectError as error:
            raise PlaceError(f"{self._source.url}: the listing broke off: {error}") from error

    def _undecided(self, page: Sequence[Entry]) -> list[Entry]:
        """What of a page is not done."""
        with self._bench.store.kv.snapshot() as reader:
            bucket = buckets.get_bucket(reader, self._to.bucket)
            if bucket is None:
                return list(page)
            left = []
            for entry in page:
                try:
                    found = get_object(reader, bucket.id, self._to.key(entry.key))
                except NamesError:
                    found = None  # a key that cannot be: said when it is taken
                verdict = plan_object(entry, _as_entry(entry.key, found), self._options.overwrite)
                if verdict is Verdict.DONE:
                    self._done(entry)
                elif verdict is Verdict.KEEP:
                    self._report.keep(entry.key)
                else:
                    left.append(entry)
        return left

    def _done(self, entry: Entry) -> None:
        self._report.done_objects += 1
        self._report.done_bytes += entry.size

    async def _work(self, receiver: trio.MemoryReceiveChannel[list[Entry]]) -> None:
        async with receiver:
            async for unit in receiver:
                try:
                    if self._options.versions:
                        await self._take_versions(unit)
                    else:
                        await self._take_current(unit[0])
                except PlaceError:
                    raise
                except Gone:
                    self._report.note("objects that were deleted at the source meanwhile")
                except QuotaExceeded as error:  # the others would not fit either, and be fetched for nothing
                    raise PlaceError(f"{error}; raise it with `vaultaire bucket quota`") from error
                except (MovingError, VersionLocked) as error:
                    self._report.fail(unit[0].key, _explained(error))
                except NamesError as error:
                    self._report.fail(unit[0].key, str(error))
                self.pace.handled_objects += len(unit)
                self.on_progress()

    # --- current objects ------------------------------------------------------------------------------------------

    async def _take_current(self, entry: Entry) -> None:
        exact = False
        for attempt in range(TRIES):
            try:
                await self._take_once(entry, exact=exact)
                return
            except Gone:
                raise
            except Changed:
                self._report.changed += 1
                if attempt == TRIES - 1:
                    raise ObjectError("it keeps changing; run the import again") from None
                entry = await self._again(entry)
            except WrongBytes:
                if attempt == TRIES - 1:
                    raise
                self._report.retries += 1
                exact = True

    async def _again(self, entry: Entry) -> Entry:
        """The entry as the source has it now."""
        now = await self._requests.run(partial(self._source.look, entry))
        listed = entry.modified_ms  # in milliseconds on some servers, where this answer has seconds
        modified_ms = listed if now.modified_ms == listed // 1000 * 1000 else now.modified_ms
        return entry._replace(size=now.size, etag=now.etag, modified_ms=modified_ms)

    async def _take_once(self, entry: Entry, *, exact: bool) -> None:
        key = self._key(entry)
        with self._bench.store.kv.snapshot() as reader:
            bucket = buckets.get_bucket(reader, self._to.bucket)
            found = None if bucket is None else get_object(reader, bucket.id, key)
        verdict = plan_object(entry, _as_entry(entry.key, found), self._options.overwrite)
        if verdict is Verdict.ASK:
            look = await self._requests.run(partial(self._source.look, entry))
            verdict = Verdict.DONE if not look.etag_is_md5 else self._overwriting()
        if verdict is Verdict.REFRESH and self._options.overwrite is Overwrite.NEVER:
            verdict = Verdict.DONE
        if verdict is not Verdict.TAKE:
            self.pace.spare(entry.size)
        if verdict is Verdict.DONE:
            self._done(entry)
        elif verdict is Verdict.KEEP:
            self._report.keep(entry.key)
        elif self._options.dry_run:
            self._count(entry)
        elif verdict is Verdict.REFRESH:
            assert found is not None
            await self._refresh(entry, key, found)
        else:
            await self._store(entry, key, found, exact=exact)

    def _overwriting(self) -> Verdict:
        """Of other bytes of the same length and time: they came from there, and changed within the same moment."""
        return Verdict.KEEP if self._options.overwrite is Overwrite.NEVER else Verdict.TAKE

    def _key(self, entry: Entry) -> bytes:
        key = self._to.key(entry.key)
        try:
            check_key(key)
        except S3Error as error:
            raise ObjectError(f"it cannot be a key here: {error}") from error
        return key

    async def _refresh(self, entry: Entry, key: bytes, found: ObjectRecord) -> None:
        """The bytes are there: only what the object carries is read."""
        attributes = await self._requests.run(partial(self._source.look, entry))
        if attributes.etag != entry.etag:
            raise Changed("it was changed meanwhile")
        # Not every server counts the tags in a HEAD.
        tags = await self._requests.run(partial(self._source.tags, entry))
        bucket = self._bucket()
        carried = parse_carried(attributes, self._report, object_lock=bucket.object_lock)
        fresh = replace(
            found,
            modified_ms=entry.modified_ms,
            content_type=carried.content_type,
            headers=carried.headers,
            metadata=carried.metadata,
            tags=_checked_tags(tags),
            retention=carried.retention,
            legal_hold=carried.legal_hold,
            new_stored_bytes=0 if bucket.versioning == "Enabled" else found.new_stored_bytes,
        )
        if _carries(fresh) == _carries(found):
            self._done(entry)
            return
        await self._commit(key, fresh, found)
        self._report.refreshed += 1

    async def _store(self, entry: Entry, key: bytes, found: ObjectRecord | None, *, exact: bool) -> None:
        async def commit(record: ObjectRecord, upload: Upload) -> None:
            await self._commit(key, record, found, upload)

        await self._transfer(entry, commit, exact=exact)
        self._count(entry)

    async def _commit(
        self, key: bytes, record: ObjectRecord, found: ObjectRecord | None, upload: Upload | None = None
    ) -> None:
        """Make `record` visible, if the destination still shows `found`."""
        change = self._change(self._bench.now_ms)

        def commit(txn: Transaction) -> None:
            bucket = _bucket(txn, self._to.bucket)
            now = get_object(txn, bucket.id, key)
            if (now and now.sequence) != (found and found.sequence):
                raise Changed("it was written in the destination meanwhile")
            put_object(txn, bucket, key, _counted(replace(record, owner=bucket.owner), upload), change)

        await self._bench.committer.commit(commit, upload.publications if upload is not None else ())
        if upload is not None:
            upload.committed = True

    def _change(self, now_ms: int) -> Change:
        return Change(self._bench.store.writer, now_ms, os.urandom(NONCE_BYTES))

    def _count(self, entry: Entry) -> None:
        if entry.delete_marker:
            self._report.delete_markers += 1
            return
        self._report.objects += 1
        self._report.moved_bytes += entry.size

    # --- versions -------------------------------------------------------------------------------------------------

    async def _take_versions(self, unit: list[Entry]) -> None:
        """All versions of one key; `unit` has the newest first."""
        source = unit[::-1]
        key = self._key(source[0])
        with self._bench.store.kv.snapshot() as reader:
            bucket = buckets.get_bucket(reader, self._to.bucket)
            found = list_key(reader, bucket.id, key)[::-1] if bucket is not None else []
        done = plan_chain(
            [_mark(e.delete_marker, e.size, e.modified_ms) for e in source],
            [_mark(e.delete_marker, e.size, e.modified_ms) for e in found],
        )
        if done is None:
            if self._options.overwrite is not Overwrite.ALWAYS:
                self._report.keep(source[0].key)
                return
            done = 0
        for entry in source[:done]:
            self._done(entry)
            self.pace.spare(entry.size)
        newest = found[-1].sequence if found else 0
        for entry in source[done:]:
            if not self._options.dry_run:
                newest = await self._take_version(entry, key, newest)
            self._count(entry)

    async def _take_version(self, entry: Entry, key: bytes, newest: int) -> int:
        """Put it on top of the version of sequence `newest`; its own sequence."""
        if entry.delete_marker:
            return await self._commit_version(entry, key, newest, None)
        sequence = 0

        async def commit(record: ObjectRecord, upload: Upload) -> None:
            nonlocal sequence
            sequence = await self._commit_version(entry, key, newest, record, upload)

        for attempt in range(TRIES):
            try:
                await self._transfer(entry, commit, exact=attempt > 0)
                break
            except WrongBytes:
                if attempt == TRIES - 1:
                    raise
                self._report.retries += 1
        return sequence

    async def _commit_version(
        self, entry: Entry, key: bytes, newest: int, record: ObjectRecord | None, upload: Upload | None = None
    ) -> int:
        # A delete marker's time is its change's. Judging locks by the past holds them longer, never shorter.
        change = self._change(entry.modified_ms if record is None else self._bench.now_ms)

        def commit(txn: Transaction) -> int:
            bucket = _bucket(txn, self._to.bucket)
            listed = list_key(txn, bucket.id, key, limit=1)
            if (listed[0].sequence if listed else 0) != newest:
                raise ObjectError("it was written in the destination meanwhile; run the import again")
            # The state in which the source made this version, whatever the bucket's is now.
            if bucket.versioning != "Off":
                bucket = replace(bucket, versioning="Suspended" if entry.null_version else "Enabled")
            if record is None:
                delete_object(txn, bucket, key, bucket.owner, change)
            else:
                put_object(txn, bucket, key, _counted(replace(record, owner=bucket.owner), upload), change)
            return txn.sequence

        sequence = await self._bench.committer.commit(
            commit, upload.publications if upload is not None else ()
        )
        if upload is not None:
            upload.committed = True
        return sequence

    # --- one body -------------------------------------------------------------------------------------------------

    async def _transfer(
        self, entry: Entry, commit: Callable[[ObjectRecord, Upload], Awaitable[None]], *, exact: bool
    ) -> None:
        """Take the body of `entry` in, prove it, and have its record committed."""
        attributes = await self._attributes(entry, exact=exact)

        async def fetch(start: int, stop: int) -> tuple[Attributes, bytes]:
            await self._requests.pacer.wait(stop - start)
            found = await self._requests.run(partial(self._source.fetch, entry, start, stop))
            self.pace.moved_bytes += stop - start
            self.on_progress()
            return found

        async def use(body: Body) -> Proven:
            proof = Proof(body.attributes)
            with self._upload(entry.size, proof) as upload:
                await upload.receive(body.receive)
                proven = proof.finish()
                if proven.how == "length" and self._options.read_twice and entry.size:
                    await self._read_again(entry, body.attributes, proof)
                    proven = replace(proven, how="twice")
                await commit(await self._record(entry, body.attributes, proven, upload), upload)
                self._report.new_stored_bytes += upload.new_stored_bytes
            return proven

        proven = await with_body(fetch, entry.size, self._windows, attributes, use)
        self._report.prove(proven.how)

    async def _attributes(self, entry: Entry, *, exact: bool) -> Attributes | None:
        """What must be known before the body comes; None: its one answer tells it all."""
        in_parts = bool(etag_parts(entry.etag))
        if entry.size <= WINDOW_BYTES and not in_parts:
            return None
        attributes = await self._requests.run(partial(self._source.look, entry))
        if attributes.size != entry.size or (entry.etag and attributes.etag != entry.etag):
            raise Changed("it was changed meanwhile")
        if not in_parts:
            return attributes
        return attributes.with_parts(
            await self._requests.run(partial(self._source.part_sizes, entry, attributes, exact=exact))
        )

    def _upload(self, size: int, proof: Proof) -> Upload:
        bench = self._bench
        return Upload(
            bench.store.chunks,
            bench.committer,
            bench.budget,
            bench.threads,
            decoder=None,
            digests=proof,
            max_bytes=MAX_BYTES,
            claim=bench.store.space.claim(size),
        )

    async def _read_again(self, entry: Entry, attributes: Attributes, first: Proof) -> None:
        """The source has no digest to offer: what it sends twice is at least not a fault of the way."""
        second = Proof(attributes)
        for start, stop in windows(entry.size, WINDOW_BYTES):
            await self._requests.pacer.wait(stop - start)
            _, data = await self._requests.run(partial(self._source.fetch, entry, start, stop))
            await self._bench.threads.compute(partial(second.update, data))
        if second.digest != first.digest:
            raise WrongBytes("two readings gave different bytes")

    async def _record(
        self, entry: Entry, attributes: Attributes, proven: Proven, upload: Upload
    ) -> ObjectRecord:
        bucket = self._bucket()
        carried = parse_carried(attributes, self._report, object_lock=bucket.object_lock)
        tags: tuple[tuple[str, str], ...] = ()
        if attributes.tag_count:
            tags = await self._requests.run(partial(self._source.tags, entry))
        return ObjectRecord(
            size=upload.size,
            modified_ms=entry.modified_ms,
            etag=proven.etag,
            owner=bucket.owner,
            content_type=carried.content_type,
            headers=carried.headers,
            metadata=carried.metadata,
            tags=_checked_tags(tags),
            checksum=proven.checksum,
            inline=upload.inline,
            manifest=upload.manifest.encode() if upload.manifest is not None else None,
            part_table=encode_parts(proven.parts) if proven.parts else b"",
            new_stored_bytes=upload.new_stored_bytes,
            retention=carried.retention,
            legal_hold=carried.legal_hold,
        )

    def _bucket(self) -> BucketRecord:
        with self._bench.store.kv.snapshot() as reader:
            bucket = buckets.get_bucket(reader, self._to.bucket)
        if bucket is None:
            raise PlaceError(f"bucket {self._to.bucket} was deleted meanwhile; run it again")
        return bucket


def _bucket(txn: Transaction, name: str) -> BucketRecord:
    bucket = buckets.get_bucket(txn, name)
    if bucket is None:
        raise PlaceError(f"bucket {name} was deleted meanwhile; run it again")
    return bucket


def _counted(record: ObjectRecord, upload: Upload | None) -> ObjectRecord:
    return record if upload is None else upload.counted(record)


def _as_entry(key: bytes, record: ObjectRecord | None) -> Entry | None:
    return None if record is None else Entry(key, record.size, record.etag, record.modified_ms)


def _mark(delete_marker: bool, size: int, modified_ms: int) -> tuple[bool, int, int]:
    """What a version is known by on both sides. Not by its ETag, which is not always one that can be kept."""
    return delete_marker, size, modified_ms // 1000


def _carries(record: ObjectRecord) -> tuple[object, ...]:
    return record.content_type, record.headers, sorted(record.metadata), sorted(record.tags)


def _checked_tags(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Raises ObjectError."""
    try:
        return tag_rules.check(pairs, tag_rules.MAX_OBJECT_TAGS)
    except S3Error as error:
        raise ObjectError(f"its tags are none that S3 allows: {error}") from error


def _explained(error: Exception) -> str:
    if isinstance(error, VersionLocked):
        return "the version in the destination is locked; it stays as it is"
    return str(error)
