"""A store that has something of everything, for the tests of verification, and ways to damage a copy of it."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cas.catalog import PACKS, PLACEMENTS, PackRow, condemn, iterate_packs, pack_key, put_pack
from cas.chunk import Identity
from cas.manifest import Manifest
from cas.pack import PackKind, read_contents
from index import uploads
from index.buckets import create_bucket, set_versioning
from index.configs import put_config
from index.objects import get_object
from index.records import ObjectRecord, PartRecord, UploadRecord
from index.tokens import put_token
from index.versions import Change, delete_object, put_object
from vaultaire.access import Keyring, new_principal
from vaultaire.store import Store
from vaultaire.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cas.pack import Frame
    from index.records import BucketRecord
    from vaultaire.verify import Finding, Report

INLINE_BYTES = 4096


class Client:
    """Puts and deletes as the server does, one commit each, in one thread."""

    def __init__(self, store: Store, seed: int = 0) -> None:
        self.store = store
        self.rng = random.Random(seed)

    def change(self) -> Change:
        return Change(self.store.writer, 1000, self.rng.randbytes(8))

    def bucket(self, name: str, *versioning: str) -> BucketRecord:
        bucket = self.store.kv.commit(lambda txn: create_bucket(txn, name, "root", 1))
        for state in versioning:
            bucket = self.set_versioning(bucket, state)
        return bucket

    def set_versioning(self, bucket: BucketRecord, state: str) -> BucketRecord:
        self.store.kv.commit(lambda txn: set_versioning(txn, bucket, state))
        return replace(bucket, versioning=state)

    def put(self, bucket: BucketRecord, key: bytes, data: bytes) -> str:
        """The version's name."""
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        record = ObjectRecord(len(data), 1, md5, "root")
        if len(data) <= INLINE_BYTES:
            record = replace(record, inline=data)
            change = self.change()
            made = self.store.kv.commit(lambda txn: put_object(txn, bucket, key, record, change))
            return "null" if made is None else made.hex()
        manifest, publication = self.chunked(data)
        return self._commit(bucket, key, replace(record, manifest=manifest.encode()), publication)

    def copy(self, bucket: BucketRecord, key: bytes, *ranges: tuple[bytes, int, int]) -> None:
        """One object of ranges of others of the bucket: metadata only."""
        with self.store.operation():
            parts = [(self.manifest(bucket, source), start, stop) for source, start, stop in ranges]
            composed = self.store.chunks.compose(parts)
            record = ObjectRecord(
                composed.manifest.size, 1, "0" * 32, "root", manifest=composed.manifest.encode()
            )
            self._commit(bucket, key, record, composed.publication)

    def manifest(self, bucket: BucketRecord, key: bytes) -> Manifest:
        with self.store.kv.snapshot() as reader:
            record = get_object(reader, bucket.id, key)
        assert record is not None
        assert record.manifest is not None
        return Manifest.decode(record.manifest)

    def chunked(self, data: bytes):
        ingest = self.store.chunks.ingest()
        for begin in range(0, len(data), 1 << 20):
            ingest.feed(data[begin : begin + (1 << 20)])
        return ingest.finish(), ingest.publication()

    def _commit(self, bucket, key, record, publication) -> str:
        change = self.change()

        def commit(txn):
            publication.apply(txn)
            return put_object(txn, bucket, key, record, change)

        self.store.chunks.sync([publication])
        made = self.store.kv.commit(commit)
        publication.settle(True)
        return "null" if made is None else made.hex()

    def delete(self, bucket: BucketRecord, key: bytes) -> None:
        change = self.change()
        self.store.kv.commit(lambda txn: delete_object(txn, bucket, key, "root", change))

    def upload_part(self, bucket: BucketRecord, key: bytes, data: bytes) -> str:
        """An upload in progress with part 3; its id."""
        nonce = self.rng.randbytes(8)
        record = UploadRecord("", key, "root", 1)
        upload = self.store.kv.commit(lambda txn: uploads.create_upload(txn, bucket.id, record, nonce))
        manifest, publication = self.chunked(data)
        self.store.chunks.sync([publication])
        part = PartRecord(3, len(data), "0" * 32, 1, manifest.encode())

        def commit(txn):
            publication.apply(txn)
            uploads.put_part(txn, bucket, key, upload.upload_id, part, self.store.writer)

        self.store.kv.commit(commit)
        publication.settle(True)
        return upload.upload_id


LONG_KEY = b"long/" + "ü".encode() * 500


def fill(directory: Path) -> dict[str, str]:
    """A store with all features; its packs are sealed but for what a living process would have open. Versions by name."""
    made = {}
    rng = random.Random(7)
    # Without the rule that joins chunks of noise: so frames have several chunks each, and large objects trees.
    directory.mkdir(parents=True)
    identity = replace(Identity.create(), uniform=0)
    (directory / "store.json").write_text(json.dumps(identity.to_json()))
    with Store.open(directory, kind="command") as store:
        client = Client(store)
        plain = client.bucket("plain")
        client.put(plain, b"inline", b"small")
        client.put(plain, b"empty", b"")
        client.put(plain, b"text", b"the same words again " * 20_000)
        client.put(plain, b"noise", rng.randbytes(300_000))
        client.put(plain, LONG_KEY, rng.randbytes(9_000))
        store.kv.commit(lambda txn: put_config(txn, plain.id, "tagging", b"\x01<Tagging/>"))
        store.kv.commit(lambda txn: put_token(txn, plain.id, b"token", bytes(32), 5))
        now = 1
        with store.kv.snapshot() as reader:
            keyring = Keyring.open_or_create(directory, reader)
        store.kv.commit(lambda txn: keyring.put_key(txn, new_principal("tenant", "admin"), now_ms=now))
    with Store.open(directory, kind="command") as store:
        client = Client(store, 1)
        versioned = client.bucket("versioned", "Enabled")
        made["old"] = client.put(versioned, b"doc", rng.randbytes(60_000))
        made["new"] = client.put(versioned, b"doc", rng.randbytes(70_000))
        client.put(versioned, b"deleted", rng.randbytes(20_000))
        client.delete(versioned, b"deleted")
        suspended = client.bucket("suspended", "Enabled")
        client.put(suspended, b"doc", b"an inline version")
        suspended = client.set_versioning(suspended, "Suspended")
        client.put(suspended, b"doc", b"the null version")
        client.delete(suspended, b"gone")
        suspended = client.set_versioning(suspended, "Enabled")
        client.put(suspended, b"doc", rng.randbytes(30_000))
    with Store.open(directory, kind="command") as store:
        client = Client(store, 2)
        plain = _bucket(store, "plain")
        client.put(plain, b"big", rng.randbytes(5 << 20))
        client.copy(plain, b"copy", (b"big", 1000, 5 << 20), (b"noise", 0, 100_000), (b"big", 0, 777_777))
        made["upload"] = client.upload_part(plain, b"unfinished", rng.randbytes(50_000))
        client.put(plain, b"overwritten", rng.randbytes(40_000))
        client.put(plain, b"overwritten", b"now inline")
    with Store.open(directory, kind="command") as store:
        # One pack of garbage that collection has condemned, and one that ended without a footer.
        client = Client(store, 3)
        plain = _bucket(store, "plain")
        client.put(plain, b"garbage", rng.randbytes(30_000))
        client.delete(plain, b"garbage")
        garbage = newest_pack(store)
    with Store.open(directory, kind="command") as store:
        store.kv.commit(lambda txn: condemn(txn, [garbage]))
        Client(store, 4).put(_bucket(store, "plain"), b"footerless", rng.randbytes(80_000))
        footerless = newest_pack(store)
    with Store.open(directory, kind="command") as store:
        cut_footer(store, footerless)
    return made


def _bucket(store: Store, name: str) -> BucketRecord:
    from index.buckets import get_bucket

    with store.kv.snapshot() as reader:
        bucket = get_bucket(reader, name)
    assert bucket is not None
    return bucket


def newest_pack(store: Store) -> int:
    with store.kv.snapshot() as reader:
        return max(pack for pack, _ in iterate_packs(reader, store.writer))


def cut_footer(store: Store, pack: int) -> None:
    """As after a failed flush: the row says where it ends, and what lies behind does not count."""
    row, frames = look(store, pack)
    end = frames[-1].end
    with open(store.packs.path(pack), "r+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(b"what the device made of the last write")
    store.kv.commit(lambda txn: put_pack(txn, pack, replace(row, footerless=True, length=end)))


def look(store: Store, pack: int) -> tuple[PackRow, list[Frame]]:
    with store.kv.snapshot() as reader:
        row = reader.get(PACKS, pack_key(pack))
    assert row is not None
    path = store.packs.path(pack)
    data = path.read_bytes()
    contents = read_contents(pack, lambda offset, length: data[offset : offset + length], len(data))
    return PackRow.decode(pack_key(pack), row), list(contents.frames)


@dataclass
class Damaged:
    """A copy of the store, to be damaged and verified."""

    directory: Path
    versions: dict[str, str]

    @contextmanager
    def store(self) -> Iterator[Store]:
        with Store.open(self.directory, kind="command") as store:
            yield store

    def verify(self, **options) -> Report:
        with self.store() as store:
            return verify(store, **options)

    def where(self, bucket: str, key: bytes, index: int = 0) -> tuple[int, Frame, int]:
        """(pack, frame, ordinal inside the frame) of a chunk of an object."""
        with self.store() as store:
            manifest = Client(store).manifest(_bucket(store, bucket), key)
            with store.kv.snapshot() as reader:
                spans = store.chunks.locate(reader, manifest, 0, manifest.size)
            return place_of(store, spans[index].chunk)

    def path(self, pack: int) -> Path:
        name = f"{pack:016x}"
        return self.directory / "packs" / name[-2:] / f"{name}.pack"

    def flip(self, pack: int, offset: int) -> None:
        flip(self.path(pack), offset)

    def packs(self, kind: PackKind = PackKind.DATA) -> list[tuple[int, PackRow]]:
        with self.store() as store, store.kv.snapshot() as reader:
            return [(pack, row) for pack, row in iterate_packs(reader) if row.kind == kind]

    def commit(self, fn) -> object:
        with self.store() as store:
            return store.kv.commit(fn)


def place_of(store: Store, chunk: bytes) -> tuple[int, Frame, int]:
    from cas.catalog import decode_placement

    with store.kv.snapshot() as reader:
        row = reader.get(PLACEMENTS, chunk)
    assert row is not None
    placement = decode_placement(chunk, row)
    _, frames = look(store, placement.pack)
    frame = next(frame for frame in frames if frame.offset == placement.frame)
    return placement.pack, frame, frame.header.ids.index(chunk)


def flip(path: Path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))


def copy_of(directory: Path, target: Path, versions: dict[str, str]) -> Damaged:
    shutil.copytree(directory, target)
    return Damaged(target, versions)


def names(finding: Finding) -> list[str]:
    return [str(each) for each in finding.affected]


def kinds(report: Report) -> list[str]:
    return sorted(finding.kind for finding in report.findings)


def damage_value(store, table, key, change) -> None:
    """Behind the engine's back: what a bad sector would do to LMDB's file."""
    handle, _ = store.kv._tables[table]
    with store.kv._env.begin(write=True) as txn:
        stored = txn.get(key, db=handle)
        new = change(stored)
        if new is None:
            txn.delete(key, db=handle)
        else:
            txn.put(key, new, db=handle)


def flip_last(stored: bytes) -> bytes:
    return stored[:-5] + bytes([stored[-5] ^ 1]) + stored[-4:]
