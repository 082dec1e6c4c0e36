"""What requests promise about their bodies, and whether it held."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest

from vaultaire.s3.checksums import Algorithm, encode, new_engine
from vaultaire.s3.errors import S3Error
from vaultaire.s3.expected import (
    Digests,
    UploadChecksum,
    parse_checksum_type,
    parse_expected,
    parse_object_checksum,
    parse_upload_checksum,
)

BODY = b"hello world"
MD5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()
SHA256 = hashlib.sha256(BODY).hexdigest()


def value(algorithm: Algorithm, body: bytes = BODY) -> str:
    engine = new_engine(algorithm)
    engine.update(body)
    return encode(engine.digest())


def check(fields, body=BODY, *, trailers=None, default=None, **options):
    digests = Digests(parse_expected(fields, **options), default)
    digests.update(memoryview(body)[:3])
    digests.update(memoryview(body)[3:])
    return digests.check(trailers)


def refusal(*args, **options) -> S3Error:
    with pytest.raises(S3Error) as caught:
        check(*args, **options)
    return caught.value


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_checksum_in_a_header_is_verified(algorithm):
    fields = {algorithm.header.encode(): value(algorithm)}
    computed = check(fields)
    assert (computed.algorithm, encode(computed.checksum)) == (algorithm, value(algorithm))
    error = refusal(fields, b"hello w0rld")
    assert error.code == "BadDigest"
    assert error.message == f"The {algorithm.value} you specified did not match the calculated checksum."


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_checksum_in_the_trailer_is_verified(algorithm):
    fields = {b"x-amz-trailer": algorithm.header, b"x-amz-sdk-checksum-algorithm": algorithm.value}
    expected = parse_expected(fields, trailing=True)
    assert expected.trailer_names == (algorithm.header,)
    trailers = {algorithm.header: value(algorithm)}
    assert encode(check(fields, trailers=trailers, trailing=True).checksum) == value(algorithm)
    assert refusal(fields, b"other", trailers=trailers, trailing=True).code == "BadDigest"
    error = refusal(fields, trailers={algorithm.header: "nonsense"}, trailing=True)
    assert error.message == f"Value for {algorithm.header} trailing header is invalid."
    assert refusal(fields, trailers={}, trailing=True).code == "InvalidRequest"


def test_content_md5_is_verified():
    assert check({b"content-md5": MD5}).md5 == hashlib.md5(BODY).digest()
    error = refusal({b"content-md5": MD5}, b"other")
    assert (error.code, error.extra["ExpectedDigest"]) == ("BadDigest", MD5)


@pytest.mark.parametrize("text", ["", "YWJj", "nonsense", MD5[:-1], MD5 + "="])
def test_a_content_md5_that_is_none_is_an_invalid_digest(text):
    assert refusal({b"content-md5": text}).code == "InvalidDigest"


def test_the_signed_payload_hash_is_verified():
    check({}, payload_sha256=SHA256)
    error = refusal({}, b"other", payload_sha256=SHA256)
    assert (error.code, error.extra["ClientComputedContentSHA256"]) == ("XAmzContentSHA256Mismatch", SHA256)


def test_every_digest_given_counts():
    good = {b"content-md5": MD5, b"x-amz-checksum-crc32": value(Algorithm.CRC32)}
    check(good, payload_sha256=SHA256)
    other = value(Algorithm.CRC32, b"x")
    assert refusal({**good, b"x-amz-checksum-crc32": other}, payload_sha256=SHA256).code == "BadDigest"


def test_one_sha256_serves_both_uses():
    expected = parse_expected({b"x-amz-checksum-sha256": value(Algorithm.SHA256)}, payload_sha256=SHA256)
    assert len(Digests(expected).engines) == 2  # with MD5
    check({b"x-amz-checksum-sha256": value(Algorithm.SHA256)}, payload_sha256=SHA256)


def test_one_md5_serves_the_etag_and_the_checksum():
    expected = parse_expected({b"x-amz-checksum-md5": value(Algorithm.MD5)})
    assert len(Digests(expected).engines) == 1
    computed = check({b"x-amz-checksum-md5": value(Algorithm.MD5)})
    assert computed.checksum == computed.md5
    assert refusal({b"x-amz-checksum-md5": value(Algorithm.MD5, b"x")}).code == "BadDigest"


def test_the_default_is_computed_only_when_nothing_was_named():
    assert check({}, default=Algorithm.CRC64NVME).algorithm is Algorithm.CRC64NVME
    fields = {b"x-amz-checksum-crc32": value(Algorithm.CRC32)}
    assert check(fields, default=Algorithm.CRC64NVME).algorithm is Algorithm.CRC32
    assert check({}).checksum is None


@pytest.mark.parametrize("text", ["AAAA", "", "AAAAAA==-1", "not base64"])
def test_a_checksum_header_that_is_none_is_named(text):
    error = refusal({b"x-amz-checksum-crc32": text})
    assert (error.code, error.message) == (
        "InvalidRequest",
        "Value for x-amz-checksum-crc32 header is invalid.",
    )


CRC = b"x-amz-checksum-crc32"
GOOD = value(Algorithm.CRC32)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({CRC: GOOD, b"x-amz-checksum-sha1": value(Algorithm.SHA1)}, "InvalidRequest"),
        ({CRC: GOOD, b"x-amz-trailer": "x-amz-checksum-crc32"}, "InvalidRequest"),
        ({CRC: GOOD, b"x-amz-sdk-checksum-algorithm": "SHA1"}, "InvalidRequest"),
        ({b"x-amz-sdk-checksum-algorithm": "CRC32"}, "InvalidRequest"),
        ({b"x-amz-sdk-checksum-algorithm": "CRC33"}, "InvalidRequest"),
        ({b"x-amz-checksum-crc33": "AAAA"}, "InvalidRequest"),
        ({b"x-amz-trailer": "x-amz-checksum-crc33"}, "InvalidRequest"),
        ({b"x-amz-trailer": "x-amz-meta-a"}, "InvalidRequest"),
        ({b"x-amz-trailer": "x-amz-checksum-crc32,x-amz-checksum-sha1"}, "InvalidRequest"),
        ({b"x-amz-checksum-sha512": "AAAA"}, "InvalidRequest"),
        ({b"x-amz-checksum-xxhash32": "AAAAAA=="}, "InvalidRequest"),
        ({b"x-amz-trailer": "x-amz-checksum-xxhash256"}, "InvalidRequest"),
        ({b"x-amz-sdk-checksum-algorithm": "XXHASH64"}, "InvalidRequest"),
    ],
)
def test_contradictions_and_unknown_algorithms_are_refused(fields, code):
    assert refusal(fields, trailing=True).code == code


def test_a_trailer_needs_a_payload_that_has_trailers():
    assert refusal({b"x-amz-trailer": "x-amz-checksum-crc32"}).code == "InvalidRequest"


def test_algorithm_mode_and_type_are_no_checksums():
    fields = {
        b"x-amz-checksum-mode": "ENABLED",
        b"x-amz-checksum-algorithm": "CRC32",
        b"x-amz-checksum-type": "COMPOSITE",
    }
    assert parse_expected(fields).algorithm is None
    check({CRC: GOOD, b"x-amz-sdk-checksum-algorithm": "crc32", **fields})


def test_an_empty_crc_baked_into_a_presigned_url_is_a_bad_digest():
    assert refusal({CRC: "AAAAAA==", b"x-amz-sdk-checksum-algorithm": "CRC32"}).code == "BadDigest"
    check({CRC: "AAAAAA=="}, b"")
    assert zlib.crc32(b"") == 0


@pytest.mark.parametrize(
    ("algorithm", "kind", "expected"),
    [
        ("CRC32", None, UploadChecksum(Algorithm.CRC32, "COMPOSITE")),
        ("crc32", "FULL_OBJECT", UploadChecksum(Algorithm.CRC32, "FULL_OBJECT")),
        ("CRC32C", "COMPOSITE", UploadChecksum(Algorithm.CRC32C, "COMPOSITE")),
        ("CRC64NVME", None, UploadChecksum(Algorithm.CRC64NVME, "FULL_OBJECT")),
        ("SHA256", None, UploadChecksum(Algorithm.SHA256, "COMPOSITE")),
        (None, None, None),
        ("CRC64NVME", "COMPOSITE", "InvalidRequest"),
        ("SHA1", "FULL_OBJECT", "InvalidRequest"),
        ("SHA1", "SOMETHING", "InvalidRequest"),
        (None, "COMPOSITE", "InvalidRequest"),
        ("CRC33", None, "InvalidRequest"),
        ("SHA512", None, UploadChecksum(Algorithm.SHA512, "COMPOSITE")),
        ("xxhash3", None, UploadChecksum(Algorithm.XXHASH3, "COMPOSITE")),
        ("MD5", "FULL_OBJECT", "InvalidRequest"),
        ("XXHASH128", "FULL_OBJECT", "InvalidRequest"),
    ],
)
def test_the_checksum_of_a_multipart_upload(algorithm, kind, expected):
    fields = {}
    if algorithm is not None:
        fields[b"x-amz-checksum-algorithm"] = algorithm
    if kind is not None:
        fields[b"x-amz-checksum-type"] = kind
    if isinstance(expected, str):
        with pytest.raises(S3Error) as caught:
            parse_upload_checksum(fields)
        assert caught.value.code == expected
    else:
        assert parse_upload_checksum(fields) == expected


def test_the_checksum_of_a_whole_object_may_count_its_parts():
    assert parse_object_checksum({CRC: "AAAAAA==-3"}) == (Algorithm.CRC32, "AAAAAA==-3")
    assert parse_object_checksum({CRC: "AAAAAA=="}) == (Algorithm.CRC32, "AAAAAA==")
    assert parse_object_checksum({}) is None
    for bad in ("AAAAAA==-", "AAAAAA==-x", "AAAA-1"):
        with pytest.raises(S3Error, match="InvalidRequest"):
            parse_object_checksum({CRC: bad})


def test_a_checksum_type_stands_alone_on_complete():
    assert parse_checksum_type({b"x-amz-checksum-type": "full_object"}) == "FULL_OBJECT"
    assert parse_checksum_type({}) is None
