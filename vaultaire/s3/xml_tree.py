"""XML documents that clients send, as trees that are safe to walk. Anything unexpected is MalformedXML.

Hostile input is bounded before it is parsed: bytes, elements, and no DTD at all, so no entity to expand or fetch;
depth is bounded by the schemas, which are walked without recursion. That is defusedxml's `forbid_dtd` in one search,
which allows the parser written in C: defusedxml needs the one in Python, ten times as slow (0.3 s for 10,000 parts).
Bodies are UTF-8, as S3 demands. Elements count by local name, with S3's namespace or without: clients send both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError, XMLParser

from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

MAX_BODY_BYTES = 2 << 20
_MAX_ELEMENTS = 100_000


def parse(body: bytes, root: str) -> Element:
    """The document's root, which is named `root`. Raises MalformedXML, MissingRequestBodyError, ..."""
    if len(body) > MAX_BODY_BYTES:
        raise S3Error("MaxMessageLengthExceeded", extra={"MaxMessageLengthBytes": MAX_BODY_BYTES})
    if not body.strip():
        raise S3Error("MissingRequestBodyError")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise S3Error("MalformedXML") from None
    # Text, not bytes, goes to the parser: whatever encoding the document declares is overruled, so no DOCTYPE can
    # hide from the search in another one. XML spells it in upper case only.
    if "<!DOCTYPE" in text or text.count("<") > 2 * _MAX_ELEMENTS:
        raise S3Error("MalformedXML")
    parser = XMLParser()
    try:
        parser.feed(text)
        tree: Element = parser.close()
    except (ParseError, ValueError, LookupError):
        raise S3Error("MalformedXML") from None
    if local(tree.tag) != root:
        raise S3Error("MalformedXML")
    return tree


def local(tag: str) -> str:
    return tag.rpartition("}")[2]


def children(element: Element) -> Iterator[tuple[str, Element]]:
    for child in element:
        yield local(child.tag), child


def text_of(element: Element) -> str:
    """The text of an element that has no children of its own."""
    if len(element):
        raise S3Error("MalformedXML")
    return element.text or ""


def fields(element: Element, allowed: frozenset[str]) -> dict[str, str]:
    """The text of each child. A child that is unknown, doubled or has children of its own is malformed."""
    found: dict[str, str] = {}
    for name, child in children(element):
        if name not in allowed or name in found:
            raise S3Error("MalformedXML")
        found[name] = text_of(child)
    return found


def one_of(element: Element, allowed: frozenset[str]) -> dict[str, Element]:
    """Each child by its name. One that is unknown or doubled is malformed."""
    found: dict[str, Element] = {}
    for name, child in children(element):
        if name not in allowed or name in found:
            raise S3Error("MalformedXML")
        found[name] = child
    return found
