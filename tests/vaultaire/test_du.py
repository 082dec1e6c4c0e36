"""What `du` says of groups of keys, against counting the plain way; and what it says to people."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from cas.catalog import iterate_packs
from cas.manifest import Manifest, walk
from index import uploads
from index.buckets import get_bucket, set_versioning
from index.errors import NoSuchBucket
from index.records import ObjectRecord, PartRecord, UploadRecord
from index.versions import iterate_versions, put_object
from tests.cas.support import noise
from tests.vaultaire.collection_world import NOW_MS, World
from vaultaire import du
from vaultaire.cli.du import as_dict, remarks
from vaultaire.du import Group, Report, TooManyGroups, measure_usage

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
BUCKETS = ("a", "b")


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.space = SimpleNamespace(require=lambda: None)
    for name in BUCKETS:
        world.bucket(name)
    yield world
    world.end()


def put_inline(world, key, data, bucket):
    record = ObjectRecord(len(data), NOW_MS, MD5, "root", inline=data, new_stored_bytes=len(data))
    world.kv.commit(lambda txn: put_object(txn, get_bucket(txn, bucket), key, record, world.change()))


def put_part(world, key, data, bucket):
    """A part of an upload that is not completed."""
    upload = world.kv.commit(
        lambda txn: uploads.create_upload(
            txn, get_bucket(txn, bucket).id, UploadRecord("", key, "root", NOW_MS), bytes(8)
        )
    )
    ingest = world.chunks.ingest()
    ingest.feed(data)
    part = PartRecord(1, len(data), MD5, NOW_MS, ingest.finish().encode())

    def commit(txn):
        uploads.put_part(txn, get_bucket(txn, bucket), key, upload.upload_id, part, 1)

    world.commit(commit, ingest.publication())


def named(world):
    """(bucket, key) -> [(chunk or inline version, raw length)], parts too; versions and logical bytes besides."""
    found, versions = {}, []
    with world.kv.snapshot() as reader:
        for name in BUCKETS:
            bucket = get_bucket(reader, name)
            for key, record in iterate_versions(reader, bucket.id):
                names = found.setdefault((name, key), [])
                if record.delete_marker:
                    continue
                versions.append((name, key, record.size))
                if record.manifest is None:
                    names.append(((name, key, record.sequence), record.size))
                else:
                    names += chunks_of(world, reader, record.manifest)
            for key, upload in iterate_uploads(reader, bucket.id):
                page = uploads.list_parts(reader, bucket.id, key, upload, limit=10)
                for part in page.parts:
                    found.setdefault((name, key), []).extend(chunks_of(world, reader, part.manifest))
    return found, versions


def iterate_uploads(reader, bucket_id):
    from index.listing import list_uploads

    return [(row.key, row.upload_id) for row in list_uploads(reader, bucket_id).entries]


def chunks_of(world, reader, encoded):
    manifest = Manifest.decode(encoded)
    entries = walk(manifest.level, manifest.entries, 0, manifest.size, world.chunks._fetch_node_now)
    rows = ((entry.id, reader.get("cas.placements", entry.id)) for entry in entries)
    return [(chunk, int.from_bytes(row[23:27], "big")) for chunk, row in rows]


def plainly(world, bucket, prefix):
    """(objects, logical, unique, exclusive) of a group."""
    found, versions = named(world)

    def inside(name, key):
        return name == bucket and key.startswith(prefix)

    mine = {chunk: length for place, all_ in found.items() if inside(*place) for chunk, length in all_}
    others = {chunk for place, all_ in found.items() if not inside(*place) for chunk, _ in all_}
    sizes = [size for name, key, size in versions if inside(name, key)]
    exclusive = sum(length for chunk, length in mine.items() if chunk not in others)
    return len(sizes), sum(sizes), sum(mine.values()), exclusive


def fill(world, rng):
    """Keys in folders, some long, sharing data with each other, in two buckets, one of which keeps versions."""
    world.kv.commit(lambda txn: set_versioning(txn, get_bucket(txn, "b"), "Enabled"))
    folders = [b"", b"x/", b"x/y/", b"x/y/z/", b"x0", b"w/", b"x/" + b"long" * 150 + b"/"]
    for _ in range(30):
        key = rng.choice(folders) + b"%d" % rng.randrange(4)
        bucket = rng.choice(BUCKETS)
        shared = noise(rng.choice([2_000, 30_000]), rng.randrange(5))
        own = noise(rng.randrange(3_000), rng.randrange(1 << 30)) if rng.random() < 0.5 else b""
        kind = rng.random()
        if kind < 0.15:
            put_inline(world, key, own[:500], bucket)
        elif kind < 0.3:
            put_part(world, key, shared + own, bucket)
        elif kind < 0.4:
            world.delete(key, bucket)
        else:
            world.put(key, shared + own, bucket)


@pytest.mark.parametrize("seed", range(4))
def test_figures_of_every_group_are_exact(world, seed):
    rng = random.Random(seed)
    fill(world, rng)
    with world.kv.snapshot() as reader:
        packed = sum(row.length for _, row in iterate_packs(reader))
    for bucket, prefix, depth in (
        (None, b"", 0),
        (None, b"", 3),
        ("a", b"", 2),
        ("b", b"x/", 2),
        ("b", b"x", 1),
        ("a", b"nothing", 4),
    ):
        report = measure_usage(world, bucket, prefix, depth)
        assert report.complete
        assert not report.missing
        shown = [(group.bucket, group.prefix) for group in report.groups]
        assert shown == wanted_groups(world, bucket, prefix, depth)
        for group in report.groups:
            exact = plainly(world, group.bucket, group.prefix)
            got = (group.objects, group.logical_bytes, group.unique_bytes, group.exclusive_bytes)
            assert got == exact, group.name
            assert 0 <= group.freed_bytes <= group.stored_bytes <= packed + group.inline_bytes
            assert bool(group.freed_bytes) == bool(group.exclusive_bytes)
            if group.exclusive_bytes == group.unique_bytes:
                assert group.freed_bytes == group.stored_bytes


def wanted_groups(world, bucket, prefix, depth):
    """What has to be shown, in order."""
    found, _ = named(world)
    wanted = {(name, prefix) for name in BUCKETS if bucket in (None, name)}
    for name, key in found:
        if bucket in (None, name) and key.startswith(prefix):
            pieces = key[len(prefix) :].split(b"/")[:-1][:depth]
            wanted |= {(name, prefix + b"/".join(pieces[: n + 1]) + b"/") for n in range(len(pieces))}
    return sorted(wanted)


def test_what_two_folders_share_belongs_to_their_parent_alone(world):
    world.put(b"dir/one/k", noise(20_000), "a")
    world.put(b"dir/two/k", noise(20_000), "a")
    parent, one, two = measure_usage(world, "a", b"dir/", 1).groups
    assert (one.exclusive_bytes, two.exclusive_bytes) == (0, 0)
    assert parent.exclusive_bytes == parent.unique_bytes == 20_000
    world.put(b"elsewhere", noise(20_000), "b")
    assert measure_usage(world, "a", b"dir/").groups[0].exclusive_bytes == 0
    assert measure_usage(world, "a").groups[0].freed_bytes == 0


def test_what_is_said_to_be_freed_is_freed(world):
    """Delete the group, and ask the rest of the store what it still needs."""
    fill(world, random.Random(9))
    everything = measure_usage(world, None)
    stored = sum_of_unique(world)
    [group] = measure_usage(world, "a", b"x/").groups
    for bucket, key in [place for place in named(world)[0] if place[0] == "a" and place[1].startswith(b"x/")]:
        world.delete(key, bucket)
    for upload_key, upload in uploads_of(world, "a"):
        if upload_key.startswith(b"x/"):
            world.kv.commit(
                lambda txn, key=upload_key, upload=upload: uploads.remove_upload(
                    txn, get_bucket(txn, "a"), key, upload, 1
                )
            )
    assert stored - sum_of_unique(world) == group.exclusive_bytes
    assert len(everything.groups) == 2


def uploads_of(world, bucket):
    with world.kv.snapshot() as reader:
        return iterate_uploads(reader, get_bucket(reader, bucket).id)


def sum_of_unique(world):
    return sum({chunk: length for all_ in named(world)[0].values() for chunk, length in all_}.values())


def test_a_bucket_that_is_not_there_is_said_so(world):
    with pytest.raises(NoSuchBucket):
        measure_usage(world, "c")


def test_too_many_folders_are_refused_with_a_way_out(world, monkeypatch):
    monkeypatch.setattr(du, "MAX_GROUPS", 3)
    for number in range(3):
        put_inline(world, b"%d/k" % number, b"x", "a")
    measure_usage(world, "a", b"", 0)
    with pytest.raises(TooManyGroups, match="--depth"):
        measure_usage(world, "a", b"", 1)


def test_what_cannot_be_read_makes_it_incomplete(world):
    world.put(b"k", noise(3_000), "a")

    def hurt(txn) -> None:
        for row, value in list(txn.scan("idx.objects")):
            txn.put("idx.objects", row, value[:20])

    world.kv.commit(hurt)
    report = measure_usage(world, "b")
    assert not report.complete
    assert report.errors
    assert any("vaultaire verify" in text for text, _ in remarks(report))


def test_progress_reaches_its_end_and_never_passes_it(world):
    fill(world, random.Random(1))
    told = []
    measure_usage(world, "b", b"", 2, lambda *step: told.append(step))
    counted = [(done, total) for stage, done, total in told if stage == "counting chunks"]
    assert counted == sorted(counted)
    assert all(done <= total for done, total in counted)


@pytest.mark.parametrize(
    ("stored", "freed", "said"),
    [
        (0, 0, "Deleting a/x would free nothing: nothing is stored there."),
        (2048, 2048, "Deleting a/x would free all of its 2.0 KiB on disk: nothing else uses them."),
        (2048, 1024, "Deleting a/x would free 1.0 KiB of its 2.0 KiB on disk: something else uses the rest."),
    ],
)
def test_the_answer_is_a_sentence(stored, freed, said):
    group = Group("a", b"x", 0, stored_bytes=stored, freed_bytes=freed)
    assert remarks(Report([group])) == [(said, "")]


def test_the_shape_of_json():
    shown = as_dict(Report([Group("a", b"x/\xff", 1)]))
    assert set(shown) == {"complete", "missing_chunks", "errors", "usage"}
    assert shown["usage"][0] == {
        "name": "a/x/\ufffd",
        "bucket": "a",
        "prefix": "x/\ufffd",
        "depth": 1,
        **dict.fromkeys(
            (
                "objects",
                "logical_bytes",
                "unique_bytes",
                "stored_bytes",
                "exclusive_bytes",
                "freed_bytes",
            ),
            0,
        ),
    }
