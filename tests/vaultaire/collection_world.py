"""A store over memory for the tests of collection: real catalog, names, packs' bytes and run files; no LMDB, no disk."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from cas import gc
from cas.catalog import PLACEMENTS, iterate_packs, pack_of
from cas.frame import NORMAL, Effort
from cas.manifest import Manifest
from cas.memory_packs import MemoryPacks
from cas.store import ChunkStore
from index.buckets import create_bucket, get_bucket
from index.memory_kv import MemoryKv
from index.objects import get_object
from index.records import ObjectRecord
from index.versions import Change, delete_object, iterate_versions, put_object
from tests.cas.support import SMALL, SMALL_CDC
from vaultaire.collection import Collector
from vaultaire.runfile import RunFile
from vaultaire.space import Disk, DiskFull
from vaultaire.store import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vaultaire.archiving import Archive

TARGET = 12_000
POLICY = gc.Policy(target_bytes=TARGET)
NOW_MS = 1_700_000_000_000


class Room:
    """What `Space` is to the collector: the room that its packs have."""

    def __init__(self, packs: MemoryPacks):
        self._packs = packs

    def probe(self) -> Disk:
        capacity = 1 << 40 if self._packs.capacity is None else self._packs.capacity
        return Disk(max(0, capacity - self._packs.used()), 0)

    def require(self, needed: int) -> None:
        free = self.probe().free
        if free < needed:
            raise DiskFull(needed, free)


class World:
    """What `Store` is to the collector, and a client of it. Two processes' worth of writers may be made."""

    def __init__(
        self,
        directory: Path,
        kv: MemoryKv | None = None,
        packs: MemoryPacks | None = None,
        writer: int = 1,
        cdc: str = SMALL_CDC,
        target: int = TARGET,
    ):
        self.directory = directory
        for name in ("run", "tmp"):
            (directory / name).mkdir(exist_ok=True, parents=True)
        self.kv = kv or MemoryKv(TABLES)
        self.packs = packs or MemoryPacks()
        self.space = Room(self.packs)
        self.writer = writer
        self.run_file = RunFile(directory / "run", "worker", writer, self._epoch)
        self.now = 1000.0
        self.packs.clock = lambda: self.now
        self.chunks = ChunkStore(
            self.kv,
            self.packs,
            replace(SMALL, cdc=cdc),
            writer,
            self.run_file,
            clock=lambda: self.now,
            pack_target_bytes=target,
        )

    def _epoch(self) -> int:
        from cas.catalog import read_epoch

        with self.kv.snapshot() as reader:
            return read_epoch(reader)

    @contextmanager
    def operation(self) -> Iterator[None]:
        token = self.run_file.begin()
        try:
            yield
        finally:
            self.run_file.end(token)

    # -- a client

    def bucket(self, name: str = "b") -> None:
        self.kv.commit(lambda txn: create_bucket(txn, name, "root", NOW_MS))

    def change(self) -> Change:
        return Change(self.writer, NOW_MS, bytes(8))

    def put(self, key: bytes, data: bytes, bucket: str = "b") -> None:
        ingest = self.chunks.ingest()
        ingest.feed(data)
        self.commit_upload(ingest, key, data, bucket)

    def commit_upload(self, ingest, key: bytes, data: bytes, bucket: str = "b") -> None:
        manifest = ingest.finish()
        publication = ingest.publication()
        record = ObjectRecord(
            len(data), NOW_MS, hashlib.md5(data).hexdigest(), "root", manifest=manifest.encode()
        )
        self.commit(
            lambda txn: put_object(txn, get_bucket(txn, bucket), key, record, self.change()), publication
        )

    def commit(self, fn: Callable, publication) -> None:
        self.chunks.sync([publication])
        committed = False
        try:

            def together(txn) -> None:
                publication.apply(txn)
                fn(txn)

            self.kv.commit(together)
            committed = True
        finally:
            publication.settle(committed)

    def delete(self, key: bytes, bucket: str = "b") -> None:
        self.kv.commit(lambda txn: delete_object(txn, get_bucket(txn, bucket), key, "root", self.change()))

    def copy(self, source: bytes, target: bytes, bucket: str = "b") -> None:
        def commit(txn) -> None:
            record = get_object(txn, get_bucket(txn, bucket).id, source)
            put_object(txn, get_bucket(txn, bucket), target, record, self.change())

        self.kv.commit(commit)

    def get(self, key: bytes, bucket: str = "b") -> bytes:
        with self.kv.snapshot() as reader:
            record = get_object(reader, get_bucket(reader, bucket).id, key)
        manifest = Manifest.decode(record.manifest)
        windows = self.chunks.windows(manifest, 0, manifest.size, 4096)
        return b"".join(piece for spans in windows for piece in self.chunks.read(spans))

    # -- its care

    def collector(
        self, policy: gc.Policy = POLICY, effort: Effort = NORMAL, archive: Archive | None = None
    ) -> Collector:
        return Collector(
            self,  # type: ignore[arg-type]
            policy=policy,
            bytes_per_second=0,
            effort=lambda: effort,
            archive=archive,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def collect(self, policy: gc.Policy = POLICY, effort: Effort = NORMAL):
        collector = self.collector(policy, effort)
        try:
            return collector.run()
        finally:
            collector.close()

    def seal(self) -> None:
        self.now += 1000
        self.chunks.seal_idle(self.now)

    def rows(self) -> dict:
        with self.kv.snapshot() as reader:
            return dict(iterate_packs(reader))

    def placed(self) -> dict[int, int]:
        with self.kv.snapshot() as reader:
            counts: dict[int, int] = {}
            for _, row in reader.scan(PLACEMENTS):
                counts[pack_of(row)] = counts.get(pack_of(row), 0) + 1
        return counts

    def check(self) -> None:
        """The catalog against itself and the files; every object can be read."""
        rows = self.rows()
        assert {pack: row.placed_chunks for pack, row in rows.items() if row.placed_chunks} == self.placed()
        assert set(self.packs.packs()) == set(rows)
        with self.kv.snapshot() as reader:
            bucket = get_bucket(reader, "b")
            versions = list(iterate_versions(reader, bucket.id))
        for key, record in versions:
            assert hashlib.md5(self.get(key)).hexdigest() == record.etag

    def end(self) -> None:
        self.run_file.close()
