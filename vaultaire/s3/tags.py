"""Tags of objects and buckets: a header, an XML document, and S3's limits. Pure.

An object has up to 10 tags, a bucket up to 50; a key 1 to 128 and a value up to 256 characters as UTF-16 counts them;
letters, digits, spaces and `_ . : / = + - @`; keys are unique, and those that begin with `aws:` are Amazon's own.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectTagging.html
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from vaultaire.s3 import percent, xml_tree
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.xml import document
from vaultaire.s3.xml_text import escape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from xml.etree.ElementTree import Element

MAX_OBJECT_TAGS = 10
MAX_BUCKET_TAGS = 50
_MAX_KEY, _MAX_VALUE = 128, 256
_MAX_HEADER_CHARACTERS = 16 << 10  # ten tags, each character percent-encoded, are below that
_PUNCTUATION = frozenset("_.:/=+-@")

Tags = tuple[tuple[str, str], ...]


def parse_header(fields: Mapping[bytes, str]) -> Tags:
    """`x-amz-tagging`, encoded as a query string; () without it. Raises InvalidArgument, InvalidTag."""
    text = fields.get(b"x-amz-tagging")
    if not text:
        return ()
    pairs = []
    if len(text) > _MAX_HEADER_CHARACTERS:
        raise _malformed_header(text[:64])
    for piece in text.encode("latin-1").split(b"&"):
        if not piece:
            continue
        name, _, value = piece.replace(b"+", b" ").partition(b"=")
        try:
            pairs.append((percent.decode(name).decode(), percent.decode(value).decode()))
        except (percent.MalformedEscape, UnicodeDecodeError):
            raise _malformed_header(text) from None
    if len({name for name, _ in pairs}) < len(pairs) or any(not name for name, _ in pairs):
        raise _malformed_header(text)
    return check(pairs, MAX_OBJECT_TAGS)


def _malformed_header(text: str) -> S3Error:
    return invalid_argument(
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name "
        "duplicates.",
        "x-amz-tagging",
        text,
    )


def parse_xml(body: bytes, limit: int) -> Tags:
    """The tags of a Tagging document, in its order. Raises MalformedXML, InvalidTag."""
    found = xml_tree.one_of(xml_tree.parse(body, "Tagging"), frozenset(("TagSet",)))
    if "TagSet" not in found:
        raise S3Error("MalformedXML")
    return _parse_set(found["TagSet"], limit)


def parse_create_bucket(body: bytes) -> Tags:
    """The tags that CreateBucket's document may carry. Raises MalformedXML, InvalidTag."""
    if not body.strip():
        return ()
    tree = xml_tree.parse(body, "CreateBucketConfiguration")
    sets = [child for name, child in xml_tree.children(tree) if name == "Tags"]
    if len(sets) > 1:
        raise S3Error("MalformedXML")
    return _parse_set(sets[0], MAX_BUCKET_TAGS) if sets else ()


def _parse_set(element: Element, limit: int) -> Tags:
    pairs = []
    for name, child in xml_tree.children(element):
        fields = xml_tree.fields(child, frozenset(("Key", "Value")))
        if name != "Tag" or len(fields) < 2:
            raise S3Error("MalformedXML")
        pairs.append((fields["Key"], fields["Value"]))
    return check(pairs, limit)


def format_xml(tags: Sequence[tuple[str, str]]) -> bytes:
    """A Tagging document."""
    rows = [f"<Tag><Key>{escape(key)}</Key><Value>{escape(value)}</Value></Tag>" for key, value in tags]
    return document("Tagging", f"<TagSet>{''.join(rows)}</TagSet>")


def check(pairs: Sequence[tuple[str, str]], limit: int) -> Tags:
    """The pairs, if they keep all of S3's rules. Raises InvalidTag."""
    if len(pairs) > limit:
        kind = "Object" if limit == MAX_OBJECT_TAGS else "Bucket"
        raise S3Error("InvalidTag", f"{kind} tags cannot be greater than {limit}")
    seen = set()
    for key, value in pairs:
        if not key or _units(key) > _MAX_KEY or not _allowed(key):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", extra={"TagKey": key})
        if _units(value) > _MAX_VALUE or not _allowed(value):
            raise S3Error(
                "InvalidTag",
                "The TagValue you have provided is invalid",
                extra={"TagKey": key, "TagValue": value},
            )
        if key.lower().startswith("aws:"):
            raise S3Error(
                "InvalidTag", "System tags cannot be added/updated by requester", extra={"TagKey": key}
            )
        if key in seen:
            raise S3Error(
                "InvalidTag", "Cannot provide multiple Tags with the same key", extra={"TagKey": key}
            )
        seen.add(key)
    return tuple(pairs)


def _units(text: str) -> int:
    """Length as UTF-16 counts it, which is how S3 states its limits."""
    return len(text) + sum(character > "\uffff" for character in text)


def _allowed(text: str) -> bool:
    """Letters, digits and spaces of any script, and some punctuation."""
    if text.isascii() and text.isalnum():
        return True
    return all(c in _PUNCTUATION or unicodedata.category(c)[0] in "LNZ" for c in text)
