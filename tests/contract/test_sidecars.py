"""The contract of sidecars, for files and for the fake; and of mending packs in place. Crashes between any two steps."""

from __future__ import annotations

import fcntl
import os

import pytest

from cas import sidecars as local
from cas.errors import MissingPack, MissingSidecar, NoSpace
from cas.memory_packs import MemoryPacks
from cas.packs import LocalPacks
from cas.sidecars import LocalSidecars

PACK = 0x0000000700000001


@pytest.fixture(params=["local", "memory"])
def places(request: pytest.FixtureRequest, tmp_path):
    """(place for packs, its sidecars), with one sealed pack."""
    if request.param == "local":
        packs = LocalPacks(tmp_path)
        sidecars = LocalSidecars(tmp_path)
    else:
        packs = MemoryPacks()
        sidecars = packs.sidecars
    writer = packs.create(PACK)
    writer.write(0, [b"0123456789"])
    writer.finish(10)
    writer.close()
    return packs, sidecars


def test_sidecar_is_read_as_it_was_put(places):
    _, sidecars = places
    sidecars.put(PACK, b"abcdef")
    assert sidecars.read(PACK, [(0, 3), (4, 100), (9, 1)]) == [b"abc", b"ef", b""]
    assert sidecars.length(PACK) == 6
    assert list(sidecars.lengths()) == [(PACK, 6)]


def test_sidecar_is_replaced_whole(places):
    _, sidecars = places
    sidecars.put(PACK, b"a long one")
    sidecars.put(PACK, b"short")
    assert sidecars.read(PACK, [(0, 100)]) == [b"short"]


def test_missing_sidecar_is_said_to_be_missing(places):
    _, sidecars = places
    for call in (lambda: sidecars.read(PACK, [(0, 1)]), lambda: sidecars.length(PACK)):
        with pytest.raises(MissingSidecar):
            call()
    sidecars.remove(PACK)
    assert list(sidecars.lengths()) == []


def test_sidecar_is_no_pack_and_goes_with_its_pack(places):
    packs, sidecars = places
    sidecars.put(PACK, b"abc")
    assert list(packs.packs()) == [PACK]
    packs.remove(PACK)
    assert list(sidecars.lengths()) == []


def test_sealed_pack_is_mended_in_place(places):
    packs, _ = places
    assert packs.read(PACK, [(0, 10)]) == [b"0123456789"]
    packs.rewrite(PACK, [(1, b"AB"), (8, b"YZ")])
    packs.drop_cached(PACK)
    assert packs.read(PACK, [(0, 100)]) == [b"0AB34567YZ"]
    with pytest.raises(MissingPack):
        packs.rewrite(PACK + 1, [(0, b"x")])
    packs.drop_cached(PACK + 1)


# --- files only ---------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """Nothing after it runs, as in a process that is killed."""


@pytest.mark.parametrize("step", ["open", "ftruncate", "write", "flush_data", "rename", "sync_directory"])
@pytest.mark.parametrize("old", [None, b"the old one"])
def test_crash_at_any_step_leaves_the_old_sidecar_or_the_new_one(
    tmp_path, monkeypatch, step: str, old: bytes | None
):
    (tmp_path / "01").mkdir()
    sidecars = LocalSidecars(tmp_path)
    if old is not None:
        sidecars.put(PACK, old)
    where = local if step in ("flush_data", "sync_directory") else os
    real = getattr(where, step)

    def crash(*args, **kwargs):
        if step == "write":
            real(args[0], bytes(args[1])[:3])
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(where, step, crash)
        with pytest.raises(Crash):
            sidecars.put(PACK, b"the new one")
    try:
        found = sidecars.read(PACK, [(0, 100)])[0]
    except MissingSidecar:
        found = None
    assert found == (b"the new one" if step == "sync_directory" else old)
    sidecars.put(PACK, b"the next one")
    assert sidecars.read(PACK, [(0, 100)]) == [b"the next one"]
    assert not list(tmp_path.glob("*/*.new"))


def test_who_comes_second_leaves_it_to_the_first(tmp_path):
    (tmp_path / "01").mkdir()
    sidecars = LocalSidecars(tmp_path)
    new = sidecars.path(PACK).with_name(sidecars.path(PACK).name + ".new")
    with open(new, "wb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        first.write(b"half")
        first.flush()
        sidecars.put(PACK, b"of the second")
        assert new.read_bytes() == b"half"
    assert list(sidecars.lengths()) == []


def test_full_disk_is_said(tmp_path, monkeypatch):
    (tmp_path / "01").mkdir()
    sidecars = LocalSidecars(tmp_path)

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace):
        sidecars.put(PACK, b"abc")
    assert list(sidecars.lengths()) == []
    assert not list(tmp_path.glob("*/*.new"))
