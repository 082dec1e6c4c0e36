"""What a source or a target of a move is asked, and the words for it. No I/O here.

Methods of places block and are called in threads, several at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaultaire.s3.checksums import Algorithm, ChecksumType

WINDOW_BYTES = 8 << 20  # what is fetched by one request; what fits into one needs no second


class MovingError(Exception):
    """Base. The message says what failed where; of one object unless it is a PlaceError."""


class PlaceError(MovingError):
    """The place as a whole cannot be used: wrong credentials, no such bucket, no such server. With the next step."""


class ObjectError(MovingError):
    """This object cannot be moved; others may."""


class Transient(ObjectError):
    """The same request may succeed later."""

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Changed(ObjectError):
    """The object is not any more what the listing said; it is to be looked at again."""


class Gone(Changed):
    """It was deleted meanwhile."""


class WrongBytes(ObjectError):
    """The bytes are not what the source itself says they are."""


class Entry(NamedTuple):
    """One version in a place, as a listing shows it."""

    key: bytes
    size: int
    etag: str  # without quotes; "": unknown, or a delete marker
    modified_ms: int
    version_id: str | None = None  # of the place; None: whatever is current
    delete_marker: bool = False

    @property
    def null_version(self) -> bool:
        return self.version_id == "null"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What an object carries beside its bytes."""

    size: int
    etag: str
    modified_ms: int
    fields: Mapping[bytes, str]  # headers as on the wire: lower-case names, Latin-1 text
    checksum: tuple[Algorithm, ChecksumType, str] | None = None  # what the place says of the whole object
    tag_count: int = 0
    etag_is_md5: bool = (
        True  # False: encrypted with a key of its own, or a place whose ETags are something else
    )
    part_sizes: tuple[int, ...] = ()  # of an object whose ETag is "digest-N"; (): unknown

    def with_tag_count(self, count: int) -> Attributes:
        return replace(self, tag_count=max(self.tag_count, count))

    def with_parts(self, sizes: Sequence[int]) -> Attributes:
        return replace(self, part_sizes=tuple(sizes))


class Source(Protocol):
    """Where an import reads."""

    @property
    def url(self) -> str: ...

    def pages(self, token: str | None, *, versions: bool) -> tuple[Sequence[Entry], str | None]:
        """One page of the listing, and the token of the next (None: that was the last). Keys ascend.

        With `versions`: all of a key stand together, the newest first. Raises PlaceError, Transient.
        """
        ...

    def fetch(self, entry: Entry, start: int, stop: int) -> tuple[Attributes, bytes]:
        """Bytes [start, stop) of exactly this version, and its attributes. Raises Changed, ObjectError, Transient."""
        ...

    def look(self, entry: Entry) -> Attributes:
        """The attributes alone, as the object is now. Raises Gone, ObjectError, Transient."""
        ...

    def tags(self, entry: Entry) -> tuple[tuple[str, str], ...]:
        """Raises ObjectError, Transient."""
        ...

    def part_sizes(self, entry: Entry, attributes: Attributes, *, exact: bool) -> tuple[int, ...]:
        """Of a multipart object; () if the place does not tell. `exact`: ask for each part."""
        ...


class Notes(Protocol):
    """Where a place reports what it left out (`vaultaire.moving.report`)."""

    def note(self, what: str, count: int = 1) -> None: ...
