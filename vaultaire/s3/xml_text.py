"""Text into XML: the escaping shared by results and errors.

XML 1.0 cannot hold most control characters, not even as references, yet S3 keys may contain them. S3 writes them as
numeric references all the same (`&#x1;`), which lenient parsers accept; clients that must be safe ask for
`encoding-type=url`. Nothing else would tell such keys apart. CR, LF and tab are references too, because a parser
would turn a bare CR into LF.
"""

from __future__ import annotations

import re

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
_SPECIAL = re.compile('[&<>"\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_search = _SPECIAL.search


def _reference(match: re.Match[str]) -> str:
    char = match[0]
    return _ENTITIES.get(char) or f"&#x{ord(char):X};"


def escape_lossy(text: str) -> str:
    """As `escape`, but always XML 1.0: what it cannot hold becomes U+FFFD. For errors, which everybody must be able
    to read; quotes in them are plain, as AWS writes them and clients look for them. Not for attributes."""
    return escape(_ILLEGAL.sub("\ufffd", text)).replace("&quot;", '"')


def escape(text: str) -> str:
    """`text` as XML character data, also safe inside a double-quoted attribute."""
    if _search(text) is None:
        return text
    return _SPECIAL.sub(_reference, text)
