"""Import and export between two Vaultaire servers that run meanwhile: versions, locks, configuration, any key."""

from __future__ import annotations

import datetime
import json

import pytest
from click.testing import CliRunner

from tests.moving.foreign import KEYS, foreign_server
from tests.s3.conftest import make_boto_client
from vaultaire.cli import main

ODD_KEYS = [
    "with space/and+plus%20percent", "ünïcödé/日本語/🜚", "//double//slashes//", "../up/../and/./down", "trailing/",
    "k" * 1024, "ü" * 512, "a", "a/", "a/b", "?query#fragment&amp;<xml>'\"", "\u00a0nbsp", "back\\slash", "~tilde*(star)",
]  # fmt: skip


def run(command, place, source, target_server, *options):
    """The command on the store of `target_server`, in this process, with `source` as the foreign server."""
    environment = {
        "AWS_ENDPOINT_URL": source.url,
        "AWS_ACCESS_KEY_ID": source.access_key,
        "AWS_SECRET_ACCESS_KEY": source.secret_key,
        **({"AWS_CA_BUNDLE": str(source.certificate.cert)} if source.certificate else {}),
    }
    arguments = [command, place, "--data", str(target_server.data), *options]
    return CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)


def move(command, place, source, target_server, *options, status=0):
    """Its report."""
    result = run(command, place, source, target_server, "--json", *options)
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def second_server(start_session_server, variant):
    return start_session_server(tls=variant.tls)


@pytest.fixture
def other(second_server):
    """A second server, which runs while its store is moved to and from, and its client."""
    client = make_boto_client(second_server)
    yield second_server, client
    client.close()


def versions_of(s3, bucket):
    """key -> [(kind, size, ETag, is the null version, second)], the newest first, of all keys."""
    found = {}
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        rows = [(v, "version") for v in page.get("Versions", [])] + [
            (m, "marker") for m in page.get("DeleteMarkers", [])
        ]
        for row, kind in rows:
            found.setdefault(row["Key"], []).append(
                (
                    row["LastModified"],
                    kind,
                    row.get("Size", 0),
                    row.get("ETag", ""),
                    row["VersionId"] == "null",
                )
            )
    return {key: sorted(rows, key=lambda row: row[0], reverse=True) for key, rows in found.items()}


def test_any_key_comes_and_goes(s3, server, bucket, other):
    target, there = other
    for number, key in enumerate(ODD_KEYS):
        s3.put_object(Bucket=bucket, Key=key, Body=str(number).encode() * 3000, Metadata={"m": "plain"})
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    report = move("import", f"s3://{bucket}", server, target)
    assert (report["objects"], report["failed"]) == (len(ODD_KEYS) + 1, 0)
    mine = {
        o["Key"]: (o["Size"], o["ETag"], o["LastModified"])
        for o in s3.list_objects_v2(Bucket=bucket)["Contents"]
    }
    theirs = {
        o["Key"]: (o["Size"], o["ETag"], o["LastModified"])
        for o in there.list_objects_v2(Bucket=bucket)["Contents"]
    }
    assert theirs == mine, "times, too, to the millisecond"
    one, two = (client.head_object(Bucket=bucket, Key=ODD_KEYS[1])["Metadata"] for client in (s3, there))
    assert one == two
    for number, key in enumerate(ODD_KEYS):
        assert there.get_object(Bucket=bucket, Key=key)["Body"].read() == str(number).encode() * 3000
    # And out again, beside the running server, under a prefix.
    report = move("export", f"s3://{bucket}/copy/", server, target, "--from", bucket, status=1)
    assert (report["objects"], report["failed"]) == (
        len(ODD_KEYS) + 1 - 2,
        2,
    )  # two keys are too long with it
    assert move("export", f"s3://{bucket}/copy/", server, target, "--from", bucket, status=1)["objects"] == 0


def test_all_versions_come_in_order_and_go_back(s3, server, bucket, other):
    target, there = other
    s3.put_object(Bucket=bucket, Key="from-before", Body=b"null version")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for number in range(3):
        s3.put_object(
            Bucket=bucket, Key="k", Body=b"v%d" % number, Metadata={"n": str(number)}, Tagging=f"n={number}"
        )
        if number == 1:
            s3.delete_object(Bucket=bucket, Key="k")
    s3.put_object(Bucket=bucket, Key="gone", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="gone")
    s3.put_object(Bucket=bucket, Key="from-before", Body=b"with an id")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"null on top")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"the last")

    report = move("import", f"s3://{bucket}", server, target, "--versions")

    assert (report["objects"], report["delete_markers"], report["failed"]) == (8, 2, 0)
    assert versions_of(there, bucket) == versions_of(s3, bucket)
    assert there.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    listed = [v for v in there.list_object_versions(Bucket=bucket, Prefix="k")["Versions"] if v["Size"] == 2]
    for version in listed:
        named = {"Bucket": bucket, "Key": "k", "VersionId": version["VersionId"]}
        body = there.get_object(**named)["Body"].read()
        assert there.head_object(**named)["Metadata"] == {"n": body.decode()[1]}
        assert there.get_object_tagging(**named)["TagSet"] == [{"Key": "n", "Value": body.decode()[1]}]

    # More since, at the source: only that is taken.
    s3.put_object(Bucket=bucket, Key="k", Body=b"later")
    report = move("import", f"s3://{bucket}", server, target, "--versions")
    assert (report["objects"], report["done_objects"]) == (1, 10)
    assert versions_of(there, bucket) == versions_of(s3, bucket)
    # Written in between in the destination: those keys stay as they are.
    there.put_object(Bucket=bucket, Key="k", Body=b"ours")
    report = move("import", f"s3://{bucket}", server, target, "--versions")
    assert report["kept_keys"] == ["k"]

    back = f"{bucket}-back"
    report = move("export", f"s3://{back}", server, target, "--from", bucket, "--versions")
    assert (report["objects"], report["failed"]) == (10, 0)
    ours = {k: [row[1:4] for row in rows] for k, rows in versions_of(there, bucket).items()}
    assert {k: [row[1:4] for row in rows] for k, rows in versions_of(s3, back).items()} == ours
    assert move("export", f"s3://{back}", server, target, "--from", bucket, "--versions")["objects"] == 0


def test_locks_and_configuration_come_along(s3, server, bucket, other):
    target, there = other
    locked = f"{bucket}-locked"
    s3.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    until = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=2)
    s3.put_object(
        Bucket=locked, Key="kept", Body=b"x", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until
    )
    s3.put_object(Bucket=locked, Key="held", Body=b"x", ObjectLockLegalHoldStatus="ON")
    s3.put_object(Bucket=locked, Key="free", Body=b"x")
    s3.put_object_lock_configuration(
        Bucket=locked,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
        },
    )
    rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 9}}
    s3.put_bucket_lifecycle_configuration(Bucket=locked, LifecycleConfiguration={"Rules": [rule]})

    report = move("import", f"s3://{locked}", server, target, "--versions", "--bucket-config")

    assert (report["objects"], report["failed"]) == (3, 0)
    kept = there.head_object(Bucket=locked, Key="kept")
    assert (kept["ObjectLockMode"], kept["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", until)
    assert there.head_object(Bucket=locked, Key="held")["ObjectLockLegalHoldStatus"] == "ON"
    assert "ObjectLockMode" not in there.head_object(Bucket=locked, Key="free"), "settings come last"
    rules = there.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"]["Rule"]
    assert rules == {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    assert there.get_bucket_lifecycle_configuration(Bucket=locked)["Rules"][0]["ID"] == "old"
    # Into a bucket without Object Lock the objects come, and it is said that their locks do not.
    report = move("import", f"s3://{locked}", server, target, "--into", f"{bucket}-plain")
    assert report["notes"]["retention or legal hold: the bucket here has no Object Lock"] == 2


def test_versions_need_a_bucket_that_keeps_them(s3, server, bucket, other):
    target, there = other
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    there.create_bucket(Bucket=f"{bucket}-plain")
    result = run("import", f"s3://{bucket}", server, target, "--into", f"{bucket}-plain", "--versions")
    assert result.exit_code == 1
    assert f"bucket {bucket}-plain keeps no versions" in result.stderr
    assert "Contents" not in there.list_objects_v2(Bucket=f"{bucket}-plain")


def test_a_client_that_writes_the_same_key_meanwhile_wins(other, monkeypatch):
    target, there = other
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with foreign_server() as foreign:
        foreign.client().create_bucket(Bucket="contested")
        foreign.backend.put_object("contested", "k", b"from afar")
        foreign.backend.put_object("contested", "other", b"from afar")

        def write_here(request):
            if request.reads_body and request.path.endswith("/k"):
                there.put_object(Bucket="contested", Key="k", Body=b"written here")

        foreign.before = write_here
        arguments = [
            "import",
            "s3://contested",
            "--data",
            str(target.data),
            "--endpoint-url",
            foreign.url,
            "--json",
        ]
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
    assert (report["objects"], report["changed"], report["kept_keys"]) == (1, 1, ["k"])
    assert there.get_object(Bucket="contested", Key="k")["Body"].read() == b"written here"
