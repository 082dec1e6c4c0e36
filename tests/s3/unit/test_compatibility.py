"""COMPATIBILITY.md says of every operation what is true of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vaultaire.s3
from vaultaire.s3 import stubs
from vaultaire.s3.errors import S3Error
from vaultaire.s3.operation import Operation
from vaultaire.s3.operations import OPERATIONS, defaults

DOCUMENT = (Path(vaultaire.s3.__file__).parent / "COMPATIBILITY.md").read_text(encoding="utf-8")
WORDS = ("done", "stub", "refused")
_OPERATIONS = DOCUMENT.partition("\n## Operations\n")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (\w+) \| (\w*) \|", _OPERATIONS, re.MULTILINE)


def true_word(operation: Operation) -> str:
    if operation is Operation.CORS_PREFLIGHT:  # answered before there is a call, so it is in no table
        return "done"
    if operation in OPERATIONS:
        return "stub" if OPERATIONS[operation].run.__module__ == defaults.__name__ else "done"
    try:
        stubs.stub(operation)
    except S3Error as error:
        return "refused" if error.code == "NotImplemented" else "stub"
    return "stub"


def test_every_operation_is_in_exactly_one_row():
    named = [name for name, _ in ROWS if name != "operation"]
    assert sorted(named) == sorted(operation.value for operation in Operation)


@pytest.mark.parametrize("operation", Operation, ids=lambda operation: operation.value)
def test_the_word_of_an_operation_is_true(operation):
    assert dict(ROWS)[operation.value] == true_word(operation)


def test_every_refusal_says_why():
    for line in _OPERATIONS.splitlines():
        if "| refused |" in line:
            assert len(line.split("|")[3].strip()) > 5, line


def test_every_table_uses_the_three_words():
    for first, word in re.findall(r"^\| (.*?) \| (\w+) \|", DOCUMENT, re.MULTILINE):
        assert word in WORDS or first == "word", (first, word)
