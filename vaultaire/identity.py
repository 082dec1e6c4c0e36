"""A lost `store.json`, put together from what else holds the identity.

Every pack's header has the store id, the dedup domain and the key of the chunk ids; a store without packs needs no key,
and its id is in the journal's records. Cut rules are nowhere else: the default is taken. That is right for every
store made without other rules, and never makes data unreadable: at worst new uploads deduplicate less against old ones.
"""

from __future__ import annotations

import json
import os
import secrets
from typing import TYPE_CHECKING

from cas.chunk import Hasher, Identity
from cas.errors import CasError
from cas.frame import decode_frame
from cas.pack import CLEAR_KEY, MAX_HEADER_BYTES, PackHeader, PackKind, scan_contents
from cas.packs import LocalPacks, sync_directory
from index.history import first_store_id
from vaultaire.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY_FILE = "store.json"


def identity_from_packs(directory: Path) -> Identity:
    """Read every pack's header, and the journal; verify the key on a chunk. Blocking. Raises StoreError."""
    packs = LocalPacks(directory / "packs")
    try:
        found = _headers(packs)
        journal_id = first_store_id(directory)
        kinds = {(h.store_id, h.domain, h.key_id, h.key) for h in found.values()}
        if len(kinds) > 1 or (kinds and journal_id and next(iter(kinds))[0] != journal_id):
            raise StoreError(
                f"{directory} holds packs or a journal of {len({k[0] for k in kinds} | {journal_id or b''})} stores; "
                "sort them out, or restore store.json from a backup"
            )
        if kinds:
            store_id, domain, key_id, key = kinds.pop()
            if key_id != CLEAR_KEY:
                raise StoreError(
                    f"{directory}: the packs' key is wrapped; store.json can only come from a backup"
                )
            identity = Identity(store_id, key, domain=domain)
            _verify_key(packs, found, identity)
            return identity
        if journal_id is None:
            raise StoreError(
                f"{directory} holds neither an intact pack nor a journal: there is nothing to rebuild. Restore it "
                "with: vaultaire restore"
            )
        return Identity(journal_id, secrets.token_bytes(32))
    finally:
        packs.close()


def write_identity(directory: Path, identity: Identity) -> None:
    """Durable on return. A damaged `store.json` is kept as `store.json.damaged`."""
    path = directory / IDENTITY_FILE
    if path.exists():
        path.replace(path.with_name(f"{IDENTITY_FILE}.damaged"))
    draft = path.with_name(f"{IDENTITY_FILE}.new")
    with open(draft, "w") as file:
        json.dump(identity.to_json(), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_directory(directory)


def _headers(packs: LocalPacks) -> dict[int, PackHeader]:
    found = {}
    for pack in packs.packs():
        try:
            header, _ = PackHeader.decode(packs.read(pack, [(0, MAX_HEADER_BYTES)])[0])
        except CasError:
            continue  # another one will do
        found[pack] = header
    return found


def _verify_key(packs: LocalPacks, found: dict[int, PackHeader], identity: Identity) -> None:
    """Recompute the id of one chunk, of the first pack that has any that can be decoded alone. Raises StoreError."""
    hasher = Hasher(identity.hash_key)
    for pack, header in found.items():
        contents = scan_contents(pack, lambda at, length, pack=pack: packs.read(pack, [(at, length)])[0])  # type: ignore[misc]
        frame = next((frame for frame in contents.frames if not frame.header.bases), None)
        if frame is None:
            continue
        decoded, raw = decode_frame(packs.read(pack, [(frame.offset, frame.header.total_length)])[0])
        first = memoryview(raw)[: decoded.lengths[0]]
        chunk = hasher.chunk_id(first) if header.kind == PackKind.DATA else hasher.node_id(first)
        if chunk != decoded.ids[0]:
            raise StoreError(
                f"pack {pack:016x} does not fit the key in its own header; restore store.json from a backup"
            )
        return
