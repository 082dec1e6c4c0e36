"""History per bucket and day: what was, and nothing invented."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from index.buckets import create_bucket, delete_bucket, get_bucket
from index.records import ObjectRecord
from index.versions import Change, delete_object, put_object
from vaultaire.bucket_writes import WHOLE_STORE, BucketWrites, Writes, add_writes, get_writes, list_writes
from vaultaire.cli import main
from vaultaire.collection_report import BUCKETS_SUBJECT
from vaultaire.history import DAY_MS, KEEP_DAYS, TABLE, Day, History, plan_added, put_days, read_history
from vaultaire.reports import put_report
from vaultaire.s3.observation import Observation
from vaultaire.s3.operation import Operation
from vaultaire.store import Store

FIRST_DAY = 20_000
MORNING = FIRST_DAY * 86_400 + 6 * 3600


class Clock:
    def __init__(self):
        self.now = float(MORNING)

    def __call__(self):
        return self.now


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "data", kind="maintenance", create=True) as opened:
        yield opened


@pytest.fixture
def clock():
    return Clock()


def make(store, name, size=0):
    """A bucket with one object of `size` bytes; its id."""

    def commit(txn):
        bucket = create_bucket(txn, name, "root", 1)
        if size:
            record = ObjectRecord(size, 1, "0" * 32, "root", inline=bytes(size))
            put_object(txn, bucket, b"key", record, Change(store.writer, 1, bytes(8)))
        return get_bucket(txn, name).id

    return store.kv.commit(commit)


def run(history):
    slices = 0
    while history.run_slice():
        slices += 1
        assert slices < 1000
    return slices


def days(store, bucket=WHOLE_STORE):
    with store.kv.snapshot() as reader:
        return list(read_history(reader, bucket))


def wrote(store, bucket, added, last_ms=1):
    store.kv.commit(lambda txn: add_writes(txn, {bucket: Writes(last_ms, added)}))


def test_each_day_says_what_was_held_and_added(store, clock):
    bucket = make(store, "photos", 100)
    wrote(store, bucket, 40)
    history = History(store, clock=clock)
    run(history)
    clock.now += 86_400
    wrote(store, bucket, 5)
    run(history)
    first, second = days(store, bucket)
    assert (first.day, first.objects, first.logical_bytes, first.added_bytes) == (FIRST_DAY, 1, 100, 40)
    assert (second.day, second.added_bytes, second.added_total) == (FIRST_DAY + 1, 5, 45)
    assert first.counted_ms == 0, "collection has not counted the bucket yet"
    assert [(day.day, day.added_bytes, day.logical_bytes) for day in days(store)] == [
        (FIRST_DAY, 40, 100),
        (FIRST_DAY + 1, 5, 100),
    ]
    assert days(store)[0].stored_bytes > 0


def test_a_day_is_counted_again_and_again_and_stays_one_row(store, clock):
    bucket = make(store, "photos", 100)
    wrote(store, bucket, 40)
    for _ in range(3):
        run(History(store, clock=clock))  # as after a restart
    history = History(store, clock=clock)
    assert run(history) == 1
    clock.now += 600
    assert run(history) == 0, "nothing to do for an hour"
    clock.now += 3600
    wrote(store, bucket, 2)
    assert run(history) == 1
    assert [(day.day, day.added_bytes) for day in days(store, bucket)] == [(FIRST_DAY, 42)]
    assert days(store, bucket)[0].at_ms == int(clock.now * 1000)


def test_a_new_day_does_not_wait_for_the_hour(store, clock):
    make(store, "photos")
    history = History(store, clock=clock)
    clock.now = (FIRST_DAY + 1) * 86_400 - 60.0
    run(history)
    clock.now += 120
    assert run(history) == 1
    assert [day.day for day in days(store)] == [FIRST_DAY, FIRST_DAY + 1]


def test_days_without_a_server_are_not_invented(store, clock):
    bucket = make(store, "photos", 10)
    wrote(store, bucket, 7)
    run(History(store, clock=clock))
    clock.now += 30 * 86_400
    wrote(store, bucket, 1)
    run(History(store, clock=clock))
    assert [(day.day - FIRST_DAY, day.added_bytes) for day in days(store, bucket)] == [(0, 7), (30, 1)]


def test_what_collection_counted_is_taken_with_its_time(store, clock):
    bucket = make(store, "photos", 10)
    usage = {str(bucket): {"unique_bytes": 9, "stored_bytes": 8, "exclusive_bytes": 7}}
    store.kv.commit(lambda txn: put_report(txn, BUCKETS_SUBJECT, {"at_ms": 1234, "buckets": usage}))
    run(History(store, clock=clock))
    (day,) = days(store, bucket)
    assert (day.unique_bytes, day.stored_bytes, day.exclusive_bytes, day.counted_ms) == (9, 8, 7, 1234)


def test_many_buckets_are_counted_in_slices(store, clock):
    def commit(txn):
        return [create_bucket(txn, f"bucket-{n:03}", "root", 1).id for n in range(450)]

    buckets = store.kv.commit(commit)
    assert run(History(store, clock=clock)) == 3
    assert all(len(days(store, bucket)) == 1 for bucket in buckets)
    assert len(days(store)) == 1


def test_history_goes_after_two_years_and_with_its_bucket(store, clock):
    bucket, gone = make(store, "photos"), make(store, "gone", 5)
    wrote(store, gone, 11)
    run(History(store, clock=clock))

    def delete(txn):
        found = get_bucket(txn, "gone")
        delete_object(txn, found, b"key", "root", Change(store.writer, 1, bytes(8)))
        delete_bucket(txn, "gone")

    store.kv.commit(delete)
    clock.now += 86_400
    run(History(store, clock=clock))
    assert days(store, gone) == []
    with store.kv.snapshot() as reader:
        assert dict(list_writes(reader)) == {WHOLE_STORE: Writes(1, 11)}
    assert [day.added_bytes for day in days(store)] == [11, 0], "the store's own history stays"
    clock.now = MORNING + KEEP_DAYS * 86_400
    run(History(store, clock=clock))
    assert [day.day - FIRST_DAY for day in days(store)] == [1, KEEP_DAYS]
    assert [day.day - FIRST_DAY for day in days(store, bucket)] == [1, KEEP_DAYS]


def test_a_failed_commit_begins_the_day_anew(store, clock, monkeypatch):
    make(store, "photos")
    history = History(store, clock=clock)
    commit = store.kv.commit

    def fail(fn):
        raise OSError("no room")

    store.kv.commit = fail
    with pytest.raises(OSError, match="no room"):
        history.run_slice()
    store.kv.commit = commit
    assert run(history) == 1


def test_rows_are_these_bytes():
    day = Day(20_000, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert day.encode().hex() == "01" + "".join(f"{number:016x}" for number in range(1, 10))
    row = bytes.fromhex("000000000000000500004e20")
    assert Day.decode(row, day.encode()) == day
    assert Day.decode(row, b"\x02" + day.encode()[1:]) is None
    assert Day.decode(row, b"") is None


def test_rows_of_writes_are_these_bytes(store):
    store.kv.commit(lambda txn: add_writes(txn, {5: Writes(0x0102, 0x03)}))
    with store.kv.snapshot() as reader:
        rows = list(reader.scan("srv.writes"))
    value = bytes.fromhex("01" + "0000000000000102" + "0000000000000003")
    assert rows == [(bytes(8), value), (bytes(7) + b"\x05", value)]


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20))
def test_added_bytes_of_all_days_are_the_total(steps):
    before, total, shown = None, 0, []
    for number, step in enumerate(steps):
        total += step
        shown.append(plan_added(before, total))
        before = Day(number, 0, 0, 0, 0, 0, 0, 0, shown[-1], total)
    assert shown == steps


# --- writes as requests bring them ---------------------------------------------------------------------------------


class Upload:
    new_stored_bytes = 30


class Call:
    upload = Upload()
    principal = None


def observed(bucket, operation, status=200, call=None):
    seen = Observation({}, "id")
    seen.found, seen.operation, seen.status, seen.call = bucket, operation, status, call
    return seen


def test_writes_are_noted_and_written_once(store, clock):
    class Bucket:
        id = 7

    writes = BucketWrites(clock)
    assert writes.plan() is None
    writes.observe(observed(Bucket, Operation.PUT_OBJECT, call=Call()))
    writes.observe(observed(Bucket, Operation.UPLOAD_PART, call=Call()))
    writes.observe(observed(Bucket, Operation.PUT_OBJECT, status=403, call=Call()))
    writes.observe(observed(Bucket, Operation.GET_OBJECT))
    writes.observe(observed(None, Operation.PUT_OBJECT, call=Call()))
    store.kv.commit(writes.plan())
    assert writes.plan() is None
    clock.now -= 10  # another worker's clock, or one that was set back
    writes.observe(observed(Bucket, Operation.COPY_OBJECT))
    store.kv.commit(writes.plan())
    with store.kv.snapshot() as reader:
        assert get_writes(reader, 7) == Writes(MORNING * 1000, 60)
        assert get_writes(reader, WHOLE_STORE) == Writes(MORNING * 1000, 60)
        assert get_writes(reader, 8) == Writes()


# --- the command ---------------------------------------------------------------------------------------------------


def test_stats_shows_the_history(tmp_path):
    data = tmp_path / "data"
    with Store.open(data, kind="command", create=True) as store:
        bucket = make(store, "photos", 2048)
        day = Day(FIRST_DAY, MORNING * 1000, 3, 2048, 0, 0, 0, 0, 1536, 1536)
        store.kv.commit(lambda txn: put_days(txn, [(bucket, day), (WHOLE_STORE, day)]))

    def stats(*arguments, status=0):
        done = CliRunner().invoke(main, ["stats", "--data", str(data), *arguments])
        assert done.exit_code == status, done.output
        return done.output

    assert stats("--history").splitlines()[1].split() == (
        ["2024-10-04", "3", "2.0", "KiB", "-", "-", "-", "1.5", "KiB"]
    )
    shown = json.loads(stats("--history", "--bucket", "photos", "--json"))
    assert shown == {
        "bucket": "photos",
        "days": [
            {
                "day": "2024-10-04",
                "at_ms": MORNING * 1000,
                "objects": 3,
                "logical_bytes": 2048,
                "unique_bytes": None,
                "stored_bytes": None,
                "exclusive_bytes": None,
                "counted_ms": None,
                "added_bytes": 1536,
            }
        ],
    }
    assert "no bucket" in stats("--history", "--bucket", "nobody", status=1)
    assert "--history" in stats("--bucket", "photos", status=2)
    assert DAY_MS == 86_400_000
    assert TABLE == "srv.history"
