"""One request for every operation: what it takes to try a rule on all of them.

`EXAMPLES` is by operation; a test holds it complete. Each works in a `Place`: a bucket with an object, an upload with
a part, and an empty bucket. Also here: one request in every form of authentication (`FORMS`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.s3.conftest import new_bucket_name
from tests.s3.wire import (
    SIGNED_CHUNKS,
    UNSIGNED_CHUNKS_TRAILER,
    crc32,
    signed_chunks,
    unsigned_chunks_trailer,
)
from vaultaire.s3.operation import Operation

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Sequence

    from tests.s3.wire import Answer, Caller, Connection, Pairs, Request

XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
PROBE = (
    "x-amz-meta-probe",
    "a",
)  # a header that every operation ignores or keeps, to be changed after signing


@dataclass(frozen=True, slots=True)
class Place:
    bucket: str
    empty: str
    upload: str
    etag: str  # of the part, quoted

    def fill(self, text: str) -> str:
        for name in ("bucket", "empty", "upload", "etag"):
            text = text.replace(f"${name.upper()}", getattr(self, name))
        return text


@dataclass(frozen=True, slots=True)
class Example:
    """`$BUCKET`, `$EMPTY`, `$UPLOAD` and `$ETAG` stand for what the place has. It succeeds there (`statuses`)."""

    method: str
    path: str
    query: str = ""
    body: str = ""
    headers: Pairs = ()
    statuses: tuple[int, ...] = (200, 204)
    bucket_headers: Pairs = ()  # with which the place's bucket is made
    before: tuple[Operation, ...] = ()  # whose examples make the place ready

    def at(self, place: Place) -> Example:
        headers = tuple((name, place.fill(value)) for name, value in self.headers)
        return replace(
            self,
            path=place.fill(self.path),
            query=place.fill(self.query),
            body=place.fill(self.body),
            headers=headers,
        )

    @property
    def data(self) -> bytes:
        return self.body.encode()


BUCKET, KEY = "/$BUCKET", "/$BUCKET/kept"
_LOCKED = (("x-amz-bucket-object-lock-enabled", "true"),)
_TAGS = "<Tagging><TagSet><Tag><Key>colour</Key><Value>blue</Value></Tag></TagSet></Tagging>"
_OK_OR_ABSENT = (200, 404)


def _config(
    name: str, *, root: str = BUCKET, statuses: tuple[int, ...] = _OK_OR_ABSENT, **rest: object
) -> Example:
    return Example("GET", root, name, statuses=statuses, **rest)  # type: ignore[arg-type]


def _absent(query: str) -> Example:
    return Example("DELETE", BUCKET, query, statuses=(204, 404))


EXAMPLES: dict[Operation, Example] = {
    Operation.LIST_BUCKETS: Example("GET", "/"),
    Operation.CREATE_BUCKET: Example(
        "PUT", "/new-$BUCKET", body=f"<CreateBucketConfiguration {XMLNS}></CreateBucketConfiguration>"
    ),
    Operation.HEAD_BUCKET: Example("HEAD", BUCKET),
    Operation.DELETE_BUCKET: Example("DELETE", "/$EMPTY"),
    Operation.GET_BUCKET_LOCATION: Example("GET", BUCKET, "location"),
    Operation.PUT_OBJECT: Example("PUT", KEY, body="the new content"),
    Operation.GET_OBJECT: Example("GET", KEY),
    Operation.HEAD_OBJECT: Example("HEAD", KEY),
    Operation.DELETE_OBJECT: Example("DELETE", KEY),
    Operation.DELETE_OBJECTS: Example(
        "POST", BUCKET, "delete", f"<Delete {XMLNS}><Object><Key>kept</Key></Object></Delete>"
    ),
    Operation.COPY_OBJECT: Example("PUT", "/$BUCKET/copy", headers=(("x-amz-copy-source", "$BUCKET/kept"),)),
    Operation.LIST_OBJECTS: Example("GET", BUCKET, "prefix=k"),
    Operation.LIST_OBJECTS_V2: Example("GET", BUCKET, "list-type=2"),
    Operation.LIST_OBJECT_VERSIONS: Example("GET", BUCKET, "versions"),
    Operation.CREATE_MULTIPART_UPLOAD: Example("POST", "/$BUCKET/new", "uploads"),
    Operation.UPLOAD_PART: Example("PUT", "/$BUCKET/part", "partNumber=2&uploadId=$UPLOAD", "another part"),
    Operation.UPLOAD_PART_COPY: Example(
        "PUT",
        "/$BUCKET/part",
        "partNumber=2&uploadId=$UPLOAD",
        headers=(("x-amz-copy-source", "$BUCKET/kept"),),
    ),
    Operation.COMPLETE_MULTIPART_UPLOAD: Example(
        "POST",
        "/$BUCKET/part",
        "uploadId=$UPLOAD",
        f"<CompleteMultipartUpload {XMLNS}><Part><PartNumber>1</PartNumber><ETag>$ETAG</ETag></Part>"
        "</CompleteMultipartUpload>",
    ),
    Operation.ABORT_MULTIPART_UPLOAD: Example("DELETE", "/$BUCKET/part", "uploadId=$UPLOAD"),
    Operation.LIST_PARTS: Example("GET", "/$BUCKET/part", "uploadId=$UPLOAD"),
    Operation.LIST_MULTIPART_UPLOADS: Example("GET", BUCKET, "uploads"),
    # Proven by its fields, not by a signature of the request: 400 for every other form of authentication.
    Operation.POST_OBJECT: Example(
        "POST",
        BUCKET,
        headers=(("content-type", "multipart/form-data; boundary=b"),),
        body="x",
        statuses=(400,),
    ),
    # -- versions and locks
    Operation.GET_BUCKET_VERSIONING: Example("GET", BUCKET, "versioning"),
    Operation.PUT_BUCKET_VERSIONING: Example(
        "PUT",
        BUCKET,
        "versioning",
        f"<VersioningConfiguration {XMLNS}><Status>Enabled</Status></VersioningConfiguration>",
    ),
    Operation.GET_OBJECT_LOCK_CONFIGURATION: _config("object-lock", bucket_headers=_LOCKED),
    Operation.PUT_OBJECT_LOCK_CONFIGURATION: Example(
        "PUT",
        BUCKET,
        "object-lock",
        f"<ObjectLockConfiguration {XMLNS}><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>",
        bucket_headers=_LOCKED,
    ),
    Operation.GET_OBJECT_RETENTION: _config("retention", root=KEY, bucket_headers=_LOCKED),
    Operation.PUT_OBJECT_RETENTION: Example(
        "PUT",
        KEY,
        "retention",
        f"<Retention {XMLNS}><Mode>GOVERNANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
        bucket_headers=_LOCKED,
    ),
    Operation.GET_OBJECT_LEGAL_HOLD: _config("legal-hold", root=KEY, bucket_headers=_LOCKED),
    Operation.PUT_OBJECT_LEGAL_HOLD: Example(
        "PUT",
        KEY,
        "legal-hold",
        f"<LegalHold {XMLNS}><Status>ON</Status></LegalHold>",
        bucket_headers=_LOCKED,
    ),
    # -- configurations
    Operation.GET_BUCKET_TAGGING: _config("tagging"),
    Operation.PUT_BUCKET_TAGGING: Example("PUT", BUCKET, "tagging", _TAGS),
    Operation.DELETE_BUCKET_TAGGING: Example("DELETE", BUCKET, "tagging"),
    Operation.GET_OBJECT_TAGGING: _config("tagging", root=KEY),
    Operation.PUT_OBJECT_TAGGING: Example("PUT", KEY, "tagging", _TAGS),
    Operation.DELETE_OBJECT_TAGGING: Example("DELETE", KEY, "tagging"),
    Operation.GET_BUCKET_CORS: _config("cors"),
    Operation.PUT_BUCKET_CORS: Example(
        "PUT",
        BUCKET,
        "cors",
        "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule>"
        "</CORSConfiguration>",
    ),
    Operation.DELETE_BUCKET_CORS: Example("DELETE", BUCKET, "cors"),
    Operation.CORS_PREFLIGHT: Example(
        "OPTIONS",
        KEY,
        headers=(("origin", "http://example.org"), ("access-control-request-method", "GET")),
        statuses=(200, 403),
    ),
    Operation.GET_BUCKET_POLICY: _config("policy"),
    Operation.PUT_BUCKET_POLICY: Example(
        "PUT",
        BUCKET,
        "policy",
        '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:GetObject",'
        '"Resource":"arn:aws:s3:::$BUCKET/secret/*"}]}',
    ),
    Operation.DELETE_BUCKET_POLICY: Example("DELETE", BUCKET, "policy"),
    Operation.GET_BUCKET_POLICY_STATUS: _config("policyStatus"),
    Operation.GET_BUCKET_ACL: Example("GET", BUCKET, "acl"),
    Operation.PUT_BUCKET_ACL: Example(
        "PUT", BUCKET, "acl", headers=(("x-amz-acl", "private"),), statuses=(200, 400)
    ),
    Operation.GET_OBJECT_ACL: Example("GET", KEY, "acl"),
    Operation.PUT_OBJECT_ACL: Example(
        "PUT", KEY, "acl", headers=(("x-amz-acl", "private"),), statuses=(200, 400)
    ),
    Operation.GET_BUCKET_OWNERSHIP_CONTROLS: _config("ownershipControls"),
    Operation.PUT_BUCKET_OWNERSHIP_CONTROLS: Example(
        "PUT",
        BUCKET,
        "ownershipControls",
        f"<OwnershipControls {XMLNS}><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule>"
        "</OwnershipControls>",
    ),
    Operation.DELETE_BUCKET_OWNERSHIP_CONTROLS: Example("DELETE", BUCKET, "ownershipControls"),
    Operation.GET_PUBLIC_ACCESS_BLOCK: _config("publicAccessBlock"),
    Operation.PUT_PUBLIC_ACCESS_BLOCK: Example(
        "PUT",
        BUCKET,
        "publicAccessBlock",
        f"<PublicAccessBlockConfiguration {XMLNS}><BlockPublicAcls>true</BlockPublicAcls>"
        "</PublicAccessBlockConfiguration>",
    ),
    Operation.DELETE_PUBLIC_ACCESS_BLOCK: Example("DELETE", BUCKET, "publicAccessBlock"),
    Operation.GET_BUCKET_ENCRYPTION: _config("encryption"),
    Operation.PUT_BUCKET_ENCRYPTION: Example(
        "PUT",
        BUCKET,
        "encryption",
        f"<ServerSideEncryptionConfiguration {XMLNS}><Rule><ApplyServerSideEncryptionByDefault>"
        "<SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>"
        "</ServerSideEncryptionConfiguration>",
    ),
    Operation.DELETE_BUCKET_ENCRYPTION: Example("DELETE", BUCKET, "encryption"),
    Operation.GET_BUCKET_LIFECYCLE_CONFIGURATION: _config("lifecycle"),
    Operation.PUT_BUCKET_LIFECYCLE_CONFIGURATION: Example(
        "PUT",
        BUCKET,
        "lifecycle",
        f"<LifecycleConfiguration {XMLNS}><Rule><ID>r</ID><Filter><Prefix>old/</Prefix></Filter>"
        "<Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>",
    ),
    Operation.DELETE_BUCKET_LIFECYCLE: Example("DELETE", BUCKET, "lifecycle"),
    # -- objects, once more
    Operation.GET_OBJECT_ATTRIBUTES: Example(
        "GET", KEY, "attributes", headers=(("x-amz-object-attributes", "ETag,ObjectSize"),)
    ),
    Operation.RENAME_OBJECT: Example(
        "PUT", "/$BUCKET/renamed", "renameObject", headers=(("x-amz-rename-source", "$BUCKET/kept"),)
    ),
    Operation.RESTORE_OBJECT: Example(
        "POST",
        KEY,
        "restore",
        f"<RestoreRequest {XMLNS}><Days>1</Days></RestoreRequest>",
        statuses=(200, 202, 403),
    ),
    # -- what is stored and never acted upon, or only answered
    Operation.GET_BUCKET_REQUEST_PAYMENT: Example("GET", BUCKET, "requestPayment"),
    Operation.PUT_BUCKET_REQUEST_PAYMENT: Example(
        "PUT",
        BUCKET,
        "requestPayment",
        f"<RequestPaymentConfiguration {XMLNS}><Payer>BucketOwner</Payer></RequestPaymentConfiguration>",
    ),
    Operation.GET_BUCKET_LOGGING: Example("GET", BUCKET, "logging"),
    Operation.PUT_BUCKET_LOGGING: Example("PUT", BUCKET, "logging", f"<BucketLoggingStatus {XMLNS}/>"),
    Operation.GET_BUCKET_NOTIFICATION_CONFIGURATION: Example("GET", BUCKET, "notification"),
    Operation.PUT_BUCKET_NOTIFICATION_CONFIGURATION: Example(
        "PUT", BUCKET, "notification", f"<NotificationConfiguration {XMLNS}/>"
    ),
    Operation.GET_BUCKET_ACCELERATE_CONFIGURATION: Example("GET", BUCKET, "accelerate"),
    Operation.PUT_BUCKET_ACCELERATE_CONFIGURATION: Example(
        "PUT",
        BUCKET,
        "accelerate",
        f"<AccelerateConfiguration {XMLNS}><Status>Suspended</Status></AccelerateConfiguration>",
    ),
    Operation.GET_BUCKET_WEBSITE: _config("website"),
    Operation.PUT_BUCKET_WEBSITE: Example(
        "PUT",
        BUCKET,
        "website",
        f"<WebsiteConfiguration {XMLNS}><IndexDocument><Suffix>index.html</Suffix></IndexDocument></WebsiteConfiguration>",
    ),
    Operation.DELETE_BUCKET_WEBSITE: Example("DELETE", BUCKET, "website"),
    # None of these can be set, so none is there.
    Operation.GET_BUCKET_ANALYTICS_CONFIGURATION: _config("analytics&id=a"),
    Operation.DELETE_BUCKET_ANALYTICS_CONFIGURATION: _absent("analytics&id=a"),
    Operation.GET_BUCKET_INTELLIGENT_TIERING_CONFIGURATION: _config("intelligent-tiering&id=a"),
    Operation.DELETE_BUCKET_INTELLIGENT_TIERING_CONFIGURATION: _absent("intelligent-tiering&id=a"),
    Operation.GET_BUCKET_INVENTORY_CONFIGURATION: _config("inventory&id=a"),
    Operation.DELETE_BUCKET_INVENTORY_CONFIGURATION: _absent("inventory&id=a"),
    Operation.GET_BUCKET_METRICS_CONFIGURATION: _config("metrics&id=a"),
    Operation.DELETE_BUCKET_METRICS_CONFIGURATION: _absent("metrics&id=a"),
}


class Line:
    """One connection at a time, made anew when the server has closed it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._connection: Connection | None = None

    def exchange(self, request: Request) -> Answer:
        if self._connection is None:
            self._connection = self._caller.connect()
        self._connection.send(request.encode())
        answer = self._connection.answer(request.method)
        if answer.closes:
            self.close()
        return answer

    def exchange_all(self, requests: Sequence[Request]) -> list[Answer]:
        """Pipelined; none of them may end the connection."""
        if self._connection is None:
            self._connection = self._caller.connect()
        self._connection.send(b"".join(request.encode() for request in requests))
        return [self._connection.answer(request.method) for request in requests]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def make_place(line: Line, root: Caller, example: Example) -> Place:
    bucket, empty = new_bucket_name("example"), new_bucket_name("empty")

    def call(method: str, path: str, **rest: object) -> Answer:
        answer = line.exchange(root.sign(method, path, **rest))  # type: ignore[arg-type]
        assert answer.status == 200, (method, path, answer)
        return answer

    call("PUT", f"/{bucket}", headers=example.bucket_headers)
    call("PUT", f"/{empty}")
    call("PUT", f"/{bucket}/kept", body=b"kept")
    upload = call("POST", f"/{bucket}/part", query="uploads").text("UploadId")
    part = call("PUT", f"/{bucket}/part", query=f"partNumber=1&uploadId={upload}", body=b"first part")
    return Place(bucket, empty, upload, part.headers["etag"])


# -- one request in every form of authentication


def by_header(caller: Caller, example: Example, date: datetime.datetime | None = None) -> Request:
    return caller.sign(
        example.method,
        example.path,
        query=example.query,
        headers=(*example.headers, PROBE),
        body=example.data,
        date=date,
    )


def by_query(caller: Caller, example: Example, date: datetime.datetime | None = None) -> Request:
    pairs = [piece.partition("=")[::2] for piece in example.query.split("&") if piece]
    return caller.presign(
        example.method,
        example.path,
        query=pairs,
        headers=(*example.headers, PROBE),
        body=example.data,
        date=date,
    )


def _streaming(caller: Caller, example: Example, payload: str, date: datetime.datetime | None) -> Request:
    headers = [*example.headers, PROBE, ("x-amz-decoded-content-length", str(len(example.data)))]
    trailer = ("x-amz-checksum-crc32", crc32(example.data))
    if payload == UNSIGNED_CHUNKS_TRAILER:
        headers.append(("x-amz-trailer", trailer[0]))
    request = caller.sign(
        example.method,
        example.path,
        query=example.query,
        headers=headers,
        payload=payload,
        length=None,
        date=date,
    )
    if payload == SIGNED_CHUNKS:
        body = signed_chunks(request, example.data)
    else:
        body = unsigned_chunks_trailer(example.data, trailer)
    return replace(request.with_header("Content-Length", str(len(body))), body=body)


def by_signed_chunks(caller: Caller, example: Example, date: datetime.datetime | None = None) -> Request:
    return _streaming(caller, example, SIGNED_CHUNKS, date)


def by_unsigned_trailer(caller: Caller, example: Example, date: datetime.datetime | None = None) -> Request:
    return _streaming(caller, example, UNSIGNED_CHUNKS_TRAILER, date)


def without_proof(caller: Caller, example: Example) -> Request:
    """The request of somebody without a key."""
    request = by_header(caller, example)
    kept = {"host", "content-length", "content-type", *(name.lower() for name, _ in example.headers)}
    return replace(request, headers=tuple(h for h in request.headers if h[0].lower() in kept))


FORMS: dict[str, Callable[..., Request]] = {
    "header": by_header,
    "presigned": by_query,
    "signed chunks": by_signed_chunks,
    "unsigned trailer": by_unsigned_trailer,
}
