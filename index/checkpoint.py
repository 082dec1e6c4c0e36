"""Checkpoints: compact, verified copies of the LMDB environment, from which the journal may be cut.

Guarantees: a checkpoint exists when its sidecar does, and then its file was durable, had been read back, and every
row in it had been verified. The newest two that read back well are kept, with the journal since the older one: one
damaged file is no loss. The journal is cut only after all of that, and after LMDB itself was flushed.

Files, in `checkpoint/`: `<sequence, 20 digits>.ckpt` (an LMDB data file, never opened in place) and `.json` (the
sidecar). Layout: index/SCHEMA.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from index.environment import (
    Tuning,
    crc_seeds,
    open_environment,
    read_position,
    stored_tables,
    translated,
)
from index.fileops import NO_ROOM, FileOps
from index.journal import Checksum, Position
from index.kv import KvError, MapFull
from index.lmdb_view import check_rows
from index.segments import list_segments, segment_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import lmdb

FORMAT = "vaultaire checkpoint"
VERSION = 1
_BLOCK_BYTES = 1 << 20


class CorruptCheckpoint(KvError):
    """A checkpoint's file or sidecar is missing, of another length or of other bytes than it should be."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the sidecar says."""

    path: Path  # of the .ckpt file
    store_id: bytes
    position: Position  # history up to here is in it; the journal goes on from here
    length: int
    blake3: str  # hex, of the whole file
    created_ms: int  # information only

    @property
    def sequence(self) -> int:
        return self.position.sequence

    @property
    def sidecar(self) -> Path:
        return self.path.with_suffix(".json")

    def to_json(self) -> bytes:
        content: dict[str, object] = {
            "format": FORMAT,
            "version": VERSION,
            "store_id": self.store_id.hex(),
            "sequence": self.position.sequence,
            "segment": self.position.segment,
            "offset": self.position.offset,
            "chain": self.position.chain.hex(),
            "length": self.length,
            "blake3": self.blake3,
            "created_ms": self.created_ms,
        }
        content["checksum"] = _checksum(content)
        return json.dumps(content, indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, path: Path, data: bytes) -> Checkpoint:
        """Raises CorruptCheckpoint."""
        try:
            content = json.loads(data)
            checksum = content.pop("checksum")
            if checksum != _checksum(content) or content["format"] != FORMAT or content["version"] != VERSION:
                raise ValueError("checksum, format or version differ")
            chain = Checksum(bytes.fromhex(content["chain"]))
            position = Position(content["sequence"], content["segment"], content["offset"], chain)
            store_id = bytes.fromhex(content["store_id"])
            return cls(path, store_id, position, content["length"], content["blake3"], content["created_ms"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptCheckpoint(f"{path.with_suffix('.json')}: {error}") from error


def _checksum(content: Mapping[str, object]) -> str:
    return blake3(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_sidecar(sidecar: Path) -> Checkpoint:
    """Raises CorruptCheckpoint."""
    try:
        return Checkpoint.from_json(sidecar.with_suffix(".ckpt"), sidecar.read_bytes())
    except OSError as error:
        raise CorruptCheckpoint(f"{sidecar}: {error.strerror}") from error


def list_sidecars(directory: Path) -> list[Path]:
    """Newest first."""
    return sorted((directory / "checkpoint").glob("*.json"), reverse=True)


def newest(directory: Path) -> Checkpoint | None:
    """The newest whose sidecar is sound and whose file has its length; the file is not read."""
    for sidecar in list_sidecars(directory):
        with suppress(CorruptCheckpoint, OSError):
            checkpoint = read_sidecar(sidecar)
            if checkpoint.path.stat().st_size == checkpoint.length:
                return checkpoint
    return None


def verify(checkpoint: Checkpoint, files: FileOps) -> None:
    """Read the whole file from the disk. Raises CorruptCheckpoint."""
    try:
        fd = files.open(checkpoint.path, os.O_RDONLY)
        try:
            files.forget_cached(fd)
            length, digest = _digest(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise CorruptCheckpoint(f"{checkpoint.path}: {error.strerror}") from error
    if (length, digest) != (checkpoint.length, checkpoint.blake3):
        raise CorruptCheckpoint(f"{checkpoint.path}: length or BLAKE3 differ from its sidecar")


@contextmanager
def writing(directory: Path) -> Iterator[bool]:
    """False if somebody else writes a checkpoint now. A lock on the folder: it falls with its process."""
    fd = os.open(directory / "checkpoint", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        yield False
        return
    try:
        yield True
    finally:
        os.close(fd)


def make(
    env: lmdb.Environment, directory: Path, *, store_id: bytes, clock: Callable[[], float], files: FileOps
) -> Checkpoint | None:
    """Copy, verify and publish. None if the newest checkpoint has this state already (and reads back well).

    Raises CorruptValue, ViewDamaged or KvError if the environment is damaged, MapFull if there is no room.
    """
    folder = directory / "tmp" / f"kv-checkpoint-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True)
        copy = folder / "data.mdb"
        length, digest = _copy(env, copy, files)
        position = _verified_position(folder, env.info()["map_size"])
        target = directory / "checkpoint" / f"{position.sequence:020d}.ckpt"
        made = Checkpoint(target, store_id, position, length, digest, int(clock() * 1000))
        if _is_known(made, files):
            return None
        _publish(copy, made, files)
        return made
    except OSError as error:
        kind = MapFull if error.errno in NO_ROOM else KvError
        raise kind(f"cannot write a checkpoint: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prune(directory: Path, files: FileOps, *, verified: Checkpoint | None = None) -> None:
    """Remove what the newest two good checkpoints make superfluous: older ones, stray files, journal segments.

    With fewer than two good ones the journal stays whole. `verified` need not be read again. Raises KvError.
    """
    kept: list[Checkpoint] = []
    for sidecar in list_sidecars(directory):
        with suppress(CorruptCheckpoint):
            checkpoint = read_sidecar(sidecar)
            if len(kept) < 2:
                if checkpoint != verified:
                    verify(checkpoint, files)
                kept.append(checkpoint)
    if len(kept) < 2:
        return
    keep = {path for checkpoint in kept for path in (checkpoint.path, checkpoint.sidecar)}
    try:
        # Sidecars first: a file without one is no checkpoint, a sidecar without its file would look damaged.
        for path in sorted((directory / "checkpoint").iterdir(), key=lambda path: path.suffix != ".json"):
            if path not in keep:
                files.unlink(path)
        files.sync_directory(directory / "checkpoint")
        for first in list_segments(directory / "journal"):
            if first < kept[1].position.segment:
                files.unlink(segment_path(directory / "journal", first))
        files.sync_directory(directory / "journal")
    except OSError as error:
        raise KvError(f"cannot remove old checkpoints and journal segments: {error}") from error


def restore(checkpoint: Checkpoint, folder: Path, files: FileOps) -> None:
    """Copy a checkpoint's file to `folder`/data.mdb, verified on the way. Not synced.

    Raises CorruptCheckpoint; OSError if the copy cannot be written.
    """
    hasher, offset = blake3(), 0
    target = files.open(folder / "data.mdb", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for block in _blocks(checkpoint.path):
            hasher.update(block)
            files.pwrite(target, block, offset)
            offset += len(block)
    finally:
        os.close(target)
    if (offset, hasher.hexdigest()) != (checkpoint.length, checkpoint.blake3):
        raise CorruptCheckpoint(f"{checkpoint.path}: length or BLAKE3 differ from its sidecar")


def _blocks(path: Path) -> Iterator[bytes]:
    """Raises CorruptCheckpoint if the file cannot be read: another one may."""
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                yield block
    except OSError as error:
        raise CorruptCheckpoint(f"{path}: {error.strerror}") from error


def _copy(env: lmdb.Environment, path: Path, files: FileOps) -> tuple[int, str]:
    fd = files.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        with translated():
            files.copy_environment(env, fd)  # syncs nothing by itself
        files.sync_file(fd)
        return _digest(fd)
    finally:
        os.close(fd)


def _verified_position(folder: Path, map_size_bytes: int) -> Position:
    """Read every row of the copy: damage found later, with the journal cut, could not be repaired."""
    env = open_environment(
        folder, table_count=255, map_size_bytes=map_size_bytes, tuning=Tuning(), readonly=True
    )
    with env, translated():
        with env.begin() as txn:
            names = stored_tables(txn)
        handles = {name: env.open_db(name.encode("ascii"), create=False) for name in names}
        with env.begin() as txn:
            for name, handle in handles.items():
                check_rows(txn, name, (handle, crc_seeds(name)))
            return read_position(txn)


def _is_known(made: Checkpoint, files: FileOps) -> bool:
    try:
        known = read_sidecar(made.sidecar)
        verify(known, files)
    except CorruptCheckpoint:
        return False
    return known.sequence == made.sequence


def _publish(copy: Path, made: Checkpoint, files: FileOps) -> None:
    folder = made.path.parent
    files.rename(copy, made.path)
    files.sync_directory(folder)
    verify(made, files)
    draft = copy.with_name("sidecar.json")
    fd = files.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        files.pwrite(fd, made.to_json(), 0)
        files.sync_file(fd)
    finally:
        os.close(fd)
    files.rename(draft, made.sidecar)
    files.sync_directory(folder)


def _digest(fd: int) -> tuple[int, str]:
    hasher, offset = blake3(), 0
    while block := os.pread(fd, _BLOCK_BYTES, offset):
        hasher.update(block)
        offset += len(block)
    return offset, hasher.hexdigest()
