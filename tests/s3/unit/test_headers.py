"""What objects keep of their headers and give back."""

from __future__ import annotations

from email.header import decode_header, make_header

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.errors import S3Error
from vaultaire.s3.headers import (
    format_metadata,
    format_system,
    header_map,
    new_request_id,
    parse_metadata,
    parse_system,
    refuse_broken_promises,
    response_overrides,
)


def test_repeated_headers_are_joined_in_order():
    wire = [(b"a", b" 1 "), (b"b", b"x"), (b"a", b"\t2")]
    assert header_map(wire) == {b"a": "1,2", b"b": "x"}


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40))
def test_metadata_survives_as_ascii_or_as_an_encoded_word(text):
    wire = [(b"x-amz-meta-note", text.encode())]
    ((name, kept),) = parse_metadata(header_map(wire)) or (("note", ""),)
    assert (name, kept) == ("note", text.strip(" \t"))
    ((_, sent),) = format_metadata([(name, kept)])
    assert sent.isascii()
    if not kept.isascii():
        assert str(make_header(decode_header(sent.decode()))) == kept
    else:
        assert sent.decode() == kept


def test_metadata_that_is_no_utf8_is_taken_as_latin_1():
    fields = header_map([(b"x-amz-meta-a", b"caf\xe9")])
    assert parse_metadata(fields) == (("a", "café"),)


def test_only_meta_headers_are_metadata():
    fields = header_map(
        [(b"x-amz-meta-a", b"1"), (b"x-amz-acl", b"private"), (b"x-amz-meta-", b"2"), (b"a", b"3")]
    )
    assert parse_metadata(fields) == (("a", "1"),)


def test_metadata_is_bounded_by_its_bytes():
    assert parse_metadata({b"x-amz-meta-ab": "v" * 2046})
    for fields in ({b"x-amz-meta-ab": "v" * 2047}, header_map([(b"x-amz-meta-ab", "é".encode() * 1024)])):
        with pytest.raises(S3Error) as caught:
            parse_metadata(fields)
        assert caught.value.code == "MetadataTooLarge"


def test_system_headers_are_kept_and_given_back():
    fields = header_map(
        [
            (b"content-type", b"text/plain"),
            (b"expires", b"tomorrow"),
            (b"cache-control", b"max-age=1"),
            (b"content-disposition", b'attachment; filename="\xe9"'),
            (b"x-amz-storage-class", b"STANDARD_IA"),
            (b"content-length", b"1"),
        ]
    )
    content_type, kept = parse_system(fields)
    assert content_type == "text/plain"
    assert format_system(kept) == [
        (b"cache-control", b"max-age=1"),
        (b"content-disposition", b'attachment; filename="\xe9"'),
        (b"expires", b"tomorrow"),
        (b"x-amz-storage-class", b"STANDARD_IA"),
    ]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("aws-chunked", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("AWS-CHUNKED , ", None),
        ("gzip", "gzip"),
        ("gzip, br", "gzip, br"),
        ("", None),
    ],
)
def test_aws_chunked_is_no_encoding_of_the_object(sent, kept):
    expected = () if kept is None else (("content-encoding", kept),)
    assert parse_system({b"content-encoding": sent}) == (None, expected)


def test_standard_is_the_absence_of_a_storage_class():
    assert parse_system({b"x-amz-storage-class": "STANDARD"}) == (None, ())
    with pytest.raises(S3Error, match="InvalidStorageClass"):
        parse_system({b"x-amz-storage-class": "FAST"})


def test_overrides_replace_headers_of_signed_requests():
    query = {"response-content-type": "text/x", "response-expires": "now", "prefix": "p"}
    assert response_overrides(query, anonymous=False) == [(b"content-type", b"text/x"), (b"expires", b"now")]
    assert response_overrides({}, anonymous=True) == []
    with pytest.raises(S3Error, match="InvalidRequest"):
        response_overrides(query, anonymous=True)


@pytest.mark.parametrize("value", ["a\r\nset-cookie: x", "a\nb", "a\0", "\u20ac"])
def test_an_override_cannot_split_the_response(value):
    with pytest.raises(S3Error, match="InvalidArgument"):
        response_overrides({"response-content-type": value}, anonymous=False)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (b"x-amz-server-side-encryption-customer-algorithm", "AES256", "NotImplemented"),
        (b"x-amz-copy-source-server-side-encryption-customer-key", "k", "NotImplemented"),
        (b"x-amz-server-side-encryption", "aws:kms", "NotImplemented"),
        (b"x-amz-write-offset-bytes", "5", "NotImplemented"),
    ],
)
def test_promises_that_cannot_be_kept_are_not_made(name, value, code):
    with pytest.raises(S3Error) as caught:
        refuse_broken_promises({b"host": "h", name: value})
    assert caught.value.code == code


def test_unknown_amz_headers_are_ignored():
    refuse_broken_promises(
        {b"x-amz-new-thing": "1", b"x-amz-server-side-encryption": "AES256", b"x-amz-acl": "private"}
    )


def test_request_ids_are_16_hex_digits_and_differ():
    ids = {new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(i) == 16 and int(i, 16) >= 0 and i == i.upper() for i in ids)
