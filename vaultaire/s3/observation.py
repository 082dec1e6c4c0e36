"""What one request was and came to, as metrics and logs see it when it is over.

The service fills one in per request and hands it on once, after the last byte of the answer or when there is none any
more. Nothing in it is copied or formatted before somebody asks: a request pays for a few assignments.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from vaultaire.access import ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from index.records import BucketRecord
    from vaultaire.access import Principal
    from vaultaire.s3.call import Call
    from vaultaire.s3.operation import Operation

GONE: Final = (
    499  # no answer was begun: the client left, was too slow, or the server stopped. As nginx calls it
)


class Observation:
    """Times are of `perf_counter`."""

    __slots__ = (
        "_principal",
        "bucket",
        "bytes_in",
        "bytes_out",
        "call",
        "claimed",
        "code",
        "complete",
        "ended",
        "first_byte",
        "found",
        "key",
        "operation",
        "refused",
        "request_id",
        "scope",
        "started",
        "status",
    )

    def __init__(self, scope: MutableMapping[str, Any], request_id: str) -> None:
        self.started = perf_counter()
        self.scope = scope
        self.request_id = request_id
        self.bucket: str | None = None  # as it was asked for, whether or not there is one
        self.found: BucketRecord | None = None  # as it was when the request began
        self.key: bytes | None = None
        self.operation: Operation | None = None  # None: refused before it was known
        self.claimed = ""  # the access key that the request names; see `principal` for who it is
        self.call: Call | None = None  # once the operation may run
        self._principal: Principal = ANONYMOUS
        self.status = GONE
        self.code: str | None = None  # S3's name of the error
        self.refused: str | None = None  # by which limit: rate, memory, disk, read-only, quota
        self.bytes_in = 0  # of the body, as it came on the wire
        self.bytes_out = 0  # of the answer's body
        self.first_byte: float | None = None  # when the answer began to leave
        self.complete = False  # the whole answer went out
        self.ended = 0.0

    @property
    def principal(self) -> Principal:
        """Who proved to be who. ANONYMOUS: nobody did."""
        return self.call.principal if self.call is not None else self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        self._principal = principal

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def added_bytes(self) -> int:
        """What the body of a successful upload added to the store, after deduplication and compression."""
        if self.status >= 300 or self.call is None or self.call.upload is None:
            return 0
        return self.call.upload.new_stored_bytes
