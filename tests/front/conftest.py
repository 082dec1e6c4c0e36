"""Fronts in clear and under TLS, with deadlines short enough for a test."""

from __future__ import annotations

import pytest

from tests.front.harness import Front, make_certificate
from vaultaire.config import ServeConfig

STALL_SECONDS = 0.8
HEAD_SECONDS = 0.6
GRACE_SECONDS = 1.2


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=["http", "https"])
def start_front(request, tmp_path_factory, certificate):
    """Makes fronts, in clear or under TLS; the caller ends them."""

    def start(*arguments, workers=1, grace_seconds=GRACE_SECONDS):
        tls = certificate if request.param == "https" else None
        config = ServeConfig(
            data=tmp_path_factory.mktemp("data"),
            port=0,
            workers=workers,
            tls_cert=tls and tls.cert,
            tls_key=tls and tls.key,
            stall_timeout_seconds=STALL_SECONDS,
            head_timeout_seconds=HEAD_SECONDS,
            grace_seconds=grace_seconds,
        )
        return Front(config, tls and tls.cert, *arguments)

    return start


@pytest.fixture(scope="module")
def front(start_front):
    with start_front() as running:
        yield running
