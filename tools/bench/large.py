"""Large objects: one stream and eight, by curl with presigned URLs, against both servers in turn.

curl computes nothing, so the server's work is what is measured. Each pair of figures is taken within seconds of each
other; with several rounds the median counts.
"""

from __future__ import annotations

import statistics
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tools.bench import corpus
from tools.bench.report import Row
from tools.bench.servers import Measured, Watch, tool

if TYPE_CHECKING:
    from pathlib import Path

    from tools.bench.report import Report, Section

BUCKET = "large"
STREAMS = 8


@dataclass(slots=True)
class Step:
    """One kind of transfer, measured on both servers."""

    name: str
    bytes: int
    wanted_ratio: float | None = None
    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)

    def run(self, server: Measured, commands: list[list[str]]) -> None:
        with Watch(server) as watch:
            run_all(commands)
        self.rates.setdefault(server.name, []).append(self.bytes / watch.seconds / 1e6)
        self.cpu.setdefault(server.name, []).append(watch.cpu / (self.bytes / 2**30))
        self.peak[server.name] = max(self.peak.get(server.name, 0), watch.peak_bytes)


def run_all(commands: list[list[str]]) -> None:
    """All at once; every one must succeed."""
    running = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for command in commands]
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError(f"curl failed: {codes}")


def put(server: Measured, path: Path, key: str) -> list[str]:
    request = server.caller.presign("PUT", f"/{BUCKET}/{key}", expires=3600)
    return [*_curl(), "-T", str(path), f"{server.url}{request.target}"]


def get(server: Measured, key: str) -> list[str]:
    request = server.caller.presign("GET", f"/{BUCKET}/{key}", expires=3600)
    return [*_curl(), "-o", "/dev/null", f"{server.url}{request.target}"]


def _curl() -> list[str]:
    return [tool("curl"), "--silent", "--show-error", "--fail", "--max-time", "900"]


def measure(
    report: Report, servers: tuple[Measured, Measured], work: Path, *, size: int, rounds: int, tar: Path
) -> None:
    section = report.section(f"Large objects, {size >> 20} MiB", "rclone serve s3")
    for server in servers:
        server.make_bucket(BUCKET)
    first = Step("PUT, incompressible, first time", size, 0.85)
    again = Step("PUT, the same again", size, 1.05)
    read = Step("GET, incompressible", size, 1.0)
    for number in range(rounds):
        path = corpus.make_random(work / "random", size, seed=number)
        for step, key in ((first, f"random-{number}"), (again, f"again-{number}")):
            for server in _alternating(servers, number):
                step.run(server, [put(server, path, key)])
        for server in _alternating(servers, number):
            read.run(server, [get(server, f"random-{number}")])
        path.unlink()
    steps = [first, again, read, *_tar_steps(servers, tar), *_parallel_steps(servers, work, size // STREAMS)]
    for step in steps:
        _add(report, section, step)
    _add_resources(report, section, steps)


def _tar_steps(servers: tuple[Measured, Measured], tar: Path) -> list[Step]:
    size = tar.stat().st_size
    write, again, read = Step("PUT, tar", size), Step("PUT, the tar again", size), Step("GET, tar", size, 1.0)
    for server in servers:
        write.run(server, [put(server, tar, "tar")])
        again.run(server, [put(server, tar, "tar-again")])
        read.run(server, [get(server, "tar")])
    return [write, again, read]


def _parallel_steps(servers: tuple[Measured, Measured], work: Path, size: int) -> list[Step]:
    paths = [corpus.make_random(work / f"part-{n}", size, seed=1000 + n) for n in range(STREAMS)]
    write = Step(f"PUT, {STREAMS} streams of {size >> 20} MiB", size * STREAMS)
    read = Step(f"GET, {STREAMS} streams", size * STREAMS)
    for server in servers:
        write.run(server, [put(server, path, path.name) for path in paths])
        read.run(server, [get(server, path.name) for path in paths])
    for path in paths:
        path.unlink()
    return [write, read]


def _alternating(servers: tuple[Measured, Measured], number: int) -> tuple[Measured, ...]:
    return servers if number % 2 == 0 else servers[::-1]


def _add(report: Report, section: Section, step: Step) -> None:
    ours, other = (statistics.median(step.rates[name]) for name in ("vaultaire", "rclone"))
    report.add(section, Row(step.name, "MB/s", ours, other, wanted_ratio=step.wanted_ratio))


def _add_resources(report: Report, section: Section, steps: list[Step]) -> None:
    for step in steps[:5]:
        ours, other = (statistics.median(step.cpu[name]) for name in ("vaultaire", "rclone"))
        report.add(section, Row(f"CPU of {step.name}", "s/GiB", ours, other, smaller_is_better=True))
    peaks = [max(step.peak[name] for step in steps) / 2**20 for name in ("vaultaire", "rclone")]
    report.add(section, Row("peak RssAnon of one process", "MiB", *peaks, smaller_is_better=True))
