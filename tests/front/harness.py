"""A running front and a client made of one raw socket, in clear or under TLS."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vaultaire.supervisor import child_environment

if TYPE_CHECKING:
    from vaultaire.config import ServeConfig

PATIENCE_SECONDS = 15  # no test waits so long for what does happen


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


class Front:
    """A supervisor with its children; use it as a context manager."""

    def __init__(self, config: ServeConfig, ca: Path | None = None, *arguments: str) -> None:
        self.config = config
        self.ca = ca
        self.port = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__; a pipe would fill
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.front.run", config.to_json(), *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=child_environment(),
        )

    def wait_ready(self) -> Self:
        line = self.process.stdout.readline().split()
        assert line, self.log()
        self.port = int(line[1])
        return self

    def __enter__(self) -> Self:
        try:
            return self.wait_ready()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._log, self.process as process:
            process.terminate()
            try:
                process.communicate(timeout=self.config.grace_seconds + PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    def log(self) -> str:
        """What the processes wrote to stderr."""
        self._log.seek(0)
        return self._log.read().decode()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """(exit code, seconds it took)."""
        begin = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(PATIENCE_SECONDS)
        return self.process.returncode, time.monotonic() - begin

    def children(self) -> set[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in path.read_text().split()}

    def all_children(self, count: int) -> set[int]:
        """The same, once there are `count`: maintenance starts only after the workers are ready."""
        eventually(lambda: len(self.children()) == count)
        return self.children()

    def connect(self, receive_buffer: int | None = None) -> Client:
        return Client(self, receive_buffer)

    def get(self, path: str) -> Response:
        with self.connect() as client:
            return client.request(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")


class Client:
    """One connection. Reads raise TimeoutError when nothing comes."""

    def __init__(self, front: Front, receive_buffer: int | None = None) -> None:
        sock = socket.socket()
        sock.settimeout(PATIENCE_SECONDS)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(("127.0.0.1", front.port))
        if front.ca is not None:
            context = ssl.create_default_context(cafile=str(front.ca))
            context.set_alpn_protocols(["h2", "http/1.1"])
            sock = context.wrap_socket(sock, server_hostname="127.0.0.1")
        self.sock = sock
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: str | bytes) -> None:
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def request(self, data: str | bytes) -> Response:
        self.send(data)
        return self.response(head_only=data[:4] in ("HEAD", b"HEAD"))

    def _more(self) -> bool:
        try:
            data = self.sock.recv(1 << 16)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        self.buffer += data
        return bool(data)

    def response(self, *, head_only: bool = False) -> Response:
        """The next response. EOFError if the server closes before its end."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                raise EOFError(self.buffer)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(re.fullmatch(r"([^:]+): *(.*)", line).groups() for line in lines[1:])
        status = int(lines[0].split(" ")[1])
        bodiless = head_only or status < 200 or status in (204, 304)
        return Response(status, headers, b"" if bodiless else self._body(headers))

    def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") == "chunked":
            return self._chunks()
        while self._more():
            pass
        body, self.buffer = self.buffer, b""
        return body

    def _chunks(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self.buffer:
                if not self._more():
                    raise EOFError
            size, _, self.buffer = self.buffer.partition(b"\r\n")
            body += self._exactly(int(size, 16))
            assert self._exactly(2) == b"\r\n"
            if not int(size, 16):
                return body

    def _exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self._more():
                raise EOFError(f"{len(self.buffer)} of {count} bytes")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def is_closed(self) -> bool:
        """The server closes, and says nothing more before it does."""
        return not self.buffer and not self._more()


@dataclass
class Certificate:
    cert: Path
    key: Path


def make_certificate(directory: Path) -> Certificate:
    """A self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "front test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(directory / "cert.pem", directory / "key.pem")
    made.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made


def eventually(claim: object, pause: float = 0.02) -> None:
    """Wait until `claim()` is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not claim():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(pause)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
