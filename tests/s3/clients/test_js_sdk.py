"""The AWS SDK for JavaScript v3 (npm), by the program in js/. `npm ci` in that folder installs what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.s3.clients.tools import environment, make_large_file, program, run, same_files

FOLDER = Path(__file__).parent / "js"
OLD_NODE = (  # the SDK's own advice about the age of Node, and Node's hint how to see more of it
    "NodeVersionSupportWarning",
    "versions published after",
    "node >=",
    "To continue receiving updates",
    "More information can be found",
    "`node --trace-warnings",
)


@pytest.fixture
def node(server, bucket, home):
    command = [program("node", how="install Node.js 20 or later"), str(FOLDER / "client.mjs")]
    if not (FOLDER / "node_modules" / "@aws-sdk" / "client-s3").is_dir():
        pytest.skip(
            f"the client @aws-sdk/client-s3 is not installed (npm ci --prefix {FOLDER.relative_to(Path.cwd())})"
        )
    variables = environment(server, home, ENDPOINT=server.url, BUCKET=bucket)

    def call(*trips: str, timeout: float = 180.0, **more: str) -> None:
        said = run([*command, *trips], {**variables, **more}, timeout=timeout, warnings=OLD_NODE)
        assert said.split() == [word for trip in trips for word in ("ok", trip)]

    return call


@pytest.mark.subset
def test_js_sdk_round_trips(node):
    node("sizes", "streams", "parts", "names", "presigned", "errors", "checksums")


@pytest.mark.full
def test_js_sdk_1_gib(node, source, target, rng):
    path = make_large_file(source / "large", rng)
    node("file", SOURCE=str(path), TARGET=str(target / "large"), timeout=900)
    assert same_files(path, target / "large")
