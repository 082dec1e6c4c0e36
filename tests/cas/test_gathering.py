"""Gathering: ends of uploads share frames, each once, whoever fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas import gathering
from cas.adoption import inspect
from cas.catalog import condemn, iterate_packs
from cas.errors import NoSpace, PackPoisoned, PlaceFailed
from cas.frame import MAX_CHUNKS
from cas.gathering import JOINT_RAW_BYTES, TAIL_RAW_BYTES, plan_gather, shares
from cas.pack import PackKind
from tests.cas.support import Rig, noise, words

# --- the plan -----------------------------------------------------------------------------------------------------

chunk_ids = st.binary(min_size=1, max_size=1)  # few, so that tails share them
tails = st.lists(st.dictionaries(chunk_ids, st.integers(1, 30), max_size=6), max_size=8)


@given(tails, st.sets(chunk_ids), st.integers(1, 60))
def test_plan_holds_every_new_chunk_once_and_completes_every_tail(lengths, known, most):
    data = [{chunk: bytes(length) for chunk, length in tail.items()} for tail in lengths]
    frames = plan_gather(data, known, most)
    placed = [chunk for frame in frames for chunk in frame.chunks]
    assert len(placed) == len(set(placed))
    assert set(placed) == {chunk for tail in data for chunk in tail} - known
    assert [number for frame in frames for number, _ in frame.members] == list(range(len(data)))
    written = set(known)
    for position, frame in enumerate(frames):
        assert frame.chunks or position == 0
        assert (
            frame.raw_length == sum(map(len, frame.chunks.values())) == sum(own for _, own in frame.members)
        )
        assert frame.raw_length <= most or sum(own > 0 for _, own in frame.members) == 1
        written |= frame.chunks.keys()
        assert all(data[number].keys() <= written for number, _ in frame.members)


def test_plan_begins_a_frame_when_the_last_one_is_full():
    tail = {b"%d" % number: bytes(40) for number in range(10)}
    one_each = [{chunk: data} for chunk, data in tail.items()]
    assert [len(frame.chunks) for frame in plan_gather(one_each, (), 100)] == [2] * 5
    many = [{b"%d %d" % (number, n): b"x" for n in range(MAX_CHUNKS - 1)} for number in range(2)]
    assert [len(frame.chunks) for frame in plan_gather(many, (), JOINT_RAW_BYTES)] == [MAX_CHUNKS - 1] * 2


@given(st.integers(0, 1 << 30), st.lists(st.integers(0, 1 << 20), min_size=1))
def test_shares_add_up_and_are_in_proportion(total, weights):
    divided = shares(total, weights)
    whole = sum(weights)
    assert sum(divided) == (total if whole else 0)
    assert all(
        abs(share * whole - total * weight) < whole or not whole
        for share, weight in zip(divided, weights, strict=True)
    )


# --- what a sync does ---------------------------------------------------------------------------------------------


@pytest.fixture
def rig() -> Rig:
    return Rig()


def upload(rig: Rig, data: bytes):
    ingest = rig.store.ingest()
    ingest.feed(data)
    return ingest.finish(), ingest, ingest.publication()


def data_frames(rig: Rig) -> list[int]:
    """Raw bytes of every data frame that is written."""
    found = (inspect(rig.packs, pack) for pack in rig.packs.packs())
    return [
        frame.header.raw_length
        for contents in found
        if contents.header.kind == PackKind.DATA
        for frame in contents.frames
    ]


def test_small_uploads_of_one_commit_share_a_frame(rig: Rig):
    bodies = [noise(3000, seed) for seed in range(5)]
    made = [upload(rig, body) for body in bodies]
    assert not data_frames(rig)
    rig.commit(*(publication for _, _, publication in made))
    assert data_frames(rig) == [sum(map(len, bodies))]
    rig.packs = rig.packs.crash()
    rig.store = rig.open(2)
    assert [rig.get(manifest) for manifest, _, _ in made] == bodies


def test_upload_alone_is_a_frame_as_ever(rig: Rig):
    manifest, ingest = rig.put(words(3000))
    assert data_frames(rig) == [ingest.new_raw_bytes] == [3000]
    assert rig.get(manifest) == words(3000)


def test_long_rest_of_an_upload_does_not_wait(rig: Rig):
    data = noise(TAIL_RAW_BYTES + 2000)
    _, ingest, publication = upload(rig, data)
    assert sum(data_frames(rig)) == ingest.new_raw_bytes == len(data)
    assert publication.tail is not None
    assert not publication.tail.chunks


def test_tails_beyond_a_joint_frame_begin_another(rig: Rig, monkeypatch):
    counts = []

    def counting(fn, items):
        items = list(items)
        counts.append(len(items))
        return map(fn, items)

    rig.store._parallel_map = counting
    bodies = [noise(TAIL_RAW_BYTES, seed) for seed in range(5)]
    made = [upload(rig, body) for body in bodies]
    counts.clear()
    rig.commit(*(publication for _, _, publication in made))
    assert data_frames(rig) == [JOINT_RAW_BYTES, JOINT_RAW_BYTES, TAIL_RAW_BYTES]
    assert counts == [3]  # they are compressed side by side
    assert [rig.get(manifest) for manifest, _, _ in made] == bodies


def test_shares_of_the_uploads_add_up_to_their_frame(rig: Rig):
    made = [upload(rig, noise(1000 * seed, seed)) for seed in range(1, 5)]
    before = [ingest.new_stored_bytes for _, ingest, _ in made]
    rig.commit(*(publication for _, _, publication in made))
    (frame,) = (
        f for p in rig.packs.packs() for f in inspect(rig.packs, p).frames if f.header.raw_length == 10_000
    )
    added = [ingest.new_stored_bytes - more for (_, ingest, _), more in zip(made, before, strict=True)]
    assert sum(added) == frame.header.total_length
    assert added == sorted(added)
    assert [ingest.new_raw_bytes for _, ingest, _ in made] == [1000, 2000, 3000, 4000]


def test_chunk_of_several_tails_is_stored_once(rig: Rig):
    data = noise(10_000)
    made = [upload(rig, data) for _ in range(3)]
    rig.store.sync([publication for _, _, publication in made])
    assert data_frames(rig) == [10_000]
    assert [ingest.new_raw_bytes for _, ingest, _ in made] == [10_000, 0, 0]
    # Who brought it fails, the others do not.
    made[0][2].settle(False)
    rig.commit(made[1][2])
    made[2][2].settle(False)
    assert rig.get(made[1][0]) == data
    assert len(rig.store._known) == 0


@pytest.mark.parametrize("is_committed", [True, False], ids=["committed", "in flight"])
def test_what_others_stored_meanwhile_is_not_stored_again(rig: Rig, is_committed: bool):
    data = noise(10_000)
    manifest, slow, publication = upload(rig, data)
    _, _, first = upload(rig, data)
    rig.store.sync([first])
    if is_committed:
        rig.kv.commit(first.apply)
        first.settle(True)
    rig.commit(publication)
    first.settle(False)
    assert data_frames(rig) == [10_000]
    assert slow.new_stored_bytes == 0 or not is_committed  # its nodes were in flight, too
    assert slow.new_raw_bytes == 0
    assert rig.get(manifest) == data


def test_what_others_stored_in_a_condemned_pack_is_stored_again(rig: Rig):
    data = noise(10_000)
    manifest, slow, publication = upload(rig, data)
    rig.put(data)
    rig.store._appender.seal()
    rig.store._settle_ended()
    with rig.kv.snapshot() as reader:
        packs = [pack for pack, _ in iterate_packs(reader)]
    rig.kv.commit(lambda txn: condemn(txn, packs))
    rig.commit(publication)
    assert slow.new_raw_bytes == 10_000
    for pack in packs:
        rig.packs.remove(pack)
    assert rig.get(manifest) == data


def test_synced_again_nothing_is_written_again(rig: Rig):
    made = [upload(rig, words(3000, seed)) for seed in range(3)]
    publications = [publication for _, _, publication in made]
    rig.store.sync(publications)
    used = rig.packs.used()
    added = [ingest.new_stored_bytes for _, ingest, _ in made]
    rig.store.sync(publications)
    rig.store.sync(publications[1:2])
    assert rig.packs.used() == used
    assert [ingest.new_stored_bytes for _, ingest, _ in made] == added
    rig.commit(*publications)
    assert [rig.get(manifest) for manifest, _, _ in made] == [words(3000, seed) for seed in range(3)]


def test_publication_of_an_ingest_is_one(rig: Rig):
    _, ingest, publication = upload(rig, noise(3000))
    assert ingest.publication() is publication
    assert len(publication) == ingest.chunks


def test_given_up_before_its_commit_a_tail_has_left_nothing(rig: Rig):
    ingest = rig.store.ingest()
    ingest.feed(b"x" * 60)  # one chunk, no node
    ingest.finish()
    publication = ingest.publication()
    assert ingest.held_bytes == 60
    ingest.abort()
    publication.settle(False)
    assert not rig.packs.volatile
    assert len(rig.store._known) == 0


def test_given_up_after_its_sync_a_tail_is_garbage_and_unknown(rig: Rig):
    _, ingest, publication = upload(rig, noise(5000))
    rig.store.sync([publication])
    assert len(rig.store._known) == len(publication) > 0
    assert ingest.held_bytes == 0
    ingest.abort()
    assert len(rig.store._known) == 0
    _, again = rig.put(noise(5000))
    assert again.new_raw_bytes == 5000


def test_publication_is_not_applied_while_its_tail_waits(rig: Rig):
    *_, publication = upload(rig, noise(3000))
    publication.make_durable(rig.store._appender)
    with pytest.raises(RuntimeError):
        rig.kv.commit(publication.apply)


def test_collection_does_not_wait_for_a_commit_to_write(rig: Rig):
    data = noise(500)
    relocation = rig.store.relocation(PackKind.DATA)
    relocation.take([rig.store._hasher.chunk_id(data)], [data])
    publication = relocation.publication()
    assert publication.tail is None
    assert data_frames(rig) == [500]
    relocation.abort()


# --- faults -------------------------------------------------------------------------------------------------------


def sync_one_by_one(rig: Rig, publications) -> list[type | None]:
    """As the committer does when they cannot be synced together."""
    outcomes: list[type | None] = []
    for publication in publications:
        try:
            rig.store.sync([publication])
        except (NoSpace, PackPoisoned, PlaceFailed) as error:
            publication.settle(False)
            outcomes.append(type(error))
        else:
            outcomes.append(None)
    return outcomes


def single(rig: Rig, length: int, seed: int):
    """An upload of one chunk: no nodes, all of it a tail."""
    return upload(rig, noise(length, seed))


def test_full_disk_fails_those_that_do_not_fit(rig: Rig):
    rig.put(noise(60, 9))
    made = [single(rig, length, seed) for seed, length in enumerate((60, 60, 1000, 60))]
    publications = [publication for _, _, publication in made]
    rig.packs.capacity = rig.packs.used() + 600
    with pytest.raises(NoSpace):
        rig.store.sync(publications)
    assert sync_one_by_one(rig, publications) == [None, None, NoSpace, None]
    rig.packs.capacity = None
    for number in (0, 1, 3):
        rig.commit(publications[number])
        assert rig.get(made[number][0]) == noise(60, number)
    again, _ = rig.put(noise(1000, 2))
    assert rig.get(again) == noise(1000, 2)
    assert len(rig.store._known) == 0


@pytest.mark.parametrize("good", range(4))
def test_what_was_written_before_a_failure_is_not_written_again(rig: Rig, monkeypatch, good: int):
    monkeypatch.setattr(gathering, "JOINT_RAW_BYTES", 100)
    made = [single(rig, 60, seed) for seed in range(4)]  # a frame each
    publications = [publication for _, _, publication in made]
    append, appended = rig.store._appender.append, []

    def failing(*args):
        if len(appended) == good:
            appended.append(None)
            raise NoSpace("injected")
        appended.append(args)
        return append(*args)

    monkeypatch.setattr(rig.store._appender, "append", failing)
    with pytest.raises(NoSpace):
        rig.store.sync(publications)
    assert [ingest.new_raw_bytes for _, ingest, _ in made] == [60] * good + [0] * (4 - good)
    assert sync_one_by_one(rig, publications) == [None] * 4
    rig.commit(*publications)
    assert data_frames(rig) == [60] * 4
    assert [rig.get(manifest) for manifest, _, _ in made] == [noise(60, seed) for seed in range(4)]


def test_failed_write_goes_to_another_pack(rig: Rig):
    rig.put(noise(60, 9))
    (pack,) = rig.packs.volatile
    made = [single(rig, 60, seed) for seed in range(3)]
    publications = [publication for _, _, publication in made]
    rig.packs.failing_writes.add(pack)
    with pytest.raises(PackPoisoned):
        rig.store.sync(publications)
    # The bytes were still in memory: nothing is lost, nobody fails.
    assert sync_one_by_one(rig, publications) == [None] * 3
    rig.commit(*publications)
    assert [rig.get(manifest) for manifest, _, _ in made] == [noise(60, seed) for seed in range(3)]


def test_failed_flush_fails_all_whose_bytes_are_lost_and_is_never_tried_again(rig: Rig):
    kept, _ = rig.put(noise(60, 9))
    (pack,) = rig.packs.volatile
    made = [single(rig, 60, seed) for seed in range(2)]
    *_, known = upload(rig, noise(60, 9))
    publications = [publication for _, _, publication in made]
    rig.packs.failing_syncs.add(pack)
    syncs = rig.packs.syncs
    with pytest.raises(PackPoisoned):
        rig.store.sync([*publications, known])
    assert sync_one_by_one(rig, [*publications, known]) == [PackPoisoned, PackPoisoned, None]
    assert rig.packs.syncs == syncs + 1
    again, ingest = rig.put(noise(60, 0))
    assert ingest.new_raw_bytes == 60
    assert rig.get(again) == noise(60, 0)
    assert rig.get(kept) == noise(60, 9)


def test_place_that_makes_no_pack_fails_the_commit_alone(rig: Rig, monkeypatch):
    _, ingest, publication = single(rig, 60, 0)

    def refuse(pack: int) -> None:
        raise PermissionError(pack)

    with monkeypatch.context() as patched:
        patched.setattr(rig.packs, "create", refuse)
        with pytest.raises(PlaceFailed):
            rig.store.sync([publication])
    assert ingest.new_raw_bytes == 0
    assert sync_one_by_one(rig, [publication]) == [None]


def test_bytes_of_a_sync_without_a_commit_are_garbage_to_the_next_writer(rig: Rig):
    """Killed between append and commit."""
    made = [single(rig, 60, seed) for seed in range(3)]
    rig.store.sync([publication for _, _, publication in made])
    rig.packs = rig.packs.crash()
    rig.store = rig.open(2)
    assert len(rig.store.adopt(1).removed) == 1  # no row names the pack
    manifest, ingest = rig.put(noise(60, 1))
    assert ingest.new_raw_bytes == 60
    assert rig.get(manifest) == noise(60, 1)
