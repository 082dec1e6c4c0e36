"""What a client is told whose change would exceed a quota: the figures, and the way out.

QuotaExceeded with status 403, as Ceph's gateway answers it: clients do not try again by themselves, which would not
help. (MinIO: XMinioAdminBucketQuotaExceeded with 400; AWS has no quotas of this kind.) Only who belongs to the bucket's
tenant is told figures and names: how full it is, is nobody else's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from index.errors import QuotaExceeded
    from vaultaire.s3.call import Call

_UNITS: Final = {"logical": "bytes", "stored": "bytes on disk", "objects": "objects"}
_WAY_OUT: Final = (
    "Make room by deleting objects (and their older versions, where the bucket keeps versions) or by aborting multipart "
    "uploads, or ask the operator for more: vaultaire bucket quota"
)


def over_quota(call: Call, error: QuotaExceeded) -> S3Error:
    bucket = call.found_bucket
    if bucket is None or call.principal.anonymous or not call.principal.reaches(bucket.owner):
        return S3Error("QuotaExceeded", "The quota of this bucket or of its owner is used up.")
    subject = f"The bucket {error.name}" if error.scope == "bucket" else f"The tenant {error.name}"
    command = error.name if error.scope == "bucket" else f"--tenant {error.name}"
    unit = _UNITS[error.measure]
    message = (
        f"{subject} may hold {error.limit:,} {unit}, holds {error.used:,}, and this request would add "
        f"{'at least ' if error.growth == 1 and error.measure == 'stored' else ''}{error.growth:,}. "
        f"{_WAY_OUT} {command}"
    )
    extra: dict[str, str | int | None] = {
        "BucketName": bucket.name,
        "QuotaScope": error.scope,
        "QuotaMeasure": error.measure,
        "Quota": error.limit,
        "Used": error.used,
        "Requested": error.growth,
    }
    return S3Error("QuotaExceeded", message, extra=extra)
