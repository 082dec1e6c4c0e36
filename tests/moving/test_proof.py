"""Which digest proves a body, and what its record may say then."""

from __future__ import annotations

import base64
import hashlib
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.moving.places import Attributes, WrongBytes
from vaultaire.moving.proof import Proof
from vaultaire.s3 import checksums
from vaultaire.s3.checksums import Algorithm

BODY = b"hello world"
MD5 = hashlib.md5(BODY).hexdigest()
CRC = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()
OPAQUE = "f" * 32


def prove(body=BODY, etag=MD5, checksum=None, parts=(), size=None, is_md5=True):
    proof = Proof(
        Attributes(len(body) if size is None else size, etag, 0, {}, checksum, 0, is_md5, part_sizes=parts)
    )
    proof.update(body)
    return proof.finish()


def multipart(*parts):
    digests = [hashlib.md5(part).digest() for part in parts]
    return f"{hashlib.md5(b''.join(digests)).hexdigest()}-{len(parts)}"


def test_a_plain_etag_is_the_md5():
    proven = prove()
    assert (proven.how, proven.etag, proven.parts) == ("md5", MD5, ())
    assert proven.checksum.algorithm == "CRC64NVME"


def test_a_multipart_etag_is_proven_part_by_part_and_leaves_the_table_of_an_upload():
    etag = multipart(BODY[:5], BODY[5:])
    proven = prove(etag=etag, parts=(5, 6))
    assert (proven.how, proven.etag) == ("parts", etag)
    assert [(part.number, part.size, part.etag) for part in proven.parts] == [
        (1, 5, hashlib.md5(BODY[:5]).hexdigest()),
        (2, 6, hashlib.md5(BODY[5:]).hexdigest()),
    ]


def test_a_multipart_etag_without_known_parts_is_kept_and_proves_nothing():
    proven = prove(etag=f"{OPAQUE}-2")
    assert (proven.how, proven.etag, proven.parts) == ("length", f"{OPAQUE}-2", ())


def test_a_checksum_proves_what_the_etag_does_not():
    crc = (Algorithm.CRC32, "FULL_OBJECT", CRC)
    proven = prove(etag=f"{OPAQUE}-2", checksum=crc)
    assert (proven.how, proven.checksum.algorithm, proven.checksum.value) == ("checksum", "CRC32", CRC)
    # It holds, so an ETag that does not is no MD5: clients must not take it for one.
    assert prove(etag=OPAQUE, checksum=crc).etag == MD5


def test_a_composite_checksum_is_compared_part_by_part():
    digests = [hashlib.sha256(part).digest() for part in (BODY[:5], BODY[5:])]
    value = checksums.composite(Algorithm.SHA256, digests)
    proven = prove(
        etag=f"{OPAQUE}-2", parts=(5, 6), checksum=(Algorithm.SHA256, "COMPOSITE", value), is_md5=False
    )
    assert proven.how == "checksum"
    assert (proven.checksum.type, proven.checksum.value) == ("COMPOSITE", value)
    with pytest.raises(WrongBytes, match="checksum"):
        prove(BODY[::-1], f"{OPAQUE}-2", (Algorithm.SHA256, "COMPOSITE", value), (5, 6), is_md5=False)


def test_an_etag_of_an_encrypted_object_is_replaced_by_the_md5():
    proven = prove(etag=OPAQUE, is_md5=False)
    assert (proven.how, proven.etag) == ("length", MD5)
    assert prove(etag="anything-at-all").etag == MD5


@pytest.mark.parametrize(
    "wrong",
    [
        {"etag": OPAQUE},
        {"etag": f"{OPAQUE}-2", "parts": (5, 6)},
        {"checksum": (Algorithm.CRC32, "FULL_OBJECT", "AAAAAA==")},
        {"etag": OPAQUE, "checksum": (Algorithm.CRC32, "FULL_OBJECT", "AAAAAA==")},
        {"size": len(BODY) + 1},
        {"size": len(BODY) - 1},
    ],
)
def test_wrong_bytes_are_refused(wrong):
    with pytest.raises(WrongBytes):
        prove(**wrong)


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=5), st.integers(1, 9))
def test_pieces_of_any_size_prove_the_same(body, cuts, width):
    etag = multipart(*[body[i : i + width] for i in range(0, len(body), width)])
    sizes = tuple(len(body[i : i + width]) for i in range(0, len(body), width))
    proof = Proof(Attributes(len(body), etag, 0, {}, part_sizes=sizes))
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    for start, stop in pairwise(edges):
        proof.update(memoryview(body)[start:stop])
    if body:
        assert proof.finish().how == "parts"
