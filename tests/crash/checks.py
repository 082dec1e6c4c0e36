"""Is a store that was opened again clean? What `read_states` does not look at: rows and packs that nobody asks for."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from cas.adoption import inspect, placements
from cas.catalog import PLACEMENTS, PackState, iterate_packs, pack_of
from cas.errors import CasError
from cas.pack import scan_contents
from vaultaire.store import TABLES

if TYPE_CHECKING:
    from cas.catalog import PackRow
    from cas.pack import PackContents
    from vaultaire.store import Store


def verify(store: Store) -> str | None:
    """What is wrong with the catalog and the packs of a store that only this process has open; None if nothing is.

    Every pack of a dead process is sealed and explains itself, no file lacks a row, and every placement is what its
    pack says.
    """
    with store.kv.snapshot() as reader:
        packs = dict(iterate_packs(reader))
        known = dict(reader.scan(PLACEMENTS))
    files = set(store.packs.packs())
    told: dict[int, dict[bytes, bytes]] = {}
    for pack, row in packs.items():
        if row.state == PackState.OPEN:
            return f"pack {pack:016x} of a dead process is still open"
        if row.damaged:
            return f"pack {pack:016x} is marked as damaged"
        try:
            contents = _contents(store, pack, row)
        except CasError as error:
            return str(error)
        if len(contents.frames) != row.frames or store.packs.length(pack) < row.length:
            return f"pack {pack:016x} has {len(contents.frames)} frames, its row says {row.frames}"
        told[pack] = dict(placements(pack, contents))
    if files != set(packs):
        return f"files without rows: {files - set(packs)}, rows without files: {set(packs) - files}"
    for chunk, row in known.items():
        if told[pack_of(row)].get(chunk) != row:
            return f"the placement of chunk {chunk.hex()} is not what its pack says"
    return None


def verify_all(store: Store) -> str | None:
    """As `verify`, and every row of every table. Raises CorruptValue, KvError."""
    with store.kv.snapshot() as reader:
        for table in TABLES:
            collections.deque(reader.scan(table), maxlen=0)
    return verify(store)


def _contents(store: Store, pack: int, row: PackRow) -> PackContents:
    """A pack whose flush failed has no footer: it counts up to its durable length, whatever lies behind."""
    if not row.footerless:
        return inspect(store.packs, pack)
    return scan_contents(
        pack, lambda offset, length: store.packs.read(pack, [(offset, length)])[0], row.length
    )
