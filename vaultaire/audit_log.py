"""The audit log: who changed keys, limits, buckets, their settings and locks, who deleted what, and with what result.

One JSON object per line, from the server (every attempt, refused ones too), from the command line (every change it
made), and from lifecycle (all that it removed). The server notes in the store where its audit log is, so that commands write to the same file; a command that
cannot says so and goes on: what it did is done. Nothing secret is in it. docs/logs.md explains the fields.

Table "srv.settings": row "audit-log" = 0x4c ("L"), version 1, the path in UTF-8.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from vaultaire.log_file import append, open_log
from vaultaire.s3.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from index.kv import OrderedMap, Reader, Transaction
    from vaultaire.s3.observation import Observation
    from vaultaire.store import Store

_TABLE: Final = "srv.settings"
_ROW: Final = b"audit-log"
_HEAD: Final = b"L\x01"

_BEGINNINGS: Final = ("Delete", "CreateBucket", "PutBucket", "PutPublicAccessBlock", "UpdateBucket")
_OTHERS: Final = (
    Operation.ABORT_MULTIPART_UPLOAD,
    Operation.PUT_OBJECT_ACL,
    Operation.PUT_OBJECT_LEGAL_HOLD,
    Operation.PUT_OBJECT_LOCK_CONFIGURATION,
    Operation.PUT_OBJECT_RETENTION,
    Operation.RENAME_OBJECT,
)
AUDITED: Final = frozenset(
    operation for operation in Operation if operation.value.startswith(_BEGINNINGS) or operation in _OTHERS
)

log = logging.getLogger("vaultaire.audit")


def request_lines(seen: Observation, now: float) -> Iterator[bytes]:
    """The lines of one request that is over; DeleteObjects has one per key. `now`: seconds since 1970."""
    if seen.operation not in AUDITED or seen.operation is None:
        return
    client, principal, call = seen.scope.get("client"), seen.principal, seen.call
    common: dict[str, object] = {
        "time": _time(now),
        "source": "s3",
        "request_id": seen.request_id,
        "remote": client[0] if client else None,
        "access_key": seen.claimed[:128],
        "tenant": principal.tenant,
        "action": seen.operation.value,
        "bucket": seen.bucket[:1024] if seen.bucket is not None else None,
    }
    if call is not None and call.deleted is not None:
        for deleted, removed, code in call.deleted:
            yield _line({**common, "key": _text(deleted), "version_id": removed, "result": code or "ok"})
        return
    result = seen.code or ("ok" if seen.status < 400 else str(seen.status))
    version = call.query.get("versionId") if call is not None else None
    key = _text(seen.key) if seen.key is not None else None
    yield _line({**common, "key": key, "version_id": version and version[:1024], "result": result})


def note_command(store: Store, action: str, **details: object) -> None:
    """A command has changed something: `action` says what ("CreateKey"), `details` to whom. Never a secret. Blocking."""
    told = {"time": _time(time.time()), "source": "command", "user": _user(), "action": action}
    _note(store.kv, [{**told, **details, "result": "ok"}])


class Expired(NamedTuple):
    """Something that went by a rule, and not by a request."""

    action: str  # ExpireObject, ExpireVersion, ExpireUpload
    bucket: str
    key: bytes
    id: str | None  # of the version or upload; None: the current object


def note_expired(kv: OrderedMap, expired: Iterable[Expired]) -> None:
    """These are gone. Blocking."""
    told = {"time": _time(time.time()), "source": "lifecycle"}
    _note(
        kv,
        [
            {
                **told,
                "action": each.action,
                "bucket": each.bucket,
                "key": _text(each.key),
                "version_id" if each.action != "ExpireUpload" else "upload_id": each.id,
                "result": "ok",
            }
            for each in expired
        ],
    )


def _note(kv: OrderedMap, entries: Iterable[dict[str, object]]) -> None:
    with kv.snapshot() as reader:
        path = read_audit_log(reader)
    if path is None:
        return
    try:
        fd = open_log(str(path))
        try:
            append(fd, b"".join(map(_line, entries)))
        finally:
            os.close(fd)
    except OSError as error:
        log.warning("this change is not in the audit log %s: %s", path, error)


def read_audit_log(reader: Reader) -> Path | None:
    """Where the server keeps its audit log; None: it keeps none, or not in a file."""
    row = reader.get(_TABLE, _ROW)
    if row is None or not row.startswith(_HEAD):
        return None
    return Path(os.fsdecode(row[len(_HEAD) :]))


def write_audit_log(txn: Transaction, path: Path | None) -> None:
    """Remember it for commands."""
    if path is None:
        txn.delete(_TABLE, _ROW)
    else:
        txn.put(_TABLE, _ROW, _HEAD + os.fsencode(path))


def _user() -> str:
    with suppress(OSError, KeyError, ImportError):
        return os.environ.get("SUDO_USER") or getpass.getuser()
    return str(os.getuid())


def _text(key: bytes) -> str:
    return key.decode("utf-8", "replace")


def _time(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
