"""A maintenance process that does nothing but keep the bargain: says it is ready, waits for SIGTERM."""

from __future__ import annotations

import signal
import sys

from vaultaire.child import take_orders

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    take_orders().report_ready()
    while True:
        signal.pause()
