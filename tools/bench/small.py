"""Small objects: many requests per second.

By s5cmd against `rclone serve s3` (the tool's own cost dominates: its figures are not the server's), and by wrk, one
thread and 64 connections, against the same store behind stock frameworks. wrk sends requests that were signed moments
before; an answer that is no success ends the run, for refusals are fast and would flatter.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import statistics
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench import corpus
from tools.bench.report import Row
from tools.bench.servers import ACCESS_KEY, SECRET_KEY, Measured, Watch, baseline, tool, vaultaire

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.bench.report import Report

SIZE = 4096
KEYS = 4000
CONNECTIONS = 64
BUCKET = "small"
SCRIPT = Path(__file__).with_name("requests.lua")


# -- by s5cmd, beside rclone


def measure_s5cmd(report: Report, servers: tuple[Measured, Measured], work: Path, *, count: int) -> None:
    section = report.section(f"{count} objects of 4 KiB by s5cmd, 64 workers", "rclone serve s3")
    folder = corpus.make_small_files(work / "small-files", count, SIZE, seed=7)
    figures: dict[str, dict[str, tuple[float, float]]] = {}
    for server in servers:
        server.make_bucket(BUCKET)
        place = f"s3://{BUCKET}/"
        for name, arguments in (
            ("PUT", ["cp", f"{folder}/", place]),
            ("LIST", ["ls", place]),
            ("GET", ["cp", f"{place}*", f"{work}/small-back-{server.name}/"]),
        ):
            with Watch(server) as watch:
                _s5cmd(server, arguments)
            figures.setdefault(name, {})[server.name] = count / watch.seconds, watch.cpu / count * 1e6
    for name in figures:
        (ours, ours_cpu), (other, other_cpu) = (figures[name][side] for side in ("vaultaire", "rclone"))
        report.add(section, Row(name, "objects/s", ours, other))
        report.add(section, Row(f"CPU of {name}", "us/object", ours_cpu, other_cpu, smaller_is_better=True))


def _s5cmd(server: Measured, arguments: list[str]) -> None:
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}
    command = [tool("s5cmd"), "--endpoint-url", server.url, "--numworkers", "64", "--retry-count", "0"]
    done = subprocess.run(
        [*command, *arguments],
        env=keys,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"s5cmd failed at {server.name}: {done.stderr[-500:]}")


# -- by wrk, beside the baseline


def measure_wrk(report: Report, work: Path, *, seconds: int, rounds: int) -> None:
    """PUT over objects that are there, then GET of them. Both servers have the same keys, sizes and bodies, each its own store."""
    section = report.section("Objects of 4 KiB by wrk, 64 connections, one worker", "quart+hypercorn")
    names = ("vaultaire", "quart+hypercorn")
    rates: dict[tuple[str, str], list[float]] = {}
    cpu: dict[tuple[str, str], list[float]] = {}
    stores = {name: work / f"wrk-{name}" for name in names}
    for store in stores.values():
        with vaultaire(store) as server:
            server.make_bucket(BUCKET)
        fill(store, BUCKET, KEYS, partial(random.Random(5).randbytes, SIZE))
    for _ in range(rounds):
        for name, start in zip(names, (vaultaire, baseline), strict=True):
            with start(stores[name]) as server:
                for method in ("PUT", "GET"):
                    rate, per_request = _wrk(server, work, method, seconds)
                    rates.setdefault((method, name), []).append(rate)
                    cpu.setdefault((method, name), []).append(per_request)
    for method, wanted in (("GET", 5.0), ("PUT", 3.0)):
        ours, other = (statistics.median(rates[method, name]) for name in names)
        report.add(section, Row(method, "requests/s", ours, other, wanted_ratio=wanted))
        ours, other = (statistics.median(cpu[method, name]) for name in names)
        report.add(section, Row(f"CPU of {method}", "us/request", ours, other, smaller_is_better=True))


def _wrk(server: Measured, work: Path, method: str, seconds: int) -> tuple[float, float]:
    """(requests per second, server CPU in microseconds per request)."""
    requests = work / "requests"
    write_requests(server, requests, method)
    warm_up = 1 if method == "GET" else 0
    command = [tool("wrk"), "-t1", f"-c{CONNECTIONS}", "-s", str(SCRIPT)]
    if warm_up:
        _run_wrk([*command, "-d", f"{warm_up}s", server.url, "--", str(requests)], server)
    with Watch(server) as watch:
        done = _run_wrk([*command, "-d", f"{seconds}s", server.url, "--", str(requests)], server)
    return done["requests"] / (done["duration_us"] / 1e6), watch.cpu / done["requests"] * 1e6


def _run_wrk(command: list[str], server: Measured) -> dict[str, float]:
    said = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"^RESULT (\{.*\})$", said, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk says nothing: {said}")
    result: dict[str, float] = json.loads(found[1])
    failures = {name: count for name, count in result.items() if name.startswith("error") and count}
    if failures:
        raise RuntimeError(f"{server.name} answered other than 200: {failures}")
    return result


def write_requests(server: Measured, path: Path, method: str) -> None:
    """Signed now, one after the other, each preceded by its length as eight digits.

    The file is written before wrk starts, and the signatures hold for 15 minutes.
    """
    rng = random.Random(11)
    with open(path, "wb") as file:
        for number in range(KEYS):
            body = rng.randbytes(SIZE) if method == "PUT" else b""
            request = server.caller.sign(method, f"/{BUCKET}/key-{number:08}", body=body).encode()
            file.write(b"%08d%s" % (len(request), request))


# -- a page out of a large bucket


def measure_list(report: Report, work: Path, *, count: int) -> None:
    """One page of 1,000 keys at random places. What the client waits for bounds the server's time from above."""
    section = report.section(f"ListObjectsV2, 1,000 keys out of {count:,}")
    data = work / "list"
    with vaultaire(data) as server:
        server.make_bucket("many")
    fill(data, "many", count, lambda: b"x")
    rng = random.Random(3)
    with vaultaire(data) as server, server.caller.connect(timeout=60) as connection:
        taken = []
        before = server.cpu_seconds()
        for _ in range(200):
            after = f"key-{rng.randrange(count - 1000):08}"
            query = f"list-type=2&max-keys=1000&start-after={after}"
            request = server.caller.sign("GET", "/many", query=query).encode()
            began = time.perf_counter()
            connection.send(request)
            answer = connection.answer()
            taken.append(time.perf_counter() - began)
            if answer.status != 200 or answer.body.count(b"<Key>") != 1000:
                raise RuntimeError(f"a list of 1,000 keys gave {answer.status}")
        cpu = (server.cpu_seconds() - before) / len(taken)
    report.add(
        section, Row("the client waits (median)", "ms", statistics.median(taken) * 1000, note="wanted < 5")
    )
    report.add(section, Row("CPU of the server", "ms", cpu * 1000))


def fill(data: Path, bucket_name: str, count: int, make_body: Callable[[], bytes]) -> None:
    """Small objects named key-0... by the store's own functions: through HTTP a million would take minutes."""
    from index.buckets import get_bucket
    from index.records import ObjectRecord
    from index.versions import Change, put_object
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store:
        for first in range(0, count, 2000):

            def commit(txn, first=first) -> None:
                change = Change(store.writer, 1_767_225_600_000, bytes(8))
                bucket = get_bucket(txn, bucket_name)
                assert bucket is not None
                for number in range(first, min(first + 2000, count)):
                    body = make_body()
                    etag = hashlib.md5(body).hexdigest()
                    record = ObjectRecord(len(body), 1_767_225_600_000, etag, "root", inline=body)
                    put_object(txn, bucket, b"key-%08d" % number, record, change)

            store.kv.commit(commit)
