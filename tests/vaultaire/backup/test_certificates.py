"""Backups to a server whose certificate nobody vouches for: refused, and the message names the way out."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest

from tests.s3.harness import Certificate
from vaultaire.backup.bucket import BucketPlace
from vaultaire.backup.place import BackupError


@pytest.fixture
def stranger(tmp_path):
    """Address of a TLS server that hangs up after the handshake."""
    certificate = Certificate.create(tmp_path, authority=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    listener = socket.create_server(("127.0.0.1", 0))

    ended = threading.Event()

    def serve():
        while not ended.is_set():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    ended.set()
    socket.create_connection(listener.getsockname()).close()  # wakes it
    thread.join()
    listener.close()


def test_a_certificate_that_is_not_trusted_is_told_from_wrong_settings(stranger, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", stranger)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with pytest.raises(BackupError, match=r"certificate is not trusted; .* AWS_CA_BUNDLE"):
        BucketPlace("bucket", "prefix").size("item")
