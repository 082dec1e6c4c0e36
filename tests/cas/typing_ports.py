"""Checked by mypy, never run: who is handed to the chunk store has the shape of its ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cas import memory_packs, packs, ports
    from index import kv, memory_kv


def ordered_map(engine: kv.OrderedMap) -> ports.OrderedMap:
    return engine


def memory_map(engine: memory_kv.MemoryKv) -> ports.OrderedMap:
    return engine


def reader(state: kv.Reader) -> ports.Reader:
    return state


def transaction(txn: kv.Transaction) -> ports.Transaction:
    return txn


def local_place(place: packs.LocalPacks) -> ports.PackPlace:
    return place


def memory_place(place: memory_packs.MemoryPacks) -> ports.PackPlace:
    return place


def local_writer(writer: packs.LocalPackWriter) -> ports.PackWriter:
    return writer
