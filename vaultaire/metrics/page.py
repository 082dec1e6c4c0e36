"""`GET /-/metrics`: who may read it, and the answer. Knows no web framework.

The page names buckets of all tenants, so by default (`key`) only somebody who could list them all anyway is answered:
whoever gives the access key and secret of an admin or read-only key of the root tenant, without scopes, by HTTP Basic
authentication; or the token of `--metrics-token-file` as `Authorization: Bearer`. `public` answers everybody, `off`
nobody. Secrets are compared in constant time; who is refused learns nothing, and costs no walk through the store.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from cas.errors import CasError
from index.kv import KvError
from vaultaire.access import ROOT_TENANT
from vaultaire.errors import StoreError
from vaultaire.metrics.figures import Figures, of_processes
from vaultaire.metrics.requests import split
from vaultaire.metrics.slots import read_slots, total
from vaultaire.metrics.text import OPENMETRICS, PROMETHEUS, render, wants_openmetrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vaultaire.access import Keyring, Principal
    from vaultaire.store import Store

Access = Literal["key", "public", "off"]
ACCESSES: Final[tuple[Access, ...]] = ("key", "public", "off")
MIN_TOKEN: Final = 16  # characters
_CHALLENGE: Final = ("www-authenticate", 'Basic realm="Vaultaire metrics", charset="UTF-8"')

log = logging.getLogger("vaultaire.metrics")


class BadToken(StoreError):
    """The file of the metrics' token cannot be used; the message says why."""


def read_token(path: Path) -> str:
    """The token in this file. Raises BadToken."""
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadToken(f"the token of --metrics-token-file cannot be read: {error}") from error
    if len(token) < MIN_TOKEN or not token.isprintable() or " " in token:
        raise BadToken(
            f"{path} holds no token: write at least {MIN_TOKEN} letters and digits into it, "
            f"for example with: head -c 24 /dev/urandom | base64 > {path}"
        )
    return token


@dataclass(frozen=True, slots=True)
class PageAnswer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class MetricsPage:
    """`answer` blocks for as long as counting takes: call it in a thread."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        label: Callable[[str], str],
        *,
        access: Access,
        token: str | None,
    ) -> None:
        """`label`: a bucket's label in metrics, for this page alone."""
        self._store = store
        self._keyring = keyring
        self._access = access
        self._token = token
        self._figures = Figures(store, label)

    def answer(self, authorization: str, accept: str) -> PageAnswer:
        """By two headers of the request, "" where there is none."""
        if self._access == "off":
            return _plain(404, "metrics are switched off (vaultaire serve --metrics)")
        openmetrics = wants_openmetrics(accept)
        try:
            if self._access == "key" and not self._may_read(authorization):
                return _plain(401, "metrics need a key: see docs/metrics.md", _CHALLENGE)
            body = self._body(openmetrics)
        except (KvError, CasError, StoreError, OSError) as error:
            log.error("metrics cannot be counted: %s", error)
            return _plain(503, "the store cannot be read: see the log")
        return PageAnswer(200, (("content-type", OPENMETRICS if openmetrics else PROMETHEUS),), body)

    def _body(self, openmetrics: bool) -> bytes:
        readings = read_slots(self._store.directory / "run")
        samples, histograms = split(total(readings))
        return render(
            {**samples, **of_processes(readings), **self._figures.get()}, histograms, openmetrics=openmetrics
        )

    def _may_read(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "bearer" and self._token is not None:
            return hmac.compare_digest(given.strip().encode(), self._token.encode())
        if scheme.lower() != "basic":
            return False
        try:
            decoded = base64.b64decode(given.strip(), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return False
        access_key, _, secret = decoded.partition(":")
        with self._store.kv.snapshot() as reader:
            principal = self._keyring.lookup(reader, access_key)
        expected = principal.secret_key if principal is not None else ""
        same = hmac.compare_digest(secret.encode(), expected.encode())
        return same and principal is not None and may_read_metrics(principal, int(time.time() * 1000))


def may_read_metrics(principal: Principal, now_ms: int) -> bool:
    """Whether this key sees all tenants' buckets by name."""
    if principal.root:
        return True
    sees_all = principal.tenant == ROOT_TENANT and principal.role in ("admin", "read-only")
    return sees_all and not principal.limits.scopes and principal.limits.active(now_ms)


def _plain(status: int, text: str, *headers: tuple[str, str]) -> PageAnswer:
    return PageAnswer(status, (("content-type", "text/plain; charset=utf-8"), *headers), f"{text}\n".encode())
