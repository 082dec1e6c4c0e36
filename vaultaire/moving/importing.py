"""A source into the store: `vaultaire import`.

The source is listed page by page; each page is compared with what the destination shows, and what is to be taken goes
to `parallel` tasks, which take a body in (`taking`). Then one commit looks at the destination again (nobody wrote there
meanwhile) and makes the object visible with its bytes, times and metadata. With versions, all of one key are taken in
order by one task (`version_import`).

Errors of the store (a full disk, a failing one) and of the place end the run; those of one object are reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from index import buckets
from index.errors import NamesError, QuotaExceeded, VersionLocked
from index.objects import get_object
from index.versions import put_object
from vaultaire.moving.carried import check_tags, parse_carried
from vaultaire.moving.places import Changed, Entry, Gone, MovingError, ObjectError, PlaceError, WrongBytes
from vaultaire.moving.plans import Overwrite, Verdict, plan_object
from vaultaire.moving.taking import TRIES, Taking, counted
from vaultaire.moving.transport import FIRST_ATTEMPTS, share_out
from vaultaire.moving.version_import import take_versions
from vaultaire.s3.errors import S3Error
from vaultaire.s3.names import check_bucket_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import trio

    from index.kv import Transaction
    from index.records import ObjectRecord
    from index.values import Versioning
    from vaultaire.ingest import Upload
    from vaultaire.moving.bench import Bench
    from vaultaire.moving.places import Source
    from vaultaire.moving.report import Pace, Report
    from vaultaire.moving.taking import Destination, Options

    Page = tuple[Sequence[Entry], str | None]


@dataclass(frozen=True, slots=True)
class NewBucket:
    """How the destination's bucket is made, if it is not there."""

    versioning: Versioning = "Off"
    object_lock: bool = False


class Import:
    """One bucket's (or folder's) import. `run` once, inside `with_bench`."""

    def __init__(
        self,
        bench: Bench,
        source: Source,
        destination: Destination,
        options: Options,
        report: Report,
        *,
        pace: Pace,
        on_progress: Callable[[], None],
    ) -> None:
        """`pace` may be one that goes on over several buckets."""
        self._taking = Taking(bench, source, destination, options, report, pace=pace, on_progress=on_progress)
        self._bench = bench
        self._source = source
        self._to = destination
        self._options = options
        self._report = report
        self._requests = self._taking.requests
        self._pace = pace
        self._on_progress = on_progress

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
        self._pace.listed = False
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
                self._on_progress()
                if token is None:
                    break
                page, token = await self._next_page(token)
            if group:
                await self._send(sender, group)
            self._pace.listed = True

    async def _send(self, sender: trio.MemorySendChannel[list[Entry]], unit: list[Entry]) -> None:
        self._pace.find([entry.size for entry in unit])
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
                    self._taking.done(entry)
                elif verdict is Verdict.KEEP:
                    self._report.keep(entry.key)
                else:
                    left.append(entry)
        return left

    async def _work(self, receiver: trio.MemoryReceiveChannel[list[Entry]]) -> None:
        async with receiver:
            async for unit in receiver:
                try:
                    if self._options.versions:
                        await take_versions(self._taking, unit)
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
                self._pace.handled_objects += len(unit)
                self._on_progress()

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
        key = self._taking.key(entry)
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
            self._pace.spare(entry.size)
        if verdict is Verdict.DONE:
            self._taking.done(entry)
        elif verdict is Verdict.KEEP:
            self._report.keep(entry.key)
        elif self._options.dry_run:
            self._taking.count(entry)
        elif verdict is Verdict.REFRESH:
            assert found is not None
            await self._refresh(entry, key, found)
        else:
            await self._store(entry, key, found, exact=exact)

    def _overwriting(self) -> Verdict:
        """Of other bytes of the same length and time: they came from there, and changed within the same moment."""
        return Verdict.KEEP if self._options.overwrite is Overwrite.NEVER else Verdict.TAKE

    async def _refresh(self, entry: Entry, key: bytes, found: ObjectRecord) -> None:
        """The bytes are there: only what the object carries is read."""
        attributes = await self._requests.run(partial(self._source.look, entry))
        if attributes.etag != entry.etag:
            raise Changed("it was changed meanwhile")
        # Not every server counts the tags in a HEAD.
        tags = await self._requests.run(partial(self._source.tags, entry))
        bucket = self._taking.bucket()
        carried = parse_carried(attributes, self._report, object_lock=bucket.object_lock)
        fresh = replace(
            found,
            modified_ms=entry.modified_ms,
            new_stored_bytes=0 if bucket.versioning == "Enabled" else found.new_stored_bytes,
        )
        fresh = carried.onto(fresh, check_tags(tags))
        if _carries(fresh) == _carries(found):
            self._taking.done(entry)
            return
        await self._commit(key, fresh, found)
        self._report.refreshed += 1

    async def _store(self, entry: Entry, key: bytes, found: ObjectRecord | None, *, exact: bool) -> None:
        async def commit(record: ObjectRecord, upload: Upload) -> None:
            await self._commit(key, record, found, upload)

        await self._taking.transfer(entry, commit, exact=exact)
        self._taking.count(entry)

    async def _commit(
        self, key: bytes, record: ObjectRecord, found: ObjectRecord | None, upload: Upload | None = None
    ) -> None:
        """Make `record` visible, if the destination still shows `found`."""
        change = self._taking.change(self._bench.now_ms)

        def commit(txn: Transaction) -> None:
            bucket = self._taking.bucket_in(txn)
            now = get_object(txn, bucket.id, key)
            if (now and now.sequence) != (found and found.sequence):
                raise Changed("it was written in the destination meanwhile")
            put_object(txn, bucket, key, counted(replace(record, owner=bucket.owner), upload), change)

        await self._taking.commit(commit, upload)


def _as_entry(key: bytes, record: ObjectRecord | None) -> Entry | None:
    return None if record is None else Entry(key, record.size, record.etag, record.modified_ms)


def _carries(record: ObjectRecord) -> tuple[object, ...]:
    return record.content_type, record.headers, sorted(record.metadata), sorted(record.tags)


def _explained(error: Exception) -> str:
    if isinstance(error, VersionLocked):
        return "the version in the destination is locked; it stays as it is"
    return str(error)
