"""tar-1: where a stream is cut besides its content, because a tar's member begins or ends there. Sans-io.

A tar puts a header that changes (times, owners) before every member that does not. Cut at the borders of members of
4 KiB and more, an unchanged file gives the same chunks in every archive, whatever stands around it. The rule is in
cas/FORMAT.md; in short: from one header the next is computed, members of `MIN_MEMBER_BYTES` end up in segments of
their own, and where no header is (before the first, behind the last, after damage) the next one is searched for, at
any byte. A wrong header costs dedup, never a byte: all that comes out is the input, in pieces.

Any split of the input gives the same cuts. Memory: less than 512 bytes between feeds, and one cut that lies ahead.

Cost, measured on one core of a busy machine where FastCDC did 1.3 GB/s: 3.5 to 5.7 GB/s on noise and text, 1.9 on zeros
and executables, 1.6 to 2 in tars of members of 17 KB.

Hostile input. Sizes may be anything up to 2^88: they are only added. A walk from header to header takes 512 bytes at
least per step, of one to two microseconds. The search runs in numpy, and what it finds is examined at most once per
`EXAMINED_EVERY_BYTES` beyond a burst: the rest is passed over, which costs dedup of an archive that nobody makes. The
worst patterns known (headers or magics without end) cost 3 ms per MiB, what storing a MiB of noise costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Generator

    Bytes = bytes | memoryview
    Piece = tuple[memoryview, bool]  # bytes of the stream; whether a segment ends behind them

MIN_MEMBER_BYTES: Final = 4096  # smaller ones are not worth chunks of their own: content cuts them
RECORD: Final = 512  # bytes of a header, and what members are filled up to
_MAGIC: Final = b"ustar"
_BEFORE: Final = 257  # bytes of the header before it
_MAGIC_END: Final = _BEFORE + len(_MAGIC)
_LINK_NAME_BYTES: Final = 100  # right before the magic; of a header that is searched for it is empty
_NO_LINK: Final = bytes(_LINK_NAME_BYTES)
_SOUGHT: Final = _NO_LINK + _MAGIC
_EXTENSIONS: Final = b"xgLKXVN"  # headers whose data speaks of the next member
_EMPTY: Final = b"123456"  # links, devices, directories, pipes: no data whatever the size says
_SPARSE: Final = ord("S")
_IS_EXTENDED_AT: Final = 482  # old GNU sparse: not 0 if blocks of the map follow the header
_MORE_AT: Final = 504  # of such a block: not 0 if another one follows
_SPACES: Final = 8 * ord(" ")  # what the checksum's own field counts for

EXAMINED_EVERY_BYTES: Final = 16 << 10
_BURST_BYTES: Final = 64 * EXAMINED_EVERY_BYTES

_FEW_BYTES: Final = 2048
_MANY_BYTES: Final = 64 << 10
_WORD: Final = 8
_ZERO_WORDS: Final = b"\1" * ((_LINK_NAME_BYTES - _WORD + 1) // _WORD)

_ANY, _SPARSE_MAP, _DATA, _GAP = range(4)


def padded(size: int) -> int:
    return (size + RECORD - 1) // RECORD * RECORD


def header_size(header: bytes) -> int | None:
    """The size field of 512 bytes that have the magic; None: they are no header. Does not look at the checksum."""
    if header[_BEFORE:_MAGIC_END] != _MAGIC:
        return None
    if header[124] == 0x80:
        return int.from_bytes(header[125:136], "big")
    return _octal(header[124:136])


def has_checksum(header: bytes) -> bool:
    """Whether the checksum of these 512 bytes is right, with bytes taken as unsigned or (old tars) signed."""
    wanted = _octal(header[148:156])
    if wanted is None:
        return False
    field = sum(header[148:156])
    if wanted == sum(header) - field + _SPACES:
        return True
    signed = np.frombuffer(header, np.int8)
    return wanted == int(signed.sum()) - int(signed[148:156].sum()) + _SPACES


def _octal(field: bytes) -> int | None:
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():  # int() would take signs and underscores
        return None
    try:
        return int(digits, 8)
    except ValueError:
        return None


class TarCuts:
    """One stream. One thread at a time."""

    def __init__(self) -> None:
        self._state = _ANY
        self._at = 0  # where the state looks next; all before it is decided
        self._size = 0  # of the member whose data comes, padded
        self._charged = 0  # examinations are paid for up to this offset
        self._cuts: list[int] = []  # offsets in the stream, ascending; not given out yet
        self._kept = b""  # what is not decided yet, up to what was fed
        self._end = 0  # offset behind what was fed

    @property
    def held_bytes(self) -> int:
        return len(self._kept)

    def feed(self, block: Bytes) -> list[Piece]:
        """All that is decided now, as views onto `block` and onto bytes of their own, in order.

        Bytes are walked three times as fast as views are.
        """
        begin, self._end = self._end, self._end + len(block)
        kept = self._kept
        if kept:
            self._walk(kept + bytes(block[:RECORD]), begin - len(kept), begin)
        if self._at >= begin:
            self._walk(block, begin, self._end)
        decided = min(self._at, self._end)
        pieces: list[Piece] = []
        if kept:
            self._give(memoryview(kept), begin - len(kept), min(decided, begin), pieces)
        self._give(memoryview(block), begin, decided, pieces)
        if decided >= begin:
            self._kept = bytes(block[decided - begin :])
        else:
            self._kept = kept[len(kept) - (begin - decided) :] + bytes(block)
        return pieces

    def finish(self) -> list[Piece]:
        """What is left, at the end of the stream."""
        kept, self._kept = self._kept, b""
        if self._state == _ANY or (self._state == _DATA and self._size >= MIN_MEMBER_BYTES):
            self._cuts.append(self._at)
        self._state = _GAP
        pieces: list[Piece] = []
        self._give(memoryview(kept), self._end - len(kept), self._end, pieces)
        return pieces

    def _give(self, source: memoryview, origin: int, stop: int, pieces: list[Piece]) -> None:
        """The bytes of `source`, whose first has offset `origin`, up to `stop`."""
        at = origin
        cuts = self._cuts
        while cuts and cuts[0] <= stop:
            cut = cuts.pop(0)
            pieces.append((source[at - origin : cut - origin], True))
            at = cut
        if at < stop:
            pieces.append((source[at - origin : stop - origin], False))

    def _walk(self, data: Bytes, origin: int, limit: int) -> None:
        """Go on as far as `data`, whose first byte has offset `origin`, shows what is before `limit`."""
        last = origin + len(data) - RECORD
        while self._at < limit:
            if self._state == _GAP:
                if not self._search(data, origin, limit):
                    return
            elif self._at > last:
                return
            else:
                begin = self._at - origin
                if self._state == _DATA and data[begin + _BEFORE : begin + _MAGIC_END] != _MAGIC:
                    self._skip_data()
                else:
                    self._step(bytes(data[begin : begin + RECORD]))

    def _step(self, record: bytes) -> None:
        """Take in the 512 bytes at `_at`."""
        if self._state == _ANY:
            self._take_header(record)
        elif self._state == _SPARSE_MAP:
            self._at += RECORD
            if not record[_MORE_AT]:
                self._state = _DATA
        elif self._is_member(record, self._at):
            self._state = _ANY  # a tar in a tar: its members are ours
        else:
            self._skip_data()

    def _skip_data(self) -> None:
        if self._size >= MIN_MEMBER_BYTES:
            self._cuts += (self._at, self._at + self._size)
        self._at += self._size
        self._state = _ANY

    def _take_header(self, record: bytes) -> None:
        size = header_size(record)
        # A sum costs five times what the rest does, so only a header that leads far has to prove itself.
        if size is None or (size > MIN_MEMBER_BYTES - RECORD and not has_checksum(record)):
            self._cuts.append(self._at)
            self._state = _GAP
            return
        self._at += RECORD
        kind = record[156]
        if kind in _EXTENSIONS:
            self._at += padded(size)
        elif size and kind not in _EMPTY:
            self._size = padded(size)
            self._state = _SPARSE_MAP if kind == _SPARSE and record[_IS_EXTENDED_AT] else _DATA

    def _is_member(self, record: bytes, at: int) -> bool:
        """Whether a header is at `at`, though none was to be expected there. What is examined too often is none."""
        if self._charged - at > _BURST_BYTES or header_size(record) is None:
            return False
        self._charged = max(self._charged, at) + EXAMINED_EVERY_BYTES
        return has_checksum(record)

    def _search(self, data: Bytes, origin: int, limit: int) -> bool:
        """Whether a header was found; else `_at` is the first offset that is still in doubt."""
        begin = max(self._at, self._charged - _BURST_BYTES)
        places = find_magic(data, begin - origin, limit - origin)
        place = next(places, None)
        while place is not None:
            at = origin + place
            if place + RECORD > len(data):
                self._at = at
                return False
            if self._is_member(bytes(data[place : place + RECORD]), at):
                self._at = at
                self._cuts.append(at)
                self._state = _ANY
                return True
            try:
                place = places.send(self._charged - _BURST_BYTES - origin)
            except StopIteration:
                break
        in_doubt = len(data) - _BEFORE - _WORD
        self._at = max(self._at, min(limit, origin + in_doubt))
        return False


def find_magic(data: Bytes, start: int, stop: int) -> Generator[int, int | None, None]:
    """Where, in [start, stop), 512 bytes begin that have an empty link name and the magic, ascending.

    Not those of which `data` ends less than three bytes behind the magic. What is sent says where to go on, if that is
    further. No Python per byte or per magic, but for those behind 96 zero bytes: one in 100 bytes at most.
    """
    stop = min(stop, len(data) - _BEFORE - _WORD)
    size = _FEW_BYTES
    while start < stop:
        end = min(start + size, stop)
        search = _search_few if size == _FEW_BYTES else _search_many
        resume = start
        for near in search(data, start + _BEFORE, end + _BEFORE):
            if near + _WORD <= resume + _BEFORE:
                continue
            word = bytes(data[near : near + _WORD])
            magic = near + _WORD - len(word.lstrip(b"\0"))
            place = magic - _BEFORE
            if resume <= place < end and data[magic - len(_NO_LINK) : magic + len(_MAGIC)] == _SOUGHT:
                resume = max(place + 1, (yield place) or 0)
        start = max(end, resume)
        size = min(2 * size, _MANY_BYTES)  # who finds soon has not looked at much for nothing


def _search_few(data: Bytes, start: int, stop: int) -> list[int]:
    """Near which magics begin, in [start, stop): for so few bytes that numpy's calls cost more than the search."""
    window = bytes(data[start - len(_NO_LINK) : stop + len(_MAGIC) - 1])
    places = []
    place = window.find(_SOUGHT)
    while place >= 0:
        places.append(start + place)
        place = window.find(_SOUGHT, place + len(_SOUGHT))
    return places


def _search_many(data: Bytes, start: int, stop: int) -> list[int]:
    """The same, by words of 8 bytes: 100 zero bytes hold 11 words, and the magic begins in the one behind them."""
    first = (start - len(_NO_LINK)) // _WORD
    words = np.frombuffer(data, np.dtype("<u8"), (stop - 1) // _WORD + 1 - first, first * _WORD)
    if _ZERO_WORDS not in (words == 0).tobytes():
        return []
    others = np.flatnonzero(words)
    ends = others[np.diff(others, prepend=-1) > len(_ZERO_WORDS)]
    values = words[ends]
    # Moved down by its lowest bit, which is one of "u", the word begins with this byte.
    lowest = values & (~values + np.uint64(1))
    ends = ends[(values // lowest & np.uint64(0xFF)) == _MAGIC[0]]
    return cast("list[int]", ((ends + first) * _WORD).tolist())
