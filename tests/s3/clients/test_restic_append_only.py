"""restic with an append-only key: it backs up and locks as ever, and cannot lose what it has written."""

from __future__ import annotations

import json

from tests.s3.clients.tools import environment, make_files, program, read_files, run
from tests.s3.conftest import make_caller

SECRET = "a-secret-for-restic-append-only-01"


def test_restic_with_an_append_only_key(server, bucket, home, source, target, rng):
    server.cli(
        *("key", "create", "--tenant", "root", "--role", "append-only", "--preset", "restic"),
        *("--scope", f"{bucket}/repository/", "--access-key", "RESTICAPPEND", "--secret-key", SECRET),
    )
    command = [program("restic", how="apt-get install restic")]
    if server.certificate is not None:
        command += ["--cacert", str(server.certificate.cert)]
    variables = environment(
        server,
        home,
        RESTIC_REPOSITORY=f"s3:{server.url}/{bucket}/repository",
        RESTIC_PASSWORD="a password",
        RESTIC_CACHE_DIR=str(home / "cache"),
        RESTIC_PROGRESS_FPS="0.01",
    )
    variables |= {"AWS_ACCESS_KEY_ID": "RESTICAPPEND", "AWS_SECRET_ACCESS_KEY": SECRET}

    def restic(*arguments: str) -> str:
        return run([*command, *arguments], variables, timeout=180)

    contents = make_files(source, rng)
    restic("init")
    restic("backup", str(source))
    (source / "one-byte").write_bytes(b"changed")
    restic("backup", str(source))
    first, _ = json.loads(restic("snapshots", "--json"))
    restic("check", "--read-data")
    stolen = make_caller(server, "RESTICAPPEND", SECRET)
    listing = stolen.call("GET", f"/{bucket}", query="list-type=2&prefix=repository/").body
    keys = [piece.partition(b"<")[0].decode() for piece in listing.split(b"<Key>")[1:]]
    assert [key for key in keys if "/locks/" in key] == []  # every lock was removed
    assert {stolen.call("DELETE", f"/{bucket}/{key}").status for key in keys} == {403}
    assert {stolen.call("PUT", f"/{bucket}/{key}", body=b"gone").status for key in keys} == {403}
    restic("restore", first["id"], "--target", str(target))
    assert read_files(target / source.relative_to("/")) == contents
