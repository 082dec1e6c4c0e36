"""What a file is, as far as it matters for a forecast: by the layout of backup repositories, its magic, its extension.

Pure. A name or a few bytes may be anything: nothing here raises or allocates by them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

HEAD_BYTES: Final = 512  # of a file, that `kind_of` looks at
MAX_EXTENSION_BYTES: Final = 12


class Nature(Enum):
    PLAIN = "plain"
    COMPRESSED = "compressed"  # by a compressor; could be stored plain
    MEDIA = "media"  # compressed for good
    ENCRYPTED = "encrypted"
    REPOSITORY = "repository"  # of a backup tool: deduplicated, compressed, mostly encrypted already


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    nature: Nature


# Keys as these tools make them, in a folder or a bucket.
_REPOSITORIES: Final = (
    ("restic repository", re.compile(rb"(?:^|/)(?:data/[0-9a-f]{2}|index|snapshots|keys)/[0-9a-f]{64}$")),
    ("Kopia repository", re.compile(rb"(?:^|/)[pqx][0-9a-f]{2}/[0-9a-f]{3}/[0-9a-f]+(?:-s[0-9a-f]+)?\.f$")),
    ("Kopia repository", re.compile(rb"(?:^|/)[pqx]n?[0-9a-f]{32}-s[0-9a-f]+$")),
)

# (offset, magic, name, nature)
_MAGICS: Final = (
    (0, b"BORG_SEG", "Borg repository", Nature.REPOSITORY),
    (0, b"KOPIA", "Kopia repository", Nature.REPOSITORY),
    (0, b"RCLONE\0\0", "rclone crypt", Nature.ENCRYPTED),
    (0, b"age-encryption.org/", "age", Nature.ENCRYPTED),
    (0, b"Salted__", "openssl enc", Nature.ENCRYPTED),
    (0, b"-----BEGIN PGP MESSAGE", "pgp", Nature.ENCRYPTED),
    (0, b"LUKS\xba\xbe", "luks", Nature.ENCRYPTED),
    (0, b"\x1f\x8b", "gzip", Nature.COMPRESSED),
    (0, b"\x28\xb5\x2f\xfd", "zstd", Nature.COMPRESSED),
    (0, b"\xfd7zXZ\0", "xz", Nature.COMPRESSED),
    (0, b"BZh", "bzip2", Nature.COMPRESSED),
    (0, b"\x04\x22\x4d\x18", "lz4", Nature.COMPRESSED),
    (0, b"7z\xbc\xaf\x27\x1c", "7z", Nature.COMPRESSED),
    (0, b"PK\x03\x04", "zip", Nature.COMPRESSED),
    (0, b"Rar!\x1a\x07", "rar", Nature.COMPRESSED),
    (0, b"\xff\xd8\xff", "jpeg", Nature.MEDIA),
    (0, b"\x89PNG\r\n\x1a\n", "png", Nature.MEDIA),
    (0, b"GIF8", "gif", Nature.MEDIA),
    (8, b"WEBP", "webp", Nature.MEDIA),
    (4, b"ftyp", "mp4", Nature.MEDIA),
    (0, b"\x1a\x45\xdf\xa3", "matroska", Nature.MEDIA),
    (0, b"OggS", "ogg", Nature.MEDIA),
    (0, b"fLaC", "flac", Nature.MEDIA),
    (0, b"ID3", "mp3", Nature.MEDIA),
    (0, b"SQLite format 3\0", "sqlite", Nature.PLAIN),
    (0, b"\x7fELF", "elf", Nature.PLAIN),
    (0, b"%PDF-", "pdf", Nature.PLAIN),
    (0, b"PGDMP", "pg_dump", Nature.PLAIN),
    (0, b"QFI\xfb", "qcow2", Nature.PLAIN),
    (257, b"ustar", "tar", Nature.PLAIN),
)
# Zips by another name are told apart: nobody would unpack them to store them.
_ZIP_EXTENSIONS: Final = frozenset(
    (".jar", ".whl", ".apk", ".docx", ".xlsx", ".pptx", ".odt", ".ods", ".epub")
)
_EXTENSION: Final = re.compile(rb"\.[0-9A-Za-z_+-]+$")


def kind_of(key: bytes, head: bytes | memoryview) -> Kind:
    """`head`: the first bytes, HEAD_BYTES of them if there are."""
    for name, pattern in _REPOSITORIES:
        if pattern.search(key):
            return Kind(name, Nature.REPOSITORY)
    extension = _extension(key)
    for offset, magic, name, nature in _MAGICS:
        if bytes(head[offset : offset + len(magic)]) == magic:
            if name == "zip" and extension in _ZIP_EXTENSIONS:
                return Kind(extension, Nature.MEDIA)
            return Kind(name, nature)
    return Kind(extension or "no extension", Nature.PLAIN)


def _extension(key: bytes) -> str:
    name = key.rpartition(b"/")[2]
    found = _EXTENSION.search(name, 1)  # a dot file has none
    if found is None or len(found[0]) > MAX_EXTENSION_BYTES:
        return ""
    return found[0].decode("ascii").lower()


def top_folder(key: bytes) -> str:
    """The first part of a key, with its slash; "./" for what lies in none. Not UTF-8: escaped."""
    folder, slash, _ = key.partition(b"/")
    return folder.decode(errors="backslashreplace") + "/" if slash else "./"
