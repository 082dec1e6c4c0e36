"""PostObject: an upload by a browser's form, which carries its own proof (a policy and its signature) in its fields.

The request itself is anonymous. Its first 20 KB at most are read to find out who made the form; nothing of the file
is taken before signature, rights and policy have been checked. The bucket is the one that the request addresses: the
policy must name it, and a field that names another is refused (CVE-2023-43040).

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vaultaire.ingest import BodyTooLarge, ClientGone
from vaultaire.s3 import ceiling, conditions, form_data, post_policy, sigv4, xml
from vaultaire.s3.authorize import attribute_actions, check_owner, load_rules, require_active
from vaultaire.s3.body import MAX_PUT_BYTES, BodyPlan, new_digests, new_upload
from vaultaire.s3.call import Call, Response
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.expected import parse_expected
from vaultaire.s3.headers import has_control_characters
from vaultaire.s3.metering import admit, charges_of
from vaultaire.s3.names import check_key
from vaultaire.s3.operation import Operation
from vaultaire.s3.operations.attributes import (
    checksum_headers,
    encryption_headers,
    parse_attributes,
)
from vaultaire.s3.operations.locking import check_lock
from vaultaire.s3.operations.rights import new_object_rights
from vaultaire.s3.operations.storing import check_early, store_object
from vaultaire.s3.operations.versioning import new_version_headers
from vaultaire.s3.percent import quote_query
from vaultaire.s3.sigv4 import Payload
from vaultaire.s3.xml_requests import parse_form_tagging

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from vaultaire.ingest import Upload
    from vaultaire.s3.call import Receive

# Fields that are PutObject's headers under the same name; beside them all of x-amz-*, less what proves the form.
_HEADER_FIELDS = frozenset(
    (
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-md5",
        "content-type",
        "expires",
    )
)
_PROOF_FIELDS = frozenset(
    ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token")
)
_NO_VARIABLE = _PROOF_FIELDS | {"policy"}
_FILENAME = "${filename}"


@dataclass(frozen=True, slots=True)
class Form:
    """Fields by lower-case name: as text with `${filename}` replaced, and as headers (Latin-1 text of their bytes)."""

    fields: dict[str, str]
    headers: dict[bytes, str]


async def post_object(call: Call) -> Response:
    """The file of the form becomes the current object of the key that its fields name."""
    assert call.bucket_name is not None
    body = FormBody(call.receive, _boundary(call))
    # Without a lease: nobody has proven anything yet, so nobody may take a place from those who have. It is 20 KB.
    form = read_form(await body.fields(), body.filename)
    lengths = _authorize(call, form)
    attributes = parse_attributes(form.headers, encrypts=call.rules.encrypts)
    expected = parse_expected(form.headers)
    wanted = conditions.parse_write(call.headers)
    key = call.key
    assert key is not None
    bucket = call.require_bucket()
    rights = new_object_rights(call, bucket)
    check_lock(bucket, attributes.retention, attributes.legal_hold, call.now_ms())
    check_early(call, bucket, key, wanted)
    most = _most_bytes(call, lengths)
    call.require_room(_least_bytes(call))
    plan = BodyPlan(None, None, expected)
    digests = new_digests(plan)
    with new_upload(call, plan, digests, bucket, max_bytes=most) as upload:
        await _receive(body, upload, most, lengths)
        computed = digests.check()
        record, version_id = await store_object(call, key, upload, computed, attributes, rights, wanted)
    answer = success(form.fields, call.bucket_name, key, record.etag, call.object_url())
    answer.headers += [(b"etag", b'"%s"' % record.etag.encode()), *checksum_headers(record.checksum)]
    answer.headers += encryption_headers(record.headers) + new_version_headers(version_id)
    return answer


async def _receive(
    body: FormBody, upload: Upload, most: int, lengths: post_policy.LengthRange | None
) -> None:
    """Take the file in. Raises EntityTooLarge, EntityTooSmall."""
    try:
        await upload.receive(body.receive)
    except BodyTooLarge:
        raise S3Error("EntityTooLarge", extra={"MaxSizeAllowed": most}) from None
    if lengths is not None and upload.size < lengths.least:
        raise S3Error("EntityTooSmall", extra={"ProposedSize": upload.size, "MinSizeAllowed": lengths.least})


# --- the form ------------------------------------------------------------------------------------------------------


def _boundary(call: Call) -> bytes:
    content_type = call.header(b"content-type")
    if not form_data.is_form(content_type):
        raise S3Error(
            "PreconditionFailed",
            extra={"Condition": "Bucket POST must be of the enclosure-type multipart/form-data"},
        )
    if call.claim.auth is not sigv4.Auth.ANONYMOUS:
        raise S3Error(
            "InvalidArgument", "Only one auth mechanism allowed; the fields of a form are its authentication"
        )
    if call.claim.payload is not Payload.UNSIGNED:
        # It would speak of the form, which is not what is stored: no promise that could be kept.
        raise S3Error("InvalidRequest", "x-amz-content-sha256 is not supported for form uploads")
    assert content_type is not None
    return form_data.parse_boundary(content_type)


class FormBody:
    """The body of the request: first its `fields`, then the file by `receive`, as if it came alone."""

    def __init__(self, receive: Receive, boundary: bytes) -> None:
        self._source = receive
        self._parser = form_data.FormParser(boundary)
        self._events: deque[form_data.Event] = deque()
        self._ended = False  # of the request's body
        self.filename = ""

    async def fields(self) -> list[form_data.Field]:
        """All that precede the file. Raises MalformedPOSTRequest and its kin, ClientGone."""
        found: list[form_data.Field] = []
        while True:
            event = await self._next()
            if isinstance(event, form_data.FileStart):
                self.filename = event.filename
                return found
            if isinstance(event, form_data.Field):
                found.append(event)

    async def receive(self) -> MutableMapping[str, Any]:
        """ASGI events of the file alone. The last one comes when the whole form was read and found well-formed."""
        event = await self._next()
        if isinstance(event, bytes):
            return {"type": "http.request", "body": event, "more_body": True}
        while not self._ended:
            await self._feed()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _next(self) -> form_data.Event:
        while not self._events:
            if self._ended:
                raise form_data.malformed()
            await self._feed()
        return self._events.popleft()

    async def _feed(self) -> None:
        event = await self._source()
        if event["type"] == "http.disconnect":
            raise ClientGone
        self._events.extend(self._parser.feed(event.get("body", b"")))
        if not event.get("more_body", False):
            self._ended = True
            self._parser.finish()


def read_form(fields: list[form_data.Field], filename: str) -> Form:
    """Raises InvalidArgument for text that is not UTF-8, or that could not be a header where it becomes one."""
    texts: dict[str, str] = {}
    headers: dict[bytes, str] = {}
    for field in fields:
        name = field.name
        try:
            text = field.value.decode("utf-8")
        except UnicodeDecodeError:
            raise invalid_argument("The value of a form field is not UTF-8.", name, None) from None
        if name not in _NO_VARIABLE:
            text = text.replace(_FILENAME, filename)
        texts[name] = text
        header = _header_of(name, text)
        if header is not None:
            value = text.encode().decode("latin-1").strip(" \t")
            if has_control_characters(value) or not header.isascii():
                raise invalid_argument("Header value cannot be represented using ISO-8859-1.", name, None)
            headers[header.encode()] = value
    tagging = texts.get("tagging")
    if tagging:
        headers[b"x-amz-tagging"] = "&".join(
            f"{quote_query(key.encode())}={quote_query(value.encode())}"
            for key, value in parse_form_tagging(tagging.encode())
        )
    return Form(texts, headers)


def _header_of(name: str, text: str) -> str | None:
    """The header of PutObject that a field stands for. An empty field is as good as none, but for metadata."""
    if name == "acl":
        return "x-amz-acl" if text else None
    if name in _HEADER_FIELDS:
        return name if text else None
    if name.startswith("x-amz-") and name not in _PROOF_FIELDS:
        return name if text or name.startswith("x-amz-meta-") else None
    return None


# --- may it? -------------------------------------------------------------------------------------------------------


def _authorize(call: Call, form: Form) -> post_policy.LengthRange | None:
    """Who signed the form, and that it stays within what they signed. Sets the call's principal and key.

    A form that nobody signed is an anonymous PutObject: it needs a policy or a list of the bucket that allows it.

    The lengths that the policy allows; None: any. Raises AccessDenied, SignatureDoesNotMatch, InvalidArgument, ...
    """
    fields = form.fields
    signature = sigv4.parse_form(fields, region=call.services.region)
    if signature is not None:
        _authenticate(call, signature)
    _count(call)
    bucket = call.found_bucket
    assert call.bucket_name is not None
    if bucket is None:
        raise S3Error("NoSuchBucket", bucket=call.bucket_name)
    if fields.get("bucket", call.bucket_name) != call.bucket_name:
        raise post_policy.refused("the bucket field is not the bucket of the request")
    lengths = None
    if signature is not None:
        policy = post_policy.parse_policy(signature.policy)
        post_policy.check_form(policy, call.bucket_name, fields, call.services.clock())
        lengths = policy.length
    key = fields.get("key", "").encode()
    if not key:
        raise invalid_argument(
            "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.",
            "key",
            "",
        )
    check_key(key)
    call.key = key
    if not ceiling.admits(
        call.principal, Operation.POST_OBJECT, writes=True, bucket=call.bucket_name, key=key, query={}
    ):
        raise S3Error("AccessDenied")
    call.headers = {**call.headers, **form.headers}  # the fields are PutObject's headers, for rights too
    check_owner(bucket, call.header(b"x-amz-expected-bucket-owner"))
    for action in ("s3:PutObject", *attribute_actions(call, bucket)):
        call.require(action, key)
    return lengths


def _authenticate(call: Call, signature: sigv4.FormSignature) -> None:
    """From here on the call is its signer's. Raises SignatureDoesNotMatch, InvalidAccessKeyId, AccessDenied."""
    services, bucket = call.services, call.found_bucket
    with services.store.kv.snapshot() as reader:
        principal = services.keyring.lookup(reader, signature.access_key)
        if principal is not None and bucket is not None:
            call.rules = load_rules(reader, bucket, own=principal.reaches(bucket.owner))
    sigv4.verify_form(signature, principal.secret_key if principal is not None else None)
    if principal is None:  # verify_form has refused it: this is for the reader
        raise S3Error("InvalidAccessKeyId")
    require_active(principal, call.now_ms())
    services.last_used.note(principal.access_key, call.now_ms())
    call.principal, call.facts = principal, None


def _count(call: Call) -> None:
    """Raises SlowDown."""
    services = call.services
    with services.store.kv.snapshot() as reader:
        charges = charges_of(reader, call.principal, call.found_bucket, services.plans)
    if charges:
        admit(services.rates, charges)
        call.charges = charges


def _most_bytes(call: Call, lengths: post_policy.LengthRange | None) -> int:
    """The largest file to accept. Raises EntityTooLarge now if what is announced must hold more."""
    most = MAX_PUT_BYTES if lengths is None else min(lengths.most, MAX_PUT_BYTES)
    announced = call.header(b"content-length")
    around = form_data.MAX_FORM_BYTES + form_data.MAX_AFTER_BYTES
    if announced is not None and int(announced) > most + around:
        raise S3Error("EntityTooLarge", extra={"ProposedSize": announced, "MaxSizeAllowed": most})
    return most


def _least_bytes(call: Call) -> int:
    """How large the file is at least, as far as the form's announced length tells."""
    announced = call.header(b"content-length")
    around = form_data.MAX_FORM_BYTES + form_data.MAX_AFTER_BYTES
    return max(0, int(announced) - around) if announced is not None else 0


# --- the answer ----------------------------------------------------------------------------------------------------


def success(fields: dict[str, str], bucket: str, key: bytes, etag: str, location: str) -> Response:
    """As success_action_redirect (or its old name) and success_action_status wish; what cannot be, is not asked for."""
    redirect = fields.get("success_action_redirect") or fields.get("redirect")
    target = _redirect_target(redirect, bucket, key, etag) if redirect else None
    if target is not None:
        return Response(303, [(b"location", target.encode("ascii"))])
    headers = [(b"location", location.encode("ascii"))]
    match fields.get("success_action_status"):
        case "200":
            return Response(200, headers)
        case "201":
            headers.append((b"content-type", b"application/xml"))
            return Response(201, headers, xml.post_response(location, bucket, key, etag))
    return Response(204, headers)


def _redirect_target(url: str, bucket: str, key: bytes, etag: str) -> str | None:
    """`url` with bucket, key and etag added to its query; None if it is no address a browser could be sent to."""
    if has_control_characters(url) or not url.isascii() or " " in url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return None
    added = f"bucket={quote_query(bucket.encode())}&key={quote_query(key)}&etag=%22{etag}%22"
    query = f"{parts.query}&{added}" if parts.query else added
    return parts._replace(query=query).geturl()
