"""The ten checksums of current SDKs: verified, stored, given back; of whole objects and of parts.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html. The expected values come
from botocore's own implementations (over awscrt) and from hashlib.
"""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest
from awscrt import checksums as crt

from tests.s3.expect import assert_refused, read, s3_error
from tests.s3.wire import UNSIGNED_CHUNKS_TRAILER, unsigned_chunks_trailer, with_body

MIB = 1 << 20


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


DIGESTS = {
    "CRC32": lambda data: b64(zlib.crc32(data).to_bytes(4, "big")),
    "CRC32C": lambda data: b64(crt.crc32c(data).to_bytes(4, "big")),
    "CRC64NVME": lambda data: b64(crt.crc64nvme(data).to_bytes(8, "big")),
    "SHA1": lambda data: b64(hashlib.sha1(data).digest()),
    "SHA256": lambda data: b64(hashlib.sha256(data).digest()),
    "SHA512": lambda data: b64(hashlib.sha512(data).digest()),
    "MD5": lambda data: b64(hashlib.md5(data).digest()),
    "XXHASH64": lambda data: b64(crt.XXHash.compute_xxhash64(data)),
    "XXHASH3": lambda data: b64(crt.XXHash.compute_xxhash3_64(data)),
    "XXHASH128": lambda data: b64(crt.XXHash.compute_xxhash3_128(data)),
}
ALGORITHMS = list(DIGESTS)


def composite(algorithm: str, values: list[str]) -> str:
    return f"{DIGESTS[algorithm](b''.join(base64.b64decode(value) for value in values))}-{len(values)}"


def asks(algorithm: str, data: bytes) -> dict[str, str]:
    """What makes boto3 send this checksum. It refuses to compute an MD5, but sends a value that it is given."""
    return {"ChecksumMD5": DIGESTS["MD5"](data)} if algorithm == "MD5" else {"ChecksumAlgorithm": algorithm}


def header(algorithm: str) -> str:
    return f"x-amz-checksum-{algorithm.lower()}"


@pytest.mark.subset
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [0, 1, 9000, 2 * MIB + 1])
def test_a_checksum_is_stored_and_given_back_when_asked_for(s3, bucket, rng, algorithm, size):
    data = rng.randbytes(size)
    field = f"Checksum{algorithm}"
    put = s3.put_object(Bucket=bucket, Key="k", Body=data, **asks(algorithm, data))
    assert put[field] == DIGESTS[algorithm](data)
    assert put.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head[field], head["ChecksumType"]) == (DIGESTS[algorithm](data), "FULL_OBJECT")
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    with got["Body"] as body:
        assert body.read() == data
    assert got[field] == DIGESTS[algorithm](data)


def test_a_checksum_is_not_given_back_unasked_nor_for_a_range(root, bucket):
    name = header("CRC32")
    root.call("PUT", f"/{bucket}/k", headers=[(name, DIGESTS["CRC32"](b"data"))], body=b"data")
    asked = [("x-amz-checksum-mode", "ENABLED")]
    assert name not in root.call("GET", f"/{bucket}/k").headers
    assert name in root.call("GET", f"/{bucket}/k", headers=asked).headers
    ranged = root.call("GET", f"/{bucket}/k", headers=[*asked, ("Range", "bytes=0-1")])
    assert (ranged.status, name in ranged.headers) == (206, False)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_wrong_checksum_in_a_header_is_refused(root, bucket, algorithm):
    wrong = [(header(algorithm), DIGESTS[algorithm](b"other"))]
    request = root.sign("PUT", f"/{bucket}/k", headers=wrong, body=b"data")
    assert_refused(root, request, 400, "BadDigest", "XAmzContentChecksumMismatch")
    assert root.call("HEAD", f"/{bucket}/k").status == 404


@pytest.mark.parametrize("value", ["", "!", "AAAA", "A" * 200])
@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256"])
def test_a_malformed_checksum_is_refused(root, bucket, algorithm, value):
    request = root.sign("PUT", f"/{bucket}/k", headers=[(header(algorithm), value)], body=b"data")
    assert_refused(root, request, 400, "InvalidRequest", "BadDigest", "InvalidDigest", "InvalidArgument")
    assert root.call("HEAD", f"/{bucket}/k").status == 404


def test_two_checksums_at_once_are_refused(root, bucket):
    headers = [(header(a), DIGESTS[a](b"data")) for a in ("CRC32", "SHA1")]
    request = root.sign("PUT", f"/{bucket}/k", headers=headers, body=b"data")
    assert_refused(root, request, 400, "InvalidRequest")


def test_a_checksum_that_is_not_the_one_announced_is_refused(root, bucket):
    headers = [(header("CRC32"), DIGESTS["CRC32"](b"data")), ("x-amz-sdk-checksum-algorithm", "SHA256")]
    request = root.sign("PUT", f"/{bucket}/k", headers=headers, body=b"data")
    assert_refused(root, request, 400, "InvalidRequest")


@pytest.mark.subset
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checksum_in_a_trailer_is_verified_and_stored(root, s3, bucket, rng, algorithm):
    data = rng.randbytes(100_000)
    for name, digest, status in (("good", data, 200), ("bad", b"other", 400)):
        headers = [("x-amz-decoded-content-length", str(len(data))), ("x-amz-trailer", header(algorithm))]
        request = root.sign(
            "PUT", f"/{bucket}/{name}", headers=headers, payload=UNSIGNED_CHUNKS_TRAILER, length=None
        )
        body = unsigned_chunks_trailer(data, (header(algorithm), DIGESTS[algorithm](digest)))
        assert root.exchange(with_body(request, body)).status == status
    head = s3.head_object(Bucket=bucket, Key="good", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"] == DIGESTS[algorithm](data)
    assert root.call("HEAD", f"/{bucket}/bad").status == 404


def test_an_announced_checksum_that_does_not_come_is_refused(root, bucket):
    headers = [("x-amz-sdk-checksum-algorithm", "CRC32")]
    request = root.sign("PUT", f"/{bucket}/k", headers=headers, body=b"data")
    assert_refused(root, request, 400, "InvalidRequest")


def test_an_algorithm_that_does_not_exist_is_refused(root, bucket):
    headers = [("x-amz-checksum-xxhash256", "AAAAAAAAAAA=")]
    assert_refused(
        root, root.sign("PUT", f"/{bucket}/k", headers=headers, body=b"data"), 400, "InvalidRequest"
    )
    assert root.call("HEAD", f"/{bucket}/k").status == 404


# -- multipart


def upload(s3, bucket, bodies, *, send=True, **arguments):
    """Upload the parts; (where, parts as Complete wants them with their checksums, part checksums)."""
    where = {"Bucket": bucket, "Key": "k"}
    where["UploadId"] = s3.create_multipart_upload(**where, **arguments)["UploadId"]
    algorithm = arguments["ChecksumAlgorithm"]
    parts = []
    for n, body in enumerate(bodies, 1):
        extra = asks(algorithm, body) if send else {}
        answer = s3.upload_part(**where, PartNumber=n, Body=body, **extra)
        part = {"PartNumber": n, "ETag": answer["ETag"]}
        if f"Checksum{algorithm}" in answer:
            part[f"Checksum{algorithm}"] = answer[f"Checksum{algorithm}"]
        parts.append(part)
    return where, parts


@pytest.mark.subset
@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if a != "CRC64NVME"])
def test_a_composite_checksum_is_that_of_the_parts_checksums(s3, bucket, rng, algorithm):
    bodies = [rng.randbytes(5 * MIB), rng.randbytes(1000)]
    where, parts = upload(s3, bucket, bodies, ChecksumAlgorithm=algorithm, ChecksumType="COMPOSITE")
    values = [DIGESTS[algorithm](body) for body in bodies]
    assert [part[f"Checksum{algorithm}"] for part in parts] == values
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    assert done[f"Checksum{algorithm}"] == composite(algorithm, values)
    assert done["ChecksumType"] == "COMPOSITE"
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head[f"Checksum{algorithm}"], head["ChecksumType"]) == (composite(algorithm, values), "COMPOSITE")
    part = s3.get_object(Bucket=bucket, Key="k", PartNumber=2, ChecksumMode="ENABLED")
    with part["Body"] as body:
        assert body.read() == bodies[1]
    assert (part[f"Checksum{algorithm}"], part["ChecksumType"]) == (values[1], "COMPOSITE")


@pytest.mark.subset
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_a_full_object_checksum_is_combined_from_the_parts(s3, bucket, rng, algorithm):
    bodies = [rng.randbytes(5 * MIB + 3), rng.randbytes(5 * MIB), rng.randbytes(77)]
    where, parts = upload(s3, bucket, bodies, ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT")
    whole = DIGESTS[algorithm](b"".join(bodies))
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, ChecksumType="FULL_OBJECT")
    assert (done[f"Checksum{algorithm}"], done["ChecksumType"]) == (whole, "FULL_OBJECT")
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    with got["Body"] as body:
        assert body.read() == b"".join(bodies)
    assert got[f"Checksum{algorithm}"] == whole


def test_complete_verifies_the_full_object_checksum_it_is_told(s3, bucket, rng):
    bodies = [rng.randbytes(5 * MIB), rng.randbytes(10)]
    where, parts = upload(s3, bucket, bodies, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT")
    complete = {**where, "MultipartUpload": {"Parts": parts}}
    with s3_error(400, "BadDigest", "InvalidRequest"):
        s3.complete_multipart_upload(**complete, ChecksumCRC64NVME=DIGESTS["CRC64NVME"](b"other"))
    s3.complete_multipart_upload(**complete, ChecksumCRC64NVME=DIGESTS["CRC64NVME"](b"".join(bodies)))
    assert read(s3, bucket, "k") == b"".join(bodies)


def test_complete_verifies_the_part_checksums_it_is_told(s3, bucket):
    where, parts = upload(s3, bucket, [b"data"], ChecksumAlgorithm="CRC32")
    wrong = [{**parts[0], "ChecksumCRC32": DIGESTS["CRC32"](b"other")}]
    with s3_error(400, "InvalidPart", "BadDigest", "InvalidRequest"):
        s3.complete_multipart_upload(**where, MultipartUpload={"Parts": wrong})
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})


def test_complete_takes_parts_without_checksums_as_boto3_sends_them(s3, bucket, rng):
    """boto3's default: an algorithm at Create, checksums with the parts, none in the list of Complete."""
    bodies = [rng.randbytes(5 * MIB), b"tail"]
    where, parts = upload(s3, bucket, bodies, ChecksumAlgorithm="CRC32")
    bare = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": bare})
    assert read(s3, bucket, "k") == b"".join(bodies)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        *((a, "FULL_OBJECT") for a in ALGORITHMS if not a.startswith("CRC")),
        ("CRC64NVME", "COMPOSITE"),
    ],
)
def test_create_refuses_a_type_that_its_algorithm_cannot_have(s3, bucket, algorithm, kind):
    with s3_error(400, "InvalidRequest"):
        s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind)


def test_list_parts_shows_the_checksums(s3, bucket):
    where, parts = upload(s3, bucket, [b"data"], ChecksumAlgorithm="SHA256")
    listed = s3.list_parts(**where)
    assert listed["ChecksumAlgorithm"] == "SHA256"
    assert listed["Parts"][0]["ChecksumSHA256"] == parts[0]["ChecksumSHA256"]


def test_copy_object_keeps_the_checksum(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"data", ChecksumAlgorithm="SHA256")
    s3.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a")
    head = s3.head_object(Bucket=bucket, Key="b", ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == DIGESTS["SHA256"](b"data")


def test_a_composite_checksum_may_be_stated_without_the_number_of_parts(s3, bucket, rng):
    """So minio-go states it."""
    bodies = [rng.randbytes(5 * MIB), rng.randbytes(1000)]
    values = [DIGESTS["CRC32C"](body) for body in bodies]
    where, parts = upload(s3, bucket, bodies, ChecksumAlgorithm="CRC32C", ChecksumType="COMPOSITE")
    stated = composite("CRC32C", values).partition("-")[0]
    with s3_error(400, "BadDigest"):
        s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, ChecksumCRC32C=values[0])
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, ChecksumCRC32C=stated)
    assert done["ChecksumCRC32C"] == composite("CRC32C", values)
