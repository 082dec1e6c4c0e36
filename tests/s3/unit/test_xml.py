"""Results: well-formed for any key, and read back by botocore's own parser."""

from __future__ import annotations

import urllib.parse
from xml.etree import ElementTree

import botocore.parsers
import botocore.session
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3 import acl, dates, xml
from vaultaire.s3.xml import ChecksumElement, ListedObject, Listing
from vaultaire.s3.xml_text import escape

MODEL = botocore.session.get_session().get_service_model("s3")
PARSER = botocore.parsers.create_parser("rest-xml")

# What XML 1.0 can hold; everything else needs encoding-type=url.
XML_KEYS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters=[*map(chr, range(32)), "\ufffe", "\uffff"])
    | st.sampled_from("&<>\"'\t\n\r/%+ ]]>"),
    min_size=1,
    max_size=40,
)
KEYS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
MOMENT = 1_800_000_000_123


def parsed(operation: str, body: bytes) -> dict:
    shape = MODEL.operation_model(operation).output_shape
    return PARSER.parse({"body": body, "headers": {}, "status_code": 200}, shape)


def listing(**changes) -> Listing:
    return Listing(
        **{"bucket": "b", "prefix": b"", "delimiter": None, "max_keys": 1000, "truncated": False, **changes}
    )


def v2(keys, prefixes=(), *, url=False, **changes) -> bytes:
    rows = [ListedObject(key.encode(), MOMENT, "e" * 32, 5) for key in keys]
    return xml.list_objects_v2(
        listing(url=url, **changes),
        rows,
        [prefix.encode() for prefix in prefixes],
        key_count=len(rows) + len(prefixes),
        start_after=None,
        continuation_token=None,
        next_continuation_token=None,
    )


@settings(deadline=None)
@given(st.lists(XML_KEYS, max_size=4), st.lists(XML_KEYS, max_size=2))
def test_keys_that_xml_can_hold_parse_back(keys, prefixes):
    result = parsed("ListObjectsV2", v2(keys, prefixes))
    assert [row["Key"] for row in result.get("Contents", [])] == keys
    assert [row["Prefix"] for row in result.get("CommonPrefixes", [])] == prefixes


@settings(deadline=None)
@given(st.lists(KEYS, max_size=4), st.lists(KEYS, max_size=2), KEYS, KEYS)
def test_every_key_parses_back_url_encoded(keys, prefixes, prefix, delimiter):
    body = v2(keys, prefixes, url=True, prefix=prefix.encode(), delimiter=delimiter.encode())
    result = parsed("ListObjectsV2", body)
    unquote = urllib.parse.unquote
    assert [unquote(row["Key"]) for row in result.get("Contents", [])] == keys
    assert [unquote(row["Prefix"]) for row in result.get("CommonPrefixes", [])] == prefixes
    assert (unquote(result["Prefix"]), unquote(result["Delimiter"])) == (prefix, delimiter)
    assert result["EncodingType"] == "url"


def test_url_encoding_keeps_slashes_and_writes_spaces_and_plus_as_escapes():
    assert b"<Key>a/b%20c%2Bd%27%01</Key>" in v2(["a/b c+d'\x01"], url=True)


def test_control_characters_become_references_without_url_encoding():
    assert b"<Key>a&#x1;b&#xD;&#xA;&#xFFFE;</Key>" in v2(["a\x01b\r\n\ufffe"])


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_escaped_text_has_no_markup(text):
    assert not set('<>"') & set(escape(text))


def test_an_entry_says_everything():
    row = ListedObject(b"k", MOMENT, "e-2", 7, "me & you", "STANDARD_IA", "CRC32", "COMPOSITE")
    body = xml.list_objects_v2(
        listing(prefix=b"p", delimiter=b"/", max_keys=3, truncated=True),
        [row],
        [b"p/"],
        key_count=2,
        start_after=b"a",
        continuation_token="t&1",
        next_continuation_token="t2",
    )
    assert body.startswith(
        b'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/'
    )
    assert b"<ETag>&quot;e-2&quot;</ETag>" in body
    result = parsed("ListObjectsV2", body)
    (entry,) = result["Contents"]
    assert entry["LastModified"].timestamp() == pytest.approx(MOMENT / 1000)
    del entry["LastModified"]
    assert entry == {
        "Key": "k",
        "ETag": '"e-2"',
        "Size": 7,
        "StorageClass": "STANDARD_IA",
        "Owner": {"ID": "me & you", "DisplayName": "me & you"},
        "ChecksumAlgorithm": ["CRC32"],
        "ChecksumType": "COMPOSITE",
    }
    assert (result["Name"], result["Prefix"], result["Delimiter"], result["MaxKeys"]) == ("b", "p", "/", 3)
    assert (result["KeyCount"], result["IsTruncated"], result["StartAfter"]) == (2, True, "a")
    assert (result["ContinuationToken"], result["NextContinuationToken"]) == ("t&1", "t2")


def test_version_1_has_markers():
    body = xml.list_objects(listing(truncated=True), [], [b"x/"], marker=b"m", next_marker=b"x/")
    result = parsed("ListObjects", body)
    assert (result["Marker"], result["NextMarker"], result["IsTruncated"]) == ("m", "x/", True)
    assert b"KeyCount" not in body
    assert b"NextMarker" not in xml.list_objects(listing(), [], [], marker=b"", next_marker=None)


def test_versions_and_delete_markers_keep_their_order():
    body = xml.list_versions(
        listing(),
        [
            xml.ListedVersion(b"k", "v2", True, MOMENT, None, owner="o"),
            xml.ListedVersion(b"k", "v1", False, MOMENT, "e", 3, "o"),
        ],
        [b"p/"],
        key_marker=b"",
        version_id_marker="",
        next_key_marker=b"k",
        next_version_id_marker="v1",
    )
    tags = [child.tag.rpartition("}")[2] for child in ElementTree.fromstring(body)]
    assert tags.index("DeleteMarker") < tags.index("Version")
    result = parsed("ListObjectVersions", body)
    assert result["Versions"][0]["ETag"] == '"e"'
    assert result["DeleteMarkers"][0]["IsLatest"] is True
    assert (result["NextKeyMarker"], result["NextVersionIdMarker"]) == ("k", "v1")


def test_buckets():
    body = xml.list_buckets(
        "me", [xml.ListedBucket("b1", MOMENT)], prefix="b", continuation_token="t", region="r"
    )
    result = parsed("ListBuckets", body)
    assert result["Owner"]["ID"] == "me"
    assert [(b["Name"], b["BucketRegion"]) for b in result["Buckets"]] == [("b1", "r")]
    assert (result["Prefix"], result["ContinuationToken"]) == ("b", "t")
    assert parsed("ListBuckets", xml.list_buckets("me", []))["Buckets"] == []


def test_small_bucket_documents():
    assert ElementTree.fromstring(xml.location_constraint("eu-west-3")).text == "eu-west-3"
    assert ElementTree.fromstring(xml.location_constraint("us-east-1")).text is None
    assert "Status" not in parsed("GetBucketVersioning", xml.versioning_configuration(None))
    assert parsed("GetBucketVersioning", xml.versioning_configuration("Enabled"))["Status"] == "Enabled"
    assert parsed("GetBucketRequestPayment", xml.request_payment())["Payer"] == "BucketOwner"
    assert parsed("GetBucketPolicyStatus", xml.policy_status())["PolicyStatus"] == {"IsPublic": False}
    (grant,) = parsed("GetObjectAcl", acl.format_xml((), "me"))["Grants"]
    assert (grant["Permission"], grant["Grantee"]["Type"], grant["Grantee"]["ID"]) == (
        "FULL_CONTROL",
        "CanonicalUser",
        "me",
    )


CRC = ChecksumElement("ChecksumCRC32", "AAAAAA==")


@settings(deadline=None)
@given(XML_KEYS)
def test_multipart_documents(key):
    raw = key.encode()
    body = xml.initiate_multipart_upload("b", raw, "u1")
    assert parsed("CreateMultipartUpload", body)["Key"] == key
    body = xml.complete_multipart_upload("http://h/b/k", "b", raw, "e-2", CRC, "COMPOSITE")
    result = parsed("CompleteMultipartUpload", body)
    assert (result["Key"], result["ETag"], result["ChecksumCRC32"]) == (key, '"e-2"', "AAAAAA==")
    assert (result["Location"], result["ChecksumType"]) == ("http://h/b/k", "COMPOSITE")


def test_copies():
    result = parsed("CopyObject", xml.copy_object("e", MOMENT, CRC, "FULL_OBJECT"))["CopyObjectResult"]
    assert (result["ETag"], result["ChecksumCRC32"], result["ChecksumType"]) == (
        '"e"',
        "AAAAAA==",
        "FULL_OBJECT",
    )
    assert parsed("UploadPartCopy", xml.copy_part("e", MOMENT))["CopyPartResult"]["ETag"] == '"e"'


def test_parts():
    body = xml.list_parts(
        "b",
        b"k",
        "u",
        "me",
        [xml.ListedPart(2, MOMENT, "e", 5, CRC), xml.ListedPart(4, MOMENT, "f", 6)],
        marker=1,
        next_marker=4,
        max_parts=2,
        truncated=True,
        checksum_algorithm="CRC32",
        checksum_type="COMPOSITE",
    )
    result = parsed("ListParts", body)
    assert [(p["PartNumber"], p["Size"], p.get("ChecksumCRC32")) for p in result["Parts"]] == [
        (2, 5, "AAAAAA=="),
        (4, 6, None),
    ]
    assert (result["PartNumberMarker"], result["NextPartNumberMarker"], result["IsTruncated"]) == (1, 4, True)
    assert (result["ChecksumAlgorithm"], result["Initiator"]["ID"]) == ("CRC32", "me")


def test_uploads():
    body = xml.list_multipart_uploads(
        listing(prefix=b"p", delimiter=b"/", url=True),
        [xml.ListedUpload(b"a b", "u1", MOMENT, "me", "CRC32", "FULL_OBJECT")],
        [b"p q/"],
        key_marker=b"",
        upload_id_marker="",
        next_key_marker=b"a b",
        next_upload_id_marker="u1",
    )
    result = parsed("ListMultipartUploads", body)
    assert [(u["Key"], u["UploadId"], u["ChecksumType"]) for u in result["Uploads"]] == [
        ("a%20b", "u1", "FULL_OBJECT")
    ]
    assert result["CommonPrefixes"] == [{"Prefix": "p%20q/"}]
    assert (result["NextKeyMarker"], result["MaxUploads"]) == ("a%20b", 1000)


def test_delete_results():
    body = xml.delete_result(
        [xml.Deleted(b"a"), xml.Deleted(b"b", "v1"), xml.Deleted(b"c", None, True, "v9")],
        [xml.DeleteFailed(b"d&", "AccessDenied", "no < way", "v2")],
    )
    result = parsed("DeleteObjects", body)
    assert result["Deleted"] == [
        {"Key": "a"},
        {"Key": "b", "VersionId": "v1"},
        {"Key": "c", "DeleteMarker": True, "DeleteMarkerVersionId": "v9"},
    ]
    assert result["Errors"] == [
        {"Key": "d&", "VersionId": "v2", "Code": "AccessDenied", "Message": "no < way"}
    ]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 4_000_000_000_000))
def test_times_have_milliseconds(ms):
    body = xml.copy_part("e", ms)
    assert f"<LastModified>{dates.format_iso(ms)}</LastModified>".encode() in body
