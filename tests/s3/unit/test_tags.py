"""Tags: the header, the document, and every limit of S3."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.s3.errors import S3Error
from vaultaire.s3.tags import MAX_BUCKET_TAGS, MAX_OBJECT_TAGS, check, format_xml, parse_header, parse_xml

letters = st.characters(categories=("L", "N", "Zs"), include_characters="_.:/=+-@")
legal = st.lists(
    st.tuples(st.text(letters, min_size=1, max_size=20), st.text(letters, max_size=20)),
    max_size=MAX_OBJECT_TAGS,
    unique_by=lambda pair: pair[0],
).filter(lambda pairs: not any(key.lower().startswith("aws:") for key, _ in pairs))


def code(call, *arguments) -> str:
    with pytest.raises(S3Error) as caught:
        call(*arguments)
    return caught.value.code


def header(text: str):
    return parse_header({b"x-amz-tagging": text})


@given(legal)
def test_legal_tags_come_back_from_header_and_document(pairs):
    assert header(urlencode(pairs)) == tuple(pairs)
    assert header(urlencode(pairs, quote_via=quote)) == tuple(pairs)
    assert parse_xml(format_xml(pairs), MAX_OBJECT_TAGS) == tuple(pairs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("a=1&b=2", (("a", "1"), ("b", "2"))),
        ("a", (("a", ""),)),
        ("a=", (("a", ""),)),
        ("a=b=c", (("a", "b=c"),)),
        ("a=x+y&b=x%2By", (("a", "x y"), ("b", "x+y"))),
        ("&&a=1&", (("a", "1"),)),
        ("%C3%A9=%E6%BC%A2", (("é", "漢"),)),
    ],
)
def test_a_header_is_a_query_string(text, expected):
    assert header(text) == expected
    assert parse_header({}) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1&a=2", "InvalidArgument"),
        ("a=%zz", "InvalidArgument"),
        ("a=%FF", "InvalidArgument"),
        ("=1", "InvalidArgument"),
        ("a=%3Cb%3E", "InvalidTag"),
        ("a%00=1", "InvalidTag"),
        ("aws:x=1", "InvalidTag"),
        ("a=" + "v" * 257, "InvalidTag"),
        ("k" * 129 + "=v", "InvalidTag"),
        ("&".join(f"k{n}=v" for n in range(11)), "InvalidTag"),
        ("a=" + "v" * 20_000, "InvalidArgument"),
    ],
)
def test_a_bad_header_is_refused(text, expected):
    assert code(header, text) == expected


def test_the_longest_tags_fit():
    assert check([("k" * 128, "v" * 256)], 1)
    assert check([("\U00010400" * 64, "\U00010400" * 128)], 1)  # two UTF-16 units each
    assert code(check, [("\U00010400" * 65, "")], 1) == "InvalidTag"
    assert len(check([(f"k{n}", "") for n in range(50)], MAX_BUCKET_TAGS)) == 50
    assert code(check, [(f"k{n}", "") for n in range(51)], MAX_BUCKET_TAGS) == "InvalidTag"
    assert code(check, [("k", "1"), ("k", "2")], 10) == "InvalidTag"


@pytest.mark.parametrize(
    "body",
    [
        b"<Tagging/>",
        b"<Other><TagSet/></Other>",
        b"<Tagging><TagSet/><TagSet/></Tagging>",
        b"<Tagging><TagSet><Other/></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Key>k</Key></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Value>k</Value></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value><More/></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Key><b/></Key><Value>v</Value></Tag></TagSet></Tagging>",
        b"<Tagging>",
    ],
)
def test_a_document_of_another_form_is_malformed(body):
    assert code(parse_xml, body, 10) == "MalformedXML"


def test_a_document_without_tags_has_none():
    assert parse_xml(b"<Tagging><TagSet></TagSet></Tagging>", 10) == ()
