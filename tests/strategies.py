"""Shared hypothesis strategies: object keys that are hard for a segmented codec, and markers around them."""

from __future__ import annotations

from hypothesis import strategies as st

from index.keys import MAX_OBJECT_KEY_BYTES

# The bytes that matter: escape and terminator bytes, the greatest byte, a delimiter, and two plain ones.
BYTES = b"\x00\x01\xff/ab"

short_bytes = st.lists(st.sampled_from(BYTES), max_size=6).map(bytes)

# Around the segment's border (400), two segments (800), and the longest key; of plain bytes, of bytes that double
# when escaped (200 of them fill a segment), and with one plain byte before them, so that a pair meets the border.
stems = st.builds(
    lambda first, byte, length: (first + bytes((byte,)) * length)[:1023],
    st.sampled_from((b"", b"a", b"a/")),
    st.sampled_from(b"\x00a\xff"),
    st.sampled_from((0, 0, 0, 1, 198, 199, 200, 201, 398, 399, 400, 401, 799, 800, 801, 1022, 1023)),
)

bounds = st.builds(bytes.__add__, stems, short_bytes)  # any length: markers and prefixes
object_keys = bounds.filter(bool).map(lambda key: key[:MAX_OBJECT_KEY_BYTES])
