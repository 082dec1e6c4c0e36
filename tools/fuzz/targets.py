"""Every parser of bytes that come from outside: what feeds it, and the only exceptions that may come out.

Outside is what a client sends (HTTP heads, bodies, signatures, documents) and what a disk may give back (packs, the
journal, records behind their checksums, files of other processes). A target takes any bytes; where a format has a
checksum, inputs whose first byte is odd are sealed anew, so that what lies behind it is reached. Besides not raising,
targets assert what the parser's docstring promises, above all that cutting the input into reads changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tempfile
import zlib
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from cas import catalog, frame, manifest, pack, parity
from cas.adoption import placements
from cas.chunk import ChunkId, Identity
from cas.errors import CasError, CorruptFrame, CorruptManifest, CorruptPack, CorruptRow, UnsupportedFormat
from index import checkpoint, environment, journal, keys, records, tokens
from index.errors import CorruptRecord, NamesError, UnsupportedRecord
from index.fileops import FileOps
from index.kv import CorruptJournal, KvError
from index.kv import UnsupportedFormat as UnsupportedEngine
from index.segments import JournalReader
from index.versions import VERSION_ID_BYTES
from tools.fuzz.tars import TAR_WORDS, tar_seeds
from tools.fuzz.tars import take as take_tar_cuts
from vaultaire import access, head, runfile
from vaultaire.backup import manifest as backup
from vaultaire.chunked import ChunkedDecoder, ChunkedError
from vaultaire.cli.endpoint import read_endpoint
from vaultaire.errors import StoreError
from vaultaire.s3 import (
    acl,
    addressing,
    aws_chunked,
    bucket_settings,
    conditions,
    cors,
    dates,
    expected,
    form_data,
    headers,
    lifecycle_xml,
    names,
    policy,
    post_policy,
    ranges,
    routing,
    sigv4,
    tags,
    version_ids,
    xml_lock,
    xml_requests,
)
from vaultaire.s3.errors import S3Error
from vaultaire.secret_key import SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

CORPUS = Path(__file__).with_name("corpus")
PACK = 0x0000_0001_0000_0001
STORE_ID = bytes(range(16))


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    take: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]
    words: Sequence[bytes] = ()

    def corpus(self) -> list[bytes]:
        """The seeds, and what is kept in tools/fuzz/corpus."""
        files = sorted((CORPUS / self.name).glob("*")) if (CORPUS / self.name).is_dir() else []
        return [*self.seeds(), *(path.read_bytes() for path in files)]


def cuts(data: bytes) -> list[bytes]:
    """`data` in pieces; where they end depends on `data` alone."""
    pieces, at, step = [], 0, 1 + zlib.crc32(data) % 97
    while at < len(data):
        pieces.append(data[at : at + step])
        at += step
        step = 1 + step * 7 % 251
    return pieces


# --- HTTP ---------------------------------------------------------------------------------------------------------


def take_head(data: bytes) -> None:
    """The same verdict however the bytes were cut into reads."""
    whole = head.take_head(data)
    seen, verdict = b"", None
    for piece in cuts(data):
        searched, seen = len(seen), seen + piece
        verdict = head.take_head(seen, searched)
        if verdict is not None:
            break
    if isinstance(whole, head.Head):
        assert verdict == whole, (whole, verdict)
    elif isinstance(whole, head.Refused):
        assert isinstance(verdict, head.Refused), verdict
    else:
        assert verdict is None, verdict


def take_chunked(data: bytes) -> None:
    assert _unchunk([data]) == _unchunk(cuts(data))


def _unchunk(pieces: Sequence[bytes]) -> tuple[bytes, bool] | None:
    decoder, body = ChunkedDecoder(), b""
    try:
        for piece in pieces:
            if decoder.done:
                break
            body += decoder.feed(piece)
    except ChunkedError:
        return None
    return body, decoder.done


def take_request(data: bytes) -> None:
    """Head, address, query, route, signature, and every header that has a parser; as `service.py` goes about it."""
    found = head.take_head(data)
    if not isinstance(found, head.Head):
        return
    fields = headers.header_map(found.headers)
    query = routing.parse_query(found.query_string)
    host = fields.get(b"host", "")
    address = addressing.split_address(host, found.raw_path, ("s3.example.com",))
    for each in (
        lambda: routing.route(found.method, address.bucket, address.key, query, fields),
        lambda: _verify(sigv4.parse(found.method, found.raw_path, found.query_string, found.headers)),
        lambda: take_fields(fields, query),
    ):
        _allow(S3Error, each)


def _verify(claim: sigv4.Claim) -> None:
    if claim.auth is not sigv4.Auth.ANONYMOUS:
        sigv4.verify(claim, "a-secret-key-of-nobody", 1_700_000_000.0)
        raise AssertionError("a signature nobody could make was accepted")


def take_fields(fields: dict[bytes, str], query: dict[str, str]) -> None:
    current = conditions.Current("d41d8cd98f00b204e9800998ecf8427e", 1000, 1_700_000_000_000)
    anything = " ".join(fields.values())
    parsers: list[Callable[[], object]] = [
        lambda: ranges.parse_range(fields.get(b"range"), 1000),
        lambda: ranges.parse_copy_source_range(fields.get(b"x-amz-copy-source-range", anything), 1000),
        lambda: conditions.check_read(fields, current),
        lambda: conditions.check_copy_source(fields, current),
        lambda: conditions.check_rename(fields, current, None),
        lambda: conditions.range_applies(fields, current),
        lambda: conditions.parse_write(fields),
        lambda: conditions.parse_delete(fields),
        lambda: headers.parse_metadata(fields),
        lambda: headers.format_metadata(headers.parse_metadata(fields)),
        lambda: headers.parse_system(fields),
        lambda: headers.refuse_broken_promises(fields),
        lambda: headers.response_overrides(query, anonymous=False),
        lambda: names.parse_copy_source(fields.get(b"x-amz-copy-source", anything)),
        lambda: expected.parse_content_md5(fields),
        lambda: expected.parse_upload_checksum(fields),
        lambda: expected.parse_checksum_type(fields),
        lambda: expected.parse_object_checksum(fields),
        lambda: acl.parse_headers(fields, "me", "me"),
        lambda: tags.parse_header(fields),
        lambda: bucket_settings.ownership_header(fields),
        lambda: version_ids.parse_version(query.get("versionId")),
        lambda: dates.parse_http(anything),
        lambda: dates.parse_iso_ms(anything),
        lambda: dates.parse_basic(anything),
    ]
    for parse in parsers:
        _allow(S3Error, parse)


def take_aws_chunked(data: bytes) -> None:
    """Signed and unsigned, with trailers and without; the first two bytes say which, and how long it claims to be."""
    if len(data) < 2:
        return
    kinds = [kind for kind in sigv4.Payload if kind.value.startswith("STREAMING")]
    kind, length, body = kinds[data[0] % len(kinds)], data[1], data[2:]
    assert _unwrap(kind, length, [body]) == _unwrap(kind, length, cuts(body))


def _unwrap(kind: sigv4.Payload, length: int, pieces: Sequence[bytes]) -> tuple[bytes, dict[str, str]] | None:
    verified = sigv4.Verified(
        "AKIA", b"k" * 32, "20260101T000000Z", "20260101/us-east-1/s3/aws4_request", "0" * 64
    )
    decoder = aws_chunked.Decoder(kind, verified, length, ["x-amz-checksum-crc32"])
    try:
        body = b"".join(bytes(view) for piece in pieces for view in decoder.feed(piece))
        found = decoder.finish()
    except S3Error:
        return None
    assert len(body) == length
    return body, found


def take_form(data: bytes) -> None:
    assert _read_form([data]) == _read_form(cuts(data))
    _allow(S3Error, lambda: form_data.parse_boundary(data[:400].decode("latin-1")))


def _read_form(pieces: Sequence[bytes]) -> tuple[list[tuple[str, bytes]], bytes] | None:
    parser, fields, file = form_data.FormParser(b"B"), [], b""
    try:
        for piece in pieces:
            for event in parser.feed(piece):
                if isinstance(event, form_data.Field):
                    fields.append((event.name, event.value))
                elif isinstance(event, bytes):
                    file += event
        parser.finish()
    except S3Error:
        return None
    return fields, file


def take_post_policy(data: bytes) -> None:
    texts = (b64encode(data).decode(), data.decode("latin-1"))
    for text in texts:

        def check(text: str = text) -> None:
            parsed = post_policy.parse_policy(text)
            fields = {"key": "a", "x-amz-meta-a": text[:50], "content-type": "text/plain"}
            post_policy.check_form(parsed, "bucket", fields, 1_700_000_000.0)

        _allow(S3Error, check)
    fields = dict(line.split("=", 1) for line in data.decode("latin-1").splitlines() if "=" in line)
    _allow(S3Error, lambda: sigv4.parse_form({name.lower(): value for name, value in fields.items()}))


def take_policy(data: bytes) -> None:
    parsed = policy.parse(data, "bucket")
    assert isinstance(parsed.is_public, bool)
    asked = policy.Asked("s3:GetObject", "bucket", "a/b", None, None)
    facts: Any = _Facts()
    parsed.evaluate(asked, facts)


class _Facts:
    """Answers every condition key with the same text."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: ("a",)

    def __getitem__(self, key: str) -> Any:
        return ("a",)


XML_PARSERS: tuple[Callable[[bytes], object], ...] = (
    xml_requests.parse_complete_multipart_upload,
    xml_requests.parse_delete_objects,
    xml_requests.parse_create_bucket,
    xml_requests.parse_versioning,
    xml_requests.parse_form_tagging,
    xml_lock.parse_configuration,
    xml_lock.parse_retention,
    xml_lock.parse_legal_hold,
    bucket_settings.parse_ownership,
    bucket_settings.parse_public_access_block,
    bucket_settings.parse_encryption,
    tags.parse_create_bucket,
    cors.parse_xml,
    lambda body: acl.parse_xml(body, "owner"),
    lambda body: tags.parse_xml(body, 10),
    lambda body: lifecycle_xml.parse_lifecycle(body, lambda: "id"),
)


def take_xml(data: bytes) -> None:
    for parse in XML_PARSERS:
        _allow(S3Error, lambda parse=parse: parse(data))


# --- Packs --------------------------------------------------------------------------------------------------------


def take_frame(data: bytes) -> None:
    """Sealed anew where the first byte is odd."""
    body = bytearray(data[1:])
    if data[:1] and data[0] & 1:
        _seal_frame(body)
    _allow(CasError, lambda: frame.decompress(bytes(body)))
    header, raw = frame.decode_frame(bytes(body))
    assert len(raw) == header.raw_length == sum(header.lengths)


def _seal_frame(body: bytearray) -> None:
    """Make both checksums right, if there is a header as long as it says."""
    if len(body) < frame.HEAD.size:
        return
    length = frame.HEAD.unpack_from(body)[4]
    stored = frame.HEAD.unpack_from(body)[7]
    if not frame.MIN_HEADER_BYTES <= length <= len(body):
        return
    payload = bytes(body[length : length + stored])
    frame.CHECKSUM.pack_into(body, length - frame.CHECKSUMS_BYTES, frame.crc64nvme(payload))
    frame.CHECKSUM.pack_into(body, length - 8, frame.crc64nvme(bytes(body[: length - 8])))


def take_pack(data: bytes) -> None:
    """By its footer and frame by frame. Where the first byte is odd, its trailer and footer are sealed anew."""
    body = bytearray(data[1:])
    if data[:1] and data[0] & 1:
        _seal_footer(body)
    file = bytes(body)

    def read(offset: int, length: int) -> bytes:
        assert 0 <= offset <= 1 << 64
        assert 0 <= length <= frame.MAX_RAW_BYTES + pack.MAX_FOOTER_BYTES, f"{length} bytes are asked for"
        return file[offset : offset + length]

    for look in (
        lambda: pack.read_contents(PACK, read, len(file)),
        lambda: pack.scan_contents(PACK, read),
        lambda: pack.scan_contents(PACK, read, len(file)),
    ):
        try:
            contents = look()
        except (CorruptPack, UnsupportedFormat):
            continue
        rows = dict(placements(PACK, contents))
        for chunk, row in rows.items():
            catalog.decode_placement(chunk, row)


def _seal_footer(body: bytearray) -> None:
    size = pack.TRAILER_BYTES
    if len(body) < size:
        return
    _, _, end, length = struct.Struct(">4sB3xQI").unpack_from(body, len(body) - size)
    if end + length + size == len(body) and length > 8:
        footer = bytes(body[end : end + length - 8])
        frame.CHECKSUM.pack_into(body, end + length - 8, frame.crc64nvme(footer))
    frame.CHECKSUM.pack_into(body, len(body) - 8, frame.crc64nvme(bytes(body[-size:-8])))


def take_manifest(data: bytes) -> None:
    """Decoded, walked (nodes are pieces of the input), cut and joined."""
    parsed = manifest.Manifest.decode(data)
    assert manifest.Manifest.decode(parsed.encode()) == parsed
    fetched = 0

    def fetch(node: ChunkId) -> bytes:
        nonlocal fetched
        fetched += 1
        if fetched > 50:
            raise CorruptManifest("enough")
        return manifest.encode_node(max(0, parsed.level - fetched), data[12 : 12 + 48 * (node[0] % 4)])

    for entry in manifest.walk(parsed.level, parsed.entries, 0, parsed.size, fetch):
        assert entry.length >= 0
    if parsed.size > 2:
        manifest.cut(parsed, 1, parsed.size - 1)


def take_tar(data: bytes) -> None:
    take_tar_cuts(data, cuts(data))


def take_node(data: bytes) -> None:
    for level in range(3):
        _allow(CasError, lambda level=level: list(manifest.unpack(level, manifest.decode_node(data, level))))


def take_catalog(data: bytes) -> None:
    _allow(CasError, lambda: catalog.decode_placement(b"c" * 32, data))
    _allow(CasError, lambda: catalog.PackRow.decode(catalog.pack_key(PACK), data))


def take_sidecar(data: bytes) -> None:
    """Header (sealed anew where the first byte is odd) and pages; everything a geometry says stays within bounds."""
    header = bytearray(data[1 : 1 + parity.HEADER_BYTES])
    if data[:1] and data[0] & 1 and len(header) == parity.HEADER_BYTES:
        body = bytes(header[: parity.HEADER_BYTES - 8])
        frame.CHECKSUM.pack_into(header, parity.HEADER_BYTES - 8, frame.crc64nvme(body))
    _allow(CasError, lambda: parity.decode_page(bytes(header), 0, data[parity.HEADER_BYTES + 1 :]))
    geometry = parity.decode_header(bytes(header), STORE_ID, PACK)
    for number in (0, geometry.blocks - 1):
        offset, length = geometry.block(number)
        assert 0 <= offset < offset + length <= geometry.pack_bytes
    for number in (0, geometry.pages - 1):
        first, second, length = geometry.page(number)
        assert 0 < first < first + length <= geometry.file_bytes
        assert first < second < second + length <= geometry.file_bytes
    offset, length = geometry.parity_block(geometry.parity_rows - 1, geometry.groups - 1)
    assert offset + length <= geometry.file_bytes


# --- Metadata -----------------------------------------------------------------------------------------------------


def take_records(data: bytes) -> None:
    """Whatever the bytes: CorruptRecord or UnsupportedRecord; what decodes encodes to the same."""
    for kind in (records.ObjectRecord, records.BucketRecord, records.UploadRecord, records.PartRecord):
        _allow((CorruptRecord, UnsupportedRecord), lambda kind=kind: _decode_twice(kind, data))
    _allow((CorruptRecord, UnsupportedRecord), lambda: records.decode_listing(data))
    _allow(CorruptRecord, lambda: records.decode_parts(data))
    _allow(CorruptRecord, lambda: tokens.decode_token(data))


def _decode_twice(kind: Any, data: bytes) -> None:
    record = kind.decode(data)
    if isinstance(record, records.ObjectRecord):
        _allow(CorruptRecord, lambda: record.parts)
    try:
        again = record.encode()
    except ValueError:
        return  # nobody writes such a record, though it can be read
    assert kind.decode(again) == record


def take_rows(data: bytes) -> None:
    """The engine's own rows, checksummed values, keys, rows of access keys and of the endpoint."""
    _allow(KvError, lambda: environment.EnvironmentHeader.decode(data))
    _allow(KvError, lambda: environment.decode_position(data))
    seeds = environment.crc_seeds("idx.objects")
    _allow(KvError, lambda: environment.unwrap("idx.objects", seeds, b"k", data))
    assert keys.unescape(keys.escape(data)) == data
    reader: Any = _OneRow(data)
    keyring = access.Keyring(Path("nowhere"), SecretKey(bytes(32)))
    _allow(StoreError, lambda: keyring.lookup(reader, "AKIA"))
    _allow(StoreError, lambda: list(keyring.list_keys(reader)))
    read_endpoint(reader)


@dataclass(frozen=True, slots=True)
class _OneRow:
    value: bytes

    def get(self, table: str, key: bytes) -> bytes:
        return self.value

    def scan(self, table: str, *_: object, **__: object) -> Iterator[tuple[bytes, bytes]]:
        yield b"AKIA", self.value


def take_journal(data: bytes) -> None:
    """One record; sealed anew where the first byte is odd."""
    record = bytearray(data[1:])
    if data[:1] and data[0] & 1 and len(record) >= journal.HEADER_BYTES:
        checksum = blake3(bytes(record[:12]) + bytes(record[16 : journal.HEADER_BYTES - 32]))
        record[journal.HEADER_BYTES - 32 : journal.HEADER_BYTES] = checksum.update(
            bytes(record[journal.HEADER_BYTES :])
        ).digest()
        length = struct.unpack_from(">H", record, 6)[0]
        end = length if journal.HEADER_BYTES <= length <= len(record) else journal.HEADER_BYTES
        struct.pack_into(">I", record, 12, zlib.crc32(record[16:end], zlib.crc32(record[:12])))
    decoded = journal.decode_record(bytes(record))
    assert decoded.header.record_bytes == len(record)


def take_segment(data: bytes) -> None:
    """A whole segment file, as recovery reads it: no record is handed out that does not follow, nothing is cut."""
    with tempfile.TemporaryDirectory(dir=_fast_directory()) as folder:
        directory = Path(folder)
        (directory / f"{1:020d}.log").write_bytes(data)
        reader = JournalReader(directory, STORE_ID, journal.ORIGIN, FileOps())
        try:
            sequence = 0
            for record, position in reader:
                assert record.header.first_sequence == sequence + 1
                sequence = position.sequence
            reader.check_tail()
        finally:
            reader.close()


def take_checkpoint(data: bytes) -> None:
    checkpoint.Checkpoint.from_json(Path("x.ckpt"), data)


def take_backup(data: bytes) -> None:
    """What a destination holds is written by whoever can write there; signed anew where the first byte is odd."""
    body = data[1:]
    if data[:1] and data[0] & 1:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            content = json.loads(body)
            if isinstance(content, dict):
                content.pop("checksum", None)
                body = backup._sign(content)
    _allow(backup.BackupError, lambda: backup.Destination.decode(body, "here"))
    found = backup.Manifest.decode(body, "here")
    assert found.total_bytes >= 0
    for path in found.files:
        assert ".." not in path
        assert not path.startswith("/")


def take_run_folder(data: bytes) -> None:
    """Names and contents of files in run/: lines of the input."""
    with tempfile.TemporaryDirectory(dir=_fast_directory()) as folder:
        directory = Path(folder)
        for line in data.split(b"\n")[:8]:
            name = line[:40].replace(b"/", b"").replace(b"\0", b"")
            if name not in (b"", b".", b".."):
                Path(os.fsdecode(os.fsencode(directory) + b"/" + name)).write_bytes(line)
        for writer, path in runfile.dead_writers(directory):
            assert 0 <= writer < 1 << 32
            path.unlink()
        runfile.RunFiles(directory).writers()


def take_identity(data: bytes) -> None:
    Identity.from_json(json.loads(data))


@cache
def _fast_directory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _allow(errors: type[Exception] | tuple[type[Exception], ...], work: Callable[[], object]) -> None:
    with contextlib.suppress(errors):
        work()


# --- Seeds --------------------------------------------------------------------------------------------------------


_DEEP = b"[" * 50_000  # deeper than Python's own parser goes


def _heads() -> list[bytes]:
    signed = (
        b"GET /bucket/key?versionId=null&partNumber=1 HTTP/1.1\r\nHost: localhost\r\nX-Amz-Date: 20260101T000000Z\r\n"
        b'X-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\nRange: bytes=0-9\r\nIf-Match: "a"\r\nAuthorization: AWS4-HMAC-SHA256 '
        b"Credential=AKIA/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        b"Signature=" + b"0" * 64 + b"\r\n\r\n"
    )
    presigned = (
        b"PUT /b/k%20%C3%A9?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20260101%2Fus-east-1%2Fs3%2F"
        b"aws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature="
        + b"0" * 64
        + b" HTTP/1.1\r\nHost: b.s3.example.com\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    put = (
        b"PUT /bucket/key HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n"
        b"x-amz-checksum-crc32: AAAAAA==\r\nx-amz-meta-a: =?UTF-8?B?w6k=?=\r\nx-amz-tagging: a=b&c=d\r\n"
        b"x-amz-acl: public-read\r\nx-amz-copy-source: /b/k?versionId=null\r\nx-amz-copy-source-range: bytes=0-1\r\n"
        b"If-None-Match: *\r\nIf-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: a/b\r\n\r\n"
    )
    return [signed, presigned, put, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\nHEAD /b HTTP/1.0\r\n\r\n"]


def _chunked() -> list[bytes]:
    return [b"5\r\nhello\r\n0\r\n\r\n", b"1;a=b\r\nx\r\nA\r\n0123456789\r\n0\r\nt: v\r\n\r\nGET /"]


def _aws_chunked() -> list[bytes]:
    signature = b";chunk-signature=" + b"0" * 64
    return [
        b"\x00\x05" + b"5" + signature + b"\r\nhello\r\n0" + signature + b"\r\n\r\n",
        b"\x02\x055\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        b"\x02\x003\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
    ]


def _forms() -> list[bytes]:
    part = b'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\na\r\n'
    file = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nbytes'
    return [
        part + file + b"\r\n--B--\r\n",
        file + b"\r\n--B\r\n",
        b'multipart/form-data; boundary="B"; charset=utf-8',
    ]


def _post_policies() -> list[bytes]:
    return [
        b'{"expiration": "2026-12-30T12:00:00.000Z", "conditions": [{"bucket": "bucket"}, ["starts-with", "$key", ""], '
        b'["eq", "$Content-Type", "text/plain"], ["content-length-range", 1, 10]]}',
        b"policy=e30=\nx-amz-algorithm=AWS4-HMAC-SHA256\nx-amz-credential=AKIA/20260101/us-east-1/s3/aws4_request\n"
        b"x-amz-date=20260101T000000Z\nx-amz-signature=" + b"0" * 64,
    ]


def _policies() -> list[bytes]:
    return [
        b'{"Version": "2012-10-17", "Id": "a", "Statement": [{"Sid": "1", "Effect": "Allow", "Principal": "*", '
        b'"Action": ["s3:GetObject", "s3:Put*"], "Resource": "arn:aws:s3:::bucket/*", "Condition": {"IpAddress": '
        b'{"aws:SourceIp": ["10.0.0.0/8", "::1"]}, "StringLike": {"s3:prefix": "a*?"}, "DateLessThan": '
        b'{"aws:CurrentTime": "2026-01-01T00:00:00Z"}, "NumericLessThanEquals": {"s3:max-keys": "10"}, "Bool": '
        b'{"aws:SecureTransport": "true"}, "Null": {"s3:x-amz-acl": "false"}}}]}',
        b'{"Statement": {"Effect": "Deny", "NotPrincipal": {"AWS": "arn:aws:iam::tenant:root"}, "NotAction": "s3:*", '
        b'"NotResource": ["arn:aws:s3:::bucket"]}}',
    ]


def _xml() -> list[bytes]:
    return [
        b'<?xml version="1.0" encoding="UTF-8"?><CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<Part><PartNumber>1</PartNumber><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><ChecksumCRC32>AAAAAA=="
        b"</ChecksumCRC32></Part></CompleteMultipartUpload>",
        b"<Delete><Quiet>true</Quiet><Object><Key>a&#x1;&amp;</Key><VersionId>null</VersionId></Object></Delete>",
        b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
        b"<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Disabled</MfaDelete></VersioningConfiguration>",
        b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE"
        b"</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
        b"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2026-01-01T00:00:00Z</RetainUntilDate></Retention>",
        b"<LegalHold><Status>ON</Status></LegalHold>",
        b"<CORSConfiguration><CORSRule><ID>a</ID><AllowedOrigin>https://*.a</AllowedOrigin><AllowedMethod>GET"
        b"</AllowedMethod><AllowedHeader>*</AllowedHeader><MaxAgeSeconds>1</MaxAgeSeconds></CORSRule></CORSConfiguration>",
        b'<AccessControlPolicy><Owner><ID>owner</ID></Owner><AccessControlList><Grant><Grantee xmlns:xsi="http://www.w3.org'
        b'/2001/XMLSchema-instance" xsi:type="CanonicalUser"><ID>a</ID></Grantee><Permission>READ</Permission></Grant>'
        b"</AccessControlList></AccessControlPolicy>",
        b"<LifecycleConfiguration><Rule><ID>a</ID><Status>Enabled</Status><Filter><And><Prefix>a/</Prefix><Tag><Key>k</Key>"
        b"<Value>v</Value></Tag><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter><Expiration><Days>1</Days>"
        b"</Expiration><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule>"
        b"<Rule><Status>Enabled</Status><Prefix/><AbortIncompleteMultipartUpload><DaysAfterInitiation>1"
        b"</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>",
        b"<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>",
        b"<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>",
        b"<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
        b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
        b"</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
    ]


def _frame() -> bytes:
    chunks = [b"text " * 300, bytes(range(256)) * 4]
    encoded = frame.encode_frame([bytes([n]) * 32 for n in range(len(chunks))], chunks)
    return encoded.header + b"".join(encoded.payload)


def _raw_frame() -> bytes:
    encoded = frame.encode_frame([b"r" * 32], [blake3(b"noise").digest(length=900)])
    return encoded.header + b"".join(encoded.payload)


def _packs() -> list[bytes]:
    header = pack.PackHeader.of(Identity(STORE_ID, b"k" * 32), PACK, pack.PackKind.DATA).encode()
    body, frames = header, []
    for each in (_frame(), _raw_frame()):
        frames.append((len(body), each[: frame.header_length(each)]))
        body += each
    sealed = body + pack.encode_footer(len(body), frames)
    return [mark + data for data in (sealed, body, body + bytes(500)) for mark in (b"\0", b"\1")]


def _manifests() -> list[bytes]:
    leaves = [manifest.Entry(ChunkId(bytes([n]) * 32), n, 100 + n) for n in range(3)]
    branches = [manifest.Entry(ChunkId(bytes([n]) * 32), 0, 1000) for n in range(2)]
    found = [manifest.EMPTY.encode()]
    for level, entries in ((0, leaves), (1, branches), (3, branches)):
        size = sum(entry.length for entry in entries)
        found.append(manifest.Manifest(level, size, manifest.pack(level, entries)).encode())
    return found


def _nodes() -> list[bytes]:
    entries = [manifest.Entry(ChunkId(bytes([n]) * 32), 0, 100) for n in range(3)]
    return [manifest.encode_node(level, manifest.pack(level, entries)) for level in range(3)]


def _catalog() -> list[bytes]:
    row = catalog.PackRow(pack.PackKind.DATA, 0, catalog.PackState.OPEN, 100, 1, 1, 100)
    contents = pack.read_contents(
        PACK, lambda at, size: _packs()[0][1:][at : at + size], len(_packs()[0]) - 1
    )
    return [row.encode(), *(row for _, row in placements(PACK, contents))]


def _records() -> list[bytes]:
    checksum = records.Checksum("CRC32", "FULL_OBJECT", "AAAAAA==")
    digest = "d41d8cd98f00b204e9800998ecf8427e"
    summary = records.PartSummary(1, 5, digest, checksum)
    full = records.ObjectRecord(
        5, 1_700_000_000_000, digest + "-2", "me", 7, b"v" * VERSION_ID_BYTES, False, "text/plain", (("a", "b"),),
        (("c", "d"),), checksum, b"inline", None, records.encode_parts([summary]), 10, 0, (("t", "u"),),
        records.Retention("GOVERNANCE", 5), True, (("x", "READ"),),
    )  # fmt: skip
    bucket = records.BucketRecord(
        1, "bucket", "me", 5, 7, "Enabled", True, records.DefaultRetention("COMPLIANCE", 1, "Days"), True
    )
    upload = records.UploadRecord(
        "0" * 32, b"key", "me", 5, 7, "a/b", (("a", "b"),), (), "CRC32", "COMPOSITE"
    )
    part = records.PartRecord(1, 5, digest, 5, b"manifest", checksum, 7)
    return [full.encode(), bucket.encode(), upload.encode(), part.encode(), full.part_table]


def _rows() -> list[bytes]:
    header = environment.EnvironmentHeader(STORE_ID, b"g" * 16, 1 << 30, b"b" * 16)
    seeds = environment.crc_seeds("idx.objects")
    endpoint = b'E\x01{"url": "http://127.0.0.1:9000", "ca_bundle": null}'
    return [
        header.encode(),
        environment.encode_position(journal.ORIGIN),
        environment.wrap(seeds, b"k", b"v"),
        endpoint,
    ]


def _journal_records() -> list[bytes]:
    found, chain, sequence = [], bytes(journal.NO_RECORD), 1
    for functions in (
        [{("idx.objects", b"k"): b"v" * 50, ("cas.packs", b"p"): None}],
        [{}, {("idx.objects", b"l"): b""}],
    ):
        record = journal.encode_record(
            functions,
            store_id=STORE_ID,
            first_sequence=sequence,
            wall_ms=5,
            writer_tag=b"w" * 16,
            chain=chain,
        )
        found.append(record)
        chain, sequence = bytes(journal.record_checksum(record)), sequence + len(functions)
    return found


def _checkpoints() -> list[bytes]:
    position = journal.Position(7, 5, 100, journal.NO_RECORD)
    return [
        checkpoint.Checkpoint(Path("x.ckpt"), STORE_ID, position, 5, "0" * 64, 1).to_json(),
        b"{}",
        b"[]",
        _DEEP,
    ]


def _sidecars() -> list[bytes]:
    geometry = parity.plan_geometry(300_000, 10)
    header = parity.encode_header(STORE_ID, PACK, geometry)
    digests = [parity.digest(bytes([n % 256])) for n in range(geometry.blocks + geometry.parity_blocks)]
    return [header + parity.encode_pages(header, digests)]


def _backups() -> list[bytes]:
    position = journal.Position(7, 5, 100, journal.NO_RECORD)
    files = {"packs/01/0000000100000001.pack": (backup.Piece(5, "0" * 64),), "store.json": ()}
    found = backup.Manifest(1, STORE_ID, 5, position, None, files, {"store.json": "lost"})
    encoded = found.encode()
    endless = encoded.replace(b'"created_ms":5', b'"created_ms":1e999')
    return [encoded, endless, backup.Destination(STORE_ID, STORE_ID).encode(), b"[]", b"{}", _DEEP]


def _identities() -> list[bytes]:
    return [json.dumps(Identity(STORE_ID, b"k" * 32).to_json()).encode(), b"{}", b"[]", b"null"]


def _sealable(seeds: Iterable[bytes]) -> list[bytes]:
    return [mark + seed for seed in seeds for mark in (b"\0", b"\1")]


_HTTP_WORDS = (
    b"\r\n", b": ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1", b"%2F", b"%00", b"%C3%28", b"?",
    b"&", b"=", b"/", b"..", b"Range: bytes=", b"x-amz-", b"-", b",", b";", b'"', b"*", b"\t", b"X-Amz-Date", b"acl",
    b"uploads", b"uploadId=", b"versionId=", b"Host: ",
)  # fmt: skip
_XML_WORDS = (
    b"<", b">", b"</", b"/>", b"&amp;", b"&#0;", b"&#x10FFFF;", b"&lt;", b"<![CDATA[", b"]]>", b"<!--", b"-->", b"<?xml ",
    b"<!DOCTYPE", b"<!ENTITY", b' xmlns="', b"<Part>", b"<Key>", b"<Rule>", b"<Prefix>", b"<Days>", b"</Rule>", b"</Key>",
)  # fmt: skip
_JSON_WORDS = (
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"null", b"true", b"1e999", b"-0", b"NaN", b"\\u0000", b"\\ud800", b"\\$",
    b"Condition", b"Statement", b"expiration", b"conditions", b"[" * 200, b"arn:aws:s3:::", b"*", b"?", b"${aws:username}",
)  # fmt: skip
_BINARY_WORDS = (
    b"VltJ",
    b"VtFr",
    b"VtPk",
    b"VtFo",
    b"VtEn",
    b"VtNd",
    b"VltH",
    b"VltA",
    bytes(8),
    b"\xff" * 8,
)

_ALL = (
    Target("head", take_head, (), _heads, _HTTP_WORDS),
    Target("request", take_request, (S3Error,), _heads, _HTTP_WORDS),
    Target("chunked", take_chunked, (), _chunked, (b"\r\n", b"0\r\n", b";", b"ffffffff")),
    Target("aws-chunked", take_aws_chunked, (), _aws_chunked, (b"\r\n", b"0\r\n", b";chunk-signature=", b"x-amz-checksum-crc32:")),
    Target("form", take_form, (), _forms, (b"\r\n", b"--B", b"--B--", b"Content-Disposition: ", b'name="', b'filename="')),
    Target("post-policy", take_post_policy, (), _post_policies, _JSON_WORDS),
    Target("policy", take_policy, (S3Error,), _policies, _JSON_WORDS),
    Target("xml", take_xml, (), _xml, _XML_WORDS),
    Target("frame", take_frame, (CorruptFrame, UnsupportedFormat), lambda: _sealable([_frame(), _raw_frame()]), _BINARY_WORDS),
    Target("pack", take_pack, (), _packs, _BINARY_WORDS),
    Target("sidecar", take_sidecar, (CorruptFrame, UnsupportedFormat), lambda: _sealable(_sidecars()), _BINARY_WORDS),
    Target("backup", take_backup, (backup.BackupError,), lambda: _sealable(_backups()), _JSON_WORDS),
    Target("manifest", take_manifest, (CorruptManifest, UnsupportedFormat), _manifests, _BINARY_WORDS),
    Target("node", take_node, (), _nodes, _BINARY_WORDS),
    Target("catalog", take_catalog, (CorruptRow, UnsupportedFormat), _catalog, _BINARY_WORDS),
    Target("records", take_records, (), _records, _BINARY_WORDS),
    Target("rows", take_rows, (NamesError,), _rows, _BINARY_WORDS),
    Target("journal", take_journal, (journal.InvalidRecord, UnsupportedEngine), lambda: _sealable(_journal_records()), _BINARY_WORDS),
    Target("segment", take_segment, (CorruptJournal, UnsupportedEngine), lambda: [b"".join(_journal_records()) + bytes(100)], _BINARY_WORDS),
    Target("checkpoint", take_checkpoint, (checkpoint.CorruptCheckpoint,), _checkpoints, _JSON_WORDS),
    Target("run-folder", take_run_folder, (), lambda: [b"worker-00000001\n.worker-a\npoisoned\nworker-1~"], (b"-", b"worker-", b"\n")),
    Target("tar", take_tar, (), tar_seeds, TAR_WORDS),
    Target("identity", take_identity, (KeyError, TypeError, ValueError, UnsupportedFormat), _identities, _JSON_WORDS),
)  # fmt: skip
TARGETS = {target.name: target for target in _ALL}
