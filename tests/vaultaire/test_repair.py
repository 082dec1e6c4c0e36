"""Repair of a store: what parity, footers and frames give back comes back; what is lost is listed by name."""

from __future__ import annotations

import json
from functools import partial

import pytest
from click.testing import CliRunner

from cas.catalog import PackState, iterate_packs
from cas.damage import damaged_chunks, packs_to_mend
from cas.pack import PackKind
from tests.vaultaire.verify_support import Client, Damaged, _bucket, copy_of, fill, flip
from vaultaire.cli import main
from vaultaire.maintenance import chores, run_due
from vaultaire.parity import (
    CHECK_SECONDS,
    Parity,
    note_damage,
    parity_percent,
    set_parity_percent,
    sidecar_bytes,
)
from vaultaire.reading import read_all
from vaultaire.repair import repair
from vaultaire.scrub import Scrub
from vaultaire.stats import collect
from vaultaire.store import Store
from vaultaire.verify import verify


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store with parity beside every sealed pack."""
    directory = tmp_path_factory.mktemp("original") / "data"
    versions = fill(directory)
    with Store.open(directory, kind="command") as store:
        while Parity(store).run_slice():
            pass
    return directory, versions


@pytest.fixture
def damaged(original, tmp_path) -> Damaged:
    return copy_of(original[0], tmp_path / "data", original[1])


def sealed_packs(damaged: Damaged) -> list[int]:
    rows = damaged.packs() + damaged.packs(PackKind.NODE)
    return sorted(pack for pack, row in rows if row.state == PackState.SEALED)


def protect_all(store: Store) -> None:
    work = Parity(store)
    while work.run_slice(60.0):
        pass


def sidecar(damaged: Damaged, pack: int):
    return damaged.path(pack).with_suffix(".parity")


def read(store: Store, bucket: str, key: bytes) -> bytes:
    with store.operation():
        manifest = Client(store).manifest(_bucket(store, bucket), key)
        return b"".join(read_all(store.chunks, manifest))


def test_sound_store_needs_nothing(damaged: Damaged):
    with damaged.store() as store:
        result = repair(store)
    assert result.whole
    assert result.mended == []
    assert result.left.clean


def test_every_sealed_pack_has_a_sidecar_and_it_is_counted(damaged: Damaged):
    with damaged.store() as store:
        with store.kv.snapshot() as reader:
            sealed = {pack for pack, row in iterate_packs(reader) if row.state == PackState.SEALED}
        assert {pack for pack, _ in store.sidecars.lengths()} == sealed
        engine = store.kv.statistics()
        overhead = engine.journal_bytes + engine.checkpoint_bytes + sidecar_bytes(store)
        assert collect(store).overhead_bytes == overhead + store.space.probe().reserve
        assert sidecar_bytes(store) > 500_000


def test_damaged_pack_is_mended(damaged: Damaged):
    pack, frame, _ = damaged.where("plain", b"noise")
    clean = damaged.path(pack).read_bytes()
    damaged.flip(pack, frame.end - 1)
    damaged.flip(pack, frame.offset + 20)
    damaged.flip(pack, len(clean) - 3)
    with damaged.store() as store:
        planned = repair(store, dry_run=True)
        assert damaged.path(pack).read_bytes() != clean
        assert not planned.left.clean
        result = repair(store)
    assert [each.pack for each in planned.mended] == [each.pack for each in result.mended] == [pack]
    assert result.whole
    assert result.left.clean
    assert damaged.path(pack).read_bytes() == clean


def test_missing_and_damaged_sidecars_are_made_anew(damaged: Damaged):
    packs = [pack for pack, row in damaged.packs() if row.state == PackState.SEALED]
    sidecar(damaged, packs[0]).unlink()
    flip(sidecar(damaged, packs[1]), 3000)
    with damaged.store() as store:
        result = repair(store)
        assert {each.pack: each.sidecar for each in result.mended} == {packs[0]: "made", packs[1]: "replaced"}
        assert repair(store).mended == []


def test_footer_is_written_anew_without_parity(damaged: Damaged):
    pack, _, _ = damaged.where("plain", b"noise")
    clean = damaged.path(pack).read_bytes()
    sidecar(damaged, pack).unlink()
    damaged.flip(pack, len(clean) - 5)
    with damaged.store() as store:
        assert repair(store).whole
    assert damaged.path(pack).read_bytes() == clean


def test_what_is_lost_is_named(damaged: Damaged):
    pack, frame, _ = damaged.where("versioned", b"doc")
    sidecar(damaged, pack).unlink()
    damaged.flip(pack, frame.offset + frame.header.header_length + 100)
    with damaged.store() as store:
        result = repair(store)
        assert not result.whole
        assert result.damaged_chunks == 1
        affected = result.left.affected
        assert {each.bucket for each in affected} == {"versioned"}
        assert b"doc" in {each.key for each in affected}
        assert {each.version for each in affected if each.key == b"doc"} <= set(damaged.versions.values())


def test_lost_object_is_whole_after_an_upload(damaged: Damaged):
    with damaged.store() as store:
        data = read(store, "plain", b"noise")
    pack, _, _ = damaged.where("plain", b"noise")
    sidecar(damaged, pack).unlink()
    damaged.path(pack).unlink()
    with damaged.store() as store:
        lost = repair(store)
        assert not lost.whole
        assert ("plain", b"noise") in {(each.bucket, each.key) for each in lost.left.affected}
        Client(store).put(_bucket(store, "plain"), b"again", data)
        assert read(store, "plain", b"noise") == data
        left = {(each.bucket, each.key) for each in repair(store).left.affected}
    assert ("plain", b"noise") not in left
    assert ("plain", b"text") in left  # it was in the same pack, and nobody brought it back


def test_node_pack_is_mended_too(damaged: Damaged):
    ((pack, _), *_) = [(p, row) for p, row in damaged.packs(PackKind.NODE) if row.state == PackState.SEALED]
    clean = damaged.path(pack).read_bytes()
    damaged.flip(pack, len(clean) // 2)
    with damaged.store() as store:
        assert repair(store).whole
    assert damaged.path(pack).read_bytes() == clean


def test_command_says_what_it_does(damaged: Damaged):
    pack, frame, _ = damaged.where("plain", b"noise")
    damaged.flip(pack, frame.end - 1)
    runner = CliRunner()
    data = ["--data", str(damaged.directory)]
    planned = runner.invoke(main, ["repair", *data, "--dry-run"])
    assert planned.exit_code == 1 or "would be mended" in planned.output
    assert "would be mended" in planned.output
    done = runner.invoke(main, ["repair", *data, "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["whole"]
    assert shown["packs"][0]["mended_blocks"] == 1
    sidecar(damaged, pack).unlink()
    damaged.flip(pack, frame.end - 1)
    lost = runner.invoke(main, ["repair", *data])
    assert lost.exit_code == 1
    assert "cannot be read: plain/noise" in lost.output


# --- the chore ---------------------------------------------------------------------------------------------------


def test_chore_mends_what_readers_and_scrubs_report(damaged: Damaged):
    pack, frame, _ = damaged.where("plain", b"noise")
    clean = damaged.path(pack).read_bytes()
    damaged.flip(pack, frame.end - 1)
    with damaged.store() as store:
        expected = read(store, "plain", b"noise")
        assert len(expected) == 300_000
        protect_all(store)
        assert damaged.path(pack).read_bytes() == clean
        damaged.flip(pack, frame.offset + 3)
        note_damage(store, pack, frame.offset, b"c" * 32)
        protect_all(store)
        assert damaged.path(pack).read_bytes() == clean
        with store.kv.snapshot() as reader:
            assert packs_to_mend(reader) == []
            assert damaged_chunks(reader) == 0


def test_rot_that_only_the_scrub_meets_is_mended(damaged: Damaged):
    pack, frame, _ = damaged.where("plain", b"noise")
    clean = damaged.path(pack).read_bytes()
    damaged.flip(pack, frame.end - 1)
    with damaged.store() as store:
        monotonic = [1000.0]
        work = Scrub(
            store, on_damage=partial(note_damage, store), clock=lambda: 1e9, monotonic=lambda: monotonic[0]
        )
        while damaged.path(pack).read_bytes() != clean:
            monotonic[0] += 3600.0
            assert work.run_slice(60.0) or damaged_packs(store) == [pack]
            protect_all(store)
        assert verify(store).clean


def damaged_packs(store: Store) -> list[int]:
    with store.kv.snapshot() as reader:
        return packs_to_mend(reader)


def test_chore_gives_a_damaged_pack_no_parity_and_records_what_is_lost(damaged: Damaged):
    pack, frame, _ = damaged.where("plain", b"noise")
    sidecar(damaged, pack).unlink()
    damaged.flip(pack, frame.end - 1)
    with damaged.store() as store:
        protect_all(store)
        assert not sidecar(damaged, pack).exists()
        with store.kv.snapshot() as reader:
            assert damaged_chunks(reader) == 1
        assert verify(store).affected


def test_chore_does_nothing_at_zero_percent_but_mends(damaged: Damaged):
    pack, frame, _ = damaged.where("plain", b"noise")
    others = [p for p, row in damaged.packs() if row.state == PackState.SEALED and p != pack]
    sidecar(damaged, others[0]).unlink()
    clean = damaged.path(pack).read_bytes()
    damaged.flip(pack, frame.end - 1)
    with damaged.store() as store:
        store.kv.commit(lambda txn: set_parity_percent(txn, 0))
        with store.kv.snapshot() as reader:
            assert parity_percent(reader) == 0
        note_damage(store, pack)
        protect_all(store)
    assert not sidecar(damaged, others[0]).exists()
    assert damaged.path(pack).read_bytes() == clean


def test_chore_finds_rot_in_sidecars(damaged: Damaged):
    packs = sealed_packs(damaged)
    clean = sidecar(damaged, packs[2]).read_bytes()
    flip(sidecar(damaged, packs[2]), len(clean) // 2)
    now = [0.0]
    with damaged.store() as store:
        work = Parity(store, lambda: now[0])
        for _ in range(len(packs) + 1):
            while work.run_slice(0.0):
                pass
            now[0] += CHECK_SECONDS / len(packs)
        while work.run_slice(0.0):
            pass
    assert sidecar(damaged, packs[2]).read_bytes() == clean


def test_sidecar_goes_with_its_pack(damaged: Damaged):
    pack, _, _ = damaged.where("plain", b"noise")
    with damaged.store() as store:
        new = sidecar(damaged, pack).with_name(sidecar(damaged, pack).name + ".new")
        new.write_bytes(b"left by a crash")
        store.packs.remove(pack)
        assert not sidecar(damaged, pack).exists()
        assert not new.exists()


def test_sidecar_whose_pack_is_gone_is_removed(damaged: Damaged):
    with damaged.store() as store:
        store.sidecars.put(0xFFFF_0000_0001, b"stray")
        protect_all(store)
        assert 0xFFFF_0000_0001 not in dict(store.sidecars.lengths())


def test_parity_is_a_chore(damaged: Damaged):
    packs = sealed_packs(damaged)
    for pack in packs:
        sidecar(damaged, pack).unlink()
    with damaged.store() as store:
        all_chores = [chore for chore in chores(store) if chore.name == "parity"]
        for now in range(20):
            run_due(all_chores, float(now))
        assert sorted(pack for pack, _ in store.sidecars.lengths()) == packs


def test_chore_begun_before_a_crash_is_begun_again(damaged: Damaged):
    packs = sealed_packs(damaged)
    for pack in packs:
        sidecar(damaged, pack).unlink()
    for steps in range(12):
        with damaged.store() as store:
            work = Parity(store)
            for _ in range(steps):
                work.run_slice(0.0)
    with damaged.store() as store:
        protect_all(store)
        assert sorted(pack for pack, _ in store.sidecars.lengths()) == packs
        assert repair(store).mended == []
