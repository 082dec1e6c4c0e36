"""A part of a pack, held in memory: is every byte of it what was written?

For who copies packs piece by piece (a backup): what is passed on must be sound, or known not to be. Needs no key, reads
nothing else. Chunk ids are not recomputed: the frames' own checksums find damage by chance, which is what this is for.
"""

from __future__ import annotations

from cas.errors import CorruptFrame, UnsupportedFormat
from cas.frame import HEAD, check_payload, decode_header, header_length
from cas.pack import FOOTER_MAGIC, MAX_HEADER_BYTES, PackHeader, read_footer


def first_damage(pack: int, data: memoryview, start: int) -> str | None:
    """What is wrong with `data`, which begins at `start` (0, or a former durable length) of a pack; None if nothing.

    It must consist of the pack's header (from 0 only), whole frames, and possibly a footer that ends it.
    """
    offset = 0
    try:
        if start == 0:
            header, offset = PackHeader.decode(bytes(data[:MAX_HEADER_BYTES]))
            if header.pack != pack:
                raise CorruptFrame(f"its header says it is pack {header.pack:016x}")
        while offset < len(data) and bytes(data[offset : offset + 4]) != FOOTER_MAGIC:
            frame = decode_header(data[offset : offset + header_length(data[offset : offset + HEAD.size])])
            payload = offset + frame.header_length
            check_payload(frame, data[payload : payload + frame.stored_length])
            offset += frame.total_length
        if offset < len(data):
            footer = read_footer(lambda at, length: bytes(data[at - start :][:length]), start + len(data))
            if footer is None or footer[0] != start + offset:
                raise CorruptFrame("the footer is not intact")
    except (CorruptFrame, UnsupportedFormat) as error:
        return f"damaged at offset {start + offset}: {error}"
    return None
