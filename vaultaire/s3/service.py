"""S3 over ASGI: authenticate, find the operation, run it, write its answer once.

For every request, in this order: an id; the path and query as they came on the wire; the signature, if there is one; the
operation; the right to it (`authorize`); then the operation itself, which alone may read the body. So nothing
unauthorised changes anything, and a refused upload has sent no byte of its body (the connection sends `100 Continue`
when the body is first read). Preflights (OPTIONS) come before all that: browsers send them without credentials.

Every answer carries `x-amz-request-id` and `x-amz-id-2`; an error's body names the same ids. What the layers below
raise is translated in one table; anything unknown is logged with the request id and answered as InternalError.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

from cas.errors import CasError, NoSpace, PackGone
from index.buckets import get_bucket
from index.environment import ViewDamaged
from index.errors import (
    BucketExists,
    BucketNotEmpty,
    InvalidMarker,
    NamesError,
    NoObjectLock,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    QuotaExceeded,
    VersioningFixed,
    VersioningNeeded,
    VersionLocked,
    WouldOverwrite,
)
from index.kv import CorruptValue, KvError, MapFull, StorePoisoned, StoreReadOnly
from vaultaire.access import ANONYMOUS
from vaultaire.budget import BudgetExhausted
from vaultaire.commit import CommitterEnded
from vaultaire.ingest import ClientGone
from vaultaire.s3 import addressing, cors, names, routing, sigv4, stored, stubs
from vaultaire.s3.actions import NEEDS
from vaultaire.s3.authorize import NO_RULES, Rules, authorize, load_rules, require_active
from vaultaire.s3.call import Call, Response, Services, xml_response
from vaultaire.s3.errors import S3Error, to_xml
from vaultaire.s3.headers import header_map, new_request_id
from vaultaire.s3.metering import NO_CHARGES, admit, charges_of, settle
from vaultaire.s3.observation import Observation
from vaultaire.s3.operation import Operation
from vaultaire.s3.operations import OPERATIONS
from vaultaire.s3.operations.locking import lock_missing, version_locked
from vaultaire.s3.operations.versioning import require_version
from vaultaire.s3.quota_refusal import over_quota
from vaultaire.s3.version_ids import parse_version
from vaultaire.space import SMALL_WRITE_BYTES, DiskFull, needed_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from index.records import BucketRecord
    from vaultaire.access import Principal
    from vaultaire.s3.metering import Charges

    Scope = MutableMapping[str, Any]
    Event = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[Event], Awaitable[None]]

log = logging.getLogger("vaultaire.s3")

_UNPROVEN = sigv4.Verified("", b"", "", "", "")
_LIMITS = {"SlowDown": "rate", "QuotaExceeded": "quota"}  # for metrics; see `_limit_of`
_COPIES = (Operation.COPY_OBJECT, Operation.UPLOAD_PART_COPY)  # there it is the source that is missing


class S3Service:
    """The ASGI application for everything that is S3."""

    def __init__(self, services: Services, host_id: str) -> None:
        self._services = services
        self._host_id = host_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = Observation(scope, new_request_id())
        exchange = _Exchange(receive, send, seen)
        try:
            await self._serve(scope, exchange, seen)
        finally:
            seen.ended = perf_counter()
            self._services.observe(seen)
            if seen.call is not None:
                settle(self._services.rates, seen.call.charges, seen.bytes_in + seen.bytes_out)
            seen.call = None  # a circle: call, exchange, observation

    async def _serve(self, scope: Scope, exchange: _Exchange, seen: Observation) -> None:
        request_id, method = seen.request_id, scope["method"]
        try:
            response = await self._answer(scope, exchange)
        except S3Error as error:
            response = self._refusal(scope, error, seen)
        except Exception as error:
            if isinstance(error, CorruptValue | ViewDamaged):
                self._services.on_damage(error)
            seen.refused = _limit_of(error)
            if isinstance(error, NoSpace | MapFull) and not isinstance(error, DiskFull):
                log.error("request %s: the disk is full: %s", request_id, error)
                error = self._services.store.space.full(_announced_bytes(scope))
            response = self._refusal(scope, translate(error, request_id), seen)
        if method != "OPTIONS":
            response.headers += self._cors_headers(scope)
        response.headers.append((b"x-amz-request-id", request_id.encode()))
        response.headers.append((b"x-amz-id-2", self._host_id.encode()))
        try:
            await _write(response, method, exchange.send, seen)
        finally:
            if response.resources is not None:
                response.resources.close()

    async def _answer(self, scope: Scope, exchange: _Exchange) -> Response:
        method, raw_path, raw_query = scope["method"], scope["raw_path"], scope["query_string"]
        services, seen = self._services, exchange.seen
        if method == "OPTIONS":
            seen.operation = Operation.CORS_PREFLIGHT
            return self._preflight(scope)
        claim = sigv4.parse(method, raw_path, raw_query, scope["headers"], region=services.region)
        host = claim.headers.get(b"host", "")
        bucket, key, virtual = addressing.split_address(host, raw_path, services.domains)
        seen.bucket, seen.key, seen.claimed = bucket, key, claim.access_key
        query = routing.parse_query(raw_query)
        principal, verified, found, rules, charges = self._authenticate(claim, bucket)
        seen.principal, seen.found = principal, found
        if bucket is not None:
            names.check_bucket_name(bucket)
        seen.operation = operation = routing.route(method, bucket, key, query, claim.headers)
        if operation is Operation.POST_OBJECT:
            charges = NO_CHARGES  # who sends a form, its fields say
        if charges:
            admit(services.rates, charges)
        handler = OPERATIONS.get(operation)
        writes = handler.writes if handler is not None else method not in ("GET", "HEAD", "OPTIONS")
        connection = scope.get("state", {}).get("connection")  # none under another server
        seen.call = call = Call(
            services,
            scope["scheme"],
            method,
            bucket,
            found,
            key,
            query,
            claim.headers,
            claim,
            verified,
            principal,
            exchange.receive,
            rules=rules,
            address=scope["client"][0] if scope.get("client") else None,
            virtual=virtual,
            charges=charges,
            end=connection.drop if connection is not None else None,
        )
        authorize(call, operation, writes=writes)
        if writes:
            self._require_writable(operation)
        try:
            return _stub(call, operation) if handler is None else await handler.run(call)
        except (S3Error, NoSuchKey) as error:
            if _tells_too_much(call, operation, error):
                raise S3Error("AccessDenied") from None
            raise
        except QuotaExceeded as error:
            raise over_quota(call, error) from None

    def _require_writable(self, operation: Operation) -> None:
        """Before the body is asked for. Raises StoreReadOnly, DiskFull: what makes room is never refused for want of it."""
        store = self._services.store
        reason = store.kv.read_only_reason()
        if reason is not None:
            raise StoreReadOnly(reason)
        if not operation.value.startswith(("Delete", "Abort")):
            store.space.require()

    def _authenticate(
        self, claim: sigv4.Claim, bucket: str | None
    ) -> tuple[Principal, sigv4.Verified, BucketRecord | None, Rules, Charges]:
        """Who asks, the proof, the bucket as the same snapshot shows it, its rules, and whose limits count.

        Without a signature it is ANONYMOUS, who has proven nothing. Raises InvalidAccessKeyId, SignatureDoesNotMatch, ...
        """
        services = self._services
        anonymous = claim.auth is sigv4.Auth.ANONYMOUS
        rules = NO_RULES
        with services.store.kv.snapshot() as reader:
            principal = ANONYMOUS if anonymous else services.keyring.lookup(reader, claim.access_key)
            found = get_bucket(reader, bucket) if bucket is not None else None
            if found is not None and principal is not None:
                rules = load_rules(reader, found, own=principal.reaches(found.owner))
            charges = charges_of(reader, principal, found, services.plans)
        if anonymous:
            return ANONYMOUS, _UNPROVEN, found, rules, charges
        secret_key = principal.secret_key if principal is not None else None
        verified = sigv4.verify(claim, secret_key, services.clock())
        if principal is None:  # verify has refused it: this is for the reader, and for whoever changes verify
            raise S3Error("InvalidAccessKeyId")
        now_ms = int(services.clock() * 1000)
        require_active(principal, now_ms)
        services.last_used.note(principal.access_key, now_ms)
        return principal, verified, found, rules, charges

    def _preflight(self, scope: Scope) -> Response:
        """OPTIONS: answered from the bucket's CORS rules alone. Raises AccessForbidden, BadRequest."""
        fields = header_map(scope["headers"])
        bucket, _, _ = addressing.split_address(
            fields.get(b"host", ""), scope["raw_path"], self._services.domains
        )
        rules = self._cors_rules(bucket)
        headers = cors.preflight(
            rules,
            fields.get(b"origin"),
            fields.get(b"access-control-request-method"),
            fields.get(b"access-control-request-headers"),
        )
        return Response(200, headers)

    def _cors_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What a page of another origin needs to be shown this answer, whatever it is; nothing for anyone else."""
        if not any(name == b"origin" for name, _ in scope["headers"]):
            return []
        try:
            fields = header_map(scope["headers"])
            host = fields.get(b"host", "")
            bucket, _, _ = addressing.split_address(host, scope["raw_path"], self._services.domains)
            rules = self._cors_rules(bucket)
        except (S3Error, KvError, NamesError):  # then the answer itself says so
            return []
        method = fields.get(b"access-control-request-method") or scope["method"]
        requested = fields.get(b"access-control-request-headers")
        return cors.response_headers(rules, fields[b"origin"], method, requested)

    def _cors_rules(self, bucket: str | None) -> tuple[cors.CorsRule, ...] | None:
        if bucket is None:
            return None
        names.check_bucket_name(bucket)
        with self._services.store.kv.snapshot() as reader:
            found = get_bucket(reader, bucket)
            return stored.cors_of(reader, found.id) if found is not None and found.configured else None

    def _refusal(self, scope: Scope, error: S3Error, seen: Observation) -> Response:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in error.headers]
        if error.status == 304:
            return Response(304, headers)
        seen.code = error.code
        seen.refused = seen.refused or _LIMITS.get(error.code)
        resource = scope["raw_path"].decode("latin-1")
        body = to_xml(error, resource, seen.request_id, self._host_id)
        return Response(error.status, [(b"content-type", b"application/xml"), *headers], body)


class _Exchange:
    """Where a request's body comes from and its answer goes."""

    __slots__ = ("_receive", "seen", "send")

    def __init__(self, receive: Receive, send: Send, seen: Observation) -> None:
        self._receive = receive
        self.send = send
        self.seen = seen

    async def receive(self) -> Event:
        event = await self._receive()
        self.seen.bytes_in += len(event.get("body", b""))
        return event


def _limit_of(error: Exception) -> str | None:
    """Which limit of the server refused the request; None: it was another reason."""
    match error:
        case BudgetExhausted():
            return "memory"
        case NoSpace() | MapFull():
            return "disk"
        case StoreReadOnly():
            return "read-only"
    return None


def _tells_too_much(call: Call, operation: Operation, error: S3Error | NoSuchKey) -> bool:
    """Whether the error tells that an object is not there to someone who may not list the bucket."""
    if isinstance(error, S3Error) and error.code not in ("NoSuchKey", "NoSuchVersion"):
        return False
    return NEEDS[operation].kind == "object" and operation not in _COPIES and not call.allows("s3:ListBucket")


def _stub(call: Call, operation: Operation) -> Response:
    """The answer of an operation that is not built: the documented empty form, or NotImplemented."""
    with call.store.kv.snapshot() as reader:
        bucket = call.require_bucket() if call.bucket_name is not None else None
        if call.key is not None and bucket is not None:
            wanted = parse_version(call.query.get("versionId"))
            require_version(reader, bucket, call.key, wanted, call.method)
    answer = stubs.stub(operation)
    return xml_response(answer.body, answer.status) if answer.body else Response(answer.status)


def _announced_bytes(scope: Scope) -> int:
    """What storing this request's body may have needed."""
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return needed_bytes(int(length)) if length.isdigit() else SMALL_WRITE_BYTES


def translate(error: Exception, request_id: str) -> S3Error:
    """What the layers below raise, in S3's terms. Anything else is our fault: logged, and InternalError."""
    match error:
        case ClientGone():
            return S3Error("IncompleteBody")
        case BudgetExhausted():
            return S3Error("SlowDown")
        case NoSuchBucket():
            return S3Error("NoSuchBucket", bucket=error.name)
        case BucketNotEmpty():
            return S3Error("BucketNotEmpty", bucket=error.name)
        case BucketExists():
            return S3Error("BucketAlreadyExists", bucket=error.name)
        case NoSuchKey():
            return S3Error("NoSuchKey", key=error.key)
        case NoSuchUpload():
            return S3Error("NoSuchUpload", extra={"UploadId": error.upload_id})
        case NoObjectLock():
            return lock_missing()
        case WouldOverwrite():
            return S3Error(
                "AccessDenied", "This access key may only create objects, and this one exists already."
            )
        case VersionLocked():
            return version_locked()
        case VersioningFixed():
            return S3Error(
                "InvalidBucketState",
                "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.",
            )
        case VersioningNeeded():
            return S3Error(
                "InvalidBucketState",
                "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration",
            )
        case InvalidMarker():
            return S3Error("InvalidArgument", "Invalid marker.", extra={"ArgumentValue": error.marker})
        case DiskFull():
            extra = {"BytesNeeded": error.needed, "BytesFree": error.free}
            return S3Error("InsufficientStorage", str(error), extra=extra)
        case StoreReadOnly():
            return S3Error("ServiceUnavailable", str(error))
        case PackGone() | StorePoisoned() | CommitterEnded():
            log.error("request %s: %s", request_id, error)
            return S3Error("ServiceUnavailable")
        case KvError() | CasError():
            log.error("request %s: %s", request_id, error)
            return S3Error("InternalError")
    log.error("request %s failed", request_id, exc_info=error)
    return S3Error("InternalError")


async def _write(response: Response, method: str, send: Send, seen: Observation) -> None:
    headers = response.headers
    seen.status = response.status
    streaming = response.stream is not None
    length = response.length if response.length is not None else len(response.body)
    if response.status not in (204, 304):
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if method == "HEAD" or not streaming:
        body = b"" if method == "HEAD" else response.body
        seen.first_byte = perf_counter()
        await send({"type": "http.response.body", "body": body, "more_body": False})
        seen.bytes_out = len(body)
        seen.complete = True
        return
    assert response.stream is not None

    async def send_piece(piece: bytes | memoryview) -> None:
        if seen.first_byte is None:
            seen.first_byte = perf_counter()
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        seen.bytes_out += len(piece)

    try:
        await response.stream(send_piece)
    except (CasError, KvError):
        # The head is out: the honest answer is a body that ends short, which the connection makes of the raise.
        log.exception("request %s: reading failed after the head was sent", seen.request_id)
        raise
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    seen.complete = True
