"""The backups at a place: whose they are, which there are, and how a store remembers the ones it made.

A store notes each backup it made in its own metadata (`srv.settings`, row "backup/" + destination id: JSON with the
`number` and the `checksum` of the manifest). So the note is part of the history that it speaks of: a store that was
restored from an older backup, or copied by hand, knows exactly the backups that lie on its own way.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Final

from vaultaire.access import SETTINGS_TABLE
from vaultaire.backup.manifest import (
    DESTINATION,
    DamagedManifest,
    Destination,
    Manifest,
    checksum_of,
    manifest_name,
    manifest_number,
)
from vaultaire.backup.place import BackupError, ItemMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from index.kv import Reader, Transaction
    from vaultaire.backup.place import Place

_MEMORY_ROW: Final = b"backup/"


def open_destination(place: Place, store_id: bytes) -> Destination:
    """Whose backups `place` holds; an empty place becomes this store's. Raises BackupError if it is another's."""
    try:
        found = Destination.decode(place.get(DESTINATION), place.url)
    except ItemMissing:
        found = Destination(store_id, secrets.token_bytes(16))
        place.put_new(DESTINATION, found.encode())
        place.flush()
    if found.store_id != store_id:
        raise BackupError(f"{place.url} holds backups of another store; name another folder or prefix")
    return found


def read_destination(place: Place) -> Destination:
    """Raises BackupError if there are no backups at `place`."""
    try:
        return Destination.decode(place.get(DESTINATION), place.url)
    except ItemMissing as error:
        raise BackupError(f"{place.url} holds no backups of Vaultaire (no {DESTINATION} in it)") from error


def backup_numbers(place: Place) -> list[int]:
    """Of all backups, ascending, whether they are whole or not."""
    names = (manifest_number(name) for name, _ in place.items("backups"))
    return sorted(number for number in names if number is not None)


def iterate_backups(place: Place) -> Iterator[tuple[int, Manifest | DamagedManifest]]:
    """All backups at `place`, ascending; of a damaged one, what is wrong with it. One is in memory at a time."""
    for number in backup_numbers(place):
        try:
            yield number, read_manifest(place, number)[0]
        except DamagedManifest as error:
            yield number, error


def read_manifest(place: Place, number: int) -> tuple[Manifest, str]:
    """The manifest, and its checksum as stores remember it. Raises DamagedManifest, ItemMissing."""
    name = manifest_name(number)
    encoded = place.get(name)
    manifest = Manifest.decode(encoded, f"{place.url}/{name}")
    if manifest.number != number:
        raise DamagedManifest(f"{place.url}/{name} says that it is backup {manifest.number}")
    return manifest, checksum_of(encoded)


def memory_key(destination: Destination) -> bytes:
    return _MEMORY_ROW + destination.destination_id


def remember(txn: Transaction, destination: Destination, number: int, checksum: str) -> None:
    """Note in the store's metadata that its history leads through this backup."""
    row = {"number": number, "checksum": checksum}
    txn.put(SETTINGS_TABLE, memory_key(destination), json.dumps(row).encode())


def recall(reader: Reader, destination: Destination) -> tuple[int, str] | None:
    """What `remember` noted last: number and checksum. None: nothing. Raises ValueError if it cannot be read."""
    row = reader.get(SETTINGS_TABLE, memory_key(destination))
    if row is None:
        return None
    match json.loads(row):
        case {"number": int(number), "checksum": str(checksum)}:
            return number, checksum
    raise ValueError("what the store remembers of its last backup cannot be read")
