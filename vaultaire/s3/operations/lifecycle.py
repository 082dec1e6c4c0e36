"""Put-, Get- and DeleteBucketLifecycleConfiguration, and the headers that tell when something will expire.

The rules are carried out by the maintenance process (`vaultaire.lifecycle`).

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html and its neighbours.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

from index.configs import delete_config, get_configs, put_config
from vaultaire.s3.body import read_small_body
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.lifecycle import (
    Facts,
    abort_headers,
    abort_of,
    expiration_header,
    expiry_of,
)
from vaultaire.s3.lifecycle_xml import parse_lifecycle
from vaultaire.s3.stored_lifecycle import CONFIG, unwrap, wrap, wrap_rules

if TYPE_CHECKING:
    from index.kv import Transaction
    from index.records import ObjectRecord

_SIZE_CONFIG = "lifecycle-minimum-size"
_SIZE_HEADER = b"x-amz-transition-default-minimum-object-size"
_DEFAULT_SIZE = "all_storage_classes_128K"
_SIZES = (_DEFAULT_SIZE, "varies_by_storage_class")


async def put_bucket_lifecycle_configuration(call: Call) -> Response:
    """Replaces the rules. They count for the very next pass, and for what is stored already."""
    call.require_bucket()
    # Says which small objects transitions spare. There are none here; Terraform waits to read it back.
    size = call.header(_SIZE_HEADER)
    if size is not None and size not in _SIZES:
        raise invalid_argument("Invalid transition default minimum object size", _SIZE_HEADER.decode(), size)
    rules = parse_lifecycle(await read_small_body(call), _new_id)
    value = wrap_rules(rules)
    stored_size = wrap((size or _DEFAULT_SIZE).encode())

    def commit(txn: Transaction) -> None:
        bucket = call.bucket(txn)
        put_config(txn, bucket.id, CONFIG, value)
        put_config(txn, bucket.id, _SIZE_CONFIG, stored_size)

    await call.commit(commit)
    return Response(200, [(_SIZE_HEADER, (size or _DEFAULT_SIZE).encode())])


async def get_bucket_lifecycle_configuration(call: Call) -> Response:
    bucket = call.require_bucket()
    with call.store.kv.snapshot() as reader:
        value, size = get_configs(reader, bucket.id, (CONFIG, _SIZE_CONFIG))
    if value is None:
        raise S3Error("NoSuchLifecycleConfiguration", bucket=bucket.name)
    response = xml_response(unwrap(value))
    response.headers.append((_SIZE_HEADER, _DEFAULT_SIZE.encode() if size is None else unwrap(size)))
    return response


async def delete_bucket_lifecycle(call: Call) -> Response:
    """204, whether there were rules or not. Once it is answered nothing expires by them any more."""

    def commit(txn: Transaction) -> None:
        bucket = call.bucket(txn)
        delete_config(txn, bucket.id, CONFIG)
        delete_config(txn, bucket.id, _SIZE_CONFIG)

    await call.commit(commit)
    return Response(204)


def expiry_headers(call: Call, record: ObjectRecord) -> list[tuple[bytes, bytes]]:
    """`x-amz-expiration` of the current object at the request's key, as `record` is it."""
    rules = call.rules.expiry
    if not rules or call.key is None:
        return []
    facts = Facts(call.key, record.modified_ms, record.size, record.tags)
    return list(expiration_header(expiry_of(rules, facts)))


def upload_expiry_headers(call: Call, initiated_ms: int) -> list[tuple[bytes, bytes]]:
    """`x-amz-abort-date` and `x-amz-abort-rule-id` of an upload to the request's key."""
    rules = call.rules.expiry
    if not rules or call.key is None:
        return []
    return list(abort_headers(abort_of(rules, call.key, initiated_ms)))


def _new_id() -> str:
    """The form of those that S3 makes up."""
    return base64.b64encode(os.urandom(36)).decode()
