"""What the care for the store last found out: one small JSON document per subject, in the ordered map.

Collection, scrubbing and verification leave their progress and their results here; `stats`, metrics and the console
show them with their age. Rows are replaced whole. They are no truth: whoever wrote one can make it anew, so a row that
cannot be read counts as none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from index.kv import Reader, Transaction

TABLE: Final = "srv.reports"


def get_report(reader: Reader, subject: str) -> dict[str, Any] | None:
    """The last report on `subject`; None if there is none that can be read. Keys that are not known are to be ignored."""
    row = reader.get(TABLE, subject.encode())
    try:
        report = None if row is None else json.loads(row)
    except ValueError:
        return None
    return report if isinstance(report, dict) else None


def put_report(txn: Transaction, subject: str, report: dict[str, Any]) -> None:
    """Replace the report on `subject`."""
    txn.put(TABLE, subject.encode(), json.dumps(report, separators=(",", ":")).encode())
