"""One process of the race in test_gc_race: a writer, a reader or the collector, over a real store.

Says on standard output what it did (`done NAME COUNT`) and, at once, each thing that must never happen (`FAULT ...`):
a PUT that fails, a GET that fails or returns other bytes. Run as: python gc_child.py ROLE DIRECTORY SEED MUTANTS

Everything is small so that much happens: chunks of some 256 bytes out of a few bodies, packs of a few frames, uploads
published in small batches, packs sealed after a fraction of a second, run files read often.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import cas.catalog
import cas.ingest
import cas.packs
import cas.publishing
from cas import gc
from cas.chunk import Identity
from cas.errors import CasError
from cas.manifest import Manifest
from cas.store import SEAL_AFTER_SECONDS, ChunkStore
from index.buckets import get_bucket
from index.errors import NamesError
from index.expiry import upload_page
from index.objects import get_object
from index.records import ObjectRecord, PartRecord, UploadRecord
from index.uploads import create_upload, get_parts, put_part, remove_upload
from index.versions import (
    Change,
    complete_upload,
    delete_object,
    delete_version,
    get_version,
    iterate_versions,
    put_object,
)
from tests.crash.flush_mutants import swap
from vaultaire.collection import Collector
from vaultaire.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUCKETS = ("plain", "versioned")
KEYS = [b"key-%d" % n for n in range(5)]
PACK_BYTES = 24_000
BODIES = 14  # what everybody uploads is made of these; few enough to share, many enough to be dead at times
CDC = "fastcdc2020/256/64/1024/nc2"
POLICY = gc.Policy(
    target_bytes=PACK_BYTES, sparse_share=0.8, dense_share=1.0, tolerated_garbage=0.05, small_packs=6
)
SEAL_SECONDS = 0.15
TICK_SECONDS = 0.01


def write_identity(directory: Path) -> None:
    directory.mkdir(parents=True)
    identity = Identity(b"S" * 16, b"K" * 32, CDC)
    (directory / "store.json").write_text(json.dumps(identity.to_json()))


def open_store(directory: Path, kind: str) -> Store:
    store = Store.open(directory, kind=kind)  # type: ignore[arg-type]
    # What is cached, or still open, is read although its pack is gone: that would hide most of what goes wrong.
    store.chunks = ChunkStore(
        store.kv,
        store.packs,
        store.identity,
        store.writer,
        store.run_file,
        pack_target_bytes=PACK_BYTES,
        cache_bytes=0,
    )
    cas.packs.MAX_OPEN_FILES = 1
    return store


def say(*words: object) -> None:
    print(*words, flush=True)


class Fault(Exception):
    """What must never happen."""


# --- mutants: each takes one rule away ----------------------------------------------------------------------------


def mutate(names: list[str]) -> None:
    wait = Collector._wait

    def no_wait(skips: Callable[[Collector], bool]) -> None:
        swap(Collector, "_wait", lambda self, epoch: iter(()) if skips(self) else wait(self, epoch))

    for name in names:
        if name == "no-wait-before-mark":
            no_wait(lambda collector: collector.progress.step != "copying")
        elif name == "early-unlink":
            no_wait(lambda collector: collector.progress.step == "copying")
        elif name == "lookups-ignore-condemned":
            swap(cas.catalog.CondemnedCache, "get", lambda self, reader: frozenset())
        elif name == "no-row-check":
            swap(cas.publishing, "_check_rows", lambda txn, relied: None)
        elif name == "no-waits":
            no_wait(lambda collector: True)
        else:
            raise SystemExit(f"no mutant {name}")


# --- a process ----------------------------------------------------------------------------------------------------


@dataclass
class Player:
    store: Store
    rng: random.Random

    def count(self, name: str, times: int = 1) -> None:
        say("done", json.dumps({name: times}))

    def pause(self, most: float, *, often: float = 0.5) -> None:
        if self.rng.random() < often:
            time.sleep(self.rng.uniform(0, most))

    def change(self) -> Change:
        return Change(self.store.writer, 1_700_000_000_000, self.rng.randbytes(8))

    def key(self) -> bytes:
        return self.rng.choice(KEYS)


def body(number: int) -> bytes:
    """Noise, or text of which there are several versions: frames that have bases, and are bases."""
    if number % 3 == 0:
        return random.Random(number).randbytes(9000)
    text = bytearray(random.Random(number % 3).randbytes(4500).hex().encode())
    for at in random.Random(number).sample(range(8900), 5):
        text[at : at + 6] = b"%06d" % number
    return bytes(text)


class Writer(Player):
    def play(self) -> None:
        moves = [self.put] * 8 + [self.long_put] + [self.delete] * 4 + [self.copy] * 3 + [self.multipart] * 3
        moves += [self.abandon] * 2 + [self.part_copy] * 2
        while True:
            move = self.rng.choice(moves)
            try:
                move()
            except NamesError:
                pass  # another writer was first
            except CasError as error:
                raise Fault(f"{move.__name__} failed: {type(error).__name__} {error}") from error
            self.count(move.__name__)
            self.pause(0.01)

    def content(self) -> bytes:
        """A stretch of a few bodies: others upload the same chunks all the time."""
        parts = []
        for _ in range(self.rng.randint(1, 3)):
            whole = body(self.rng.randrange(BODIES))
            start = self.rng.randrange(0, len(whole) - 1000)
            parts.append(whole[start : start + self.rng.randint(1000, 9000)])
        if self.rng.random() < 0.3:
            parts.append(
                self.rng.randbytes(1000).hex().encode()
            )  # nobody has this: garbage once it is deleted
        return b"".join(parts)

    @contextmanager
    def upload(self, data: bytes, step: int, pause: float) -> Iterator[tuple[ObjectRecord, list]]:
        """Fed and finished, published on the way; what is left to be published."""
        ingest = self.store.chunks.ingest()
        try:
            for start in range(0, len(data), step):
                ingest.feed(data[start : start + step])
                early = ingest.take_publication()
                if early is not None:
                    self.commit(lambda txn: None, [early])
                time.sleep(pause)
            manifest = ingest.finish()
            record = ObjectRecord(
                len(data), 1, hashlib.md5(data).hexdigest(), "root", manifest=manifest.encode()
            )
            self.pause(0.3)  # collection may begin and go far meanwhile
            yield record, [ingest.publication()]
        finally:
            ingest.abort()

    def commit(self, fn, publications=()):
        self.store.chunks.sync(publications)

        def together(txn):
            for publication in publications:
                publication.apply(txn)
            return fn(txn)

        committed = False
        try:
            result = self.store.kv.commit(together)
            committed = True
        finally:
            for publication in publications:
                publication.settle(committed)
        return result

    def bucket(self, txn):
        return get_bucket(txn, self.name)

    @property
    def name(self) -> str:
        return self.rng.choice(BUCKETS)

    def put(self, step: int = 4000, pause: float = 0.0) -> None:
        name, key, change = self.name, self.key(), self.change()
        with self.upload(self.content(), step, pause) as (record, publications):
            self.commit(lambda txn: put_object(txn, get_bucket(txn, name), key, record, change), publications)

    def long_put(self) -> None:
        self.put(step=700, pause=self.rng.uniform(0.01, 0.06))

    def abandon(self) -> None:
        with self.upload(self.content(), 4000, 0.0) as (_, publications):
            self.store.chunks.sync(
                publications
            )  # a client that leaves: durable, published in part, never named

    def delete(self) -> None:
        name, key, change = self.name, self.key(), self.change()
        older = name == "versioned" and self.rng.random() < 0.7

        def commit(txn):
            bucket = get_bucket(txn, name)
            delete_object(txn, bucket, key, "root", change)
            if older:  # else the store would only grow
                versions = [record for found, record in iterate_versions(txn, bucket.id) if found == key]
                for record in versions:
                    delete_version(txn, bucket, key, record.version_id, change)

        self.commit(commit)

    def copy(self) -> None:
        source, target, change = (self.name, self.key()), (self.name, self.key()), self.change()
        token = self.store.run_file.begin()
        try:

            def commit(txn):
                record = get_object(txn, get_bucket(txn, source[0]).id, source[1])
                if record is not None:
                    put_object(txn, get_bucket(txn, target[0]), target[1], record, change)

            self.commit(commit)
        finally:
            self.store.run_file.end(token)

    def begin_upload(self, name: str, key: bytes) -> str:
        nonce = self.rng.randbytes(8)

        def commit(txn):
            return create_upload(
                txn, get_bucket(txn, name).id, UploadRecord("", key, "root", 1), nonce
            ).upload_id

        return self.commit(commit)

    def multipart(self) -> None:
        name, key, change = self.name, self.key(), self.change()
        upload_id = self.begin_upload(name, key)
        numbers = list(range(1, self.rng.randint(2, 4)))
        md5s = []
        for number in numbers:
            data = self.content()
            with self.upload(data, 4000, 0.0) as (record, publications):
                part = PartRecord(number, len(data), record.etag, 1, record.manifest)
                self.commit(
                    lambda txn, part=part: put_part(
                        txn, get_bucket(txn, name), key, upload_id, part, self.store.writer
                    ),
                    publications,
                )
            md5s.append(data)
            self.pause(0.3)  # the upload is open across cycles
        fate = self.rng.random()
        if fate < 0.15:
            self.commit(
                lambda txn: remove_upload(txn, get_bucket(txn, name), key, upload_id, self.store.writer)
            )
            return
        whole = b"".join(md5s)
        token = self.store.run_file.begin()
        try:
            with self.store.kv.snapshot() as reader:
                bucket_id = get_bucket(reader, name).id
                parts = get_parts(reader, bucket_id, key, upload_id, numbers)
            composed = self.store.chunks.compose([(Manifest.decode(p.manifest), 0, p.size) for p in parts])
            self.pause(0.1)
            etag = hashlib.md5(whole).hexdigest()
            record = ObjectRecord(len(whole), 1, etag, "root", manifest=composed.manifest.encode())

            def commit(txn):
                bucket = get_bucket(txn, name)
                now = get_parts(txn, bucket.id, key, upload_id, numbers)
                if [part.sequence for part in now] == [part.sequence for part in parts]:
                    complete_upload(txn, bucket, key, upload_id, record, change)

            try:
                self.commit(commit, [composed.publication])
            finally:
                composed.publication.settle(False)
        finally:
            self.store.run_file.end(token)

    def part_copy(self) -> None:
        """A range of an object becomes a part of an upload that stays open for a while."""
        name, key = self.name, self.key()
        token = self.store.run_file.begin()
        try:
            with self.store.kv.snapshot() as reader:
                bucket = get_bucket(reader, name)
                source = get_object(reader, bucket.id, key)
            if source is None or source.size < 2000:
                return
            upload_id = self.begin_upload(name, key)
            start, stop = self.rng.randrange(0, 900), source.size - self.rng.randrange(0, 900)
            composed = self.store.chunks.compose([(Manifest.decode(source.manifest), start, stop)])
            self.pause(0.1)
            part = PartRecord(1, stop - start, "0" * 32, 1, composed.manifest.encode())

            def commit(txn):
                now = get_version(txn, bucket.id, key, source.version_id)
                if now is not None and now.sequence == source.sequence:
                    put_part(txn, bucket, key, upload_id, part, self.store.writer)

            try:
                self.commit(commit, [composed.publication])
            finally:
                composed.publication.settle(False)
        finally:
            self.store.run_file.end(token)
        self.pause(0.3)
        if self.rng.random() < 0.8:
            self.commit(lambda txn: remove_upload(txn, bucket, key, upload_id, self.store.writer))


class Reader(Player):
    """Reads what is visible, slowly, and verifies it while everything else runs."""

    def play(self) -> None:
        while True:
            self.read()
            self.count("read")
            self.pause(0.005)

    def read(self) -> None:
        token = self.store.run_file.begin()
        try:
            with self.store.kv.snapshot() as reader:
                bucket = get_bucket(reader, self.rng.choice(BUCKETS))
                versions = [record for _, record in iterate_versions(reader, bucket.id) if record.manifest]
                parts = open_parts(reader, bucket.id)
            if parts and self.rng.random() < 0.3:
                part = self.rng.choice(parts)
                self.check(part.manifest, part.size, None)
            elif versions:
                record = self.rng.choice(versions)
                self.check(record.manifest, record.size, record.etag)
        finally:
            self.store.run_file.end(token)

    def check(self, manifest: bytes, size: int, etag: str | None) -> None:
        self.pause(0.05)  # found, and not read yet
        slow = self.rng.choice([0.0, 0.03, 0.1, 0.3])
        digest, length = hashlib.md5(), 0
        try:
            for spans in self.store.chunks.windows(Manifest.decode(manifest), 0, size, 8000):
                time.sleep(slow)  # located, and not read yet
                for piece in self.store.chunks.read(spans):
                    digest.update(piece)
                    length += len(piece)
        except CasError as error:
            raise Fault(f"a read failed: {type(error).__name__} {error}") from error
        if length != size or (etag is not None and digest.hexdigest() != etag):
            raise Fault(f"{length} of {size} bytes read, or others than were written")


def open_parts(reader, bucket_id: int) -> list[PartRecord]:
    uploads = upload_page(reader, bucket_id, b"", (b"", b""), 20)
    found = []
    for key, raw_id, _ in uploads:
        parts = get_parts(reader, bucket_id, key, raw_id.hex(), [1, 2, 3])
        found += [part for part in parts if part is not None]
    return found


class Gatherer(Player):
    """The collector, round after round, slowed down at every step so that others get in between."""

    def play(self) -> None:
        collector = Collector(self.store, policy=POLICY, bytes_per_second=0)
        while True:
            progress = collector.run(lambda state, progress: self.pause(0.01, often=0.3))
            if progress.kept_packs or not progress.complete or progress.missing_chunks:
                raise Fault(f"the collector met damage: {progress.errors[:3]}")
            self.count("round")
            self.count("removed", progress.removed_packs)
            self.store.adopt_dead_writers()
            self.pause(0.05)


ROLES = {"writer": Writer, "reader": Reader, "collector": Gatherer}


def keep_house(store: Store) -> None:
    while True:
        time.sleep(TICK_SECONDS)
        try:
            store.run_file.tick()
            store.packs.close_removed()
            store.chunks.seal_idle(time.monotonic() + SEAL_AFTER_SECONDS - SEAL_SECONDS)
        except Exception as error:  # the process is ending
            say("note", type(error).__name__, error)
            return


def main() -> None:
    role, directory, seed, mutants = sys.argv[1:5]
    mutate([name for name in mutants.split(",") if name])
    cas.ingest.PUBLISH_BATCH = 20
    store = open_store(Path(directory), "maintenance" if role == "collector" else "worker")
    threading.Thread(target=keep_house, args=(store,), daemon=True).start()
    say("ready")
    try:
        ROLES[role](store, random.Random(seed)).play()
    except Fault as fault:
        say("FAULT", role, fault)
    except Exception as error:
        say("FAULT", role, "unexpected", type(error).__name__, error)
        raise


if __name__ == "__main__":
    main()
