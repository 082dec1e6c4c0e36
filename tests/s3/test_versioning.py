"""Versioning: what every operation does to versions and says of them, in the three states of a bucket.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/Versioning.html and the API pages of each operation.
"""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.s3.conftest import make_boto_client
from tests.s3.expect import contents_of, keys_of, read, s3_error
from tests.s3.keys import new_key
from tests.s3.wire import assert_error

UNKNOWN = "00" * 7 + "01" + "ab" * 8  # what an id looks like, of a commit long ago
MALFORMED = ["3sL4kqtJlcpXroDTDmJ-rmSpXd3dIbrHY", "00", "NULL", "zz" * 16, "AB" * 16, "ab" * 17]


def set_versioning(s3, bucket: str, status: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


@pytest.fixture
def versioned(s3, bucket) -> str:
    set_versioning(s3, bucket, "Enabled")
    return bucket


@pytest.fixture
def put(s3, bucket):
    """Puts a text; its version id, if the answer has one."""

    def put(body: str, key: str = "k") -> str | None:
        return s3.put_object(Bucket=bucket, Key=key, Body=body.encode()).get("VersionId")

    return put


def versions_of(s3, bucket, **arguments) -> list[tuple[str, str, bool, bool]]:
    """(key, version id, latest, is a delete marker), as listed, over all pages."""
    found = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, **arguments):
        rows = [(e, False) for e in page.get("Versions", ())] + [
            (e, True) for e in page.get("DeleteMarkers", ())
        ]
        found += [(e["Key"], e["VersionId"], e["IsLatest"], marker) for e, marker in rows]
    return found


def bodies(s3, bucket, key="k") -> dict[str, bytes]:
    return {
        version: read(s3, bucket, key, VersionId=version)
        for _, version, _, marker in versions_of(s3, bucket, Prefix=key)
        if not marker
    }


# -- the configuration


@pytest.mark.subset
def test_bucket_versioning_is_absent_enabled_suspended_and_enabled_again(s3, bucket):
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    for status in ("Enabled", "Suspended", "Enabled"):
        set_versioning(s3, bucket, status)
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"<VersioningConfiguration><Status>Off</Status></VersioningConfiguration>", 400, "MalformedXML"),
        (b"<VersioningConfiguration><Status>enabled</Status></VersioningConfiguration>", 400, "MalformedXML"),
        (b"<VersioningConfiguration/>", 400, "IllegalVersioningConfigurationException"),
        (
            b"<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>",
            501,
            "NotImplemented",
        ),
        (b"", 400, "MissingRequestBodyError"),
    ],
)
def test_put_bucket_versioning_refuses(root, s3, bucket, body, status, code):
    assert_error(root.call("PUT", f"/{bucket}", query="versioning", body=body), status, code)
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)


def test_bucket_versioning_of_no_bucket(s3):
    with s3_error(404, "NoSuchBucket"):
        s3.get_bucket_versioning(Bucket="no-such-bucket-anywhere")
    with s3_error(404, "NoSuchBucket"):
        set_versioning(s3, "no-such-bucket-anywhere", "Enabled")


# -- put, get, head


@pytest.mark.subset
def test_put_object_keeps_every_version(s3, versioned, put):
    ids = [put(text) for text in ("one", "two", "three")]
    assert all(re.fullmatch("[0-9a-f]{32}", version) for version in ids)
    assert bodies(s3, versioned) == dict(zip(ids, (b"one", b"two", b"three"), strict=True))
    assert versions_of(s3, versioned) == [
        ("k", ids[2], True, False),
        ("k", ids[1], False, False),
        ("k", ids[0], False, False),
    ]
    answer = s3.get_object(Bucket=versioned, Key="k")
    assert (answer["VersionId"], answer["Body"].read()) == (ids[2], b"three")
    head = s3.head_object(Bucket=versioned, Key="k", VersionId=ids[0])
    assert (head["VersionId"], head["ContentLength"]) == (ids[0], 3)
    assert keys_of(s3, versioned) == ["k"]


def test_get_object_by_version_honours_ranges_and_conditions(s3, versioned, put):
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"0123456789")
    put("other")
    named = {"Bucket": versioned, "Key": "k", "VersionId": first["VersionId"]}
    assert s3.get_object(**named, Range="bytes=2-4")["Body"].read() == b"234"
    assert s3.get_object(**named, IfMatch=first["ETag"])["Body"].read() == b"0123456789"
    with s3_error(412, "PreconditionFailed"):
        s3.get_object(Bucket=versioned, Key="k", IfMatch=first["ETag"])


def test_get_object_not_modified_names_the_version(root, versioned, put, s3):
    version = put("x")
    etag = s3.head_object(Bucket=versioned, Key="k")["ETag"]
    answer = root.call("GET", f"/{versioned}/k", headers=[("if-none-match", etag)])
    assert (answer.status, answer.headers["x-amz-version-id"]) == (304, version)


def test_an_unversioned_bucket_names_no_version(root, bucket):
    assert "x-amz-version-id" not in root.call("PUT", f"/{bucket}/k", body=b"x").headers
    for method, query in (("GET", ""), ("HEAD", ""), ("GET", "versionId=null"), ("DELETE", "")):
        answer = root.call(method, f"/{bucket}/k", query=query)
        assert answer.status in (200, 204)
        assert {"x-amz-version-id", "x-amz-delete-marker"}.isdisjoint(answer.headers)


@pytest.mark.subset
def test_what_was_there_before_versioning_is_the_null_version(s3, bucket, put):
    assert put("old") is None
    set_versioning(s3, bucket, "Enabled")
    assert s3.get_object(Bucket=bucket, Key="k")["VersionId"] == "null"
    new = put("new")
    assert bodies(s3, bucket) == {"null": b"old", new: b"new"}


@pytest.mark.subset
def test_put_object_in_a_suspended_bucket_replaces_the_null_version_alone(s3, bucket, put):
    put("null 1")
    set_versioning(s3, bucket, "Enabled")
    kept = [put("kept 1"), put("kept 2")]
    set_versioning(s3, bucket, "Suspended")
    assert put("null 2") is None
    assert s3.get_object(Bucket=bucket, Key="k")["VersionId"] == "null"
    assert bodies(s3, bucket) == {"null": b"null 2", kept[0]: b"kept 1", kept[1]: b"kept 2"}
    put("null 3")
    assert bodies(s3, bucket) == {"null": b"null 3", kept[0]: b"kept 1", kept[1]: b"kept 2"}


@pytest.mark.parametrize("status", [None, "Enabled", "Suspended"])
def test_version_ids_that_are_none(root, s3, bucket, put, status):
    put("x")
    if status:
        set_versioning(s3, bucket, status)
    for method in ("GET", "DELETE"):
        for text in MALFORMED:
            answer = root.call(method, f"/{bucket}/k", query=f"versionId={text}")
            assert_error(answer, 400, "InvalidArgument")
            assert answer.text("ArgumentName") == "versionId"
            assert answer.text("ArgumentValue") == text
        assert_error(root.call(method, f"/{bucket}/k", query="versionId="), 400, "InvalidArgument")
    for key in ("k", "other"):
        answer = root.call("GET", f"/{bucket}/{key}", query=f"versionId={UNKNOWN}")
        assert assert_error(answer, 404, "NoSuchVersion").text("VersionId") == UNKNOWN
        assert root.call("HEAD", f"/{bucket}/{key}", query=f"versionId={UNKNOWN}").status == 404
        assert root.call("DELETE", f"/{bucket}/{key}", query=f"versionId={UNKNOWN}").status == 204
    assert read(s3, bucket, "k") == b"x"


def test_a_version_id_of_another_key_names_nothing(s3, versioned, put):
    version = put("x", "one")
    put("x", "two")
    with s3_error(404, "NoSuchVersion"):
        s3.get_object(Bucket=versioned, Key="two", VersionId=version)
    s3.delete_object(Bucket=versioned, Key="two", VersionId=version)
    assert len(versions_of(s3, versioned)) == 2


# -- delete and delete markers


@pytest.mark.subset
def test_delete_object_hides_the_object_behind_a_marker(root, s3, versioned, put):
    version = put("x")
    deleted = s3.delete_object(Bucket=versioned, Key="k")
    marker = deleted["VersionId"]
    assert deleted["DeleteMarker"] is True
    assert marker != version
    assert keys_of(s3, versioned) == []
    assert read(s3, versioned, "k", VersionId=version) == b"x"
    assert set(versions_of(s3, versioned)) == {("k", marker, True, True), ("k", version, False, False)}
    for method in ("GET", "HEAD"):
        answer = root.call(method, f"/{versioned}/k")
        assert answer.status == 404
        assert answer.headers["x-amz-delete-marker"] == "true"
        assert answer.headers["x-amz-version-id"] == marker
        if method == "GET":
            assert_error(answer, 404, "NoSuchKey")


@pytest.mark.subset
def test_get_object_of_a_marker_by_its_id_is_not_allowed(root, s3, versioned, put):
    put("x")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    for method in ("GET", "HEAD"):
        answer = root.call(method, f"/{versioned}/k", query=f"versionId={marker}")
        assert answer.status == 405
        assert answer.headers["allow"] == "DELETE"
        assert answer.headers["x-amz-delete-marker"] == "true"
        assert answer.headers["x-amz-version-id"] == marker
        assert "last-modified" in answer.headers
        if method == "GET":
            assert_error(answer, 405, "MethodNotAllowed")
            assert (answer.text("Method"), answer.text("ResourceType")) == ("GET", "DeleteMarker")


def test_delete_object_of_nothing_makes_a_marker(s3, versioned):
    first = s3.delete_object(Bucket=versioned, Key="k")
    second = s3.delete_object(Bucket=versioned, Key="k")
    assert first["VersionId"] != second["VersionId"]
    assert [marker for *_, marker in versions_of(s3, versioned)] == [True, True]


@pytest.mark.subset
def test_delete_object_of_a_marker_brings_the_object_back(s3, versioned, put):
    version = put("x")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    answer = s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
    assert (answer["DeleteMarker"], answer["VersionId"]) == (True, marker)
    assert read(s3, versioned, "k") == b"x"
    assert versions_of(s3, versioned) == [("k", version, True, False)]


def test_delete_object_by_version_is_for_good(s3, versioned, put):
    ids = [put(text) for text in ("one", "two", "three")]
    answer = s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[2])
    assert answer["VersionId"] == ids[2]
    assert "DeleteMarker" not in answer
    assert read(s3, versioned, "k") == b"two"
    s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[0])
    assert bodies(s3, versioned) == {ids[1]: b"two"}
    s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[1])
    assert versions_of(s3, versioned) == []
    with s3_error(404, "NoSuchKey"):
        s3.get_object(Bucket=versioned, Key="k")


@pytest.mark.subset
def test_delete_object_in_a_suspended_bucket_leaves_a_null_marker(root, s3, bucket, put):
    put("null")
    set_versioning(s3, bucket, "Enabled")
    kept = put("kept")
    set_versioning(s3, bucket, "Suspended")
    answer = root.call("DELETE", f"/{bucket}/k")
    assert answer.headers["x-amz-version-id"] == "null"
    assert answer.headers["x-amz-delete-marker"] == "true"
    assert set(versions_of(s3, bucket)) == {("k", "null", True, True), ("k", kept, False, False)}
    assert root.call("GET", f"/{bucket}/k", query="versionId=null").status == 405
    answer = root.call("DELETE", f"/{bucket}/k", query="versionId=null")
    assert answer.headers["x-amz-delete-marker"] == "true"
    assert read(s3, bucket, "k") == b"kept"


def test_delete_object_with_a_condition_looks_at_the_version_it_names(s3, versioned):
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"old")
    new = s3.put_object(Bucket=versioned, Key="k", Body=b"new")
    with s3_error(412, "PreconditionFailed"):
        s3.delete_object(Bucket=versioned, Key="k", VersionId=old["VersionId"], IfMatch=new["ETag"])
    with s3_error(412, "PreconditionFailed"):
        s3.delete_object(Bucket=versioned, Key="k", IfMatch=old["ETag"])
    assert len(versions_of(s3, versioned)) == 2
    s3.delete_object(Bucket=versioned, Key="k", VersionId=old["VersionId"], IfMatch=old["ETag"])
    s3.delete_object(Bucket=versioned, Key="k", IfMatch=new["ETag"])
    assert [marker for *_, marker in versions_of(s3, versioned)] == [False, True]


@pytest.mark.subset
def test_delete_objects_makes_and_removes_markers_and_versions(s3, versioned, put):
    one, two = put("1", "one"), put("2", "two")
    three = s3.delete_object(Bucket=versioned, Key="three")["VersionId"]
    wanted = [{"Key": "one"}, {"Key": "two", "VersionId": two}, {"Key": "three", "VersionId": three}]
    wanted += [{"Key": "four", "VersionId": UNKNOWN}, {"Key": "five", "VersionId": "malformed"}]
    answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": wanted})
    made, removed, unmarked, idle = answer["Deleted"]
    assert made["DeleteMarker"] is True
    assert "VersionId" not in made
    assert removed == {"Key": "two", "VersionId": two}
    assert unmarked == {
        "Key": "three",
        "VersionId": three,
        "DeleteMarker": True,
        "DeleteMarkerVersionId": three,
    }
    assert idle == {"Key": "four", "VersionId": UNKNOWN}
    (failed,) = answer["Errors"]
    assert (failed["Key"], failed["VersionId"], failed["Code"]) == ("five", "malformed", "InvalidArgument")
    assert set(versions_of(s3, versioned)) == {
        ("one", made["DeleteMarkerVersionId"], True, True),
        ("one", one, False, False),
    }


def test_delete_objects_naming_a_key_twice_makes_one_marker(s3, versioned, put):
    put("x")
    answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k"}, {"Key": "k"}]})
    assert len(answer["Deleted"]) == 2
    assert len(versions_of(s3, versioned)) == 2


def test_delete_objects_in_a_suspended_bucket(s3, bucket, put):
    set_versioning(s3, bucket, "Suspended")
    put("x")
    (deleted,) = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})["Deleted"]
    assert deleted == {"Key": "k", "DeleteMarker": True, "DeleteMarkerVersionId": "null"}


# -- copies and multipart uploads


@pytest.mark.subset
def test_copy_object_of_an_older_version_brings_it_back(s3, versioned, put):
    old, new = put("old"), put("new")
    answer = s3.copy_object(
        Bucket=versioned, Key="k", CopySource={"Bucket": versioned, "Key": "k", "VersionId": old}
    )
    assert answer["CopySourceVersionId"] == old
    assert bodies(s3, versioned) == {old: b"old", new: b"new", answer["VersionId"]: b"old"}
    assert read(s3, versioned, "k") == b"old"


def test_copy_object_onto_itself_without_a_version_changes_nothing(s3, versioned, put):
    put("x")
    with s3_error(400, "InvalidRequest"):
        s3.copy_object(Bucket=versioned, Key="k", CopySource={"Bucket": versioned, "Key": "k"})


def test_copy_object_of_markers_and_missing_versions(s3, versioned, put):
    put("x")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    for version, status, code in (
        ({}, 404, "NoSuchKey"),
        ({"VersionId": marker}, 400, "InvalidRequest"),
        ({"VersionId": UNKNOWN}, 404, "NoSuchVersion"),
        ({"VersionId": "malformed"}, 400, "InvalidArgument"),
    ):
        with s3_error(status, code):
            s3.copy_object(Bucket=versioned, Key="c", CopySource={"Bucket": versioned, "Key": "k", **version})


def test_copy_object_into_a_bucket_without_versions(s3, versioned, put):
    version = put("x")
    plain = f"{versioned}-p"
    s3.create_bucket(Bucket=plain)
    answer = s3.copy_object(Bucket=plain, Key="c", CopySource={"Bucket": versioned, "Key": "k"})
    assert answer["CopySourceVersionId"] == version
    assert "VersionId" not in answer
    answer = s3.copy_object(Bucket=versioned, Key="c", CopySource={"Bucket": plain, "Key": "c"})
    assert "CopySourceVersionId" not in answer
    assert read(s3, versioned, "c", VersionId=answer["VersionId"]) == b"x"


@pytest.mark.subset
def test_multipart_upload_makes_a_version_and_copies_parts_of_versions(s3, versioned, put):
    old, _ = put("old"), put("new")
    upload = {"Bucket": versioned, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    source = {"Bucket": versioned, "Key": "k", "VersionId": old}
    copied = s3.upload_part_copy(**upload, PartNumber=1, CopySource=source)
    assert copied["CopySourceVersionId"] == old
    parts = [{"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}]
    done = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert read(s3, versioned, "k", VersionId=done["VersionId"]) == b"old"
    assert len(bodies(s3, versioned)) == 3
    again = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert again["VersionId"] == done["VersionId"]
    assert len(bodies(s3, versioned)) == 3


# -- conditions


@pytest.mark.subset
def test_conditional_writes_see_the_current_version_only(s3, versioned):
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1", IfNoneMatch="*")
    with s3_error(412, "PreconditionFailed"):
        s3.put_object(Bucket=versioned, Key="k", Body=b"2", IfNoneMatch="*")
    second = s3.put_object(Bucket=versioned, Key="k", Body=b"2", IfMatch=first["ETag"])
    with s3_error(412, "PreconditionFailed"):
        s3.put_object(Bucket=versioned, Key="k", Body=b"3", IfMatch=first["ETag"])
    s3.delete_object(Bucket=versioned, Key="k")
    with s3_error(404, "NoSuchKey"):
        s3.put_object(Bucket=versioned, Key="k", Body=b"3", IfMatch=second["ETag"])
    s3.put_object(Bucket=versioned, Key="k", Body=b"3", IfNoneMatch="*")
    assert read(s3, versioned, "k") == b"3"


# -- listings


@pytest.fixture
def history(s3, versioned, put) -> list[tuple[str, str, bool, bool]]:
    """Keys with groups, markers and null versions; what ListObjectVersions must say of them."""
    rows = []
    for key in ("a", "photos/1", "photos/2", "z"):
        ids = [put(f"{key}{i}", key) for i in range(3)]
        versions = [(version, False) for version in ids]
        if key in ("photos/1", "z"):
            versions.append((s3.delete_object(Bucket=versioned, Key=key)["VersionId"], True))
        versions.reverse()
        rows += [(key, version, n == 0, marker) for n, (version, marker) in enumerate(versions)]
    return rows


def page_by_page(s3, bucket, max_keys, **arguments):
    """Entries in the listing's own order, common prefixes in theirs."""
    found, groups = [], []
    while True:
        page = s3.list_object_versions(Bucket=bucket, MaxKeys=max_keys, **arguments)
        rows = [(e, False) for e in page.get("Versions", ())] + [
            (e, True) for e in page.get("DeleteMarkers", ())
        ]
        assert len(rows) + len(page.get("CommonPrefixes", ())) <= max_keys
        found += [(e["Key"], e["VersionId"], e["IsLatest"], marker) for e, marker in rows]
        groups += [group["Prefix"] for group in page.get("CommonPrefixes", ())]
        if not page["IsTruncated"]:
            return found, groups
        arguments["KeyMarker"] = page["NextKeyMarker"]
        arguments.pop("VersionIdMarker", None)
        if "NextVersionIdMarker" in page:
            arguments["VersionIdMarker"] = page["NextVersionIdMarker"]


@pytest.mark.subset
@pytest.mark.parametrize("max_keys", [1, 2, 3, 5, 1000])
def test_list_object_versions_page_by_page_is_complete(s3, versioned, history, max_keys):
    found, groups = page_by_page(s3, versioned, max_keys)
    assert sorted(found) == sorted(history)
    assert groups == []
    if max_keys == 1:
        assert found == history


def test_list_object_versions_with_prefix_delimiter_and_markers(s3, versioned, history):
    found, groups = page_by_page(s3, versioned, 2, Delimiter="/")
    assert sorted(found) == sorted(row for row in history if "/" not in row[0])
    assert groups == ["photos/"]
    found, groups = page_by_page(s3, versioned, 3, Prefix="photos/", Delimiter="/")
    assert sorted(found) == sorted(row for row in history if "/" in row[0])
    found, _ = page_by_page(s3, versioned, 2, KeyMarker="photos/1")
    assert sorted(found) == sorted(row for row in history if row[0] > "photos/1")
    marker = history[1][1]
    found, _ = page_by_page(s3, versioned, 2, KeyMarker="a", VersionIdMarker=marker)
    assert sorted(found) == sorted(history[2:])


def test_list_object_versions_refuses_bad_markers(root, versioned):
    for query in ("versions&version-id-marker=null", "versions&key-marker=k&version-id-marker=nonsense"):
        assert_error(root.call("GET", f"/{versioned}", query=query), 400, "InvalidArgument")


def test_list_object_versions_tells_size_etag_and_owner(s3, versioned, put):
    put("x")
    s3.delete_object(Bucket=versioned, Key="k")
    page = s3.list_object_versions(Bucket=versioned)
    (version,), (marker,) = page["Versions"], page["DeleteMarkers"]
    assert (version["Size"], version["StorageClass"], version["IsLatest"]) == (1, "STANDARD", False)
    assert (
        version["ETag"] == s3.head_object(Bucket=versioned, Key="k", VersionId=version["VersionId"])["ETag"]
    )
    assert version["Owner"] == marker["Owner"]
    assert "Size" not in marker
    assert "ETag" not in marker


def test_a_bucket_is_emptied_page_by_page_with_markers_that_are_gone(s3, bucket, put):
    put("null", "a")
    set_versioning(s3, bucket, "Enabled")
    for key in ("a", "b"):
        for i in range(3):
            put(str(i), key)
        s3.delete_object(Bucket=bucket, Key=key)
    for page in s3.get_paginator("list_object_versions").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 2}
    ):
        rows = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        objects = [{"Key": row["Key"], "VersionId": row["VersionId"]} for row in rows]
        if objects:
            assert "Errors" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    s3.delete_bucket(Bucket=bucket)


# -- buckets, tenants, restarts


@pytest.mark.subset
def test_delete_bucket_needs_every_version_gone(s3, versioned, put):
    version = put("x")
    with s3_error(409, "BucketNotEmpty"):
        s3.delete_bucket(Bucket=versioned)
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    s3.delete_object(Bucket=versioned, Key="k", VersionId=version)
    with s3_error(409, "BucketNotEmpty"):
        s3.delete_bucket(Bucket=versioned)
    s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
    s3.delete_bucket(Bucket=versioned)


def test_versioning_is_not_for_read_only_keys(server, s3, versioned, put):
    version = put("x")
    with new_key(server, "read-only") as key:
        reader = make_boto_client(server, **key)
        assert reader.get_bucket_versioning(Bucket=versioned)["Status"] == "Enabled"
        assert reader.get_object(Bucket=versioned, Key="k", VersionId=version)["Body"].read() == b"x"
        with s3_error(403, "AccessDenied"):
            set_versioning(reader, versioned, "Suspended")
        with s3_error(403, "AccessDenied"):
            reader.delete_object(Bucket=versioned, Key="k", VersionId=version)
        reader.close()
    assert s3.get_bucket_versioning(Bucket=versioned)["Status"] == "Enabled"


def test_versions_survive_a_rebuild_of_the_metadata(new_server):
    server = new_server().start()
    s3 = make_boto_client(server)
    s3.create_bucket(Bucket="bucket")
    set_versioning(s3, "bucket", "Enabled")
    for i in range(3):
        s3.put_object(Bucket="bucket", Key="k", Body=b"%d" % i * 10_000)
    s3.delete_object(Bucket="bucket", Key="k")
    s3.put_object(Bucket="bucket", Key="other", Body=b"x")
    before = (versions_of(s3, "bucket"), bodies(s3, "bucket"), contents_of(s3, "bucket"))
    server.stop()
    shutil.rmtree(server.data / "meta")
    server.start()
    assert (versions_of(s3, "bucket"), bodies(s3, "bucket"), contents_of(s3, "bucket")) == before


def test_stats_count_every_version(new_server, rng):
    server = new_server().start()
    s3 = make_boto_client(server)
    s3.create_bucket(Bucket="bucket")
    set_versioning(s3, "bucket", "Enabled")
    for _ in range(3):
        s3.put_object(Bucket="bucket", Key="k", Body=rng.randbytes(100_000))
    s3.delete_object(Bucket="bucket", Key="k")
    found = json.loads(server.cli("stats", "--json").stdout)
    row = found["buckets"]["bucket"]
    assert (row["objects"], row["logical_bytes"], row["unique_bytes"]) == (3, 300_000, 300_000)
    assert (found["objects"], found["logical_bytes"]) == (3, 300_000)
