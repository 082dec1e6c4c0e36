"""The parts that all records share: a fixed head, then fields (tag u8, length u32, bytes), all big-endian. Pure.

    0  kind u8    which record it is (magic)
    1  version u8 another version of the fixed head: refused
    2  head length u8: a longer head than known may follow the known one; its excess is skipped
    3  flags u8   incompatible: an unknown bit is refused
    4  flags u8   compatible: an unknown bit is ignored

Fields follow in strictly ascending order of tags. An unknown tag from `OPTIONAL_TAG` up is skipped, below it the
record is refused: a writer decides by the tag whether older readers may ignore its field. What is skipped is lost
when the record is written again.

Every damage is reported as CorruptRecord; nothing else is raised while decoding but UnsupportedRecord.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from index.errors import CorruptRecord, UnsupportedRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Pairs = tuple[tuple[str, str], ...]

OPTIONAL_TAG: Final = 128
_FIELD: Final = struct.Struct(">BI")
_NAME: Final = struct.Struct(">H")
_TEXT: Final = struct.Struct(">I")


class _Translation:
    """A `with` that turns foreign exceptions into ours; a class, as a generator costs a microsecond per record."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass


class encoding(_Translation):  # reads as a clause: `with encoding("part"):`
    """What packing raises for a field out of its range is a caller's mistake: ValueError."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, struct.error):
            raise ValueError(f"a field of this {self.name} record is out of range: {error}") from error


class decoding(_Translation):
    """What decoding damaged bytes raises (UnicodeDecodeError is a ValueError) is a CorruptRecord."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (ValueError, LookupError, struct.error)):
            raise CorruptRecord(self.name, str(error)) from error


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of record: `head` holds the five bytes above and the kind's own fixed fields."""

    name: str  # for messages
    kind: int
    version: int
    head: struct.Struct
    flags: int  # the incompatible flags that are understood
    tags: frozenset[int]

    def refuse(self, value: bytes) -> None:
        """Say precisely why a head cannot be decoded; return if it can."""
        if len(value) < self.head.size:
            raise CorruptRecord(self.name, f"{len(value)} bytes, its head alone has {self.head.size}")
        if value[0] != self.kind:
            raise CorruptRecord(self.name, f"kind {value[0]} instead of {self.kind}")
        if value[1] != self.version:
            raise UnsupportedRecord(self.name, f"version {value[1]} instead of {self.version}")
        if not self.head.size <= value[2] <= len(value):
            raise CorruptRecord(self.name, f"head length {value[2]}, {len(value)} bytes in all")
        if value[3] & ~self.flags:
            raise UnsupportedRecord(self.name, f"flags {value[3]:#04x}")

    def encode_fields(self, fields: Iterable[tuple[int, bytes | None]]) -> bytes:
        """The caller gives them in ascending order of tags; None is left out."""
        parts: list[bytes] = []
        for tag, field in fields:
            if field is not None:
                parts += (_FIELD.pack(tag, len(field)), field)
        return b"".join(parts)

    def decode_fields(self, value: bytes, position: int) -> dict[int, bytes]:
        """The known fields from `position` to the end of `value`, by tag."""
        fields: dict[int, bytes] = {}
        end, last = len(value), 0
        while position < end:
            if end - position < _FIELD.size:
                raise CorruptRecord(self.name, "cut inside a field's head")
            tag, length = _FIELD.unpack_from(value, position)
            start = position + _FIELD.size
            position = start + length
            if position > end:
                raise CorruptRecord(self.name, f"field {tag} reaches {position - end} bytes past the end")
            if tag <= last:
                raise CorruptRecord(self.name, f"field {tag} after field {last}")
            last = tag
            if tag in self.tags:
                fields[tag] = value[start:position]
            elif tag < OPTIONAL_TAG:
                raise UnsupportedRecord(self.name, f"field {tag}")
        return fields


def required(fields: Mapping[int, bytes], tag: int) -> bytes:
    """Raises LookupError; use inside `decoding`."""
    field = fields.get(tag)
    if field is None:
        raise LookupError(f"field {tag} is missing")
    return field


def encode_text(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def decode_text(field: bytes | None) -> str | None:
    """Raises UnicodeDecodeError; use inside `decoding`."""
    return None if field is None else field.decode()


def encode_pairs(pairs: Pairs) -> bytes | None:
    """name length u16, name, text length u32, text; for each pair in the given order. UTF-8. No pairs: None."""
    parts: list[bytes] = []
    for name, text in pairs:
        raw_name, raw_text = name.encode(), text.encode()
        parts += (_NAME.pack(len(raw_name)), raw_name, _TEXT.pack(len(raw_text)), raw_text)
    return b"".join(parts) or None


def decode_pairs(field: bytes | None) -> Pairs:
    """Raises ValueError or struct.error; use inside `decoding`."""
    pairs: list[tuple[str, str]] = []
    position, end = 0, len(field or b"")
    while field and position < end:
        (name_bytes,) = _NAME.unpack_from(field, position)
        name_end = position + _NAME.size + name_bytes
        (text_bytes,) = _TEXT.unpack_from(field, name_end)
        text_start = name_end + _TEXT.size
        position_next = text_start + text_bytes
        if position_next > end:
            raise ValueError("a pair reaches past the end of its field")
        pairs.append(
            (field[position + _NAME.size : name_end].decode(), field[text_start:position_next].decode())
        )
        position = position_next
    return tuple(pairs)
