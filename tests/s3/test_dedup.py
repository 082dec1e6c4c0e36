"""What is stored twice costs once: `stored_bytes` hardly grows, whatever the offset and whoever sends it."""

from __future__ import annotations

import io
import random
import tarfile
from typing import TYPE_CHECKING

import pytest
from boto3.s3.transfer import TransferConfig

from tests.s3.conftest import make_boto_client
from tests.s3.expect import read
from tests.s3.wire import md5

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


def make_tar(size: int, seed: int) -> bytes:
    """A tar of many files, half of them text and half of them random; the same for the same arguments."""
    rng = random.Random(seed)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        number = 0
        while packed.tell() < size:
            length = rng.choice([500, 5_000, 50_000, 500_000])
            body = rng.randbytes(length) if number % 2 else b" ".join(rng.choices(words, k=length // 6))
            info = tarfile.TarInfo(f"folder-{number % 7}/file-{number}")
            info.size, info.mtime = len(body), 1_700_000_000
            tar.addfile(info, io.BytesIO(body))
            number += 1
    return packed.getvalue()


def growth(server, store) -> Iterator[float]:
    """By how much the store grew with each step: the share of the stored bytes after the first."""
    store("first")
    first = server.stats()["stored_bytes"]
    for step in ("second", "shifted"):
        before = server.stats()["stored_bytes"]
        store(step)
        yield (server.stats()["stored_bytes"] - before) / first


def assert_stored_once(new_server, size: int) -> None:
    data = make_tar(size, seed=1)
    bodies = {"first": data, "second": data, "shifted": b"!" + data}
    with new_server() as server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="tars")
        grown = growth(server, lambda step: s3.put_object(Bucket="tars", Key=step, Body=bodies[step]))
        assert [round(share, 4) for share in grown if share >= 0.01] == []
        for step, body in bodies.items():
            assert md5(read(s3, "tars", step)) == md5(body)
        figures = server.stats()
        assert figures["objects"] == 3
        assert figures["logical_bytes"] == sum(map(len, bodies.values()))
        assert 2.9 < figures["dedup_ratio"] < 3.1
        assert figures["compression_ratio"] > 1.1
        s3.close()


def test_a_tar_stored_again_and_shifted_by_one_byte_is_stored_once(new_server):
    assert_stored_once(new_server, 40 * MIB)


@pytest.mark.full
def test_a_tar_of_200_mb_stored_again_and_shifted_by_one_byte_is_stored_once(new_server):
    assert_stored_once(new_server, 200_000_000)


@pytest.mark.subset
def test_the_same_bytes_by_multipart_in_other_parts_are_stored_once(server, s3, bucket, rng):
    data = rng.randbytes(12 * MIB).hex().encode()
    assert_parts_add(0.05, data, server, s3, bucket)


@pytest.mark.subset
def test_noise_by_multipart_in_other_parts_costs_its_large_chunks_at_each_border(server, s3, bucket, rng):
    assert_parts_add(0.75, rng.randbytes(24 * MIB), server, s3, bucket)


def assert_parts_add(share: float, data: bytes, server, s3, bucket) -> None:
    s3.put_object(Bucket=bucket, Key="whole", Body=data)
    before = server.stats()["stored_bytes"]
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=7 * MIB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(data), bucket, "in-parts", Config=config)
    # Each part begins and ends where no chunk of the whole does: a chunk or two are new at each border.
    assert server.stats()["stored_bytes"] - before < share * len(data)
    assert read(s3, bucket, "in-parts") == data


def test_the_same_bytes_by_several_at_once_are_stored_about_once(server, s3, bucket, rng):
    from concurrent.futures import ThreadPoolExecutor

    data = rng.randbytes(12 * MIB)
    before = server.stats()["stored_bytes"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: s3.put_object(Bucket=bucket, Key=f"k{n}", Body=data), range(4)))
    workers = server.workers  # a worker cannot know what another one has in flight
    assert server.stats()["stored_bytes"] - before < (workers + 0.3) * len(data)
    for n in range(4):
        assert read(s3, bucket, f"k{n}") == data


def test_an_aborted_upload_leaves_nothing_visible(server, s3, bucket, rng):
    before = server.stats()
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=rng.randbytes(5 * MIB))
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    after = server.stats()
    assert (after["objects"], after["logical_bytes"]) == (before["objects"], before["logical_bytes"])
