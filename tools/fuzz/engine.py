"""A small fuzzer of our own, for Pythons and machines without atheris: mutate, run, keep what reached new lines.

`fuzz` runs one target (tools/fuzz/targets) for a time or a number of inputs, from a seed: the same seed, corpus and
count give the same inputs. From Python 3.12 on, an input that reaches a line which none had reached joins the corpus
(sys.monitoring: each line costs once); before, the corpus is what it was given. A finding is an exception that the
target does not let pass, an input that takes more than `INPUT_SECONDS` of CPU, or memory that grows by more than
`GROWTH_BYTES`.
"""

from __future__ import annotations

import random
import resource
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import CodeType

    from tools.fuzz.targets import Target

INPUT_SECONDS = 1.0  # CPU: other processes do not count
GROWTH_BYTES = 256 << 20
MAX_BYTES = 1 << 16  # of an input
PACKAGES = ("/cas/", "/index/", "/vaultaire/")
NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, (1 << 31) - 1, 1 << 31,
           (1 << 32) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip


@dataclass(slots=True)
class Finding:
    data: bytes
    problem: str


@dataclass(slots=True)
class Outcome:
    inputs: int = 0
    kept: int = 0  # inputs that reached new lines
    finding: Finding | None = None


@dataclass(slots=True)
class Lines:
    """Lines of our packages that ran; without sys.monitoring it stays empty."""

    new: int = 0
    _tool: int = 4
    _local: Any = field(default=None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        monitoring: Any = getattr(sys, "monitoring", None)
        if monitoring is None:
            yield
            return

        def on_line(code: CodeType, line: int) -> Any:
            if any(package in code.co_filename for package in PACKAGES):
                self.new += 1
            return monitoring.DISABLE  # each line is asked for once

        monitoring.use_tool_id(self._tool, "fuzz")
        monitoring.register_callback(self._tool, monitoring.events.LINE, on_line)
        monitoring.set_events(self._tool, monitoring.events.LINE)
        try:
            yield
        finally:
            monitoring.set_events(self._tool, 0)
            monitoring.free_tool_id(self._tool)


def fuzz(
    target: Target,
    corpus: Sequence[bytes],
    seed: int,
    *,
    seconds: float | None = None,
    count: int | None = None,
) -> Outcome:
    """The corpus first, then mutations of it. Ends at the first finding."""
    rng = random.Random(seed)
    pool = list(corpus) or [b""]
    outcome = Outcome()
    end = None if seconds is None else time.monotonic() + seconds
    start_bytes = _peak_bytes()
    lines = Lines()
    with lines.watched():
        while (count is None or outcome.inputs < count) and (end is None or time.monotonic() < end):
            first = outcome.inputs < len(corpus)
            data = corpus[outcome.inputs] if first else mutate(rng, rng.choice(pool), pool, target.words)
            outcome.inputs += 1
            before = lines.new
            problem = run(target, data)
            if problem is None and _peak_bytes() - start_bytes > GROWTH_BYTES:
                problem = f"memory grew by {(_peak_bytes() - start_bytes) >> 20} MiB"
            if problem is not None:
                outcome.finding = Finding(data, problem)
                break
            if lines.new > before and not first:
                pool.append(data)
                outcome.kept += 1
    return outcome


def run(target: Target, data: bytes) -> str | None:
    """What is wrong with how the target takes `data`; None if nothing is."""
    began = time.process_time()
    try:
        target.take(data)
    except target.allowed:
        pass
    except Exception:
        return traceback.format_exc()
    taken = time.process_time() - began
    return f"one input took {taken:.1f} s" if taken > INPUT_SECONDS else None


def mutate(rng: random.Random, data: bytes, pool: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One to some changes."""
    changed = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(changed) + 1)
        end = min(len(changed), at + rng.choice((1, 1, 2, 4, 8, 32, 200)))
        match rng.randrange(10):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1 if changed:
                changed[at % len(changed)] = rng.randrange(256)
            case 2:
                del changed[at:end]
            case 3:
                changed[at:at] = changed[at:end] * rng.choice((1, 1, 2, 50))
            case 4:
                changed[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 5 if words:
                word = rng.choice(words)
                changed[at : at + rng.choice((0, len(word)))] = word
            case 6:
                size = rng.choice((1, 2, 4, 8))
                number = rng.choice(NUMBERS) % (1 << 8 * size)
                changed[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))
            case 7:
                other = rng.choice(pool)
                cut = rng.randrange(len(other) + 1)
                changed[at:] = other[cut:]
            case 8:
                changed[at:at] = str(rng.choice(NUMBERS)).encode()
            case _:
                del changed[at:]
    return bytes(changed[:MAX_BYTES])


def smaller(target: Target, finding: Finding) -> bytes:
    """The finding's input with all cut off that it does not need (the problem may become another one)."""
    data, size = finding.data, len(finding.data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if run(target, shorter) is not None:
                data = shorter
            else:
                at += size
        size //= 2
    return data


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
