"""Reed-Solomon erasure coding over GF(2^8): parity from data, and lost data from what is left. Pure.

The code is systematic with a Cauchy matrix, so any `e` lost pieces of data come back from the others and any `e`
pieces of parity (Bloemer et al., "An XOR-Based Erasure-Resilient Coding Scheme", ICSI TR-95-048). It only fills in
pieces that are known to be lost: whoever calls finds those by their checksums, and checks what comes back.

Coefficient of data piece `r` in parity piece `j`: (255 - r) / (j XOR (255 - r)) in GF(2^8) modulo 0x11D; so parity
piece 0 is the XOR of the data. At most 256 pieces in all. A piece is a row of blocks; the eighths of a block are the
bit planes of its symbols (cas/FORMAT.md).

How it is computed: multiplying by a constant is a linear map of eight bits, that is, XORs of bit planes; sums of
planes come from two tables of 16. numpy does the XORs at memory speed and releases the GIL: 450 to 600 MB/s on one
core for 80 + 8 pieces. Rejected: zfec (GPL, no wheel for 3.14), reed-solomon-leopard (fastest by far, but no wheels
for 3.13 and 3.14), PyECLib (no wheels for macOS), galois (numba), reedsolo (pure Python), and the same XORs with
Python's long integers (180 MB/s, under the GIL).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cas.ports import Buffer

    Words = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]

MAX_PIECES: Final = 256  # data and parity together
BLOCK_UNIT: Final = 64  # block sizes are multiples of it: eight planes of whole words
_POLYNOMIAL: Final = 0x11D

Matrix = list[list[int]]  # one row per output, one column per input


def multiply(a: int, b: int) -> int:
    """The product in GF(2^8)."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= _POLYNOMIAL
        b >>= 1
    return product


@cache
def invert(a: int) -> int:
    """1 / a; `a` is not 0."""
    return next(b for b in range(1, 256) if multiply(a, b) == 1)


@cache
def coefficient(parity: int, data: int) -> int:
    """How much of data piece `data` is in parity piece `parity`."""
    y = 255 - data
    return multiply(y, invert(parity ^ y))


def parity_matrix(data: int, parity: int) -> Matrix:
    """`parity` pieces from `data` pieces. Raises ValueError if they are more than MAX_PIECES, or none."""
    if data < 1 or parity < 1 or data + parity > MAX_PIECES:
        raise ValueError(f"{data} + {parity} pieces are out of bounds")
    return [[coefficient(j, r) for r in range(data)] for j in range(parity)]


def recovery_matrix(data: int, lost: Sequence[int], parity: Sequence[int]) -> Matrix:
    """The `lost` data pieces from all data pieces (lost ones are not looked at), then the `parity` pieces.

    `lost` and `parity` are of one length, without repetition.
    """
    system = [[coefficient(j, r) for r in lost] for j in parity]
    solution = _inverse(system)
    present = [r not in lost for r in range(data)]
    rows = []
    for weights in solution:
        row = [
            _sum(multiply(w, coefficient(j, r)) for w, j in zip(weights, parity, strict=True))
            if present[r]
            else 0
            for r in range(data)
        ]
        rows.append(row + weights)
    return rows


def combine(matrix: Matrix, pieces: Iterable[Buffer], blocks: int, block_bytes: int) -> list[bytes]:
    """One output of `blocks` blocks per row of the matrix: the sum of row[i] times piece i.

    A piece that is shorter counts as filled up with zeros; none may be longer. `pieces` is walked once. Fastest with
    outputs of 128 to 256 KiB. Memory: the outputs twice, and about five pieces.
    """
    words = blocks * block_bytes // 64  # of a plane
    sums = np.zeros((len(matrix), 8, words), np.uint64)
    targets = [list(planes) for planes in sums]
    low, high = list(np.zeros((16, words), np.uint64)), list(np.zeros((16, words), np.uint64))
    for column, piece in enumerate(pieces):
        if not len(piece):
            continue
        _fill(low, high, _planes(piece, blocks, block_bytes))
        for row, planes in zip(matrix, targets, strict=True):
            for plane, mask in zip(planes, _masks(row[column]), strict=True):
                if mask & 15:
                    np.bitwise_xor(plane, low[mask & 15], out=plane)
                if mask >> 4:
                    np.bitwise_xor(plane, high[mask >> 4], out=plane)
    return [_joined(planes, blocks) for planes in sums]


def _planes(piece: Buffer, blocks: int, block_bytes: int) -> Words:
    """Eight rows: plane n is the n-th eighth of every block."""
    if len(piece) != blocks * block_bytes:
        piece = bytes(piece).ljust(blocks * block_bytes, b"\0")
    eighths = np.frombuffer(piece, np.uint64).reshape(blocks, 8, block_bytes // 64)
    return np.ascontiguousarray(eighths.swapaxes(0, 1)).reshape(8, -1)


def _joined(planes: Words, blocks: int) -> bytes:
    return planes.reshape(8, blocks, -1).swapaxes(0, 1).tobytes()


def _fill(low: list[Words], high: list[Words], planes: Words) -> None:
    """The sums of planes 0 to 3, and those of planes 4 to 7, by mask."""
    for table, first in ((low, 0), (high, 4)):
        for mask in range(1, 16):
            lowest = mask & -mask
            if mask == lowest:
                table[mask] = planes[first + lowest.bit_length() - 1]
            else:
                np.bitwise_xor(table[mask ^ lowest], table[lowest], out=table[mask])


@cache
def _masks(factor: int) -> tuple[int, ...]:
    """For each plane of the product the mask of the planes whose XOR it is."""
    columns = [multiply(factor, 1 << bit) for bit in range(8)]
    return tuple(sum((column >> bit & 1) << n for n, column in enumerate(columns)) for bit in range(8))


def _inverse(matrix: Matrix) -> Matrix:
    """By Gauss and Jordan. Every square part of a Cauchy matrix is regular, and scaled columns leave it so."""
    size = len(matrix)
    work = [row + [int(n == at) for n in range(size)] for at, row in enumerate(matrix)]
    for at in range(size):
        pivot = next(n for n in range(at, size) if work[n][at])
        work[at], work[pivot] = work[pivot], work[at]
        scale = invert(work[at][at])
        work[at] = [multiply(scale, value) for value in work[at]]
        for n in range(size):
            if n != at and (factor := work[n][at]):
                work[n] = [
                    value ^ multiply(factor, other) for value, other in zip(work[n], work[at], strict=True)
                ]
    return [row[size:] for row in work]


def _sum(values: Iterable[int]) -> int:
    total = 0
    for value in values:
        total ^= value
    return total
