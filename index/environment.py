"""The LMDB environment of a store: how it is opened, what its rows look like, what its errors mean.

Guarantees: a value read back is the value put, or CorruptValue (LMDB itself has no checksums, and a damaged branch
page leads to another key's valid value: so the CRC covers table, key and value). An environment is opened in LMDB's
0.9 format with sync, never with MDB_NOSYNC or MDB_WRITEMAP: those turn a power cut into a file that crashes its
reader. The engine's own two rows stand in the main database, beside the names of the tables. Layout: index/SCHEMA.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
import uuid
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb

from index.fileops import NO_ROOM
from index.journal import Checksum, Position
from index.kv import MAX_KEY_BYTES, CorruptValue, KvError, MapFull, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# (database handle, CRC seed for each key length)
Table = tuple[Any, list[int]]

ENGINE_TABLE = ""  # the engine's own rows, for CRC seeds and messages
HEADER_KEY = b"\0kv.header"
APPLIED_KEY = b"\0kv.applied"
SPARE_TABLES = 32  # room for tables that a newer program's journal names

_HEADER = struct.Struct(">4sHHI16s16sQ16s")
_HEADER_MAGIC = b"VltH"
_APPLIED = struct.Struct(">4sHHIQQQ32s")
_APPLIED_MAGIC = b"VltA"
_VERSION = 1
_INCOMPATIBLE_FLAGS = 0x0000FFFF


class NotRecovered(KvError):
    """This store's metadata must be recovered (by whoever holds it alone) before it can be opened."""


class ViewDamaged(KvError):
    """LMDB found its own pages damaged. The journal and the checkpoints are the truth: poison, restart, rebuild."""


def this_boot() -> bytes:
    """Sixteen bytes that change when the machine starts anew; zeros where the system does not say."""
    try:
        return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
    except (OSError, ValueError):
        return bytes(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Policy, not format. All processes of one store use the same."""

    max_readers: int = 4096  # threads x processes x 4, with room; 64 bytes each
    spare_snapshots: int = 64  # ended read transactions kept for reuse: saves a slot search per snapshot
    zero_ahead_bytes: int = 1 << 20
    batch_bytes: int = 16 << 20  # a durable step ends after the function that passes this
    batch_seconds: float = 0.02  # or this, so that the lock is never held for long
    replay_bytes: int = 8 << 20  # recovery commits LMDB after so much
    checkpoint_least_bytes: int = 256 << 20  # journal, before the first checkpoint is due
    monotonic: Callable[[], float] = time.monotonic
    boot: bytes = field(default_factory=this_boot)


@dataclass(frozen=True, slots=True)
class EnvironmentHeader:
    """The row that says whose environment this is. Written by recovery only."""

    store_id: bytes
    generation: bytes  # 16 random bytes per (re)build: tells a rebuilt environment from the one before
    map_size_bytes: int  # the same in all processes
    boot: bytes  # machine start in which it was last recovered: only a new start can have undone commits

    def encode(self) -> bytes:
        return _HEADER.pack(
            *(_HEADER_MAGIC, _VERSION, _HEADER.size, 0, self.store_id, self.generation),
            *(self.map_size_bytes, self.boot),
        )

    @classmethod
    def decode(cls, row: bytes) -> EnvironmentHeader:
        return cls(*_fields(_HEADER, _HEADER_MAGIC, row))


def encode_position(position: Position) -> bytes:
    """The `applied` row."""
    return _APPLIED.pack(
        *(_APPLIED_MAGIC, _VERSION, _APPLIED.size, 0),
        *(position.sequence, position.segment, position.offset, position.chain),
    )


def decode_position(row: bytes) -> Position:
    sequence, segment, offset, chain = _fields(_APPLIED, _APPLIED_MAGIC, row)
    return Position(sequence, segment, offset, Checksum(chain))


def _fields(layout: struct.Struct, magic: bytes, row: bytes) -> tuple[Any, ...]:
    if len(row) < layout.size:
        raise UnsupportedFormat(f"engine row of {len(row)} bytes")
    found, version, _length, flags, *rest = layout.unpack_from(row)
    if found != magic or version != _VERSION or flags & _INCOMPATIBLE_FLAGS:
        raise UnsupportedFormat(
            f"engine row {found!r} of version {version}, flags {flags:#x}: use a newer program"
        )
    return tuple(rest)


@lru_cache(maxsize=256)  # an opening asks twice for every table
def crc_seeds(table: str) -> list[int]:
    """CRC-32 of (table name, 0, key length u16), by key length: key and value cannot shift into each other."""
    start = zlib.crc32(table.encode("ascii") + b"\0")
    return [zlib.crc32(length.to_bytes(2, "big"), start) for length in range(MAX_KEY_BYTES + 1)]


ENGINE_SEEDS = crc_seeds(ENGINE_TABLE)


# What a CRC-32 of anything followed by its own CRC-32 (little-endian) comes to: one call checks a value, without
# taking the stored CRC apart.
CRC_RESIDUE = 0x2144DF1C


def wrap(seeds: list[int], key: bytes, value: bytes) -> bytes:
    """`value` as stored: followed by the CRC-32 over table, key and value."""
    return value + zlib.crc32(value, zlib.crc32(key, seeds[len(key)])).to_bytes(4, "little")


def unwrap(table: str, seeds: list[int], key: bytes, stored: bytes) -> bytes:
    """Raises CorruptValue."""
    if zlib.crc32(stored, zlib.crc32(key, seeds[len(key)])) != CRC_RESIDUE:
        raise CorruptValue(table, key)
    return stored[:-4]


# Of LMDB's lock file: its header and a line per reader (LMDB makes as many readers as the file has lines).
_LOCK_HEADER_BYTES = 128
_LOCK_READER_BYTES = 64


def allocate_lock_file(folder: Path, tuning: Tuning) -> None:
    """Give LMDB's lock file its blocks. Only where nobody has the environment open. Raises OSError.

    LMDB writes to it through a map, so a new reader on a full disk would otherwise end its process by SIGBUS. A
    filesystem that cannot allocate leaves it as it was.
    """
    path = folder / "lock.mdb"
    length = _LOCK_HEADER_BYTES + _LOCK_READER_BYTES * tuning.max_readers
    if not hasattr(os, "posix_fallocate") or (path.exists() and path.stat().st_blocks * 512 >= length):
        return
    folder.mkdir(exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, length)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
    finally:
        os.close(fd)


def open_environment(
    folder: Path, *, table_count: int, map_size_bytes: int, tuning: Tuning, readonly: bool = False
) -> lmdb.Environment:
    """Raises KvError. `readonly` is for a private copy: without locks."""
    with translated():
        return lmdb.open(
            str(folder),
            map_size=map_size_bytes,
            subdir=True,
            readonly=readonly,
            lock=not readonly,
            create=not readonly,
            mode=0o600,
            max_dbs=table_count + SPARE_TABLES,
            max_readers=tuning.max_readers,
            max_spare_txns=tuning.spare_snapshots,
            sync=True,
            metasync=False,  # keeps integrity; what a power cut undoes is in the journal
            writemap=False,
            readahead=False,  # random access: reading ahead only pushes other pages out
            lib_version=0,  # the 0.9 file format: 0.9 and 1.0 cannot read each other
        )


def open_tables(env: lmdb.Environment, names: Iterable[str]) -> dict[str, Table]:
    """Handles of the named tables; missing ones are made (which no journal needs to tell: they are empty)."""
    tables: dict[str, Table] = {}
    with translated():
        for name in names:
            try:
                handle = env.open_db(name.encode("ascii"), create=False)
            except lmdb.NotFoundError:
                handle = env.open_db(name.encode("ascii"), create=True)
            tables[name] = (handle, crc_seeds(name))
    return tables


def stored_tables(txn: lmdb.Transaction[bytes]) -> list[str]:
    """Names of all tables in the environment, also those this program does not know."""
    with txn.cursor() as cursor:
        return [key.decode("ascii") for key in cursor.iternext(keys=True, values=False) if key[:1] != b"\0"]


def read_engine_row(txn: lmdb.Transaction[bytes], key: bytes) -> bytes | None:
    stored = txn.get(key)
    try:
        return None if stored is None else unwrap(ENGINE_TABLE, ENGINE_SEEDS, key, stored)
    except CorruptValue as error:
        raise ViewDamaged(f"the engine's own row {key!r} is damaged") from error


def write_engine_row(txn: lmdb.Transaction[bytes], key: bytes, row: bytes) -> None:
    txn.put(key, wrap(ENGINE_SEEDS, key, row))


def read_position(txn: lmdb.Transaction[bytes]) -> Position:
    """The applied position. Raises ViewDamaged if there is none, UnsupportedFormat."""
    row = read_engine_row(txn, APPLIED_KEY)
    if row is None:
        raise ViewDamaged("the environment holds no applied position")
    return decode_position(row)


def read_header(txn: lmdb.Transaction[bytes]) -> EnvironmentHeader:
    """Raises ViewDamaged if there is none, UnsupportedFormat."""
    row = read_engine_row(txn, HEADER_KEY)
    if row is None:
        raise ViewDamaged("the environment holds no header")
    return EnvironmentHeader.decode(row)


def _code(error: lmdb.Error) -> int:
    """LMDB's code or an errno; py-lmdb's own errors (a closed transaction) have none."""
    return getattr(error, "code", 0)


def is_full(error: lmdb.Error) -> bool:
    """No room in the map or on the disk: the transaction is lost, the environment is sound."""
    return (
        isinstance(error, lmdb.MapFullError | lmdb.DiskError | lmdb.TxnFullError) or _code(error) in NO_ROOM
    )


def is_damage(error: lmdb.Error) -> bool:
    """The environment must not be written to again."""
    kinds = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.InvalidError)
    return isinstance(error, (*kinds, lmdb.VersionMismatchError)) or _code(error) == errno.EIO


def translate(error: lmdb.Error) -> KvError:
    """The one place where LMDB's errors become ours."""
    if is_full(error):
        return MapFull(f"no room for more metadata: {error}")
    if is_damage(error):
        return ViewDamaged(f"LMDB reports damage: {error}")
    return KvError(f"LMDB: {error}")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise translate(error) from error
