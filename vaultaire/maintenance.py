"""The maintenance process: `python -m vaultaire.maintenance`, started by the supervisor only.

It does what no request should wait for: it seals the packs that dead processes left open, frees the reader slots they
held, and writes a checkpoint when the journal has grown enough. (Collection and scrubbing will live here too.) The
server works without it; only the journal grows.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading

from cas.errors import CasError
from index.kv import KvError, StorePoisoned
from vaultaire.child import EX_CONFIG, EX_TEMPFAIL, take_orders
from vaultaire.errors import StoreError
from vaultaire.store import Store

ROUND_SECONDS = 1.0

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
            while not stop.wait(ROUND_SECONDS):
                run_round(store)
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


if __name__ == "__main__":
    sys.exit(main())
