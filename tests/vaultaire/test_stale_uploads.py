"""Uploads that nobody goes on with are aborted, unless something happens to them or a rule decides."""

from __future__ import annotations

import pytest

from index.buckets import bucket_by_id, create_bucket
from index.configs import put_config
from index.memory_kv import MemoryKv
from index.records import PartRecord, UploadRecord
from index.tables import TABLES, UPLOADS
from index.uploads import create_upload, put_part
from vaultaire.s3.lifecycle import DAY_MS, Filter, Rule
from vaultaire.s3.stored_lifecycle import CONFIG, wrap_rules
from vaultaire.stale_uploads import PASS_SECONDS, StaleUploads

NOW = 1000 * DAY_MS


class World:
    def __init__(self) -> None:
        self.kv = MemoryKv(TABLES)
        self.now_ms = NOW
        self.told = []

    def bucket(self, name: str, *rules: Rule) -> int:
        def make(txn) -> int:
            bucket = create_bucket(txn, name, "o", 0)
            if rules:
                put_config(txn, bucket.id, CONFIG, wrap_rules(rules))
            return bucket.id

        return self.kv.commit(make)

    def upload(self, bucket_id: int, key: bytes, days_ago: float, part_days_ago: float | None = None) -> None:
        began = int(self.now_ms - days_ago * DAY_MS)

        def make(txn) -> None:
            upload = create_upload(txn, bucket_id, UploadRecord("", key, "o", began), b"8 random")
            if part_days_ago is not None:
                at = int(self.now_ms - part_days_ago * DAY_MS)
                part = PartRecord(1, 3, "0" * 32, at, b"manifest")
                put_part(txn, bucket_by_id(txn, bucket_id), key, upload.upload_id, part, 1)

        self.kv.commit(make)

    def left(self) -> list[bytes]:
        with self.kv.snapshot() as reader:
            return sorted(UploadRecord.decode(value).key for _, value in reader.scan(UPLOADS))

    def stale(self, days: float = 7) -> StaleUploads:
        return StaleUploads(self.kv, days, clock=lambda: self.now_ms / 1000, on_expired=self.told.extend)


@pytest.fixture
def world() -> World:
    return World()


def test_uploads_without_activity_go(world):
    first, second = world.bucket("first"), world.bucket("second")
    world.upload(first, b"old", 7)
    world.upload(first, b"young", 6.9)
    world.upload(second, b"old with a new part", 30, 1)
    world.upload(second, b"old with an old part", 30, 7)
    stale = world.stale()
    assert sum(stale.run_slice() for _ in range(3)) == 2
    assert world.left() == [b"old with a new part", b"young"]
    assert [(each.action, each.bucket, each.key) for each in world.told] == [
        ("ExpireUpload", "first", b"old"),
        ("ExpireUpload", "second", b"old with an old part"),
    ]


def test_a_rule_of_the_bucket_decides_alone(world):
    later = Rule("later", True, filter=Filter("slow/"), abort_days=90)
    off = Rule("off", False, filter=Filter("off/"), abort_days=90)
    bucket = world.bucket("b", later, off)
    for key in (b"slow/a", b"off/a", b"else"):
        world.upload(bucket, key, 30)
    stale = world.stale()
    stale.run_slice()
    assert world.left() == [b"slow/a"]


def test_zero_days_means_never(world):
    world.upload(world.bucket("b"), b"old", 1000)
    assert world.stale(0).run_slice() == 0
    assert world.left() == [b"old"]


def test_more_than_a_page_and_again_after_an_hour(world):
    bucket = world.bucket("b")
    for number in range(501):
        world.upload(bucket, b"k%03d" % number, 8)
    stale = world.stale()
    assert [stale.run_slice() for _ in range(3)] == [500, 1, 0]
    world.upload(bucket, b"late", 8)
    assert stale.run_slice() == 0
    world.now_ms += int(PASS_SECONDS * 1000)
    assert stale.run_slice() == 1
