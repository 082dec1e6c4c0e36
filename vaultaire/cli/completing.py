"""Names in a store, for the shell's completion: buckets and access keys.

Guarantees: never an error, never recovery, never a write: where the store cannot be read at once, nothing is offered.
`store.lock` is held shared for some milliseconds, as by any command.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import click

    from index.kv import Reader

_MOST: Final = 1000  # names that are offered


def complete_bucket(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For `shell_complete=` of options and arguments that are names of buckets."""
    return _names(ctx, incomplete, _buckets)


def complete_access_key(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For `shell_complete=` of options and arguments that are access keys."""
    return _names(ctx, incomplete, _access_keys)


def _names(ctx: click.Context, incomplete: str, read: Callable[[Reader], Iterator[str]]) -> list[str]:
    from index.kv import KvError
    from vaultaire.errors import StoreError

    with suppress(OSError, KvError, StoreError), _reading(Path(ctx.params["data"])) as reader:
        return sorted(name for name in read(reader) if name.startswith(incomplete))[:_MOST]
    return []


@contextmanager
def _reading(directory: Path) -> Iterator[Reader]:
    from index.lmdb_kv import LmdbKv
    from vaultaire.store import TABLES, read_identity

    fd = os.open(directory / "store.lock", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        kv = LmdbKv.open(
            directory,
            tables=TABLES,
            store_id=read_identity(directory).store_id,
            writer_tag=bytes(16),  # nothing is written
            read_only="completion",
        )
        try:
            with kv.snapshot() as reader:
                yield reader
        finally:
            kv.close()
    finally:
        os.close(fd)


def _buckets(reader: Reader) -> Iterator[str]:
    from index.buckets import list_buckets

    for bucket in list_buckets(reader, limit=_MOST).buckets:
        yield bucket.name


def _access_keys(reader: Reader) -> Iterator[str]:
    from vaultaire.access import Keyring

    for key in Keyring.list_keys(reader):
        yield key.access_key
