"""Access keys: nobody signs in with what was never stored, changed or deleted, and no secret is ever in clear."""

from __future__ import annotations

import stat
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.memory_kv import MemoryKv
from vaultaire import access
from vaultaire.access import (
    AccessKeyExists,
    DamagedKey,
    InvalidKey,
    Keyring,
    LastRootKey,
    SecretKeyMissing,
    SecretKeyUnreadable,
    SecretKeyWrong,
    UnknownAccessKey,
    new_principal,
    new_root,
)
from vaultaire.key_limits import Limits, Scope
from vaultaire.secret_key import create_secret_key

ALICE = new_principal("alice", "read-write", access_key="alice", secret_key="alice's-secret")


@pytest.fixture
def kv():
    return MemoryKv(access.TABLES)


@pytest.fixture
def keyring(kv, tmp_path):
    with kv.snapshot() as reader:
        return Keyring.open_or_create(tmp_path, reader)


def store(kv, keyring, *principals):
    for moment, principal in enumerate(principals):
        kv.commit(lambda txn, who=principal, at=moment: keyring.put_key(txn, who, now_ms=at + 1))


def lookup(kv, keyring, access_key):
    with kv.snapshot() as reader:
        return keyring.lookup(reader, access_key)


def names(kv):
    with kv.snapshot() as reader:
        return [info.access_key for info in Keyring.list_keys(reader)]


def row_of(kv, access_key):
    with kv.snapshot() as reader:
        return reader.get(access.KEYS_TABLE, access_key.encode())


def put_row(kv, access_key, row):
    kv.commit(lambda txn: txn.put(access.KEYS_TABLE, access_key.encode(), row))


# --- keys ---


def test_generated_keys_have_the_shape_that_clients_know_and_never_repeat():
    made = [new_root() for _ in range(200)]
    assert {len(one.access_key) for one in made} == {20}
    assert {len(one.secret_key) for one in made} == {40}
    assert all(one.access_key.startswith("VK") and one.secret_key.isalnum() for one in made)
    assert len({one.access_key for one in made} | {one.secret_key for one in made}) == 400


@pytest.mark.parametrize(
    "access_key", ["ab", "a" * 129, "a/b", "a,b", "a b", "a=b", "-abc", "käse", "a\nb", "abc\n", "a'b"]
)
def test_access_key_that_a_signature_could_not_carry_is_refused(access_key):
    with pytest.raises(InvalidKey, match="3 to 128"):
        new_principal("t", "admin", access_key=access_key)


@pytest.mark.parametrize("secret_key", ["short12", "s" * 129, "with space", "sécrets!!", "newline-at-end\n"])
def test_secret_key_that_clients_could_not_send_is_refused(secret_key):
    with pytest.raises(InvalidKey, match="8 to 128"):
        new_principal("t", "admin", secret_key=secret_key)


@pytest.mark.parametrize("tenant", ["", "-a", "a b", "a/b", "t" * 65, "ü"])
def test_tenant_name_is_bounded(tenant):
    with pytest.raises(InvalidKey, match="tenant"):
        new_principal(tenant, "admin")


def test_root_key_belongs_to_tenant_root_as_admin():
    assert (new_root().tenant, new_root().role, new_root().root) == ("root", "admin", True)
    with pytest.raises(InvalidKey, match="root"):
        new_principal("alice", "admin", root=True)


def test_root_reaches_all_tenants_and_an_admin_only_its_own():
    admin = new_principal("alice", "admin")
    assert new_root().reaches("alice")
    assert admin.reaches("alice")
    assert not admin.reaches("root")
    assert not new_principal("root", "admin").reaches("alice")
    assert [new_principal("t", role).can_write for role in access.ROLES] == [True, True, False, True]


def test_repr_of_a_principal_hides_the_secret():
    assert ALICE.secret_key not in repr(ALICE)


# --- storing and looking up ---


@settings(deadline=None, max_examples=50)
@given(
    access_key=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+@:~-]{2,127}", fullmatch=True),
    secret_key=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=128),
    tenant=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    role=st.sampled_from(access.ROLES),
)
def test_every_valid_key_comes_back_as_it_was_stored(tmp_path_factory, access_key, secret_key, tenant, role):
    kv = MemoryKv(access.TABLES)
    with kv.snapshot() as reader:
        keyring = Keyring.open_or_create(tmp_path_factory.mktemp("store"), reader)
    principal = new_principal(tenant, role, access_key=access_key, secret_key=secret_key)
    store(kv, keyring, principal)
    assert lookup(kv, keyring, access_key) == principal


def test_secret_is_never_stored_in_clear(kv, keyring):
    store(kv, keyring, ALICE)
    row = row_of(kv, "alice")
    assert ALICE.secret_key.encode() not in row
    assert b"alice" in row  # the tenant, for lists without secret.key


@pytest.mark.parametrize(
    "access_key", ["", "ab", "nobody", "älice", "alice\x00", "a" * 129, "a" * 600, "\udcff" * 5]
)
def test_unknown_access_key_is_nobody_whatever_the_wire_brings(kv, keyring, access_key):
    store(kv, keyring, ALICE)
    assert lookup(kv, keyring, access_key) is None


def test_changed_or_deleted_key_counts_at_once(kv, keyring):
    store(kv, keyring, ALICE)
    assert lookup(kv, keyring, "alice") == ALICE
    changed = new_principal("alice", "read-only", access_key="alice", secret_key="another-secret")
    kv.commit(lambda txn: keyring.put_key(txn, changed, overwrite=True))
    assert lookup(kv, keyring, "alice") == changed
    kv.commit(lambda txn: keyring.delete_key(txn, "alice"))
    assert lookup(kv, keyring, "alice") is None
    store(kv, keyring, ALICE)
    assert lookup(kv, keyring, "alice") == ALICE


def test_second_lookup_does_not_decrypt(kv, keyring):
    store(kv, keyring, ALICE)
    assert lookup(kv, keyring, "alice") is lookup(kv, keyring, "alice")


def test_another_process_reads_the_same_keys(kv, keyring, tmp_path):
    store(kv, keyring, ALICE)
    with kv.snapshot() as reader:
        assert Keyring.load(tmp_path, reader).lookup(reader, "alice") == ALICE


def test_existing_access_key_is_not_overwritten(kv, keyring):
    store(kv, keyring, ALICE)
    with pytest.raises(AccessKeyExists, match="vaultaire key delete alice"):
        store(kv, keyring, new_principal("bob", "admin", access_key="alice"))
    assert lookup(kv, keyring, "alice") == ALICE


def test_list_shows_everything_but_secrets(kv, keyring):
    store(kv, keyring, new_root("root-key", "root-secret"), ALICE)
    with kv.snapshot() as reader:
        listed = list(Keyring.list_keys(reader))
    assert [(one.access_key, one.tenant, one.role, one.root, one.created_ms) for one in listed] == [
        ("alice", "alice", "read-write", False, 2),
        ("root-key", "root", "admin", True, 1),
    ]


# --- tampering ---


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_flipped_bit_of_a_row_is_obeyed(tmp_path_factory, data):
    kv = MemoryKv(access.TABLES)
    directory = tmp_path_factory.mktemp("store")
    with kv.snapshot() as reader:
        keyring = Keyring.open_or_create(directory, reader)
    store(kv, keyring, ALICE)
    row = bytearray(row_of(kv, "alice"))
    bit = data.draw(st.integers(0, len(row) * 8 - 1))
    row[bit // 8] ^= 1 << bit % 8
    put_row(kv, "alice", bytes(row))
    with pytest.raises((DamagedKey, SecretKeyWrong)):
        lookup(kv, keyring, "alice")


def test_row_moved_to_another_access_key_is_refused(kv, keyring):
    store(kv, keyring, new_root("root-key", "root-secret"), ALICE)
    put_row(kv, "alice", row_of(kv, "root-key"))
    with pytest.raises(DamagedKey, match="altered"):
        lookup(kv, keyring, "alice")


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_truncated_row_is_damage_not_a_crash(kv, keyring, length):
    store(kv, keyring, ALICE)
    put_row(kv, "alice", row_of(kv, "alice")[:length])
    with pytest.raises(DamagedKey):
        lookup(kv, keyring, "alice")


def test_row_of_a_newer_version_is_refused_skipped_in_lists_and_can_be_deleted(kv, keyring):
    store(kv, keyring, ALICE)
    put_row(kv, "alice", b"K\x03" + row_of(kv, "alice")[2:])
    with pytest.raises(DamagedKey, match="another version"):
        lookup(kv, keyring, "alice")
    assert names(kv) == []
    assert kv.commit(lambda txn: Keyring.delete_key(txn, "alice")) is None
    assert row_of(kv, "alice") is None


def test_row_with_a_longer_header_of_a_compatible_version_is_read(kv, keyring):
    """Bytes between the known fields and the nonce are skipped, though they are authenticated."""
    store(kv, keyring, ALICE)
    row = row_of(kv, "alice")
    end = int.from_bytes(row[2:4], "big")
    head = row[:2] + (end + 5).to_bytes(2, "big") + row[4:end] + b"later"
    associated = bytes([5]) + b"alice" + head
    put_row(kv, "alice", head + keyring._secret_key.encrypt(b"from-the-future", associated))
    assert lookup(kv, keyring, "alice").secret_key == "from-the-future"


def test_golden_row_is_read_by_every_later_version(kv, tmp_path):
    """Bytes written by version 2; the layout is in the module's docstring."""
    (tmp_path / "secret.key").write_text(bytes(range(32)).hex() + "\n")
    (tmp_path / "secret.key").chmod(0o600)
    put_row(kv, "alice", bytes.fromhex(GOLDEN_ROW))
    kv.commit(lambda txn: txn.put(access.SETTINGS_TABLE, b"secret-key-check", bytes.fromhex(GOLDEN_CHECK)))
    with kv.snapshot() as reader:
        keyring = Keyring.load(tmp_path, reader)
        assert keyring.lookup(reader, "alice") == GOLDEN
        assert next(Keyring.list_keys(reader)).created_ms == 1_700_000_000_123


GOLDEN = new_principal(
    "alice",
    "append-only",
    access_key="alice",
    secret_key="alice's-secret",
    limits=Limits(
        (Scope("bucket", b"repo/"), Scope("other")), (b"locks/",), expires_ms=1_800_000_000_000, disabled=True
    ),
)
GOLDEN_ROW = (
    "4b02004d0000000004000000018bcfe5687b9db60dc709fff408002b05616c696365000001"
    "a3185c5000010100066275636b65740200057265706f2f0100056f746865720300066c6f63"
    "6b732faa6aa5d30120229ade3e30f3b925fd18fe86f4b1256ce1a96db0b47d4a1238d9ae52"
    "3c15f965e0058016"
)
GOLDEN_CHECK = "43019db60dc709fff40875edec52c7959d20bf99b02b123f8cebdd5f52112858bab2"


# --- limits and rotation ---


def test_limits_are_set_without_losing_what_else_the_row_says(kv, keyring):
    store(kv, keyring, ALICE)
    limits = Limits(expires_ms=7, disabled=True)
    kv.commit(lambda txn: keyring.set_limits(txn, "alice", limits))
    assert lookup(kv, keyring, "alice") == replace(ALICE, limits=limits)
    with kv.snapshot() as reader:
        assert next(Keyring.list_keys(reader)).created_ms == 1


def test_a_rotated_key_ends_when_it_should_and_never_later_than_before(kv, keyring):
    short = replace(ALICE, access_key="short", limits=Limits(expires_ms=150))
    store(kv, keyring, ALICE, short)
    for number, (name, grace_ms, end) in enumerate(
        (("alice", 100, 200), ("short", 10, 110), ("short", 500, 110))
    ):
        fresh = new_principal("any", "admin", access_key=f"fresh-{number}")
        made = kv.commit(
            lambda txn, n=name, f=fresh, g=grace_ms: keyring.rotate(txn, n, f, now_ms=100, grace_ms=g)
        )
        assert (made.access_key, made.secret_key) == (fresh.access_key, fresh.secret_key)
        assert (made.tenant, made.role) == ("alice", "read-write")
        assert lookup(kv, keyring, name).limits.expires_ms == end
    fresh = new_principal("any", "admin")
    kv.commit(lambda txn: keyring.rotate(txn, "alice", fresh, now_ms=100, grace_ms=0))
    assert lookup(kv, keyring, "alice") is None


def test_root_keys_have_no_limits(kv, keyring):
    root = new_root("root-key", "root-secret")
    store(kv, keyring, root)
    with pytest.raises(InvalidKey, match="root"):
        kv.commit(lambda txn: keyring.set_limits(txn, "root-key", Limits(disabled=True)))
    with pytest.raises(InvalidKey, match="root"):
        kv.commit(lambda txn: keyring.rotate(txn, "root-key", ALICE, now_ms=1, grace_ms=1))
    assert lookup(kv, keyring, "root-key") == root


# --- root keys ---


def test_unknown_key_cannot_be_deleted(kv):
    for access_key in ("nobody", "", "ü" * 100):
        with pytest.raises(UnknownAccessKey, match="key list"):
            kv.commit(lambda txn, name=access_key: Keyring.delete_key(txn, name))


def test_last_root_key_cannot_be_deleted_but_the_last_but_one_can(kv, keyring):
    store(kv, keyring, new_root("root-1", "root-secret"), ALICE, new_root("root-2", "root-secret"))
    kv.commit(lambda txn: Keyring.delete_key(txn, "root-1"))
    with pytest.raises(LastRootKey, match="vaultaire key create --root"):
        kv.commit(lambda txn: Keyring.delete_key(txn, "root-2"))
    kv.commit(lambda txn: Keyring.delete_key(txn, "alice"))
    assert names(kv) == ["root-2"]


def ensure(kv, keyring, offered, *, given, now_ms=1):
    return kv.commit(lambda txn: keyring.ensure_root(txn, offered, given=given, now_ms=now_ms))


def test_first_start_creates_the_root_key_and_later_ones_keep_it(kv, keyring):
    first = ensure(kv, keyring, new_root(), given=False)
    assert first.action == "created"
    later = ensure(kv, keyring, new_root(), given=False)
    assert (later.action, later.principal) == ("unchanged", first.principal)


def test_given_root_key_is_kept_while_it_is_the_same(kv, keyring):
    wanted = new_root("admin", "first-secret")
    assert ensure(kv, keyring, wanted, given=True).action == "created"
    before = row_of(kv, "admin")
    assert ensure(kv, keyring, wanted, given=True).action == "unchanged"
    assert row_of(kv, "admin") == before


def test_given_root_key_with_another_secret_replaces_the_secret_alone(kv, keyring):
    store(kv, keyring, new_root("other", "other-secret"))
    ensure(kv, keyring, new_root("other", "other-secret"), given=True)
    store(kv, keyring, new_root("admin", "first-secret"))
    done = ensure(kv, keyring, new_root("admin", "second-secret"), given=True)
    assert (done.action, done.removed) == ("replaced", ())
    assert lookup(kv, keyring, "admin").secret_key == "second-secret"
    assert lookup(kv, keyring, "other") is not None


def test_given_root_key_with_another_name_replaces_the_stored_ones(kv, keyring):
    first = ensure(kv, keyring, new_root(), given=False).principal
    store(kv, keyring, ALICE)
    done = ensure(kv, keyring, new_root("admin", "first-secret"), given=True)
    assert (done.action, done.removed) == ("replaced", (first.access_key,))
    assert sorted(names(kv)) == ["admin", "alice"]


def test_given_root_key_does_not_take_over_a_tenants_key(kv, keyring):
    ensure(kv, keyring, new_root("admin", "first-secret"), given=True)
    store(kv, keyring, ALICE)
    with pytest.raises(AccessKeyExists):
        ensure(kv, keyring, new_root("alice", "first-secret"), given=True)
    assert lookup(kv, keyring, "alice") == ALICE
    assert lookup(kv, keyring, "admin") is not None


def test_oldest_root_key_comes_first(kv, keyring):
    store(kv, keyring, new_root("zzz", "root-secret"), new_root("aaa", "root-secret"))
    with kv.snapshot() as reader:
        assert [root.access_key for root in keyring.root_keys(reader)] == ["zzz", "aaa"]


# --- secret.key ---


def test_secret_key_is_private_and_leaves_no_draft(keyring, tmp_path):
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    assert list((tmp_path / "tmp").iterdir()) == []


def test_secret_key_is_never_overwritten(tmp_path):
    create_secret_key(tmp_path)
    before = (tmp_path / "secret.key").read_bytes()
    with pytest.raises(FileExistsError):
        create_secret_key(tmp_path)
    assert (tmp_path / "secret.key").read_bytes() == before
    assert list((tmp_path / "tmp").iterdir()) == []


def test_processes_that_start_together_share_one_secret_key(kv, tmp_path):
    (tmp_path / "tmp").mkdir()
    together = threading.Barrier(8)
    checks = []

    def start():
        together.wait()
        with kv.snapshot() as reader:
            checks.append(Keyring.open_or_create(tmp_path, reader)._secret_key.check)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(checks) == 8
    assert len(set(checks)) == 1


def test_missing_secret_key_is_not_made_anew_once_keys_exist(kv, keyring, tmp_path):
    store(kv, keyring, ALICE)
    (tmp_path / "secret.key").unlink()
    with (
        kv.snapshot() as reader,
        pytest.raises(SecretKeyMissing, match="key create --root --new-secret-key --data"),
    ):
        Keyring.open_or_create(tmp_path, reader)
    assert not (tmp_path / "secret.key").exists()


@pytest.mark.parametrize(
    "content", ["", "00" * 31, "00" * 32, "00" * 33, "no hexadecimal digits at all", "ü"]
)
def test_wrong_secret_key_is_recognised(kv, keyring, tmp_path, content):
    store(kv, keyring, ALICE)
    (tmp_path / "secret.key").write_text(content, encoding="utf-8")
    with (
        kv.snapshot() as reader,
        pytest.raises(SecretKeyWrong, match="key create --root --new-secret-key --data"),
    ):
        Keyring.load(tmp_path, reader)


def test_keys_can_be_listed_and_deleted_without_secret_key(kv, keyring, tmp_path):
    store(kv, keyring, ALICE)
    (tmp_path / "secret.key").unlink()
    assert names(kv) == ["alice"]
    kv.commit(lambda txn: Keyring.delete_key(txn, "alice"))
    assert names(kv) == []


def test_unreadable_secret_key_says_who_should_ask(kv, tmp_path):
    (tmp_path / "secret.key").mkdir()  # stands for any error of the file system, also when tests run as root
    with kv.snapshot() as reader, pytest.raises(SecretKeyUnreadable, match="user that owns"):
        Keyring.load(tmp_path, reader)


def test_secret_key_open_to_others_is_reported(kv, keyring, tmp_path, caplog):
    (tmp_path / "secret.key").chmod(0o644)
    with kv.snapshot() as reader:
        Keyring.load(tmp_path, reader)
    assert "chmod 600" in caplog.text


def test_stale_keyring_cannot_write_under_a_replaced_secret_key(kv, keyring, tmp_path):
    store(kv, keyring, ALICE)
    fresh = Keyring.replace_secret_key(tmp_path)
    kv.commit(lambda txn: fresh.reset(txn, new_root(), now_ms=1))
    with pytest.raises(SecretKeyWrong):
        store(kv, keyring, new_principal("bob", "admin"))


def test_starting_over_drops_what_cannot_be_decrypted_and_keeps_the_old_file(kv, keyring, tmp_path):
    store(kv, keyring, new_root("lost", "lost-secret"), ALICE)
    (tmp_path / "secret.key").write_text("11" * 32)
    fresh = Keyring.replace_secret_key(tmp_path)
    root = new_root()
    assert kv.commit(lambda txn: fresh.reset(txn, root, now_ms=1)) == ["alice", "lost"]
    assert names(kv) == [root.access_key]
    assert (tmp_path / "secret.key.old").read_text() == "11" * 32
    with kv.snapshot() as reader:
        assert Keyring.load(tmp_path, reader).lookup(reader, root.access_key) == root


def test_start_over_interrupted_before_its_commit_is_still_wrong_and_can_be_repeated(kv, keyring, tmp_path):
    store(kv, keyring, ALICE)
    (tmp_path / "secret.key").unlink()
    Keyring.replace_secret_key(tmp_path)  # and then the machine stopped
    with kv.snapshot() as reader, pytest.raises(SecretKeyWrong):
        Keyring.load(tmp_path, reader)
    fresh = Keyring.replace_secret_key(tmp_path)
    assert kv.commit(lambda txn: fresh.reset(txn, new_root("again", "again-secret"), now_ms=1)) == ["alice"]


def test_running_server_follows_a_replaced_secret_key(kv, keyring, tmp_path):
    """`key create --root --new-secret-key` beside a server: its keyring reads the new file when a row asks for it."""
    store(kv, keyring, ALICE)
    lookup(kv, keyring, "alice")
    fresh = Keyring.replace_secret_key(tmp_path)
    root = new_root()
    kv.commit(lambda txn: fresh.reset(txn, root, now_ms=1))
    assert lookup(kv, keyring, root.access_key) == root
    assert lookup(kv, keyring, "alice") is None
