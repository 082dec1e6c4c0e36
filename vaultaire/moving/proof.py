"""Which digest proves a body that came from elsewhere, and what its record may then say.

In this order, the first that applies decides, and its name stands in the report:

* `md5`: the ETag is the body's MD5.
* `parts`: the ETag is that of a multipart object, and the MD5s of its parts, whose sizes the source tells, come to it.
  The record gets the same part table as an upload in these parts would have.
* `checksum`: an x-amz-checksum of the whole object, or of parts of known size. (Where ETag and checksum are both there,
  both must hold; a checksum that holds beside an ETag that does not says that the ETag is no MD5.)
* `length`: the source offers nothing to compare with. `twice`: and a second reading gave the same bytes.

The ETag of the source is kept where it is of S3's forms and either proven or of a multipart object (it then says
nothing about the bytes to anybody, and tools that compare listings see no change). Else it is the body's MD5.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from index.values import Checksum, PartSummary
from vaultaire.moving.places import WrongBytes
from vaultaire.moving.plans import etag_parts
from vaultaire.s3 import checksums
from vaultaire.s3.checksums import Algorithm, new_engine, new_md5

if TYPE_CHECKING:
    from vaultaire.moving.places import Attributes
    from vaultaire.s3.checksums import Engine

How = Literal["md5", "parts", "checksum", "length", "twice"]


@dataclass(frozen=True, slots=True)
class Proven:
    how: How
    etag: str
    checksum: Checksum | None
    parts: tuple[PartSummary, ...] = ()


class Proof:
    """Takes the body in order, in any pieces; `finish` judges. One thread at a time."""

    def __init__(self, attributes: Attributes) -> None:
        self._wanted = attributes
        self._sizes = attributes.part_sizes if etag_parts(attributes.etag) else ()
        stated = attributes.checksum
        self._algorithm = stated[0] if stated is not None else Algorithm.CRC64NVME
        self._composite = stated is not None and stated[1] == "COMPOSITE"
        # A composite one is compared part by part; what we keep besides is S3's default.
        self._whole = new_engine(Algorithm.CRC64NVME if self._composite else self._algorithm)
        self._whole_md5 = new_md5()
        self._part_md5: Engine = new_md5()
        self._part_checksum = new_engine(self._algorithm)
        self._parts: list[tuple[bytes, bytes]] = []  # (MD5, checksum)
        self._in_part = 0
        self.size = 0

    def update(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        self._whole.update(data)
        if not self._sizes:
            self._whole_md5.update(data)
            return
        view = memoryview(data)
        while len(view) and len(self._parts) < len(self._sizes):
            left = self._sizes[len(self._parts)] - self._in_part
            self._part_md5.update(view[:left])
            if self._composite:
                self._part_checksum.update(view[:left])
            self._in_part += min(left, len(view))
            view = view[left:]
            if self._in_part == self._sizes[len(self._parts)]:
                self._end_part()

    def _end_part(self) -> None:
        self._parts.append((self._part_md5.digest(), self._part_checksum.digest()))
        self._part_md5, self._part_checksum, self._in_part = new_md5(), new_engine(self._algorithm), 0

    def finish(self) -> Proven:
        """Raises WrongBytes."""
        wanted = self._wanted
        if self.size != wanted.size:
            raise WrongBytes(f"{self.size} bytes came instead of {wanted.size}")
        checksum_holds = self._checksum_holds()
        if checksum_holds is False:
            raise WrongBytes("the bytes do not match the source's own checksum")
        etag_holds = self._etag_holds()
        if etag_holds is False and not checksum_holds:
            raise WrongBytes("the bytes do not match the source's own ETag")
        how: How = "length"
        if etag_holds:
            how = "parts" if self._sizes else "md5"
        elif checksum_holds:
            how = "checksum"
        return Proven(how, self._etag(etag_holds), self._checksum(), self._table() if etag_holds else ())

    @property
    def digest(self) -> bytes:
        """To compare two readings of one object with the same attributes."""
        return self._whole_md5.digest() + self._whole.digest() + b"".join(md5 for md5, _ in self._parts)

    def _etag_holds(self) -> bool | None:
        """None: it cannot tell."""
        count = etag_parts(self._wanted.etag)
        if count is None or not self._wanted.etag_is_md5:
            return None
        if count == 0:
            return self._whole_md5.digest().hex() == self._wanted.etag
        if not self._sizes:
            return None
        return self._multipart_etag() == self._wanted.etag

    def _multipart_etag(self) -> str:
        joined = b"".join(md5 for md5, _ in self._parts)
        return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(self._parts)}"

    def _checksum_holds(self) -> bool | None:
        stated = self._wanted.checksum
        if stated is None or (self._composite and not self._sizes):
            return None
        return self._found_checksum() == stated[2]

    def _found_checksum(self) -> str:
        if self._composite:
            return checksums.composite(self._algorithm, [digest for _, digest in self._parts])
        return checksums.encode(self._whole.digest())

    def _etag(self, holds: bool | None) -> str:
        etag = self._wanted.etag
        if holds or etag_parts(etag):
            return etag
        return self._whole_md5.digest().hex()

    def _checksum(self) -> Checksum:
        if self._composite and self._sizes:
            return Checksum(self._algorithm.value, "COMPOSITE", self._found_checksum())
        algorithm = Algorithm.CRC64NVME if self._composite else self._algorithm
        return Checksum(algorithm.value, "FULL_OBJECT", checksums.encode(self._whole.digest()))

    def _table(self) -> tuple[PartSummary, ...]:
        """What an upload in these parts leaves; checksums of parts only where they are what the object's is made of."""
        return tuple(
            PartSummary(
                number,
                size,
                md5.hex(),
                Checksum(self._algorithm.value, "FULL_OBJECT", checksums.encode(digest))
                if self._composite
                else None,
            )
            for number, (size, (md5, digest)) in enumerate(zip(self._sizes, self._parts, strict=True), 1)
        )
