"""A bucket's lifecycle rules as the store keeps them (index/SCHEMA.md, "Bucket configurations"), parsed once.

Parsed rules are cached by the bytes they were parsed from, so a change counts from its commit on, in every process.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from index.configs import get_config
from index.errors import UnsupportedRecord
from vaultaire.s3.lifecycle_xml import format_lifecycle, parse_lifecycle

if TYPE_CHECKING:
    from index.kv import Reader
    from vaultaire.s3.lifecycle import Rules

CONFIG: Final = "lifecycle"
_VERSION: Final = b"\x01"


def wrap(document: bytes) -> bytes:
    """A document as it is stored."""
    return _VERSION + document


def unwrap(value: bytes) -> bytes:
    """Raises UnsupportedRecord."""
    if value[:1] != _VERSION:
        raise UnsupportedRecord("lifecycle configuration", f"version {value[:1].hex()} instead of 01")
    return value[1:]


def wrap_rules(rules: Rules) -> bytes:
    return wrap(format_lifecycle(rules))


@lru_cache(maxsize=256)
def unwrap_rules(value: bytes) -> Rules:
    """Raises UnsupportedRecord. Every stored rule has its name."""
    return parse_lifecycle(unwrap(value), str)


def rules_of(reader: Reader, bucket_id: int) -> Rules:
    """() if the bucket has none."""
    value = get_config(reader, bucket_id, CONFIG)
    return () if value is None else unwrap_rules(value)
