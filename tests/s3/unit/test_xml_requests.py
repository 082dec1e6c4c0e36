"""Request bodies: what clients send is read, anything else is MalformedXML, and nothing is unbounded."""

from __future__ import annotations

import base64
import contextlib

import botocore.serialize
import botocore.session
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.checksums import Algorithm
from vaultaire.s3.conditions import DeleteCondition
from vaultaire.s3.errors import S3Error
from vaultaire.s3.xml_requests import (
    CompletePart,
    DeleteItem,
    parse_complete_multipart_upload,
    parse_create_bucket,
    parse_delete_objects,
    parse_versioning,
)
from vaultaire.s3.xml_tree import MAX_BODY_BYTES

MODEL = botocore.session.get_session().get_service_model("s3")
SERIALIZER = botocore.serialize.create_serializer("rest-xml", include_validation=False)
XML_KEYS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), min_size=1, max_size=30
)
PARSERS = [parse_complete_multipart_upload, parse_delete_objects, parse_create_bucket, parse_versioning]


def sent(operation: str, **parameters) -> bytes:
    body = SERIALIZER.serialize_to_request(parameters, MODEL.operation_model(operation))["body"]
    return body if isinstance(body, bytes) else body.encode()


def code(function, body: bytes) -> str:
    with pytest.raises(S3Error) as caught:
        function(body)
    return caught.value.code


# --- CompleteMultipartUpload ---------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10_000), st.booleans()), min_size=1, max_size=5))
def test_parts_are_read_in_the_order_sent(rows):
    parts = []
    for number, with_checksum in rows:
        part = {"PartNumber": number, "ETag": f'"{number:032x}"'}
        if with_checksum:
            part["ChecksumCRC32"] = "AAAAAQ=="
        parts.append(part)
    body = sent(
        "CompleteMultipartUpload", Bucket="b", Key="k", UploadId="u", MultipartUpload={"Parts": parts}
    )
    assert parse_complete_multipart_upload(body) == [
        CompletePart(number, f"{number:032x}", (Algorithm.CRC32, b"\0\0\0\1") if with_checksum else None)
        for number, with_checksum in rows
    ]


def complete(inner: str) -> bytes:
    return f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()


def part(number: object = 1, etag: str = "e", more: str = "") -> str:
    return f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{more}</Part>"


@pytest.mark.parametrize("etag", ["e", "&quot;e&quot;", "&#34;e&#34;", ' "e" ', '"e'])
def test_etags_come_quoted_or_not_and_the_namespace_is_optional(etag):
    assert parse_complete_multipart_upload(complete(part(etag=etag))) == [CompletePart(1, "e", None)]
    spaced = complete("\n  " + part(etag=etag) + "\n")
    assert (
        parse_complete_multipart_upload(spaced.replace(b"Upload>", b"Upload xmlns='urn:x'>", 1))[0].etag
        == "e"
    )


@pytest.mark.parametrize("algorithm", Algorithm)
def test_part_checksums_of_every_algorithm(algorithm):
    digest = bytes(range(algorithm.digest_bytes))
    text = f"<{algorithm.element}>{base64.b64encode(digest).decode()}</{algorithm.element}>"
    assert parse_complete_multipart_upload(complete(part(more=text)))[0].checksum == (algorithm, digest)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (complete(""), "MalformedXML"),
        (complete("<Part></Part>"), "MalformedXML"),
        (complete("<Part><PartNumber>1</PartNumber></Part>"), "MalformedXML"),
        (complete(part("x")), "MalformedXML"),
        (complete(part("1.0")), "MalformedXML"),
        (complete(part("1" * 13)), "MalformedXML"),
        (complete(part("0")), "InvalidArgument"),
        (complete(part("-1")), "InvalidArgument"),
        (complete(part("10001")), "InvalidPart"),
        (complete(part(more="<ETag>f</ETag>")), "MalformedXML"),
        (complete(part(more="<Other>f</Other>")), "MalformedXML"),
        (complete(part() + "<Other/>"), "MalformedXML"),
        (complete(part(more="<ChecksumCRC32>x</ChecksumCRC32>")), "InvalidArgument"),
        (
            complete(
                part(more="<ChecksumCRC32>AAAAAA==</ChecksumCRC32><ChecksumCRC32C>AAAAAA==</ChecksumCRC32C>")
            ),
            "InvalidArgument",
        ),
        (complete(part(more="<ChecksumSHA512>AAAA</ChecksumSHA512>")), "InvalidArgument"),
        (complete("".join(part(n) for n in range(1, 10_002))), "MalformedXML"),
    ],
)
def test_bad_parts_are_refused(body, error):
    assert code(parse_complete_multipart_upload, body) == error


def test_10_000_parts_with_checksums_are_read():
    body = complete(
        "".join(part(n, "e" * 32, "<ChecksumCRC32>AAAAAA==</ChecksumCRC32>") for n in range(1, 10_001))
    )
    assert len(parse_complete_multipart_upload(body)) == 10_000


# --- DeleteObjects -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(XML_KEYS, min_size=1, max_size=4), st.booleans())
def test_keys_to_delete_are_read_as_sent(keys, quiet):
    body = sent(
        "DeleteObjects", Bucket="b", Delete={"Objects": [{"Key": key} for key in keys], "Quiet": quiet}
    )
    request = parse_delete_objects(body)
    assert [item.key.decode() for item in request.items] == keys
    assert request.quiet is quiet


def test_versions_and_conditions_are_read():
    item = {"Key": "k", "VersionId": "v", "ETag": '"e"', "Size": 5, "LastModifiedTime": 784111777}
    body = sent("DeleteObjects", Bucket="b", Delete={"Objects": [item, {"Key": "l"}]})
    assert parse_delete_objects(body).items == (
        DeleteItem(b"k", "v", DeleteCondition('"e"', 5, 784111777)),
        DeleteItem(b"l", None, None),
    )


def delete(inner: str) -> bytes:
    return f"<Delete>{inner}</Delete>".encode()


ITEM = "<Object><Key>k</Key></Object>"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (delete(""), "MalformedXML"),
        (delete("<Quiet>true</Quiet>"), "MalformedXML"),
        (delete("<Object/>"), "MalformedXML"),
        (delete("<Object><Key/></Object>"), "MalformedXML"),
        (delete(ITEM + "<Other/>"), "MalformedXML"),
        (delete("<Object><Key>k</Key><Key>l</Key></Object>"), "MalformedXML"),
        (delete("<Object><Key>k</Key><Size>x</Size></Object>"), "InvalidArgument"),
        (delete(ITEM * 1001), "MalformedXML"),
        (b"<Remove>" + ITEM.encode() + b"</Remove>", "MalformedXML"),
    ],
)
def test_bad_deletes_are_refused(body, error):
    assert code(parse_delete_objects, body) == error


def test_1_000_objects_are_read_and_a_long_key_fails_alone():
    assert len(parse_delete_objects(delete(ITEM * 1000)).items) == 1000
    (item,) = parse_delete_objects(delete(f"<Object><Key>{'k' * 1025}</Key></Object>")).items
    assert item.key_too_long


# --- buckets -------------------------------------------------------------------------------------------------------


def test_location_constraints():
    assert parse_create_bucket(b"") is None
    assert parse_create_bucket(b" \n") is None
    assert parse_create_bucket(b"<CreateBucketConfiguration/>") is None
    configuration = {"LocationConstraint": "eu-west-3"}
    body = sent("CreateBucket", Bucket="b", CreateBucketConfiguration=configuration)
    assert parse_create_bucket(body) == "eu-west-3"
    assert code(parse_create_bucket, b"<CORSConfiguration/>") == "MalformedXML"
    assert (
        code(parse_create_bucket, b"<CreateBucketConfiguration><X/></CreateBucketConfiguration>")
        == "MalformedXML"
    )


def test_versioning():
    body = sent("PutBucketVersioning", Bucket="b", VersioningConfiguration={"Status": "Suspended"})
    assert parse_versioning(body) == "Suspended"
    root = "VersioningConfiguration"
    assert code(parse_versioning, f"<{root}/>".encode()) == "IllegalVersioningConfigurationException"
    assert code(parse_versioning, f"<{root}><Status>On</Status></{root}>".encode()) == "MalformedXML"


# --- hostile bodies ------------------------------------------------------------------------------------------------

LAUGHS = b"""<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>"""


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "body",
    [
        b"x",
        b"<Delete>",
        b"<Delete></Other>",
        b"<!DOCTYPE Delete><Delete/>",
        LAUGHS,
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><Delete/>',
        b"<?xml version='1.0' encoding='nonsense'?><Delete/>",
        b"<?xml version='1.0' encoding='utf-32'?><Delete/>",
        LAUGHS.decode().encode("utf-16"),
        b"<?xml version='1.0' encoding='cp037'?>" + LAUGHS.decode().encode("cp037"),
        "<Delete>ü</Delete>".encode("latin-1"),
        b"<a>" * 100_000,
        b"<a>" * 9 + b"</a>" * 9,
        b"<Delete>\x00</Delete>",
        b"<Delete>&#x1;</Delete>",
    ],
)
def test_hostile_bodies_are_malformed(parse, body):
    assert code(parse, body) == "MalformedXML"


@pytest.mark.parametrize("parse", PARSERS)
def test_bodies_are_bounded(parse):
    assert code(parse, b"<" + b" " * MAX_BODY_BYTES) == "MaxMessageLengthExceeded"


def test_elements_are_bounded_before_the_tree_is_built():
    assert code(parse_delete_objects, delete("<a/>" * 250_000)) == "MalformedXML"


@pytest.mark.parametrize("parse", [parse_complete_multipart_upload, parse_delete_objects, parse_versioning])
def test_an_empty_body_is_missing(parse):
    assert code(parse, b"") == "MissingRequestBodyError"


def test_a_declared_encoding_is_overruled_by_utf_8():
    body = (
        "<?xml version='1.0' encoding='ISO-8859-1'?><Delete><Object><Key>é</Key></Object></Delete>".encode()
    )
    assert parse_delete_objects(body).items[0].key == "é".encode()
    assert parse_delete_objects(b"\xef\xbb\xbf" + body).items[0].key == "é".encode()


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_answered_by_s3_errors_only(data):
    for parse in PARSERS:
        for body in (data, b"<Delete>" + data + b"</Delete>", complete(data.decode("latin-1"))):
            with contextlib.suppress(S3Error):
                parse(body)
