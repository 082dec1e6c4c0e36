"""DeleteObject and DeleteObjects. https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html"""

from __future__ import annotations

import pytest

from tests.s3.expect import keys_of, s3_error
from tests.s3.wire import assert_error, content_md5, crc32


@pytest.mark.subset
def test_delete_object_is_204_also_when_there_is_nothing(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for _ in range(2):
        answer = s3.delete_object(Bucket=bucket, Key="k")
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    with s3_error(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="k")


def test_delete_object_of_the_null_version_deletes_it(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
    assert keys_of(s3, bucket) == []


def test_delete_object_of_an_unknown_version_deletes_nothing(root, bucket):
    root.call("PUT", f"/{bucket}/k", body=b"x")
    answer = root.call("DELETE", f"/{bucket}/k", query="versionId=3sL4kqtJlcpXroDTDmJ-rmSpXd3dIbrHY")
    assert answer.status in (204, 400, 404, 501)
    assert root.call("HEAD", f"/{bucket}/k").status == 200


@pytest.mark.subset
def test_delete_objects_reports_each_key(s3, bucket):
    names = ["plain", "with space", "a+b", "ü/é", "a&b<c>", "%2F", "line\nbreak"]
    for name in names:
        s3.put_object(Bucket=bucket, Key=name)
    s3.put_object(Bucket=bucket, Key="stays")
    wanted = [{"Key": name} for name in [*names, "never existed"]]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted})
    assert [entry["Key"] for entry in answer["Deleted"]] == [*names, "never existed"]
    assert "Errors" not in answer
    assert keys_of(s3, bucket) == ["stays"]


def test_delete_objects_quiet_reports_errors_only(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}], "Quiet": True})
    assert "Deleted" not in answer
    assert "Errors" not in answer
    assert keys_of(s3, bucket) == []


def test_delete_objects_with_the_null_version(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": "null"}]})
    assert answer["Deleted"][0]["Key"] == "k"
    assert keys_of(s3, bucket) == []


def test_delete_objects_takes_a_thousand_and_no_more(root, bucket, put_many):
    put_many(["k0", "k999"])
    assert _delete(root, bucket, _body(f"k{n}" for n in range(1001))).code == "MalformedXML"
    assert root.call("HEAD", f"/{bucket}/k0").status == 200
    answer = _delete(root, bucket, _body(f"k{n}" for n in range(1000)))
    assert (answer.status, len(answer.texts("Deleted"))) == (200, 1000)
    assert root.call("HEAD", f"/{bucket}/k999").status == 404


@pytest.mark.parametrize(
    "headers",
    [
        lambda body: [("Content-MD5", content_md5(body))],
        lambda body: [("x-amz-checksum-crc32", crc32(body))],
    ],
    ids=["md5", "crc32"],
)
def test_delete_objects_takes_either_digest_of_its_body(root, bucket, headers):
    body = _body(["k"])
    root.call("PUT", f"/{bucket}/k")
    answer = root.call("POST", f"/{bucket}/", query="delete=", headers=headers(body), body=body)
    assert answer.status == 200
    assert root.call("HEAD", f"/{bucket}/k").status == 404


def test_delete_objects_with_a_wrong_digest_deletes_nothing(root, bucket):
    root.call("PUT", f"/{bucket}/k")
    body = _body(["k"])
    for header in (("Content-MD5", content_md5(b"?")), ("x-amz-checksum-crc32", crc32(b"?"))):
        answer = root.call("POST", f"/{bucket}", query="delete", headers=[header], body=body)
        assert_error(answer, 400, "BadDigest", "XAmzContentChecksumMismatch")
    assert root.call("HEAD", f"/{bucket}/k").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<Delete>",
        b"<Delete></Delete>",
        b"<Other><Object><Key>k</Key></Object></Other>",
        b"<Delete><Object></Object></Delete>",
        b"<Delete><Object><Key></Key></Object></Delete>",
        b"not xml at all",
        b"\xff\xfe<Delete>",
    ],
)
def test_delete_objects_malformed_is_refused_whole(root, bucket, body):
    root.call("PUT", f"/{bucket}/k")
    answer = _delete(root, bucket, body)
    assert answer.status in (200, 400), answer
    if answer.status == 400:
        assert_error(answer, 400, "MalformedXML", "MissingRequestBodyError", "UserKeyMustBeSpecified")
    else:
        assert answer.texts("Error"), "an empty key cannot be deleted"
    assert root.call("HEAD", f"/{bucket}/k").status == 200


def test_delete_objects_without_namespace_and_with_it(root, bucket):
    for opening in ("<Delete>", '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'):
        root.call("PUT", f"/{bucket}/k")
        body = f"{opening}<Object><Key>k</Key></Object></Delete>".encode()
        assert _delete(root, bucket, body).status == 200
        assert root.call("HEAD", f"/{bucket}/k").status == 404


def _body(keys) -> bytes:
    return b"<Delete>%s</Delete>" % b"".join(f"<Object><Key>{k}</Key></Object>".encode() for k in keys)


def _delete(root, bucket, body):
    headers = [("Content-MD5", content_md5(body))]
    return root.call("POST", f"/{bucket}", query="delete", headers=headers, body=body)
