"""Stores that are broken on purpose: each must be found by its laboratory, or the laboratory proves nothing.

What a kill can show: an answer before its commit, a commit that is not in the journal (seen when LMDB is rebuilt), a
journal record written at a wrong place, recovery that does not replay, chunks that are published before they are
written, an open pack of a dead process cut too short. What a failing system call can show: an error that is not
noticed. What a flipped bit can show: bytes that are served unverified. What only a power cut can show (flushes) is not here.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cas.adoption
import cas.gc
import cas.packs
import cas.pending
import cas.publishing
import cas.reading
import index.committer
import index.recovery
import vaultaire.collection
from cas.errors import NoSpace
from cas.openpack import OpenPack
from tests.crash.flush_mutants import swap

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Mutant:
    """`install` breaks this process, for good."""

    name: str
    install: Callable[[], None]
    answers_early: bool = False


def _answer_early() -> None:
    """Done by the workers themselves."""


def _no_journal() -> None:
    """A commit is in LMDB alone."""
    swap(index.committer.SegmentWriter, "append", lambda self, at, record: None)


def _no_replay() -> None:
    """What a killed process left in the journal is cut off as if it were a torn tail."""
    swap(index.recovery.JournalReader, "__iter__", lambda self: iter(()))
    swap(index.recovery.JournalReader, "check_tail", lambda self: None)


def _lost_frames() -> None:
    """A frame is not written when its upload is answered: to a killed process, never."""
    append = OpenPack.append

    def forget(self: OpenPack, frame: Any, chunks: int) -> tuple[int, int] | None:
        writer: Any = self._writer
        write, writer.write = writer.write, lambda offset, parts: None
        try:
            return append(self, frame, chunks)
        finally:
            writer.write = write

    swap(OpenPack, "append", forget)


def _early_unlink() -> None:
    """The collector removes a pack as soon as it is condemned, before what is live in it was copied."""
    condemn = cas.gc.retire
    collector: Any = vaultaire.collection.Collector

    def retire(kv: Any, packs: Any) -> int:
        epoch = condemn(kv, packs)
        for pack in packs:
            _PLACES[-1].remove(pack)
        return epoch

    swap(cas.gc, "retire", retire)
    init = collector.__init__

    def remember(self: Any, store: Any, **options: Any) -> None:
        _PLACES.append(store.packs)
        init(self, store, **options)

    swap(collector, "__init__", remember)


_PLACES: list[Any] = []


def _blind_mark() -> None:
    """Condemned packs count as known: what an upload deduplicates against them is removed under it."""
    swap(cas.pending.CondemnedCache, "get", lambda self, reader: frozenset())
    swap(cas.publishing, "_check_rows", lambda txn, relied: None)


def _short_seal() -> None:
    """Adoption cuts the pack of a dead process one frame too short."""
    scan = cas.adoption.scan_contents
    module: Any = cas.adoption

    def seal(place: Any, pack: int, row: Any) -> int:
        read = module._reader(place, pack)
        frames = scan(pack, read, row.length).frames
        headers = place.read(pack, [(f.offset, f.header.header_length) for f in frames[:-1]])
        end = frames[-1].offset if frames else row.length
        footer = module.encode_footer(end, list(zip([f.offset for f in frames[:-1]], headers, strict=True)))
        place.seal_at(pack, end, footer)
        return end + len(footer)

    swap(module, "_seal", seal)


def _careless_journal() -> None:
    """An error while a record is written is not noticed."""
    writer: Any = index.committer.SegmentWriter
    write = writer._write

    def careless(self: Any, fd: int, offset: int, record: bytes) -> None:
        with contextlib.suppress(OSError):
            write(self, fd, offset, record)

    swap(writer, "_write", careless)


def _careless_packs() -> None:
    """An error while a frame is written is not noticed."""
    writer: Any = cas.packs.LocalPackWriter
    write = writer.write

    def careless(self: Any, offset: int, parts: Any) -> None:
        with contextlib.suppress(OSError, NoSpace):
            write(self, offset, parts)

    swap(writer, "write", careless)


def _unverified_chunks() -> None:
    """The bytes of a chunk are served as they come."""

    def trust(wanted: Any, raw: Any, base: int, chunk_id: Any) -> dict[Any, Any]:
        view = memoryview(raw)
        return {
            chunk: view[placement.inside - base :][: placement.length] for chunk, _, _, placement in wanted
        }

    swap(cas.reading, "_verified", trust)


_ALL = (
    Mutant("careless-journal", _careless_journal),
    Mutant("careless-packs", _careless_packs),
    Mutant("unverified-chunks", _unverified_chunks),
    Mutant("answer-early", _answer_early, answers_early=True),
    Mutant("no-journal", _no_journal),
    Mutant("no-replay", _no_replay),
    Mutant("lost-frames", _lost_frames),
    Mutant("short-seal", _short_seal),
    Mutant("early-unlink", _early_unlink),
    Mutant("no-row-check", _blind_mark),
)
BY_NAME = {mutant.name: mutant for mutant in _ALL}
