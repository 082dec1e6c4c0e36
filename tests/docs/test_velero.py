"""What Velero asks of a store (docs/recipes/velero.md): each request of its plugin for AWS, in the form that it has.

Read from velero-plugin-for-aws 1.14.3, velero-plugin-for-aws/object_store.go: GetBucketRegion (HeadBucket), the upload
manager's PutObject and parts with a checksum, HeadObject for a key that may be missing, GetObject, ListObjectsV2 with
and without a delimiter, DeleteObject, a presigned GET.
"""

from __future__ import annotations

import io
import urllib.request

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from tests.s3.harness import Server

MIB = 1 << 20


@pytest.fixture
def velero(tmp_path):
    with Server(tmp_path / "data") as server:
        client = boto3.client(
            "s3",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )
        client.create_bucket(Bucket="velero")
        yield client


@pytest.mark.client
@pytest.mark.slow
def test_every_request_of_the_plugin_is_answered(velero):
    region = velero.head_bucket(Bucket="velero")["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"]
    assert region == "us-east-1"

    contents = {f"backups/first/{name}": name.encode() for name in ("velero-backup.json", "first.tar.gz")}
    contents["backups/second/large"] = bytes(range(256)) * (9 * MIB // 256)
    for algorithm in ("CRC32", "CRC32C", "SHA256"):
        for key, body in contents.items():
            velero.upload_fileobj(
                io.BytesIO(body),
                "velero",
                key,
                ExtraArgs={"ChecksumAlgorithm": algorithm},
                Config=TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB),
            )

    assert velero.head_object(Bucket="velero", Key="backups/second/large")["ContentLength"] == 9 * MIB
    with pytest.raises(velero.exceptions.ClientError) as missing:
        velero.head_object(Bucket="velero", Key="backups/third/velero-backup.json")
    assert missing.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    for key, body in contents.items():
        assert velero.get_object(Bucket="velero", Key=key)["Body"].read() == body

    pages = velero.get_paginator("list_objects_v2")
    listed = [
        common["Prefix"]
        for page in pages.paginate(Bucket="velero", Prefix="backups/", Delimiter="/")
        for common in page["CommonPrefixes"]
    ]
    assert listed == ["backups/first/", "backups/second/"]
    found = [
        o["Key"] for page in pages.paginate(Bucket="velero", Prefix="backups/") for o in page["Contents"]
    ]
    assert found == sorted(contents)

    url = velero.generate_presigned_url(
        "get_object", Params={"Bucket": "velero", "Key": "backups/first/first.tar.gz"}, ExpiresIn=600
    )
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.read() == b"first.tar.gz"

    for key in contents:
        velero.delete_object(Bucket="velero", Key=key)
    assert velero.list_objects_v2(Bucket="velero")["KeyCount"] == 0
