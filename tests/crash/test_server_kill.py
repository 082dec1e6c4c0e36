"""The server is killed a few times. Many times: python -m tests.crash.server_kill --seeds 0-49."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.server_kill import WAYS, Crash, crowding, new_crash
from tests.s3.harness import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RESTART_SECONDS = 2.0


@pytest.fixture
def crash(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crash]:
    with Server(tmp_path / "data", workers=getattr(request, "param", 1)) as server:
        yield new_crash(server, request.node.name)


def run_rounds(crash: Crash, rounds: int) -> None:
    for number in range(rounds):
        crash.round(number, WAYS[number % len(WAYS)])
    assert crash.acknowledged > rounds, "hardly anything was stored: the test says nothing"
    if crash.server.workers == 1:  # each further worker costs the CPU of a further interpreter
        # The fastest of the last ones: what else runs on the machine only adds, a journal that grows would show.
        assert min(crash.restarts[-10:]) < RESTART_SECONDS * crowding(), crash.restarts


@pytest.mark.slow
@pytest.mark.parametrize("crash", [1, 3], indirect=True, ids=["1 worker", "3 workers"])
def test_kills_under_parallel_uploads_lose_nothing_acknowledged(crash):
    run_rounds(crash, 4)


@pytest.mark.full
@pytest.mark.parametrize("crash", [1, 3], indirect=True, ids=["1 worker", "3 workers"])
def test_100_kills_under_parallel_uploads_lose_nothing_acknowledged(crash):
    """With one worker and with three: 200 in all."""
    run_rounds(crash, 100)
