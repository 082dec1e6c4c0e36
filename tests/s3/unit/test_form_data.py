"""multipart/form-data: the same fields and file however it was cut, and one reading of every byte."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.s3.errors import S3Error
from vaultaire.s3.form_data import (
    FILE_END,
    MAX_AFTER_BYTES,
    MAX_FORM_BYTES,
    Field,
    FileStart,
    FormParser,
    is_form,
    parse_boundary,
)

BOUNDARY = b"----edge7"


def part(name: str, value: bytes, filename: str | None = None, extra: bytes = b"") -> bytes:
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
    return (
        b"--%s\r\nContent-Disposition: %s\r\n" % (BOUNDARY, disposition.encode())
        + extra
        + b"\r\n"
        + value
        + b"\r\n"
    )


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + end


def parse(data: bytes, cuts: tuple[int, ...] = ()) -> tuple[list[tuple[str, bytes]], str | None, bytes, bool]:
    """(fields, file name, the file's bytes, whether it ended)."""
    parser = FormParser(BOUNDARY)
    fields, filename, content, ended = [], None, b"", False
    borders = [0, *sorted(cuts), len(data)]
    for start, stop in itertools.pairwise(borders):
        for event in parser.feed(data[start:stop]):
            if isinstance(event, Field):
                fields.append((event.name, event.value))
            elif isinstance(event, FileStart):
                filename = event.filename
            elif event is FILE_END:
                ended = True
            else:
                assert isinstance(event, bytes)
                assert event
                content += event
    parser.finish()
    return fields, filename, content, ended


def refusal(data: bytes, cuts: tuple[int, ...] = ()) -> str:
    with pytest.raises(S3Error) as caught:
        parse(data, cuts)
    return caught.value.code


# -- properties

content = st.one_of(
    st.binary(max_size=60),
    # Nearly a delimiter, again and again.
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"-", b"\r\n--", b"\r\n------edg", b"x"]), max_size=12
    ).map(b"".join),
).filter(lambda data: b"\r\n--" + BOUNDARY not in data)


@given(
    fields=st.dictionaries(
        st.text("abcdef-", min_size=1, max_size=8).filter(lambda n: n != "file"), content, max_size=4
    ),
    file=content,
    after=st.booleans(),
    data=st.data(),
)
def test_a_form_is_read_alike_however_it_is_cut(fields, file, after, data):
    parts = [part(name, value) for name, value in fields.items()] + [part("file", file, "f.bin")]
    whole = form(*parts, *([part("later", b"ignored")] if after else []))
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8))
    expected = ([*fields.items()], "f.bin", file, True)
    assert parse(whole) == expected
    assert parse(whole, tuple(cuts)) == expected
    assert parse(whole, tuple(range(len(whole)))) == expected


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_any_bytes_are_a_form_or_refused(noise, cuts):
    data = b"--" + BOUNDARY + noise
    with suppress(S3Error):
        parse(data, tuple(cut for cut in cuts if cut <= len(data)))


@given(st.integers(0, 200))
def test_a_form_cut_short_is_refused(length):
    whole = form(part("key", b"k"), part("file", b"data" * 10, "f"))
    data = whole[: min(length, len(whole) - 5)]  # before the last delimiter is whole
    assert refusal(data) in ("MalformedPOSTRequest", "InvalidArgument")


# -- the edges


def test_a_preamble_and_padding_behind_a_delimiter_are_passed_over():
    data = b"preamble\r\n" + form(part("file", b"x")).replace(BOUNDARY + b"\r\n", BOUNDARY + b" \t\r\n")
    assert parse(data)[2] == b"x"


def test_what_follows_the_file_is_ignored_whatever_it_is():
    for rest in (b"--", b"--\r\nepilogue", b"\r\nno header at all", b"\r\n\r\n\r\n--" + BOUNDARY):
        assert parse(form(part("file", b"x"), end=rest))[2:] == (b"x", True)


def test_names_of_fields_count_in_any_case_and_once():
    assert parse(form(part("KEY", b"k"), part("FiLe", b"x")))[0] == [("key", b"k")]
    assert refusal(form(part("key", b"k"), part("Key", b"other"), part("file", b"x"))) == "InvalidArgument"


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("plain.txt", "plain.txt"),
        ("C:\\My Documents\\photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("folder/", ""),
        ("née.txt", "née.txt"),
        ('a\\"b', 'a"b'),
        ("", ""),
    ],
)
def test_a_file_name_loses_its_folders(sent, taken):
    assert parse(form(part("file", b"x", sent)))[1] == taken


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no form",
        form(part("file", b"x")).replace(b"form-data", b"attachment"),
        form(part("", b"x"), part("file", b"x")),
        form(part("key", b"k", extra=b"Content-Transfer-Encoding: base64\r\n"), part("file", b"x")),
        form(part("key", b"k", extra=b"no colon\r\n"), part("file", b"x")),
        form(part("key", b"k", extra=b"Content-Disposition: form-data; name=two\r\n"), part("file", b"x")),
        form(part("key", b"k", extra=b"X: " + b"y" * 5000 + b"\r\n"), part("file", b"x")),
        form(part("key\xff".encode("latin-1").decode("latin-1"), b"k")).replace(b"\xc3\xbf", b"\xff"),
        form(part("file", b"x"), end=b"x"),  # a longer line that begins like the delimiter
        form(part("key", b"k"), part("file", b"x", extra=b"")).replace(BOUNDARY + b"--", b"other--"),
    ],
)
def test_what_is_no_form_is_refused(data):
    assert refusal(data) == "MalformedPOSTRequest"
    assert refusal(data, tuple(range(len(data)))) == "MalformedPOSTRequest"


def test_a_form_without_a_file_is_refused_by_name():
    assert refusal(form(part("key", b"k"))) == "InvalidArgument"
    assert refusal(b"--" + BOUNDARY + b"--") == "InvalidArgument"


def test_what_precedes_the_file_is_bounded_to_the_byte():
    def of_size(size: int) -> bytes:
        bare = len(part("key", b"")) + len(part("file", b"")) - 2
        return form(part("key", b"k" * (size - bare)), part("file", b"f" * 100_000))

    assert len(parse(of_size(MAX_FORM_BYTES))[2]) == 100_000
    for cuts in ((), (9000, 20_000, 20_500), tuple(range(0, 60_000, 7))):
        assert refusal(of_size(MAX_FORM_BYTES + 1), cuts) == "MaxPostPreDataLengthExceededError"
    assert refusal(b"p" * (MAX_FORM_BYTES + 1)) == "MaxPostPreDataLengthExceededError"


def test_what_follows_the_file_is_bounded():
    assert refusal(form(part("file", b"x")) + b"e" * MAX_AFTER_BYTES) == "MalformedPOSTRequest"


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; charset=utf-8; boundary="a:b"', b"a:b"),
        (
            "multipart/form-data;boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            b"----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
    ],
)
def test_the_boundary_is_read_from_the_content_type(content_type, boundary):
    assert is_form(content_type)
    assert parse_boundary(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "a" * 71,
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a b",
        'multipart/form-data; boundary="a\r\nb"',
        "text/plain; boundary=a",
    ],
)
def test_a_content_type_without_a_usable_boundary_is_refused(content_type):
    with pytest.raises(S3Error) as caught:
        parse_boundary(content_type)
    assert caught.value.code == "MalformedPOSTRequest"


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "multipart/mixed; boundary=a", "xmultipart/form-data"]
)
def test_other_content_types_are_no_form(content_type):
    assert not is_form(content_type)
