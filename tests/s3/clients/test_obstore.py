"""Rust's object_store, by obstore (PyPI): conditional writes and parts, as delta and iceberg tables use them."""

from __future__ import annotations

import datetime
import urllib.request

import pytest

pytest.importorskip("obstore", reason="the client obstore is not installed (pip install obstore)")

import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError
from obstore.store import S3Store

MIB = 1 << 20


@pytest.fixture
def store(server, bucket):
    if server.tls:
        pytest.skip("obstore takes no certificate authority of one's own")
    return S3Store(
        bucket,
        endpoint=server.url,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region="us-east-1",
        client_options={"allow_http": True},
    )


def test_obstore_round_trips(store, rng):
    large = rng.randbytes(12 * MIB)
    obstore.put(store, "a/small", b"small")
    obstore.put(store, "large", large)  # in parts
    assert bytes(obstore.get(store, "a/small").bytes()) == b"small"
    assert bytes(obstore.get(store, "large").bytes()) == large
    assert bytes(obstore.get_range(store, "large", start=10, end=20)) == large[10:20]
    obstore.copy(store, "a/small", "a/copy")
    obstore.rename(store, "a/copy", "a/moved")
    assert sorted(found["path"] for found in obstore.list(store).collect()) == ["a/moved", "a/small", "large"]
    assert obstore.list_with_delimiter(store)["common_prefixes"] == ["a"]
    url = obstore.sign(store, "GET", "a/small", datetime.timedelta(seconds=60))
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.read() == b"small"
    obstore.delete(store, ["a/moved", "a/small", "large", "never there"])
    assert obstore.list(store).collect() == []
    with pytest.raises((NotFoundError, FileNotFoundError)):
        obstore.get(store, "large")


def test_obstore_writes_on_conditions(store):
    """What table formats commit with: the one that comes second is told."""
    first = obstore.put(store, "commit", b"1", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "commit", b"2", mode="create")
    obstore.put(store, "commit", b"3", mode={"e_tag": first["e_tag"]})
    with pytest.raises(PreconditionError):
        obstore.put(store, "commit", b"4", mode={"e_tag": first["e_tag"]})
    assert bytes(obstore.get(store, "commit").bytes()) == b"3"
