"""What every place for backups promises, whatever stands behind it."""

from __future__ import annotations

import pytest
from obstore.store import MemoryStore

from vaultaire.backup.bucket import BucketPlace
from vaultaire.backup.folder import FolderPlace
from vaultaire.backup.place import BackupError, ItemMissing


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    if request.param == "folder":
        return FolderPlace(tmp_path / "place", create=True)
    return BucketPlace("bucket", "prefix", store=MemoryStore())


NAME = "pieces/ab/" + "ab" * 32


def test_what_is_got_is_what_was_put(place):
    for data in (b"", b"x", bytes(range(256)) * 1000, memoryview(b"view")):
        place.put(NAME, data, replace=True)
        assert place.get(NAME) == bytes(data)
        assert place.size(NAME) == len(data)


def test_put_keeps_an_item_that_is_there_unless_told_otherwise(place):
    place.put(NAME, b"first")
    place.put(NAME, b"second")
    assert place.get(NAME) == b"first"
    place.put(NAME, b"third", replace=True)
    assert place.get(NAME) == b"third"


def test_put_new_refuses_an_item_that_is_there(place):
    place.put_new(NAME, b"first")
    with pytest.raises(BackupError, match="already"):
        place.put_new(NAME, b"second")
    assert place.get(NAME) == b"first"


def test_what_is_not_there_is_said_to_be_missing(place):
    assert place.size(NAME) is None
    with pytest.raises(ItemMissing):
        place.get(NAME)
    place.remove(NAME)
    assert list(place.items("pieces")) == []


def test_items_are_those_below_the_folder(place):
    place.put("pieces/ab/1", b"1")
    place.put("pieces/cd/22", b"22")
    place.put("backups/00000001.json", b"{}")
    assert sorted(place.items("pieces")) == [("pieces/ab/1", 1), ("pieces/cd/22", 2)]
    assert list(place.items("backups")) == [("backups/00000001.json", 2)]
    place.remove("pieces/ab/1")
    place.flush()
    assert list(place.items("pieces")) == [("pieces/cd/22", 2)]


def test_writing_can_be_done_again(place):
    for _ in range(2):
        with place.writing():
            place.put(NAME, b"x")
