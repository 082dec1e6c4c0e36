"""The default cut rules together, pinned: if one of these vectors changes, every store stops finding what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3
from hypothesis import given, settings

from cas.chunk import DEFAULT_CDC, Identity
from cas.chunker import Chunker, CutRules
from cas.cutter import Cutter
from tests.cas import tars
from tests.cas.support import REAL, contents

if TYPE_CHECKING:
    from collections.abc import Sequence

VECTORS = Path(__file__).parent / "golden" / "cuts.json"
OLD = Identity(b"S" * 16, b"K" * 32, tar=0, uniform=0)


def noise(length: int, name: str) -> bytes:
    return blake3(name.encode()).digest(length=length)


def inputs() -> dict[str, bytes]:
    """No call of `random`: these bytes are the same for ever."""
    files = [
        noise(9_000, "small"),
        b"%d\n" * 3_000 % tuple(range(3_000)),
        noise(300_000, "photo"),
        b"",
        b"x" * 4_096,
    ]
    numbers = b"".join(b"%d\n" % n for n in range(50_000))
    tar = b"".join(
        tars.member(data, f"file {n}", mtime=n) for n, data in enumerate([*files, numbers, files[1]])
    )
    tar += bytes(10_240)
    damaged = bytearray(tar)
    damaged[512 + 9_216 + 130] ^= 1
    sparse = tars.header("sparse", 8_192, b"S", extended=True) + bytes(512) + numbers[:8_192]
    wide = (
        tars.header("wide", size_field=b"\x80" + (30_000).to_bytes(11, "big")) + numbers[:30_000] + bytes(208)
    )
    return {
        "noise": noise(6 << 20, "vaultaire cut vectors"),
        "numbers": numbers,
        "numbers between noise": noise(400_000, "a") + numbers + noise(2_300_000, "b"),
        "noise that repeats": noise(300_000, "period") * 6,
        "tar": tar,
        "tar behind one byte": b"!" + tar,
        "tar behind numbers": numbers + tar,
        "damaged tar": bytes(damaged),
        "tar without its end": tar[:400_000],
        "tar in a tar": tars.member(tar, "inner.tar") + tar,
        "sparse, extended, wide": tars.member(b"27 path=x\n", kind=b"x") + sparse + wide + bytes(1_024),
    }


INPUTS = inputs()


def lengths(identity: Identity, blocks: Sequence[bytes | memoryview]) -> list[int]:
    cutter = Cutter.of(identity)
    found = [len(chunk) for block in blocks for chunk in cutter.feed(block)]
    return found + [len(chunk) for chunk in cutter.finish()]


@pytest.mark.parametrize("name", INPUTS)
def test_default_rules_cut_as_they_always_did(name: str):
    assert lengths(REAL, [INPUTS[name]]) == json.loads(VECTORS.read_text())[name]


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("step", [10_007, 65_536, 1 << 20])
def test_blocks_of_any_size_give_the_golden_chunks(name: str, step: int):
    data = INPUTS[name]
    blocks = [data[at : at + step] for at in range(0, len(data), step)]
    assert lengths(REAL, blocks) == json.loads(VECTORS.read_text())[name]
    assert lengths(REAL, [memoryview(block) for block in blocks]) == json.loads(VECTORS.read_text())[name]


def test_a_tar_behind_one_byte_shares_its_chunks():
    def chunks(data: bytes) -> set[bytes]:
        cutter = Cutter.of(REAL)
        return {bytes(chunk) for chunk in cutter.feed(data) + cutter.finish()}

    new = chunks(INPUTS["tar behind one byte"]) - chunks(INPUTS["tar"])
    assert sum(map(len, new)) == 1


@settings(deadline=None)
@given(contents)
def test_without_headers_and_noise_nothing_changes(data: bytes):
    chunker = Chunker(CutRules.parse(DEFAULT_CDC))
    plain = [len(chunk) for chunk in chunker.feed(data) + chunker.finish()]
    assert lengths(OLD, [data]) == plain
    assert lengths(Identity(b"S" * 16, b"K" * 32, uniform=0), [data]) == plain


if __name__ == "__main__":  # makes the vectors anew: only for rules that no store has yet
    rows = [f"  {json.dumps(name)}: {json.dumps(lengths(REAL, [data]))}" for name, data in INPUTS.items()]
    VECTORS.write_text("{\n" + ",\n".join(rows) + "\n}\n")
