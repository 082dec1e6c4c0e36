"""The pure parts: what is copied, what may go, and the bytes of a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.journal import ORIGIN, Checksum, Position
from vaultaire.backup.manifest import DamagedManifest, Destination, Manifest, Piece, digest_of, length_of
from vaultaire.backup.place import BackupError
from vaultaire.backup.plan import cut_range, may_continue, missing_of, superfluous

GOLDEN = Path(__file__).parent / "golden"
MIB = 1 << 20


def manifest_with(files, position=ORIGIN, **fields):
    return Manifest(1, bytes(16), 0, position, None, files, **fields)


def journal_piece(length):
    return Piece(length, "0" * 64)


def test_the_journal_goes_on_while_the_store_still_has_it():
    base = manifest_with({}, Position(10, 5, 100, Checksum(bytes(32))))
    assert may_continue(base, [5, 11], None, 0)
    assert not may_continue(base, [6, 11], None, 0)  # cut
    assert not may_continue(None, [1], None, 0)


def test_a_journal_that_outgrew_the_newest_checkpoint_is_given_up_for_it():
    at = Position(10, 1, 100, Checksum(bytes(32)))
    small = manifest_with({"journal/00000000000000000001.log": (journal_piece(100 * MIB),)}, at)
    large = manifest_with({"journal/00000000000000000001.log": (journal_piece(300 * MIB),)}, at)
    new = "checkpoint/00000000000000000009.ckpt"
    assert may_continue(small, [1], new, 10 * MIB)
    assert not may_continue(large, [1], new, 10 * MIB)
    assert may_continue(large, [1], new, 400 * MIB)
    assert may_continue(large, [1], None, 0)
    held = manifest_with({**large.files, new: (journal_piece(10 * MIB),)}, at)
    assert may_continue(held, [1], new, 10 * MIB)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 300))
def test_pieces_cover_a_range_exactly(start, length, piece):
    cuts = list(cut_range(start, start + length, piece))
    assert [offset for offset, _ in cuts] == [start + sum(n for _, n in cuts[:i]) for i in range(len(cuts))]
    assert sum(n for _, n in cuts) == length
    assert all(0 < n <= piece for _, n in cuts)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 100)), st.integers(0, 1000))
def test_only_what_lies_behind_the_base_is_missing(lengths, wanted):
    files = {"packs/00/f.pack": tuple(map(journal_piece, lengths))}
    missing = missing_of(files, "packs/00/f.pack", wanted)
    assert missing.start == length_of(missing.kept) <= wanted
    assert missing.start in (0, sum(lengths))
    assert missing_of(files, "another", wanted).start == 0


@settings(deadline=None, max_examples=50)
@given(st.sets(st.integers(1, 50)), st.integers(1, 60))
def test_the_newest_stay(numbers, keep):
    gone = superfluous(numbers, keep)
    assert len(numbers) - len(gone) == min(keep, len(numbers))
    assert all(old < kept for old in gone for kept in numbers - set(gone))


PATHS = st.from_regex(r"packs/[0-9a-f]{2}/[0-9a-f]{16}\.pack", fullmatch=True) | st.sampled_from(
    ["store.json", "secret.key", "journal/00000000000000000001.log", "checkpoint/00000000000000000007.ckpt"]
)
PIECES = st.builds(Piece, st.integers(0, 1 << 40), st.binary(max_size=3).map(digest_of))
MANIFESTS = st.builds(
    Manifest,
    number=st.integers(1, 10**8 - 1),
    store_id=st.binary(min_size=16, max_size=16),
    created_ms=st.integers(0, 1 << 44),
    position=st.builds(
        Position,
        st.integers(0, 1 << 60),
        st.integers(1, 1 << 60),
        st.integers(0, 1 << 40),
        st.binary(min_size=32, max_size=32).map(Checksum),
    ),
    base=st.none() | st.integers(1, 100),
    files=st.dictionaries(PATHS, st.lists(PIECES, max_size=3).map(tuple), max_size=5),
    damaged=st.dictionaries(PATHS, st.text(max_size=20), max_size=2),
)


@settings(deadline=None, max_examples=50)
@given(MANIFESTS)
def test_what_decodes_is_what_was_encoded(manifest):
    assert Manifest.decode(manifest.encode(), "here") == manifest


@settings(deadline=None, max_examples=50)
@given(MANIFESTS, st.data())
def test_a_changed_manifest_is_found(manifest, data):
    encoded = bytearray(manifest.encode())
    at = data.draw(st.integers(0, len(encoded) - 2))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        same = json.loads(bytes(encoded)) == json.loads(manifest.encode())
    except ValueError:
        same = False
    if not same:  # (a changed escape may stand for the same text)
        with pytest.raises(DamagedManifest):
            Manifest.decode(bytes(encoded), "here")


@settings(deadline=None, max_examples=50)
@given(
    st.binary(max_size=60)
    | st.text(max_size=30).map(str.encode)
    | st.just(b'{"checksum": 1}')
    | st.just(b"[]")
)
def test_anything_else_is_no_manifest(data):
    with pytest.raises(DamagedManifest):
        Manifest.decode(data, "here")
    with pytest.raises(DamagedManifest):
        Destination.decode(data, "here")


def test_the_format_has_not_changed():
    golden = (GOLDEN / "manifest.json").read_bytes()
    manifest = Manifest.decode(golden, "golden")
    assert manifest.encode() == golden
    assert manifest.position == Position(1234, 1000, 5678, Checksum(bytes(range(32))))
    assert manifest.files["packs/01/0000000100000001.pack"][1].length == 200
    assert Destination.decode((GOLDEN / "vaultaire-backup.json").read_bytes(), "golden") == Destination(
        bytes(range(16)), bytes(range(16, 32))
    )


def test_a_newer_version_is_refused_and_not_called_damaged():
    from vaultaire.backup.manifest import _canonical

    content = json.loads((GOLDEN / "manifest.json").read_bytes())
    content["version"] = 2
    content.pop("checksum")
    content["checksum"] = digest_of(_canonical(content))
    with pytest.raises(BackupError, match="newer") as caught:
        Manifest.decode(json.dumps(content).encode(), "here")
    assert not isinstance(caught.value, DamagedManifest)
