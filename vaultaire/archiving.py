"""What is archived, and when: data stored anew in large frames, harder compressed; small objects out of the database.

The collector does it (`vaultaire.collection`): a pack that is archived is condemned and emptied, as one that is mostly
garbage. Here is only which, and when: everything that gains by it, because somebody asks for that (`gc --recompress`);
or, by itself, what nothing was written to for some days, looked for once a day, while the machine has nothing else to do.
Ages decide what it costs, never what is safe: a pack or a clock that lies about them is archived sooner, or later.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from cas import gc
from cas.errors import MissingPack
from cas.frame import THOROUGH
from vaultaire.effort import collection_effort
from vaultaire.small_objects import move_small_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaultaire.small_objects import Moved
    from vaultaire.store import Store

DAY_SECONDS: Final = 86_400.0
LOOK_SECONDS: Final = DAY_SECONDS  # from one look at what has become old enough to the next
PAUSE_SECONDS: Final = (
    3_600.0  # after the machine had something else to do: a round begins with a survey of everything
)


def _is_idle() -> bool:
    return collection_effort() is THOROUGH


class Archive:
    """See the module. One thread. `is_due`, then `move_small_objects`, `packs` while there are any, and `end`."""

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
        self._packs: frozenset[int] | None = None  # None: not looked for yet

    def is_due(self) -> bool:
        return self._monotonic() >= self._look_at and self._is_idle()

    def move_small_objects(self) -> Iterator[Moved]:
        """Move them in small steps, while the machine is idle. Raises what the store raises."""
        for moved in move_small_objects(self._store, self._until() * 1000):
            yield moved
            if not self._is_idle():
                return

    def packs(self) -> frozenset[int]:
        """Sealed packs that are to be stored anew; none while the machine is busy."""
        if not self._is_idle():
            return frozenset()
        if self._packs is None:
            self._packs = frozenset(self._look())
        return self._packs

    def end(self) -> None:
        """All is done that was to be, or the machine has something else to do."""
        pause = LOOK_SECONDS if self._is_idle() else PAUSE_SECONDS
        self._look_at = self._monotonic() + pause
        self._packs = None

    def _look(self) -> Iterator[int]:
        store, until = self._store, self._until()
        for pack, row in gc.find_sealed(store.kv):
            if gc.has_small_frames(store.kv, store.packs, pack, row, THOROUGH.frame_bytes) and self._is_old(
                pack, until
            ):
                yield pack

    def _until(self) -> float:
        """What was not changed since then is to be archived; seconds since 1970."""
        return self._clock() - self._after if self.by_itself else math.inf

    def _is_old(self, pack: int, until: float) -> bool:
        try:
            return self._store.packs.written_at(pack) <= until
        except MissingPack:
            return False  # verify says so
