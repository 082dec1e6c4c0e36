"""The XML bodies that requests carry, parsed into values. Anything unexpected is MalformedXML.

How a body becomes a tree, and what is refused before, is in `xml_tree`.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html and API_DeleteObjects.html
"""

from __future__ import annotations

from dataclasses import dataclass

from vaultaire.s3 import checksums
from vaultaire.s3.checksums import Algorithm
from vaultaire.s3.conditions import DeleteCondition, delete_condition, normalize_etag
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.names import MAX_KEY_BYTES
from vaultaire.s3.xml_tree import children as _children
from vaultaire.s3.xml_tree import fields as _fields
from vaultaire.s3.xml_tree import parse as _parse

MAX_PARTS = 10_000
MAX_DELETES = 1_000


# --- CompleteMultipartUpload ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CompletePart:
    """`etag` without quotes; `checksum` is (algorithm, raw digest) where the client repeated it."""

    number: int
    etag: str
    checksum: tuple[Algorithm, bytes] | None


_CHECKSUM_ELEMENTS = {algorithm.element: algorithm for algorithm in Algorithm}
_PART_FIELDS = frozenset(("PartNumber", "ETag", *_CHECKSUM_ELEMENTS))


def parse_complete_multipart_upload(body: bytes) -> list[CompletePart]:
    """1 to 10,000 parts in the order sent (the caller judges it). Raises MalformedXML, InvalidArgument, InvalidPart."""
    tree = _parse(body, "CompleteMultipartUpload")
    parts: list[CompletePart] = []
    for name, child in _children(tree):
        if name != "Part" or len(parts) >= MAX_PARTS:
            raise S3Error("MalformedXML")
        parts.append(_complete_part(_fields(child, _PART_FIELDS)))
    if not parts:
        raise S3Error("MalformedXML")
    return parts


def _complete_part(fields: dict[str, str]) -> CompletePart:
    if "PartNumber" not in fields or "ETag" not in fields:
        raise S3Error("MalformedXML")
    text = fields.pop("PartNumber").strip()
    if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) <= 12):
        raise S3Error("MalformedXML")
    number = int(text)
    if number < 1:
        raise invalid_argument("PartNumber must be >= 1", "PartNumber", text)
    if number > MAX_PARTS:
        raise S3Error("InvalidPart", extra={"PartNumber": number})
    etag = normalize_etag(fields.pop("ETag"))
    return CompletePart(number, etag, _part_checksum(fields))


def _part_checksum(fields: dict[str, str]) -> tuple[Algorithm, bytes] | None:
    if not fields:
        return None
    if len(fields) > 1:
        raise _bad_part_checksum()
    element, value = fields.popitem()
    algorithm = _CHECKSUM_ELEMENTS[element]
    digest = checksums.decode(value.strip(), algorithm.digest_bytes)
    if digest is None:
        raise _bad_part_checksum()
    return algorithm, digest


def _bad_part_checksum() -> S3Error:
    return S3Error("InvalidArgument", "Invalid Base64 or multiple checksums present in request")


# --- DeleteObjects -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeleteItem:
    """One object. `key` may be invalid (too long): that fails alone, in the result."""

    key: bytes
    version_id: str | None
    condition: DeleteCondition | None

    @property
    def key_too_long(self) -> bool:
        return len(self.key) > MAX_KEY_BYTES


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    items: tuple[DeleteItem, ...]
    quiet: bool


_DELETE_FIELDS = frozenset(("Key", "VersionId", "ETag", "Size", "LastModifiedTime"))


def parse_delete_objects(body: bytes) -> DeleteRequest:
    """1 to 1,000 items in the order sent. Raises MalformedXML, InvalidArgument."""
    tree = _parse(body, "Delete")
    items: list[DeleteItem] = []
    quiet = False
    for name, child in _children(tree):
        if name == "Quiet" and not len(child):
            quiet = (child.text or "").strip().lower() == "true"
        elif name == "Object" and len(items) < MAX_DELETES:
            items.append(_delete_item(_fields(child, _DELETE_FIELDS)))
        else:
            raise S3Error("MalformedXML")
    if not items:
        raise S3Error("MalformedXML")
    return DeleteRequest(tuple(items), quiet)


def _delete_item(fields: dict[str, str]) -> DeleteItem:
    key = fields.get("Key")
    if not key:
        raise S3Error("MalformedXML")
    condition = delete_condition(
        fields.get("ETag") or None,
        fields.get("Size"),
        fields.get("LastModifiedTime"),
        names=("ETag", "Size", "LastModifiedTime"),
    )
    return DeleteItem(key.encode(), fields.get("VersionId") or None, condition)


# --- CreateBucket --------------------------------------------------------------------------------------------------


def parse_create_bucket(body: bytes) -> str | None:
    """The LocationConstraint asked for; None for an empty body or an empty configuration. Raises MalformedXML."""
    if not body.strip():
        return None
    tree = _parse(body, "CreateBucketConfiguration")
    location = None
    for name, child in _children(tree):
        if name == "LocationConstraint" and location is None and not len(child):
            location = (child.text or "").strip()
        elif name not in ("Location", "Bucket", "Tags"):
            raise S3Error("MalformedXML")
    return location or None


def parse_versioning(body: bytes) -> str:
    """PutBucketVersioning: `Enabled` or `Suspended`. Raises MalformedXML, IllegalVersioningConfigurationException."""
    tree = _parse(body, "VersioningConfiguration")
    fields = _fields(tree, frozenset(("Status", "MfaDelete")))
    if "Status" not in fields:
        raise S3Error("IllegalVersioningConfigurationException")
    if fields["Status"] not in ("Enabled", "Suspended"):
        raise S3Error("MalformedXML")
    if fields.get("MfaDelete", "Disabled") != "Disabled":
        raise S3Error("NotImplemented", "MFA delete is not supported.")
    return fields["Status"]


# --- the tagging field of a form -----------------------------------------------------------------------------------


def parse_form_tagging(body: bytes) -> list[tuple[str, str]]:
    """Keys and values of a Tagging document, in its order; their number and length are judged where tags are kept."""
    pairs: list[tuple[str, str]] = []
    for name, tag_set in _children(_parse(body, "Tagging")):
        if name != "TagSet":
            raise S3Error("MalformedXML")
        for kind, tag in _children(tag_set):
            found = _fields(tag, frozenset(("Key", "Value"))) if kind == "Tag" else {}
            if found.keys() != {"Key", "Value"}:
                raise S3Error("MalformedXML")
            pairs.append((found["Key"], found["Value"]))
    return pairs
