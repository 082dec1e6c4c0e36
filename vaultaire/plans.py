"""How many requests and bytes a key or a tenant may use: named plans, and who has which.

A limit of a tenant holds for all its keys together, one of a key for that key; both hold at once. A tenant without a
limit of its own has the server's default plan (`serve --plan`), but for the tenant of the root keys, which has none.

Table "srv.limits": row key = `key/` + access key or `tenant/` + tenant; value: JSON with `requests_per_minute` and
`bytes_per_second` (whole numbers, or null: unlimited) and `plan`, the name that was asked for, or null. Row key
`generation`: how often any of them was changed (u64), so that a request reads this one row instead of all that might
concern it (`PlanBook`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from vaultaire.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from index.kv import Reader, Transaction

TABLE: Final = "srv.limits"
_GENERATION: Final = b"generation"
_REMEMBERED: Final = 4096  # answers of a `PlanBook`
MAX_REQUESTS: Final = 1_000_000  # a minute; what is faster needs no limit
MAX_BYTES: Final = 1 << 40  # a second


@dataclass(frozen=True, slots=True)
class Plan:
    """None: unlimited."""

    requests_per_minute: int | None = None
    bytes_per_second: int | None = None
    plan: str | None = None  # its name

    @property
    def limits(self) -> bool:
        return self.requests_per_minute is not None or self.bytes_per_second is not None

    def __str__(self) -> str:
        requests = "any" if self.requests_per_minute is None else f"{self.requests_per_minute:,}"
        rate = "any" if self.bytes_per_second is None else f"{self.bytes_per_second:,}"
        name = f"{self.plan}: " if self.plan else ""
        return f"{name}{requests} requests a minute, {rate} bytes a second"


PLANS: Final = {
    "core": Plan(plan="core"),
    "stored.ge": Plan(1_000, plan="stored.ge"),
    "stored.cloud": Plan(10_000, plan="stored.cloud"),
}
DEFAULT_PLAN: Final = "core"


class DamagedLimit(StoreError):
    def __init__(self, subject: str) -> None:
        super().__init__(
            f"the stored limit of {subject!r} cannot be read; set it anew with: vaultaire key limit"
        )


def subject_of_key(access_key: str) -> str:
    return f"key/{access_key}"


def subject_of_tenant(tenant: str) -> str:
    return f"tenant/{tenant}"


def get_plans(reader: Reader, *subjects: str) -> list[Plan | None]:
    """In the order of `subjects`; None: nothing was set. Raises DamagedLimit."""
    rows = reader.get_many(TABLE, [subject.encode() for subject in subjects])
    return [None if row is None else _decode(who, row) for who, row in zip(subjects, rows, strict=True)]


def list_plans(reader: Reader) -> Iterator[tuple[str, Plan]]:
    """(subject, plan) in order of subjects. Raises DamagedLimit."""
    for key, row in reader.scan(TABLE):
        if key != _GENERATION:
            subject = key.decode(errors="replace")
            yield subject, _decode(subject, row)


def put_plan(txn: Transaction, subject: str, plan: Plan | None) -> None:
    """None: what was set counts no more."""
    changed = int.from_bytes(txn.get(TABLE, _GENERATION) or b"") + 1
    txn.put(TABLE, _GENERATION, changed.to_bytes(8))
    if plan is None:
        txn.delete(TABLE, subject.encode())
    else:
        txn.put(TABLE, subject.encode(), json.dumps(asdict(plan), separators=(",", ":")).encode())


class PlanBook:
    """What `get_plans` says of a few subjects, remembered until any limit is changed. For one thread."""

    def __init__(self, default: Plan) -> None:
        """`default`: of tenants that have no plan of their own; kept here for whoever asks."""
        self.default = default
        self._generation: bytes | None = None
        self._remembered: dict[tuple[str, ...], tuple[Plan | None, ...]] = {}

    def get(self, reader: Reader, *subjects: str) -> tuple[Plan | None, ...]:
        """As `get_plans`, of the state that `reader` shows. Raises DamagedLimit."""
        generation = reader.get(TABLE, _GENERATION)
        if generation != self._generation or len(self._remembered) > _REMEMBERED:
            self._remembered.clear()
            self._generation = generation
        found = self._remembered.get(subjects)
        if found is None:
            found = self._remembered[subjects] = tuple(get_plans(reader, *subjects))
        return found


def _decode(subject: str, row: bytes) -> Plan:
    try:
        fields = json.loads(row)
        plan = Plan(fields["requests_per_minute"], fields["bytes_per_second"], fields["plan"])
        for number in (plan.requests_per_minute, plan.bytes_per_second):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ValueError("not a positive number")
        return plan
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedLimit(subject) from error
