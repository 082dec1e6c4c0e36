"""Shared by the tests of cas: a store over memory, small cut rules, and one way to upload and read."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from cas.catalog import TABLES
from cas.chunk import Identity
from cas.gathering import gather
from cas.memory_packs import MemoryPacks
from cas.prefix import Prefixes
from cas.store import ChunkStore
from index.memory_kv import MemoryKv

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cas.ingest import Ingest
    from cas.manifest import Manifest
    from cas.publication import Publication

SMALL_CDC = "fastcdc2020/256/64/1024/nc2"
SMALL = Identity(b"S" * 16, b"K" * 32, SMALL_CDC)
REAL = Identity(b"S" * 16, b"K" * 32)


def noise(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


class Rig:
    """A chunk store over memory, and the three steps of a commit."""

    def __init__(self, identity: Identity = SMALL, *, writer: int = 1, target: int = 64 << 20) -> None:
        self.identity = identity
        self.kv = MemoryKv(TABLES)
        self.packs = MemoryPacks()
        self.now = 0.0
        self.target = target
        self.store = self.open(writer)

    def open(self, writer: int) -> ChunkStore:
        return ChunkStore(
            self.kv, self.packs, self.identity, writer, clock=lambda: self.now, pack_target_bytes=self.target
        )

    def commit(self, *publications: Publication) -> None:
        self.store.sync(publications)
        for publication in publications:
            try:
                self.kv.commit(publication.apply)
            except BaseException:
                publication.settle(False)
                raise
            publication.settle(True)

    def put(self, *blocks: bytes, prefixes: Prefixes = Prefixes.AUTO) -> tuple[Manifest, Ingest]:
        ingest = self.store.ingest(prefixes)
        for block in blocks:
            ingest.feed(block)
        manifest = ingest.finish()
        self.commit(ingest.publication())
        return manifest, ingest

    def get(self, manifest: Manifest, start: int = 0, stop: int | None = None, window: int = 4096) -> bytes:
        stop = manifest.size if stop is None else stop
        windows = self.store.windows(manifest, start, stop, window)
        return b"".join(piece for spans in windows for piece in self.store.read(spans))

    def compose(self, *parts: tuple[Manifest, int, int]) -> Manifest:
        composition = self.store.compose(parts)
        self.commit(composition.publication)
        return composition.manifest

    @contextmanager
    def snapshot(self) -> Iterator[object]:
        with self.kv.snapshot() as reader:
            yield reader


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`data` in pieces that end at these offsets (modulo its length)."""
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    return [data[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def words(length: int, seed: int = 0) -> bytes:
    text = b" ".join(b"word%d" % (n * 7919 % 251 + seed) for n in range(length // 5 + 1))
    return text[:length]


def edited(length: int, *edits: int, seed: int = 0, every: int = 3000) -> bytes:
    """Text that does not repeat itself, about 2 to 1; each of `edits` changes some letters, once in `every` bytes."""
    text = bytearray(noise(length // 2, seed).hex().encode())
    for edit in edits:
        for at in random.Random(edit).sample(range(length - 8), max(1, length // every)):
            text[at : at + 6] = b"edit%02d" % (edit % 100)
    return bytes(text)


contents = st.one_of(
    st.builds(noise, st.integers(0, 30_000), st.integers(0, 9)),
    st.builds(words, st.integers(0, 30_000), st.integers(0, 9)),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=300), st.integers(0, 200)),
)


def running(rig: Rig, data: bytes) -> tuple[Ingest, Manifest]:
    """An ingest whose frames are written, its tail included, but not published."""
    ingest = rig.store.ingest()
    ingest.feed(data)
    manifest = ingest.finish()
    gather([ingest.publication()], rig.store._known, rig.store._appender, map)
    return ingest, manifest
