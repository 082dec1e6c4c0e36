"""The AWS SDK for Go v2 (Go module proxy), by the program in go/. Built once per session; needs a Go toolchain."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.s3.clients.tools import environment, make_large_file, program, run, same_files

FOLDER = Path(__file__).parent / "go"


@pytest.fixture(scope="session")
def binary(tmp_path_factory) -> Path:
    go = program("go", how="install a Go toolchain, 1.23 or later")
    made = tmp_path_factory.mktemp("go") / "client"
    done = subprocess.run(
        [go, "build", "-mod=readonly", "-o", str(made), "."],
        cwd=FOLDER,
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0 and ("dial tcp" in done.stderr or "proxy.golang.org" in done.stderr):
        pytest.skip(f"the client aws-sdk-go-v2 cannot be downloaded: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def go_client(server, bucket, home, binary):
    variables = environment(server, home, ENDPOINT=server.url, BUCKET=bucket)

    def call(*trips: str, timeout: float = 180.0, **more: str) -> None:
        said = run([str(binary), *trips], {**variables, **more}, timeout=timeout)
        assert said.split() == [word for trip in trips for word in ("ok", trip)]

    return call


@pytest.mark.subset
def test_go_sdk_round_trips(go_client):
    go_client("sizes", "parts", "names", "presigned", "failures")


@pytest.mark.full
def test_go_sdk_1_gib(go_client, source, target, rng):
    path = make_large_file(source / "large", rng)
    go_client("file", SOURCE=str(path), TARGET=str(target / "large"), timeout=900)
    assert same_files(path, target / "large")
