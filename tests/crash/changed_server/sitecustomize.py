"""Found by a server's processes through PYTHONPATH: packs are small, and what a mutant breaks is broken.

Packs of 64 MiB would hardly ever be full, and so never be collected, in a store that is filled within minutes.
"""

import importlib.util
import os

if importlib.util.find_spec("cas") is not None and importlib.util.find_spec("tests") is not None:
    import cas.openpack

    cas.openpack.TARGET_BYTES = int(
        os.environ["VAULTAIRE_TEST_PACK_BYTES"]
    )  # before anything imports it from there

    if mutant := os.environ.get("VAULTAIRE_TEST_MUTANT"):
        from tests.crash import mutants

        mutants.BY_NAME[mutant].install()
