"""What a file is taken for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.analyze.kinds import Nature, kind_of, top_folder

HEX = b"0123456789abcdef" * 4

CASES = [
    (b"a/b.txt", b"text", ".txt", Nature.PLAIN),
    (b"a/B.SQL", b"text", ".sql", Nature.PLAIN),
    (b"a/README", b"text", "no extension", Nature.PLAIN),
    (b"a/.bashrc", b"text", "no extension", Nature.PLAIN),
    (b"a/x.a-very-long-ending", b"", "no extension", Nature.PLAIN),
    (b"a/dump.sql", b"\x1f\x8b\x08", "gzip", Nature.COMPRESSED),
    (b"a/x.jar", b"PK\x03\x04", ".jar", Nature.MEDIA),
    (b"a/x", b"PK\x03\x04", "zip", Nature.COMPRESSED),
    (b"a/x", b"\xff\xd8\xff\xe0", "jpeg", Nature.MEDIA),
    (b"a/x.mp4", b"\0\0\0\x18ftypisom", "mp4", Nature.MEDIA),
    (b"a/x", bytes(257) + b"ustar", "tar", Nature.PLAIN),
    (b"a/x", b"age-encryption.org/v1\n", "age", Nature.ENCRYPTED),
    (b"r/data/01/" + HEX, b"??", "restic repository", Nature.REPOSITORY),
    (b"index/" + HEX, b"??", "restic repository", Nature.REPOSITORY),
    (b"data/0/17", b"BORG_SEG....", "Borg repository", Nature.REPOSITORY),
    (b"p01/23a/4567abc-s0f1.f", b"??", "Kopia repository", Nature.REPOSITORY),
    (b"q" + HEX[:32] + b"-s12", b"??", "Kopia repository", Nature.REPOSITORY),
]


@pytest.mark.parametrize(("key", "head", "name", "nature"), CASES)
def test_kind(key, head, name, nature):
    found = kind_of(key, head)
    assert (found.name, found.nature) == (name, nature)


@given(st.binary(max_size=80), st.binary(max_size=300))
def test_no_name_and_no_bytes_are_an_error(key, head):
    assert kind_of(key, memoryview(head)).name.isascii()
    assert top_folder(key).endswith("/")


@pytest.mark.parametrize(
    ("key", "folder"), [(b"a/b/c", "a/"), (b"c", "./"), (b"/c", "/"), (b"\xff/c", "\\xff/"), (b"", "./")]
)
def test_top_folder(key, folder):
    assert top_folder(key) == folder
