"""Identity and ids."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cas.chunk import DEFAULT_CDC, Hasher, Identity
from cas.errors import UnsupportedFormat


def test_identity_survives_its_document():
    identity = Identity.create()
    assert Identity.from_json(json.loads(json.dumps(identity.to_json()))) == identity


def test_two_stores_have_two_identities():
    assert Identity.create().hash_key != Identity.create().hash_key


def test_newer_store_is_refused():
    document = replace(Identity.create(), format_version=2).to_json()
    with pytest.raises(UnsupportedFormat):
        Identity.from_json(document)


@pytest.mark.parametrize(
    "change",
    [
        {"tar": 2},
        {"tar": 0},
        {"tar": True},
        {"tar": "1"},
        {"uniform": 2},
        {"uniform": None},
        {"lines": 1},
        {"cdc": 1},
    ],
)
def test_unknown_cut_rule_is_refused(change: dict[str, object]):
    document = Identity.create().to_json()
    with pytest.raises(UnsupportedFormat):
        Identity.from_json(document | {"cut": {"cdc": DEFAULT_CDC, "tar": 1, "uniform": 1} | change})


def test_a_new_store_has_all_rules():
    assert Identity.create().to_json()["cut"] == {"cdc": DEFAULT_CDC, "tar": 1, "uniform": 1}


def test_a_store_keeps_the_rules_that_it_was_made_with():
    """The document of a store that is older than tar-1 and uniform-1."""
    document = {
        "format_version": 1,
        "store_id": (b"S" * 16).hex(),
        "hash_key": (b"K" * 32).hex(),
        "cut": {"cdc": DEFAULT_CDC},
        "domain": 0,
        "checksum": "19d5561926bdd34cab1dab36a4799678ebfb224e9e60dd210e02289523f46403",
    }
    identity = Identity.from_json(document)
    assert (identity.tar, identity.uniform) == (0, 0)
    assert identity.to_json() == document


@pytest.mark.parametrize("change", [{"store_id": "00"}, {"hash_key": "zz"}, {"domain": "0"}, {"cut": None}])
def test_damaged_identity_is_refused(change: dict[str, object]):
    with pytest.raises((ValueError, TypeError)):
        Identity.from_json(Identity.create().to_json() | change)


def test_any_changed_digit_of_an_identity_is_noticed():
    text = json.dumps(replace(Identity.create(), hash_key=b"\x12" * 32).to_json())
    for place, digit in enumerate(text):
        if digit.isdigit():
            changed = text[:place] + str(9 - int(digit)) + text[place + 1 :]
            with pytest.raises((ValueError, KeyError, UnsupportedFormat)):
                Identity.from_json(json.loads(changed))


def test_checksum_of_an_identity_is_the_documented_one():
    document = Identity(b"S" * 16, b"K" * 32).to_json()
    assert document["checksum"] == "aff983725069c02a700fe5ec0b18cc5733041ec1a8e0a99a5589c0a61e0a0c92"


def test_ids_are_pinned():
    hasher = Hasher(b"K" * 32)
    assert hasher.chunk_id(b"abc").hex() == "8a4979c05d0f0be4fcb6559a5bc138cc8a80c79e122d41b237ce17292ea0abe4"
    assert hasher.node_id(b"abc").hex() == "4668acc5782cab1c597cfdcc51eb36ce065b2811f8e68e5b298aadedff6fa501"


def test_ids_depend_on_key_and_kind():
    first, second = Hasher(b"1" * 32), Hasher(b"2" * 32)
    assert len({first.chunk_id(b""), first.node_id(b""), second.chunk_id(b""), second.node_id(b"")}) == 4
    assert first.chunk_ids([b"a", memoryview(b"b")]) == [first.chunk_id(b"a"), first.chunk_id(b"b")]
