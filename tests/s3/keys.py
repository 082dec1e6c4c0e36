"""Access keys of other roles and tenants, made by the command line on a live store.

Tests share them, and do not delete them when they are done: starting the command line takes longer than most tests. What a tenant has in
the buckets of other tests is out of sight in one's own.
"""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.s3.harness import Server

SECRET = "a-secret-for-the-tests-of-tenants-00001"


def shared_key(server: Server, tenant: str, role: str, number: int = 1) -> str:
    """The access key (its secret is SECRET) of that `number` of the tenant and role: made when first asked for."""
    access_key = f"K{zlib.crc32(f'{tenant} {role} {number}'.encode()):010}"
    if access_key not in server.shared_keys:
        key = ("--tenant", tenant, "--role", role, "--access-key", access_key, "--secret-key", SECRET)
        server.cli("key", "create", *key)
        server.shared_keys.add(access_key)
    return access_key


def delete_key(server: Server, access_key: str) -> None:
    """Whoever asks for it next gets it made again."""
    server.cli("key", "delete", access_key)
    server.shared_keys.discard(access_key)


@contextmanager
def new_key(server: Server, role: str, tenant: str = "root") -> Iterator[dict[str, str]]:
    """A key for the block: `access_key` and `secret_key`, as `make_boto_client` and `make_caller` take them."""
    yield {"access_key": shared_key(server, tenant, role), "secret_key": SECRET}
