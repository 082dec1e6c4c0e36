"""Run the front with the test app: `python -m tests.front.run '<ServeConfig as JSON>' [maintenance module] [app]`.

Prints "ready PORT" whenever all workers are ready.
"""

from __future__ import annotations

import sys

from vaultaire import supervisor
from vaultaire.config import ServeConfig


def main():
    config = ServeConfig.from_json(sys.argv[1])
    maintenance, app, *_ = *sys.argv[2:], *("", "tests.front.app:build")[len(sys.argv) - 2 :]
    return supervisor.run(
        config,
        on_ready=lambda _, port: print("ready", port, flush=True),
        app=app,
        maintenance=maintenance or None,
    )


if __name__ == "__main__":
    sys.exit(main())
