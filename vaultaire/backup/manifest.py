"""What one backup is: files, each made of pieces that the destination keeps under their BLAKE3. Pure.

A manifest is written last, and signed off by a BLAKE3 over its own content: a backup exists when its manifest does.
What decodes is what was encoded; paths are taken from a list of shapes, never trusted. Layout: docs/backup-format.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blake3 import blake3

from index.journal import Checksum, Position
from vaultaire.backup.place import BackupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT: Final = "vaultaire backup"
VERSION: Final = 1
DESTINATION: Final = "vaultaire-backup.json"
IDENTITY_FILE: Final = "store.json"
SECRET_FILE: Final = "secret.key"

# Everything that a backup may hold: what is written anywhere by a restore has one of these shapes.
_PATHS: Final = re.compile(
    r"store\.json|secret\.key|packs/[0-9a-f]{2}/[0-9a-f]{16}\.pack|journal/[0-9]{20}\.log"
    r"|checkpoint/[0-9]{20}\.(?:ckpt|json)"
)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MANIFEST_NAME: Final = re.compile(r"backups/([0-9]{8})\.json")


class DamagedManifest(BackupError):
    """It does not match its own checksum, or is none at all: this is not a backup."""


class Piece(NamedTuple):
    """Consecutive bytes of a file. `digest`: BLAKE3-256 in hex, which is its name too."""

    length: int
    digest: str

    @property
    def name(self) -> str:
        return f"pieces/{self.digest[:2]}/{self.digest}"


Files = dict[str, tuple[Piece, ...]]  # path in the data directory -> its bytes, in order


@dataclass(frozen=True, slots=True)
class Destination:
    """What `vaultaire-backup.json` says: whose backups these are."""

    store_id: bytes
    destination_id: bytes  # 16 random bytes

    def encode(self) -> bytes:
        return _sign({"store_id": self.store_id.hex(), "destination_id": self.destination_id.hex()})

    @classmethod
    def decode(cls, data: bytes, where: str) -> Destination:
        """Raises DamagedManifest, BackupError (another version)."""
        content = _verify(data, f"{where}/{DESTINATION}")
        try:
            return cls(bytes.fromhex(content["store_id"]), bytes.fromhex(content["destination_id"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedManifest(f"{where}/{DESTINATION}: {error}") from error


@dataclass(frozen=True, slots=True)
class Manifest:
    """One backup. `position`: the point in history that it holds, all of it and nothing later."""

    number: int
    store_id: bytes
    created_ms: int  # information only: backups are ordered by their numbers
    position: Position
    base: int | None  # the backup whose files this one went on from; information only
    files: Files = field(repr=False)
    damaged: Mapping[str, str] = field(default_factory=dict)  # path -> what was wrong with it in the store

    @property
    def name(self) -> str:
        return manifest_name(self.number)

    @property
    def has_secrets(self) -> bool:
        return SECRET_FILE in self.files

    @property
    def total_bytes(self) -> int:
        return sum(length_of(pieces) for pieces in self.files.values())

    def pieces(self) -> Iterator[Piece]:
        """Of all files; one that several files share comes several times."""
        for pieces in self.files.values():
            yield from pieces

    def encode(self) -> bytes:
        at = self.position
        return _sign(
            {
                "number": self.number,
                "store_id": self.store_id.hex(),
                "created_ms": self.created_ms,
                "sequence": at.sequence,
                "segment": at.segment,
                "offset": at.offset,
                "chain": at.chain.hex(),
                "base": self.base,
                "damaged": dict(self.damaged),
                "files": [[path, *map(list, pieces)] for path, pieces in sorted(self.files.items())],
            }
        )

    @classmethod
    def decode(cls, data: bytes, where: str) -> Manifest:
        """Raises DamagedManifest, BackupError (another version)."""
        content = _verify(data, where)
        try:
            position = Position(
                int(content["sequence"]),
                int(content["segment"]),
                int(content["offset"]),
                Checksum(bytes.fromhex(content["chain"])),
            )
            files = {path: tuple(Piece(*piece) for piece in pieces) for path, *pieces in content["files"]}
            _check_files(files)
            return cls(
                number=int(content["number"]),
                store_id=bytes.fromhex(content["store_id"]),
                created_ms=int(content["created_ms"]),
                position=position,
                base=content["base"],
                files=files,
                damaged=dict(content["damaged"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DamagedManifest(f"{where}: {error}") from error


def manifest_name(number: int) -> str:
    return f"backups/{number:08d}.json"


def manifest_number(name: str) -> int | None:
    """None: this item is no manifest."""
    match = _MANIFEST_NAME.fullmatch(name)
    return int(match[1]) if match else None


def length_of(pieces: tuple[Piece, ...]) -> int:
    return sum(piece.length for piece in pieces)


def digest_of(data: bytes | memoryview) -> str:
    return blake3(data).hexdigest()


def checksum_of(encoded: bytes) -> str:
    """Which manifest this is, in 64 hex digits."""
    return digest_of(encoded)


def _check_files(files: Files) -> None:
    for path, pieces in files.items():
        if not _PATHS.fullmatch(path):
            raise ValueError(f"{path!r} is no file of a store")
        for piece in pieces:
            if not isinstance(piece.length, int) or piece.length < 0 or not _DIGEST.fullmatch(piece.digest):
                raise ValueError(f"{path!r} has an impossible piece")


def _sign(content: dict[str, object]) -> bytes:
    content = {"format": FORMAT, "version": VERSION, **content}
    content["checksum"] = digest_of(_canonical(content))
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _verify(data: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
        if content.pop("checksum") != digest_of(_canonical(content)):
            raise ValueError("its checksum does not match")
        if content["format"] != FORMAT:
            raise ValueError("it is no Vaultaire backup")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedManifest(f"{where} is damaged ({error})") from error
    if (version := content.get("version")) != VERSION:
        raise BackupError(f"{where} is of version {version}: use the Vaultaire that wrote it, or a newer one")
    return dict(content)


def _canonical(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
