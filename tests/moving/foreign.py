"""A foreign S3 server for tests: moto in threads of this process, with a log of requests, told to misbehave at will."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACCOUNT = "123456789012"
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # decoded
    query: dict[str, str]
    headers: dict[str, str]  # lower-case names

    @property
    def reads_body(self) -> bool:
        """A GET of an object's bytes."""
        named = (self.path.count("/") >= 2 and not self.path.endswith("/")) or "%2F" in self.path
        return self.method == "GET" and named and not {"tagging", "list-type", "versions"} & set(self.query)

    @property
    def sends_body(self) -> bool:
        return self.method == "PUT" and self.path.count("/") >= 2 and "tagging" not in self.query


@dataclass(frozen=True)
class Answer:
    """`body` may be shorter than Content-Length says: then the connection breaks off."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def error(cls, status: str, code: str, **headers: str) -> Answer:
        body = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
        named = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        return cls(status, named + [(n.replace("_", "-"), v) for n, v in headers.items()], body)

    def with_body(self, body: bytes) -> Answer:
        return replace(self, body=body)


@dataclass
class Foreign:
    """`fault` sees each request with moto's answer, and says what is answered instead."""

    url: str = ""
    log: list[Request] = field(default_factory=list)
    before: Callable[[Request], None] = lambda request: None
    fault: Callable[[Request, Answer], Answer] = lambda request, answer: answer
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def backend(self):
        """moto's own objects: thousands are made in no time."""
        return s3_backends[ACCOUNT]["aws"]

    def client(self, **settings):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(retries={"total_max_attempts": 1}, **settings),
        )

    def change(self, bucket: str, key: str, body: bytes, seconds: int = 0) -> None:
        """Overwrite it behind the protocol, `seconds` after (or before) what was there."""
        before = self.backend.buckets[bucket].keys[key].last_modified
        made = self.backend.put_object(bucket, key, body)
        made.last_modified = before + timedelta(seconds=seconds)

    def bodies_read(self) -> list[str]:
        """Paths of objects whose bytes were asked for, in order."""
        with self.lock:
            return [request.path for request in self.log if request.reads_body]

    def bodies_sent(self) -> list[str]:
        with self.lock:
            return [request.path for request in self.log if request.sends_body]

    def __call__(self, environ, start_response):
        request = Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"),
            dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)),
            {n[5:].lower().replace("_", "-"): v for n, v in environ.items() if n.startswith("HTTP_")},
        )
        with self.lock:
            self.log.append(request)
            self.before(request)
        made = {}

        def capture(status, headers, exc_info=None):
            made["answer"] = Answer(status, list(headers), b"")

        body = b"".join(self.app(environ, capture))
        answer = self.fault(request, made["answer"].with_body(body))
        if "content-length" not in {name.lower() for name, _ in answer.headers}:
            answer.headers.append(("Content-Length", str(len(answer.body))))
        start_response(answer.status, answer.headers)
        return [answer.body]


class _Quiet(MotoRequestHandler):
    def log_request(self, *args, **kwargs):
        pass

    def log(self, *args, **kwargs):
        pass


@contextmanager
def foreign_server() -> Iterator[Foreign]:
    """One server; its backend is the process's, emptied at the end."""
    foreign = Foreign()
    foreign.app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, foreign, threaded=True, request_handler=_Quiet)
    server.daemon_threads = True
    foreign.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield foreign
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        foreign.backend.reset()
