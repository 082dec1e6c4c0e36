"""restic (Debian): a repository from its making to its pruning, every byte of it read back."""

from __future__ import annotations

import json

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


@pytest.fixture
def restic(server, bucket, home):
    command = [program("restic", how="apt-get install restic")]
    variables = environment(
        server,
        home,
        RESTIC_REPOSITORY=f"s3:{server.url}/{bucket}/repository",
        RESTIC_PASSWORD="a password",
        RESTIC_CACHE_DIR=str(home / "cache"),
        RESTIC_PROGRESS_FPS="0.01",
    )
    if server.certificate is not None:
        command += ["--cacert", str(server.certificate.cert)]

    def call(*arguments: str, timeout: float = 180.0) -> str:
        return run([*command, *arguments], variables, timeout=timeout)

    return call


@pytest.mark.subset
def test_restic_inits_backs_up_checks_restores_and_prunes(restic, source, target, rng):
    contents = make_files(source, rng)
    restic("init")
    restic("backup", str(source))
    (source / "one-byte").write_bytes(b"changed")
    restic("backup", str(source))
    snapshots = json.loads(restic("snapshots", "--json"))
    assert len(snapshots) == 2
    restic("check", "--read-data")
    restic("restore", snapshots[0]["id"], "--target", str(target))
    assert read_files(target / source.relative_to("/")) == contents
    restic("forget", "--keep-last", "1", "--prune")
    assert len(json.loads(restic("snapshots", "--json"))) == 1
    restic("check", "--read-data")


def test_restic_makes_the_bucket_it_is_given(server, s3, bucket, home, source, rng):
    command = [program("restic", how="apt-get install restic")]
    variables = environment(
        server,
        home,
        RESTIC_REPOSITORY=f"s3:{server.url}/{bucket}-made-by-restic",
        RESTIC_PASSWORD="a password",
        RESTIC_CACHE_DIR=str(home / "cache"),
    )
    if server.certificate is not None:
        command += ["--cacert", str(server.certificate.cert)]
    run([*command, "init"], variables)
    make_files(source, rng, sizes={"a": 100}, names=[])
    run([*command, "backup", str(source)], variables)
    assert f"{bucket}-made-by-restic" in [b["Name"] for b in s3.list_buckets()["Buckets"]]


@pytest.mark.full
def test_restic_1_gib(restic, source, target, rng):
    path = make_large_file(source / "large", rng)
    restic("init")
    restic("backup", str(source), timeout=900)
    restic("check", "--read-data", timeout=900)
    restic("restore", "latest", "--target", str(target), timeout=900)
    assert same_files(path, target / path.relative_to("/"))
