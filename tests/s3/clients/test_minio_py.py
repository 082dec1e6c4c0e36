"""The MinIO SDK for Python (PyPI minio): every operation of it that S3 has."""

from __future__ import annotations

import datetime
import io

import pytest

pytest.importorskip("minio", reason="the client minio is not installed (pip install minio)")
pytest.importorskip("urllib3")

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, GOVERNANCE, ComposeSource, CopySource, Filter, Tags
from minio.datatypes import PostPolicy
from minio.deleteobjects import DeleteObject
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.objectlockconfig import DAYS, ObjectLockConfig
from minio.retention import Retention
from minio.sseconfig import Rule as EncryptionRule
from minio.sseconfig import SSEConfig

from tests.s3.conftest import new_bucket_name

MIB = 1 << 20


@pytest.fixture
def pool(server):
    with urllib3.PoolManager(ca_certs=str(server.certificate.cert) if server.certificate else None) as pool:
        yield pool


@pytest.fixture
def minio(server, pool):
    return Minio(
        server.host,
        access_key=server.access_key,
        secret_key=server.secret_key,
        secure=server.tls,
        http_client=pool,
    )


@pytest.fixture
def locked(minio):
    name = new_bucket_name("minio-py")
    minio.make_bucket(bucket_name=name, object_lock=True)
    return name


def put(minio, bucket, name, body, **arguments):
    minio.put_object(
        bucket_name=bucket, object_name=name, data=io.BytesIO(body), length=len(body), **arguments
    )


def get(minio, bucket, name):
    with minio.get_object(bucket_name=bucket, object_name=name) as answer:
        return answer.read()


@pytest.mark.subset
def test_minio_py_round_trips(minio, bucket, rng):
    large = rng.randbytes(11 * MIB)
    put(minio, bucket, "dir/ü +", b"small", content_type="text/plain", metadata={"a": "b"})
    minio.put_object(
        bucket_name=bucket, object_name="dir/large", data=io.BytesIO(large), length=-1, part_size=5 * MIB
    )
    assert get(minio, bucket, "dir/ü +") == b"small"
    assert get(minio, bucket, "dir/large") == large
    assert minio.stat_object(bucket_name=bucket, object_name="dir/ü +").metadata["x-amz-meta-a"] == "b"
    minio.copy_object(
        bucket_name=bucket, object_name="copy", source=CopySource(bucket_name=bucket, object_name="dir/ü +")
    )
    sources = [ComposeSource(bucket_name=bucket, object_name=name) for name in ("dir/large", "copy")]
    minio.compose_object(bucket_name=bucket, object_name="composed", sources=sources)
    assert get(minio, bucket, "composed") == large + b"small"
    listed = minio.list_objects(bucket_name=bucket, recursive=True)
    assert [found.object_name for found in listed] == ["composed", "copy", "dir/large", "dir/ü +"]
    assert [found.object_name for found in minio.list_objects(bucket_name=bucket)] == [
        "composed",
        "copy",
        "dir/",
    ]
    doomed = [DeleteObject(name) for name in ("composed", "copy", "dir/large", "dir/ü +")]
    assert list(minio.remove_objects(bucket_name=bucket, delete_object_list=doomed)) == []
    minio.remove_bucket(bucket_name=bucket)
    assert not minio.bucket_exists(bucket_name=bucket)


def test_minio_py_locks_and_versions(minio, locked):
    where = {"bucket_name": locked, "object_name": "k"}
    minio.set_object_lock_config(bucket_name=locked, config=ObjectLockConfig(GOVERNANCE, 1, DAYS))
    assert minio.get_object_lock_config(bucket_name=locked).mode == GOVERNANCE
    minio.delete_object_lock_config(bucket_name=locked)
    put(minio, locked, "k", b"one")
    put(minio, locked, "k", b"two")
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    minio.set_object_retention(**where, config=Retention(GOVERNANCE, tomorrow))
    assert minio.get_object_retention(**where).mode == GOVERNANCE
    minio.enable_object_legal_hold(**where)
    assert minio.is_object_legal_hold_enabled(**where)
    minio.disable_object_legal_hold(**where)
    versions = list(minio.list_objects(bucket_name=locked, include_version=True))
    assert len(versions) == 2
    doomed = [DeleteObject(found.object_name, found.version_id) for found in versions]
    arguments = {"bucket_name": locked, "delete_object_list": doomed}
    assert len(list(minio.remove_objects(**arguments))) == 1
    assert list(minio.remove_objects(**arguments, bypass_governance_mode=True)) == []


def test_minio_py_configures_a_bucket(minio, bucket):
    tags = Tags.new_object_tags()
    tags["a"] = "b"
    put(minio, bucket, "k", b"", tags=tags)
    assert minio.get_object_tags(bucket_name=bucket, object_name="k") == {"a": "b"}
    rule = Rule(status=ENABLED, rule_filter=Filter(prefix="x/"), rule_id="r", expiration=Expiration(days=3))
    minio.set_bucket_lifecycle(bucket_name=bucket, config=LifecycleConfig([rule]))
    assert minio.get_bucket_lifecycle(bucket_name=bucket).rules[0].rule_id == "r"
    minio.delete_bucket_lifecycle(bucket_name=bucket)
    minio.set_bucket_encryption(bucket_name=bucket, config=SSEConfig(EncryptionRule.new_sse_s3_rule()))
    assert minio.get_bucket_encryption(bucket_name=bucket).rule.sse_algorithm == "AES256"
    minio.delete_bucket_encryption(bucket_name=bucket)


def test_minio_py_presigns_urls_and_forms(minio, server, bucket, pool):
    put(minio, bucket, "k", b"content")
    assert (
        pool.request("GET", minio.presigned_get_object(bucket_name=bucket, object_name="k")).data
        == b"content"
    )
    policy = PostPolicy(bucket, datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1))
    policy.add_starts_with_condition("key", "in/")
    policy.add_content_length_range_condition(1, 100)
    fields = minio.presigned_post_policy(policy)
    for name, status in (("in/k", 204), ("out", 403)):
        form = {**fields, "key": name, "file": ("name", b"by a form")}
        assert pool.request("POST", f"{server.url}/{bucket}", fields=form).status == status
    assert get(minio, bucket, "in/k") == b"by a form"
