"""Backups of a running server, to a folder and to a second server: taken while clients write, restored, served again.

The long ones: timeout 580 python -m pytest -m full tests/s3/test_backup.py
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.s3.conftest import make_boto_client
from tests.s3.expect import contents_of
from tests.s3.harness import REPOSITORY, Certificate
from tests.s3.test_rebuild import fill, picture

MIB = 1 << 20


class Writers:
    """Clients that put, overwrite and delete until told to stop; what was acknowledged is known at every moment."""

    def __init__(self, server, seed, threads=3):
        self.server = server
        self.seed = seed
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.states = {}  # key -> [digest or None, ...]: every state that was ever asked for
        self.acknowledged = {}  # key -> index into its states: the newest acknowledged
        self.failures = []
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        assert not self.failures

    def _run(self, number):
        rng = random.Random(f"{self.seed}/{number}")
        s3 = make_boto_client(self.server)
        try:
            while not self.stopping.is_set():
                self._step(s3, rng, f"{number}/{rng.randrange(12)}")
        except Exception as error:  # told by the main thread
            self.failures.append(error)
        finally:
            s3.close()

    def _step(self, s3, rng, key):
        data = rng.randbytes(rng.choice([100, 20_000, 300_000])) if rng.random() < 0.75 else None
        with self.lock:
            states = self.states.setdefault(key, [None])
            states.append(data and hashlib.sha256(data).hexdigest())
            index = len(states) - 1
        if data is None:
            s3.delete_object(Bucket="busy", Key=key)
        else:
            s3.put_object(Bucket="busy", Key=key, Body=data)
        with self.lock:
            self.acknowledged[key] = index

    def moment(self):
        with self.lock:
            return {key: self.acknowledged.get(key, 0) for key in self.states}

    def assert_one_moment(self, found, before, after):
        """Of each key `found` holds a state not older than `before` and not newer than `after`."""
        for key, states in self.states.items():
            digest = found.get(key)
            allowed = states[before.get(key, 0) : after.get(key, 0) + 2]
            assert digest in allowed, (key, digest, allowed)
        assert set(found) <= set(self.states)


def digests_of(server, bucket):
    s3 = make_boto_client(server)
    try:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {
            key: hashlib.sha256(s3.get_object(Bucket=bucket, Key=key)["Body"].read()).hexdigest()
            for key in keys
        }
    finally:
        s3.close()


def cli_json(server, *arguments, env=None):
    command = [sys.executable, "-m", "vaultaire", *map(str, arguments), "--json"]
    environment = {
        **server._environment(),
        "VAULTAIRE_DATA": str(server.data),
        "NO_COLOR": "1",
        **(env or {}),
    }
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


def restored(server, new_server, place, *arguments, env=None):
    """A server, not yet started, over the restored copy."""
    copy = new_server(name=f"restored-{len(list(server.data.parent.iterdir()))}")
    cli_json(server, "restore", place, "--data", copy.data, *arguments, env=env)
    return copy


@pytest.mark.subset
def test_a_restored_store_shows_all_that_the_original_showed(new_server, rng, tmp_path):
    server = new_server()
    with server:
        s3 = make_boto_client(server)
        fill(s3, rng)
        s3.close()
        before = picture(server)
        cli_json(server, "backup", tmp_path / "backups")
        with restored(server, new_server, tmp_path / "backups") as copy:
            assert picture(copy) == before
            s3 = make_boto_client(copy)
            s3.put_object(Bucket="one", Key="new", Body=b"after the restore")
            assert contents_of(s3, "one")
            s3.close()


@pytest.mark.full
def test_backups_taken_while_clients_write_hold_one_moment_each(new_server, tmp_path):
    place = tmp_path / "backups"
    with new_server() as server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="busy")
        s3.close()
        moments = []
        with Writers(server, "busy") as writers:
            for _ in range(2):
                before = writers.moment()
                report = cli_json(server, "backup", place)
                moments.append((report["number"], before, writers.moment()))
    for number, before, after in moments:
        with restored(server, new_server, place, "--backup", str(number)) as copy:
            writers.assert_one_moment(digests_of(copy, "busy"), before, after)


@pytest.mark.full
def test_the_second_backup_moves_only_what_is_new(new_server, rng, tmp_path):
    with new_server() as server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="large", Body=rng.randbytes(20 * MIB))
        first = cli_json(server, "backup", tmp_path / "backups")
        s3.put_object(Bucket="bucket", Key="small", Body=rng.randbytes(MIB))
        second = cli_json(server, "backup", tmp_path / "backups")
        s3.close()
    assert first["new_bytes"] > 20 * MIB
    assert MIB < second["new_bytes"] < 1.2 * MIB
    assert second["total_bytes"] > 21 * MIB


@pytest.mark.full
def test_killed_in_the_middle_it_never_looks_complete_and_is_gone_on_with(new_server, rng, tmp_path):
    place = tmp_path / "backups"
    with new_server() as server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="bucket")
        for n in range(4):
            s3.put_object(Bucket="bucket", Key=f"{n}", Body=rng.randbytes(8 * MIB))
        before = contents_of(s3, "bucket")
        s3.close()
        for round_number in (1, 6, 9):
            process = subprocess.Popen(
                [sys.executable, "-m", "vaultaire", "backup", str(place), "--data", str(server.data)],
                cwd=REPOSITORY,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            deadline = time.monotonic() + 60
            # The Nth visible step: a moment that depends on what was done, not on the machine.
            while process.poll() is None and time.monotonic() < deadline:
                if sum(1 for _ in place.rglob("*")) > round_number:
                    process.send_signal(signal.SIGKILL)
                    break
            process.wait()
            listed = list((place / "backups").glob("*.json"))
            if listed:
                cli_json(server, "backup", place, "--check")
        assert server.alive()
        cli_json(server, "backup", place)
        cli_json(server, "backup", place, "--check")
        with restored(server, new_server, place) as copy:
            s3 = make_boto_client(copy)
            assert contents_of(s3, "bucket") == before
            s3.close()


@pytest.mark.full
def test_a_flipped_byte_is_found_by_check_and_by_restore(new_server, rng, tmp_path):
    place = tmp_path / "backups"
    with new_server() as server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="k", Body=rng.randbytes(MIB))
        s3.close()
        server.cli("backup", str(place))
        victim = max((place / "pieces").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
        checked = server.cli("backup", str(place), "--check", check=False)
        assert checked.returncode == 1
        assert "DAMAGED: packs/" in checked.stdout
        assert "--full" in checked.stderr
        refused = server.cli("restore", str(place), "--data", str(tmp_path / "new"), check=False)
        assert refused.returncode == 1
        assert "--with-damage" in refused.stderr
        assert not (tmp_path / "new" / "store.json").exists()
        server.cli("backup", str(place), "--full")
        server.cli("backup", str(place), "--check")
        server.cli("restore", str(place), "--data", str(tmp_path / "new"))


# --- to a second server ---


@pytest.fixture
def second(new_server, tmp_path):
    """Another Vaultaire server with the bucket "backups", and the environment that leads there."""
    server = new_server(name="second")
    if server.certificate:
        server.certificate = Certificate.create(tmp_path, authority=False)
    with server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="backups")
        s3.close()
        yield server


def towards(server):
    env = {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": "us-east-1",
    }
    if server.certificate:
        env["AWS_CA_BUNDLE"] = str(server.certificate.cert)
    return env


def test_backups_to_a_second_server_are_taken_checked_pruned_and_restored(new_server, second, rng):
    env, place = towards(second), "s3://backups/mine/here"
    with new_server() as server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="bucket")
        for n in range(3):
            s3.put_object(Bucket="bucket", Key=f"{n}", Body=rng.randbytes(3 * MIB))
            report = cli_json(server, "backup", place, "--keep", "2", env=env)
        before = contents_of(s3, "bucket")
        s3.close()
        assert report["number"] == 3
        assert report["removed"] == [1]
        assert report["new_bytes"] < 4 * MIB
        assert cli_json(server, "backup", place, "--check", env=env)["is_whole"]
        there = make_boto_client(second)
        keys = [o["Key"] for o in there.list_objects_v2(Bucket="backups")["Contents"]]
        assert all(key.startswith("mine/here/") for key in keys)
        with restored(server, new_server, place, env=env) as copy:
            s3 = make_boto_client(copy)
            assert contents_of(s3, "bucket") == before
            s3.close()
        piece = max(keys, key=lambda key: there.head_object(Bucket="backups", Key=key)["ContentLength"])
        there.put_object(Bucket="backups", Key=piece, Body=b"something else")
        there.close()
        done = server.cli("restore", place, "--data", str(server.data.parent / "x"), check=False)
        assert done.returncode == 1  # without the environment that leads there


@pytest.mark.full
def test_what_keeps_a_bucket_from_being_used_is_said(new_server, second):
    with new_server() as server:
        for change, place, said in (
            ({}, "s3://nosuchbucket/x", "bucket"),
            ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://backups/x", "AWS_SECRET_ACCESS_KEY"),
            ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://backups/x", "AWS_ENDPOINT_URL"),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "vaultaire", "backup", place, "--data", str(server.data)],
                cwd=REPOSITORY,
                env={**os.environ, **towards(second), **change},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 1
            assert said in done.stderr, done.stderr
            assert "Traceback" not in done.stderr


# --- beside collection ---


@pytest.mark.full
def test_backups_beside_collection_and_churn_hold_one_moment_each(new_server, tmp_path):
    """timeout 600 python -m pytest -m full tests/s3/test_backup.py -k churn"""
    place = tmp_path / "backups"
    with new_server() as server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="busy")
        s3.close()
        moments = []
        collected = threading.Event()
        with Writers(server, "churn") as writers:
            collector = threading.Thread(target=collect_until, args=(server, writers.stopping, collected))
            collector.start()
            for _ in range(6):
                before = writers.moment()
                report = cli_json(server, "backup", place)
                assert report["damaged"] == {}
                moments.append((report["number"], before, writers.moment()))
        collector.join()
        assert collected.is_set()
        cli_json(server, "backup", place, "--check")
    for number, before, after in moments:
        with restored(server, new_server, place, "--backup", str(number)) as copy:
            writers.assert_one_moment(digests_of(copy, "busy"), before, after)
            assert copy.cli("gc").returncode == 0  # what was being collected at that moment is finished here
            writers.assert_one_moment(digests_of(copy, "busy"), before, after)


def collect_until(server, stopping, collected):
    while not stopping.is_set():
        if "Error" not in server.cli("gc", check=False).stderr:
            collected.set()
