"""What this machine can do at best: the kernels that every byte passes, alone in one thread, and a flush."""

from __future__ import annotations

import hashlib
import os
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import blake3
import zstandard

from cas.chunk import Identity
from cas.cutter import Cutter
from cas.tar_cuts import TarCuts
from tools.bench.report import Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tools.bench.report import Report

MIB = 1 << 20
BLOCK = 4 * MIB
CHUNK = 64 << 10


def measure(report: Report, work: Path, *, size: int, text: Path) -> None:
    section = report.section("The machine's own limits, one thread")
    block = random.Random(0).randbytes(BLOCK)
    with open(text, "rb") as file:
        file.seek(text.stat().st_size // 2)
        sample = file.read(BLOCK)
    pieces = [memoryview(block)[at : at + CHUNK] for at in range(0, BLOCK, CHUNK)]
    compressor = zstandard.ZstdCompressor(level=3)
    kernels: dict[str, Callable[[], object]] = {
        "MD5": lambda: hashlib.md5(block),
        "SHA-256": lambda: hashlib.sha256(block),
        "BLAKE3 of 64 KiB pieces": lambda: [blake3.blake3(piece).digest() for piece in pieces],
        "zstd 3, random": lambda: compressor.compress(block),
        "zstd 3, of the tar": lambda: compressor.compress(sample),
    }
    for name, kernel in kernels.items():
        report.add(section, Row(name, "MB/s", _rate(kernel, size)))
    inputs = {"random": block, "the tar": sample}
    for name, data in inputs.items():
        plain, both = (_cutter_rate(data, size, rules=rules) for rules in (0, 1))
        report.add(section, Row(f"cuts of {name}: all rules, FastCDC alone", "MB/s", both, plain))
        report.add(section, Row(f"scan for tars of {name}, FastCDC", "MB/s", _scan_rate(data, size), plain))
    for name, length in (("append of 4 KiB + fdatasync", 4096), ("append of 1 MiB + fdatasync", MIB)):
        report.add(section, Row(name, "ms", _flush(work / "flush", length) * 1000))


def _rate(kernel: Callable[[], object], size: int) -> float:
    kernel()
    rounds = max(1, size // BLOCK)
    began = time.perf_counter()
    for _ in range(rounds):
        kernel()
    return rounds * BLOCK / (time.perf_counter() - began) / 1e6


def _cutter_rate(block: bytes, size: int, *, rules: int) -> float:
    cutter = Cutter.of(replace(Identity.create(), tar=rules, uniform=rules))
    return _rate(lambda: cutter.feed(block), size)


def _scan_rate(block: bytes, size: int) -> float:
    scan = TarCuts()
    return _rate(lambda: scan.feed(block), size)


def _flush(path: Path, length: int) -> float:
    """Median seconds of one append that is flushed."""
    body = random.Random(1).randbytes(length)
    taken = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for _ in range(100):
            began = time.perf_counter()
            os.write(descriptor, body)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return sorted(taken)[len(taken) // 2]
