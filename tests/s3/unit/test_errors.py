"""The error table and its XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.errors import ERRORS, S3Error, invalid_argument, to_xml

XML_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"))


@pytest.mark.parametrize("code", ERRORS)
def test_every_code_has_a_client_or_server_status_and_a_message(code):
    status, message = ERRORS[code]
    assert status == 304 or 400 <= status < 600
    assert message
    assert S3Error(code).status == status


def test_an_unknown_code_is_our_bug():
    with pytest.raises(KeyError):
        S3Error("NoSuchCode")


@settings(deadline=None)
@given(XML_TEXT, XML_TEXT, XML_TEXT)
def test_xml_parses_back(message, resource, value):
    error = S3Error("AccessDenied", message, bucket="b", key=b"k", extra={"Region": value, "Gone": None})
    root = ElementTree.fromstring(to_xml(error, resource, "REQUEST", "HOST"))
    fields = {child.tag: child.text or "" for child in root}
    assert root.tag == "Error"
    assert fields == {
        "Code": "AccessDenied",
        "Message": message,
        "BucketName": "b",
        "Key": "k",
        "Region": value,
        "Resource": resource,
        "RequestId": "REQUEST",
        "HostId": "HOST",
    }


def test_an_error_may_name_its_own_resource():
    assert b"<Resource>/other</Resource>" in to_xml(S3Error("NoSuchKey", resource="/other"), "/own", "r", "h")


def test_slow_down_says_when_to_come_back():
    error = S3Error("SlowDown", headers=(("x", "y"),))
    assert error.status == 503
    assert error.headers == (("retry-after", "1"), ("x", "y"))


def test_no_space_is_507():
    assert S3Error("InsufficientStorage").status == 507


def test_invalid_argument_names_the_argument():
    error = invalid_argument("no", "partNumber", "0")
    assert (error.status, error.extra) == (400, {"ArgumentName": "partNumber", "ArgumentValue": "0"})


def test_an_error_stays_xml_whatever_the_key():
    body = to_xml(S3Error("NoSuchKey", key=b"a\x00\x01\rb"), "/", "r", "h")
    assert "<Key>a\ufffd\ufffd&#xD;b</Key>".encode() in body
