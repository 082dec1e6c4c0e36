"""The collector: gives back the space of what was deleted, in short slices, while everything else goes on.

`cas.gc` says what is done and why nothing is lost. Here is the order of it: a **round** surveys the store (which
chunks are needed; what each bucket holds, saved for `stats`), then condemns and empties batch after batch of packs
until nothing worth it is left. A round is due some time after something changed: soon if much was deleted (as the
counters show it), rarely else, and never more than a small part of the time is spent on it. With an `Archive`
(`vaultaire.archiving`) there are rounds that archive besides: what is copied in them is compressed as hard as can be.

**One at a time.** `run/collector.lock` is held for each slice only. So a command that wants to collect waits for less
than a second, and the maintenance process stands back as long as it runs. Whoever finds that another has had the lock
meanwhile forgets all it knew: every step can be begun anew from rows alone. That is also what happens after a crash.

**Nothing waits inside a slice.** Waiting for operations is asking again in the next slice. Bytes copied are limited to
`bytes_per_second`. Memory: `vaultaire.survey`.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

from cas import gc
from cas.catalog import read_epoch
from cas.errors import NoSpace
from cas.frame import NORMAL, THOROUGH
from vaultaire.collection_due import SOON_DUTY, Shortage, plan_retry, plan_round
from vaultaire.collection_report import (
    Progress,
    save_progress,
    save_usage,
    saved_standing,
    standing_now,
)
from vaultaire.collector_lock import CollectorLock
from vaultaire.roots import Roots
from vaultaire.runfile import RunFiles
from vaultaire.small_objects import Moved
from vaultaire.survey import exhaust, mark, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from cas.catalog import PackRow
    from cas.frame import Effort
    from cas.marking import Marker
    from vaultaire.archiving import Archive
    from vaultaire.collection_due import Standing
    from vaultaire.store import Store
    from vaultaire.survey import Usage

LOOK_SECONDS: Final = 5.0  # between two looks whether a round is due
RETRY_SECONDS: Final = 60.0  # after a failure, or when the disk had no room for copies and has more now
ROOM_BYTES: Final = 256 << 20  # copied before sources are removed: more room than that is never needed
DEFAULT_BYTES_PER_SECOND: Final = 64 << 20

log = logging.getLogger("vaultaire.collection")


class State(Enum):
    IDLE = "idle"  # nothing is to be done now
    WORKING = "working"  # the slice was over before the work was
    WAITING = "waiting"  # for operations that began before
    PACED = "paced"  # enough was copied for this second
    BUSY = "busy"  # another process collects


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Preview:
    """What a round would do. Open packs do not count: what is dead in them comes back after they are sealed."""

    plan: gc.Plan
    condemned: dict[int, PackRow]  # already, by a round that is under way
    progress: Progress  # of the survey
    small_objects: Moved  # that would leave the database


class Collector:
    """See the module. One thread. `close` it before its store."""

    def __init__(
        self,
        store: Store,
        *,
        policy: gc.Policy | None = None,
        bytes_per_second: float = DEFAULT_BYTES_PER_SECOND,
        effort: Callable[[], Effort] = lambda: NORMAL,
        archive: Archive | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`bytes_per_second`: raw bytes copied, at most; 0: no limit. `effort`: how hard to compress them, now.

        `archive`: what to store anew besides, and when.
        """
        self._store = store
        self._policy = policy or gc.Policy()
        self._rate = bytes_per_second
        self._effort = effort
        self._archive = archive
        self._clock = clock
        self._monotonic = monotonic
        self._operations = RunFiles(store.directory / "run")
        self._lock = CollectorLock(store.directory / "run" / "collector.lock")
        self._work: Generator[State, None, None] | None = None
        self._last: Standing | None = None
        self._look_at = 0.0  # monotonic; nothing is looked for before
        self._allowance = bytes_per_second
        self._paid_at = monotonic()
        self._thorough = False  # the round that runs archives
        self._busy_seconds = 0.0  # working time of the round that runs
        self._kept: set[int] = set()  # condemned packs that could not be emptied
        self._shortage: Shortage | None = None  # of room for copies, in this round
        self.progress = Progress()

    # --- driving ------------------------------------------------------------------------------------------------

    def run_slice(self, seconds: float) -> State:
        """Go on for about `seconds`. For the maintenance process. Raises what the store raises; then it starts anew."""
        if not self._lock.acquire():
            self._forget()
            return State.BUSY
        try:
            if not self._lock.claim():
                self._forget()
            if self._work is None:
                self._work = self._rounds()
            return self._go_on(self._work, seconds)
        finally:
            self._lock.release()

    def run(self, on_state: Callable[[State, Progress], None] = lambda state, progress: None) -> Progress:
        """Collect now until nothing more can be freed. Blocking: for a command.

        Waits for the lock, and for operations; `on_state` is called at every step, and may sleep while WAITING.
        """
        self._lock.acquire(wait=True)
        try:
            self._lock.claim()
            self._forget()
            self.progress = Progress()
            self._work = self._round() if self._archive is None else self._archive_round(self._archive)
            while (state := self._go_on(self._work, 0.2)) is not State.IDLE:
                on_state(state, self.progress)
                if state in (State.WAITING, State.PACED):
                    self._store.run_file.tick()
                    time.sleep(0.02)
            return self.progress
        finally:
            self._forget()
            self._lock.release()

    def preview(self) -> Preview:
        """What a round would do now; changes nothing, and needs no lock. Blocking, as long as a survey takes."""
        store = self._store
        with store.operation():  # the nodes that are read stay
            with store.kv.snapshot() as reader:
                epoch = read_epoch(reader) + 1
            usage = exhaust(self._measured())
            small_objects = self._preview(self._archive)
            policy = replace(self._policy, batch_packs=1 << 62, batch_copy_bytes=1 << 62)
            plan = self._plan(usage, epoch, policy, self._archive)
            return Preview(plan, gc.find_condemned(store.kv), self.progress, small_objects)

    def close(self) -> None:
        """Let go of everything; idempotent."""
        self._forget()
        self._lock.close()

    def _go_on(self, work: Generator[State, None, None], seconds: float) -> State:
        began = self._monotonic()
        self._allowance = min(self._rate, self._allowance + self._rate * (began - self._paid_at))
        self._paid_at = began
        try:
            while (state := next(work, State.IDLE)) is State.WORKING:
                if self._monotonic() - began >= seconds:
                    break
                if self._rate and self._allowance <= 0:
                    state = State.PACED
                    break
        except BaseException:
            self._forget()
            self._look_at = self._monotonic() + RETRY_SECONDS
            raise
        self._busy_seconds += self._monotonic() - began
        return state

    def _forget(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.close()

    # --- rounds -------------------------------------------------------------------------------------------------

    def _rounds(self) -> Generator[State, None, None]:
        archive = self._archive
        while True:
            if self._monotonic() >= self._look_at:
                if self._due():
                    self.progress = Progress()
                    yield from self._round()
                elif archive is not None and archive.is_due():
                    self.progress = Progress()
                    yield from self._archive_round(archive)
            yield State.IDLE

    def _due(self) -> bool:
        began = self._monotonic()
        now = standing_now(self._store.kv, self._clock())
        if self._last is None:
            self._last = saved_standing(self._store.kv)
        left = gc.find_condemned(self._store.kv).keys()
        due = plan_round(self._last, now) or bool(left - self._kept)
        if left and self._shortage is not None:
            due |= plan_retry(self._shortage, began, self._free_bytes())
        self._look_at = began + max(LOOK_SECONDS, SOON_DUTY * (self._monotonic() - began))
        return due

    def _archive_round(self, archive: Archive) -> Generator[State, None, None]:
        progress, complete = self.progress, False
        try:
            progress.step = "moving small objects"
            for moved in archive.move_small_objects():
                progress.moved_objects += moved.objects
                progress.moved_bytes += moved.raw_bytes
                progress.moved_stored_bytes += moved.stored_bytes
                self._allowance -= moved.raw_bytes
                yield State.WORKING
            progress.step = "looking for packs"
            for _ in archive.find_packs():
                yield State.WORKING
            if archive.packs() or not archive.by_itself:
                yield from self._round(archive)
            complete = not progress.lacks_room
        finally:
            progress.step = "idle"
            progress.lacks_room |= archive.lacks_room
            archive.end(complete=complete)

    def _preview(self, archive: Archive | None) -> Moved:
        """The small objects that would be moved; and lets `archive` look for packs."""
        objects = raw_bytes = 0
        if archive is not None:
            for found in archive.count_small_objects():
                objects, raw_bytes = objects + found.objects, raw_bytes + found.raw_bytes
            for _ in archive.find_packs():
                pass
            self.progress.lacks_room = archive.lacks_room
        return Moved(objects, raw_bytes)

    def _round(self, archive: Archive | None = None) -> Generator[State, None, None]:
        """Survey, then batch after batch. What somebody else has condemned comes first."""
        self._busy_seconds = 0.0
        self._thorough = archive is not None
        kv = self._store.kv
        gc.sweep_gone(kv, self._store.packs)
        condemned = gc.find_condemned(kv)
        self._kept.clear()
        self._shortage = None
        if condemned:
            yield from self._empty(condemned)
        epoch, usage = yield from self._survey()
        while packs := self._plan(usage, epoch, self._policy, archive).packs:
            gc.retire(kv, packs)
            condemned = gc.find_condemned(kv)
            yield from self._empty({pack: condemned[pack] for pack in packs if pack in condemned})
            if self._shortage is not None:
                break
        self._end_round()

    def _plan(self, usage: Usage, epoch: int, policy: gc.Policy, archive: Archive | None) -> gc.Plan:
        anew = frozenset() if archive is None else archive.packs()
        return gc.plan_collection(gc.find_sealed(self._store.kv), usage.live, epoch, policy, anew)

    def _survey(self) -> Generator[State, None, tuple[int, Usage]]:
        """(the epoch in which it began, what it found). No operation is older than that epoch."""
        epoch = gc.begin_epoch(self._store.kv)
        yield from self._wait(epoch)
        usage = yield from self._measured()
        save_usage(self._store.kv, usage, self._now_ms(), self.progress.marked_seconds)
        return epoch, usage

    def _measured(self) -> Generator[State, None, Usage]:
        self.progress.step = "surveying"
        began = self._monotonic()
        sealed = [pack for pack, _ in gc.find_sealed(self._store.kv)]
        roots = Roots(self._store.kv)
        try:
            for _ in roots.copy(self._store.directory / "tmp"):
                yield State.WORKING
            measuring = measure(self._store.chunks, self._store.kv, roots)
            usage = yield from _driven(measuring)
        finally:
            roots.close()
        self.progress.marked_seconds += self._monotonic() - began
        if usage.incomplete:
            usage.live.clear()  # then all that is placed counts as live
        else:
            for pack in sealed:
                usage.live.setdefault(pack, 0)
        self.progress.note(usage.incomplete, usage.errors, usage.missing)
        return usage

    def _empty(self, condemned: dict[int, PackRow]) -> Generator[State, None, None]:
        """Steps 2 to 4 for condemned packs, taken over or just condemned."""
        self.progress.condemned_packs = len(condemned)
        self._save_progress()
        yield from self._wait(max(row.condemned_epoch for row in condemned.values()))
        now = gc.find_condemned(self._store.kv)
        needed: gc.Needed = gc.Everything()
        live = {pack: now[pack].placed_bytes for pack in condemned}
        if any(live.values()):
            marked = yield from self._marked()
            if marked is not None:
                needed, live = marked.bits, {pack: marked.live_in(pack) for pack in condemned}
        # The emptiest first: what needs no room makes room for the others.
        waiting = sorted(condemned, key=lambda pack: (live[pack], pack))
        while waiting:
            done = yield from self._evacuate(waiting, now, needed)
            if not done:
                self._kept.update(waiting)
                self.progress.lacks_room = True
                self._shortage = Shortage(self._monotonic(), self._free_bytes())
                self._look_at = self._monotonic() + RETRY_SECONDS
                log.warning("no room to copy what is live in %d packs; deleting makes room", len(waiting))
                return
            waiting = waiting[len(done) :]
            yield from self._remove(done, now, needed)

    def _free_bytes(self) -> int:
        disk = self._store.space.probe()
        return disk.free + disk.reserve

    def _marked(self) -> Generator[State, None, Marker | None]:
        """None: it is incomplete."""
        self.progress.step = "marking"
        began = self._monotonic()
        roots = Roots(self._store.kv)
        try:
            for _ in roots.copy(self._store.directory / "tmp"):
                yield State.WORKING
            marker = yield from _driven(mark(self._store.chunks, roots))
            incomplete = marker.incomplete or roots.damaged > 0
            errors = [*marker.errors, *roots.errors]
        finally:
            roots.close()
        self.progress.marked_seconds += self._monotonic() - began
        self.progress.note(incomplete, errors, marker.missing)
        return None if incomplete else marker

    def _evacuate(
        self, packs: Sequence[int], rows: dict[int, PackRow], needed: gc.Needed
    ) -> Generator[State, None, list[int]]:
        """The first of `packs`, as many as there is room for; they hold nothing live any more (but what is damaged)."""
        self.progress.step = "copying"
        done: list[int] = []
        copied = 0
        store = self._store
        for pack in packs:
            evacuation = gc.Evacuation(pack)
            try:
                effort = THOROUGH if self._thorough else self._effort()
                for raw_bytes in evacuation.run(
                    store.chunks, store.kv, store.packs, rows[pack], needed, effort
                ):
                    self._allowance -= raw_bytes
                    yield State.WORKING
            except NoSpace:
                break
            finally:
                copied += evacuation.copied_bytes
                self.progress.copied_bytes += evacuation.copied_bytes
            for error in evacuation.damaged:
                log.error("a chunk that is needed cannot be read, its pack is kept: %s", error)
            self.progress.tell(evacuation.damaged)
            done.append(pack)
            if copied >= ROOM_BYTES:
                break
            yield State.WORKING
        return done

    def _remove(
        self, packs: Sequence[int], rows: dict[int, PackRow], needed: gc.Needed
    ) -> Generator[State, None, None]:
        store = self._store
        yield from self._wait(gc.begin_epoch(store.kv))
        self.progress.step = "removing"
        for pack in packs:
            for _ in gc.drop_dead(store.kv, store.packs, pack, needed):
                yield State.WORKING
        kept = set(gc.forget_empty(store.kv, packs))
        gc.sweep_gone(store.kv, store.packs)
        self._kept |= kept
        progress = self.progress
        progress.kept_packs += len(kept)
        progress.removed_packs += len(packs) - len(kept)
        progress.removed_bytes += sum(rows[pack].length for pack in packs if pack not in kept)
        progress.condemned_packs -= len(packs) - len(kept)
        yield State.WORKING

    def _wait(self, epoch: int) -> Generator[State, None, None]:
        """Until every operation that began before `epoch` is over."""
        self.progress.step = "waiting for requests that began before"
        while (oldest := self._operations.oldest()) is not None and oldest < epoch:
            yield State.WAITING

    # --- telling ------------------------------------------------------------------------------------------------

    def _end_round(self) -> None:
        self.progress.step = "idle"
        standing = standing_now(self._store.kv, self._clock())
        # The sequence is that of the report's own commit: else every round would be a change that asks for the next.
        self._last = replace(standing, sequence=standing.sequence + 1, busy_seconds=self._busy_seconds)
        self._save_progress(ended=True)
        if self.progress.removed_packs:
            log.info(
                "collected %d packs: %d bytes removed, %d of them copied",
                self.progress.removed_packs,
                self.progress.removed_bytes,
                self.progress.copied_bytes,
            )

    def _save_progress(self, *, ended: bool = False) -> None:
        save_progress(self._store.kv, self.progress, self._last, self._now_ms(), ended=ended)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _driven(work: Generator[int, None, T]) -> Generator[State, None, T]:
    """The same, with a pause at every step of it."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        yield State.WORKING
