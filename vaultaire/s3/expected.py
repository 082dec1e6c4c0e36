"""What a request says its body must hash to, and the proof at the end.

`parse_expected` reads every header that announces a digest; the resulting Expected names the engines to run;
`Digests` runs them and `check` compares. Nothing may be committed before `check` returned: it covers Content-MD5,
x-amz-content-sha256, and the one x-amz-checksum-* given in a header or promised for the trailer.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaultaire.s3 import checksums
from vaultaire.s3.checksums import Algorithm
from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultaire.s3.checksums import ChecksumType, Engine

_PREFIX = b"x-amz-checksum-"
_NOT_VALUES = frozenset((b"x-amz-checksum-algorithm", b"x-amz-checksum-mode", b"x-amz-checksum-type"))
_SUPPORTED_TEXT = f"[{', '.join(algorithm.value for algorithm in Algorithm)}]"


@dataclass(frozen=True, slots=True)
class Expected:
    """The digests to verify. All None: nothing was asked for (an ETag still needs MD5)."""

    content_md5: bytes | None = None
    payload_sha256: str | None = None  # hex
    algorithm: Algorithm | None = None
    value: bytes | None = None  # raw; None with an algorithm: it comes in the trailer
    trailer: str | None = None  # lower-case header name; set exactly if the value comes in the trailer

    @property
    def trailer_names(self) -> tuple[str, ...]:
        """For `aws_chunked.Decoder`."""
        return () if self.trailer is None else (self.trailer,)


@dataclass(frozen=True, slots=True)
class Computed:
    """Proven digests of a body. `checksum` is what the client named, or the default asked of Digests."""

    md5: bytes
    algorithm: Algorithm | None
    checksum: bytes | None


@dataclass(frozen=True, slots=True)
class UploadChecksum:
    """What CreateMultipartUpload fixes for all parts and the object."""

    algorithm: Algorithm
    type: ChecksumType


# --- parse ---------------------------------------------------------------------------------------------------------


def parse_expected(
    fields: Mapping[bytes, str], *, payload_sha256: str | None = None, trailing: bool = False
) -> Expected:
    """Of a request with a body. `payload_sha256` is the claim's; `trailing`: the payload kind has trailers.

    Raises InvalidDigest, InvalidRequest.
    """
    stated = _header_value(fields)
    trailer = _trailer_algorithm(fields, trailing=trailing)
    if stated is not None and trailer is not None:
        raise _several()
    algorithm = stated[0] if stated is not None else trailer
    _check_sdk_algorithm(fields, algorithm)
    return Expected(
        parse_content_md5(fields),
        payload_sha256,
        algorithm,
        None if stated is None else stated[1],
        None if trailer is None else trailer.header,
    )


def parse_content_md5(fields: Mapping[bytes, str]) -> bytes | None:
    """Raises InvalidDigest unless absent or base64 of 16 bytes."""
    stated = fields.get(b"content-md5")
    if stated is None:
        return None
    digest = checksums.decode(stated, 16)
    if digest is None:
        raise S3Error("InvalidDigest", extra={"Content-MD5": stated})
    return digest


def parse_upload_checksum(fields: Mapping[bytes, str]) -> UploadChecksum | None:
    """Of CreateMultipartUpload: `x-amz-checksum-algorithm` and `-type`. Raises InvalidRequest."""
    named = fields.get(b"x-amz-checksum-algorithm")
    kind = parse_checksum_type(fields)
    if named is None:
        if kind is not None:
            raise S3Error(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )
        return None
    algorithm = parse_algorithm(named)
    kind = kind or algorithm.types[0]
    if kind not in algorithm.types:
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.value.lower()} checksum algorithm.",
        )
    return UploadChecksum(algorithm, kind)


def parse_checksum_type(fields: Mapping[bytes, str]) -> ChecksumType | None:
    """`x-amz-checksum-type`, also sent with CompleteMultipartUpload. Raises InvalidRequest."""
    stated = fields.get(b"x-amz-checksum-type")
    if stated is None:
        return None
    match stated.upper():
        case "COMPOSITE":
            return "COMPOSITE"
        case "FULL_OBJECT":
            return "FULL_OBJECT"
    raise _invalid("x-amz-checksum-type")


def parse_algorithm(name: str) -> Algorithm:
    """An algorithm's name, in any case. Raises InvalidRequest."""
    try:
        return Algorithm(name.strip().upper())
    except ValueError:
        raise S3Error(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
            f"{_SUPPORTED_TEXT}",
        ) from None


def parse_object_checksum(fields: Mapping[bytes, str]) -> tuple[Algorithm, str] | None:
    """The `x-amz-checksum-*` of CompleteMultipartUpload: of the object, not of the body; may end in `-N`."""
    found = _checksum_header(fields)
    if found is None:
        return None
    algorithm, value = found
    digest, _, count = value.partition("-")
    if checksums.decode(digest, algorithm.digest_bytes) is None or not (count.isdecimal() or digest == value):
        raise _invalid(algorithm.header)
    return algorithm, value


def _header_value(fields: Mapping[bytes, str]) -> tuple[Algorithm, bytes] | None:
    found = _checksum_header(fields)
    if found is None:
        return None
    algorithm, value = found
    digest = checksums.decode(value, algorithm.digest_bytes)
    if digest is None:
        raise _invalid(algorithm.header)
    return algorithm, digest


def _checksum_header(fields: Mapping[bytes, str]) -> tuple[Algorithm, str] | None:
    names = [name for name in fields if name.startswith(_PREFIX) and name not in _NOT_VALUES]
    if not names:
        return None
    if len(names) > 1:
        raise _several()
    return _value_algorithm(names[0].decode("latin-1")), fields[names[0]]


def _value_algorithm(header: str) -> Algorithm:
    """The algorithm of a header or trailer `x-amz-checksum-<name>`."""
    try:
        return Algorithm(header[len(_PREFIX) :].upper())
    except ValueError:
        raise S3Error(
            "InvalidRequest", "The algorithm type you specified in x-amz-checksum- header is invalid."
        ) from None


def _trailer_algorithm(fields: Mapping[bytes, str], *, trailing: bool) -> Algorithm | None:
    stated = fields.get(b"x-amz-trailer")
    if not stated:
        return None
    name = stated.lower()
    if not trailing or not name.startswith("x-amz-checksum-") or "," in name:
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    return _value_algorithm(name)


def _check_sdk_algorithm(fields: Mapping[bytes, str], algorithm: Algorithm | None) -> None:
    named = fields.get(b"x-amz-sdk-checksum-algorithm")
    if named is None:
        return
    upper = named.upper()
    if algorithm is None:
        if upper not in {known.value for known in Algorithm}:
            raise _invalid("x-amz-sdk-checksum-algorithm")
        raise S3Error(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer "
            "headers were found.",
        )
    if upper != algorithm.value:
        raise _invalid("x-amz-sdk-checksum-algorithm")


# --- compute and check ---------------------------------------------------------------------------------------------


class Digests:
    """The engines one body needs. `engines` are independent: each may be fed by a thread of its own."""

    def __init__(self, expected: Expected, default: Algorithm | None = None) -> None:
        """`default` is computed when the client named no algorithm (S3 itself uses CRC64NVME then)."""
        self._expected = expected
        self._algorithm = expected.algorithm or default
        self._md5: Engine = checksums.new_md5()
        self.engines: list[Engine] = [self._md5]
        self._checksum = None
        if self._algorithm is Algorithm.MD5:
            self._checksum = self._md5  # the ETag's own
        elif self._algorithm is not None:
            self._checksum = self._add(self._algorithm)
        self._sha256 = None
        if expected.payload_sha256 is not None:
            # One SHA-256 serves both when the client also sent it as checksum.
            shared = self._algorithm is Algorithm.SHA256
            self._sha256 = self._checksum if shared else self._add(Algorithm.SHA256)

    def _add(self, algorithm: Algorithm) -> Engine:
        engine = checksums.new_engine(algorithm)
        self.engines.append(engine)
        return engine

    def update(self, data: bytes | memoryview) -> None:
        for engine in self.engines:
            engine.update(data)

    def check(self, trailers: Mapping[str, str] | None = None) -> Computed:
        """After the last byte. `trailers` as `aws_chunked.Decoder.finish` returned them.

        Raises BadDigest, XAmzContentSHA256Mismatch, InvalidRequest (a trailer that is no digest).
        """
        md5 = self._md5.digest()
        stated = self._expected.content_md5
        if stated is not None and not hmac.compare_digest(stated, md5):
            raise S3Error(
                "BadDigest",
                extra={"ExpectedDigest": checksums.encode(stated), "CalculatedDigest": checksums.encode(md5)},
            )
        self._check_sha256()
        value = None if self._checksum is None else self._checksum.digest()
        if self._expected.algorithm is not None and value is not None:
            self._check_value(self._expected.algorithm, value, trailers or {})
        return Computed(md5, self._algorithm, value)

    def _check_sha256(self) -> None:
        stated = self._expected.payload_sha256
        if stated is None or self._sha256 is None:
            return
        computed = self._sha256.digest().hex()
        if not hmac.compare_digest(stated.encode(), computed.encode()):
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                extra={"ClientComputedContentSHA256": stated, "S3ComputedContentSHA256": computed},
            )

    def _check_value(self, algorithm: Algorithm, computed: bytes, trailers: Mapping[str, str]) -> None:
        stated = self._expected.value
        if self._expected.trailer is not None:
            stated = checksums.decode(trailers.get(self._expected.trailer, ""), algorithm.digest_bytes)
            if stated is None:
                raise S3Error(
                    "InvalidRequest", f"Value for {self._expected.trailer} trailing header is invalid."
                )
        if stated is None or not hmac.compare_digest(stated, computed):
            raise S3Error(
                "BadDigest",
                f"The {algorithm.value} you specified did not match the calculated checksum.",
                extra={
                    "ExpectedDigest": None if stated is None else checksums.encode(stated),
                    "CalculatedDigest": checksums.encode(computed),
                },
            )


# --- refusals ------------------------------------------------------------------------------------------------------


def _several() -> S3Error:
    return S3Error(
        "InvalidRequest",
        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
    )


def _invalid(header: str) -> S3Error:
    return S3Error("InvalidRequest", f"Value for {header} header is invalid.")
