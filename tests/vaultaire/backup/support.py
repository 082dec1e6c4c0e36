"""A store with objects, a model of it, and places that fail or die at the Nth step."""

from __future__ import annotations

import errno
import os
import random
from contextlib import contextmanager, suppress

from cas.manifest import Manifest
from index.buckets import create_bucket, list_buckets
from index.fileops import FileOps
from index.kv import StorePoisoned
from index.records import ObjectRecord
from index.versions import Change, delete_object, iterate_versions, put_object
from vaultaire.access import Keyring, new_root
from vaultaire.backup.folder import FolderPlace
from vaultaire.backup.place import BackupError
from vaultaire.reading import read_all
from vaultaire.store import Store

ENTROPY = b"8 random"


class Subject:
    """A store under test, and what is in it: `model` is key -> bytes of the one bucket."""

    def __init__(self, directory, seed=1):
        self.directory = directory
        self.random = random.Random(seed)
        self.model = {}
        self.store = Store.open(directory, kind="command", create=True)
        self.bucket = self._bucket()

    def _bucket(self):
        with self.store.kv.snapshot() as reader:
            found = list_buckets(reader, limit=1).buckets
        return found[0] if found else self.store.kv.commit(lambda t: create_bucket(t, "bucket", "root", 1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(StorePoisoned):
            self.store.close()

    def reopen(self):
        self.store.close()
        self.store = Store.open(self.directory, kind="command")

    def make_root_key(self):
        with self.store.kv.snapshot() as reader:
            ring = Keyring.open_or_create(self.directory, reader)
        self.store.kv.commit(lambda txn: ring.put_key(txn, new_root()))

    def put(self, key, data=None, size=100_000):
        data = self.random.randbytes(size) if data is None else data
        chunks = self.store.chunks
        ingest = chunks.ingest()
        ingest.feed(data)
        manifest = ingest.finish()
        publication = ingest.publication()
        chunks.sync([publication])
        record = ObjectRecord(len(data), 1, "0" * 32, "root", manifest=manifest.encode())

        def commit(txn):
            publication.apply(txn)
            put_object(txn, self.bucket, key, record, Change(self.store.writer, 1, ENTROPY))

        self.store.kv.commit(commit)
        publication.settle(True)
        self.model[key] = data

    def delete(self, key):
        change = Change(self.store.writer, 1, ENTROPY)
        self.store.kv.commit(lambda txn: delete_object(txn, self.bucket, key, "root", change))
        del self.model[key]

    def pack_files(self):
        return sorted((self.directory / "packs").rglob("*.pack"))


def contents(directory):
    """Every object of the store in `directory`, read and verified, as `Subject.model` is."""
    with Store.open(directory, kind="command") as store:
        return store_contents(store)


def store_contents(store):
    with store.kv.snapshot() as reader:
        found = {}
        for bucket in list_buckets(reader, limit=10).buckets:
            for key, record in iterate_versions(reader, bucket.id):
                if not record.delete_marker:
                    found[key] = Manifest.decode(record.manifest)
    with store.operation():
        return {key: b"".join(read_all(store.chunks, manifest)) for key, manifest in found.items()}


class Dying(FileOps):
    """Ends at the `fatal`-th effect, before or after it: what a kill leaves. `effects` counts them."""

    def __init__(self, fatal=None, error=None):
        self.fatal = fatal
        self.error = error or Killed()
        self.effects = 0

    def _step(self):
        self.effects += 1
        if self.effects == self.fatal:
            raise self.error

    def pwrite(self, fd, data, offset):
        if self.effects + 1 == self.fatal:
            os.pwrite(fd, bytes(data)[: len(data) // 2], offset)
        self._step()
        super().pwrite(fd, data, offset)

    def sync_file(self, fd):
        self._step()
        super().sync_file(fd)

    def sync_directory(self, path):
        self._step()
        super().sync_directory(path)

    def rename(self, source, target):
        self._step()
        super().rename(source, target)

    def unlink(self, path):
        self._step()
        super().unlink(path)


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def full_disk(fatal):
    return Dying(fatal, OSError(errno.ENOSPC, "No space left on device"))


class Watched(FolderPlace):
    """Counts what is asked of it, and calls `on_put` before each piece that is written."""

    def __init__(self, path, **options):
        super().__init__(path, create=True, **options)
        self.put_bytes = 0
        self.gets = []
        self.on_put = lambda name: None
        self.fail_get = None

    def put(self, name, data, *, replace=False):
        self.on_put(name)
        self.put_bytes += len(data)
        super().put(name, data, replace=replace)

    def put_new(self, name, data):
        self.put_bytes += len(data)
        super().put_new(name, data)

    def get(self, name):
        self.gets.append(name)
        if len(self.gets) == self.fail_get:
            raise BackupError("the connection was lost")
        return super().get(name)


@contextmanager
def flipped(path, offset):
    """One bit of a file is wrong inside the `with`."""
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 0x10
    good = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(good)
