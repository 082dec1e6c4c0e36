"""Entry of a worker process: `python -m vaultaire.worker`, started by the supervisor only (see vaultaire.child)."""

from __future__ import annotations

import importlib
import logging
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from vaultaire.child import EX_CONFIG, Orders, take_orders
from vaultaire.errors import StoreError
from vaultaire.server import AppFailed, Stop, serve_worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultaire.connection import AsgiApp


def main() -> int:
    for module in sys.argv[1:]:
        importlib.import_module(
            module
        )  # the slow part of a start, done while the supervisor prepares the store
    orders = take_orders()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    sockets = [socket.socket(fileno=descriptor) for descriptor in orders.sockets]
    stop = Stop()
    try:
        return _serve(orders, sockets, stop)
    except* (StoreError, AppFailed, OSError) as group:
        for error in _leaves(group):
            print(f"vaultaire: {error}", file=sys.stderr)
    return stop.exit_code or EX_CONFIG  # the app may know that starting again does help


def _serve(orders: Orders, sockets: Sequence[socket.socket], stop: Stop) -> int:
    app = _load(orders)
    if hasattr(app, "stop"):
        app.stop = stop
    return trio.run(partial(serve_worker, app, orders.config, sockets, ready=orders.report_ready, stop=stop))


def _load(orders: Orders) -> AsgiApp:
    module, _, name = orders.app.partition(":")
    app: AsgiApp = getattr(importlib.import_module(module), name)(orders.config)
    return app


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return leaves


if __name__ == "__main__":
    sys.exit(main())
