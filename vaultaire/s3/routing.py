"""From method, bucket, key and query to the operation meant.

Guarantee: a request for something this module does not know is never taken for the plain operation on the bucket or
object. Serving a listing for an unknown sub-resource, or storing its configuration as an object, has happened to
others. So a parameter without a value that is not known, and on methods that change something any parameter that is
not known, is NotImplemented. On GET and HEAD an unknown parameter with a value is ignored, as S3 does: people append
them to defeat caches.

Whether a known operation is built is not decided here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from vaultaire.s3 import percent
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.operation import BUCKET, NAMED, OBJECT, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PARAMETERS = 256
_CACHED_BYTES = 256

_BUCKET_SUBRESOURCES = frozenset(name for name, _ in BUCKET)
_OBJECT_SUBRESOURCES = frozenset(name for name, _ in OBJECT) | {"uploadId"}

# Parameters that refine an operation and never select one. x-amz-* and response-* are as harmless.
_PLAIN = frozenset(
    (
        "annotation-prefix",
        "annotationName",
        "bucket-region",
        "continuation-token",
        "delimiter",
        "encoding-type",
        "fetch-owner",
        "id",
        "key-marker",
        "list-type",
        "marker",
        "max-annotation-results",
        "max-buckets",
        "max-keys",
        "max-parts",
        "max-uploads",
        "part-number-marker",
        "partNumber",
        "prefix",
        "select-type",
        "start-after",
        "upload-id-marker",
        "version-id-marker",
        "versionId",
        "x-id",
    )
)

_SERVICE_METHODS = {"GET": Operation.LIST_BUCKETS}
_BUCKET_METHODS = {
    "GET": Operation.LIST_OBJECTS,
    "HEAD": Operation.HEAD_BUCKET,
    "PUT": Operation.CREATE_BUCKET,
    "DELETE": Operation.DELETE_BUCKET,
    "POST": Operation.POST_OBJECT,
}
_OBJECT_METHODS = {
    "GET": Operation.GET_OBJECT,
    "HEAD": Operation.HEAD_OBJECT,
    "PUT": Operation.PUT_OBJECT,
    "DELETE": Operation.DELETE_OBJECT,
}
_UPLOAD_METHODS = {
    "GET": Operation.LIST_PARTS,
    "PUT": Operation.UPLOAD_PART,
    "POST": Operation.COMPLETE_MULTIPART_UPLOAD,
    "DELETE": Operation.ABORT_MULTIPART_UPLOAD,
}


def parse_query(raw_query: bytes) -> dict[str, str]:
    """Decoded parameters; `?acl` and `?acl=` are alike, `+` is a space, of equal names the first counts.

    Raises InvalidURI for malformed escapes, text that is not UTF-8, or more than 256 parameters.
    """
    if not raw_query:
        return {}
    pieces = raw_query.split(b"&")
    if len(pieces) > MAX_PARAMETERS:
        raise S3Error("InvalidURI")
    found: dict[str, str] = {}
    for piece in pieces:
        if piece:
            name, value = _decode_cached(piece) if len(piece) <= _CACHED_BYTES else _decode(piece)
            found.setdefault(name, value)
    return found


def _decode(piece: bytes) -> tuple[str, str]:
    name, _, value = piece.replace(b"+", b" ").partition(b"=")
    try:
        return percent.decode(name).decode("utf-8"), percent.decode(value).decode("utf-8")
    except (percent.MalformedEscape, UnicodeDecodeError):
        raise S3Error("InvalidURI") from None


_decode_cached = lru_cache(maxsize=2048)(_decode)


def route(
    method: str,
    bucket: str | None,
    key: bytes | None,
    query: Mapping[str, str],
    headers: Mapping[bytes, str],
) -> Operation:
    """The operation. Raises NotImplemented (unknown), MethodNotAllowed, InvalidArgument (contradicting parameters)."""
    if method == "OPTIONS":
        return Operation.CORS_PREFLIGHT
    if bucket is None:
        _subresource(method, query, frozenset())
        return _by_method(_SERVICE_METHODS, method)
    if key is None:
        name = _subresource(method, query, _BUCKET_SUBRESOURCES) if query else None
        if name is not None:
            return _by_subresource(BUCKET, name, method, query)
        return _plain_bucket(method, query)
    name = _subresource(method, query, _OBJECT_SUBRESOURCES) if query else None
    if name is not None and name != "uploadId":
        return _by_subresource(OBJECT, name, method, query)
    return _plain_object(method, query, headers, uploading=name is not None)


def _subresource(method: str, query: Mapping[str, str], known: frozenset[str]) -> str | None:
    """The one sub-resource named, if any; everything else must be a parameter known to be harmless."""
    found: str | None = None
    for name, value in query.items():
        if name in known:
            if found is not None:
                raise invalid_argument(
                    f"Conflicting query string parameters: {found}, {name}", "ResourceType", found
                )
            found = name
        elif name in _PLAIN or name.startswith("response-") or name[:6].lower() == "x-amz-":
            continue
        elif not value or method not in ("GET", "HEAD"):
            raise S3Error(
                "NotImplemented",
                f"The sub-resource or parameter {name!r} is not implemented",
                extra={"ResourceType": name},
            )
    return found


def _by_subresource(
    table: Mapping[tuple[str, str], Operation], name: str, method: str, query: Mapping[str, str]
) -> Operation:
    operation = table.get((name, method))
    if operation is None:
        raise _not_allowed(method)
    one = NAMED.get(operation)
    if one is not None and one[0] in query:
        return one[1]
    return operation


def _by_method(table: Mapping[str, Operation], method: str) -> Operation:
    operation = table.get(method)
    if operation is None:
        raise _not_allowed(method)
    return operation


def _plain_bucket(method: str, query: Mapping[str, str]) -> Operation:
    operation = _by_method(_BUCKET_METHODS, method)
    if operation is Operation.LIST_OBJECTS and "list-type" in query:
        if query["list-type"] != "2":
            raise invalid_argument("Invalid List Type specified in Request", "list-type", query["list-type"])
        return Operation.LIST_OBJECTS_V2
    return operation


def _plain_object(
    method: str, query: Mapping[str, str], headers: Mapping[bytes, str], *, uploading: bool
) -> Operation:
    copying = b"x-amz-copy-source" in headers
    if not uploading:
        operation = _by_method(_OBJECT_METHODS, method)
        if operation is Operation.PUT_OBJECT:
            if "partNumber" in query:
                raise invalid_argument(
                    "This operation does not accept partNumber without uploadId",
                    "partNumber",
                    query["partNumber"],
                )
            return Operation.COPY_OBJECT if copying else operation
        return operation
    operation = _by_method(_UPLOAD_METHODS, method)
    if operation is Operation.UPLOAD_PART:
        if "partNumber" not in query:
            raise invalid_argument(
                "This operation does not accept uploadId without partNumber", "uploadId", None
            )
        return Operation.UPLOAD_PART_COPY if copying else operation
    return operation


def _not_allowed(method: str) -> S3Error:
    return S3Error("MethodNotAllowed", extra={"Method": method})
