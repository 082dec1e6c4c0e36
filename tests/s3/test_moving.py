"""Import and export between two Vaultaire servers that run meanwhile: versions, locks, configuration, any key."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys

import pytest

from tests.s3.conftest import make_boto_client
from tests.s3.harness import REPOSITORY

ODD_KEYS = [
    "with space/and+plus%20percent", "ünïcödé/日本語/🜚", "//double//slashes//", "../up/../and/./down", "trailing/",
    "k" * 1024, "ü" * 512, "a", "a/", "a/b", "?query#fragment&amp;<xml>'\"", "\u00a0nbsp", "back\\slash", "~tilde*(star)",
]  # fmt: skip


def move(command, place, source, target_server, *options, status=0):
    """Run the command on the store of `target_server`, with `source` as the foreign server; its report."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "VAULTAIRE_"))},
        "AWS_ENDPOINT_URL": source.url,
        "AWS_ACCESS_KEY_ID": source.access_key,
        "AWS_SECRET_ACCESS_KEY": source.secret_key,
        "AWS_EC2_METADATA_DISABLED": "true",
        **({"AWS_CA_BUNDLE": str(source.certificate.cert)} if source.certificate else {}),
    }
    done = subprocess.run(
        [sys.executable, "-m", "vaultaire", command, place, "--data", str(target_server.data), "--json", *options],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture
def other(new_server):
    """A second server, with its client."""
    server = new_server(name="other").start()
    client = make_boto_client(server)
    yield server, client
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
    report = move("import", f"s3://{locked}", server, target, "--into", "plain")
    assert report["notes"]["retention or legal hold: the bucket here has no Object Lock"] == 2


def test_versions_need_a_bucket_that_keeps_them(s3, server, bucket, other):
    target, there = other
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    there.create_bucket(Bucket="plain")
    command = [sys.executable, "-m", "vaultaire", "import", f"s3://{bucket}", "--into", "plain", "--versions"]
    done = subprocess.run(
        [*command, "--data", str(target.data), "--endpoint-url", server.url], cwd=REPOSITORY, capture_output=True,
        text=True, timeout=120, check=False,
        env={**os.environ, "AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key,
             **({"AWS_CA_BUNDLE": str(server.certificate.cert)} if server.certificate else {})},
    )  # fmt: skip
    assert done.returncode == 1
    assert "bucket plain keeps no versions" in done.stderr
    assert "Contents" not in there.list_objects_v2(Bucket="plain")
