"""One object on its way into the store, for an import: its body, the proof, its record, one commit.

A body is fetched in windows, several ahead of the upload that takes them in order, each repeated by itself when the
connection breaks; the proof runs over what goes into the store. The memory of all bodies together is bounded by two
windows per task. Nothing is visible before the commit that the caller makes of the record.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from cas.prefix import Prefixes
from index import buckets
from index.records import ObjectRecord, encode_parts
from index.versions import NONCE_BYTES, Change
from vaultaire.ingest import Upload
from vaultaire.moving.carried import check_tags, parse_carried
from vaultaire.moving.places import WINDOW_BYTES, Changed, Entry, ObjectError, PlaceError, WrongBytes
from vaultaire.moving.plans import Overwrite, etag_parts, windows
from vaultaire.moving.proof import Proof
from vaultaire.moving.read_ahead import with_body
from vaultaire.moving.transport import Pacer, Requests
from vaultaire.s3.errors import S3Error
from vaultaire.s3.names import check_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from index.kv import Reader, Transaction
    from index.records import BucketRecord
    from vaultaire.moving.bench import Bench
    from vaultaire.moving.places import Attributes, Source
    from vaultaire.moving.proof import Proven
    from vaultaire.moving.read_ahead import Body
    from vaultaire.moving.report import Pace, Report

T = TypeVar("T")

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


class Taking:
    """What the tasks of one import share. One instance per `Import`."""

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
        self.bench = bench
        self.source = source
        self.to = destination
        self.options = options
        self.report = report
        self.pace = pace
        self.on_progress = on_progress
        self.requests = Requests(options.parallel, report, Pacer(options.bytes_per_second))
        self._windows = trio.Semaphore(2 * options.parallel)  # bounds the memory of all bodies together

    def key(self, entry: Entry) -> bytes:
        """What it is called here. Raises ObjectError if it cannot be."""
        key = self.to.key(entry.key)
        try:
            check_key(key)
        except S3Error as error:
            raise ObjectError(f"it cannot be a key here: {error}") from error
        return key

    def bucket(self) -> BucketRecord:
        """Raises PlaceError if it is gone."""
        with self.bench.store.kv.snapshot() as reader:
            return self.bucket_in(reader)

    def bucket_in(self, reader: Reader) -> BucketRecord:
        """The destination's, as `reader` sees it. Raises PlaceError if it is gone."""
        bucket = buckets.get_bucket(reader, self.to.bucket)
        if bucket is None:
            raise PlaceError(f"bucket {self.to.bucket} was deleted meanwhile; run it again")
        return bucket

    def change(self, now_ms: int) -> Change:
        return Change(self.bench.store.writer, now_ms, os.urandom(NONCE_BYTES))

    async def commit(self, fn: Callable[[Transaction], T], upload: Upload | None) -> T:
        """Run `fn` in a commit that publishes what `upload` has taken."""
        result = await self.bench.committer.commit(fn, upload.publications if upload is not None else ())
        if upload is not None:
            upload.committed = True
        return result

    def done(self, entry: Entry) -> None:
        """It was there already."""
        self.report.done_objects += 1
        self.report.done_bytes += entry.size

    def count(self, entry: Entry) -> None:
        """It was taken, or would be."""
        if entry.delete_marker:
            self.report.delete_markers += 1
            return
        self.report.objects += 1
        self.report.moved_bytes += entry.size

    async def transfer(
        self, entry: Entry, commit: Callable[[ObjectRecord, Upload], Awaitable[None]], *, exact: bool
    ) -> None:
        """Take the body of `entry` in, prove it, and have its record committed."""
        attributes = await self._attributes(entry, exact=exact)

        async def fetch(start: int, stop: int) -> tuple[Attributes, bytes]:
            await self.requests.pacer.wait(stop - start)
            found = await self.requests.run(partial(self.source.fetch, entry, start, stop))
            self.pace.moved_bytes += stop - start
            self.on_progress()
            return found

        async def use(body: Body) -> Proven:
            proof = Proof(body.attributes)
            with self._upload(entry.size, proof) as upload:
                await upload.receive(body.receive)
                proven = proof.finish()
                if proven.how == "length" and self.options.read_twice and entry.size:
                    await self._read_again(entry, body.attributes, proof)
                    proven = replace(proven, how="twice")
                await commit(await self._record(entry, body.attributes, proven, upload), upload)
                self.report.new_stored_bytes += upload.new_stored_bytes
            return proven

        proven = await with_body(fetch, entry.size, self._windows, attributes, use)
        self.report.prove(proven.how)

    async def _attributes(self, entry: Entry, *, exact: bool) -> Attributes | None:
        """What must be known before the body comes; None: its one answer tells it all."""
        in_parts = bool(etag_parts(entry.etag))
        if entry.size <= WINDOW_BYTES and not in_parts:
            return None
        attributes = await self.requests.run(partial(self.source.look, entry))
        if attributes.size != entry.size or (entry.etag and attributes.etag != entry.etag):
            raise Changed("it was changed meanwhile")
        if not in_parts:
            return attributes
        return attributes.with_parts(
            await self.requests.run(partial(self.source.part_sizes, entry, attributes, exact=exact))
        )

    def _upload(self, size: int, proof: Proof) -> Upload:
        bench = self.bench
        return Upload(
            bench.store.chunks,
            bench.committer,
            bench.budget,
            bench.threads,
            decoder=None,
            digests=proof,
            announced=size,
            max_bytes=MAX_BYTES,
            prefixes=Prefixes(self.bucket().prefixes),
            claim=bench.store.space.claim(size),
        )

    async def _read_again(self, entry: Entry, attributes: Attributes, first: Proof) -> None:
        """The source has no digest to offer: what it sends twice is at least not a fault of the way."""
        second = Proof(attributes)
        for start, stop in windows(entry.size, WINDOW_BYTES):
            await self.requests.pacer.wait(stop - start)
            _, data = await self.requests.run(partial(self.source.fetch, entry, start, stop))
            await self.bench.threads.compute(partial(second.update, data))
        if second.digest != first.digest:
            raise WrongBytes("two readings gave different bytes")

    async def _record(
        self, entry: Entry, attributes: Attributes, proven: Proven, upload: Upload
    ) -> ObjectRecord:
        bucket = self.bucket()
        carried = parse_carried(attributes, self.report, object_lock=bucket.object_lock)
        tags: tuple[tuple[str, str], ...] = ()
        if attributes.tag_count:
            tags = await self.requests.run(partial(self.source.tags, entry))
        record = ObjectRecord(
            size=upload.size,
            modified_ms=entry.modified_ms,
            etag=proven.etag,
            owner=bucket.owner,
            checksum=proven.checksum,
            inline=upload.inline,
            manifest=upload.manifest.encode() if upload.manifest is not None else None,
            part_table=encode_parts(proven.parts) if proven.parts else b"",
            new_stored_bytes=upload.new_stored_bytes,
        )
        return carried.onto(record, check_tags(tags))


def counted(record: ObjectRecord, upload: Upload | None) -> ObjectRecord:
    """For use inside the commit: the end of the body is written by it."""
    return record if upload is None else upload.counted(record)
