"""A foreign server, a store, and the command line over both."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from index import buckets
from index.objects import iterate_objects
from index.versions import list_key
from tests.moving.foreign import KEYS, foreign_server
from vaultaire.cli import main
from vaultaire.reading import read_all
from vaultaire.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.moving.foreign import Foreign


@pytest.fixture(autouse=True)
def _only_our_settings(monkeypatch, tmp_path_factory) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "VAULTAIRE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    nowhere = str(tmp_path_factory.getbasetemp() / "no-such-file")
    monkeypatch.setenv("AWS_CONFIG_FILE", nowhere)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    with foreign_server() as foreign:
        yield foreign


class Subject:
    """A store in a directory, the commands that move, and a look into it."""

    def __init__(self, data):
        self.data = data
        self.url = None
        Store.open(data, kind="command", create=True).close()

    def arguments(self, command, place, *options):
        arguments = [command, place, "--data", str(self.data), *options]
        if self.url is not None and place.startswith("s3://") and "--endpoint-url" not in options:
            arguments += ["--endpoint-url", self.url]
        return arguments

    def run(self, command, place, *options):
        """The result; a traceback is raised."""
        return CliRunner().invoke(main, self.arguments(command, place, *options), catch_exceptions=False)

    def report(self, command, place, *options, status=0):
        """The JSON that it prints."""
        result = self.run(command, place, "--json", *options)
        assert result.exit_code == status, result.output
        return json.loads(result.stdout)

    def objects(self, bucket):
        """key -> (record, bytes), read and verified."""
        with Store.open(self.data, kind="command") as store:
            with store.kv.snapshot() as reader:
                found = buckets.get_bucket(reader, bucket)
                records = dict(iterate_objects(reader, found.id)) if found is not None else {}
            return {key: (record, body_of(store, record)) for key, record in records.items()}

    def versions(self, bucket, key):
        """Heads of a key's versions, the newest first."""
        with Store.open(self.data, kind="command") as store, store.kv.snapshot() as reader:
            return list_key(reader, buckets.get_bucket(reader, bucket).id, key)


def body_of(store, record):
    from cas.manifest import Manifest

    if record.inline is not None:
        return record.inline
    with store.operation():
        return b"".join(read_all(store.chunks, Manifest.decode(record.manifest)))


@pytest.fixture
def subject(tmp_path, foreign) -> Subject:
    subject = Subject(tmp_path / "data")
    subject.url = foreign.url
    return subject


@pytest.fixture
def alone(tmp_path) -> Subject:
    """Without a foreign server."""
    return Subject(tmp_path / "data")
