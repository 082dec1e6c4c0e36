"""What the chunk store raises. Each class is one condition that a caller may act on, and carries its data.

Integrity errors (Corrupt*, Missing*) are never caught below the service: wrong bytes are never served. Foreign
exceptions (OSError, zstd) are translated once, at the border, with `from`. Programming errors (an ingest fed after
`finish`, a publication applied before `sync`) are RuntimeError and not part of this family.
"""

from __future__ import annotations


class CasError(Exception):
    """Base of everything that the chunk store raises on purpose."""


class UnsupportedFormat(CasError):
    """Written by a newer or a different program: refused rather than guessed at."""


class CorruptFrame(CasError):
    """The bytes of one frame, seen alone, are damaged. Whoever knows the pack turns it into one of the next two."""


class CorruptManifest(CasError):
    """A manifest or one of its nodes is not what was written, or its parts do not fit together."""


class CorruptChunk(CasError):
    """The stored bytes of a chunk do not have its id: they are not served. The pack needs repair from a copy."""

    def __init__(self, pack: int, frame: int, chunk: bytes, reason: str) -> None:
        super().__init__(f"chunk {chunk.hex()} is damaged in pack {pack:016x}, frame at {frame}: {reason}")
        self.pack = pack
        self.frame = frame
        self.chunk = chunk
        self.reason = reason


class MissingChunk(CasError):
    """A manifest names a chunk that has no placement, or whose pack is not there (`pack` says which)."""

    def __init__(self, chunk: bytes, pack: int | None = None, frame: int | None = None) -> None:
        where = "has no placement" if pack is None else f"is lost with pack {pack:016x}, frame at {frame}"
        super().__init__(f"chunk {chunk.hex()} {where}")
        self.chunk = chunk
        self.pack = pack
        self.frame = frame


class CorruptRow(CasError):
    """A row of the catalog cannot be decoded."""

    def __init__(self, table: str, key: bytes, reason: str) -> None:
        super().__init__(f"row {key.hex()} of {table} is damaged: {reason}")
        self.table = table
        self.key = key


class CorruptPack(CasError):
    """A pack is damaged below its durable length: it is left as it is, never cut."""

    def __init__(self, pack: int, offset: int, reason: str) -> None:
        super().__init__(f"pack {pack:016x} is damaged at offset {offset}: {reason}")
        self.pack = pack
        self.offset = offset
        self.reason = reason


class MissingPack(CasError):
    """The place for packs does not hold this one."""

    def __init__(self, pack: int) -> None:
        super().__init__(f"pack {pack:016x} is missing")
        self.pack = pack


class PackUnreadable(CasError):
    """The device failed to deliver bytes of a pack (EIO): not damage that was seen, but nothing to serve either."""

    def __init__(self, pack: int, reason: str) -> None:
        super().__init__(f"pack {pack:016x} cannot be read: {reason}")
        self.pack = pack
        self.reason = reason


class MissingSidecar(CasError):
    """There is no parity beside this pack: not made yet, turned off, or lost."""

    def __init__(self, pack: int) -> None:
        super().__init__(f"pack {pack:016x} has no parity sidecar")
        self.pack = pack


class Unmendable(CasError):
    """More of a pack is damaged than its parity can make good."""

    def __init__(self, pack: int, offset: int, reason: str) -> None:
        super().__init__(f"pack {pack:016x} cannot be mended at offset {offset}: {reason}")
        self.pack = pack
        self.offset = offset
        self.reason = reason


class PackGone(CasError):
    """At its commit an upload relies on a pack without a row. Nothing was committed; the client may try again."""

    def __init__(self, pack: int) -> None:
        super().__init__(f"pack {pack:016x} was removed while an upload relied on it")
        self.pack = pack


class NoSpace(CasError):
    """The place for packs is full. Nothing was appended; deleting and reading still work."""


class PlaceFailed(CasError):
    """No pack can be made, for another reason than space (permissions, too many files, no writer number)."""


class PackPoisoned(CasError):
    """A write or sync of this pack failed: what was appended after its durable length is lost and never retried.

    The pack is sealed at `durable` bytes; later appends go to a new pack, so the client may try again.
    """

    def __init__(self, pack: int, durable: int, reason: str) -> None:
        super().__init__(f"pack {pack:016x} is sealed at its last durable length {durable}: {reason}")
        self.pack = pack
        self.durable = durable
        self.reason = reason
