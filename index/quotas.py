"""Quotas: how much a bucket, and all buckets of a tenant together, may hold; decided in the commit that adds.

Everything that a bucket holds is charged here (`charge`), by `index.versions`, `index.uploads` and `index.buckets` alone,
which all writers come through. So no path can go round a quota, and racing uploads of any processes cannot overshoot
one: commits are serialised, each sees what all before it added.

Guarantees:

* A change that makes a limited figure grow beyond its limit raises QuotaExceeded, and its commit leaves no trace.
* A change that makes it smaller, or leaves it, is never refused: deletes, aborts, overwrites by less, renames, and the
  bytes of an upload that is completed (its parts counted already; but it may be an object more), however far above its
  limit a bucket is.
* A limit holds for every commit after the one that set it. It may be below what is there: then nothing is added.

Three figures are limited: `objects` (versions, without delete markers), `logical` bytes (their sizes, and those of parts
of uploads in progress) and `stored` bytes (what the uploads of these added to the packs, corrected by the last mark: see
`index.counters`). A bucket belongs to the tenant that owns it, whoever writes into it.

Cost: `BucketRecord.limited` says whether a bucket has a row here, of its own or for its tenant's sake, and is written
with it. Without it nothing is looked up. With it a change costs a lookup and a short scan, twice if the tenant has a
quota. A tenant's sums are kept only while it has one (as counters are, per writer, and folded like those); setting it
visits all buckets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from index import counters
from index.errors import CorruptRecord, QuotaExceeded
from index.keys import encode_id, successor
from index.records import BucketRecord
from index.tables import BUCKETS, COUNTERS, QUOTAS, TENANT_COUNTERS, TENANT_QUOTAS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from index.counters import Counts, NamesStatistics
    from index.kv import Reader, Transaction

Measure = Literal["logical", "stored", "objects"]

MAX_LIMIT: Final = (1 << 63) - 1
NOBODY: Final = 0  # as a writer: of changes that are too rare to matter whose row they are in
_NONE: Final = (1 << 64) - 1
_LIMITS: Final = struct.Struct(">BQQQ")  # version, then as in `Limits`
_BUCKET: Final = struct.Struct(">BQQQB")  # likewise, and whether its tenant has a quota
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and numbers from 0 to `MAX_LIMIT`; None: unlimited."""

    logical_bytes: int | None = None
    stored_bytes: int | None = None
    objects: int | None = None

    def __post_init__(self) -> None:
        for limit in (self.logical_bytes, self.stored_bytes, self.objects):
            if limit is not None and not 0 <= limit <= MAX_LIMIT:
                raise ValueError(f"a limit is 0 to 2^63 - 1, not {limit}")

    def __bool__(self) -> bool:
        return self != UNLIMITED


UNLIMITED: Final = Limits()


@dataclass(frozen=True, slots=True)
class Usage:
    """What quotas count, of a bucket or of a tenant; or how a change alters it."""

    logical_bytes: int
    stored_bytes: int
    objects: int


# --- Reading ---------------------------------------------------------------------------------------------------


def bucket_limits(reader: Reader, bucket: BucketRecord) -> Limits:
    """The bucket's own. Raises CorruptRecord."""
    return _row_of(reader, bucket)[0] if bucket.limited else UNLIMITED


def tenant_limits(reader: Reader, tenant: str) -> Limits:
    """Raises CorruptRecord."""
    value = reader.get(TENANT_QUOTAS, tenant.encode())
    return UNLIMITED if value is None else _decode_limits(value)


def limited_tenants(reader: Reader) -> Iterator[tuple[str, Limits]]:
    """By name. Lazy. Raises CorruptRecord."""
    for row, value in reader.scan(TENANT_QUOTAS):
        yield row.decode(), _decode_limits(value)


def bucket_usage(reader: Reader, bucket_id: int) -> Usage:
    return usage_of(counters.statistics(reader, bucket_id))


def tenant_usage(reader: Reader, tenant: str) -> Usage:
    """One scan if the tenant has a quota, else a visit to all buckets."""
    if reader.get(TENANT_QUOTAS, tenant.encode()) is not None:
        return usage_of(tenant_statistics(reader, tenant))
    owned = (counters.counts_of(counters.statistics(reader, b.id)) for b in _buckets_of(reader, tenant))
    return usage_of(counters.NamesStatistics(*counters.add_up(owned)))


def tenant_statistics(reader: Reader, tenant: str) -> NamesStatistics:
    """The sums that are kept for a tenant with a quota; its buckets' corrections are in them."""
    return counters.total_of(reader, TENANT_COUNTERS, _prefix(tenant))


def usage_of(found: NamesStatistics) -> Usage:
    return Usage(found.used_logical_bytes, found.used_stored_bytes, found.objects)


# --- Deciding --------------------------------------------------------------------------------------------------


def plan_refusal(limits: Limits, used: Usage, growth: Usage) -> Measure | None:
    """Which limit `growth` (its figures may be negative) on top of `used` would break; None: it fits. Pure."""
    if _breaks(limits.logical_bytes, used.logical_bytes, growth.logical_bytes):
        return "logical"
    if _breaks(limits.stored_bytes, used.stored_bytes, growth.stored_bytes):
        return "stored"
    if _breaks(limits.objects, used.objects, growth.objects):
        return "objects"
    return None


def _breaks(limit: int | None, used: int, growth: int) -> bool:
    return limit is not None and growth > 0 and used + growth > limit


def charge(txn: Transaction, bucket: BucketRecord, writer: int, change: Counts) -> None:
    """Count `change` in `bucket`, as this transaction sees it. Raises QuotaExceeded."""
    if not any(change):
        return
    if bucket.limited and _check(txn, bucket, growth_of(change)):
        counters.add(txn, TENANT_COUNTERS, _prefix(bucket.owner), writer, change)
    counters.add(txn, COUNTERS, encode_id(bucket.id), writer, change)


def require_room(reader: Reader, bucket: BucketRecord, growth: Usage) -> None:
    """Whether `growth` would fit now: for what would be refused in the end. Changes nothing. Raises QuotaExceeded."""
    if bucket.limited:
        _check(reader, bucket, growth)


def growth_of(change: Counts) -> Usage:
    objects, logical, _, stored, parts, part_stored = change
    return Usage(logical + parts, stored + part_stored, objects)


def _check(reader: Reader, bucket: BucketRecord, growth: Usage) -> bool:
    """Whether the bucket's tenant has a quota. Raises QuotaExceeded."""
    limits, by_tenant = _row_of(reader, bucket)
    grows = max(growth.logical_bytes, growth.stored_bytes, growth.objects) > 0
    if grows and limits:
        _hold("bucket", bucket.name, limits, bucket_usage(reader, bucket.id), growth)
    if grows and by_tenant:
        limits = tenant_limits(reader, bucket.owner)
        _hold("tenant", bucket.owner, limits, usage_of(tenant_statistics(reader, bucket.owner)), growth)
    return by_tenant


def _hold(scope: Literal["bucket", "tenant"], name: str, limits: Limits, used: Usage, growth: Usage) -> None:
    measure = plan_refusal(limits, used, growth)
    if measure is None:
        return
    limit, now, more = (
        getattr(figures, "objects" if measure == "objects" else f"{measure}_bytes")
        for figures in (limits, used, growth)
    )
    raise QuotaExceeded(scope, name, measure, limit, now, more)


# --- Setting ---------------------------------------------------------------------------------------------------


def set_bucket_limits(txn: Transaction, bucket: BucketRecord, limits: Limits) -> None:
    """`bucket` as this transaction sees it. UNLIMITED: it has no quota of its own any more."""
    _put(txn, bucket, limits, by_tenant=_row_of(txn, bucket)[1] if bucket.limited else False)


def set_tenant_limits(txn: Transaction, tenant: str, limits: Limits) -> None:
    """UNLIMITED: it has no quota any more. Visits all buckets, and writes the tenant's: some us each, under the lock."""
    row = tenant.encode()
    known = txn.get(TENANT_QUOTAS, row) is not None
    if limits:
        txn.put(TENANT_QUOTAS, row, _LIMITS.pack(_VERSION, *_encode_limits(limits)))
    else:
        txn.delete(TENANT_QUOTAS, row)
    if known is bool(limits):
        return
    owned = list(_buckets_of(txn, tenant))
    for bucket in owned:
        _put(txn, bucket, bucket_limits(txn, bucket), by_tenant=bool(limits))
    for counter, _ in list(txn.scan(TENANT_COUNTERS, _prefix(tenant), successor(_prefix(tenant)))):
        txn.delete(TENANT_COUNTERS, counter)
    if limits:
        total = counters.add_up(counters.counts_of(counters.statistics(txn, b.id)) for b in owned)
        counters.add(txn, TENANT_COUNTERS, _prefix(tenant), NOBODY, total)


def add_bucket(txn: Transaction, bucket: BucketRecord) -> BucketRecord:
    """A bucket that is being made, as it is to be written: with its tenant's quota, if there is one."""
    if txn.get(TENANT_QUOTAS, bucket.owner.encode()) is None:
        return bucket
    txn.put(QUOTAS, encode_id(bucket.id), _BUCKET.pack(_VERSION, *_encode_limits(UNLIMITED), True))
    return replace(bucket, limited=True)


def remove_bucket(txn: Transaction, bucket: BucketRecord) -> None:
    """What is still counted of a bucket that is being removed (parts, a correction) counts no more."""
    if bucket.limited and _row_of(txn, bucket)[1]:
        rest = counters.counts_of(counters.statistics(txn, bucket.id))
        counters.add(txn, TENANT_COUNTERS, _prefix(bucket.owner), NOBODY, counters.negative(rest))
    txn.delete(QUOTAS, encode_id(bucket.id))


def correct(txn: Transaction, bucket_id: int, correction_bytes: int) -> None:
    """A mark found so much more stored in the bucket than was counted then. Nothing, if it is gone by now."""
    value = txn.get(BUCKETS, encode_id(bucket_id))
    if value is None:
        return
    growth = counters.correct(txn, bucket_id, correction_bytes)
    bucket = BucketRecord.decode(value)
    if growth and bucket.limited and _row_of(txn, bucket)[1]:
        counters.add(txn, TENANT_COUNTERS, _prefix(bucket.owner), NOBODY, (0, 0, 0, growth, 0, 0))


# --- Rows ------------------------------------------------------------------------------------------------------


def bucket_row(reader: Reader, bucket_id: int) -> tuple[Limits, bool] | None:
    """(a bucket's own limits, whether its tenant has a quota); None: there is no row. Raises CorruptRecord."""
    value = reader.get(QUOTAS, encode_id(bucket_id))
    return None if value is None else _decode_bucket(value)


@lru_cache(maxsize=1024)
def _decode_bucket(value: bytes) -> tuple[Limits, bool]:
    if len(value) != _BUCKET.size or value[-1] not in (0, 1):
        raise CorruptRecord("quota", value.hex())
    return _decode_limits(value[:-1]), bool(value[-1])


def _row_of(reader: Reader, bucket: BucketRecord) -> tuple[Limits, bool]:
    row = bucket_row(reader, bucket.id)
    if row is None:
        raise CorruptRecord("quota", f"bucket {bucket.id} has no row, though its record says so")
    return row


def _put(txn: Transaction, bucket: BucketRecord, limits: Limits, *, by_tenant: bool) -> None:
    row = encode_id(bucket.id)
    limited = bool(limits) or by_tenant
    if limited:
        txn.put(QUOTAS, row, _BUCKET.pack(_VERSION, *_encode_limits(limits), by_tenant))
    else:
        txn.delete(QUOTAS, row)
    if limited is not bucket.limited:
        txn.put(BUCKETS, row, replace(bucket, limited=limited).encode())


def _buckets_of(reader: Reader, tenant: str) -> Iterator[BucketRecord]:
    for _, value in reader.scan(BUCKETS):
        bucket = BucketRecord.decode(value)
        if bucket.owner == tenant:
            yield bucket


def _prefix(tenant: str) -> bytes:
    """Of a tenant's counters. Names of tenants have no zero byte."""
    return tenant.encode() + b"\0"


def _encode_limits(limits: Limits) -> tuple[int, ...]:
    figures = (limits.logical_bytes, limits.stored_bytes, limits.objects)
    return tuple(_NONE if limit is None else limit for limit in figures)


@lru_cache(maxsize=1024)
def _decode_limits(value: bytes) -> Limits:
    if len(value) != _LIMITS.size or value[0] != _VERSION:
        raise CorruptRecord("quota", value.hex())
    try:
        return Limits(*(None if limit == _NONE else limit for limit in _LIMITS.unpack(value)[1:]))
    except ValueError as error:
        raise CorruptRecord("quota", str(error)) from error
