"""Mixed requests beside collection, some. Many: python -m tests.crash.server_churn --seeds 0-19 --requests 50000.

The servers and commands of one run cost 10 s before the first request, so all of this is by hand:

    python -m pytest -m full tests/crash/test_server_churn.py

In every run of the suite, test_gc_race.py does the like without HTTP, and tests/s3/test_collection.py a few requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.server_churn import churn, environment
from tests.s3.harness import Server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.full


def run(folder: Path, mutant: str | None = None) -> list[str]:
    with Server(folder / "data", workers=3, environment=environment(mutant)) as server:
        return churn(server, seed=0, clients=8, requests=20_000).findings


def test_mixed_requests_beside_collection(tmp_path):
    assert run(tmp_path) == []


@pytest.mark.parametrize("mutant", ["early-unlink", "lost-frames"])
def test_broken_servers_are_found(tmp_path, mutant):
    assert run(tmp_path, mutant) != []
