"""The maintenance process: `python -m vaultaire.maintenance`, started by the supervisor only.

It does what no request should wait for: it seals the packs that dead processes left open, frees the reader slots they
held, writes a checkpoint when the journal has grown enough, carries out lifecycle rules and forgets old client tokens.
(Collection and scrubbing will live here too.) The server works without it; the journal grows, and nothing expires.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time

from cas.errors import CasError
from index.errors import NamesError
from index.kv import KvError, StorePoisoned
from index.tokens import forget_tokens
from vaultaire.child import EX_CONFIG, EX_TEMPFAIL, take_orders
from vaultaire.errors import StoreError
from vaultaire.lifecycle import Lifecycle
from vaultaire.store import Store
from vaultaire.version_expiry import IndexVersions

ROUND_SECONDS = 1.0
LIFECYCLE_SECONDS = 0.2  # of each round: a pass leaves the disk and the write lock to the requests
TOKENS_SECONDS = 3600.0  # between two looks
TOKEN_AGE_SECONDS = 24 * 3600.0  # clients repeat a request within seconds

log = logging.getLogger("vaultaire.maintenance")


def main() -> int:
    orders = take_orders()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with Store.open(orders.config.data, kind="maintenance") as store:
            orders.report_ready()
            lifecycle = Lifecycle(store.kv, store.writer, IndexVersions())
            forget_at = time.monotonic()
            while not stop.wait(ROUND_SECONDS):
                run_round(store)
                run_rules(lifecycle)
                if time.monotonic() >= forget_at:
                    forget_at = time.monotonic() + TOKENS_SECONDS
                    forget_old_tokens(store)
    except StorePoisoned as error:
        log.error("%s", error)
        return EX_TEMPFAIL
    except (StoreError, KvError, CasError, OSError) as error:
        log.error("%s", error)
        return EX_CONFIG
    return 0


def run_round(store: Store) -> None:
    """One pass over everything that may be due. Raises what ends the process; the rest is logged and tried again."""
    store.run_file.tick()
    try:
        for writer in store.adopt_dead_writers():
            log.info("sealed the packs of process %d, which is gone", writer)
        store.kv.check_readers()
        if store.kv.checkpoint_due():
            store.kv.write_checkpoint()
            log.info("wrote a checkpoint")
    except StorePoisoned:
        raise
    except (KvError, CasError, OSError):
        log.exception("a round of maintenance failed; it will be tried again")


def run_rules(lifecycle: Lifecycle) -> None:
    """A slice of lifecycle. Raises and logs as `run_round`."""
    try:
        lifecycle.run_slice(LIFECYCLE_SECONDS)
    except StorePoisoned:
        raise
    except (KvError, OSError):
        log.exception("a slice of lifecycle failed; it will be tried again")


def forget_old_tokens(store: Store) -> None:
    """Raises and logs as `run_round`."""
    try:
        forget_tokens(store.kv, int((time.time() - TOKEN_AGE_SECONDS) * 1000))
    except StorePoisoned:
        raise
    except (KvError, NamesError, OSError):
        log.exception("old client tokens were not forgotten; it will be tried again")


if __name__ == "__main__":
    sys.exit(main())
