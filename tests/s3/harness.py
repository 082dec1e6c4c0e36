"""A Vaultaire server as a process: started, stopped, killed and started again over one data directory.

Guarantees: `start` returns only when the server has printed that it is ready; whatever happens to the test, `close`
ends every process that was started (the server runs in a session of its own, and its descendants are known); its
standard error is kept in a file, so that a failing test can show it. Nothing here speaks S3: see `wire`.
"""

from __future__ import annotations

import ctypes
import datetime
import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT_ACCESS_KEY = "VAULTAIRETESTROOT001"
ROOT_SECRET_KEY = "root/secret+for/the+black/box+tests/0001"
REGION = "us-east-1"
REPOSITORY = Path(__file__).resolve().parents[2]
READY = re.compile(r"^vaultaire: ready on (?P<url>https?://\S+)$")
START_SECONDS = 60.0  # a hang is a failure; a start takes about one second
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Variant:
    """What CI varies between runs of the same tests."""

    workers: int = 1
    tls: bool = False

    @classmethod
    def from_environment(cls) -> Variant:
        return cls(
            workers=int(os.environ.get("VAULTAIRE_TEST_WORKERS", "1")),
            tls=os.environ.get("VAULTAIRE_TEST_TLS", "0") == "1",
        )


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for 127.0.0.1 and localhost, signed by itself, as two PEM files."""

    cert: Path
    key: Path

    @classmethod
    def create(cls, directory: Path, *, authority: bool = True) -> Certificate:
        """`authority`: it may be trusted as it is, but strict clients (rustls) take it for no server's."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        today = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        public = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=30))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True
            )
            .add_extension(public, critical=False)
            .sign(key, hashes.SHA256())
        )
        made = cls(directory / "cert.pem", directory / "key.pem")
        made.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made


@dataclass(slots=True, eq=False)
class Server:
    """One server over `data`. `port` is kept across restarts, so that clients need not be told."""

    data: Path
    workers: int = 1
    certificate: Certificate | None = None
    arguments: Sequence[str] = ()
    access_key: str = ROOT_ACCESS_KEY
    secret_key: str = ROOT_SECRET_KEY
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    started_seconds: float = 0.0  # how long the last start took
    shared_keys: set[str] = field(default_factory=set)  # see `keys`
    _descendants: set[Process] = field(default_factory=set)

    @property
    def log_path(self) -> Path:
        return self.data.parent / f"{self.data.name}.stderr"

    @property
    def tls(self) -> bool:
        return self.certificate is not None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- starting

    def start(self) -> Self:
        """Start and wait until ready. Raises RuntimeError with the server's own words if it does not come up."""
        assert self.process is None, "already started"
        began = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=REPOSITORY,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise
        self.started_seconds = time.monotonic() - began
        self._descendants |= set(self.descendants())
        return self

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "vaultaire", "serve", "--data", str(self.data)]
        command += ["--listen", f"127.0.0.1:{self.port}", "--workers", str(self.workers)]
        if self.certificate is not None:
            command += ["--tls-cert", str(self.certificate.cert), "--tls-key", str(self.certificate.key)]
        return [*command, *self.arguments]

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VAULTAIRE_", "AWS_"))}
        keys = {
            "VAULTAIRE_ROOT_ACCESS_KEY": self.access_key,
            "VAULTAIRE_ROOT_SECRET_KEY": self.secret_key,
        }
        return {**inherited, **keys, **self.environment}

    def _wait_ready(self) -> None:
        assert self.process is not None
        ready = threading.Event()
        threading.Thread(
            target=self._read_stdout, args=(self.process, ready), name="server stdout", daemon=True
        ).start()
        deadline = time.monotonic() + START_SECONDS
        while not ready.wait(0.02):
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log_text()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server is not ready after {START_SECONDS} s:\n{self.log_text()}")

    def _read_stdout(self, process: subprocess.Popen[bytes], ready: threading.Event) -> None:
        """Reads to the end, so that the server never waits for a full pipe."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if match := READY.match(line.decode(errors="replace").strip()):
                    self.url = match["url"].rstrip("/")
                    self.port = urlsplit(self.url).port or 0
                    ready.set()

    # -- ending

    def stop(self, timeout_seconds: float = 30.0) -> float:
        """SIGTERM, as a service manager does it. Seconds until the end; the exit code must be 0."""
        assert self.process is not None
        self._descendants |= set(self.descendants())
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout_seconds)
        taken = time.monotonic() - began
        self.process = None
        self._end_descendants()
        assert code == 0, f"the server ended with {code} after SIGTERM:\n{self.log_text()}"
        return taken

    def kill(self) -> None:
        """SIGKILL to the whole group at once: what a power switch leaves of the processes."""
        assert self.process is not None
        self._descendants |= set(self.descendants())
        for process in self._descendants:
            process.kill()
        self._reap()

    def kill_supervisor(self, timeout_seconds: float = 10.0) -> None:
        """SIGKILL to the supervisor alone; returns when the workers have noticed and are gone."""
        assert self.process is not None
        self._descendants |= set(self.descendants())
        self.process.kill()
        self.process.wait()
        self.process = None
        deadline = time.monotonic() + timeout_seconds
        while left := [process for process in self._descendants if process.alive()]:
            if time.monotonic() > deadline:
                self._end_descendants()
                raise AssertionError(f"processes outlived their supervisor: {left}\n{self.log_text()}")
            time.sleep(0.01)
        self._descendants.clear()

    def kill_worker(self, index: int = 0, number: int = signal.SIGKILL) -> int:
        """A signal to one worker alone; the supervisor is to start another. The pid it had."""
        workers = self.worker_pids()
        pid = workers[index % len(workers)]
        os.kill(pid, number)
        return pid

    def restart(self) -> Self:
        if self.process is not None:
            self.stop()
        return self.start()

    def close(self) -> None:
        """End everything, whatever state it is in. Idempotent."""
        if self.process is not None:
            self.kill()
        self._end_descendants()

    def _reap(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None
        self._end_descendants()

    def _end_descendants(self) -> None:
        for process in self._descendants:
            process.kill()
        deadline = time.monotonic() + 5
        while any(process.alive() for process in self._descendants) and time.monotonic() < deadline:
            time.sleep(0.005)
        self._descendants.clear()

    # -- looking at it

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def descendants(self) -> list[Process]:
        return list(_descendants(self.process.pid)) if self.process is not None else []

    def worker_pids(self) -> list[int]:
        """The processes that serve requests (not the supervisor, not maintenance), in a fixed order."""
        return sorted(p.pid for p in self.descendants() if "vaultaire.worker" in p.command_line())

    def anonymous_bytes(self) -> int:
        """The largest RssAnon of the workers: what they hold beside the page cache."""
        return max((anonymous_bytes(pid) for pid in self.worker_pids()), default=0)

    # -- the command line, on the data directory of this server

    def cli(
        self, *arguments: str, check: bool = True, timeout_seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "vaultaire", *arguments],
            cwd=REPOSITORY,
            env={**self._environment(), "VAULTAIRE_DATA": str(self.data), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )
        if check:
            assert done.returncode == 0, f"vaultaire {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done

    def stats(self) -> dict[str, float]:
        """The store's totals as `vaultaire stats --json` gives them."""
        return store_totals(json.loads(self.cli("stats", "--json").stdout))


def store_totals(statistics: dict[str, object]) -> dict[str, float]:
    totals = statistics.get("total", statistics)
    assert isinstance(totals, dict)
    return {name: value for name, value in totals.items() if isinstance(value, int | float)}


# -- processes, as /proc shows them (Linux)

_LIBC = ctypes.CDLL(None)  # loaded here: nothing may be imported between fork and exec
PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """A test run that is killed outright cannot end its servers: the kernel then sends them SIGTERM."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Process:
    """A process and when it began (clock ticks since boot): a number used again is not mistaken for it."""

    pid: int
    began: int

    def alive(self) -> bool:
        """False also for a zombie that nobody has waited for yet."""
        fields = _stat(self.pid)
        return bool(fields) and int(fields[19]) == self.began and fields[0] not in "ZX"

    def kill(self) -> None:
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def command_line(self) -> str:
        try:
            return (
                Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            return ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name (state is 0, parent 1, start time 19); empty if gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _descendants(pid: int) -> Iterator[Process]:
    children: dict[int, list[Process]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(path.name)):
            children.setdefault(int(fields[1]), []).append(Process(int(path.name), int(fields[19])))
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            yield child
            waiting.append(child.pid)


def anonymous_bytes(pid: int) -> int:
    """RssAnon of one process, in bytes; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
