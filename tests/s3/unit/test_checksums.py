"""The engines against known values; combination against direct computation."""

from __future__ import annotations

import base64
import hashlib

import botocore.session
import pytest
from awscrt.checksums import XXHash
from hypothesis import given, settings
from hypothesis import strategies as st

from index.values import ALGORITHMS
from vaultaire.s3.checksums import Algorithm, combine, composite, decode, encode, new_engine, new_md5

CRCS = [a for a in Algorithm if "FULL_OBJECT" in a.types]
CHECK = {
    Algorithm.CRC32: "cbf43926",
    Algorithm.CRC32C: "e3069283",
    Algorithm.CRC64NVME: "ae8b14860a799888",
    Algorithm.SHA1: hashlib.sha1(b"123456789").hexdigest(),
    Algorithm.SHA256: hashlib.sha256(b"123456789").hexdigest(),
    Algorithm.SHA512: hashlib.sha512(b"123456789").hexdigest(),
    Algorithm.MD5: "25f9e794323b453885f5181f1b624d0b",
    Algorithm.XXHASH64: "8cb841db40e6ae83",
    Algorithm.XXHASH3: "72dcb18b67a17dff",
    Algorithm.XXHASH128: "33119477ede5dcd5e9716427681d5860",
}


def digest(algorithm: Algorithm, *pieces: bytes) -> bytes:
    engine = new_engine(algorithm)
    for piece in pieces:
        engine.update(memoryview(piece))
    return engine.digest()


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_check_value_of_each_algorithm(algorithm):
    assert digest(algorithm, b"1234", b"", b"56789").hex() == CHECK[algorithm]
    assert len(digest(algorithm)) == algorithm.digest_bytes


def test_the_algorithms_are_those_of_the_sdk_and_of_the_records():
    model = botocore.session.get_session().get_service_model("s3")
    names = {algorithm.value for algorithm in Algorithm}
    assert names == set(model.shape_for("ChecksumAlgorithm").enum) == set(ALGORITHMS)


@given(st.binary(max_size=600))
def test_xxhash_agrees_with_the_implementation_that_the_sdks_use(data):
    assert digest(Algorithm.XXHASH64, data) == XXHash.compute_xxhash64(data)
    assert digest(Algorithm.XXHASH3, data) == XXHash.compute_xxhash3_64(data)
    assert digest(Algorithm.XXHASH128, data) == XXHash.compute_xxhash3_128(data)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_only_crcs_have_full_object_checksums_of_multipart_uploads(algorithm):
    assert ("FULL_OBJECT" in algorithm.types) == algorithm.value.startswith("CRC")
    assert ("COMPOSITE" in algorithm.types) == (algorithm is not Algorithm.CRC64NVME)


def test_names_follow_the_algorithm():
    assert Algorithm.CRC64NVME.header == "x-amz-checksum-crc64nvme"
    assert Algorithm.CRC64NVME.element == "ChecksumCRC64NVME"
    assert Algorithm("SHA256") is Algorithm.SHA256


def test_md5_is_md5():
    engine = new_md5()
    engine.update(b"abc")
    assert engine.digest() == hashlib.md5(b"abc").digest()


@settings(deadline=None)
@given(st.sampled_from(CRCS), st.lists(st.binary(max_size=300), max_size=6))
def test_combined_crcs_are_those_of_the_concatenation(algorithm, parts):
    direct = digest(algorithm, b"".join(parts))
    assert combine(algorithm, [(digest(algorithm, part), len(part)) for part in parts]) == direct


@pytest.mark.parametrize("algorithm", CRCS)
def test_combination_holds_for_lengths_beyond_32_bits(algorithm):
    """However many GiB of zeros are put together, the result is the same."""
    zero, head = digest(algorithm, b"\0"), (digest(algorithm, b"head"), 4)
    zeros, length = zero, 1
    while length < 5 << 30:
        zeros, length = combine(algorithm, [(zeros, length), (zeros, length)]), length * 2
    one_less = combine(algorithm, [head, (zeros, length)])
    longer = combine(algorithm, [(zeros, length), (zero, 1)])
    assert combine(algorithm, [head, (longer, length + 1)]) == combine(
        algorithm, [(one_less, length + 4), (zero, 1)]
    )


def test_hashes_do_not_combine():
    with pytest.raises(KeyError):
        combine(Algorithm.SHA256, [])


@settings(deadline=None)
@given(st.sampled_from(list(Algorithm)), st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_a_composite_checksum_covers_the_raw_digests_of_the_parts(algorithm, parts):
    digests = [digest(algorithm, part) for part in parts]
    value, _, count = composite(algorithm, digests).rpartition("-")
    assert (base64.b64decode(value), int(count)) == (digest(algorithm, *digests), len(parts))


@settings(deadline=None)
@given(st.binary(min_size=4, max_size=4))
def test_base64_round_trips(data):
    assert decode(encode(data), 4) == data


@pytest.mark.parametrize(
    "value", ["", "AAAA", "AAAAAA", "AAAAAA=", "AAAAAB==", " AAAAAA==", "AAAA\nAA==", "é", "AAAAAA==-1"]
)
def test_only_canonical_base64_of_the_right_length_is_a_digest(value):
    assert decode(value, 4) is None
