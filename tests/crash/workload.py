"""What a laboratory does to a store: a seeded mix of every operation that changes it, each told before and after.

A `Worker` is one client. It owns the keys that begin with its name, shares buckets (and, by their bytes, chunks) with
the others, and carries the operations out as `vaultaire.s3.operations` does: ingest, publication, one commit with its
preconditions read again inside. Before an operation it says ("begin", name, operation), after its success ("done",
name, told), after a documented failure ("failed", name, error class, text). Whoever listens keeps the model.

Stores are scaled down (`shrink`): chunks of 1 KiB, packs of 400 KB, journal segments of 60 KB, so that a few hundred
operations meet every border: trees of manifests, full packs, rotation, checkpoints that cut the journal.
"""

from __future__ import annotations

import contextlib
import functools
import random
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from blake3 import blake3

import cas.erasure  # the store imports it late: here it must be there before children are forked
import cas.packs
import vaultaire.store
from cas import gc
from cas.chunk import Identity
from cas.errors import CasError
from cas.manifest import Manifest
from cas.store import ChunkStore
from index import buckets, uploads
from index.counters import statistics
from index.environment import Tuning
from index.errors import NamesError
from index.kv import KvError
from index.listing import list_objects, list_uploads, list_versions
from index.lmdb_kv import LmdbKv
from index.objects import get_object
from index.records import BucketRecord, ObjectRecord, PartRecord, UploadRecord
from index.versions import (
    Change,
    complete_upload,
    delete_object,
    delete_version,
    get_version,
    put_object,
)
from tests.crash import model
from tests.crash.model import Body, OpenUpload, State, Version
from vaultaire.collection import Collector
from vaultaire.errors import StoreError
from vaultaire.parity import Parity
from vaultaire.reading import read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cas.store import Publication
    from index.kv import Reader, Transaction
    from tests.crash.forked import Said
    from tests.crash.model import Bucket, Operation
    from vaultaire.store import Store

DOCUMENTED = (StoreError, KvError, CasError, NamesError)
CHORE_ERRORS = (*DOCUMENTED, OSError)  # as `vaultaire.maintenance` takes them

CUT_RULES = "fastcdc2020/1024/256/4096/nc2"
PACK_TARGET_BYTES = 400_000
FIRST_EXTENT_BYTES = 16_384
SEGMENT_BYTES = 60_000
TUNING = Tuning(zero_ahead_bytes=16_384, replay_bytes=20_000, max_readers=64, checkpoint_least_bytes=30_000)
COLLECTION = gc.Policy(target_bytes=PACK_TARGET_BYTES, small_packs=3, batch_packs=4)
MAP_SIZE_BYTES = 1 << 28

INLINE_MAX_BYTES = 4096
SIZES = (0, 1, 700, 4096, 4097, 9_000, 40_000, 120_000, 300_000)
SIZE_WEIGHTS = (1, 1, 4, 1, 2, 6, 4, 2, 1)
BUCKETS: tuple[Bucket, ...] = ("plain", "versioned")
OWNER = "laboratory"
KEYS = 5  # per client and bucket
_LONG = b"/" + b"long" * 200  # a key that continues in a second row


def shrink() -> None:
    """Make every store of this process a small one, for good: see the module."""

    def open_small(directory: Path, **options: Any) -> LmdbKv:
        return LmdbKv.open(
            directory, **options, map_size_bytes=MAP_SIZE_BYTES, segment_bytes=SEGMENT_BYTES, tuning=TUNING
        )

    names: Any = vaultaire.store
    names.LmdbKv = SimpleNamespace(open=open_small)
    names.recover = functools.partial(names.recover, map_size_bytes=MAP_SIZE_BYTES, tuning=TUNING)
    packs: Any = cas.packs
    packs.FIRST_EXTENT_BYTES = FIRST_EXTENT_BYTES
    names.ChunkStore = functools.partial(ChunkStore, pack_target_bytes=PACK_TARGET_BYTES)

    create = Identity.create
    Identity.create = staticmethod(lambda: replace(create(), cdc=CUT_RULES))  # type: ignore[method-assign]


def one_thread() -> None:
    """Compress frames in the thread that asks: the same system calls in the same order at every run."""

    class Inline:
        map = staticmethod(lambda fn, items: map(fn, items))
        shutdown = staticmethod(lambda: None)

    names: Any = vaultaire.store
    names.FrameThreads = Inline


def make_buckets(store: Store) -> None:
    """Both buckets, where they are missing."""

    def create(txn: Transaction) -> None:
        for name in BUCKETS:
            if buckets.get_bucket(txn, name) is None:
                bucket = buckets.create_bucket(txn, name, OWNER, 0)
                if name == "versioned":
                    buckets.set_versioning(txn, bucket, "Enabled")

    store.kv.commit(create)


def body_of(rng: random.Random, size: int) -> bytes:
    """Blocks that all clients use, versions of texts, and own bytes; half of what is stored is somewhere else too."""
    parts = []
    left = size
    while left > 0:
        chance = rng.random()
        if chance < 0.25:
            piece = _version(rng.randrange(3), rng.randrange(20))
        elif chance < 0.6:
            piece = _shared(rng.randrange(6))
        else:
            piece = rng.randbytes(rng.randrange(1, 20_000))
        start = rng.choice((0, 0, 1_000))
        parts.append(piece[start : start + left])
        left -= len(parts[-1])
    return b"".join(parts)


@functools.cache
def _shared(number: int) -> bytes:
    return random.Random(number).randbytes(15_000) + b"text " * 3_000


@functools.cache
def _version(number: int, edit: int) -> bytes:
    """A text of some chunks, one or two of which are changed: their frames have bases."""
    text = bytearray(random.Random(number).randbytes(75_000).hex().encode())
    for at in random.Random(edit).sample(range(len(text)), 2):
        text[at : at + 6] = b"%06d" % edit
    return bytes(text)


def digest(data: bytes) -> Body:
    return Body(len(data), blake3(data).digest(16))


# --- Reading everything ------------------------------------------------------------------------------------------


def read_states(store: Store, names: Sequence[str]) -> dict[str, State]:
    """All that the store holds, per client; every byte is read and every chunk verified. Raises what reading raises.

    A plain object is read as GET finds it and must be what LIST shows. AssertionError where the two differ, where a
    record does not fit its bytes, or where the counters do not fit the objects.
    """
    found = {name: State() for name in names}
    with store.operation(), store.kv.snapshot() as reader:
        plain, versioned = (_bucket(reader, name) for name in BUCKETS)
        for key, value in list_objects(reader, plain, max_keys=100_000).entries:
            record = ObjectRecord.decode(value)
            assert get_object(reader, plain, key) == record, f"{key!r} is listed as another object"
            found[_owner(key)].plain[key] = _body(store, record)
        for row in list_versions(reader, versioned, max_keys=100_000).entries:
            record = ObjectRecord.decode(row.value)
            assert get_version(reader, versioned, row.key, record.version_id) == record
            id_ = (record.version_id or b"").hex()
            version = Version(id_, None if record.delete_marker else _body(store, record))
            versions = found[_owner(row.key)].versions
            versions[row.key] = (*versions.get(row.key, ()), version)
        for row in list_uploads(reader, plain, max_uploads=100_000).entries:
            upload = _open_upload(store, reader, plain, row.key, row.upload_id)
            found[_owner(row.key)].uploads[row.upload_id] = upload
        objects = statistics(reader).objects
    counted = sum(state.objects for state in found.values())
    assert objects == counted, f"the counters say {objects} objects, there are {counted}"
    return found


def _bucket(reader: Reader, name: str) -> int:
    bucket = buckets.get_bucket(reader, name)
    return 0 if bucket is None else bucket.id


def _record(reader: Reader, name: str) -> BucketRecord:
    bucket = buckets.get_bucket(reader, name)
    assert bucket is not None
    return bucket


def _owner(key: bytes) -> str:
    return key.partition(b"/")[0].decode()


def read_manifest(store: Store, manifest: Manifest) -> bytes:
    """All its bytes, verified. Raises CasError."""
    return b"".join(read_all(store.chunks, manifest))


def body_of_record(store: Store, record: ObjectRecord | None) -> Body | None:
    """The bytes behind a record, as they are; None if there is none."""
    if record is None or record.delete_marker:
        return None
    if record.inline is not None:
        return digest(record.inline)
    assert record.manifest is not None
    return digest(read_manifest(store, Manifest.decode(record.manifest)))


def _body(store: Store, record: ObjectRecord) -> Body:
    body = body_of_record(store, record)
    assert body is not None
    assert (body.size, body.digest.hex()) == (record.size, record.etag[:32]), "not the bytes of its record"
    return body


def _open_upload(store: Store, reader: Reader, bucket: int, key: bytes, id_: str) -> OpenUpload:
    parts = []
    for part in uploads.list_parts(reader, bucket, key, id_, limit=10_000).parts:
        body = digest(b"".join(read_all(store.chunks, Manifest.decode(part.manifest))))
        assert body.digest.hex() == part.etag, "not the bytes of its part"
        parts.append((part.number, body))
    return OpenUpload(id_, key, tuple(parts))


# --- Doing things ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Worker:
    """See the module. One thread."""

    store: Store
    name: str
    rng: random.Random
    state: State
    said: Said
    care: Sequence[Callable[[Store], object]] = ()  # what it does now and then beside its operations
    answers_early: bool = False  # a mutant: success is told before the commit
    max_bytes: int = 300_000  # of one object

    def step(self) -> None:
        """One operation. Raises what is not documented."""
        actions = [
            (self.put, 8), (self.copy, 3), (self.delete, 2), (self.delete_version, 2), (self.begin, 1),
            (self.put_part, 3), (self.complete, 1), (self.abort, 0.5), (self.take_care, 1),
        ]  # fmt: skip
        choices, weights = zip(*actions, strict=True)
        self.rng.choices(choices, weights)[0]()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    # Operations

    def put(self) -> None:
        bucket, key = self._choose()
        data = body_of(self.rng, min(self.rng.choices(SIZES, SIZE_WEIGHTS)[0], self.max_bytes))
        self._do(model.Put(bucket, key, digest(data)), lambda: self._put(bucket, key, data))

    def copy(self) -> None:
        """All of a plain object, or a range of it, under another key; metadata only."""
        if not self.state.plain:
            return self.put()
        source = self.rng.choice(sorted(self.state.plain))
        bucket, key = self._choose()
        size = self.state.plain[source].size
        if self.rng.random() < 0.5 or size < 2:
            return self._do(
                model.Put(bucket, key, self.state.plain[source]), lambda: self._copy(source, bucket, key)
            )
        start = self.rng.randrange(size - 1)
        stop = self.rng.randrange(start + 1, size + 1)
        # The model needs the bytes: they are read, which also reads while others write and collect.
        try:
            data = self._read(source)[start:stop]
        except DOCUMENTED as error:
            return self.said("failed", self.name, type(error).__name__, f"read: {error}")
        return self._do(
            model.Put(bucket, key, digest(data)), lambda: self._copy_range(source, bucket, key, start, stop)
        )

    def delete(self) -> None:
        bucket, key = self._choose()
        self._do(model.Delete(bucket, key), lambda: self._delete(bucket, key))

    def delete_version(self) -> None:
        if not self.state.versions:
            return self.delete()
        key = self.rng.choice(sorted(self.state.versions))
        id_ = self.rng.choice(self.state.versions[key]).id
        return self._do(model.DeleteVersion(key, id_), lambda: self._delete_version(key, id_))

    def begin(self) -> None:
        if len(self.state.uploads) >= 3:
            return self.complete()
        _, key = self._choose()
        return self._do(model.Begin(key), lambda: self._begin(key))

    def put_part(self) -> None:
        upload = self._open_upload()
        if upload is None:
            return self.begin()
        number = self.rng.randrange(1, 5)
        data = body_of(self.rng, min(self.rng.choice((1, 5_000, 50_000, 90_000)), self.max_bytes))
        return self._do(
            model.PutPart(upload.id, number, digest(data)), lambda: self._put_part(upload, number, data)
        )

    def complete(self) -> None:
        upload = self._open_upload()
        if upload is None or not upload.parts:
            return self.put_part()
        try:
            data = self._read_parts(upload)
        except DOCUMENTED as error:
            return self.said("failed", self.name, type(error).__name__, f"read: {error}")
        return self._do(model.Complete(upload.id, digest(data)), lambda: self._complete(upload, digest(data)))

    def abort(self) -> None:
        upload = self._open_upload()
        if upload is not None:
            self._do(model.Abort(upload.id), lambda: self._abort(upload))

    def take_care(self) -> None:
        if self.care:
            job = self.rng.choice(self.care)
            self._do(model.Nothing(), lambda: job(self.store))

    def take_all_care(self) -> None:
        for job in self.care:
            self._do(model.Nothing(), lambda job=job: job(self.store))  # type: ignore[misc]  # bound now

    # How

    def _do(self, operation: Operation, work: Callable[[], object]) -> None:
        self.said("begin", self.name, operation)
        if self.answers_early:
            self.said("done", self.name, model.UNKNOWN)
        expected = CHORE_ERRORS if isinstance(operation, model.Nothing) else DOCUMENTED
        try:
            told = work()
        except expected as error:
            self.said("failed", self.name, type(error).__name__, str(error))
            return
        told = told if isinstance(told, str) else ""
        self.state = model.apply(self.state, operation, told)
        if not self.answers_early:
            self.said("done", self.name, told)

    def _choose(self) -> tuple[Bucket, bytes]:
        number = self.rng.randrange(KEYS)
        key = f"{self.name}/k{number}".encode() + (_LONG if number == 0 else b"")
        return self.rng.choice(BUCKETS), key

    def _open_upload(self) -> OpenUpload | None:
        ids = sorted(self.state.uploads)
        return self.state.uploads[self.rng.choice(ids)] if ids else None

    def _change(self) -> Change:
        return Change(self.store.writer, int(time.time() * 1000), self.rng.randbytes(8))

    def _put(self, bucket: Bucket, key: bytes, data: bytes) -> str:
        record = self._record(digest(data))
        if len(data) <= INLINE_MAX_BYTES:
            return self._put_record(bucket, key, replace(record, inline=data), ())
        ingest = self.store.chunks.ingest()
        try:
            for start in range(0, len(data), 50_000):
                ingest.feed(data[start : start + 50_000])
            manifest = ingest.finish()
            publication = ingest.publication()
            record = replace(record, manifest=manifest.encode())
            return self._put_record(bucket, key, record, [publication], lambda: ingest.new_stored_bytes)
        finally:
            ingest.abort()

    def _record(self, body: Body) -> ObjectRecord:
        return ObjectRecord(body.size, int(time.time() * 1000), body.digest.hex(), OWNER)

    def _put_record(
        self,
        bucket: Bucket,
        key: bytes,
        record: ObjectRecord,
        publications: Sequence[Publication],
        added: Callable[[], int] = lambda: 0,
    ) -> str:
        change = self._change()

        def commit(txn: Transaction) -> bytes | None:
            where = buckets.get_bucket(txn, bucket)
            assert where is not None
            return put_object(txn, where, key, replace(record, new_stored_bytes=added()), change)

        return (self._commit(commit, publications) or b"").hex()

    def _commit(self, fn: Callable[[Transaction], Any], publications: Sequence[Publication] = ()) -> Any:
        """As `vaultaire.commit` does it for a batch of one."""

        def run(txn: Transaction) -> Any:
            for publication in publications:
                publication.apply(txn)
            return fn(txn)

        committed = False
        try:
            self.store.chunks.sync(publications)
            result = self.store.kv.commit(run)
            committed = True
            return result
        finally:
            for publication in publications:
                publication.settle(committed)

    def _read(self, key: bytes) -> bytes:
        with self.store.operation():
            with self.store.kv.snapshot() as reader:
                record = get_object(reader, _bucket(reader, "plain"), key)
            assert record is not None
            if record.inline is not None:
                return record.inline
            assert record.manifest is not None
            return b"".join(read_all(self.store.chunks, Manifest.decode(record.manifest)))

    def _read_parts(self, upload: OpenUpload) -> bytes:
        with self.store.operation():
            with self.store.kv.snapshot() as reader:
                page = uploads.list_parts(
                    reader, _bucket(reader, "plain"), upload.key, upload.id, limit=10_000
                )
            manifests = [Manifest.decode(part.manifest) for part in page.parts]
            return b"".join(piece for each in manifests for piece in read_all(self.store.chunks, each))

    def _copy(self, source: bytes, bucket: Bucket, key: bytes) -> str:
        change = self._change()

        def commit(txn: Transaction) -> bytes | None:
            found = get_object(txn, _bucket(txn, "plain"), source)
            where = buckets.get_bucket(txn, bucket)
            assert found is not None
            assert where is not None
            return put_object(txn, where, key, replace(found, new_stored_bytes=0), change)

        with self.store.operation():
            return (self._commit(commit) or b"").hex()

    def _copy_range(self, source: bytes, bucket: Bucket, key: bytes, start: int, stop: int) -> str:
        with self.store.operation():
            with self.store.kv.snapshot() as reader:
                found = get_object(reader, _bucket(reader, "plain"), source)
            assert found is not None
            if found.inline is not None:
                return self._put(bucket, key, found.inline[start:stop])
            assert found.manifest is not None
            body = digest(self._read(source)[start:stop])
            made = self.store.chunks.compose([(Manifest.decode(found.manifest), start, stop)])
            record = replace(self._record(body), manifest=made.manifest.encode())
            change = self._change()

            def commit(txn: Transaction) -> bytes | None:
                now = get_object(txn, _bucket(txn, "plain"), source)
                where = buckets.get_bucket(txn, bucket)
                assert now is not None
                assert where is not None
                assert now.sequence == found.sequence
                return put_object(txn, where, key, record, change)

            return (self._commit(commit, [made.publication]) or b"").hex()

    def _delete(self, bucket: Bucket, key: bytes) -> str:
        change = self._change()

        def commit(txn: Transaction) -> bytes | None:
            where = buckets.get_bucket(txn, bucket)
            assert where is not None
            return delete_object(txn, where, key, OWNER, change).version_id

        return (self._commit(commit) or b"").hex()

    def _delete_version(self, key: bytes, id_: str) -> None:
        change = self._change()

        def commit(txn: Transaction) -> None:
            where = buckets.get_bucket(txn, "versioned")
            assert where is not None
            assert delete_version(txn, where, key, bytes.fromhex(id_), change) is not None

        self._commit(commit)

    def _begin(self, key: bytes) -> str:
        record = UploadRecord("", key, OWNER, int(time.time() * 1000))
        nonce = self.rng.randbytes(uploads.NONCE_BYTES)

        def commit(txn: Transaction) -> str:
            return uploads.create_upload(txn, _bucket(txn, "plain"), record, nonce).upload_id

        told: str = self._commit(commit)
        return told

    def _put_part(self, upload: OpenUpload, number: int, data: bytes) -> None:
        ingest = self.store.chunks.ingest()
        try:
            ingest.feed(data)
            manifest = ingest.finish()
            part = PartRecord(number, len(data), digest(data).digest.hex(), 0, manifest.encode())

            def commit(txn: Transaction) -> None:
                uploads.put_part(txn, _record(txn, "plain"), upload.key, upload.id, part, self.store.writer)

            self._commit(commit, [ingest.publication()])
        finally:
            ingest.abort()

    def _complete(self, upload: OpenUpload, body: Body) -> None:
        with self.store.operation():
            with self.store.kv.snapshot() as reader:
                bucket = _bucket(reader, "plain")
                parts = uploads.list_parts(reader, bucket, upload.key, upload.id, limit=10_000).parts
            made = self.store.chunks.compose(
                [(Manifest.decode(part.manifest), 0, part.size) for part in parts]
            )
            record = replace(self._record(body), manifest=made.manifest.encode())
            change = self._change()

            def commit(txn: Transaction) -> None:
                now = uploads.list_parts(txn, bucket, upload.key, upload.id, limit=10_000).parts
                assert [part.sequence for part in now] == [part.sequence for part in parts]
                complete_upload(txn, _record(txn, "plain"), upload.key, upload.id, record, change)

            self._commit(commit, [made.publication])

    def _abort(self, upload: OpenUpload) -> None:
        def commit(txn: Transaction) -> None:
            uploads.remove_upload(txn, _record(txn, "plain"), upload.key, upload.id, self.store.writer)

        self._commit(commit)


# --- Care for the store ------------------------------------------------------------------------------------------


def write_checkpoint(store: Store) -> None:
    store.kv.write_checkpoint()


def seal_packs(store: Store) -> None:
    """As if the packs had been open for long."""
    store.chunks.seal_idle(time.monotonic() + 1e6)


def collect(store: Store) -> None:
    """Give back all space that can be given back now; waits for the operations of other threads."""
    with contextlib.closing(Collector(store, policy=COLLECTION, bytes_per_second=0)) as collector:
        collector.run()


def protect(store: Store) -> None:
    """A parity sidecar for every sealed pack that has none; damaged packs are mended."""
    parity = Parity(store)
    while parity.run_slice(60.0):
        pass


CARE: tuple[Callable[[Store], object], ...] = (write_checkpoint, seal_packs, collect, protect)
