"""ListObjects (v1), ListObjectsV2 and ListObjectVersions against a naive sorted filter.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html, API_ListObjects.html,
API_ListObjectVersions.html. Order is that of the keys' UTF-8 bytes.
"""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.s3.conftest import new_bucket_name
from tests.s3.expect import keys_of
from tests.s3.wire import NAMESPACE, assert_error, md5

KEYS = sorted(
    [
        "a",
        "a/",
        "a/1",
        "a/2/x",
        "a/2/y",
        "a0",
        "b/c/d/e",
        "b/c/f",
        "b//double",
        "photos/2025/jan.jpg",
        "photos/2026/feb.jpg",
        "photos/2026/mar.jpg",
        "photos/index",
        "sp ace/x y",
        "plus+sign",
        "per%cent",
        "z",
        "ä/umlaut",
        "é",
        "日本/語",
        "🎉/party",
        "🎉",
        "\uffee",  # after all of the BMP, but before the emoji in bytes: UTF-16 order would differ
    ],
    key=lambda key: key.encode(),
)
PREFIXES = ["", "a", "a/", "a/2", "b/", "photos/", "photos/2026/", "sp ", "ä/", "🎉", "nothing"]
DELIMITERS = ["", "/", "o", "2", "//", "/2"]


def model(prefix: str, delimiter: str) -> list[tuple[str, bool]]:
    """What a listing gives: (key or common prefix, whether it is a common prefix), in byte order."""
    found: dict[str, bool] = {}
    for key in KEYS:
        if key.startswith(prefix):
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                found[prefix + rest[: rest.index(delimiter) + len(delimiter)]] = True
            else:
                found[key] = False
    return sorted(found.items(), key=lambda item: (item[0].encode(), item[1]))


@pytest.fixture(scope="module")
def listed(session_s3) -> str:
    """A bucket that holds KEYS and is only read."""
    name = new_bucket_name("listing")
    session_s3.create_bucket(Bucket=name)
    for key in KEYS:
        session_s3.put_object(Bucket=name, Key=key, Body=key.encode())
    return name


def page_v2(s3, bucket, **arguments) -> tuple[list[tuple[str, bool]], dict]:
    page = s3.list_objects_v2(Bucket=bucket, **arguments)
    entries = [(entry["Key"], False) for entry in page.get("Contents", ())]
    entries += [(entry["Prefix"], True) for entry in page.get("CommonPrefixes", ())]
    assert page["KeyCount"] == len(entries)
    return sorted(entries, key=lambda item: (item[0].encode(), item[1])), page


@pytest.mark.subset
@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_list_objects_v2_is_the_sorted_filter_whatever_the_page_size(s3, listed, prefix, delimiter):
    expected = model(prefix, delimiter)
    for size in (1, 2, 5, 1000):
        found, token = [], {}
        for _ in range(len(expected) + 1):
            entries, page = page_v2(s3, listed, Prefix=prefix, Delimiter=delimiter, MaxKeys=size, **token)
            found += entries
            assert len(entries) <= size
            if not page["IsTruncated"]:
                assert "NextContinuationToken" not in page
                break
            assert len(entries) == size
            token = {"ContinuationToken": page["NextContinuationToken"]}
        assert found == expected


@pytest.mark.parametrize("delimiter", ["", "/", "2"])
@pytest.mark.parametrize("prefix", ["", "a", "photos/", "🎉"])
def test_list_objects_v1_is_the_sorted_filter_whatever_the_page_size(s3, listed, prefix, delimiter):
    expected = model(prefix, delimiter)
    for size in (1, 3, 1000):
        found, marker = [], ""
        for _ in range(len(expected) + 1):
            page = s3.list_objects(
                Bucket=listed, Prefix=prefix, Delimiter=delimiter, MaxKeys=size, Marker=marker
            )
            entries = [(entry["Key"], False) for entry in page.get("Contents", ())]
            entries += [(entry["Prefix"], True) for entry in page.get("CommonPrefixes", ())]
            entries.sort(key=lambda item: (item[0].encode(), item[1]))
            found += entries
            if not page["IsTruncated"]:
                break
            if delimiter:
                assert page["NextMarker"] == entries[-1][0]
            else:
                assert "NextMarker" not in page, "NextMarker is only given with a delimiter"
            marker = entries[-1][0]
        assert found == expected


@pytest.mark.parametrize("after", ["", "a", "a/", "a/1", "b", "photos/2026/", "zzz", "🎉", "\U0010ffff"])
def test_list_objects_start_after_and_marker_need_not_exist(s3, listed, after):
    expected = [key for key in KEYS if key.encode() > after.encode()]
    assert keys_of(s3, listed, StartAfter=after) == expected
    v1 = s3.list_objects(Bucket=listed, Marker=after)
    assert [entry["Key"] for entry in v1.get("Contents", ())] == expected
    assert v1["Marker"] == after


def test_list_objects_start_after_inside_a_group_still_shows_the_group(s3, listed):
    entries, _ = page_v2(s3, listed, Delimiter="/", StartAfter="photos/2026/feb.jpg")
    assert ("photos/", True) in entries
    entries, _ = page_v2(s3, listed, Delimiter="/", StartAfter="photos/zzz")
    assert ("photos/", True) not in entries


def test_list_objects_v2_continuation_wins_over_start_after(s3, listed):
    first = s3.list_objects_v2(Bucket=listed, MaxKeys=2, StartAfter="a")
    assert first["StartAfter"] == "a"
    second = s3.list_objects_v2(
        Bucket=listed, MaxKeys=2, StartAfter="zzz", ContinuationToken=first["NextContinuationToken"]
    )
    assert second["ContinuationToken"] == first["NextContinuationToken"]
    after = KEYS[KEYS.index("a") + 3 :][:2]
    assert [entry["Key"] for entry in second["Contents"]] == after


@pytest.mark.subset
def test_list_objects_entries_carry_what_the_object_is(s3, listed):
    page = s3.list_objects_v2(Bucket=listed, FetchOwner=True)
    for entry in page["Contents"]:
        body = entry["Key"].encode()
        assert (entry["Size"], entry["ETag"]) == (len(body), f'"{md5(body)}"')
        assert entry["StorageClass"] == "STANDARD"
        assert entry["Owner"]["ID"]
        head = s3.head_object(Bucket=listed, Key=entry["Key"])
        assert entry["LastModified"].replace(microsecond=0) == head["LastModified"]


def test_list_objects_owner_is_given_only_when_asked_for_in_v2(s3, listed):
    assert all("Owner" not in e for e in s3.list_objects_v2(Bucket=listed)["Contents"])
    assert all(e["Owner"]["ID"] for e in s3.list_objects(Bucket=listed)["Contents"])


@pytest.mark.parametrize("query", ["list-type=2&max-keys=0", "max-keys=0"])
def test_list_objects_of_no_keys_is_not_truncated(root, listed, query):
    answer = root.call("GET", f"/{listed}", query=query)
    assert (answer.text("IsTruncated"), answer.texts("Key")) == ("false", [])


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "99999999999999999999"])
def test_list_objects_with_an_illegal_max_keys_is_refused(root, listed, value):
    for query in (f"list-type=2&max-keys={value}", f"max-keys={value}"):
        assert_error(root.call("GET", f"/{listed}", query=query), 400, "InvalidArgument")


def test_list_objects_gives_a_thousand_at_most(s3, bucket, put_many):
    put_many(f"k{n:04}" for n in range(1003))
    for arguments in ({}, {"MaxKeys": 5000}):
        page = s3.list_objects_v2(Bucket=bucket, **arguments)
        assert (page["KeyCount"], page["IsTruncated"], page["MaxKeys"]) == (1000, True, 1000)
    rest = s3.list_objects_v2(Bucket=bucket, ContinuationToken=page["NextContinuationToken"])
    assert [entry["Key"] for entry in rest["Contents"]] == ["k1000", "k1001", "k1002"]
    assert len(s3.list_objects(Bucket=bucket)["Contents"]) == 1000


def test_list_objects_v2_with_a_token_that_is_not_ours_is_refused(root, listed):
    for token in ("%00", "garbage%21%21"):
        answer = root.call("GET", f"/{listed}", query=f"list-type=2&continuation-token={token}")
        assert_error(answer, 400, "InvalidArgument")


@pytest.mark.subset
def test_list_objects_url_encoding_covers_every_name_in_the_answer(root, listed):
    query = f"list-type=2&encoding-type=url&prefix={quote('sp a')}&delimiter=%2F&start-after=%C3%A9%20%2B"
    answer = root.call("GET", f"/{listed}", query="list-type=2&encoding-type=url")
    assert answer.text("EncodingType") == "url"
    assert answer.texts("Key") == [quote(key, safe="/-_.~*") for key in KEYS]
    answer = root.call("GET", f"/{listed}", query=query)
    assert answer.text("Prefix") == "sp%20a"
    assert answer.text("Delimiter") == "/"
    assert answer.text("StartAfter") == "%C3%A9%20%2B"


def test_list_objects_without_url_encoding_escapes_for_xml(root, listed):
    answer = root.call("GET", f"/{listed}", query="list-type=2")
    assert answer.texts("Key") == KEYS
    assert answer.headers["content-type"] == "application/xml"
    assert answer.xml.tag == f"{NAMESPACE}ListBucketResult"
    assert answer.text("Name") == listed


def test_list_objects_with_an_unknown_encoding_is_refused(root, listed):
    answer = root.call("GET", f"/{listed}", query="list-type=2&encoding-type=base64")
    assert_error(answer, 400, "InvalidArgument")


def test_list_objects_with_control_characters_can_be_read(s3, bucket):
    names = sorted(["a\x01b", "tab\there", "new\nline", "car\rriage", "del\x7f", "<&>\"'"])
    for name in names:
        s3.put_object(Bucket=bucket, Key=name)
    assert keys_of(s3, bucket) == names
    assert [e["Key"] for e in s3.list_objects(Bucket=bucket)["Contents"]] == names


def test_list_objects_as_restic_and_duckdb_ask(root, listed):
    """An empty delimiter is none; parameters may be given twice over with `=` or without."""
    everything = root.call("GET", f"/{listed}", query="delimiter=&list-type=2&prefix=&fetch-owner=true")
    assert everything.texts("Key") == KEYS
    assert everything.texts("CommonPrefixes") == []
    assert root.call("GET", f"/{listed}/", query="encoding-type=url&list-type=2&prefix=").status == 200


def test_list_objects_after_deletes_and_overwrites(s3, bucket):
    for n in range(20):
        s3.put_object(Bucket=bucket, Key=f"k{n:02}")
    for n in range(0, 20, 2):
        s3.delete_object(Bucket=bucket, Key=f"k{n:02}")
    s3.put_object(Bucket=bucket, Key="k03", Body=b"longer")
    assert keys_of(s3, bucket, PaginationConfig={"PageSize": 3}) == [f"k{n:02}" for n in range(1, 20, 2)]


# -- versions


@pytest.mark.subset
def test_list_object_versions_shows_each_object_as_the_null_version(s3, listed):
    found, arguments = [], {"MaxKeys": 4}
    while True:
        page = s3.list_object_versions(Bucket=listed, **arguments)
        found += page.get("Versions", [])
        assert "DeleteMarkers" not in page
        if not page["IsTruncated"]:
            break
        arguments |= {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
    assert [v["Key"] for v in found] == KEYS
    assert all((v["VersionId"], v["IsLatest"]) == ("null", True) for v in found)
    assert all(v["ETag"] == f'"{md5(v["Key"].encode())}"' for v in found)


def test_list_object_versions_groups_by_delimiter(s3, listed):
    page = s3.list_object_versions(Bucket=listed, Delimiter="/", Prefix="photos/")
    assert [v["Key"] for v in page["Versions"]] == ["photos/index"]
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == ["photos/2025/", "photos/2026/"]
