"""Scrubbing: all is read in time and once, damage is told once, and a restart goes on where it stood."""

from __future__ import annotations

import logging
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.catalog import PACKS, PackState, condemn, forget_pack, iterate_packs, pack_key
from index.kv import KvError
from tests.vaultaire.verify_support import Client, _bucket, fill, flip, look
from vaultaire.cli.stats import care_lines
from vaultaire.config import ServeConfig
from vaultaire.maintenance import chores
from vaultaire.reports import get_report
from vaultaire.scrub import (
    DAY_SECONDS,
    FLOOR_BYTES_PER_SECOND,
    SAVE_SECONDS,
    SUBJECT,
    Progress,
    Scrub,
    plan_rate,
)
from vaultaire.store import Store

WEEK = 7 * DAY_SECONDS


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("filled") / "store"
    fill(directory)
    return directory


class Clock:
    """Both clocks; each look at the monotonic one takes a millisecond."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now


class Bench:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = Clock()
        self.damaged: list[tuple[int, int | None, bytes | None]] = []

    def scrub(self, **options) -> Scrub:
        return Scrub(
            self.store,
            on_damage=lambda *where: self.damaged.append(where),
            clock=self.clock.wall,
            monotonic=self.clock.monotonic,
            **options,
        )

    def run_pass(self, scrub: Scrub) -> int:
        """A slice a second until nothing is to do; how many slices."""
        for slices in range(10_000):
            self.clock.now += 1.0
            if not scrub.run_slice(0.3):
                return slices
        pytest.fail("the pass never ends")

    def report(self):
        with self.store.kv.snapshot() as reader:
            return get_report(reader, SUBJECT)

    def sealed(self) -> list[tuple[int, int]]:
        with self.store.kv.snapshot() as reader:
            return [
                (pack, row.length) for pack, row in iterate_packs(reader) if row.state == PackState.SEALED
            ]


@pytest.fixture
def bench(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "store")
    with Store.open(tmp_path / "store", kind="command") as store:
        yield Bench(store)


@given(st.integers(0, 1 << 50), st.floats(-WEEK, WEEK), st.floats(0.01, 365))
def test_the_rate_is_enough_for_the_time_that_is_left(left_bytes, left_seconds, days):
    rate = plan_rate(left_bytes, left_seconds, days * DAY_SECONDS)
    assert rate >= FLOOR_BYTES_PER_SECOND
    if left_seconds >= 0.1 * days * DAY_SECONDS:
        assert rate * left_seconds >= left_bytes * 0.999


def test_a_late_pass_goes_faster_but_not_without_bound():
    assert plan_rate(1 << 50, -WEEK, WEEK) == (1 << 50) / (0.1 * WEEK)


def test_a_pass_reads_every_sealed_pack_once_and_then_rests(bench):
    scrub = bench.scrub()
    bench.run_pass(scrub)
    sealed = bench.sealed()
    last = bench.report()["last"]
    assert (last["packs"], last["bytes"], last["damage"]) == (
        len(sealed),
        sum(length for _, length in sealed),
        0,
    )
    assert not scrub.run_slice(0.3)
    bench.clock.now += WEEK - 3600
    assert not scrub.run_slice(0.3)
    bench.clock.now += 2 * 3600
    bench.run_pass(scrub)
    assert bench.report()["last"]["begun_ms"] > last["finished_ms"]
    assert bench.damaged == []


def test_a_large_store_is_spread_over_the_time_there_is(bench):
    """With a rate that a slice can reach, slices end because of the rate, not of their time."""
    scrub = bench.scrub()
    slices = bench.run_pass(scrub)
    total = sum(length for _, length in bench.sealed())
    assert slices >= total // (FLOOR_BYTES_PER_SECOND + (1 << 20)) - 1


def test_a_restart_goes_on_after_the_last_pack_that_is_done(bench):
    sealed = bench.sealed()
    scrub = bench.scrub()
    while scrub.progress.packs < 3:
        bench.clock.now += 1.0
        assert scrub.run_slice(0.002)  # a frame
    bench.clock.now += SAVE_SECONDS + 1  # progress is saved now and then
    assert scrub.run_slice(0.002)
    done = scrub.progress.packs
    again = bench.scrub()
    assert again.progress.cursor == sealed[done - 1][0]
    bench.run_pass(again)
    assert bench.report()["last"]["packs"] == len(sealed)


def damage_a_frame(bench: Bench) -> tuple[int, int, bytes]:
    pack, _ = next((p, length) for p, length in bench.sealed() if look(bench.store, p)[1])
    _, frames = look(bench.store, pack)
    header = frames[0].header
    flip(bench.store.packs.path(pack), frames[0].offset + header.header_length + 1)
    return pack, frames[0].offset, header.ids[0]


def test_damage_is_logged_once_listed_and_handed_on_at_every_pass(bench, caplog):
    pack, frame, chunk = damage_a_frame(bench)
    scrub = bench.scrub()
    bench.run_pass(scrub)
    assert bench.damaged[0] == (pack, frame, chunk)
    entry = bench.report()["damage"][0]
    assert (entry["pack"], entry["frame"], entry["kind"]) == (f"{pack:016x}", frame, "frame-payload")
    handed = len(bench.damaged)
    bench.clock.now += WEEK
    bench.run_pass(bench.scrub())  # another process: what it knows is in the report
    assert len(bench.damaged) == 2 * handed
    assert [r.levelno for r in caplog.records if f"{pack:016x}" in r.getMessage()] == [logging.ERROR]
    assert "vaultaire verify" in caplog.text
    assert bench.report()["damage"] == [entry]


def test_what_was_mended_is_not_listed_any_more(bench):
    pack, frame, _ = damage_a_frame(bench)
    bench.run_pass(bench.scrub())
    assert bench.report()["damage"]
    _, frames = look(bench.store, pack)
    flip(bench.store.packs.path(pack), frame + frames[0].header.header_length + 1)
    bench.clock.now += WEEK
    bench.run_pass(bench.scrub())
    assert bench.report()["damage"] == []


def test_a_missing_pack_is_damage_and_one_that_was_collected_is_not(bench):
    (missing, _), (collected, _), *_ = bench.sealed()
    bench.store.packs.remove(missing)
    bench.store.kv.commit(lambda txn: condemn(txn, [collected]))

    def forget(txn):
        forget_pack(txn, collected)
        assert txn.get(PACKS, pack_key(collected)) is None

    scrub = bench.scrub()
    scrub.progress  # noqa: B018
    bench.store.kv.commit(forget)
    bench.store.packs.remove(collected)
    bench.run_pass(scrub)
    assert [entry["pack"] for entry in bench.report()["damage"]] == [f"{missing:016x}"]
    assert bench.damaged == [(missing, None, None)]


def test_a_pack_that_is_collected_while_it_is_read_is_no_damage(bench):
    pack, _, _ = damage_a_frame(bench)
    scrub = bench.scrub()
    taken = scrub._take

    def take(number, damage):
        if number == pack:
            assert damage
            bench.store.kv.commit(lambda txn: condemn(txn, [pack]))
        taken(number, damage)

    scrub._take = take
    bench.run_pass(scrub)
    assert bench.damaged == []
    assert bench.report()["damage"] == []


def test_new_packs_are_read_by_the_pass_that_runs_or_the_next(bench):
    bench.run_pass(bench.scrub())
    before = {pack for pack, _ in bench.sealed()}
    Client(bench.store, 9).put(_bucket(bench.store, "plain"), b"new", bytes(range(256)) * 300)
    bench.store.chunks.seal_idle(bench.clock.now + 1e9)
    assert len(bench.sealed()) == len(before) + 1
    bench.clock.now += WEEK
    bench.run_pass(bench.scrub())
    assert bench.report()["last"]["packs"] == len(before) + 1


def test_a_full_disk_does_not_stop_scrubbing(bench, monkeypatch, caplog):
    from index.kv import MapFull

    def full(fn):
        raise MapFull("no room")

    monkeypatch.setattr(bench.store.kv, "commit", full)
    bench.run_pass(bench.scrub())
    assert "cannot be saved" in caplog.text


def test_zero_days_turn_it_off(bench):
    assert "scrub" in {chore.name for chore in chores(bench.store)}
    assert "scrub" not in {
        chore.name for chore in chores(bench.store, ServeConfig(bench.store.directory, scrub_days=0))
    }


def test_stats_tell_where_it_stands():
    now = 1_000_000.0
    running = Progress(5, True, 3, 2, 1 << 20, 1 << 30, {"finished_ms": int((now - 3 * DAY_SECONDS) * 1000)})
    ((text, style),) = care_lines(running.to_json(), None, now)
    assert text == "scrub      last full pass 3 days ago, now at 1.0 MiB of 1.0 GiB, no damage"
    assert style == "dim"
    running.damage = [{}]
    ((text, style), (verified, _)) = care_lines(
        running.to_json(), {"finished_ms": int(now * 1000), "findings": 0}, now
    )
    assert "1 damaged places: run vaultaire verify" in text
    assert style == "yellow"
    assert verified == "verify     0 seconds ago, no damage"
    assert care_lines(None, None, now) == []


def test_a_report_of_another_version_is_read_as_far_as_it_is_known():
    assert Progress.from_json({"cursor": 7, "unheard of": 1}).cursor == 7
    assert Progress.from_json(None) == Progress()


def test_an_error_on_the_way_is_not_the_end_of_the_pass(bench, monkeypatch):
    scrub = bench.scrub()
    real, calls = bench.store.kv.snapshot, []

    def snapshot():
        calls.append(1)
        if len(calls) == 6:
            raise KvError("once")
        return real()

    monkeypatch.setattr(bench.store.kv, "snapshot", snapshot)
    with pytest.raises(KvError):
        bench.run_pass(scrub)
    bench.run_pass(scrub)
    assert bench.report()["last"]["packs"] == len(bench.sealed())
