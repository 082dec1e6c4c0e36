"""One server for the whole session, a fresh bucket for each test, and the server's own words when a test fails."""

from __future__ import annotations

import os
import random
import re
import socket
import sys
from collections import Counter
from typing import TYPE_CHECKING, NoReturn

import boto3
import pytest
from botocore.config import Config

from tests.s3.harness import Certificate, Server, Variant
from tests.s3.keys import SECRET, shared_key
from tests.s3.wire import Caller, exchange_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from botocore.client import BaseClient as S3Client

_running: list[Server] = []  # whose log is shown when a test fails
_log_marks: dict[Server, int] = {}


@pytest.fixture(scope="session")
def variant() -> Variant:
    return Variant.from_environment()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.create(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def start_session_server(
    tmp_path_factory: pytest.TempPathFactory, variant: Variant, certificate: Certificate
) -> Iterator[Callable[..., Server]]:
    """Starts servers that live until the session ends."""
    started: list[Server] = []

    def start(*, tls: bool, arguments: tuple[str, ...] = ()) -> Server:
        server = Server(
            tmp_path_factory.mktemp("store") / "data",
            workers=variant.workers,
            certificate=certificate if tls else None,
            arguments=arguments,
        )
        started.append(server)
        _running.append(server)
        return server.start()

    yield start
    for server in started:
        server.close()
        _running.remove(server)


class ForeignServer(Server):
    """Somebody else's S3 server at VAULTAIRE_TEST_ENDPOINT: an oracle to try the tests themselves against."""

    def alive(self) -> bool:
        return True

    def cli(self, *arguments: str, check: bool = True) -> NoReturn:
        pytest.skip("a foreign server has no command line of ours")


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    start_session_server: Callable[..., Server],
    variant: Variant,
) -> Server:
    """The server that most tests share; plain http or https, as the variant says."""
    if endpoint := os.environ.get("VAULTAIRE_TEST_ENDPOINT"):
        return ForeignServer(tmp_path_factory.mktemp("foreign") / "data", url=endpoint)
    _needs_linux()
    return start_session_server(tls=variant.tls)


@pytest.fixture(scope="session")
def tls_server(start_session_server: Callable[..., Server], server: Server, variant: Variant) -> Server:
    """A server that speaks https, in every variant."""
    return server if variant.tls else start_session_server(tls=True)


@pytest.fixture
def new_server(tmp_path: Path, variant: Variant, certificate: Certificate) -> Iterator[Callable[..., Server]]:
    """Makes a server of the test's own (not yet started); it is ended with the test."""
    if os.environ.get("VAULTAIRE_TEST_ENDPOINT"):
        pytest.skip("a foreign server cannot be started here")
    _needs_linux()
    made: list[Server] = []

    def make(
        *arguments: str,
        name: str = "data",
        workers: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> Server:
        server = Server(
            tmp_path / name,
            workers=workers or variant.workers,
            certificate=certificate if variant.tls else None,
            arguments=arguments,
            environment=environment or {},
        )
        made.append(server)
        _running.append(server)
        return server

    yield make
    for server in made:
        server.close()
        _running.remove(server)


def _needs_linux() -> None:
    if sys.platform != "linux":
        pytest.skip("the harness reads /proc, which only Linux has")


# -- clients


def make_boto_client(
    server: Server, *, access_key: str = "", secret_key: str = "", **config: object
) -> S3Client:
    """A boto3 client with its default checksums, path-style, one attempt: nothing is hidden by a retry."""
    settings: dict[str, object] = {
        "s3": {"addressing_style": "path"},
        "retries": {"total_max_attempts": 1},
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 32,
        **config,
    }
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=access_key or server.access_key,
        aws_secret_access_key=secret_key or server.secret_key,
        region_name="us-east-1",
        verify=str(server.certificate.cert) if server.certificate else None,
        config=Config(**settings),
    )


def make_caller(server: Server, access_key: str = "", secret_key: str = "") -> Caller:
    return Caller(
        server.url,
        access_key or server.access_key,
        secret_key or server.secret_key,
        ca=str(server.certificate.cert) if server.certificate else None,
    )


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Profiles, keys and proxies of whoever runs the tests must not reach the clients."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "RCLONE_", "RESTIC_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    nowhere = tmp_path_factory.getbasetemp() / "no-such-file"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nowhere))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("RCLONE_CONFIG", str(nowhere))


@pytest.fixture(scope="session")
def session_s3(server: Server) -> Iterator[S3Client]:
    client = make_boto_client(server)
    yield client
    client.close()


@pytest.fixture
def s3(session_s3: S3Client, server: Server) -> S3Client:
    """boto3 as the root key. The server must have been alive before the test, or the test says nothing."""
    assert server.alive(), f"the server has ended:\n{server.log_text()[-4000:]}"
    return session_s3


@pytest.fixture
def root(server: Server) -> Caller:
    """Hand-made requests as the root key."""
    assert server.alive(), f"the server has ended:\n{server.log_text()[-4000:]}"
    return make_caller(server)


@pytest.fixture
def new_key(server: Server) -> Callable[..., Caller]:
    """`new_key(tenant, role)`: a caller with a key of that tenant, each time another one within a test."""
    asked: Counter[tuple[str, str]] = Counter()

    def make(tenant: str, role: str = "read-write") -> Caller:
        asked[tenant, role] += 1
        return make_caller(server, shared_key(server, tenant, role, asked[tenant, role]), SECRET)

    return make


_bucket_numbers = iter(range(1_000_000))


def new_bucket_name(hint: str) -> str:
    """A legal bucket name, unique in this session, in which the test can be recognised."""
    slug = re.sub(r"[^a-z0-9]+", "-", hint.lower().removeprefix("test_")).strip("-")[:40].strip("-")
    return f"b{next(_bucket_numbers)}-{slug}"


@pytest.fixture
def bucket(s3: S3Client, request: pytest.FixtureRequest) -> str:
    name = new_bucket_name(request.node.originalname)
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def put_many(root: Caller, bucket: str) -> Callable[..., None]:
    """Puts many small objects: `put_many(paths)`, each as it goes on the wire."""

    def put(paths: Iterable[str], body: bytes = b"", query: str = "", into: str = bucket) -> None:
        requests = (root.sign("PUT", f"/{into}/{path}", query=query, body=body) for path in paths)
        assert {answer.status for answer in exchange_many(root, requests)} <= {200}

    return put


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random data of the test's own, the same in every run."""
    return random.Random(request.node.nodeid)


# -- when something goes wrong


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    for server in _running:
        _log_marks[server] = len(server.log_text())
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed:
        for server in _running:
            if said := server.log_text()[_log_marks.get(server, 0) :]:
                report.sections.append((f"stderr of the server at {server.url}", said[-6000:]))
    return report


@pytest.fixture(autouse=True)
def _no_unexpected_exception(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a client sends, the shared server never logs a traceback."""
    if "server" not in request.fixturenames:
        yield
        return
    server: Server = request.getfixturevalue("server")
    before = len(server.log_text())
    yield
    said = server.log_text()[before:]
    assert "Traceback (most recent call last)" not in said, said[-6000:]


@pytest.fixture(autouse=True)
def _bounded_sockets() -> Iterator[None]:
    """No socket that a test forgets to give a timeout waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(120)
    yield
    socket.setdefaulttimeout(before)
