"""Is a store that was opened again clean? `vaultaire verify`, and what it need not ask of a running store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.catalog import PackState, iterate_packs, read_gone
from vaultaire.verify import verify as verify_store

if TYPE_CHECKING:
    from vaultaire.store import Store


def verify(store: Store) -> str | None:
    """What `verify --read-data` finds; None if nothing. Raises KvError where it cannot even be asked."""
    report = verify_store(store, read_data=True)
    return None if report.clean else "; ".join(finding.message for finding in report.findings[:5])


def verify_alone(store: Store) -> str | None:
    """As `verify`, for a store that no other process has open: everything the dead left behind is in order, too."""
    with store.kv.snapshot() as reader:
        packs = dict(iterate_packs(reader))
        gone = set(read_gone(reader))  # a collector died: the next one removes their files
    still_open = [f"{pack:016x}" for pack, row in packs.items() if row.state == PackState.OPEN]
    if still_open:
        return f"packs of dead processes are still open: {still_open}"
    strange = (set(store.packs.packs()) ^ set(packs)) - gone
    if strange:
        return f"packs without rows, or rows without packs: {[f'{pack:016x}' for pack in strange]}"
    return verify(store)
