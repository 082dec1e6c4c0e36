"""An analysis as it runs: the caller's thread lists, some threads read and try objects, others compress their frames.

What an object came to is added to the counters when it ends, also by Ctrl-C, so what is known can be told at any time. The queue between is bounded. The order in which two threads meet the same chunk may vary: then its
bytes count for one folder or the other, and a frame ends elsewhere; in all, new bytes are the same in every run.

Errors: an object that cannot be read is named, and what was read of it counts. A source that fails as a whole
(PlaceError, Transient) ends the run; the report says so. Ctrl-C ends it at the next block; a thread that hangs in a
request is left behind.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

from cas.chunk import Identity
from index.keys import HEAD_BYTES, cut_segment
from index.records import ObjectRecord
from vaultaire.analyze.curve import Other
from vaultaire.analyze.earlier import Earlier
from vaultaire.analyze.ids import LIMIT_IDS, IdSet
from vaultaire.analyze.kinds import HEAD_BYTES as KIND_BYTES
from vaultaire.analyze.kinds import Kind, Nature, kind_of, top_folder
from vaultaire.analyze.pages import NAMES_FILL, Rows
from vaultaire.analyze.sources import Carries, Unread
from vaultaire.analyze.tally import Part
from vaultaire.analyze.trial import Spread, Trial
from vaultaire.ingest import INLINE_MAX_BYTES
from vaultaire.moving.places import MovingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cas.manifest import Manifest
    from cas.ports import ParallelMap
    from vaultaire.analyze.sources import Item, Source
    from vaultaire.moving.report import Report as Notes

QUEUED: Final = 64  # objects that are listed and not begun
MAX_PARTS: Final = 1000  # folders, and types, that are told apart; the rest is one more
OTHERS: Final = "(others)"

_TICK_SECONDS: Final = 0.2
_END_SECONDS: Final = 5.0  # that a thread gets for its last block after Ctrl-C
_ETAG: Final = "0" * 32
_TERMINATOR_BYTES: Final = 2
_NODE_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Options:
    readers: int
    frame_threads: int
    level: int = 0  # one in 2^level chunks is followed, and one in 2^level stretches compressed
    averages: tuple[int, ...] = ()  # of the curve, beside the usual one
    limit_ids: int = LIMIT_IDS
    prefixes: bool = True  # frames may have bases, as in a new bucket


@dataclass(slots=True)
class Findings:
    """What a run has counted."""

    total: Part = field(default_factory=Part)
    folders: dict[str, Part] = field(default_factory=dict)
    types: dict[str, tuple[Nature, Part]] = field(default_factory=dict)
    records: Rows = field(default_factory=lambda: Rows(NAMES_FILL))
    spread: Spread = field(default_factory=Spread)
    others: list[Other] = field(default_factory=list)
    level: int = 0
    interrupted: bool = False
    failure: str | None = None  # of the source as a whole
    seconds: float = 0.0


def record_rows(rows: Rows, key: bytes, record: ObjectRecord) -> int:
    """Count an object's row, and those of a long key before it; what they take."""
    taken = 0
    segment, rest = cut_segment(key)
    while rest:
        taken += rows.add(HEAD_BYTES + len(segment) + _TERMINATOR_BYTES, _NODE_ID_BYTES)
        segment, rest = cut_segment(rest)
    return taken + rows.add(HEAD_BYTES + len(segment) + _TERMINATOR_BYTES, len(record.encode(1)))


class Analysis:
    """One run. `run` belongs to one thread; `progress` may be asked at any time, from any."""

    def __init__(self, source: Source, notes: Notes, options: Options, stop: threading.Event) -> None:
        """`notes` gets what was left out and what failed. `stop`, when set, ends the run as Ctrl-C does."""
        self._source = source
        self._notes = notes
        self._options = options
        self._stop = stop
        self._identity = Identity.create()
        self._ids = IdSet(options.limit_ids, options.level, places=options.prefixes)
        self._earlier = Earlier(source.part) if options.prefixes else None
        self._queue: queue.Queue[Item | None] = queue.Queue(QUEUED)
        self._lock = threading.Lock()  # guards _found and _notes' counters
        self._found = Findings(others=[Other(self._identity, average) for average in options.averages])
        self._errors: list[BaseException] = []
        self.read_bytes = 0  # so far
        self.listed = 0  # objects

    def run(self, on_progress: Callable[[], None] = lambda: None) -> Findings:
        """All of it. `on_progress` is called several times a second, in this thread. Raises what is a defect."""
        began = time.monotonic()
        frames = ThreadPoolExecutor(self._options.frame_threads, thread_name_prefix="frames")
        threads = [
            threading.Thread(target=self._work, args=(frames.map,), name=f"read-{number}", daemon=True)
            for number in range(self._options.readers)
        ]
        found = self._found
        try:
            for thread in threads:
                thread.start()
            self._list(on_progress)
            self._put_all([None] * len(threads), on_progress)
            while any(thread.is_alive() for thread in threads) and not self._stop.is_set():
                threads[0].join(_TICK_SECONDS) if threads[0].is_alive() else time.sleep(_TICK_SECONDS / 10)
                on_progress()
        except KeyboardInterrupt:
            self._stop.set()
        except MovingError as error:
            self._fail(error)
        except BaseException:
            self._stop.set()
            raise
        finally:
            self._drain(threads)
            frames.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            if self._errors:
                raise self._errors[0]
            found.interrupted = self._stop.is_set() and found.failure is None
            found.level = self._ids.level
            found.seconds = round(time.monotonic() - began, 3)
        return found

    def _list(self, on_progress: Callable[[], None]) -> None:
        for item in self._source.items():
            self.listed += 1
            self._put_all([item], on_progress)
            if self._stop.is_set():
                return

    def _put_all(self, items: list[Item] | list[None], on_progress: Callable[[], None]) -> None:
        for item in items:
            while not self._stop.is_set():
                on_progress()
                try:
                    self._queue.put(item, timeout=_TICK_SECONDS)
                    break
                except queue.Full:
                    continue

    def _drain(self, threads: list[threading.Thread]) -> None:
        """After a stop: threads end at their next block; whoever does not is left behind."""
        deadline = time.monotonic() + _END_SECONDS
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join(max(0.0, deadline - time.monotonic()) if self._stop.is_set() else None)

    def _fail(self, error: MovingError) -> None:
        with self._lock:
            self._found.failure = self._found.failure or str(error)
        self._stop.set()

    # --- in the threads -------------------------------------------------------------------------------------------

    def _work(self, parallel_map: ParallelMap) -> None:
        spread = Spread()
        others = [other.fork() for other in self._found.others]
        try:
            while not self._stop.is_set():
                try:
                    item = self._queue.get(timeout=_TICK_SECONDS)
                except queue.Empty:
                    continue
                if item is None:
                    break
                self._try(item, parallel_map, spread, others)
        except MovingError as error:
            self._fail(error)
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()
        with self._lock:
            self._found.spread.merge(spread)
            for whole, own in zip(self._found.others, others, strict=True):
                whole.merge(own)

    def _try(self, item: Item, parallel_map: ParallelMap, spread: Spread, others: list[Other]) -> None:
        told: list[Carries] = []
        blocks = self._blocks(item, told)
        first = next(blocks, b"")
        kind = kind_of(item.key, memoryview(first)[:KIND_BYTES])
        if len(first) <= INLINE_MAX_BYTES:
            first = bytes(first)  # the next block takes its place
            second = next(blocks, b"")
            if not second:
                if told:  # else it could not even be opened
                    self._take_inline(item, kind, first, told[0])
                return
            blocks = chain((second,), blocks)
        earlier, skipped = self._earlier, self._options.level
        number = earlier.begin(item) if earlier is not None else 0
        trial = Trial(
            self._identity, self._ids, spread, parallel_map, skipped=skipped, earlier=earlier, number=number
        )
        for block in chain((first,), blocks):
            trial.feed(block)
            for other in others:
                other.feed(block)
        manifest = trial.finish()
        for other in others:
            other.finish()
        self._take(item, kind, trial, manifest, told[0])

    def _blocks(self, item: Item, told: list[Carries]) -> Iterator[bytes | memoryview]:
        """Until its end, a failure (which is named) or a stop. What comes is counted for the progress."""
        try:
            for block in self._source.blocks(item, told):
                yield block
                with self._lock:
                    self.read_bytes += len(block)
                if self._stop.is_set():
                    return
        except Unread as error:
            with self._lock:
                if error.passing:
                    self._notes.note(f"objects that were not read: {error}")
                else:
                    self._notes.fail(item.key, str(error))

    def _take_inline(self, item: Item, kind: Kind, data: bytes, carries: Carries) -> None:
        record = _record(item, len(data), carries, inline=data)
        with self._lock:
            row_bytes = record_rows(self._found.records, _key(item), record)
            for part in self._parts(item, kind):
                part.take_inline(len(data), row_bytes)

    def _take(self, item: Item, kind: Kind, trial: Trial, manifest: Manifest, carries: Carries) -> None:
        record = _record(item, trial.size, carries, manifest=manifest.encode())
        with self._lock:
            row_bytes = record_rows(self._found.records, _key(item), record)
            for part in self._parts(item, kind):
                part.take(trial, row_bytes)

    def _parts(self, item: Item, kind: Kind) -> Iterator[Part]:
        found = self._found
        yield found.total
        folder, name = top_folder(item.key), kind.name
        if folder not in found.folders and len(found.folders) >= MAX_PARTS:
            folder = OTHERS
        yield found.folders.setdefault(folder, Part())
        if name not in found.types and len(found.types) >= MAX_PARTS:
            name, kind = OTHERS, Kind(OTHERS, Nature.PLAIN)
        yield found.types.setdefault(name, (kind.nature, Part()))[1]


def _key(item: Item) -> bytes:
    return item.entry.key if item.entry is not None else item.key


def _record(
    item: Item, size: int, carries: Carries, *, inline: bytes | None = None, manifest: bytes | None = None
) -> ObjectRecord:
    return ObjectRecord(
        size=size,
        modified_ms=item.entry.modified_ms if item.entry is not None else 0,
        etag=_ETAG,
        owner="root",
        content_type=carries.content_type,
        headers=carries.headers,
        metadata=carries.metadata,
        inline=inline,
        manifest=manifest,
    )
