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
from index.versions import NONCE_BYTES, Change, require_room
from vaultaire.s3 import ceiling
from vaultaire.s3.addressing import object_url
from vaultaire.s3.authorize import NO_RULES, Rules, decide, learn, load_rules
from vaultaire.s3.errors import S3Error
from vaultaire.s3.metering import NO_CHARGES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence
    from contextlib import ExitStack
    from typing import Any

    from cas.store import Publication
    from index.kv import KvError, Reader, Transaction
    from index.records import BucketRecord, UploadRecord
    from vaultaire.access import Keyring, Principal
    from vaultaire.budget import MemoryBudget
    from vaultaire.commit import Committer
    from vaultaire.ingest import Upload
    from vaultaire.last_used import LastUsed
    from vaultaire.plans import PlanBook
    from vaultaire.rates import Rates
    from vaultaire.s3.facts import Facts
    from vaultaire.s3.metering import Charges
    from vaultaire.s3.observation import Observation
    from vaultaire.s3.sigv4 import Claim, Verified
    from vaultaire.store import Store
    from vaultaire.threads import Threads

    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Piece = bytes | memoryview
    Sender = Callable[[Piece], Awaitable[None]]

T = TypeVar("T")

XML_TYPE = (b"content-type", b"application/xml")


def _ignore(observation: Observation) -> None:
    del observation


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
    last_used: LastUsed
    rates: Rates
    plans: PlanBook
    region: str = "us-east-1"
    domains: tuple[str, ...] = ()  # whose subdomains are buckets
    observe: Callable[[Observation], None] = _ignore  # every request when it is over; must not raise nor wait


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
    """One authenticated (or knowingly anonymous) request, whose operation is allowed."""

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
    rules: Rules = NO_RULES  # of `found_bucket`
    address: str | None = None  # the client's IP address
    facts: Facts | None = None  # of the request, for conditions; gathered when first needed
    admitted: set[int] = field(default_factory=set)  # ids of buckets of other tenants that it may use
    virtual: bool = False  # the bucket was named by the host, not by the path
    end: Callable[[], None] | None = None  # ends the connection, from outside
    charges: Charges = NO_CHARGES  # whose limits its bytes count against
    upload: Upload | None = None  # of this request's body, for who observes
    deleted: list[tuple[bytes, str | None, str | None]] | None = (
        None  # DeleteObjects: key, version, error; likewise
    )

    @property
    def store(self) -> Store:
        return self.services.store

    def header(self, name: bytes) -> str | None:
        return self.headers.get(name)

    def now_ms(self) -> int:
        return int(self.services.clock() * 1000)

    def object_url(self) -> str:
        """Where the object of this request is, in the style of address that the client used."""
        assert self.bucket_name is not None
        assert self.key is not None
        host = self.header(b"host") or ""
        return object_url(self.scheme, host, self.bucket_name, self.key, virtual=self.virtual)

    def change(self) -> Change:
        """What a change of versions is told of this request; drawn before the commit, whose function may run twice.

        GOVERNANCE retention is bypassed by an admin key of the bucket's tenant (or of root) that says so, unless the
        bucket's policy denies it: for anybody else the header counts for nothing, and the lock decides.
        """
        bypass = self.may_bypass(self.key, self.query.get("versionId"))
        nonce = os.urandom(NONCE_BYTES)
        return Change(self.store.writer, self.now_ms(), nonce, bypass, create_only=self.creates_only)

    @property
    def creates_only(self) -> bool:
        """Whether what is at this request's key must stay as it is."""
        if self.bucket_name is None or self.key is None:
            return False
        return ceiling.creates_only(self.principal, self.bucket_name, self.key)

    def require_initiator(self, upload: UploadRecord) -> None:
        """A key that only creates adds to no upload of another key, and ends none. Raises AccessDenied."""
        if self.creates_only and upload.initiator != self.principal.access_key:
            raise S3Error(
                "AccessDenied", "This access key may only change multipart uploads that it began itself."
            )

    def writing_tenant(self, bucket: BucketRecord) -> str:
        """Whose is what this request makes in `bucket`: what anonymous clients write belongs to the bucket's owner."""
        return bucket.owner if self.principal.anonymous else self.principal.tenant

    def may_bypass(self, key: bytes | None, version_id: str | None) -> bool:
        """Whether GOVERNANCE retention of that version does not hold against this request. Not inside a commit."""
        if (self.header(b"x-amz-bypass-governance-retention") or "").lower() != "true":
            return False
        bucket = self.found_bucket
        if self.principal.role != "admin" or bucket is None or not self.principal.reaches(bucket.owner):
            return False
        return self.allows("s3:BypassGovernanceRetention", key, version_id)

    def require_bucket(self) -> BucketRecord:
        """The bucket as it was when the request began. Raises NoSuchBucket, AccessDenied."""
        return self._allowed(self.bucket_name, self.found_bucket)

    def require_room(self, size: int) -> None:
        """That an object of `size` bytes could be put at this request's key now. Raises QuotaExceeded, NoSuchBucket, ...

        So that a hopeless upload is refused before its body; the commit decides.
        """
        bucket = self.require_bucket()
        if bucket.limited:
            assert self.key is not None
            with self.store.kv.snapshot() as reader:
                require_room(reader, bucket, self.key, size)

    def bucket(self, reader: Reader, name: str | None = None) -> BucketRecord:
        """The bucket of this request (or `name`) as `reader` sees it. Raises NoSuchBucket, AccessDenied."""
        name = name or self.bucket_name
        assert name is not None
        return self._allowed(name, get_bucket(reader, name))

    def _allowed(self, name: str | None, record: BucketRecord | None) -> BucketRecord:
        if record is None:
            raise S3Error("NoSuchBucket", bucket=name)
        # By id: a bucket that another tenant made meanwhile under this name is not the one that was asked for.
        if not self.principal.reaches(record.owner) and record.id not in self.admitted:
            raise S3Error("AccessDenied")
        return record

    # -- rights; see `vaultaire.s3.authorize`

    def admit(self, bucket: BucketRecord) -> None:
        """From here on `bucket` may be used: the caller has been authorised for what it does with it."""
        self.admitted.add(bucket.id)

    def allows(
        self,
        action: str,
        key: bytes | None = None,
        version_id: str | None = None,
    ) -> bool:
        """Whether the caller may do `action` to this request's bucket or `key` in it. Not inside a commit."""
        bucket = self.found_bucket
        if bucket is None:
            raise S3Error("NoSuchBucket", bucket=self.bucket_name)
        if self.rules.policy is None and self.principal.reaches(bucket.owner) and not self.principal.limited:
            return True
        return decide(self, bucket, self.rules, action, key, version_id)

    def require(
        self,
        action: str,
        key: bytes | None = None,
        version_id: str | None = None,
    ) -> None:
        """As `allows`. Raises AccessDenied; on return the bucket may be used."""
        if not self.allows(action, key, version_id):
            raise S3Error("AccessDenied")
        assert self.found_bucket is not None
        self.admit(self.found_bucket)

    def learn(self, more: Facts) -> None:
        """What the body asks for: conditions of policies see it from here on, in place of what headers say."""
        learn(self, more)

    def source(self, reader: Reader, name: str) -> tuple[BucketRecord, Rules]:
        """Another bucket to read from, and its rules. Nothing is decided yet. Raises NoSuchBucket."""
        record = get_bucket(reader, name)
        if record is None:
            raise S3Error("NoSuchBucket", bucket=name)
        return record, load_rules(reader, record, own=self.principal.reaches(record.owner))

    # -- effects

    async def commit(self, fn: Callable[[Transaction], T], publications: Sequence[Publication] = ()) -> T:
        """Durable on return; see `vaultaire.commit`."""
        return await self.services.committer.commit(fn, publications)


def xml_response(body: bytes, status: int = 200) -> Response:
    return Response(status, [XML_TYPE], body)
