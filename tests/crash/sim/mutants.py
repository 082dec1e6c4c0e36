"""Stores that break a rule: the simulation must find each within some seeds, or it proves nothing."""

from __future__ import annotations

from tests.crash import flush_mutants

BY_NAME = dict(flush_mutants.BY_NAME)
