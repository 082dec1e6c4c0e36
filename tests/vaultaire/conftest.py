"""What tests of the server's modules share: a reserve as on a small disk. A thousand times 64 MiB fill a large one."""

from __future__ import annotations

from functools import partial

import pytest

import vaultaire.store
from vaultaire.space import Space, SpacePolicy


@pytest.fixture(scope="module", autouse=True)
def small_reserve():
    """For stores in this process. How large the reserve is elsewhere: test_space.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vaultaire.store, "Space", partial(Space, policy=SpacePolicy.of(0)))
        yield
