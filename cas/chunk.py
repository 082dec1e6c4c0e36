"""Chunk ids and the identity of a store: which bytes have which name.

A chunk id is the keyed BLAKE3-256 of the chunk's raw bytes, a node id the same under another key, so manifest nodes
and data never share an id. The key is random and belongs to the store: ids of two stores cannot be compared.

The cut rules are pinned here too, when the store is made. Changing them never makes old data unreadable, it only
loses dedup against what is already stored; they are no part of the byte format.

BLAKE3: https://github.com/BLAKE3-team/BLAKE3-specs (the library releases the GIL for all but tiny inputs).
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NewType, cast

from blake3 import blake3

from cas.errors import UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ChunkId = NewType("ChunkId", bytes)  # 32 bytes

ID_BYTES: Final = 32
MAX_RAW_BYTES: Final = 16 << 20  # of a chunk, and of a frame: what a reader must be ready to hold
FORMAT_VERSION: Final = 1
DEFAULT_CDC: Final = "fastcdc2020/32768/8192/131072/nc2"
TAR: Final = 1  # versions of the rules that new stores have
UNIFORM: Final = 1

# Derives the node key from the hash key; the text is part of the format.
_NODE_CONTEXT: Final = "vaultaire 2026 manifest node ids"


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a store this store; written once (`store.json`), repeated in every pack's header."""

    store_id: bytes  # 16 random bytes
    hash_key: bytes  # 32 random bytes
    cdc: str = DEFAULT_CDC
    domain: int = 0  # dedup domain (u32)
    format_version: int = FORMAT_VERSION
    tar: int = TAR  # version of the rule that cuts at members of tars; 0: none
    uniform: int = UNIFORM  # of the rule that joins chunks of noise; 0: none

    @classmethod
    def create(cls) -> Identity:
        """A new store's identity."""
        return cls(secrets.token_bytes(16), secrets.token_bytes(32))

    @property
    def cut_rules(self) -> dict[str, str | int]:
        """Every rule that decides where a chunk ends, by name. Those that are off are not there."""
        rules: dict[str, str | int] = {"cdc": self.cdc}
        if self.tar:
            rules["tar"] = self.tar
        if self.uniform:
            rules["uniform"] = self.uniform
        return rules

    def to_json(self) -> dict[str, object]:
        """For `store.json`."""
        document: dict[str, object] = {
            "format_version": self.format_version,
            "store_id": self.store_id.hex(),
            "hash_key": self.hash_key.hex(),
            "cut": self.cut_rules,
            "domain": self.domain,
        }
        return document | {"checksum": _checksum(document)}

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Identity:
        """Raises KeyError, TypeError or ValueError for a damaged document, UnsupportedFormat for a newer one."""
        version, domain, cut = document["format_version"], document["domain"], document["cut"]
        store_id, hash_key = document["store_id"], document["hash_key"]
        if not isinstance(version, int) or not isinstance(domain, int) or not isinstance(cut, dict):
            raise TypeError("format_version and domain must be numbers, cut an object")
        if not isinstance(store_id, str) or not isinstance(hash_key, str):
            raise TypeError("store_id and hash_key must be hexadecimal text")
        rules = _parse_rules(cut)
        if version != FORMAT_VERSION or rules is None:
            raise UnsupportedFormat(f"store format {version} with cut rules {cut} is not known here")
        cdc, tar, uniform = rules
        identity = cls(bytes.fromhex(store_id), bytes.fromhex(hash_key), cdc, domain, version, tar, uniform)
        if len(identity.store_id) != 16 or len(identity.hash_key) != 32:
            raise ValueError("store_id must have 16 bytes, hash_key 32")
        # With one wrong digit of the hash key every chunk would look damaged, and what is stored be lost later.
        if document["checksum"] != identity.to_json()["checksum"]:
            raise ValueError("its checksum differs: something in it was changed")
        return identity


def _parse_rules(cut: Mapping[str, object]) -> tuple[str, int, int] | None:
    """None: some rule is not known here."""
    cdc, tar, uniform = cut.get("cdc"), cut.get("tar", 0), cut.get("uniform", 0)
    if not isinstance(cdc, str) or not cut.keys() <= {"cdc", "tar", "uniform"}:
        return None
    if type(tar) is not int or type(uniform) is not int:
        return None
    # An explicit 0 is nothing that we write.
    if tar not in (0, TAR) or uniform not in (0, UNIFORM) or 0 in (cut.get("tar"), cut.get("uniform")):
        return None
    return cdc, tar, uniform


def _checksum(document: Mapping[str, object]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return blake3(canonical.encode("ascii")).hexdigest()


class Hasher:
    """Computes ids. Thread-safe (no state but the keys)."""

    def __init__(self, hash_key: bytes) -> None:
        self._data_key = hash_key
        self._node_key = blake3(hash_key, derive_key_context=_NODE_CONTEXT).digest()

    def chunk_id(self, data: bytes | memoryview) -> ChunkId:
        return ChunkId(blake3(data, key=self._data_key).digest())

    def node_id(self, data: bytes | memoryview) -> ChunkId:
        return ChunkId(blake3(data, key=self._node_key).digest())

    def chunk_ids(self, chunks: Sequence[bytes | memoryview]) -> list[ChunkId]:
        """One id per chunk, in order: the loop of every upload, hence free of calls of our own."""
        key = self._data_key
        return cast("list[ChunkId]", [blake3(chunk, key=key).digest() for chunk in chunks])
