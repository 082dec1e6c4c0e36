"""Any S3 server as a source or a target, by botocore (the extra `vaultaire[s3]`).

Credentials, profile, region and endpoint come from where the aws cli takes them: options, AWS_* variables,
`~/.aws/config` and `credentials`, container and instance roles. With an endpoint of one's own, buckets are addressed
in the path. One attempt per call: who calls, repeats (`vaultaire.moving.transport`). Thread-safe.

botocore's exceptions end here. What is wrong with the place (credentials, bucket, address) is a PlaceError with its
next step; what the same request may not meet again is Transient; the rest concerns one object.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from vaultaire.moving.places import (
    Attributes,
    Changed,
    Entry,
    Gone,
    MovingError,
    ObjectError,
    PlaceError,
    Transient,
)
from vaultaire.moving.plans import equal_parts, etag_parts
from vaultaire.s3 import dates
from vaultaire.s3.checksums import Algorithm

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Mapping, Sequence

    from index.values import Versioning
    from vaultaire.s3.checksums import ChecksumType

CONNECT_SECONDS: Final = 15
READ_SECONDS: Final = 120
PAGE_KEYS: Final = 1000

_INSTALL: Final = (
    "moving from and to s3:// needs the extra `s3`; install it with: pip install 'vaultaire[s3]'"
)
_BUSY: Final = frozenset(
    ("SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "Throttling", "ThrottlingException",
     "TooManyRequests", "RequestLimitExceeded", "InternalError", "ServiceUnavailable", "Busy", "OperationAborted",
     "IncompleteBody", "XMinioServerNotInitialized")
)  # fmt: skip
_CREDENTIALS: Final = frozenset(
    ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidToken",
     "TokenRefreshRequired", "RequestTimeTooSkewed", "NotSignedUp", "AccountProblem")
)  # fmt: skip
_VERSION_TAG: Final = re.compile(rb"<(Version|DeleteMarker)>")
_NO_CONFIGURATION: Final = re.compile(
    r"NoSuch\w*|\w*NotFound\w*|NotImplemented|MethodNotAllowed|XNotImplemented"
)


class S3Place:
    """One bucket of a server (or, with bucket "", the server itself) and a prefix of it."""

    def __init__(
        self,
        bucket: str,
        prefix: bytes,
        *,
        endpoint_url: str | None = None,
        profile: str | None = None,
        connections: int = 16,
        anonymous: bool = False,
        etag_is_md5: bool = True,
    ) -> None:
        """Asks the server nothing. Raises PlaceError if botocore is missing or the settings are of no use."""
        try:
            import botocore.session
            from botocore import UNSIGNED, exceptions
            from botocore.config import Config
            from botocore.parsers import ResponseParserError
        except ImportError as error:
            raise PlaceError(_INSTALL) from error
        self._exceptions: Any = exceptions
        self._no_s3: Any = ResponseParserError
        self.bucket = bucket
        self.prefix = prefix
        self._etag_is_md5 = etag_is_md5
        settings = {"signature_version": UNSIGNED} if anonymous else {}
        try:
            session = botocore.session.Session(profile=profile)
            self._client: Any = session.create_client(
                "s3",
                endpoint_url=endpoint_url,
                region_name=session.get_config_variable("region") or "us-east-1",
                config=Config(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=READ_SECONDS,
                    max_pool_connections=connections,
                    retries={"total_max_attempts": 1},
                    # The newer defaults are refused by older servers; we compare digests ourselves.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    **settings,
                ),
            )
        except (exceptions.BotoCoreError, ValueError) as error:
            raise PlaceError(f"{self.url}: {error}; check --profile and --endpoint-url") from error
        events = self._client.meta.events
        events.register("before-call.s3.GetObject", _ask_for_checksum)
        events.register("before-call.s3.HeadObject", _ask_for_checksum)
        events.register("before-parse.s3", _keep_document)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix.decode(errors='replace')}".rstrip("/")

    def in_bucket(self, bucket: str, prefix: bytes = b"") -> S3Place:
        """Another bucket of the same server."""
        other = object.__new__(S3Place)
        other.__dict__.update(self.__dict__)
        other.bucket, other.prefix = bucket, prefix
        return other

    def close(self) -> None:
        self._client.close()

    # --- buckets --------------------------------------------------------------------------------------------------

    def buckets(self) -> list[str]:
        """Raises PlaceError, Transient."""
        answer = self._call("list_buckets", for_place=True)
        return [bucket["Name"] for bucket in answer.get("Buckets", [])]

    def check(self) -> None:
        """Is the bucket there, and may we list it? Raises PlaceError, Transient."""
        self._call(
            "list_objects_v2",
            {"Bucket": self.bucket, "Prefix": self.prefix.decode(), "MaxKeys": 1},
            for_place=True,
        )

    def exists(self) -> bool:
        """Raises PlaceError, Transient."""
        try:
            self.check()
        except NoBucket:
            return False
        return True

    def create_bucket(self, *, versioning: str, object_lock: bool) -> None:
        """`versioning`: Off, Enabled, Suspended. Raises PlaceError, Transient."""
        extra: dict[str, Any] = {"ObjectLockEnabledForBucket": True} if object_lock else {}
        region = self._client.meta.region_name
        if region not in ("us-east-1", "aws-global") and "amazonaws.com" in self._client.meta.endpoint_url:
            extra["CreateBucketConfiguration"] = {"LocationConstraint": region}
        self._call("create_bucket", {"Bucket": self.bucket, **extra}, for_place=True)
        if versioning != "Off":
            self.set_versioning(versioning)

    def versioning(self) -> Versioning:
        """Off, Enabled, Suspended. A server without versioning answers Off. Raises PlaceError, Transient.

        Who may not ask does not get Off: versions would replace each other in a bucket that keeps none.
        """
        try:
            answer = self._call("get_bucket_versioning", {"Bucket": self.bucket})
        except Transient:
            raise
        except _Missing:
            return "Off"
        except ObjectError as error:
            raise PlaceError(
                f"{error}: whether it keeps versions may not be asked; leave --versions out"
            ) from error
        status = answer.get("Status")
        return "Enabled" if status == "Enabled" else "Suspended" if status == "Suspended" else "Off"

    def keeps_locks(self) -> bool:
        """Whether Object Lock is on; False if that may not be asked. Raises PlaceError, Transient."""
        try:
            return self.document("get_object_lock_configuration") is not None
        except Transient:
            raise
        except ObjectError:
            return False

    def set_versioning(self, status: str) -> None:
        """Raises PlaceError, Transient."""
        self._call(
            "put_bucket_versioning",
            {"Bucket": self.bucket, "VersioningConfiguration": {"Status": status}},
            for_place=True,
        )

    def document(self, operation: str) -> bytes | None:
        """A configuration of the bucket as the server sent it (`get_bucket_cors`, ...); None: it has none.

        Raises ObjectError (it may not be read, or is none), Transient.
        """
        try:
            answer = self._call(operation, {"Bucket": self.bucket})
        except _Missing:
            return None
        raw: bytes = answer["RawDocument"]
        return raw

    # --- listing --------------------------------------------------------------------------------------------------

    def pages(self, token: str | None, *, versions: bool) -> tuple[Sequence[Entry], str | None]:
        """See `places.Source`."""
        return self._version_page(token) if versions else self._object_page(token)

    def _object_page(self, token: str | None) -> tuple[list[Entry], str | None]:
        extra = {"ContinuationToken": token} if token is not None else {}
        answer = self._call(
            "list_objects_v2",
            {"Bucket": self.bucket, "Prefix": self.prefix.decode(), "MaxKeys": PAGE_KEYS, **extra},
            for_place=True,
        )
        entries = [
            Entry(
                item["Key"].encode(), item["Size"], item.get("ETag", "").strip('"'), _ms(item["LastModified"])
            )
            for item in answer.get("Contents", [])
        ]
        return entries, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None

    def _version_page(self, token: str | None) -> tuple[list[Entry], str | None]:
        """The token is KeyMarker and VersionIdMarker: keys have no NUL in XML."""
        extra = {}
        if token is not None:
            key, _, version = token.partition("\x00")
            extra = {"KeyMarker": key, **({"VersionIdMarker": version} if version else {})}
        answer = self._call(
            "list_object_versions",
            {"Bucket": self.bucket, "Prefix": self.prefix.decode(), "MaxKeys": PAGE_KEYS, **extra},
            for_place=True,
        )
        entries = merge_versions(
            answer["RawDocument"], answer.get("Versions", []), answer.get("DeleteMarkers", [])
        )
        if not answer.get("IsTruncated"):
            return entries, None
        return entries, f"{answer.get('NextKeyMarker', '')}\x00{answer.get('NextVersionIdMarker', '')}"

    # --- reading --------------------------------------------------------------------------------------------------

    def look(self, entry: Entry) -> Attributes:
        """See `places.Source`."""
        answer = self._call("head_object", self._named(entry), entry=entry)
        return self._attributes(answer)

    def fetch(self, entry: Entry, start: int, stop: int) -> tuple[Attributes, bytes]:
        """See `places.Source`."""
        whole = (start, stop) == (0, entry.size)
        # A range of what is empty cannot be satisfied, and of the whole it costs the checksum of the whole.
        extra = {} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        if entry.etag and entry.version_id is None:
            extra["IfMatch"] = f'"{entry.etag}"'
        answer = self._call("get_object", {**self._named(entry), **extra}, entry=entry)
        attributes = self._attributes(answer)
        body = answer["Body"]
        try:
            if entry.etag and attributes.etag != entry.etag:  # not every server knows If-Match
                raise Changed("it was changed meanwhile")
            length = int(answer["ResponseMetadata"]["HTTPHeaders"].get("content-length", stop - start))
            if length != stop - start:
                if whole:
                    raise Changed(f"it is {length} bytes long, listed were {stop - start}")
                raise Transient(f"{length} bytes were answered instead of {stop - start}")
            data = self._read(entry, body, stop - start)
        finally:
            body.close()
        return attributes, data

    def _read(self, entry: Entry, body: Any, length: int) -> bytes:  # noqa: ANN401  # botocore has no types
        try:
            data: bytes = body.read()
        except Exception as error:
            if (
                not isinstance(error, (self._exceptions.BotoCoreError, OSError))
                and "urllib3" not in type(error).__module__
            ):
                raise
            raise Transient(f"the body broke off ({error})") from error
        if len(data) != length:
            raise Transient(f"{len(data)} bytes came instead of {length}")
        return data

    def tags(self, entry: Entry) -> tuple[tuple[str, str], ...]:
        """See `places.Source`."""
        answer = self._call("get_object_tagging", self._named(entry), entry=entry)
        return tuple((tag["Key"], tag["Value"]) for tag in answer.get("TagSet", []))

    def part_sizes(self, entry: Entry, attributes: Attributes, *, exact: bool) -> tuple[int, ...]:
        """See `places.Source`."""
        count = etag_parts(attributes.etag)
        if not count:
            return ()
        try:
            first, known = self._part(entry, 1)
            if known != count:
                return ()  # the server does not know parts, and answered for the whole
            sizes = equal_parts(attributes.size, count, first)
            if sizes and not exact:
                return sizes
            rest = tuple(self._part(entry, number)[0] for number in range(2, count + 1))
        except Transient:
            raise
        except ObjectError:
            return ()
        return (first, *rest)

    def _part(self, entry: Entry, number: int) -> tuple[int, int]:
        """(length, parts in all)."""
        answer = self._call("head_object", {**self._named(entry), "PartNumber": number}, entry=entry)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return int(headers.get("content-length", 0)), int(headers.get("x-amz-mp-parts-count", 0))

    def _named(self, entry: Entry) -> dict[str, str]:
        named = {"Bucket": self.bucket, "Key": entry.key.decode()}
        if entry.version_id is not None:
            named["VersionId"] = entry.version_id
        return named

    def _attributes(self, answer: Mapping[str, Any]) -> Attributes:
        headers: Mapping[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
        fields = {name.lower().encode("latin-1"): value for name, value in headers.items()}
        ranged = fields.get(b"content-range", "").rpartition("/")[2]
        size = int(ranged) if ranged.isdigit() else int(fields.get(b"content-length", "0"))
        seconds = dates.parse_http(fields.get(b"last-modified", ""))
        own_key = (
            fields.get(b"x-amz-server-side-encryption", "").startswith("aws:")
            or b"x-amz-server-side-encryption-customer-algorithm" in fields
        )
        return Attributes(
            size,
            fields.get(b"etag", "").strip('"'),
            (seconds or 0) * 1000,
            fields,
            None if ranged else _checksum(fields),
            int(fields.get(b"x-amz-tagging-count", "0")),
            self._etag_is_md5 and not own_key,
        )

    # --- writing --------------------------------------------------------------------------------------------------

    def write(self, operation: str, parameters: Mapping[str, object]) -> Mapping[str, Any]:
        """One call that changes this bucket. Raises ObjectError, PlaceError, Transient."""
        answer: Mapping[str, Any] = self._call(operation, {"Bucket": self.bucket, **parameters})
        return answer

    # --- the border -----------------------------------------------------------------------------------------------

    def _call(
        self,
        operation: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        for_place: bool = False,
        entry: Entry | None = None,
    ) -> Any:  # noqa: ANN401  # botocore has no types
        parameters = parameters or {}
        call: Callable[..., Any] = getattr(self._client, operation)
        try:
            return call(**parameters)
        except self._exceptions.ClientError as error:
            raise self._refused(error, operation, entry, parameters, for_place=for_place) from error
        except (self._exceptions.NoCredentialsError, self._exceptions.PartialCredentialsError) as error:
            raise PlaceError(
                f"{self.url}: there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a "
                "profile with --profile (a public bucket: --anonymous)"
            ) from error
        except (self._exceptions.HTTPClientError, self._exceptions.ConnectionError) as error:
            raise _Unreachable(
                f"{self._client.meta.endpoint_url} does not answer ({' '.join(str(error).split())[:200]}); "
                "check --endpoint-url, and that the server runs"
            ) from error
        except self._no_s3 as error:
            raise Transient(
                f"{self.url}: the answer to {operation} is no S3; check --endpoint-url"
            ) from error
        except self._exceptions.BotoCoreError as error:
            raise ObjectError(f"{self.url}: {operation}: {error}") from error

    def _refused(
        self,
        error: Any,  # noqa: ANN401
        operation: str,
        entry: Entry | None,
        parameters: Mapping[str, object],
        *,
        for_place: bool,
    ) -> MovingError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        text = str(error.response.get("Error", {}).get("Message", ""))[:200]
        metadata = error.response.get("ResponseMetadata", {})
        status = int(metadata.get("HTTPStatusCode", 0))
        what = f"{code or status}{': ' + text if text and text != code else ''}"
        if entry is None and "Key" not in parameters:  # of an object, the report names it
            what = f"{self.url}: {what}"
        if code in _BUSY or (status >= 500 and code != "NotImplemented") or status == 429:
            after = str(metadata.get("HTTPHeaders", {}).get("retry-after", ""))
            return Transient(what, float(after) if after.isdigit() else 0.0)
        if code in _CREDENTIALS:
            return PlaceError(
                f"{self.url}: the server refuses the credentials ({code}: {text}); check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_REGION, or --profile"
            )
        if code == "NoSuchBucket" or (for_place and status == 404):
            return NoBucket(
                f"s3://{self.bucket}: there is no such bucket at {self._client.meta.endpoint_url}"
            )
        if for_place:
            return PlaceError(f"{self.url}: {operation} was refused ({code or status}: {text})")
        if operation in ("get_object", "head_object") and (
            status == 404 or code in ("NoSuchKey", "NoSuchVersion")
        ):
            return Gone("it was deleted meanwhile")
        if status == 412:
            return Changed("it was changed meanwhile")
        if code == "InvalidObjectState":
            return ObjectError("it is archived; restore it at the source first")
        if _NO_CONFIGURATION.fullmatch(code):
            return _Missing(what)
        return ObjectError(what)


class NoBucket(PlaceError):
    """The bucket does not exist."""


class _Missing(ObjectError):
    """There is nothing of that kind."""


class _Unreachable(Transient):
    """No connection; if it lasts, the place is of no use."""


def merge_versions(
    document: bytes, versions: Sequence[Mapping[str, Any]], markers: Sequence[Mapping[str, Any]]
) -> list[Entry]:
    """One page's versions and delete markers in their order: keys ascend, of a key the newest first.

    botocore hands them over apart; the document has them in order, with some servers. With those that list all markers
    after all versions, keys or times do not agree with the document's order: then times decide, and of one
    instant whether it is the latest; a delete within the same instant as a put may then change places with it.
    """
    kinds = {b"Version": iter(versions), b"DeleteMarker": iter(markers)}
    listed = [
        (_version_entry(item, delete_marker=kind == b"DeleteMarker"), bool(item.get("IsLatest")))
        for kind in _VERSION_TAG.findall(document)
        if (item := next(kinds[kind], None)) is not None
    ]
    ordered = sorted(listed, key=lambda row: (row[0].key, -row[0].modified_ms, not row[1]))
    same_order = [(e.key, e.modified_ms) for e, _ in listed] == [(e.key, e.modified_ms) for e, _ in ordered]
    return [entry for entry, _ in (listed if same_order else ordered)]


def _version_entry(item: Mapping[str, Any], *, delete_marker: bool) -> Entry:
    return Entry(
        item["Key"].encode(),
        item.get("Size", 0),
        item.get("ETag", "").strip('"'),
        _ms(item["LastModified"]),
        item.get("VersionId", "null"),
        delete_marker,
    )


def _ask_for_checksum(params: dict[str, Any], **_: object) -> None:
    params["headers"]["x-amz-checksum-mode"] = "ENABLED"


def _keep_document(
    response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    body = response_dict["body"]
    if isinstance(body, bytes):
        customized_response_dict["RawDocument"] = body


def _checksum(fields: Mapping[bytes, str]) -> tuple[Algorithm, ChecksumType, str] | None:
    for algorithm in Algorithm:
        value = fields.get(algorithm.header.encode())
        if value:
            composite = "-" in value or fields.get(b"x-amz-checksum-type") == "COMPOSITE"
            return algorithm, "COMPOSITE" if composite else "FULL_OBJECT", value
    return None


def _ms(moment: datetime.datetime) -> int:
    return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
