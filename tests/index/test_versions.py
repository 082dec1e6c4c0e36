"""Versions: what a key shows in the three states of a bucket, and that no change takes away a locked version."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import listing, locks
from index.counters import NamesStatistics, statistics
from index.errors import CorruptRecord, NoObjectLock, VersionLocked, WouldOverwrite
from index.memory_kv import MemoryKv
from index.objects import get_object
from index.records import BucketRecord, DefaultRetention, ObjectRecord, Retention, decode_listing
from index.tables import META, NULL_VERSIONS, OBJECTS, TABLES, VERSIONS
from index.versions import (
    Change,
    Deletion,
    delete_object,
    delete_version,
    get_newest,
    get_version,
    iterate_versions,
    null_sequence,
    put_object,
    replace_object,
    set_legal_hold,
    set_retention,
)

OFF = BucketRecord(2, "b", "o", 1, object_lock=True)  # so that locks can be put, whatever the versioning
ENABLED = replace(OFF, versioning="Enabled")
SUSPENDED = replace(OFF, versioning="Suspended")
NOW = 1_000_000
CHANGE = Change(1, NOW, b"8 random")
BYPASS = replace(CHANGE, bypass=True)
GOVERNANCE = Retention("GOVERNANCE", NOW + 1)
COMPLIANCE = Retention("COMPLIANCE", NOW + 1)
LONG = b"k" * 900


def body(text: bytes, **fields) -> ObjectRecord:
    return ObjectRecord(len(text), 1, "d41d8cd98f00b204e9800998ecf8427e", "o", inline=text, **fields)


class Names:
    """One bucket's key, seen as its users see it."""

    def __init__(self, key: bytes = LONG) -> None:
        self.kv = MemoryKv(TABLES)
        self.key = key

    def put(self, bucket, text=b"", change=CHANGE, **fields):
        return self.kv.commit(lambda txn: put_object(txn, bucket, self.key, body(text, **fields), change))

    def delete(self, bucket, change=CHANGE) -> Deletion:
        return self.kv.commit(lambda txn: delete_object(txn, bucket, self.key, "o", change))

    def remove(self, bucket, version_id, change=CHANGE):
        return self.kv.commit(lambda txn: delete_version(txn, bucket, self.key, version_id, change))

    def get(self, version_id):
        with self.kv.snapshot() as reader:
            return get_version(reader, OFF.id, self.key, version_id)

    def current(self) -> bytes | None:
        with self.kv.snapshot() as reader:
            record = get_object(reader, OFF.id, self.key)
        return None if record is None else record.inline

    def versions(self) -> list[bytes | None]:
        """Bodies, the newest first; None: a delete marker."""
        with self.kv.snapshot() as reader:
            rows = listing.list_versions(reader, OFF.id).entries
        assert [row.latest for row in rows] == [True] * bool(rows) + [False] * (len(rows) - 1)
        return [ObjectRecord.decode(row.value).inline for row in rows]

    def count(self) -> tuple[int, int]:
        with self.kv.snapshot() as reader:
            found = statistics(reader, OFF.id)
        return found.objects, found.logical_bytes

    def rows(self, *tables) -> int:
        with self.kv.snapshot() as reader:
            return sum(1 for table in tables for _ in reader.scan(table))


@pytest.fixture
def names() -> Names:
    return Names()


# --- Enabled ---------------------------------------------------------------------------------------------------


def test_enabled_put_keeps_every_version_under_its_id(names):
    ids = [names.put(ENABLED, text) for text in (b"a", b"bb", b"ccc")]
    assert len(set(ids)) == 3
    assert ids == sorted(ids)
    assert [names.get(i).inline for i in ids] == [b"a", b"bb", b"ccc"]
    assert names.current() == b"ccc"
    assert names.versions() == [b"ccc", b"bb", b"a"]
    assert names.count() == (3, 6)


def test_enabled_put_keeps_what_was_there_before_versioning_as_the_null_version(names):
    names.put(OFF, b"old")
    names.put(ENABLED, b"new")
    assert names.get(None).inline == b"old"
    assert names.versions() == [b"new", b"old"]
    with names.kv.snapshot() as reader:
        assert null_sequence(reader, OFF.id, LONG) == 1


def test_enabled_delete_hides_the_object_behind_a_marker(names):
    version_id = names.put(ENABLED, b"a")
    deletion = names.delete(ENABLED)
    assert deletion.marker
    assert deletion.version_id not in (None, version_id)
    assert names.current() is None
    assert names.rows(OBJECTS) == 0
    assert names.versions() == [None, b"a"]
    assert names.get(version_id).inline == b"a"
    assert names.get(deletion.version_id).delete_marker
    assert names.count() == (1, 1)
    with names.kv.snapshot() as reader:
        assert get_newest(reader, OFF.id, LONG).delete_marker


def test_enabled_delete_of_nothing_makes_a_marker_and_so_does_another_delete(names):
    assert names.delete(ENABLED).version_id != names.delete(ENABLED).version_id
    assert names.versions() == [None, None]
    assert names.count() == (0, 0)


def test_enabled_two_deletes_in_one_commit_are_one_marker(names):
    names.put(ENABLED, b"a")

    def twice(txn):
        return [delete_object(txn, ENABLED, LONG, "o", CHANGE) for _ in range(2)]

    first, second = names.kv.commit(twice)
    assert first == second
    assert names.versions() == [None, b"a"]


def test_enabled_two_versions_in_one_commit_are_refused(names):
    def put_twice(txn):
        put_object(txn, ENABLED, LONG, body(b"a"), CHANGE)
        put_object(txn, ENABLED, LONG, body(b"b"), CHANGE)

    def put_and_delete(txn):
        put_object(txn, ENABLED, LONG, body(b"a"), CHANGE)
        delete_object(txn, ENABLED, LONG, "o", CHANGE)

    def delete_and_put(txn):
        delete_object(txn, ENABLED, LONG, "o", CHANGE)
        put_object(txn, ENABLED, LONG, body(b"a"), CHANGE)

    for both in (put_twice, put_and_delete, delete_and_put):
        with pytest.raises(ValueError, match="one version per commit"):
            names.kv.commit(both)
    assert names.versions() == []


def test_removing_a_marker_shows_the_object_again(names):
    names.put(ENABLED, b"a")
    first, second = names.delete(ENABLED), names.delete(ENABLED)
    names.remove(ENABLED, first.version_id)
    assert names.current() is None
    names.remove(ENABLED, second.version_id)
    assert names.current() == b"a"
    assert names.versions() == [b"a"]
    assert names.rows(VERSIONS) == 0


def test_removing_the_current_version_shows_the_next_object_or_nothing(names):
    ids = [names.put(ENABLED, text) for text in (b"a", b"b")]
    assert names.remove(ENABLED, ids[1]).inline == b"b"
    assert names.current() == b"a"
    names.delete(ENABLED)
    newest = names.put(ENABLED, b"c")
    names.remove(ENABLED, newest)
    assert names.current() is None
    assert names.versions() == [None, b"a"]
    assert names.count() == (1, 1)


def test_removing_an_older_version_leaves_what_shows(names):
    ids = [names.put(ENABLED, text) for text in (b"a", b"b", b"c")]
    names.remove(ENABLED, ids[1])
    assert names.versions() == [b"c", b"a"]
    assert names.get(ids[1]) is None


def test_removing_what_is_not_there_changes_nothing(names):
    names.put(ENABLED, b"a")
    for version_id in (
        None,
        b"",
        b"short",
        bytes(16),
        b"\xff" * 16,
        (1).to_bytes(8, "big") + b"9 random"[:8],
    ):
        assert names.remove(ENABLED, version_id) is None
    assert names.versions() == [b"a"]


@pytest.mark.parametrize("key", [b"k", LONG, b"\x00" * 1024])
def test_removing_every_version_leaves_no_row(key):
    names = Names(key)
    ids = [names.put(OFF, b"z"), names.put(ENABLED, b"a"), names.delete(ENABLED).version_id]
    ids += [names.put(ENABLED, b"b"), names.delete(ENABLED).version_id]
    for version_id in ids:
        assert names.remove(ENABLED, version_id) is not None
    assert names.rows(*(table for table in TABLES if table not in (META, "idx.counters"))) == 0
    assert names.count() == (0, 0)


# --- Suspended -------------------------------------------------------------------------------------------------


def test_suspended_put_replaces_the_null_version_where_it_shows(names):
    names.put(SUSPENDED, b"a")
    assert names.put(SUSPENDED, b"bb") is None
    assert names.versions() == [b"bb"]
    assert names.count() == (1, 2)


def test_suspended_put_replaces_the_null_version_under_others(names):
    names.put(OFF, b"null")
    ids = [names.put(ENABLED, text) for text in (b"a", b"b")]
    names.put(SUSPENDED, b"new")
    assert names.versions() == [b"new", b"b", b"a"]
    assert names.get(None).inline == b"new"
    assert [names.get(i).inline for i in ids] == [b"a", b"b"]
    assert names.rows(NULL_VERSIONS) == 0
    assert names.count() == (3, 5)


def test_suspended_delete_leaves_a_null_marker_in_place_of_the_null_version(names):
    names.put(OFF, b"null")
    version_id = names.put(ENABLED, b"a")
    assert names.delete(SUSPENDED) == Deletion(marker=True, version_id=None)
    assert names.versions() == [None, b"a"]
    assert names.get(None).delete_marker
    assert names.delete(SUSPENDED) == Deletion(marker=True, version_id=None)
    assert names.versions() == [None, b"a"]
    assert names.count() == (1, 1)
    names.put(SUSPENDED, b"new")
    assert names.versions() == [b"new", b"a"]
    assert names.get(version_id).inline == b"a"


def test_suspended_delete_twice_in_one_commit_is_one_marker(names):
    names.put(SUSPENDED, b"a")
    names.kv.commit(lambda txn: [delete_object(txn, SUSPENDED, LONG, "o", CHANGE) for _ in range(2)])
    assert names.versions() == [None]


def test_removing_the_null_marker_shows_the_version_below(names):
    names.put(ENABLED, b"a")
    names.delete(SUSPENDED)
    assert names.remove(SUSPENDED, None).delete_marker
    assert names.current() == b"a"
    assert names.rows(NULL_VERSIONS, VERSIONS) == 0


def test_a_null_version_that_shows_again_is_still_replaced(names):
    names.put(OFF, b"null")
    version_id = names.put(ENABLED, b"a")
    names.remove(ENABLED, version_id)
    assert names.current() == b"null"
    assert names.rows(NULL_VERSIONS) == 0
    names.put(SUSPENDED, b"new")
    assert names.versions() == [b"new"]


def test_finding_the_null_version_costs_lookups_whatever_the_number_of_versions(names):
    names.put(OFF, b"null")
    for _ in range(50):
        names.put(ENABLED, b"a")

    class Counting:
        reads = 0

        def __init__(self, reader) -> None:
            self._reader = reader

        def get(self, table, key):
            self.reads += 1
            return self._reader.get(table, key)

    with names.kv.snapshot() as reader:
        counting = Counting(reader)
        assert get_version(counting, OFF.id, b"k", None) is None
        assert get_version(counting, OFF.id, LONG, None).inline == b"null"
    assert counting.reads < 15  # a long key's nodes included


def test_a_null_version_that_is_not_where_it_was_put_is_damage(names):
    names.put(OFF, b"null")
    names.put(ENABLED, b"a")

    def lose(txn):
        for row, value in list(txn.scan(VERSIONS)):
            if len(value) > 8 and decode_listing(value).version_id is None:
                txn.delete(VERSIONS, row)

    names.kv.commit(lose)
    with pytest.raises(CorruptRecord):
        names.get(None)


def test_every_version_is_iterated_once(names):
    names.put(OFF, b"null")
    names.put(ENABLED, b"a")
    names.delete(ENABLED)
    names.key = b"other"
    names.put(ENABLED, b"b")
    with names.kv.snapshot() as reader:
        found = list(iterate_versions(reader, OFF.id))
    assert sorted((key, record.inline or b"") for key, record in found) == sorted(
        [(LONG, b"null"), (LONG, b"a"), (LONG, b""), (b"other", b"b")]
    )


def test_listing_objects_reads_no_row_of_other_versions(names):
    for _ in range(20):
        names.put(ENABLED, b"a")
        names.delete(ENABLED)

    class Watched:
        def __init__(self, reader) -> None:
            self._reader = reader

        def get(self, table, key):
            return self._reader.get(table, key)

        def scan(self, table, *bounds, **options):
            assert table == OBJECTS
            rows = list(self._reader.scan(table, *bounds, **options))
            assert rows == []
            return iter(rows)

    with names.kv.snapshot() as reader:
        assert listing.list_objects(Watched(reader), OFF.id).entries == []


# --- Object Lock: the decisions --------------------------------------------------------------------------------


@pytest.mark.parametrize("bypass", [False, True])
@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
def test_retention_holds_until_its_instant(mode, bypass):
    record = body(b"a", retention=Retention(mode, NOW))
    passes = bypass and mode == "GOVERNANCE"
    assert locks.may_remove(record, NOW - 1, bypass=bypass) is passes
    assert locks.may_remove(record, NOW, bypass=bypass) is True


def test_a_legal_hold_holds_whatever_the_retention_and_the_caller():
    for retention in (None, Retention("GOVERNANCE", 1), GOVERNANCE, COMPLIANCE):
        record = body(b"a", retention=retention, legal_hold=True)
        assert not locks.may_remove(record, NOW, bypass=True)
    assert locks.may_remove(body(b"a", legal_hold=False), NOW, bypass=False)


retentions = st.none() | st.builds(
    Retention, st.sampled_from(("GOVERNANCE", "COMPLIANCE")), st.integers(0, 20)
)


@given(retentions, retentions, st.integers(0, 20), st.booleans())
def test_no_accepted_change_lets_a_version_go_earlier_unless_governance_is_bypassed(
    before, after, now, bypass
):
    if not locks.may_retain(before, after, now, bypass=bypass):
        return
    if before is not None and before.mode == "GOVERNANCE" and bypass:
        return
    for later in range(now, 21):
        for may_bypass in (False, True):
            if not locks.may_remove(body(b"", retention=before), later, bypass=may_bypass):
                assert not locks.may_remove(body(b"", retention=after), later, bypass=may_bypass)


@given(retentions, st.integers(0, 20))
def test_retention_may_always_be_prolonged_in_its_mode(before, now):
    if before is not None:
        longer = replace(before, until_ms=before.until_ms + 1)
        assert locks.may_retain(before, longer, now, bypass=False)


def test_governance_becomes_compliance_only_with_the_bypass():
    assert not locks.may_retain(GOVERNANCE, COMPLIANCE, NOW, bypass=False)
    assert locks.may_retain(GOVERNANCE, COMPLIANCE, NOW, bypass=True)
    assert not locks.may_retain(COMPLIANCE, GOVERNANCE, NOW, bypass=True)


def moment(*parts: int) -> int:
    return int(datetime.datetime(*parts, tzinfo=datetime.UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("count", "unit", "end"),
    [
        (1, "Days", moment(2024, 3, 1, 12)),
        (366, "Days", moment(2025, 3, 1, 12)),
        (4, "Years", moment(2028, 2, 29, 12)),
        (1, "Years", moment(2025, 3, 1, 12)),
        (100, "Years", moment(2124, 2, 29, 12)),
    ],
)
def test_the_end_of_a_default_retention(count, unit, end):
    default = DefaultRetention("GOVERNANCE", count, unit)
    assert locks.default_until_ms(default, moment(2024, 2, 29, 12)) == end


@pytest.mark.parametrize("fields", [{"retention": GOVERNANCE}, {"legal_hold": True}, {"legal_hold": False}])
def test_a_bucket_without_object_lock_takes_no_lock(names, fields):
    with pytest.raises(NoObjectLock):
        names.put(replace(ENABLED, object_lock=False), b"a", **fields)
    assert names.versions() == []


def test_a_default_retention_is_given_to_what_has_none(names):
    bucket = replace(ENABLED, default_retention=DefaultRetention("COMPLIANCE", 1, "Days"))
    by_default = Retention("COMPLIANCE", 1 + 86_400_000)
    assert names.get(names.put(bucket, b"a")).retention == by_default
    assert names.get(names.put(bucket, b"b", legal_hold=True)).retention == by_default
    assert names.get(names.put(bucket, b"c", retention=GOVERNANCE)).retention == GOVERNANCE
    assert names.get(names.delete(bucket).version_id).retention is None


# --- Object Lock: no path around it ------------------------------------------------------------------------------

LOCKS = {
    "compliance": {"retention": COMPLIANCE},
    "governance": {"retention": GOVERNANCE},
    "legal hold": {"legal_hold": True},
    "both": {"retention": GOVERNANCE, "legal_hold": True},
}


def everything(names: Names) -> dict[tuple[str, bytes], bytes]:
    with names.kv.snapshot() as reader:
        return {(table, row): value for table in TABLES for row, value in reader.scan(table)}


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("shown", [True, False])
def test_a_locked_version_is_not_removed_by_its_id(names, lock, shown):
    version_id = names.put(ENABLED, b"a", **LOCKS[lock])
    if not shown:
        names.delete(ENABLED)
    before = everything(names)
    for bucket in (ENABLED, SUSPENDED, OFF):
        with pytest.raises(VersionLocked):
            names.remove(bucket, version_id)
    assert everything(names) == before


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("bucket", [OFF, SUSPENDED])
@pytest.mark.parametrize("shown", [True, False])
def test_a_locked_null_version_is_not_overwritten_whatever_the_bucket_says(names, lock, bucket, shown):
    names.put(bucket, b"a", **LOCKS[lock])
    if not shown:
        bucket = SUSPENDED
        names.put(ENABLED, b"b")
    before = everything(names)
    for attempt in (
        lambda: names.put(bucket, b"c"),
        lambda: names.delete(bucket),
        lambda: names.remove(bucket, None),
    ):
        with pytest.raises(VersionLocked):
            attempt()
    assert everything(names) == before


@pytest.mark.parametrize("lock", LOCKS)
def test_a_locked_version_may_be_hidden_and_shown_again(names, lock):
    version_id = names.put(ENABLED, b"a", **LOCKS[lock])
    marker = names.delete(ENABLED)
    assert names.current() is None
    names.remove(ENABLED, marker.version_id)
    assert names.current() == b"a"
    names.put(ENABLED, b"b")
    assert names.get(version_id).retention == LOCKS[lock].get("retention")


def test_the_bypass_removes_governance_and_nothing_else(names):
    for lock in ("compliance", "legal hold", "both"):
        version_id = names.put(ENABLED, b"a", **LOCKS[lock])
        with pytest.raises(VersionLocked):
            names.remove(ENABLED, version_id, BYPASS)
    version_id = names.put(ENABLED, b"a", retention=GOVERNANCE)
    with pytest.raises(VersionLocked):
        names.remove(ENABLED, version_id)
    assert names.remove(ENABLED, version_id, BYPASS) is not None


def test_a_version_goes_when_its_retention_has_passed(names):
    version_id = names.put(ENABLED, b"a", retention=COMPLIANCE)
    assert names.remove(ENABLED, version_id, replace(CHANGE, now_ms=NOW + 1)) is not None


@pytest.mark.parametrize("shown", [True, False])
def test_setting_retention_is_guarded_and_keeps_all_else(names, shown):
    version_id = names.put(ENABLED, b"a", retention=COMPLIANCE)
    if not shown:
        names.put(ENABLED, b"b")
    before = names.get(version_id)

    def set_to(retention, change=CHANGE):
        names.kv.commit(
            lambda txn: set_retention(
                txn, OFF.id, LONG, get_version(txn, OFF.id, LONG, version_id), retention, change
            )
        )

    for refused in (None, GOVERNANCE, replace(COMPLIANCE, until_ms=NOW)):
        for change in (CHANGE, BYPASS):
            with pytest.raises(VersionLocked):
                set_to(refused, change)
    longer = replace(COMPLIANCE, until_ms=NOW + 100)
    set_to(longer)
    assert names.get(version_id) == replace(before, retention=longer)
    assert names.count() == (1 if shown else 2, 1 if shown else 2)


@pytest.mark.parametrize("shown", [True, False])
def test_holds_and_tags_are_set_in_place(names, shown):
    version_id = names.put(ENABLED, b"a")
    if not shown:
        names.delete(ENABLED)
    before, versions = names.get(version_id), names.versions()

    def both(txn):
        set_legal_hold(txn, OFF.id, LONG, get_version(txn, OFF.id, LONG, version_id), True)
        found = get_version(txn, OFF.id, LONG, version_id)
        replace_object(txn, OFF.id, LONG, replace(found, tags=(("k", "v"),)))

    names.kv.commit(both)
    assert names.get(version_id) == replace(before, legal_hold=True, tags=(("k", "v"),))
    assert names.versions() == versions
    with names.kv.snapshot() as reader:
        assert statistics(reader) == NamesStatistics(1, 1, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"retention": None},
        {"legal_hold": False},
        {"inline": b""},
        {"size": 7},
        {"sequence": 9},
        {"version_id": b"?" * 16},
    ],
)
def test_replacing_never_touches_what_a_lock_covers(names, fields):
    version_id = names.put(ENABLED, b"a", retention=COMPLIANCE, legal_hold=True)
    record = replace(names.get(version_id), **fields)
    with pytest.raises(ValueError, match="lock"):
        names.kv.commit(lambda txn: replace_object(txn, OFF.id, LONG, record))


def test_a_nonce_has_eight_bytes_and_a_marker_is_not_put(names):
    with pytest.raises(ValueError, match="nonce"):
        Change(1, 1, b"short")
    marker = ObjectRecord(0, 1, "", "o", delete_marker=True)
    with pytest.raises(ValueError, match="delete marker"):
        names.kv.commit(lambda txn: put_object(txn, ENABLED, LONG, marker, CHANGE))


# --- create only ---------------------------------------------------------------------------------------------------

CREATE_ONLY = replace(CHANGE, create_only=True)


@pytest.mark.parametrize("bucket", [OFF, ENABLED, SUSPENDED])
def test_create_only_neither_replaces_nor_hides(names, bucket):
    names.put(bucket, b"one", CREATE_ONLY)
    with pytest.raises(WouldOverwrite):
        names.put(bucket, b"three", CREATE_ONLY)
    with pytest.raises(WouldOverwrite):
        names.put(bucket, b"one", CREATE_ONLY, metadata=(("a", "b"),))
    assert names.current() == b"one"
    assert len(names.versions()) == 1


@pytest.mark.parametrize("bucket", [OFF, ENABLED, SUSPENDED])
def test_create_only_again_is_no_change(names, bucket):
    version_id = names.put(bucket, b"one", CREATE_ONLY)
    before = names.get(version_id)
    assert names.put(bucket, b"one", CREATE_ONLY) == version_id
    assert names.get(version_id) == before
    assert len(names.versions()) == 1


def test_create_only_spares_a_null_version_under_a_delete_marker(names):
    names.put(OFF, b"null")
    names.delete(ENABLED)
    with pytest.raises(WouldOverwrite):
        names.put(SUSPENDED, b"null", CREATE_ONLY)
    assert names.get(None).inline == b"null"
    names.put(ENABLED, b"another", CREATE_ONLY)  # a version beside it: nothing goes
    assert names.get(None).inline == b"null"
    assert names.current() == b"another"
