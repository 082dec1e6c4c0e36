"""`vaultaire bucket` and `vaultaire du`, called as operators call them: on a directory, with or without a server."""

from __future__ import annotations

import hashlib
import json

import pytest
from click.testing import CliRunner

from index import uploads
from index.buckets import get_bucket, set_object_lock
from index.errors import VersionLocked
from index.records import ObjectRecord, PartRecord, Retention, UploadRecord
from index.versions import Change, delete_object, put_object
from vaultaire import emptying
from vaultaire.cli import main
from vaultaire.store import Store

NOW = 1_900_000_000_000


@pytest.fixture
def data(tmp_path):
    directory = tmp_path / "data"
    Store.open(directory, kind="command", create=True).close()
    return directory


@pytest.fixture
def run(data):
    def run(*arguments, status=0):
        result = CliRunner().invoke(main, [*arguments, "--data", str(data)])
        assert result.exit_code == status, result.output + result.stderr
        return result.stdout if status == 0 else result.stderr

    return run


def test_the_policy_of_prefixes_is_kept_and_shown(run):
    run("bucket", "create", "photos")
    assert run("bucket", "prefixes", "photos", "off") == "photos: prefixes off\n"
    assert "prefixes    off" in run("bucket", "info", "photos")
    assert json.loads(run("bucket", "prefixes", "photos", "on", "--json"))["prefixes"] == "on"
    assert "vaultaire bucket list" in run("bucket", "prefixes", "nothing", "on", status=1)
    assert "off" in run("bucket", "prefixes", "photos", "maybe", status=2)


def put(data, bucket, key, size=3, **rest):
    body = bytes(size)
    with Store.open(data, kind="command") as store:
        md5 = hashlib.md5(body).hexdigest()
        record = ObjectRecord(size, NOW, md5, "root", inline=body, new_stored_bytes=size, **rest)
        change = Change(store.writer, NOW, b"8 random")
        store.kv.commit(lambda txn: put_object(txn, get_bucket(txn, bucket), key, record, change))


def mark_deleted(data, bucket, key):
    with Store.open(data, kind="command") as store:
        change = Change(store.writer, NOW, b"8 random")
        store.kv.commit(lambda txn: delete_object(txn, get_bucket(txn, bucket), key, "root", change))


def test_a_bucket_is_made_shown_and_deleted(run):
    assert "created bucket photos of tenant alice" in run("bucket", "create", "photos", "--tenant", "alice")
    info = json.loads(run("bucket", "info", "photos", "--json"))
    assert info.pop("created_ms") > 1_700_000_000_000
    assert info == {
        "name": "photos",
        "tenant": "alice",
        "versioning": "off",
        "object_lock": False,
        "default_retention": None,
        "objects": 0,
        "logical_bytes": 0,
        "stored_bytes": 0,
        "upload_bytes": 0,
        "prefixes": "auto",
        "quota": {"logical_bytes": None, "stored_bytes": None, "objects": None},
    }
    assert "photos  alice" in run("bucket", "list")
    assert json.loads(run("bucket", "list", "--tenant", "bob", "--json")) == []
    assert "deleted bucket photos" in run("bucket", "delete", "photos")
    assert "no buckets" in run("bucket", "list")


def test_options_of_a_new_bucket(run):
    made = json.loads(run("bucket", "create", "versions", "--versioning", "--json"))
    assert (made["versioning"], made["object_lock"]) == ("enabled", False)
    made = json.loads(run("bucket", "create", "locked", "--object-lock", "--json"))
    assert (made["versioning"], made["object_lock"]) == ("enabled", True)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("create", "Bad_Name"), 2, "3 to 63 characters"),
        (("create", "fine", "--tenant", "not a name"), 2, "a tenant's name"),
        (("create", "there"), 1, "vaultaire bucket info there"),
        (("info", "absent"), 1, "vaultaire bucket list"),
        (("delete", "absent"), 1, "vaultaire bucket list"),
        (("quota", "absent"), 1, "vaultaire bucket list"),
        (("quota", "absent", "--objects", "1"), 1, "vaultaire bucket list"),
        (("quota", "--objects", "1"), 2, "--tenant NAME"),
        (("quota", "there", "--tenant", "root"), 2, "one at a time"),
        (("quota", "there", "--remove", "--objects", "1"), 2, "exclude each other"),
        (("quota", "there", "--logical", "much"), 2, "192MiB"),
        (("quota", "there", "--objects", "-1"), 2, "-1"),
        (("quota", "there", "--logical", "99999999TiB"), 2, "2^63"),
        (("quota", "--tenant", "no such/name", "--objects", "1"), 2, "a tenant's name"),
    ],
)
def test_what_cannot_be_is_refused_with_the_next_step(run, words, status, said):
    run("bucket", "create", "there")
    assert said in run("bucket", *words, status=status)


def test_quotas_are_set_changed_listed_and_removed(run, data):
    run("bucket", "create", "photos")
    put(data, "photos", b"a", 600)
    assert "no quota" in run("bucket", "quota", "photos")
    run("bucket", "quota", "photos", "--logical", "1k", "--objects", "1")
    told = run("bucket", "quota", "photos", "--stored", "2k", "--objects", "none")
    assert "logical: 600 B of 1.0 KiB, 58 %" in told
    assert "stored: 600 B of 2.0 KiB" in told
    assert "objects" not in told
    run("bucket", "quota", "--tenant", "root", "--objects", "1")
    assert "1 of 1, 100 %; nothing more can be added" in run("bucket", "quota", "--tenant", "root")
    listed = json.loads(run("bucket", "quota", "--json"))
    used = {"logical_bytes": 600, "stored_bytes": 600, "objects": 1}
    assert listed == [
        {
            "tenant": "root",
            "quota": {"logical_bytes": None, "stored_bytes": None, "objects": 1},
            "used": used,
        },
        {
            "bucket": "photos",
            "quota": {"logical_bytes": 1024, "stored_bytes": 2048, "objects": None},
            "used": used,
        },
    ]
    assert "600 B of 1.0 KiB" in run("bucket", "quota")
    assert "1.0 KiB logical, 2.0 KiB stored" in run("bucket", "list")
    run("bucket", "quota", "photos", "--remove")
    run("bucket", "quota", "--tenant", "root", "--remove")
    assert "no quotas" in run("bucket", "quota")


def test_a_bucket_with_objects_is_only_deleted_by_force(run, data):
    run("bucket", "create", "photos", "--versioning")
    for number in range(3):
        put(data, "photos", b"a", number + 1)
    put(data, "photos", b"b")
    mark_deleted(data, "photos", b"b")
    refused = run("bucket", "delete", "photos", status=1)
    assert "4 versions of objects (9 B) and 1 delete markers" in refused
    assert "bucket delete photos --force" in refused
    planned = json.loads(run("bucket", "delete", "photos", "--force", "--dry-run", "--json"))
    assert planned == {
        "name": "photos",
        "deleted": False,
        "versions": 4,
        "delete_markers": 1,
        "logical_bytes": 9,
    }
    assert json.loads(run("bucket", "info", "photos", "--json"))["objects"] == 4
    assert json.loads(run("bucket", "delete", "photos", "--force", "--json"))["deleted"]
    assert json.loads(run("bucket", "list", "--json")) == []


def test_force_deletes_nothing_of_a_bucket_with_a_locked_version(run, data):
    run("bucket", "create", "vault", "--object-lock")
    put(data, "vault", b"free")
    put(data, "vault", b"held", legal_hold=True)
    put(data, "vault", b"kept", retention=Retention("GOVERNANCE", 4_000_000_000_000))
    refused = run("bucket", "delete", "vault", "--force", status=1)
    assert "2 versions in 'vault' are locked" in refused
    assert json.loads(run("bucket", "info", "vault", "--json"))["objects"] == 3


def test_a_lock_that_comes_meanwhile_stops_the_emptying(run, data):
    run("bucket", "create", "vault", "--object-lock")
    put(data, "vault", b"a", legal_hold=True)
    with Store.open(data, kind="command") as store:
        with store.kv.snapshot() as reader:
            bucket = get_bucket(reader, "vault")
        with pytest.raises(VersionLocked):
            emptying.empty_bucket(store, bucket, lambda rows: None)
    assert json.loads(run("bucket", "info", "vault", "--json"))["objects"] == 1


def test_many_rows_are_deleted_in_many_commits(run, data, monkeypatch):
    monkeypatch.setattr(emptying, "COMMIT_ROWS", 3)
    monkeypatch.setattr(emptying, "PAGE_ROWS", 2)
    run("bucket", "create", "photos", "--versioning")
    for number in range(4):
        for _ in range(3):
            put(data, "photos", b"k%d" % number)
    assert json.loads(run("bucket", "delete", "photos", "--force", "--json"))["versions"] == 12


def test_unfinished_uploads_are_shown_and_go_with_the_bucket(run, data):
    run("bucket", "create", "photos")
    with Store.open(data, kind="command") as store:

        def begin(txn):
            bucket = get_bucket(txn, "photos")
            upload = uploads.create_upload(txn, bucket.id, UploadRecord("", b"k", "root", NOW), b"8 random")
            return upload.upload_id

        upload = store.kv.commit(begin)
        part = PartRecord(1, 5000, hashlib.md5(b"").hexdigest(), NOW, b"m")
        store.kv.commit(
            lambda txn: uploads.put_part(txn, get_bucket(txn, "photos"), b"k", upload, part, store.writer)
        )
    assert "4.9 KiB in parts of unfinished uploads" in run("bucket", "info", "photos")
    run("bucket", "delete", "photos")


def test_default_retention_is_shown(run, data):
    from index.values import DefaultRetention

    run("bucket", "create", "vault", "--object-lock")
    with Store.open(data, kind="command") as store:
        default = DefaultRetention("COMPLIANCE", 30, "Days")
        store.kv.commit(lambda txn: set_object_lock(txn, get_bucket(txn, "vault"), default))
    assert "yes, COMPLIANCE for 30 days" in run("bucket", "info", "vault").lower().replace(
        "compliance", "COMPLIANCE"
    )


# --- du --------------------------------------------------------------------------------------------------------


def test_du_answers_for_buckets_prefixes_and_folders(run, data):
    assert "no buckets" in run("du")
    run("bucket", "create", "photos")
    put(data, "photos", b"2023/a", 1000)
    put(data, "photos", b"2024/a", 2000)
    found = json.loads(run("du", "photos", "--depth", "1", "--json"))
    assert found["complete"]
    shown = {
        row["name"]: (row["objects"], row["exclusive_bytes"], row["freed_bytes"]) for row in found["usage"]
    }
    assert shown == {
        "photos": (2, 3000, 3000),
        "photos/2023/": (1, 1000, 1000),
        "photos/2024/": (1, 2000, 2000),
    }
    text = run("du", "photos/2024")
    assert text.splitlines()[0].split() == [
        *("OBJECTS", "LOGICAL", "UNIQUE", "STORED", "EXCLUSIVE", "FREES", "NAME")
    ]
    assert "Deleting photos/2024 would free all of its 2.0 KiB on disk" in text
    assert "vaultaire bucket list" in run("du", "absent", status=1)
    assert "without a / before it" in run("du", "/photos", status=2)
