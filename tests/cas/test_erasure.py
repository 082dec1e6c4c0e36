"""The code brings back what was lost: against a second, slow implementation, and for every pattern of a small one."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.erasure import combine, invert, multiply, parity_matrix, recovery_matrix

BLOCK = 64


def slow_parity(data: list[bytes], parity: int) -> list[bytes]:
    """By the definition in cas/FORMAT.md: one symbol at a time, in another arithmetic (logarithms)."""
    logarithm, power = {}, [1] * 510
    for n in range(1, 510):
        power[n] = power[n - 1] << 1 ^ (0x11D if power[n - 1] & 0x80 else 0)
    for n in range(255):
        logarithm[power[n]] = n
    out = []
    for j in range(parity):
        block = bytearray(len(data[0]))
        eighth = len(block) // 8
        for at, bit in itertools.product(range(eighth), range(8)):
            symbol = 0
            for r, piece in enumerate(data):
                value = sum((piece[plane * eighth + at] >> bit & 1) << plane for plane in range(8))
                if value:
                    y = 255 - r
                    factor = logarithm[y] - logarithm[j ^ y]
                    symbol ^= power[(logarithm[value] + factor) % 255]
            for plane in range(8):
                block[plane * eighth + at] |= (symbol >> plane & 1) << bit
        out.append(bytes(block))
    return out


def test_field():
    assert multiply(0x80, 2) == 0x1D
    assert all(multiply(a, invert(a)) == 1 for a in range(1, 256))


def test_parity_is_what_the_format_says():
    data = [random.Random(n).randbytes(BLOCK) for n in range(5)]
    assert combine(parity_matrix(5, 3), data, 1, BLOCK) == slow_parity(data, 3)


def test_first_parity_piece_is_the_xor():
    data = [random.Random(n).randbytes(BLOCK) for n in range(9)]
    (parity,) = combine(parity_matrix(9, 1), data, 1, BLOCK)
    expected = 0
    for piece in data:
        expected ^= int.from_bytes(piece, "big")
    assert parity == expected.to_bytes(BLOCK, "big")


@pytest.mark.parametrize(("data", "parity"), [(5, 3), (1, 1), (1, 4), (4, 2)])
def test_every_pattern_of_loss_is_made_good(data: int, parity: int):
    pieces = [random.Random(n).randbytes(BLOCK) for n in range(data)]
    stored = combine(parity_matrix(data, parity), pieces, 1, BLOCK)
    for count in range(1, min(data, parity) + 1):
        for lost in itertools.combinations(range(data), count):
            left = [b"" if n in lost else piece for n, piece in enumerate(pieces)]
            for used in itertools.combinations(range(parity), count):
                matrix = recovery_matrix(data, lost, used)
                mended = combine(matrix, [*left, *(stored[j] for j in used)], 1, BLOCK)
                assert mended == [pieces[n] for n in lost]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_loss_up_to_the_parity_is_made_good(data):
    count = data.draw(st.integers(1, 240))
    parity = data.draw(st.integers(1, min(16, 256 - count)))
    blocks = data.draw(st.integers(1, 3))
    rng = random.Random(data.draw(st.integers(0, 9)))
    pieces = [rng.randbytes(blocks * BLOCK) for _ in range(count)]
    stored = combine(parity_matrix(count, parity), pieces, blocks, BLOCK)
    lost = sorted(rng.sample(range(count), rng.randint(1, min(count, parity))))
    used = rng.sample(range(parity), len(lost))
    left = [b"" if n in lost else piece for n, piece in enumerate(pieces)]
    mended = combine(recovery_matrix(count, lost, used), [*left, *(stored[j] for j in used)], blocks, BLOCK)
    assert mended == [pieces[n] for n in lost]


def test_short_pieces_count_as_filled_up_with_zeros():
    data = [bytes(range(256)), b"x" * 100, b""]
    filled = [piece.ljust(256, b"\0") for piece in data]
    matrix = parity_matrix(3, 2)
    assert combine(matrix, data, 4, BLOCK) == combine(matrix, filled, 4, BLOCK)


@pytest.mark.parametrize(("data", "parity"), [(0, 1), (1, 0), (250, 7)])
def test_too_many_pieces_are_refused(data: int, parity: int):
    with pytest.raises(ValueError, match="pieces"):
        parity_matrix(data, parity)
