"""Form policies: every condition is enforced, every field is covered, nothing unclear is accepted."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.s3.errors import S3Error
from vaultaire.s3.post_policy import LengthRange, check_form, parse_policy

NOW = 1_800_000_000.0
LATER = "2099-01-01T00:00:00.000Z"
BUCKET = {"bucket": "b"}


def encode(document: object) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.b64encode(text.encode()).decode()


def policy(*conditions: object, expiration: str = LATER) -> str:
    return encode({"expiration": expiration, "conditions": list(conditions)})


def verdict(encoded: str, now: float = NOW, bucket: str = "b", **fields: str) -> str | None:
    """None, or the reason of the refusal."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    reason = None
    try:
        check_form(parse_policy(encoded), bucket, named, now)
    except S3Error as error:
        reason = error
    if reason is None:
        return None
    assert reason.code == "AccessDenied"
    assert reason.message.startswith("Invalid according to Policy: ")
    return reason.message.removeprefix("Invalid according to Policy: ")


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ({"key": "a"}, "a", True),
        ({"KEY": "a"}, "a", True),
        ({"key": "a"}, "A", False),
        ({"key": "a"}, "ab", False),
        (["eq", "$key", "a"], "a", True),
        (["EQ", "$Key", "a"], "b", False),
        (["starts-with", "$key", "a/"], "a/b", True),
        (["StArTs-WiTh", "$key", "a/"], "a", False),
        (["starts-with", "$key", ""], "anything", True),
        (["starts-with", "$key", "\\$a"], "\\$a", True),
    ],
    ids=str,
)
def test_a_condition_on_a_field_is_enforced(condition, value, holds):
    assert (verdict(policy(BUCKET, condition), key=value) is None) is holds


def test_a_field_that_a_condition_wants_must_be_there():
    assert verdict(policy(BUCKET, {"key": "a"})) == 'Policy Condition failed: ["eq", "$key", "a"]'
    assert verdict(policy(BUCKET, ["starts-with", "$key", ""])) is None


def test_two_conditions_on_a_field_are_both_enforced():
    both = policy(BUCKET, ["starts-with", "$key", "a"], ["starts-with", "$key", "ab"])
    assert verdict(both, key="abc") is None
    assert verdict(both, key="ac") is not None


def test_a_field_that_no_condition_names_is_refused():
    assert verdict(policy(BUCKET), key="a") == "Extra input fields: key"
    assert (
        verdict(policy(BUCKET, {"key": "a"}), key="a", x_amz_meta_b="") == "Extra input fields: x-amz-meta-b"
    )


def test_the_fields_that_prove_the_form_need_no_condition():
    fields = {"policy": "p", "x_amz_signature": "s", "x_ignore_me": "x"}
    assert verdict(policy(BUCKET), **fields) is None
    assert verdict(policy(BUCKET), x_amz_date="d") == "Extra input fields: x-amz-date"


def test_the_bucket_is_the_requests_whatever_a_field_says():
    assert verdict(policy({"bucket": "b"}), bucket="b") is None
    assert verdict(policy({"bucket": "other"}), bucket="b") is not None
    refused = verdict(policy({"bucket": "other"}, {"key": "k"}), key="k", bucket="b")
    assert refused == 'Policy Condition failed: ["eq", "$bucket", "other"]'
    with pytest.raises(S3Error):
        check_form(parse_policy(policy({"bucket": "mine"})), "b", {"bucket": "mine"}, NOW)


def test_a_policy_that_does_not_name_the_bucket_is_refused():
    assert verdict(policy({"key": "a"}), key="a") == "Extra input fields: bucket"


def test_content_types_in_a_list_must_all_begin_alike():
    images = policy(BUCKET, ["starts-with", "$Content-Type", "image/"])
    assert verdict(images, content_type="image/png, image/gif") is None
    assert verdict(images, content_type="image/png, text/html") is not None


def test_a_policy_ends_at_its_expiration():
    until = policy(BUCKET, expiration="2027-01-15T08:00:00Z")
    assert verdict(until, NOW - 1) is None
    assert verdict(until, NOW) == "Policy expired."
    assert verdict(policy(BUCKET, expiration="2027-01-15T08:00:00.500Z"), NOW) is None


def test_lengths_of_several_conditions_are_intersected():
    parsed = parse_policy(
        policy(BUCKET, ["content-length-range", 1, 100], ["Content-Length-Range", "10", "200"])
    )
    assert parsed.length == LengthRange(10, 100)
    assert parse_policy(policy(BUCKET)).length is None


@pytest.mark.parametrize(
    "document",
    [
        "",
        "no json",
        "[]",
        "null",
        {},
        {"expiration": LATER},
        {"conditions": [BUCKET]},
        {"expiration": LATER, "conditions": []},
        {"expiration": LATER, "conditions": {}},
        {"EXPIRATION": LATER, "conditions": [BUCKET]},
        {"expiration": LATER, "CONDITIONS": [BUCKET]},
        {"expiration": LATER, "conditions": [BUCKET], "more": 1},
        {"expiration": "2099-01-01 00:00", "conditions": [BUCKET]},
        {"expiration": "2099-13-01T00:00:00Z", "conditions": [BUCKET]},
        {"expiration": "2099-01-01T00:00:00+02:00", "conditions": [BUCKET]},
        {"expiration": 1, "conditions": [BUCKET]},
        {"expiration": LATER, "conditions": [{}]},
        {"expiration": LATER, "conditions": [{"a": "b", "c": "d"}]},
        {"expiration": LATER, "conditions": [{"a": 1}]},
        {"expiration": LATER, "conditions": [{"": "a"}]},
        {"expiration": LATER, "conditions": ["eq"]},
        {"expiration": LATER, "conditions": [["eq", "$key"]]},
        {"expiration": LATER, "conditions": [["eq", "key", "a"]]},
        {"expiration": LATER, "conditions": [["eq", "$", "a"]]},
        {"expiration": LATER, "conditions": [["eq", "$key", 1]]},
        {"expiration": LATER, "conditions": [["matches", "$key", "a"]]},
        {"expiration": LATER, "conditions": [["content-length-range", 0]]},
        {"expiration": LATER, "conditions": [["content-length-range", -1, 0]]},
        {"expiration": LATER, "conditions": [["content-length-range", 0, 1.5]]},
        {"expiration": LATER, "conditions": [["content-length-range", True, 5]]},
        {"expiration": LATER, "conditions": [["content-length-range", "x", 5]]},
        f'{{"expiration": "{LATER}", "conditions": [], "conditions": [{{"bucket": "b"}}]}}',
        f'{{"expiration": "{LATER}", "conditions": [{{"bucket": "a", "bucket": "b"}}]}}',
        "[" * 9000,
        '{"expiration": ' + "1" * 9000 + "}",
    ],
    ids=lambda document: str(document)[:60],
)
def test_a_policy_that_is_not_understood_whole_is_refused(document):
    with pytest.raises(S3Error) as caught:
        parse_policy(encode(document))
    assert (caught.value.code, caught.value.status) == ("InvalidPolicyDocument", 400)


@pytest.mark.parametrize("text", ["!", "YQ", "é", "YWJj*"])
def test_what_is_not_base64_is_refused(text):
    with pytest.raises(S3Error) as caught:
        parse_policy(text)
    assert caught.value.code == "InvalidPolicyDocument"


def test_escapes_beyond_json_are_understood():
    conditions = '[{"bucket": "b"}, {"key": "\\$a\\v\\\\$"}]'
    written = f'{{"expiration": "{LATER}", "conditions": {conditions}}}'
    assert verdict(encode(written), key="$a\v\\$") is None


def test_lines_of_base64_are_accepted():
    encoded = encode({"expiration": LATER, "conditions": [BUCKET]})
    assert parse_policy(f"{encoded[:20]}\r\n{encoded[20:]}\n").conditions[0].field == "bucket"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_any_document_is_a_policy_or_refused(document):
    for whole in (
        document,
        {"expiration": LATER, "conditions": document},
        {"expiration": LATER, "conditions": [document]},
    ):
        refused = "InvalidPolicyDocument"
        try:
            parse_policy(encode(whole))
        except S3Error as error:
            refused = error.code
        assert refused == "InvalidPolicyDocument"


@given(st.text(), st.text())
def test_an_exact_condition_holds_for_its_value_alone(wanted, given_value):
    assert (verdict(policy(BUCKET, {"key": wanted}), key=given_value) is None) is (wanted == given_value)
