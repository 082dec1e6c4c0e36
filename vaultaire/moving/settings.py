"""A bucket's configuration from another server, taken over where it means the same here.

Each document is read as if a client had put it: what these parsers refuse is not taken, and the report says why. What the
destination has already stays. Settings come last, after all objects: a default retention must not lock what had
none, and no rule expire what has just come.

Never taken over: access control lists and owners (tenants here are others), notifications, replication, logging,
website, inventory, metrics, and keys of a KMS.
"""

from __future__ import annotations

import base64
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from index import buckets
from index.configs import get_config, put_config
from index.errors import NamesError
from index.values import DefaultRetention
from vaultaire.moving.places import ObjectError, Transient
from vaultaire.s3 import bucket_settings, cors, policy, stored, tags, xml_lock
from vaultaire.s3.errors import S3Error
from vaultaire.s3.lifecycle_xml import parse_lifecycle
from vaultaire.s3.stored_lifecycle import CONFIG as LIFECYCLE
from vaultaire.s3.stored_lifecycle import wrap_rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from index.kv import Transaction
    from vaultaire.moving.bench import Bench
    from vaultaire.moving.report import Report
    from vaultaire.moving.s3_place import S3Place
    from vaultaire.moving.transport import Requests

# Name in the store, botocore's name of the question, and how the answer becomes the stored value.
_DOCUMENTS: Final[tuple[tuple[str, str, Callable[[bytes], bytes]], ...]] = (
    (stored.CORS, "get_bucket_cors", lambda body: stored.wrap(cors.format_xml(cors.parse_xml(body)))),
    (
        stored.TAGGING,
        "get_bucket_tagging",
        lambda body: stored.wrap(tags.format_xml(tags.parse_xml(body, tags.MAX_BUCKET_TAGS))),
    ),
    (
        stored.PUBLIC_ACCESS_BLOCK,
        "get_public_access_block",
        lambda body: stored.wrap(
            bucket_settings.format_public_access_block(bucket_settings.parse_public_access_block(body))
        ),
    ),
    (
        stored.ENCRYPTION,
        "get_bucket_encryption",
        lambda body: stored.wrap(bucket_settings.parse_encryption(body)),
    ),
    (
        LIFECYCLE,
        "get_bucket_lifecycle_configuration",
        lambda body: wrap_rules(parse_lifecycle(body, _new_id)),
    ),
)


async def take_settings(
    bench: Bench, requests: Requests, place: S3Place, bucket: str, report: Report, *, dry_run: bool
) -> None:
    """Raises PlaceError, KvError; what concerns one setting is noted in `report`."""
    for name, question, convert in _DOCUMENTS:
        await _take(
            bench, requests, partial(place.document, question), bucket, name, convert, report, dry_run=dry_run
        )

    def same_policy(body: bytes) -> bytes:
        policy.parse(body, bucket)  # also refuses one that speaks of another bucket
        return stored.wrap(body)

    await _take(
        bench, requests, partial(place.document, "get_bucket_policy"), bucket, stored.POLICY, same_policy, report,
        dry_run=dry_run,
    )  # fmt: skip
    await _take_default_retention(bench, requests, place, bucket, report, dry_run=dry_run)


async def _take(
    bench: Bench,
    requests: Requests,
    ask: Callable[[], bytes | None],
    bucket: str,
    name: str,
    convert: Callable[[bytes], bytes],
    report: Report,
    *,
    dry_run: bool,
) -> None:
    try:
        body = await requests.run(ask)
        if body is None:
            return
        value = convert(body)
    except Transient:
        report.fail(name.encode(), f"setting {name}: the source does not answer")
        return
    except (ObjectError, S3Error) as error:
        report.note(f"setting {name}: not taken over: {error}")
        return

    def commit(txn: Transaction) -> bool:
        record = buckets.get_bucket(txn, bucket)
        if record is None or get_config(txn, record.id, name) is not None:
            return False
        put_config(txn, record.id, name, value)
        return True

    taken = dry_run or await bench.committer.commit(commit)
    report.note(f"setting {name}: {'taken over' if taken else 'the bucket here has its own, which stays'}")


async def _take_default_retention(
    bench: Bench, requests: Requests, place: S3Place, bucket: str, report: Report, *, dry_run: bool
) -> None:
    try:
        body = await requests.run(lambda: place.document("get_object_lock_configuration"))
        default = None if body is None else xml_lock.parse_configuration(body)
    except (ObjectError, S3Error) as error:
        report.note(f"setting object-lock: not taken over: {error}")
        return
    if default is None:
        return

    def commit(txn: Transaction) -> None:
        record = buckets.get_bucket(txn, bucket)
        if record is not None and record.default_retention is None:
            buckets.set_object_lock(txn, record, DefaultRetention(default.mode, default.count, default.unit))

    try:
        if not dry_run:
            await bench.committer.commit(commit)
    except NamesError as error:
        report.note(f"setting object-lock: not taken over: {error}")
        return
    report.note("setting object-lock: taken over")


def _new_id() -> str:
    return base64.b64encode(os.urandom(36)).decode()
