"""Bucket names, keys and where they come from on the wire."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.errors import S3Error
from vaultaire.s3.names import CopySource, check_bucket_name, is_bucket_name, parse_copy_source, split_path

KEYS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=80).map(str.encode)
TRICKY = st.lists(
    st.sampled_from(
        ["/", "//", ".", "..", "%", "%2F", "+", " ", "\0", "é", "\U0001f600", "a", "?", "#", "&"]
    ),
    min_size=1,
    max_size=12,
).map(lambda parts: "".join(parts).encode())


def code(function, *args):
    with pytest.raises(S3Error) as caught:
        function(*args)
    return caught.value.code


@settings(deadline=None)
@given(KEYS | TRICKY, st.sampled_from(["", "/", "/'()*!+@:=,;$&"]))
def test_a_key_survives_whatever_the_client_chose_to_escape(key, safe):
    path = "/bucket/" + urllib.parse.quote(key, safe=safe)
    assert split_path(path.encode()) == ("bucket", key)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", (None, None)),
        (b"/b", ("b", None)),
        (b"/b/", ("b", None)),
        (b"/b//", ("b", b"/")),
        (b"/b/a%2Fb", ("b", b"a/b")),
        (b"/b/a%252Fb", ("b", b"a%2Fb")),
        (b"/b/../c", ("b", b"../c")),
        (b"/b/%2E%2E/c", ("b", b"../c")),
        (b"/b/.", ("b", b".")),
        (b"/b//a//b/", ("b", b"/a//b/")),
        (b"/b/a%00b", ("b", b"a\0b")),
        (b"/b/a+b", ("b", b"a+b")),
        (b"/b%2Fc/k", ("b/c", b"k")),
    ],
)
def test_paths_are_split_before_they_are_decoded_and_never_normalised(path, expected):
    assert split_path(path) == expected


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"", "InvalidURI"),
        (b"*", "InvalidURI"),
        (b"http://host/b", "InvalidURI"),
        (b"/b/%", "InvalidURI"),
        (b"/b/%4", "InvalidURI"),
        (b"/b/%zz", "InvalidURI"),
        (b"/b/%FF", "InvalidURI"),
        (b"/b/%ED%A0%80", "InvalidURI"),
        (b"/b/\xff", "InvalidURI"),
        (b"//k", "InvalidBucketName"),
        (b"/%C3%A9/k", "InvalidBucketName"),
        (b"/b/" + b"k" * 1025, "KeyTooLongError"),
        (b"/b/" + b"%C3%A9" * 513, "KeyTooLongError"),
    ],
)
def test_a_path_that_names_nothing_is_refused(path, error):
    assert code(split_path, path) == error


def test_a_key_may_have_1024_bytes():
    assert split_path(b"/b/" + b"%C3%A9" * 512) == ("b", "é".encode() * 512)


@pytest.mark.parametrize(
    "name", ["abc", "a" * 63, "a.b-c", "0numbers9", "1.2.3", "my-bucket.example.com", "192.168.5.4.5"]
)
def test_legal_bucket_names(name):
    check_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "a" * 64,
        "Abc",
        "a_b",
        "-ab",
        "ab-",
        ".ab",
        "ab.",
        "a..b",
        "192.168.5.4",
        "xn--abc",
        "sthree-abc",
        "amzn-s3-demo-x",
        "abc-s3alias",
        "abc--ol-s3",
        "abc.mrap",
        "abc--x-s3",
        "abc--table-s3",
        "a/b",
        "a b",
        "abc\n",
        "äbc",
    ],
)
def test_illegal_bucket_names(name):
    assert not is_bucket_name(name)
    assert code(check_bucket_name, name) == "InvalidBucketName"


@settings(deadline=None)
@given(KEYS | TRICKY, st.sampled_from(["", "/"]), st.sampled_from([None, "v1", "null"]))
def test_copy_source_round_trips(key, slash, version):
    value = f"{slash}bucket/{urllib.parse.quote(key)}" + (f"?versionId={version}" if version else "")
    assert parse_copy_source(value) == CopySource("bucket", key, version)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bucket/b+c", CopySource("bucket", b"b+c", None)),
        ("bucket/what?", CopySource("bucket", b"what?", None)),
        ("/bucket//lead", CopySource("bucket", b"/lead", None)),
        ("bucket/../../etc", CopySource("bucket", b"../../etc", None)),
        ("bucket%2Fa%20b", CopySource("bucket", b"a b", None)),
        ("bucket/caf\u00c3\u00a9", CopySource("bucket", "café".encode(), None)),
    ],
)
def test_copy_sources_as_clients_write_them(value, expected):
    assert parse_copy_source(value) == expected


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("", "InvalidArgument"),
        ("/", "InvalidArgument"),
        ("bucket", "InvalidArgument"),
        ("/bucket/", "InvalidArgument"),
        ("bucket/%zz", "InvalidArgument"),
        ("bucket/%FF", "InvalidArgument"),
        ("bucket/k?versionId=", "InvalidArgument"),
        ("Bad_Bucket/k", "InvalidBucketName"),
        ("../k", "InvalidBucketName"),
        ("bucket/" + "k" * 1025, "KeyTooLongError"),
    ],
)
def test_copy_sources_that_name_nothing(value, error):
    assert code(parse_copy_source, value) == error
