"""The process in which atheris runs one target: started by tools/fuzz/__main__.py, ended by libFuzzer."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["cas", "index", "vaultaire"], enable_loader_override=False):
    from tools.fuzz import engine
    from tools.fuzz.targets import TARGETS


def main() -> None:
    logging.disable(logging.CRITICAL)
    target = TARGETS[sys.argv[1]]

    def take(data: bytes) -> None:
        problem = engine.run(target, data)
        if problem is not None:
            raise RuntimeError(problem)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], take)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
