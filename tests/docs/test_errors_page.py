"""docs/errors.md has a row for every error code that the server can send, and for no other."""

from __future__ import annotations

import collections
import re

from tests.docs.walk import REPOSITORY
from vaultaire.s3.errors import ERRORS

ROWS = re.findall(
    r"^\| `(\w+)` \| (\d{3}) \|(.*)\|$", (REPOSITORY / "docs/errors.md").read_text("utf-8"), re.MULTILINE
)


def test_every_code_has_exactly_one_row():
    counted = collections.Counter(code for code, _, _ in ROWS)
    assert set(counted) == set(ERRORS)
    assert [code for code, count in counted.items() if count > 1] == []


def test_the_status_of_a_row_is_that_of_the_code():
    assert {code: int(status) for code, status, _ in ROWS} == {code: ERRORS[code][0] for code, _, _ in ROWS}


def test_every_row_says_what_it_means_why_and_what_to_do():
    for code, _, rest in ROWS:
        cells = [cell.strip() for cell in rest.split("|")]
        assert len(cells) == 3, code
        assert all(cells), code


def test_every_code_of_the_table_is_sent_somewhere():
    """A code that nothing sends would have a row that helps nobody."""
    sources = "".join(
        path.read_text("utf-8")
        for path in (REPOSITORY / "vaultaire").rglob("*.py")
        if path != REPOSITORY / "vaultaire/s3/errors.py"
    )
    assert [code for code in ERRORS if f'"{code}"' not in sources] == []
