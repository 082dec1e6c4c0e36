"""Adoption: putting a dead writer's packs in order; and reading back what a pack says about itself.

The caller knows that the writer is dead (its lock is free). An open pack of it is sealed at its durable length: what
lies behind was never acknowledged, so the torn tail is cut. Damage below the durable length is corruption: the pack
is left as it is, marked and reported, never cut. A pack file without a row holds nothing that a commit named: it is
removed. Every step can be repeated after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cas.catalog import PackState, frame_placements, get_pack, iterate_packs, put_pack
from cas.errors import CorruptPack, MissingPack
from cas.pack import encode_footer, read_contents, scan_contents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cas.catalog import PackRow
    from cas.pack import PackContents
    from cas.ports import OrderedMap, PackPlace, Transaction


@dataclass(frozen=True, slots=True)
class Adoption:
    """What was done. `damaged` asks for attention: chunks in these packs may be lost."""

    sealed: Sequence[int]
    removed: Sequence[int]
    damaged: Sequence[CorruptPack | MissingPack]


def adopt(kv: OrderedMap, place: PackPlace, writer: int) -> Adoption:
    """Seal the open packs of a dead writer and remove its files without a row. Blocking. Raises CasError, OSError."""
    with kv.snapshot() as reader:
        rows = dict(iterate_packs(reader, writer))
    sealed: list[int] = []
    damaged: list[CorruptPack | MissingPack] = []
    for pack, row in rows.items():
        if row.state != PackState.OPEN or row.damaged:
            continue
        try:
            length = _seal(place, pack, row)
        except (CorruptPack, MissingPack) as error:
            damaged.append(error)
            _settle(kv, pack, replace(row, damaged=True))
        else:
            sealed.append(pack)
            _settle(kv, pack, replace(row, state=PackState.SEALED, length=length))
    removed = [pack for pack in place.packs(writer) if pack not in rows]
    for pack in removed:
        place.remove(pack)
    return Adoption(sealed, removed, damaged)


def inspect(place: PackPlace, pack: int) -> PackContents:
    """What a pack says about itself, by its footer or else frame by frame. Raises CorruptPack, MissingPack."""
    return read_contents(pack, _reader(place, pack), place.length(pack))


def placements(pack: int, contents: PackContents) -> Iterator[tuple[bytes, bytes]]:
    """(id, row) of every chunk in a pack: the catalog's rows, as they can be rebuilt from packs alone."""
    for frame in contents.frames:
        yield from frame_placements(pack, frame).items()


def _seal(place: PackPlace, pack: int, row: PackRow) -> int:
    """The sealed pack's length."""
    # A footer that is there already is not believed: its writer may have died before the flush, and what lies
    # between the durable length and that footer may be missing.
    contents = scan_contents(pack, _reader(place, pack), row.length)
    headers = place.read(pack, [(frame.offset, frame.header.header_length) for frame in contents.frames])
    offsets = [frame.offset for frame in contents.frames]
    footer = encode_footer(row.length, list(zip(offsets, headers, strict=True)))
    place.seal_at(pack, row.length, footer)
    return row.length + len(footer)


def _reader(place: PackPlace, pack: int) -> Callable[[int, int], bytes]:
    return lambda offset, length: place.read(pack, [(offset, length)])[0]


def _settle(kv: OrderedMap, pack: int, row: PackRow) -> None:
    def write(txn: Transaction) -> None:
        if get_pack(txn, pack) is not None:
            put_pack(txn, pack, row)

    kv.commit(write)
