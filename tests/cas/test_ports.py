"""The ordered map of `index` and both places for packs satisfy what `cas` asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api


@pytest.mark.slow
def test_ports_are_satisfied_structurally():
    report, errors, status = api.run(["--strict", str(Path(__file__).with_name("typing_ports.py"))])
    assert status == 0, report + errors
