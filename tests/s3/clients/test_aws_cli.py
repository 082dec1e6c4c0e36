"""The aws command line (PyPI awscli): cp, sync, ls, mv, rm, presign, s3api."""

from __future__ import annotations

import json
import urllib.request

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
def aws(server, home):
    command = [program("aws", how="pip install awscli"), "--endpoint-url", server.url]
    variables = environment(server, home)

    def call(*arguments: str, timeout: float = 180.0) -> str:
        return run([*command, *arguments], variables, timeout=timeout)

    return call


@pytest.mark.subset
def test_aws_cli_copies_a_folder_there_and_back(aws, s3, bucket, source, target, rng):
    contents = make_files(source, rng)
    aws("s3", "cp", "--recursive", str(source), f"s3://{bucket}/folder", "--no-progress")
    assert keys_of(s3, bucket) == sorted((f"folder/{name}" for name in contents), key=str.encode)
    aws("s3", "cp", "--recursive", f"s3://{bucket}/folder", str(target), "--no-progress")
    assert read_files(target) == contents


def test_aws_cli_syncs_only_what_changed(aws, s3, bucket, source, rng):
    make_files(source, rng, sizes={"a": 1000, "b": 2000}, names=[])
    assert aws("s3", "sync", str(source), f"s3://{bucket}", "--no-progress").count("upload:") == 2
    assert aws("s3", "sync", str(source), f"s3://{bucket}", "--no-progress") == ""
    (source / "a").unlink()
    (source / "c").write_bytes(b"new")
    said = aws("s3", "sync", "--delete", str(source), f"s3://{bucket}", "--no-progress")
    assert (said.count("upload:"), said.count("delete:")) == (1, 1)
    assert keys_of(s3, bucket) == ["b", "c"]


def test_aws_cli_makes_lists_moves_and_removes(aws, s3, bucket, source, rng):
    (source / "file").write_bytes(rng.randbytes(20 << 20))  # above the 8 MiB from which it copies by parts
    aws("s3", "mb", f"s3://{bucket}-made")
    aws("s3", "cp", str(source / "file"), f"s3://{bucket}-made/dir/file", "--no-progress")
    assert f"{bucket}-made" in aws("s3", "ls")
    assert "PRE dir/" in aws("s3", "ls", f"s3://{bucket}-made")
    assert aws("s3", "ls", "--recursive", f"s3://{bucket}-made").split()[2:] == ["20971520", "dir/file"]
    aws("s3", "cp", f"s3://{bucket}-made/dir/file", f"s3://{bucket}/copy", "--no-progress")
    aws("s3", "mv", f"s3://{bucket}-made/dir/file", f"s3://{bucket}/moved", "--no-progress")
    assert keys_of(s3, f"{bucket}-made") == []
    assert keys_of(s3, bucket) == ["copy", "moved"]
    with s3.get_object(Bucket=bucket, Key="moved")["Body"] as body:
        assert body.read() == (source / "file").read_bytes()
    aws("s3", "rm", "--recursive", f"s3://{bucket}")
    assert keys_of(s3, bucket) == []
    aws("s3", "rb", f"s3://{bucket}-made")


def test_aws_cli_presigns(aws, server, s3, bucket, home):
    """Signature V4 must be asked for: version 1 of this tool still presigns by Signature V2 when it is not."""
    (home / "none").write_text("[default]\ns3 =\n    signature_version = s3v4\n")
    s3.put_object(Bucket=bucket, Key="a b+ü", Body=b"content")
    url = aws("s3", "presign", f"s3://{bucket}/a b+ü", "--expires-in", "60").strip()
    if server.tls:
        pytest.skip("the certificate is not known to urllib; presigned URLs over https are in test_auth")
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.read() == b"content"


def test_aws_cli_s3api_and_checksums(aws, bucket, source):
    (source / "f").write_bytes(b"data")
    for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        aws(
            "s3api", "put-object", "--bucket", bucket, "--key", algorithm, "--body", str(source / "f"),
            "--checksum-algorithm", algorithm,
        )  # fmt: skip
        answer = json.loads(
            aws("s3api", "head-object", "--bucket", bucket, "--key", algorithm, "--checksum-mode", "ENABLED")
        )
        assert answer[f"Checksum{algorithm}"]
    listed = json.loads(aws("s3api", "list-objects-v2", "--bucket", bucket, "--max-items", "3"))
    assert len(listed["Contents"]) == 3
    assert json.loads(aws("s3api", "list-object-versions", "--bucket", bucket))["Versions"]


@pytest.mark.full
def test_aws_cli_1_gib(aws, bucket, source, target, rng):
    path = make_large_file(source / "large", rng)
    aws("s3", "cp", str(path), f"s3://{bucket}/large", "--no-progress", timeout=600)
    aws("s3", "cp", f"s3://{bucket}/large", str(target / "large"), "--no-progress", timeout=600)
    assert same_files(path, target / "large")
