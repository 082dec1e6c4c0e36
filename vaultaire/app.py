"""The web application: our own pages under `/-/` through Quart, everything else straight to the S3 handler.

What it guarantees: an S3 request never meets Quart's router, Request or Response (they decode and normalise paths and
cost five times the rest of the request); "/-/" cannot shadow a bucket, as no bucket name begins with "-", nor a key:
on a bucket's own host every path is a key. A request to one of our pages brings no body.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from quart import Response, request
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection

from vaultaire.s3.addressing import bucket_of_host
from vaultaire.server import Stop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vaultaire.connection import AsgiApp
    from vaultaire.metrics.page import PageAnswer

    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]

OURS = b"/-/"


class FrontConnection(TrioASGIHTTPConnection):
    """One request: ours or S3's."""

    app: VaultaireApp

    async def __call__(self, receive: Receive, send: Send) -> None:
        scope: Any = self.scope
        if not scope["raw_path"].startswith(OURS) or self.app.is_bucket_host(scope["headers"]):
            await self.app.s3(scope, receive, send)
        elif _brings_body(scope["headers"]):
            # Quart keeps a body in memory, as fast as it comes.
            await send({"type": "http.response.start", "status": 413, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await super().__call__(receive, send)


def _brings_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in headers
    )


class VaultaireApp(QuartTrio):
    """`s3` handles all that is not under `/-/`, and everything on a host `bucket.DOMAIN` of `domains`.

    `why_not_ready` tells why requests would not all succeed now; None: they would. `metrics` answers `/-/metrics`, by the
    headers Authorization and Accept.
    """

    asgi_http_class = FrontConnection

    def __init__(
        self,
        s3: AsgiApp,
        *,
        why_not_ready: Callable[[], str | None] = lambda: None,
        domains: Sequence[str] = (),
    ) -> None:
        super().__init__("vaultaire", static_folder=None)
        self.s3 = s3
        self.stop = Stop()  # the worker's: `stop.request(75)` makes the supervisor restart the whole store
        self.why_not_ready = why_not_ready
        self.metrics: Callable[[str, str], Awaitable[PageAnswer]] | None = None
        self._domains = domains
        self.add_url_rule("/-/healthz", view_func=self._healthz, methods=["GET"])
        self.add_url_rule("/-/readyz", view_func=self._readyz, methods=["GET"])
        self.add_url_rule("/-/metrics", view_func=self._metrics, methods=["GET"])

    def is_bucket_host(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether the request names a bucket by its host: then every path is a key, ours included."""
        hosts = (value for name, value in headers if name == b"host")
        return bucket_of_host(next(hosts, b"").decode("latin-1"), self._domains) is not None

    async def _healthz(self) -> Response:
        """This process answers."""
        return _text(HTTPStatus.OK, "ok")

    async def _readyz(self) -> Response:
        """This process can serve S3 requests, writes too."""
        reason = self.why_not_ready()
        if reason is None:
            return _text(HTTPStatus.OK, "ready")
        return _text(HTTPStatus.SERVICE_UNAVAILABLE, f"read-only: {reason}")

    async def _metrics(self) -> Response:
        """See `vaultaire.metrics`."""
        if self.metrics is None:
            return _text(HTTPStatus.NOT_FOUND, "no metrics")
        answer = await self.metrics(
            request.headers.get("authorization", ""), request.headers.get("accept", "")
        )
        return Response(answer.body, status=answer.status, headers=dict(answer.headers))


def _text(status: HTTPStatus, text: str) -> Response:
    return Response(text + "\n", status=status.value, content_type="text/plain; charset=utf-8")
