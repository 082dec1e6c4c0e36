"""Every operation needs something, and every action that is needed can stand in a policy."""

from __future__ import annotations

import pytest

from vaultaire.s3.actions import ACTIONS, NEEDS
from vaultaire.s3.operation import BUCKET, OBJECT, Operation
from vaultaire.s3.operations import OPERATIONS


@pytest.mark.parametrize("operation", Operation)
def test_every_operation_needs_an_action_that_policies_know(operation):
    needs = NEEDS[operation]
    if operation is Operation.CORS_PREFLIGHT:
        assert not needs.actions
        return
    assert needs.actions
    for action in (*needs.actions, *([needs.versioned] if needs.versioned else ())):
        assert action.startswith("s3:")
        assert needs.kind == "service" or ACTIONS[action] == needs.kind


def test_sub_resources_need_rights_to_what_they_belong_to():
    assert all(
        NEEDS[operation].kind == "bucket" for (_, method), operation in BUCKET.items() if method != "POST"
    )
    assert all(NEEDS[operation].kind == "object" for operation in OBJECT.values())


def test_no_operation_that_writes_is_let_in_by_the_action_of_one_that_reads():
    readers = {
        action for operation, h in OPERATIONS.items() if not h.writes for action in NEEDS[operation].actions
    }
    for operation, handler in OPERATIONS.items():
        if handler.writes:
            assert not readers & {*NEEDS[operation].actions}, operation
