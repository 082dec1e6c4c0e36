"""Found by a server's processes through PYTHONPATH: their wall clock is off by the seconds that a file says."""

import os
import time

PATH = os.environ["VAULTAIRE_TEST_CLOCK"]
real_time, real_time_ns = time.time, time.time_ns


def offset() -> float:
    try:
        with open(PATH) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


time.time = lambda: real_time() + offset()
time.time_ns = lambda: real_time_ns() + int(offset() * 1e9)
