"""When each access key was last used, to the hour: so that a key nobody needs any more can be found and deleted.

Noted in memory at every request that was let in, written now and then by the worker. What a killed process had noted and
not written is lost; nothing depends on it. Table "srv.used": row key = access key; value = milliseconds since 1970 UTC,
u64 big-endian; never lowered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from index.kv import Reader, Transaction

TABLE: Final = "srv.used"
PRECISION_MS: Final = 3_600_000  # a key in steady use costs one small commit per worker and hour


class LastUsed:
    """What one process has seen. One thread."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._written: dict[str, int] = {}

    def note(self, access_key: str, now_ms: int) -> None:
        self._seen[access_key] = now_ms

    def plan(self) -> Callable[[Transaction], None] | None:
        """The function to commit; None if nothing is due."""
        due = {
            key: used_ms
            for key, used_ms in self._seen.items()
            if used_ms - self._written.get(key, -PRECISION_MS) >= PRECISION_MS
        }
        if not due:
            return None

        def write(txn: Transaction) -> None:
            for key, used_ms in due.items():
                if used_ms > read_last_used(txn, key):
                    txn.put(TABLE, key.encode(), used_ms.to_bytes(8, "big"))

        self._written.update(due)
        return write


def read_last_used(reader: Reader, access_key: str) -> int:
    """Milliseconds since 1970 UTC; 0: never, as far as is known."""
    row = reader.get(TABLE, access_key.encode())
    return 0 if row is None else int.from_bytes(row, "big")


def forget_last_used(txn: Transaction, access_key: str) -> None:
    txn.delete(TABLE, access_key.encode())
