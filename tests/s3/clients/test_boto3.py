"""boto3 with its default checksums, over http and over https (where it sends trailers in HTTP chunks)."""

from __future__ import annotations

import io

import boto3
import pytest
from boto3.s3.transfer import TransferConfig

from tests.s3.clients.tools import NAMES, SIZES, make_large_file, same_files
from tests.s3.conftest import make_boto_client, new_bucket_name
from tests.s3.expect import keys_of, read
from tests.s3.harness import Variant

MIB = 1 << 20


# The shared server speaks https in that variant: the second case would be the first again.
SERVERS = ["server"] if Variant.from_environment().tls else ["server", "tls_server"]


@pytest.fixture(params=SERVERS)
def client(request):
    made = make_boto_client(request.getfixturevalue(request.param))
    yield made
    made.close()


@pytest.fixture
def place(client, request) -> str:
    name = new_bucket_name(request.node.originalname)
    client.create_bucket(Bucket=name)
    return name


@pytest.mark.subset
def test_boto3_round_trips_every_size(client, place, rng):
    for name, size in SIZES.items():
        data = rng.randbytes(size)
        client.put_object(Bucket=place, Key=name, Body=data)
        assert read(client, place, name) == data


@pytest.mark.subset
def test_boto3_transfers_in_parts_and_in_parallel(client, place, rng, tmp_path):
    data = rng.randbytes(30 * MIB + 5)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=6)
    client.upload_fileobj(io.BytesIO(data), place, "large", Config=config, ExtraArgs={"Metadata": {"a": "b"}})
    client.download_file(place, "large", str(tmp_path / "large"), Config=config)
    assert (tmp_path / "large").read_bytes() == data
    client.copy({"Bucket": place, "Key": "large"}, place, "copied", Config=config)
    assert read(client, place, "copied") == data
    assert client.head_object(Bucket=place, Key="copied")["Metadata"] == {"a": "b"}


def test_boto3_streams_a_body_of_unknown_kind(client, place, rng):
    data = rng.randbytes(3 * MIB)
    client.put_object(Bucket=place, Key="k", Body=io.BufferedReader(io.BytesIO(data)))
    assert read(client, place, "k") == data


def test_boto3_names(client, place):
    names = [*NAMES, "//double", "x" * 1024, "trailing/", "a b+c%20d?e#f"]
    for name in names:
        client.put_object(Bucket=place, Key=name, Body=name.encode())
    assert keys_of(client, place) == sorted(names, key=str.encode)
    for name in names:
        assert read(client, place, name) == name.encode()
    client.delete_objects(Bucket=place, Delete={"Objects": [{"Key": name} for name in names]})
    assert keys_of(client, place) == []


def test_boto3_resource_api(server, s3, bucket, rng):
    resource = boto3.resource(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        verify=str(server.certificate.cert) if server.certificate else None,
    )
    place = resource.Bucket(bucket)
    place.put_object(Key="k", Body=b"x")
    assert [item.key for item in place.objects.all()] == ["k"]
    place.objects.all().delete()
    assert keys_of(s3, bucket) == []
    resource.meta.client.close()


def test_boto3_waiters(client, place):
    client.put_object(Bucket=place, Key="k", Body=b"x")
    client.get_waiter("object_exists").wait(Bucket=place, Key="k")
    client.get_waiter("bucket_exists").wait(Bucket=place)
    client.delete_object(Bucket=place, Key="k")
    client.get_waiter("object_not_exists").wait(Bucket=place, Key="k")


@pytest.mark.full
def test_boto3_1_gib(client, place, rng, tmp_path):
    path = make_large_file(tmp_path / "large", rng)
    client.upload_file(str(path), place, "large")
    client.download_file(place, "large", str(tmp_path / "back"))
    assert same_files(path, tmp_path / "back")
