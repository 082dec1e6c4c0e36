"""`python -m tools.bench.slow_clients [--clients 1000]`: what a crowd of slow clients costs a normal one.

One worker. A normal client uploads and downloads objects of 64 KiB, alone, then beside as many slow uploads and as many
slow downloads, then alone again. Each figure is the lower quartile of rounds (other work on the machine only adds, and to
some rounds more), and what counts is the ratio within this one run. Prints the worker's RssAnon as well.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.s3.crowd import Crowd, CrowdPlan
from tests.s3.harness import Server
from tests.s3.wire import Caller

MIB = 1 << 20
BUCKET = "crowd"
BODY_BYTES = 64 << 10
REQUESTS = 200
ROUNDS = 8
SETTLING_SECONDS = 20


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def normal_requests(caller: Caller, rng: random.Random) -> dict[str, list[float]]:
    """Seconds of each request over one kept connection."""
    taken: dict[str, list[float]] = {"PUT": [], "GET": []}
    with caller.connect(timeout=60) as connection:
        for number in range(REQUESTS):
            body = rng.randbytes(BODY_BYTES)
            for method in taken:
                sent = body if method == "PUT" else b""
                request = caller.sign(method, f"/{BUCKET}/normal{number}", body=sent).encode()
                began = time.perf_counter()
                connection.send(request)
                answer = connection.answer(method)
                taken[method].append(time.perf_counter() - began)
                if answer.status != 200:
                    raise RuntimeError(f"{method}: {answer}")
    return taken


def rounds_of(caller: Caller, rng: random.Random, count: int = ROUNDS) -> list[dict[str, list[float]]]:
    return [normal_requests(caller, rng) for _ in range(count)]


def figures(rounds: list[dict[str, list[float]]]) -> dict[str, float]:
    """Milliseconds: lower quartile of the rounds' p50 and p99 per method."""
    return {
        f"{method} p{int(share * 100)}": percentile(
            [percentile(each[method], share) for each in rounds], 0.25
        )
        * 1e3
        for method in ("PUT", "GET")
        for share in (0.5, 0.99)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000, help="slow uploads, and as many slow downloads")
    clients = parser.parse_args().clients
    rng = random.Random(4)
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "data") as server:
        caller = Caller(server.url, server.access_key, server.secret_key)
        caller.call("PUT", f"/{BUCKET}")
        if caller.call("PUT", f"/{BUCKET}/large", body=rng.randbytes(32 * MIB)).status != 200:
            raise RuntimeError("the object to download was not stored")
        normal_requests(caller, rng)
        before = server.anonymous_bytes()
        quiet = rounds_of(caller, rng, ROUNDS // 2)
        plan = CrowdPlan(
            server.url,
            server.access_key,
            server.secret_key,
            BUCKET,
            "large",
            uploads=clients,
            readers=clients,
        )
        with Crowd(plan) as crowd:
            time.sleep(SETTLING_SECONDS)  # their first bytes are worked through: from now on they only drip
            beside = figures(rounds_of(caller, rng))
            held = server.anonymous_bytes()
        time.sleep(SETTLING_SECONDS / 4)  # they are all gone
        alone = figures(quiet + rounds_of(caller, rng, ROUNDS // 2))
        print(f"RssAnon {before / MIB:.0f} MiB alone, {held / MIB:.0f} MiB beside {2 * clients} slow clients")
        print(f"refused uploads: {crowd.refused}")
        for name, milliseconds in alone.items():
            print(
                f"{name}: {milliseconds:.1f} ms alone, {beside[name]:.1f} ms beside, x{beside[name] / milliseconds:.2f}"
            )


if __name__ == "__main__":
    main()
