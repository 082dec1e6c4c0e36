"""One S3 request as an operation sees it, and the answer it gives back.

An operation is `async def name(call: Call) -> Response`: it parses what is particular to it, asks the store, and
returns. It never writes to the connection, never builds an error body, never opens a transaction of its own outside
`call.commit`. `vaultaire.s3.service` authenticates before and writes after.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from index.buckets import get_bucket
from index.versions import NONCE_BYTES, Change
from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence
    from contextlib import ExitStack
    from typing import Any

    from cas.store import Publication
    from index.kv import KvError, Reader, Transaction
    from index.records import BucketRecord
    from vaultaire.access import Keyring, Principal
    from vaultaire.budget import MemoryBudget
    from vaultaire.commit import Committer
    from vaultaire.s3.sigv4 import Claim, Verified
    from vaultaire.store import Store
    from vaultaire.threads import Threads

    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Piece = bytes | memoryview
    Sender = Callable[[Piece], Awaitable[None]]

T = TypeVar("T")

XML_TYPE = (b"content-type", b"application/xml")


@dataclass(frozen=True, slots=True)
class Services:
    """What every request of a worker shares."""

    store: Store
    committer: Committer
    keyring: Keyring
    budget: MemoryBudget
    threads: Threads
    clock: Callable[[], float]  # unix seconds
    on_damage: Callable[[KvError], None]  # the metadata shows damage: it has to be rebuilt
    region: str = "us-east-1"


@dataclass(slots=True)
class Response:
    """`body` as a whole, or `stream`: called with a sender once the head is out (then `length` is announced).

    `resources` are released when the answer is over, however it ends.
    """

    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: Piece = b""
    stream: Callable[[Sender], Awaitable[None]] | None = None
    length: int | None = None  # of `stream`, or what HEAD announces
    resources: ExitStack | None = None


@dataclass(slots=True)
class Call:
    """One authenticated request."""

    services: Services
    scheme: str
    method: str
    bucket_name: str | None
    found_bucket: BucketRecord | None  # as it was when the request began; commits look again
    key: bytes | None  # as decoded once from the wire: 1 to 1,024 bytes of UTF-8
    query: dict[str, str]
    headers: dict[bytes, str]  # lower-case names; repeated ones joined with ","
    claim: Claim
    verified: Verified
    principal: Principal
    receive: Receive

    @property
    def store(self) -> Store:
        return self.services.store

    def header(self, name: bytes) -> str | None:
        return self.headers.get(name)

    def now_ms(self) -> int:
        return int(self.services.clock() * 1000)

    def change(self) -> Change:
        """What a change of versions is told of this request; drawn before the commit, whose function may run twice.

        GOVERNANCE retention is bypassed by a key of the role admin that says so: for anybody else the header counts
        for nothing, and the lock decides.
        """
        asks = (self.header(b"x-amz-bypass-governance-retention") or "").lower() == "true"
        bypass = asks and self.principal.role == "admin"
        return Change(self.store.writer, self.now_ms(), os.urandom(NONCE_BYTES), bypass)

    def require_bucket(self) -> BucketRecord:
        """The bucket as it was when the request began. Raises NoSuchBucket, AccessDenied."""
        return self._allowed(self.bucket_name, self.found_bucket)

    def bucket(self, reader: Reader, name: str | None = None) -> BucketRecord:
        """The bucket of this request (or `name`) as `reader` sees it. Raises NoSuchBucket, AccessDenied."""
        name = name or self.bucket_name
        assert name is not None
        return self._allowed(name, get_bucket(reader, name))

    def _allowed(self, name: str | None, record: BucketRecord | None) -> BucketRecord:
        if record is None:
            raise S3Error("NoSuchBucket", bucket=name)
        if record.owner != self.principal.tenant and not self.principal.root:
            raise S3Error("AccessDenied")
        return record

    async def commit(self, fn: Callable[[Transaction], T], publications: Sequence[Publication] = ()) -> T:
        """Durable on return; see `vaultaire.commit`."""
        return await self.services.committer.commit(fn, publications)


def xml_response(body: bytes, status: int = 200) -> Response:
    return Response(status, [XML_TYPE], body)
