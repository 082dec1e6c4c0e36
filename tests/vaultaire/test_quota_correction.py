"""Stored bytes as quotas count them, set right by each mark of collection."""

from __future__ import annotations

import pytest

from index import quotas
from index.buckets import get_bucket
from index.quotas import Limits
from tests.cas.support import noise
from tests.vaultaire.collection_world import World
from vaultaire.collection_report import BUCKETS_SUBJECT
from vaultaire.reports import get_report


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    for name in ("b", "c"):
        world.bucket(name)
    world.kv.commit(lambda txn: quotas.set_tenant_limits(txn, "root", Limits(stored_bytes=1 << 30)))
    yield world
    world.end()


def stored(world, *names):
    with world.kv.snapshot() as reader:
        found = [quotas.bucket_usage(reader, get_bucket(reader, name).id).stored_bytes for name in names]
        assert quotas.tenant_usage(reader, "root").stored_bytes == sum(
            quotas.bucket_usage(reader, get_bucket(reader, name).id).stored_bytes for name in ("b", "c")
        )
    return found


def measured(world, *names):
    """What the last mark found."""
    with world.kv.snapshot() as reader:
        report = get_report(reader, BUCKETS_SUBJECT)["buckets"]
        return [report[str(get_bucket(reader, name).id)]["stored_bytes"] for name in names]


def test_a_mark_replaces_what_was_counted_by_what_is_needed(world):
    """The world's uploads say that they added nothing: all that is known comes from marks."""
    world.put(b"k", noise(30_000), "b")
    world.put(b"k", noise(30_000), "c")  # a copy: it adds nothing, and needs as much
    assert stored(world, "b", "c") == [0, 0]
    world.seal()
    world.collect()
    before = stored(world, "b", "c")
    assert min(before) >= 30_000
    assert before == measured(world, "b", "c")
    world.collect()
    assert stored(world, "b", "c") == before
    world.delete(b"k", "b")
    world.collect()
    assert stored(world, "b") == [0]
    assert stored(world, "c") == measured(world, "c")
    assert stored(world, "c")[0] >= 30_000


def test_a_mark_that_could_not_read_everything_corrects_nothing(world):
    world.put(b"k", noise(30_000), "b")
    world.seal()
    world.collect()
    before = stored(world, "b", "c")

    def hurt(txn) -> None:
        for row, value in list(txn.scan("idx.objects")):
            txn.put("idx.objects", row, value[:20])

    world.kv.commit(hurt)
    world.collect()
    assert stored(world, "b", "c") == before


def test_what_is_uploaded_after_a_mark_counts_on_top(world):
    from index.records import ObjectRecord
    from index.versions import put_object

    world.put(b"k", noise(30_000), "b")
    world.seal()
    world.collect()
    [marked] = stored(world, "b")
    record = ObjectRecord(
        5, 1, "d41d8cd98f00b204e9800998ecf8427e", "root", inline=b"12345", new_stored_bytes=5
    )
    world.kv.commit(lambda txn: put_object(txn, get_bucket(txn, "b"), b"i", record, world.change()))
    assert stored(world, "b") == [marked + 5]
    world.collect()
    assert stored(world, "b") == [marked + 5]
