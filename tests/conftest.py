"""What holds for every test: long runs are off unless they are asked for by name.

`pytest` runs all but the tests marked `full`; `pytest -m full` runs those; `pytest -m "full or not full"` runs all.
The files of tests are shared out to a few processes, each with servers of its own: many tests wait more than they
compute. `pytest -n 0` runs all in one process, for a debugger.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from hypothesis import settings

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM (a time limit, a CI that is cancelled) ends the run as Ctrl-C does: fixtures end what they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # No example has a time limit: a busy machine must not make a test fail.
    settings.register_profile("no deadline", deadline=None)
    settings.load_profile("no deadline")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many as there are cores, but not more: tests of memory and stalls need a machine that is not overrun."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "full" in config.option.markexpr:
        return
    unwanted = [item for item in items if item.get_closest_marker("full")]
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if not item.get_closest_marker("full")]
