"""The chunked coding: any split gives the same body, and nothing is accepted that h11 would read otherwise."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.chunked import MAX_LINE_BYTES, MAX_TRAILER_BYTES, ChunkedDecoder, ChunkedError

NEXT = b"GET / HTTP/1.1\r\n"


def decode(pieces):
    """(body, done, what belongs to the next request), or None if it is refused."""
    decoder, body, unused = ChunkedDecoder(), b"", b""
    try:
        for piece in pieces:
            if decoder.done:
                unused += piece
                continue
            body += decoder.feed(piece)
    except ChunkedError:
        return None
    return body, decoder.done, decoder.unused + unused


def encode(chunks, extension=b"", trailers=b""):
    coded = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return coded + b"0\r\n" + trailers + b"\r\n"


def cut(data, cuts):
    ends = [*sorted(min(end, len(data)) for end in cuts), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


_chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
_cuts = st.lists(st.integers(0, 300), max_size=8)


@given(_chunks, _cuts)
def test_body_comes_out_whole_however_it_is_cut(chunks, cuts):
    data = encode(chunks, b";a=b", b"T: u\r\n") + NEXT
    assert decode(cut(data, cuts)) == (b"".join(chunks), True, NEXT)


def test_piece_inside_one_chunk_is_handed_over_uncopied():
    decoder = ChunkedDecoder()
    assert decoder.feed(b"100\r\n") == b""
    piece = b"x" * 0xFF
    assert decoder.feed(piece) is piece
    assert not decoder.done


@pytest.mark.parametrize(
    "data",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r\n0\n\r\n",
        b"3\r\nabc\r\n0\r\nT: u\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"\r\n3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"3_0\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"g\r\n",
        b"1" * 17 + b"\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3;a\x00b\r\nabc\r\n0\r\n\r\n",
        b"3;" + b"a" * MAX_LINE_BYTES + b"\r\n",
        b"3;" + b"a" * MAX_LINE_BYTES,  # refused while it still comes
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n T: folded\r\n\r\n",
        b"0\r\n" + b"T: u\r\n" * (MAX_TRAILER_BYTES // 4) + b"\r\n",
        b"0\r\nT: " + b"u" * MAX_TRAILER_BYTES,
    ],
)
def test_loose_or_boundless_framing_is_refused(data):
    assert decode([data]) is None
    assert decode([data[at : at + 1] for at in range(len(data))]) is None


def test_many_tiny_chunks_with_long_extensions_are_refused():
    assert decode([encode([b"x"] * 100, b";" + b"e" * 500)]) is None
    assert decode([encode([b"x"] * 5000, b"")]) is not None


_parts = st.sampled_from(
    [
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"3",
        b"a",
        b";x=y",
        b" ",
        b"T: u\r\n",
        b"5\r\nab",
        b"\x00",
    ]
)


@given(st.lists(_parts, max_size=8).map(b"".join), _cuts)
def test_what_is_accepted_h11_reads_the_same_way(data, cuts):
    ours = decode(cut(data, cuts))
    assert ours == decode([data])
    if ours is None or not ours[1]:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    connection.next_event()
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert (body, connection.trailing_data[0]) == (ours[0], ours[2])
