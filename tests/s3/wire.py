"""S3 requests made by hand: signed here, sent over a socket as they are, so that any single byte can be wrong.

The signer follows the Signature V4 documents and shares no code with the server:
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html (headers),
sigv4-query-string-auth.html (presigned), sigv4-streaming.html and sigv4-streaming-trailers.html (chunks).
Paths are given as they go on the wire (already percent-encoded), and nothing normalises them.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import hmac
import http.client
import io
import itertools
import re
import socket
import ssl
import xml.etree.ElementTree as ElementTree
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote, urlsplit

from tests.s3.harness import REGION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from _typeshed import WriteableBuffer

    Pairs = Sequence[tuple[str, str]]

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_CHUNKS_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
ANSWER_SECONDS = 20.0  # no answer for so long is a hang


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def content_md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def multipart_etag(parts: Iterable[bytes]) -> str:
    """S3's ETag of a multipart upload: the MD5 of the parts' MD5s, a dash, the number of parts."""
    digests = [hashlib.md5(part).digest() for part in parts]
    return f"{md5(b''.join(digests))}-{len(digests)}"


# -- answers


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def xml(self) -> ElementTree.Element:
        return ElementTree.fromstring(self.body)

    @property
    def code(self) -> str:
        """The S3 error code of the body; empty if there is none."""
        found = re.search(rb"<Code>(\w+)</Code>", self.body)
        return found[1].decode() if found else ""

    def text(self, name: str) -> str:
        """The text of the first element of that name, whatever its namespace."""
        for element in self.xml.iter():
            if element.tag.rpartition("}")[2] == name:
                return element.text or ""
        return ""

    def texts(self, name: str) -> list[str]:
        return [e.text or "" for e in self.xml.iter() if e.tag.rpartition("}")[2] == name]

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


def assert_error(answer: Answer, status: int, *codes: str) -> Answer:
    """An S3 error of that status and one of those codes, in S3's form, its ids equal to the headers'."""
    found = (answer.status, answer.code)
    assert found[0] == status, f"{found} instead of {status} {codes}: {answer.body[:600]!r}"
    assert not codes or answer.code in codes, f"{found} instead of {status} {codes}: {answer.body[:600]!r}"
    assert answer.xml.tag == "Error"
    assert answer.headers["content-type"] == "application/xml"
    assert answer.text("RequestId") == answer.headers["x-amz-request-id"] != ""
    assert answer.text("HostId") == answer.headers["x-amz-id-2"]
    assert answer.text("Message") != ""
    return answer


# -- connections


class _Input(io.RawIOBase):
    """What arrives on a socket. Unlike the socket's own file, it may be read again after a timeout."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._source.recv_into(buffer)


class _Shared:
    """Lends one buffered input to http.client, answer after answer; what it reads ahead is not lost."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def makefile(self, _mode: str) -> Self:
        return self

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Connection:
    """One TCP (or TLS) connection on which requests are sent as bytes and answers read by http.client."""

    def __init__(self, url: str, *, ca: str | None = None, timeout: float = ANSWER_SECONDS) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        raw = socket.create_connection((parts.hostname, parts.port or 80), timeout=timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca)
            raw = context.wrap_socket(raw, server_hostname=parts.hostname)
        self.socket = raw
        self._input = io.BufferedReader(_Input(raw))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends it all, unless the peer has closed meanwhile: its answer is then still to be read."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            return

    def half_close(self) -> None:
        """Ends our side (the TCP stream; a killed client sends no TLS goodbye either). Answers can still be read."""
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer (informational ones passed over). Raises ConnectionError if the peer closed instead."""
        response = http.client.HTTPResponse(_Shared(self._input), method=method)  # type: ignore[arg-type]
        try:
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())
        except http.client.RemoteDisconnected as error:
            raise ConnectionResetError("closed without an answer") from error
        finally:
            response.close()

    def read_line(self) -> bytes:
        """One line as it comes, for looking at informational answers."""
        return self._input.readline()

    def closed(self, timeout: float = ANSWER_SECONDS) -> bool:
        """Whether the peer ends the connection within that time (what it still sends is read and dropped)."""
        self.socket.settimeout(timeout)
        try:
            while self._input.read1(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


def exchange_many(caller: Caller, requests: Iterable[Request], connections: int = 16) -> list[Answer]:
    """The answers to many requests, in their order; as many at a time as there are connections."""
    answers: list[Answer] = []
    left = iter(requests)
    with ExitStack() as held:
        lines = [held.enter_context(caller.connect()) for _ in range(connections)]
        while batch := list(itertools.islice(left, connections)):
            for line, request in zip(lines, batch, strict=False):
                line.send(request.encode())
            answers += [line.answer(request.method) for line, request in zip(lines, batch, strict=False)]
    return answers


# -- requests


@dataclass(frozen=True, slots=True)
class Request:
    """A signed request, ready to go out; `replace` on it makes a wrong one."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    signature: str = ""
    signing_key: bytes = b""
    date: str = ""
    scope: str = ""

    def head(self) -> bytes:
        lines = [
            f"{self.method} {self.target} HTTP/1.1",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    def encode(self) -> bytes:
        return self.head() + self.body

    def with_header(self, name: str, value: str | None) -> Request:
        """The header replaced (or added, or taken out with None) after signing."""
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def header(self, name: str) -> str:
        return next(value for key, value in self.headers if key.lower() == name.lower())


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone with a key, talking to one server."""

    url: str
    access_key: str
    secret_key: str
    ca: str | None = None
    region: str = REGION
    service: str = "s3"

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def connect(self, timeout: float = ANSWER_SECONDS) -> Connection:
        return Connection(self.url, ca=self.ca, timeout=timeout)

    def call(self, method: str, path: str, **rest: object) -> Answer:
        """Sign, send on a connection of its own, read the answer. Arguments as for `sign`."""
        return self.exchange(self.sign(method, path, **rest))  # type: ignore[arg-type]

    def anonymous(
        self, method: str, path: str, *, query: str = "", headers: Pairs = (), body: bytes = b""
    ) -> Answer:
        """Send it without any signature, as a browser or a stranger does."""
        sent = [("Host", self.host), *headers]
        if body or method in ("PUT", "POST"):
            sent.append(("Content-Length", str(len(body))))
        return self.exchange(Request(method, f"{path}?{query}" if query else path, tuple(sent), body))

    def exchange(self, request: Request) -> Answer:
        with self.connect() as connection:
            connection.send(request.encode())
            return connection.answer(request.method)

    def sign(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Pairs = (),
        body: bytes = b"",
        payload: str | None = None,
        length: int | str | None = "body",
        date: datetime.datetime | None = None,
        unsigned: Pairs = (),
    ) -> Request:
        """A request with an Authorization header.

        `payload` is the x-amz-content-sha256 (the body's hash by default); `length` the Content-Length (that of the
        body by default, None for no such header); `unsigned` headers are sent but not signed.
        """
        now = _amz_date(date)
        payload = sha256(body) if payload is None else payload
        length = len(body) if length == "body" else length
        sent = [("Host", self.host), ("x-amz-date", now), ("x-amz-content-sha256", payload), *headers]
        signature, names, key = self._signature(method, path, query, sent, payload, now)
        credential = f"{self.access_key}/{self._scope(now)}"
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
        )
        sent += [("Authorization", authorization), *unsigned]
        if length is not None:
            sent.append(("Content-Length", str(length)))
        target = f"{path}?{query}" if query else path
        return Request(method, target, tuple(sent), body, signature, key, now, self._scope(now))

    def presign(
        self,
        method: str,
        path: str,
        *,
        expires: str | int = 300,
        query: Pairs = (),
        headers: Pairs = (),
        date: datetime.datetime | None = None,
        body: bytes = b"",
        unsigned: Pairs = (),
    ) -> Request:
        """A request whose signature is in its query; `headers` are signed, `unsigned` ones are not."""
        now = _amz_date(date)
        sent = [("Host", self.host), *headers]
        names = ";".join(sorted(name.lower() for name, _ in sent))
        pairs = [
            *query,
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", f"{self.access_key}/{self._scope(now)}"),
            ("X-Amz-Date", now),
            ("X-Amz-Expires", str(expires)),
            ("X-Amz-SignedHeaders", names),
        ]
        raw = "&".join(f"{_encode(name)}={_encode(value)}" for name, value in pairs)
        signature, _, key = self._signature(method, path, raw, sent, UNSIGNED, now)
        sent += unsigned
        if body or method in ("PUT", "POST"):
            sent.append(("Content-Length", str(len(body))))
        target = f"{path}?{raw}&X-Amz-Signature={signature}"
        return Request(method, target, tuple(sent), body, signature, key, now, self._scope(now))

    def _scope(self, now: str) -> str:
        return f"{now[:8]}/{self.region}/{self.service}/aws4_request"

    def _signature(
        self, method: str, path: str, query: str, headers: Pairs, payload: str, now: str
    ) -> tuple[str, str, bytes]:
        values: dict[str, list[str]] = {}
        for name, value in headers:
            values.setdefault(name.lower(), []).append(re.sub(r"\s+", " ", value.strip()))
        names = ";".join(sorted(values))
        canonical = "\n".join(
            [
                method,
                _encode(unquote(path, errors="surrogateescape"), safe="/"),
                _canonical_query(query),
                *(f"{name}:{','.join(values[name])}" for name in sorted(values)),
                "",
                names,
                payload,
            ]
        )
        to_sign = "\n".join(["AWS4-HMAC-SHA256", now, self._scope(now), sha256(canonical.encode())])
        key = _signing_key(self.secret_key, now[:8], self.region, self.service)
        return hmac.new(key, to_sign.encode(), "sha256").hexdigest(), names, key


@functools.cache
def _signing_key(secret_key: str, day: str, region: str, service: str) -> bytes:
    key = b"AWS4" + secret_key.encode()
    for step in (day, region, service, "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return key


def _amz_date(date: datetime.datetime | None) -> str:
    return (date or datetime.datetime.now(datetime.UTC)).strftime("%Y%m%dT%H%M%SZ")


def _encode(text: str, safe: str = "") -> str:
    return quote(text.encode("utf-8", "surrogateescape"), safe=safe + "-_.~")


def _canonical_query(query: str) -> str:
    pairs = []
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        if name != "X-Amz-Signature":
            decoded = (unquote(part, errors="surrogateescape") for part in (name, value))
            pairs.append(tuple(_encode(part) for part in decoded))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


# -- aws-chunked bodies


@dataclass(slots=True)
class ChunkSigner:
    """The chain of chunk signatures that begins with a request's own."""

    request: Request
    previous: str = field(init=False)

    def __post_init__(self) -> None:
        self.previous = self.request.signature

    def chunk(self, data: bytes) -> bytes:
        self.previous = self._sign("AWS4-HMAC-SHA256-PAYLOAD", EMPTY_SHA256, sha256(data))
        return b"%x;chunk-signature=%s\r\n%s\r\n" % (len(data), self.previous.encode(), data)

    def last_chunk_before_trailer(self) -> bytes:
        self.previous = self._sign("AWS4-HMAC-SHA256-PAYLOAD", EMPTY_SHA256, EMPTY_SHA256)
        return b"0;chunk-signature=%s\r\n" % self.previous.encode()

    def trailer(self, name: str, value: str) -> bytes:
        signed = self._sign("AWS4-HMAC-SHA256-TRAILER", sha256(f"{name}:{value}\n".encode()))
        return f"{name}:{value}\r\nx-amz-trailer-signature:{signed}\r\n\r\n".encode()

    def _sign(self, kind: str, *hashes: str) -> str:
        to_sign = "\n".join([kind, self.request.date, self.request.scope, self.previous, *hashes])
        return hmac.new(self.request.signing_key, to_sign.encode(), "sha256").hexdigest()


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def signed_chunks(request: Request, data: bytes, size: int = 65536) -> bytes:
    """The body of a STREAMING-AWS4-HMAC-SHA256-PAYLOAD request."""
    signer = ChunkSigner(request)
    return b"".join(signer.chunk(piece) for piece in [*pieces(data, size), b""])


def signed_chunks_trailer(
    request: Request, data: bytes, trailer: tuple[str, str], size: int = 65536
) -> bytes:
    signer = ChunkSigner(request)
    chunks = [signer.chunk(piece) for piece in pieces(data, size)]
    return b"".join([*chunks, signer.last_chunk_before_trailer(), signer.trailer(*trailer)])


def unsigned_chunks_trailer(data: bytes, trailer: tuple[str, str], size: int = 65536) -> bytes:
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces(data, size)]
    return b"".join([*chunks, b"0\r\n", f"{trailer[0]}:{trailer[1]}\r\n\r\n".encode()])


def http_chunked(data: bytes, size: int = 100_000) -> bytes:
    """HTTP/1.1 chunked transfer coding around `data`."""
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces(data, size)]
    return b"".join([*chunks, b"0\r\n\r\n"])


def streaming_request(
    caller: Caller,
    path: str,
    data: bytes,
    payload: str,
    *,
    headers: Pairs = (),
    transfer_chunked: bool = False,
) -> Request:
    """A PUT of `data` in one of the STREAMING forms, its checksum (CRC32) in the trailer where there is one."""
    sent = [("x-amz-decoded-content-length", str(len(data))), ("Content-Encoding", "aws-chunked"), *headers]
    trailer = ("x-amz-checksum-crc32", crc32(data))
    if payload.endswith("-TRAILER"):
        sent.append(("x-amz-trailer", trailer[0]))
    request = caller.sign("PUT", path, headers=sent, payload=payload, length=None)
    if payload == SIGNED_CHUNKS:
        body = signed_chunks(request, data)
    elif payload == SIGNED_CHUNKS_TRAILER:
        body = signed_chunks_trailer(request, data, trailer)
    else:
        body = unsigned_chunks_trailer(data, trailer)
    if transfer_chunked:
        return replace(request.with_header("Transfer-Encoding", "chunked"), body=http_chunked(body))
    return replace(request.with_header("Content-Length", str(len(body))), body=body)


def with_body(request: Request, body: bytes) -> Request:
    """Another body, with its Content-Length, under the signature as it was."""
    return replace(request.with_header("Content-Length", str(len(body))), body=body)
