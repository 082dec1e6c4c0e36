"""Every parser of bytes that come from outside: what feeds it, and the only exceptions that may come out.

Outside is what a client sends (HTTP heads, bodies, signatures, documents) and what a disk may give back (packs, the
journal, records behind their checksums, files of other processes). A target takes any bytes; where a format has a
checksum, inputs whose first byte is odd are sealed anew, so that what lies behind it is reached. Besides not raising,
targets assert what the parser's docstring promises, above all that cutting the input into reads changes nothing.
"""

from __future__ import annotations

from tools.fuzz.targets import documents, folders, http, metadata, packs
from tools.fuzz.targets.target import CORPUS, Target, cuts

__all__ = ["CORPUS", "TARGETS", "Target", "cuts"]

TARGETS = {
    target.name: target for area in (http, documents, packs, metadata, folders) for target in area.TARGETS
}
