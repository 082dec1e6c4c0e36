"""Mixed requests beside collection, a few. Many: python -m tests.crash.server_churn --seeds 0-19 --requests 50000."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.server_churn import churn, environment
from tests.s3.harness import Server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def run(folder: Path, requests: int, mutant: str | None = None) -> list[str]:
    with Server(folder / "data", workers=3, environment=environment(mutant)) as server:
        outcome = churn(server, seed=0, clients=8, requests=requests)
    assert mutant is not None or outcome.rounds
    return outcome.findings


def test_some_mixed_requests_beside_collection(tmp_path):
    assert run(tmp_path, 600) == []


@pytest.mark.full
def test_many_mixed_requests_beside_collection(tmp_path):
    """python -m pytest -m full tests/crash/test_server_churn.py"""
    assert run(tmp_path, 20_000) == []


@pytest.mark.full
@pytest.mark.parametrize("mutant", ["early-unlink", "unverified-chunks"])
def test_broken_servers_are_found(tmp_path, mutant):
    assert run(tmp_path, 20_000, mutant) != []
