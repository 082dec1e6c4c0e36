"""A copy of an environment with full pages: its rows put in order, one behind the other.

Pages that are filled in any order, or whose rows became smaller, are a third to three quarters full, and LMDB never
packs them again. Every row is verified on the way, and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from index.environment import (
    APPLIED_KEY,
    crc_seeds,
    encode_position,
    open_tables,
    read_position,
    stored_tables,
    translated,
    unwrap,
    write_engine_row,
)
from index.kv import KvError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb

    from index.environment import Table
    from index.fileops import FileOps

# Of one transaction: LMDB keeps its new pages in memory until it ends.
BATCH_ROWS: Final = 50_000
BATCH_BYTES: Final = 8 << 20


def copy_dense(source: lmdb.Environment, target: lmdb.Environment, files: FileOps) -> None:
    """All tables and the applied position; not the header, which marks an environment as complete. Not synced.

    `target`: empty, and nobody else's. Raises CorruptValue, KvError.
    """
    with translated():
        with source.begin() as reader:
            names, position = stored_tables(reader), read_position(reader)
        tables, copies = open_tables(source, names), open_tables(target, names)
        with source.begin() as reader:
            for name in names:
                _copy_table(reader, target, name, tables[name], copies[name], files)
        with target.begin(write=True) as txn:
            write_engine_row(txn, APPLIED_KEY, encode_position(position))
            files.commit(txn)


def _copy_table(
    reader: lmdb.Transaction[bytes],
    target: lmdb.Environment,
    name: str,
    table: Table,
    copy: Table,
    files: FileOps,
) -> None:
    for batch in _batches(_verified_rows(reader, name, table)):
        with target.begin(write=True) as txn, txn.cursor(copy[0]) as cursor:
            cursor.putmulti(batch, append=True)
            cursor.close()
            files.commit(txn)
    with target.begin() as txn:
        copied, counted = (t.stat(handle)["entries"] for t, (handle, _) in ((txn, copy), (reader, table)))
    if copied != counted:
        raise KvError(f"table {name!r}: {copied} rows were copied where LMDB counts {counted}")


def _batches(rows: Iterator[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """By number and bytes; at least one row each."""
    batch: list[tuple[bytes, bytes]] = []
    held = 0
    for row in rows:
        batch.append(row)
        held += len(row[0]) + len(row[1])
        if len(batch) >= BATCH_ROWS or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _verified_rows(reader: lmdb.Transaction[bytes], name: str, table: Table) -> Iterator[tuple[bytes, bytes]]:
    handle, _ = table
    seeds = crc_seeds(name)
    with reader.cursor(handle) as cursor:
        for key, stored in cursor.iternext():
            unwrap(name, seeds, key, stored)
            yield key, stored
