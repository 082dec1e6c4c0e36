"""Verification beside everything else that happens to a store: whatever comes in between, never a false alarm."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cas.catalog import PackState, condemn, forget_pack, iterate_packs
from tests.s3.conftest import certificate, make_boto_client, new_server, variant  # noqa: F401  # a fixture  # noqa: F401  # that it needs
from tests.vaultaire.verify_support import Client, _bucket, fill
from vaultaire.store import Store
from vaultaire.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable


class Meddler:
    """Called at every step of a verification: does some of what clients, collection and maintenance do."""

    def __init__(self, store: Store, seed: int, often: float) -> None:
        self.store = store
        self.client = Client(store, seed)
        self.rng = random.Random(seed)
        self.often = often
        self.now = time.monotonic()
        self.done: dict[str, int] = {}
        self.stages: set[str] = set()
        self._waiting: list[Callable[[], None]] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.stages.add(stage)
        if self.rng.random() < self.often:
            action = self._next()
            action()
            self.done[action.__name__] = self.done.get(action.__name__, 0) + 1

    def _next(self) -> Callable[[], None]:
        """Each comes once before one comes twice."""
        if not self._waiting:
            self._waiting = [
                self.put,
                self.overwrite,
                self.delete,
                self.copy,
                self.upload,
                self.seal,
                self.collect,
            ]
            self.rng.shuffle(self._waiting)
        return self._waiting.pop()

    def bucket(self):
        return _bucket(self.store, self.rng.choice(["plain", "versioned", "suspended"]))

    def data(self) -> bytes:
        return self.rng.randbytes(self.rng.choice([10, 5_000, 60_000, 400_000]))

    def put(self) -> None:
        self.client.put(self.bucket(), b"new %d" % self.rng.randrange(30), self.data())

    def overwrite(self) -> None:
        self.client.put(self.bucket(), self.rng.choice([b"doc", b"noise", b"text"]), self.data())

    def delete(self) -> None:
        self.client.delete(
            self.bucket(), self.rng.choice([b"doc", b"noise", b"new %d" % self.rng.randrange(30)])
        )

    def copy(self) -> None:
        self.client.copy(_bucket(self.store, "plain"), b"composed", (b"big", 5, 4 << 20), (b"big", 0, 99_999))

    def upload(self) -> None:
        self.client.upload_part(
            _bucket(self.store, "plain"), b"parts %d" % self.rng.randrange(9), self.data()
        )

    def seal(self) -> None:
        self.store.chunks.seal_idle(time.monotonic() + 10_000)

    def collect(self) -> None:
        """What collection does to a pack in which nothing lives: here one that a deleted object had to itself."""
        bucket = _bucket(self.store, "plain")
        self.seal()
        self.client.put(bucket, b"short-lived", self.rng.randbytes(20_000))
        self.seal()
        with self.store.kv.snapshot() as reader:
            pack, row = max((p, r) for p, r in iterate_packs(reader, self.store.writer) if r.kind == 1)
        self.client.delete(bucket, b"short-lived")
        if row.state != PackState.SEALED:
            return
        self.store.kv.commit(lambda txn: condemn(txn, [pack]))

        def forget(txn):
            for chunk, value in list(txn.scan("cas.placements")):
                if value[1:9] == pack.to_bytes(8, "big"):
                    txn.delete("cas.placements", chunk)
            forget_pack(txn, pack)

        self.store.kv.commit(forget)
        self.store.packs.remove(pack)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_between_two_steps_is_no_damage(tmp_path, seed):
    fill(tmp_path / "store")
    with Store.open(tmp_path / "store", kind="command") as store:
        meddler = Meddler(store, seed, often=0.1)
        for options in ({}, {"read_data": True}):
            report = verify(store, on_progress=meddler, **options)
            assert [finding.message for finding in report.findings] == []
            assert report.skipped == []
        assert meddler.stages >= {"metadata", "names", "placements", "packs", "objects"}
        assert len(meddler.done) == 7
        assert verify(store, read_data=True).clean


@pytest.mark.parametrize("sealing", [False, True])
def test_a_pack_that_grows_or_is_sealed_while_it_is_read_is_no_damage(tmp_path, sealing):
    with Store.open(tmp_path / "store", kind="command", create=True) as store:
        client = Client(store)
        bucket = client.bucket("b")
        client.put(bucket, b"first", client.rng.randbytes(300_000))
        grown = []

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage == "packs" and len(grown) < 5:
                grown.append(client.put(bucket, b"more", client.rng.randbytes(20_000)))
                if sealing:
                    store.chunks.seal_idle(time.monotonic() + 10_000)

        report = verify(store, on_progress=on_progress, read_data=True)
        assert [finding.message for finding in report.findings] == []
        assert len(grown) == 5
        assert verify(store).clean


def test_checkpoints_that_cut_the_journal_meanwhile_are_no_damage(tmp_path):
    fill(tmp_path / "store")
    with Store.open(tmp_path / "store", kind="command") as store:
        client = Client(store)
        for _ in range(3):
            client.put(_bucket(store, "plain"), b"inline", b"again")
            store.kv.write_checkpoint()
        stop = threading.Event()

        def write_checkpoints() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                store.kv.commit(lambda txn, n=n: txn.put("srv.settings", b"n", b"%d" % n))
                store.kv.write_checkpoint()

        thread = threading.Thread(target=write_checkpoints)
        thread.start()
        try:
            for _ in range(5):
                assert [finding.message for finding in verify(store).findings] == []
        finally:
            stop.set()
            thread.join()


@pytest.mark.slow
def test_a_live_server_with_writers_is_clean(new_server):  # noqa: F811
    with new_server(workers=2) as server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="live")
        s3.create_bucket(Bucket="versions")
        s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
        stop = threading.Event()
        failures: list[Exception] = []

        def write(seed: int) -> None:
            rng = random.Random(seed)
            client = make_boto_client(server)
            try:
                while not stop.wait(0.1):
                    bucket, key = rng.choice(["live", "versions"]), f"k{rng.randrange(20)}"
                    if rng.random() < 0.2:
                        client.delete_object(Bucket=bucket, Key=key)
                    else:
                        body = rng.randbytes(rng.choice([100, 30_000, 300_000]))
                        client.put_object(Bucket=bucket, Key=key, Body=body)
            except Exception as error:
                failures.append(error)
            finally:
                client.close()

        writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
        for writer in writers:
            writer.start()
        try:
            for options in ((), ("--read-data",)):
                done = server.cli("verify", "--json", *options, check=False)
                document = json.loads(done.stdout)
                assert document["findings"] == []
                assert document["skipped"] == []
                assert done.returncode == 0
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        s3.close()
        assert failures == []
        assert json.loads(server.cli("verify", "--json", "--read-data").stdout)["clean"]
        server.stop()
        assert json.loads(server.cli("verify", "--json", "--read-data").stdout)["clean"]
