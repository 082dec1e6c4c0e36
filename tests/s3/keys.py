"""Access keys of other roles and tenants, made by the command line on a live store."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.s3.harness import Server


@contextmanager
def new_key(server: Server, role: str, tenant: str = "root") -> Iterator[dict[str, str]]:
    """A key for the block: `access_key` and `secret_key`, as `make_boto_client` and `make_caller` take them."""
    done = server.cli("key", "create", "--tenant", tenant, "--role", role, "--json")
    made = json.loads(done.stdout)
    try:
        yield {"access_key": made["access_key"], "secret_key": made["secret_key"]}
    finally:
        server.cli("key", "delete", made["access_key"], check=False)
