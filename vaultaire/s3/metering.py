"""What requests cost: limited keys and tenants are held to their plans here, before an operation begins.

A request counts once its signature is proven: nobody uses up the minute of another. Requests without a signature count
for the tenant of the bucket. Over the limit: SlowDown with `retry-after`, which every S3 client obeys.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from vaultaire.access import ROOT_TENANT
from vaultaire.plans import subject_of_key, subject_of_tenant
from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from index.kv import Reader
    from index.records import BucketRecord
    from vaultaire.access import Principal
    from vaultaire.plans import Plan, PlanBook
    from vaultaire.rates import Rates

    Charges = tuple[tuple[str, Plan], ...]

NO_CHARGES: Charges = ()


def charges_of(
    reader: Reader, principal: Principal | None, bucket: BucketRecord | None, book: PlanBook
) -> Charges:
    """Whose limits this request counts against; empty for most."""
    if principal is None:
        return NO_CHARGES  # an unknown key: it will be refused
    tenant = principal.tenant if not principal.anonymous else (bucket.owner if bucket is not None else None)
    if tenant is None:
        return NO_CHARGES
    of_tenant = subject_of_tenant(tenant)
    subjects = (of_tenant,) if principal.anonymous else (of_tenant, subject_of_key(principal.access_key))
    plans = book.get(reader, *subjects)
    if plans[0] is None and book.default.limits and tenant != ROOT_TENANT:
        plans = (book.default, *plans[1:])
    if not any(plans):
        return NO_CHARGES
    return tuple(
        (subject, plan)
        for subject, plan in zip(subjects, plans, strict=True)
        if plan is not None and plan.limits
    )


def admit(rates: Rates, charges: Charges) -> None:
    """Raises SlowDown."""
    wait = rates.admit(charges, time.monotonic())
    if wait:
        seconds = math.ceil(wait)
        raise S3Error(
            "SlowDown",
            f"Please reduce your request rate: your plan allows more again in {seconds} s.",
            headers=(("retry-after", str(seconds)),),
        )


def settle(rates: Rates, charges: Charges, count: int) -> None:
    """Charge the bytes of a request's body and of its answer's, when it is over."""
    if count and any(plan.bytes_per_second is not None for _, plan in charges):
        rates.spend(charges, count, time.monotonic())
