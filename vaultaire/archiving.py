"""What is archived, and when: data stored anew in large frames, harder compressed; small objects out of the database.

The collector does it (`vaultaire.collection`): a pack that is archived is condemned and emptied, as one that is mostly
garbage. Here is only which, and when: everything that gains by it, because somebody asks for that (`gc --recompress`);
or, by itself, what nothing was written to for some days, looked for once a day, while the machine has nothing else to do.
Ages decide what it costs, never what is safe: a pack or a clock that lies about them is archived sooner, or later.

Nothing of it is urgent, and it takes room before it gives some back (small objects give none back before a rebuild). So
it goes on only while clients have `LEFT_BYTES` left beside it, and a pack is not condemned for it before that was seen:
what lies in a condemned pack, an upload of the same bytes would have to store again.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from cas import gc
from cas.errors import MissingPack
from cas.frame import THOROUGH
from cas.openpack import TARGET_BYTES
from vaultaire.collection import ROOM_BYTES
from vaultaire.effort import collection_effort
from vaultaire.small_objects import count_small_objects, move_small_objects
from vaultaire.space import DiskFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaultaire.small_objects import Moved
    from vaultaire.store import Store

DAY_SECONDS: Final = 86_400.0
LOOK_SECONDS: Final = DAY_SECONDS  # from one look at what has become old enough to the next
PAUSE_SECONDS: Final = 3_600.0  # after a round that was cut off: each begins with a walk over everything
LEFT_BYTES: Final = ROOM_BYTES + 2 * TARGET_BYTES  # free: what is copied at a time, into packs begun anew


def _is_idle() -> bool:
    return collection_effort() is THOROUGH


class Archive:
    """See the module. One thread.

    A round: `is_due`, then `move_small_objects`, `find_packs`, `packs` while there are any, and `end` in any case.
    """

    def __init__(
        self,
        store: Store,
        *,
        after_seconds: float = 0.0,
        is_idle: Callable[[], bool] = _is_idle,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`after_seconds`: since the last write; 0: at once, whatever else the machine has to do."""
        self._store = store
        self.by_itself = after_seconds > 0  # nobody waits for it
        self._after = after_seconds
        self._is_idle = is_idle if self.by_itself else lambda: True
        self._clock = clock
        self._monotonic = monotonic
        self._look_at = 0.0  # monotonic
        self._packs: set[int] = set()
        # Of this round: something was not done, for the machine was busy or there was no room; it was the room.
        self._cut_off = self.lacks_room = False

    def is_due(self) -> bool:
        return self._monotonic() >= self._look_at and self._is_idle() and self._has_room()

    def count_small_objects(self) -> Iterator[Moved]:
        """What would be moved, in steps. Changes nothing."""
        return self._driven(count_small_objects(self._store, self._until() * 1000))

    def move_small_objects(self) -> Iterator[Moved]:
        """Move them in small steps, as long as that may go on. Raises what the store raises."""
        return self._driven(move_small_objects(self._store, self._until() * 1000))

    def find_packs(self) -> Iterator[None]:
        """Look for the packs that are to be stored anew, a step for each there is: one takes a stat, or a footer."""
        store, until = self._store, self._until()
        for pack, row in gc.find_sealed(store.kv):
            if not self._goes_on():
                return
            if self._is_old(pack, until) and gc.has_small_frames(
                store.kv, store.packs, pack, row, THOROUGH.frame_bytes
            ):
                self._packs.add(pack)
            yield

    def packs(self) -> frozenset[int]:
        """Those found that may be stored anew now."""
        return frozenset(self._packs) if self._packs and self._goes_on() else frozenset()

    def end(self, *, complete: bool) -> None:
        """`complete`: nothing failed, and nobody else wanted to collect."""
        pause = LOOK_SECONDS if complete and not self._cut_off else PAUSE_SECONDS
        self._look_at = self._monotonic() + pause
        self._packs.clear()
        self._cut_off = self.lacks_room = False

    def _driven(self, steps: Iterator[Moved]) -> Iterator[Moved]:
        while self._goes_on() and (moved := next(steps, None)) is not None:
            yield moved

    def _goes_on(self) -> bool:
        if not self._has_room():
            self._cut_off = self.lacks_room = True
        elif not self._is_idle():
            self._cut_off = True
        else:
            return True
        return False

    def _has_room(self) -> bool:
        try:
            self._store.space.require(LEFT_BYTES)
        except DiskFull:
            return False
        return True

    def _until(self) -> float:
        """What was not changed since then is to be archived; seconds since 1970."""
        return self._clock() - self._after if self.by_itself else math.inf

    def _is_old(self, pack: int, until: float) -> bool:
        try:
            return self._store.packs.written_at(pack) <= until
        except MissingPack:
            return False  # verify says so
