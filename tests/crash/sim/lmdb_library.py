"""A simulated LMDB: the part of py-lmdb that the engine uses, with what LMDB promises of a power cut and no more.

A commit with `metasync=False` is atomic and ordered but need not be durable: after a cut the file shows any state since
the last `sync` that the engine asked for. (Real LMDB loses at most the newest.)
States are copies on write. One process holds the write lock; it falls with its process, as LMDB's robust mutex does.
"""

from __future__ import annotations

import bisect
import errno
import marshal
import zlib
from typing import TYPE_CHECKING, Any, Self

import lmdb

from tests.crash.sim.disk import File

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.crash.sim.kernel import Kernel, Process

_MAGIC = b"simulated LMDB: "
_PAGE_BYTES = 4096
_ROW_BYTES = 100  # for statistics


class Rows:
    """One table: sorted keys beside a dict."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: list[bytes], values: dict[bytes, bytes]) -> None:
        self.keys = keys
        self.values = values


State = dict[str, Rows]  # "" is the main table


class LmdbFile:
    """What a data.mdb holds: its committed states since the last sync, the newest last."""

    def __init__(self, state: State, *, durable: bool) -> None:
        self.states = [state]
        self.durable = durable  # is the first of them?
        self.writer: Process | None = None
        self.distrusted_by: Process | None = None  # who saw a sync fail must not commit any more

    @property
    def newest(self) -> State:
        return self.states[-1]

    def commit(self, state: State, process: Process | None) -> None:
        assert process is not self.distrusted_by or process is None, "a commit after a failed sync"
        self.states.append(state)
        self.durable = True  # its own sync wrote all that came before, and a state before is a state

    def sync(self) -> None:
        self.states = [self.newest]
        self.durable = True

    def cut(self, rng: random.Random) -> LmdbFile | None:
        """What a power cut leaves; None: the file's own bytes."""
        if not self.durable:
            return None
        return LmdbFile(rng.choice(self.states), durable=True)


def _lmdb_error(code: int, what: str) -> lmdb.Error:
    error = lmdb.Error(f"simulated: {what}")
    error.code = code
    return error


class Library:
    """Stands for the module `lmdb` where environments are opened."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(lmdb, name)  # the error classes

    def open(self, path: str, *, readonly: bool, create: bool, map_size: int, **_: Any) -> Environment:
        kernel = self._kernel
        kernel.enter("lmdb open")
        folder = kernel.path(path)
        file = folder / "data.mdb"
        if not file.exists():
            if not create:
                raise _lmdb_error(errno.ENOENT, f"{file} is missing")
            node = kernel.disk.make(file.parts[1:], File)
            node.lmdb = LmdbFile({"": Rows([], {})}, durable=False)
        node = kernel.disk.find(file.parts[1:])
        if node.lmdb is None:
            node.lmdb = LmdbFile(_parse(bytes(node.data)), durable=False)
        if not readonly and not (folder / "lock.mdb").exists():
            kernel.disk.make((folder / "lock.mdb").parts[1:], File)
        return Environment(kernel, node, map_size)


def _parse(data: bytes) -> State:
    body = data[len(_MAGIC) + 4 :]
    if not data:
        return {"": Rows([], {})}
    if data[: len(_MAGIC)] != _MAGIC or zlib.crc32(body) != int.from_bytes(data[len(_MAGIC) :][:4], "little"):
        raise lmdb.InvalidError("simulated: not an LMDB file")
    return {name: Rows(sorted(values), values) for name, values in marshal.loads(body).items()}


class Environment:
    def __init__(self, kernel: Kernel, node: File, map_size: int) -> None:
        self.kernel = kernel
        self.process = kernel.process
        self.file: LmdbFile = node.lmdb
        self.node = node
        self._map_size = map_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, write: bool = False, parent: Transaction | None = None) -> Transaction:
        return Transaction(self, write, parent)

    def open_db(self, name: bytes, create: bool = True) -> str:
        table = name.decode()
        if table not in self.file.newest:
            if not create:
                raise lmdb.NotFoundError("simulated: no such table")
            with self.begin(write=True) as txn:
                txn.tables[table] = Rows([], {})
        return table

    def reader_check(self) -> int:
        return 0

    def set_mapsize(self, size: int) -> None:
        self._map_size = size

    def info(self) -> dict[str, int]:
        return {"map_size": self._map_size}

    def sync(self, force: bool) -> None:
        assert force
        self.kernel.enter("lmdb sync")
        if self.kernel.fails("lmdb sync"):
            self.file.distrusted_by = self.kernel.process
            raise _lmdb_error(errno.EIO, "sync failed")
        self.file.sync()

    def copyfd(self, fd: int, compact: bool) -> None:
        assert compact
        body = marshal.dumps({name: rows.values for name, rows in self.file.newest.items()})
        data = _MAGIC + zlib.crc32(body).to_bytes(4, "little") + body
        self.kernel.os.pwrite(fd, data, 0)

    def close(self) -> None:
        """Nothing is kept."""


class Transaction:
    def __init__(self, env: Environment, write: bool, parent: Transaction | None) -> None:
        self.env = env
        self.write = write
        self.parent = parent
        self.ended = False
        if write and parent is None:
            env.kernel.enter("lmdb write lock")
            while env.file.writer is not None:
                env.kernel.pause()
            env.file.writer = env.kernel.process
        self.tables: State = dict(parent.tables if parent is not None else env.file.newest)
        self._owned: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self.write and not self.ended:
            self.commit()
        else:
            self.abort()

    def get(self, key: bytes, default: bytes | None = None, db: str | None = None) -> bytes | None:
        if not key:
            raise lmdb.BadValsizeError("simulated: an empty key")
        return self.tables[db or ""].values.get(key, default)

    def put(self, key: bytes, value: bytes, db: str | None = None) -> bool:
        assert self.write
        rows = self._own(db or "")
        if key not in rows.values:
            bisect.insort(rows.keys, key)
        rows.values[key] = value
        return True

    def delete(self, key: bytes, value: bytes, db: str) -> bool:
        assert self.write
        if key not in self.tables[db].values:
            return False
        rows = self._own(db)
        del rows.values[key]
        del rows.keys[bisect.bisect_left(rows.keys, key)]
        return True

    def _own(self, table: str) -> Rows:
        rows = self.tables[table]
        if table not in self._owned:
            self._owned.add(table)
            rows = self.tables[table] = Rows(list(rows.keys), dict(rows.values))
        return rows

    def cursor(self, db: str | None = None) -> Cursor:
        if db is None:  # names of tables stand between the rows of the main table
            rows = dict(self.tables[""].values)
            rows.update({name.encode(): b"" for name in self.tables if name})
            return Cursor(sorted(rows), rows)
        table = self.tables[db]
        return Cursor(table.keys, table.values)

    def stat(self, db: str | None = None) -> dict[str, int]:
        rows = len(self.tables[db or ""].keys)
        pages = -(-rows * _ROW_BYTES // _PAGE_BYTES)
        return {
            "entries": rows, "leaf_pages": pages, "branch_pages": 0, "overflow_pages": 0, "psize": _PAGE_BYTES,
        }  # fmt: skip

    def commit(self) -> None:
        assert not self.ended
        if self.parent is not None:
            self.ended = True
            self.parent.tables = self.tables
            self.parent._owned.clear()  # the copies may be another's now
            return
        file, kernel = self.env.file, self.env.kernel
        try:
            kernel.enter("lmdb commit")
            if kernel.fails("lmdb commit"):
                file.distrusted_by = kernel.process
                raise _lmdb_error(errno.EIO, "sync failed")
            if kernel.disk.full and kernel.rng.random() < 0.5:
                raise lmdb.DiskError("simulated: the disk is full")
        except BaseException:
            self.abort()
            raise
        file.commit(self.tables, kernel.process)
        self._release()
        kernel.enter("lmdb committed")  # killed right after it

    def abort(self) -> None:
        if not self.ended:
            self._release()

    def _release(self) -> None:
        self.ended = True
        if self.write and self.parent is None and self.env.file.writer is self.env.process:
            self.env.file.writer = None


class Cursor:
    def __init__(self, keys: list[bytes], values: dict[bytes, bytes]) -> None:
        self._keys = keys
        self._values = values
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept."""

    def set_range(self, start: bytes) -> bool:
        self._at = bisect.bisect_left(self._keys, start)
        return self._at < len(self._keys)

    def last(self) -> bool:
        self._at = len(self._keys) - 1
        return self._at >= 0

    def prev(self) -> bool:
        self._at -= 1
        return self._at >= 0

    def key(self) -> bytes:
        return self._keys[self._at] if 0 <= self._at < len(self._keys) else b""

    def iternext(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        for at in range(self._at, len(self._keys)):
            key = self._keys[at]
            yield (key, self._values[key]) if values else key

    def iterprev(self) -> Iterator[tuple[bytes, bytes]]:
        for at in range(self._at, -1, -1):
            yield self._keys[at], self._values[self._keys[at]]
