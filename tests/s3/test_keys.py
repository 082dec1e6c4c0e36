"""Every legal key is its own object and comes back as it was sent; illegal ones are refused.

A key is 1 to 1,024 bytes of UTF-8; the path is not normalised.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
"""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest

from tests.s3.expect import assert_refused, keys_of
from tests.s3.wire import assert_error

LEGAL = [
    "plain",
    "with space",
    " leading and trailing ",
    "plus+and%2Bmore",
    "literal %2F is not a slash",
    "%",
    "%25",
    "/leading-slash",
    "//two",
    "double//slash",
    "trailing/",
    "trailing//",
    ".",
    "..",
    "../up",
    "a/../b",
    "a/./b",
    "a/..",
    "-/healthz",
    "?query=1&x",
    "#fragment",
    "semi;colon,comma:colon@at",
    "quotes'\"`",
    "brackets[]{}()<>",
    "back\\slash|pipe^caret~tilde",
    "$&=!*",
    "ünïcödé/é",
    "e\u0301 is not \u00e9",
    "日本語/キー",
    "emoji 🎉/👩‍👩‍👧",
    "tab\tnewline\ncr\r",
    "\x01\x1f\x7f",
    "nul\x00byte",
    "\ufffe\uffff",
    "x" * 1024,
    "ü" * 512,
    "🎉" * 256,
    "a/" * 512,
]


def path_of(bucket: str, key: str, safe: str = "/-_.~") -> str:
    return f"/{bucket}/{quote(key, safe=safe)}"


@pytest.mark.subset
@pytest.mark.parametrize("key", LEGAL, ids=lambda key: ascii(key)[:40])
def test_a_legal_key_is_put_read_listed_copied_and_deleted(root, bucket, key):
    path, body = path_of(bucket, key), key.encode()
    assert root.call("PUT", path, body=body).status == 200
    assert root.call("GET", path).body == body
    assert root.call("HEAD", path).headers["content-length"] == str(len(body))
    listed = root.call("GET", f"/{bucket}", query="list-type=2&encoding-type=url").texts("Key")
    assert [unquote(name) for name in listed] == [key]
    source = [("x-amz-copy-source", path)]
    assert root.call("PUT", f"/{bucket}/copy", headers=source).status == 200
    assert root.call("GET", f"/{bucket}/copy").body == body
    assert root.call("DELETE", path).status == 204
    assert root.call("HEAD", path).status == 404


def test_keys_that_look_alike_are_different_objects(root, bucket):
    """Nothing is merged, decoded twice, normalised or folded on the way."""
    alike = [
        "a/b",
        "a//b",
        "/a/b",
        "a/b/",
        "a/./b",
        "a/x/../b",
        "a%2Fb",
        "A/b",
        "a\\b",
        "é",
        "e\u0301",
        "a+b",
        "a b",
    ]
    for key in alike:
        assert root.call("PUT", path_of(bucket, key), body=key.encode()).status == 200
    for key in alike:
        assert root.call("GET", path_of(bucket, key)).body == key.encode()
    listed = root.call("GET", f"/{bucket}", query="encoding-type=url").texts("Key")
    assert [unquote(name) for name in listed] == sorted(alike, key=str.encode)


@pytest.mark.parametrize("safe", ["", "/-_.~'()*!+,;:@&=$", "/"])
def test_a_key_is_the_same_however_its_path_is_escaped(root, bucket, safe):
    key = "k'1 (é)+*!x,y;z:@&=$/s"
    assert root.call("PUT", path_of(bucket, key, safe), body=b"x").status == 200
    assert root.call("GET", path_of(bucket, key)).body == b"x"


def test_a_key_with_percent_escapes_in_lower_case(root, bucket):
    assert root.call("PUT", f"/{bucket}/%c3%a9%2b", body=b"x").status == 200
    assert root.call("GET", f"/{bucket}/%C3%A9%2B").body == b"x"


@pytest.mark.parametrize("key", ["x" * 1025, "ü" * 513, "x" * 4000])
def test_a_key_over_1024_bytes_is_refused(root, bucket, key):
    path = path_of(bucket, key)
    assert_refused(root, root.sign("PUT", path, body=b"x"), 400, "KeyTooLongError")
    assert_error(root.call("GET", path), 400, "KeyTooLongError")
    assert root.call("GET", f"/{bucket}").texts("Key") == []


@pytest.mark.parametrize("raw", ["%FF", "a%C3", "%ED%A0%80", "%C0%AF", "%F8%88%80%80%80"])
def test_a_key_that_is_not_utf8_is_refused(root, bucket, raw):
    for method in ("PUT", "GET"):
        request = root.sign(method, f"/{bucket}/{raw}")
        assert_refused(root, request, 400, "InvalidURI", "InvalidArgument")
    assert root.call("GET", f"/{bucket}").texts("Key") == []


@pytest.mark.parametrize("raw", ["%zz", "%", "a%2"])
def test_a_path_with_broken_escapes_is_refused(root, bucket, raw):
    """No signature can be checked over such a path, so which of the two errors it is does not matter."""
    request = root.sign("PUT", f"/{bucket}/{raw}", body=b"x")
    with root.connect() as connection:
        connection.send(request.encode())
        answer = connection.answer("PUT")
    assert_error(answer, answer.status, "InvalidURI", "SignatureDoesNotMatch", "InvalidArgument")
    assert answer.status in (400, 403)
    assert root.call("GET", f"/{bucket}").texts("Key") == []


def test_keys_that_share_long_beginnings_stay_in_byte_order(s3, bucket, put_many):
    """Around the borders at which a long key is stored in several rows."""
    names = {"p" * n for n in (1, 399, 400, 401, 799, 800, 801, 1023, 1024)}
    names |= {"p" * n + tail for n in (400, 800, 1000) for tail in ("/a", "/b", "0", "~")}
    names |= {"p" * 399 + "é" + "x" * n for n in (0, 1, 500)}
    put_many(quote(name) for name in names)
    ordered = sorted(names, key=str.encode)
    assert keys_of(s3, bucket) == ordered
    assert keys_of(s3, bucket, PaginationConfig={"PageSize": 2}) == ordered
    assert keys_of(s3, bucket, Prefix="p" * 400, StartAfter="p" * 400) == [
        name for name in ordered if name.startswith("p" * 400) and name > "p" * 400
    ]
