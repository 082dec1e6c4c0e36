"""The versions of one key into the store, for an import: in order, each in its own commit.

Delete markers come as delete markers, null versions as null versions. A killed run leaves the oldest of them, and the
next one goes on after those. Nothing is put between or under what the destination has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from index import buckets
from index.versions import delete_object, list_key, put_object
from vaultaire.moving.places import ObjectError, WrongBytes
from vaultaire.moving.plans import Overwrite, plan_chain
from vaultaire.moving.taking import TRIES, counted

if TYPE_CHECKING:
    from index.kv import Transaction
    from index.records import ObjectRecord
    from vaultaire.ingest import Upload
    from vaultaire.moving.places import Entry
    from vaultaire.moving.taking import Taking


async def take_versions(taking: Taking, unit: list[Entry]) -> None:
    """All versions of one key; `unit` has the newest first."""
    source = unit[::-1]
    key = taking.key(source[0])
    with taking.bench.store.kv.snapshot() as reader:
        bucket = buckets.get_bucket(reader, taking.to.bucket)
        found = list_key(reader, bucket.id, key)[::-1] if bucket is not None else []
    done = plan_chain(
        [_mark(e.delete_marker, e.size, e.modified_ms) for e in source],
        [_mark(e.delete_marker, e.size, e.modified_ms) for e in found],
    )
    if done is None:
        if taking.options.overwrite is not Overwrite.ALWAYS:
            taking.report.keep(source[0].key)
            return
        done = 0
    for entry in source[:done]:
        taking.done(entry)
        taking.pace.spare(entry.size)
    newest = found[-1].sequence if found else 0
    for entry in source[done:]:
        if not taking.options.dry_run:
            newest = await _take_version(taking, entry, key, newest)
        taking.count(entry)


async def _take_version(taking: Taking, entry: Entry, key: bytes, newest: int) -> int:
    """Put it on top of the version of sequence `newest`; its own sequence."""
    if entry.delete_marker:
        return await _commit_version(taking, entry, key, newest, None)
    sequence = 0

    async def commit(record: ObjectRecord, upload: Upload) -> None:
        nonlocal sequence
        sequence = await _commit_version(taking, entry, key, newest, record, upload)

    for attempt in range(TRIES):
        try:
            await taking.transfer(entry, commit, exact=attempt > 0)
            break
        except WrongBytes:
            if attempt == TRIES - 1:
                raise
            taking.report.retries += 1
    return sequence


async def _commit_version(
    taking: Taking,
    entry: Entry,
    key: bytes,
    newest: int,
    record: ObjectRecord | None,
    upload: Upload | None = None,
) -> int:
    # A delete marker's time is its change's. Judging locks by the past holds them longer, never shorter.
    change = taking.change(entry.modified_ms if record is None else taking.bench.now_ms)

    def commit(txn: Transaction) -> int:
        bucket = taking.bucket_in(txn)
        listed = list_key(txn, bucket.id, key, limit=1)
        if (listed[0].sequence if listed else 0) != newest:
            raise ObjectError("it was written in the destination meanwhile; run the import again")
        # The state in which the source made this version, whatever the bucket's is now.
        if bucket.versioning != "Off":
            bucket = replace(bucket, versioning="Suspended" if entry.null_version else "Enabled")
        if record is None:
            delete_object(txn, bucket, key, bucket.owner, change)
        else:
            put_object(txn, bucket, key, counted(replace(record, owner=bucket.owner), upload), change)
        return txn.sequence

    return await taking.commit(commit, upload)


def _mark(delete_marker: bool, size: int, modified_ms: int) -> tuple[bool, int, int]:
    """What a version is known by on both sides. Not by its ETag, which is not always one that can be kept."""
    return delete_marker, size, modified_ms // 1000
