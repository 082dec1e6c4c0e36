"""How many pages of LMDB the rows of a table take: the one thing that is calculated instead of done. Pure.

A leaf has 16 bytes of its own, a row 8 and a pointer of 2; a row too long for half a page lies in pages of its own
(https://github.com/LMDB/lmdb/blob/mdb.master/libraries/liblmdb/mdb.c, NODESIZE, me_nodemax, OVPAGES). Leaves of rows that
come in any order are full by ln 2 in the mean; tests hold all of it against real stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PAGE_BYTES: Final = 4096
RANDOM_FILL: Final = 0.69
NAMES_FILL: Final = (
    0.73  # of objects' rows: 0.67 to 0.70 by clients side by side, 0.77 to 0.83 one by one in order
)

_PAGE_HEAD: Final = 16
_ROOM: Final = PAGE_BYTES - _PAGE_HEAD
_NODE: Final = 8
_POINTER: Final = 2
_MAX_NODE: Final = (_ROOM // 2 & ~1) - _POINTER
_PAGE_NUMBER: Final = 8
CHECKSUM_BYTES: Final = 4  # of a value (index/SCHEMA.md)


@dataclass(slots=True)
class Rows:
    """Rows of one table, summed up."""

    fill: float = RANDOM_FILL
    rows: int = 0
    leaf_bytes: int = 0
    key_bytes: int = 0
    own_pages: int = 0

    def add(self, key_bytes: int, value_bytes: int, count: int = 1) -> int:
        """`count` rows of these lengths (the value without its checksum). How many bytes they take, fill included."""
        value_bytes += CHECKSUM_BYTES
        own = 0
        if _NODE + key_bytes + value_bytes > _MAX_NODE:
            own = -(-(_PAGE_HEAD + value_bytes) // PAGE_BYTES)
            value_bytes = _PAGE_NUMBER
        size = _NODE + (key_bytes + value_bytes + 1 & ~1) + _POINTER
        self.rows += count
        self.leaf_bytes += size * count
        self.key_bytes += key_bytes * count
        self.own_pages += own * count
        return int(size * count / self.fill) + own * count * PAGE_BYTES

    def scaled(self, factor: float) -> Rows:
        """So many times as many rows of the same lengths."""
        sums = (self.rows, self.leaf_bytes, self.key_bytes, self.own_pages)
        return Rows(self.fill, *(round(each * factor) for each in sums))

    def merge(self, other: Rows) -> None:
        self.rows += other.rows
        self.leaf_bytes += other.leaf_bytes
        self.key_bytes += other.key_bytes
        self.own_pages += other.own_pages

    @property
    def pages(self) -> int:
        if not self.rows:
            return 0
        if self.leaf_bytes <= _ROOM:
            return 1 + self.own_pages
        leaves = pages = -(-self.leaf_bytes // int(_ROOM * self.fill))
        entry = _NODE + (self.key_bytes // self.rows + 1 & ~1) + _POINTER
        while leaves > 1:
            leaves = -(-leaves * entry // int(_ROOM * self.fill))
            pages += leaves
        return pages + self.own_pages
