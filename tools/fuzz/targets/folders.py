"""Files of other processes and of other places: backups, `run/`, `store.json`."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from cas.chunk import Identity
from cas.errors import UnsupportedFormat
from index import journal
from tools.fuzz.targets.target import DEEP, JSON_WORDS, STORE_ID, Target, allow, fast_directory, sealable
from vaultaire import runfile
from vaultaire.backup import manifest as backup


def take_backup(data: bytes) -> None:
    """What a destination holds is written by whoever can write there; signed anew where the first byte is odd."""
    body = data[1:]
    if data[:1] and data[0] & 1:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            content = json.loads(body)
            if isinstance(content, dict):
                content.pop("checksum", None)
                body = backup._sign(content)
    allow(backup.BackupError, lambda: backup.Destination.decode(body, "here"))
    found = backup.Manifest.decode(body, "here")
    assert found.total_bytes >= 0
    for path in found.files:
        assert ".." not in path
        assert not path.startswith("/")


def take_run_folder(data: bytes) -> None:
    """Names and contents of files in run/: lines of the input."""
    with tempfile.TemporaryDirectory(dir=fast_directory()) as folder:
        directory = Path(folder)
        for line in data.split(b"\n")[:8]:
            name = line[:40].replace(b"/", b"").replace(b"\0", b"")
            if name not in (b"", b".", b".."):
                Path(os.fsdecode(os.fsencode(directory) + b"/" + name)).write_bytes(line)
        for writer, path in runfile.dead_writers(directory):
            assert 0 <= writer < 1 << 32
            path.unlink()
        runfile.RunFiles(directory).writers()


def take_identity(data: bytes) -> None:
    Identity.from_json(json.loads(data))


def _backups() -> list[bytes]:
    position = journal.Position(7, 5, 100, journal.NO_RECORD)
    files = {"packs/01/0000000100000001.pack": (backup.Piece(5, "0" * 64),), "store.json": ()}
    found = backup.Manifest(1, STORE_ID, 5, position, None, files, {"store.json": "lost"})
    encoded = found.encode()
    endless = encoded.replace(b'"created_ms":5', b'"created_ms":1e999')
    return [encoded, endless, backup.Destination(STORE_ID, STORE_ID).encode(), b"[]", b"{}", DEEP]


def _identities() -> list[bytes]:
    return [json.dumps(Identity(STORE_ID, b"k" * 32).to_json()).encode(), b"{}", b"[]", b"null"]


TARGETS = (
    Target("backup", take_backup, (backup.BackupError,), lambda: sealable(_backups()), JSON_WORDS),
    Target("run-folder", take_run_folder, (), lambda: [b"worker-00000001\n.worker-a\npoisoned\nworker-1~"], (b"-", b"worker-", b"\n")),
    Target("identity", take_identity, (KeyError, TypeError, ValueError, UnsupportedFormat), _identities, JSON_WORDS),
)  # fmt: skip
