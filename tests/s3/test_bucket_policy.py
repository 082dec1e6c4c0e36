"""Bucket policies: stored as sent, obeyed by every operation, for strangers, other tenants and the owner alike.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html
"""

from __future__ import annotations

import json

import pytest

from tests.s3.conftest import new_bucket_name
from tests.s3.expect import read, s3_error
from tests.s3.wire import UNSIGNED_CHUNKS_TRAILER, assert_error, crc32


def statement(bucket, actions="s3:GetObject", resource="/*", effect="Allow", principal="*", **conditions):
    found = {
        "Effect": effect,
        "Principal": principal,
        "Action": actions,
        "Resource": f"arn:aws:s3:::{bucket}{resource}",
    }
    return {**found, **({"Condition": conditions} if conditions else {})}


def put_policy(s3, bucket, *statements):
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))


@pytest.fixture
def other(new_key):
    """A key of a tenant that owns nothing here."""
    return new_key("stranger")


# -- the configuration


@pytest.mark.subset
def test_bucket_policy_round_trip(root, s3, bucket):
    with s3_error(404, "NoSuchBucketPolicy"):
        s3.get_bucket_policy(Bucket=bucket)
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement(bucket)]}, indent=3)
    assert root.call("PUT", f"/{bucket}", query="policy", body=text.encode()).status == 204
    answer = root.call("GET", f"/{bucket}", query="policy")
    assert (answer.body.decode(), answer.headers["content-type"]) == (text, "application/json")
    for _ in range(2):
        assert root.call("DELETE", f"/{bucket}", query="policy").status == 204
    with s3_error(404, "NoSuchBucketPolicy"):
        s3.get_bucket_policy(Bucket=bucket)


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"{}", b'{"Statement": [{"Effect": "Allow"}]}', b"{" * 30_000]
)
def test_put_bucket_policy_refuses_a_bad_document_and_keeps_the_old(root, s3, bucket, body):
    put_policy(s3, bucket, statement(bucket))
    before = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    assert_error(root.call("PUT", f"/{bucket}", query="policy", body=body), 400, "MalformedPolicy")
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == before


@pytest.mark.parametrize(
    "bad",
    [
        {"resource": "x/*"},
        {"resource": ""},
        {"actions": "s3:NoSuchAction"},
        {"StringEquals": {"s3:no-such-key": "x"}},
        {"principal": {"Service": "x"}},
    ],
)
def test_put_bucket_policy_refuses_what_it_could_not_keep(s3, bucket, bad):
    with s3_error(400, "MalformedPolicy"):
        put_policy(s3, bucket, statement(bucket, **bad))


def test_bucket_policy_status(s3, bucket):
    with s3_error(404, "NoSuchBucketPolicy"):
        s3.get_bucket_policy_status(Bucket=bucket)
    for principal, public in (("*", True), ({"AWS": "someone"}, False)):
        put_policy(s3, bucket, statement(bucket, principal=principal))
        assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is public


# -- anonymous


@pytest.mark.subset
def test_a_public_read_policy_lets_anyone_read_and_nothing_more(root, s3, bucket):
    s3.put_object(Bucket=bucket, Key="a/k", Body=b"open")
    assert_error(root.anonymous("GET", f"/{bucket}/a/k"), 403, "AccessDenied")
    put_policy(s3, bucket, statement(bucket), statement(bucket, "s3:ListBucket", ""))
    assert root.anonymous("GET", f"/{bucket}/a/k").body == b"open"
    assert root.anonymous("GET", f"/{bucket}/a/k", headers=[("Range", "bytes=1-2")]).body == b"pe"
    assert root.anonymous("HEAD", f"/{bucket}/a/k").status == 200
    assert root.anonymous("GET", f"/{bucket}").texts("Key") == ["a/k"]
    assert root.anonymous("GET", f"/{bucket}", query="list-type=2").texts("Key") == ["a/k"]
    assert root.anonymous("HEAD", f"/{bucket}").status == 200
    assert_error(root.anonymous("GET", f"/{bucket}/missing"), 404, "NoSuchKey")
    for method, path, query in (
        ("PUT", "/a/k", ""),
        ("DELETE", "/a/k", ""),
        ("POST", "/a/k", "uploads"),
        ("GET", "", "uploads"),
        ("GET", "", "versions"),
        ("GET", "", "policy"),
        ("PUT", "", "policy"),
        ("DELETE", "", "policy"),
        ("GET", "", "acl"),
        ("GET", "/a/k", "acl"),
        ("GET", "/a/k", "tagging"),
        ("PUT", "/a/k", "tagging"),
        ("GET", "", "location"),
        ("DELETE", "", ""),
    ):
        assert_error(root.anonymous(method, f"/{bucket}{path}", query=query), 403, "AccessDenied")
    assert_error(root.anonymous("GET", "/"), 403, "AccessDenied")
    assert_error(root.anonymous("PUT", f"/{new_bucket_name('of-nobody')}"), 403, "AccessDenied")
    answer = root.anonymous("GET", f"/{bucket}/a/k", query="response-content-type=text/html")
    assert_error(answer, 400, "InvalidRequest")
    s3.delete_bucket_policy(Bucket=bucket)
    assert_error(root.anonymous("GET", f"/{bucket}/a/k"), 403, "AccessDenied")


def test_who_may_not_list_does_not_learn_whether_an_object_exists(root, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(s3, bucket, statement(bucket))
    assert root.anonymous("GET", f"/{bucket}/k").status == 200
    assert_error(root.anonymous("GET", f"/{bucket}/missing"), 403, "AccessDenied")
    assert root.anonymous("HEAD", f"/{bucket}/missing").status == 403
    assert_error(root.anonymous("GET", f"/{bucket}/k", query=f"versionId={'00' * 16}"), 403, "AccessDenied")


def test_an_anonymous_request_to_no_bucket_is_told_so(root):
    assert_error(root.anonymous("GET", "/no-such-bucket-here/k"), 404, "NoSuchBucket")


@pytest.mark.subset
def test_an_anonymous_upload_is_as_good_as_its_policy(root, s3, bucket):
    put_policy(s3, bucket, statement(bucket, "s3:PutObject", "/in/*"))
    assert root.anonymous("PUT", f"/{bucket}/in/k", body=b"from nobody").status == 200
    assert_error(root.anonymous("PUT", f"/{bucket}/out/k", body=b"x"), 403, "AccessDenied")
    tagged = root.anonymous("PUT", f"/{bucket}/in/t", headers=[("x-amz-tagging", "a=1")], body=b"x")
    assert_error(tagged, 403, "AccessDenied")
    assert read(s3, bucket, "in/k") == b"from nobody"
    assert [e["Owner"]["ID"] for e in s3.list_objects(Bucket=bucket)["Contents"]] == ["root"]
    trailer = [
        ("x-amz-content-sha256", UNSIGNED_CHUNKS_TRAILER),
        ("x-amz-decoded-content-length", "2"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ]
    framed = b"2\r\nab\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n"
    wrong = root.anonymous("PUT", f"/{bucket}/in/t", headers=trailer, body=framed % crc32(b"xx").encode())
    assert_error(wrong, 400, "BadDigest")
    right = root.anonymous("PUT", f"/{bucket}/in/k", headers=trailer, body=framed % crc32(b"ab").encode())
    assert right.status == 200
    assert read(s3, bucket, "in/k") == b"ab"
    # Signed chunks by nobody prove nothing.
    streaming = [
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-decoded-content-length", "1"),
    ]
    assert_error(root.anonymous("PUT", f"/{bucket}/in/c", headers=streaming, body=b"x"), 403, "AccessDenied")


# -- tenants


@pytest.mark.subset
def test_a_policy_lets_another_tenant_in_and_only_there(root, s3, bucket, other, new_key):
    s3.put_object(Bucket=bucket, Key="shared/k", Body=b"shared")
    s3.put_object(Bucket=bucket, Key="own/k", Body=b"own")
    allowed = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    put_policy(s3, bucket, statement(bucket, allowed, "/shared/*", principal={"AWS": "stranger"}))
    assert other.call("GET", f"/{bucket}/shared/k").body == b"shared"
    assert other.call("PUT", f"/{bucket}/shared/new", body=b"new").status == 200
    assert read(s3, bucket, "shared/new") == b"new"
    assert other.call("DELETE", f"/{bucket}/shared/new").status == 204
    for method, path in (
        ("GET", "/own/k"),
        ("PUT", "/own/k"),
        ("DELETE", "/own/k"),
        ("GET", ""),
        ("DELETE", ""),
    ):
        assert_error(other.call(method, f"/{bucket}{path}"), 403, "AccessDenied")
    assert_error(new_key("third").call("GET", f"/{bucket}/shared/k"), 403, "AccessDenied")
    assert_error(root.anonymous("GET", f"/{bucket}/shared/k"), 403, "AccessDenied")


def test_a_policy_names_one_key_of_a_tenant(s3, bucket, new_key):
    one, two = new_key("stranger"), new_key("stranger")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(
        s3, bucket, statement(bucket, principal={"AWS": f"arn:aws:iam::stranger:user/{one.access_key}"})
    )
    assert one.call("GET", f"/{bucket}/k").body == b"x"
    assert_error(two.call("GET", f"/{bucket}/k"), 403, "AccessDenied")


def test_a_read_only_key_stays_read_only_whatever_a_policy_allows(s3, bucket, new_key):
    reader = new_key("stranger", "read-only")
    put_policy(s3, bucket, statement(bucket, "s3:*", "*", principal={"AWS": "stranger"}))
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert reader.call("GET", f"/{bucket}/k").body == b"x"
    assert_error(reader.call("PUT", f"/{bucket}/k", body=b"y"), 403, "AccessDenied")
    assert read(s3, bucket, "k") == b"x"


def test_a_policy_cannot_give_itself_away(s3, bucket, other):
    put_policy(s3, bucket, statement(bucket, "s3:*", "", principal={"AWS": "stranger"}))
    before = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    for method in ("GET", "PUT", "DELETE"):
        assert_error(other.call(method, f"/{bucket}", query="policy", body=b"{}"), 403, "AccessDenied")
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == before
    assert other.call("GET", f"/{bucket}", query="location").status == 200


@pytest.mark.subset
def test_a_multipart_upload_by_another_tenant(s3, bucket, other):
    put_policy(s3, bucket, statement(bucket, "s3:PutObject", "/k", principal={"AWS": "stranger"}))
    upload = other.call("POST", f"/{bucket}/k", query="uploads").text("UploadId")
    query = f"partNumber=1&uploadId={upload}"
    etag = other.call("PUT", f"/{bucket}/k", query=query, body=b"x").headers["etag"]
    assert_error(other.call("GET", f"/{bucket}/k", query=f"uploadId={upload}"), 403, "AccessDenied")
    assert_error(other.call("DELETE", f"/{bucket}/k", query=f"uploadId={upload}"), 403, "AccessDenied")
    body = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    assert other.call("POST", f"/{bucket}/k", query=f"uploadId={upload}", body=body.encode()).status == 200
    assert read(s3, bucket, "k") == b"x"


@pytest.mark.subset
def test_the_source_of_a_copy_is_a_read(s3, bucket, other):
    s3.put_object(Bucket=bucket, Key="open/k", Body=b"copied", Tagging="a=1")
    s3.put_object(Bucket=bucket, Key="closed/k", Body=b"secret")
    target = new_bucket_name("target")
    other.call("PUT", f"/{target}")
    put_policy(s3, bucket, statement(bucket, "s3:GetObject", "/open/*", principal={"AWS": "stranger"}))

    def copy(key, *headers, query=""):
        source = [("x-amz-copy-source", f"{bucket}/{key}"), *headers]
        return other.call("PUT", f"/{target}/copy", query=query, headers=source)

    for key in ("closed/k", "open/missing", "closed/missing"):
        assert_error(copy(key), 403, "AccessDenied")
    assert_error(copy("open/k"), 403, "AccessDenied")  # its tags would come along
    assert copy("open/k", ("x-amz-tagging-directive", "REPLACE")).status == 200
    assert other.call("GET", f"/{target}/copy").body == b"copied"
    upload = other.call("POST", f"/{target}/copy", query="uploads").text("UploadId")
    query = f"partNumber=1&uploadId={upload}"
    assert copy("open/k", query=query).status == 200
    assert_error(copy("closed/k", query=query), 403, "AccessDenied")


@pytest.mark.subset
def test_delete_objects_is_decided_key_by_key(s3, bucket, other):
    for key in ("mine", "yours/1", "yours/2"):
        s3.put_object(Bucket=bucket, Key=key)
    body = b"".join(b"<Object><Key>%s</Key></Object>" % key for key in (b"mine", b"yours/1", b"yours/2"))
    body = b"<Delete>" + body + b"</Delete>"
    assert_error(other.call("POST", f"/{bucket}", query="delete", body=body), 403, "AccessDenied")
    put_policy(
        s3,
        bucket,
        statement(bucket, "s3:DeleteObject", "/yours/*", principal={"AWS": "stranger"}),
        statement(bucket, "s3:DeleteObject", "/yours/2", effect="Deny"),
    )
    answer = other.call("POST", f"/{bucket}", query="delete", body=body)
    assert (answer.status, answer.texts("Code")) == (200, ["AccessDenied"] * 2)
    assert [entry["Key"] for entry in s3.list_objects(Bucket=bucket)["Contents"]] == ["mine", "yours/2"]


def test_a_bucket_made_again_by_another_tenant_is_another_bucket(s3, root, other):
    name = new_bucket_name("taken-over")
    s3.create_bucket(Bucket=name)
    put_policy(s3, name, statement(name, "s3:*", "*"))
    s3.delete_bucket(Bucket=name)
    assert other.call("PUT", f"/{name}").status == 200
    assert other.call("PUT", f"/{name}/k", body=b"x").status == 200
    assert_error(root.anonymous("GET", f"/{name}/k"), 403, "AccessDenied")


# -- denials


@pytest.mark.subset
def test_a_deny_wins_for_the_owner_too(s3, bucket):
    s3.put_object(Bucket=bucket, Key="kept/k", Body=b"kept")
    deny = statement(bucket, ["s3:DeleteObject", "s3:PutObject"], "/kept/*", effect="Deny")
    put_policy(s3, bucket, statement(bucket, "s3:*", "/*"), deny)
    for call in (
        lambda: s3.delete_object(Bucket=bucket, Key="kept/k"),
        lambda: s3.put_object(Bucket=bucket, Key="kept/k", Body=b"other"),
        lambda: s3.copy_object(Bucket=bucket, Key="kept/k2", CopySource=f"{bucket}/kept/k"),
        lambda: s3.create_multipart_upload(Bucket=bucket, Key="kept/k"),
    ):
        with s3_error(403, "AccessDenied"):
            call()
    result = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "kept/k"}, {"Key": "other"}]})
    assert [e["Code"] for e in result["Errors"]] == ["AccessDenied"]
    assert read(s3, bucket, "kept/k") == b"kept"
    s3.put_object(Bucket=bucket, Key="free/k")


def test_an_owner_may_be_denied_the_listing_and_then_learns_less(s3, bucket):
    put_policy(s3, bucket, statement(bucket, "s3:ListBucket", "", effect="Deny"))
    with s3_error(403, "AccessDenied"):
        s3.list_objects_v2(Bucket=bucket)
    with s3_error(403, "AccessDenied"):
        s3.get_object(Bucket=bucket, Key="missing")


@pytest.mark.subset
def test_an_admin_is_never_locked_out_of_the_policy(new_key):
    admin, writer = new_key("owner-tenant", "admin"), new_key("owner-tenant")
    name = new_bucket_name("locked")
    admin.call("PUT", f"/{name}")
    body = json.dumps({"Statement": statement(name, "s3:*", "*", effect="Deny")}).encode()
    assert admin.call("PUT", f"/{name}", query="policy", body=body).status == 204
    for method, query in (("GET", ""), ("PUT", "tagging"), ("DELETE", ""), ("GET", "policyStatus")):
        assert_error(admin.call(method, f"/{name}", query=query), 403, "AccessDenied")
    for method in ("GET", "PUT", "DELETE"):
        assert_error(writer.call(method, f"/{name}", query="policy", body=body), 403, "AccessDenied")
    assert admin.call("GET", f"/{name}", query="policy").body == body
    assert admin.call("PUT", f"/{name}", query="policy", body=body).status == 204
    assert admin.call("DELETE", f"/{name}", query="policy").status == 204
    assert writer.call("GET", f"/{name}").status == 200


# -- conditions


def test_condition_on_the_address_and_the_transport(root, s3, bucket, server):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    here, elsewhere = {"aws:SourceIp": "127.0.0.0/8"}, {"aws:SourceIp": "192.0.2.0/24"}
    put_policy(s3, bucket, statement(bucket, IpAddress=here))
    assert root.anonymous("GET", f"/{bucket}/k").status == 200
    put_policy(s3, bucket, statement(bucket, IpAddress=elsewhere))
    assert root.anonymous("GET", f"/{bucket}/k").status == 403
    put_policy(s3, bucket, statement(bucket, Bool={"aws:SecureTransport": "true"}))
    assert root.anonymous("GET", f"/{bucket}/k").status == (200 if server.tls else 403)


def test_condition_on_referer_and_user_agent(root, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(
        s3,
        bucket,
        statement(bucket, StringLike={"aws:Referer": "http://app.test/*"}),
        statement(bucket, effect="Deny", StringLike={"aws:UserAgent": "*Bad?ot*"}),
    )

    def status(*headers):
        return root.anonymous("GET", f"/{bucket}/k", headers=headers).status

    assert status() == 403
    assert status(("Referer", "http://app.test/page")) == 200
    assert status(("Referer", "http://other.test/")) == 403
    assert status(("Referer", "http://app.test/page"), ("User-Agent", "x BadBot/1")) == 403


@pytest.mark.subset
def test_condition_on_what_is_listed(root, s3, bucket):
    s3.put_object(Bucket=bucket, Key="open/k")
    put_policy(
        s3,
        bucket,
        statement(
            bucket,
            "s3:ListBucket",
            "",
            StringLike={"s3:prefix": "open/*"},
            StringEqualsIfExists={"s3:delimiter": "/"},
            NumericLessThanEqualsIfExists={"s3:max-keys": "10"},
        ),
    )
    for query, status in (
        ("prefix=open/", 200),
        ("prefix=open/&list-type=2&delimiter=/", 200),
        ("prefix=open/&delimiter=-", 403),
        ("prefix=open/&max-keys=10", 200),
        ("prefix=open/&max-keys=11", 403),
        ("prefix=other/", 403),
        ("", 403),
    ):
        assert root.anonymous("GET", f"/{bucket}", query=query).status == status, query


@pytest.mark.subset
def test_condition_on_tags_of_the_object(root, s3, bucket):
    for value in ("yes", "no"):
        s3.put_object(Bucket=bucket, Key=value, Body=b"x", Tagging=f"public={value}")
    s3.put_object(Bucket=bucket, Key="untagged", Body=b"x")
    put_policy(s3, bucket, statement(bucket, StringEquals={"s3:ExistingObjectTag/public": "yes"}))
    assert [
        root.anonymous("GET", f"/{bucket}/{key}").status for key in ("yes", "no", "untagged", "missing")
    ] == [*(200, 403, 403, 403)]
    s3.put_object_tagging(Bucket=bucket, Key="yes", Tagging={"TagSet": []})
    assert root.anonymous("GET", f"/{bucket}/yes").status == 403


def test_condition_on_tags_of_the_request(s3, bucket, other):
    s3.put_object(Bucket=bucket, Key="k")
    actions = ["s3:PutObject", "s3:PutObjectTagging"]
    principal = {"AWS": "stranger"}
    condition = {"s3:RequestObjectTag/team": "stranger"}
    put_policy(s3, bucket, statement(bucket, actions, principal=principal, StringEquals=condition))

    def put(tagging):
        headers = [("x-amz-tagging", tagging)] if tagging else []
        return other.call("PUT", f"/{bucket}/new", headers=headers, body=b"x").status

    assert [put(""), put("team=other"), put("team=stranger")] == [403, 403, 200]
    for value, status in (("other", 403), ("stranger", 200)):
        body = (
            f"<Tagging><TagSet><Tag><Key>team</Key><Value>{value}</Value></Tag></TagSet></Tagging>".encode()
        )
        assert other.call("PUT", f"/{bucket}/k", query="tagging", body=body).status == status
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "team", "Value": "stranger"}]


def test_condition_on_headers_of_an_upload(s3, bucket):
    plain = statement(bucket, "s3:PutObject", effect="Deny", Null={"s3:x-amz-server-side-encryption": "true"})
    public = statement(bucket, "s3:PutObject", effect="Deny", StringLike={"s3:x-amz-acl": "public*"})
    put_policy(s3, bucket, plain, public)
    with s3_error(403, "AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k")
    with s3_error(403, "AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k", ServerSideEncryption="AES256", ACL="public-read")
    s3.put_object(Bucket=bucket, Key="k", ServerSideEncryption="AES256")


def test_condition_on_time_and_kind_of_signature(root, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(
        s3,
        bucket,
        statement(bucket, DateGreaterThan={"aws:CurrentTime": "2020-01-01T00:00:00Z"}),
        statement(bucket, effect="Deny", StringEquals={"s3:authType": "REST-QUERY-STRING"}),
    )
    assert root.anonymous("GET", f"/{bucket}/k").status == 200
    assert root.call("GET", f"/{bucket}/k").status == 200
    assert_error(root.exchange(root.presign("GET", f"/{bucket}/k")), 403, "AccessDenied")
    put_policy(s3, bucket, statement(bucket, DateLessThan={"aws:CurrentTime": "2020-01-01T00:00:00Z"}))
    assert root.anonymous("GET", f"/{bucket}/k").status == 403


def test_a_policy_holds_in_every_worker_and_after_a_restart(new_server):
    from tests.s3.conftest import make_boto_client, make_caller

    server = new_server(workers=3).start()
    s3, root = make_boto_client(server), make_caller(server)
    s3.create_bucket(Bucket="shared")
    s3.put_object(Bucket="shared", Key="k", Body=b"x")
    put_policy(s3, "shared", statement("shared"))
    assert {root.anonymous("GET", "/shared/k").status for _ in range(12)} == {200}
    server.restart()
    put_policy(s3, "shared", statement("shared", effect="Deny"))
    assert {root.anonymous("GET", "/shared/k").status for _ in range(12)} == {403}
    s3.close()


def test_a_header_says_nothing_of_the_tags_in_the_body(new_key, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k")
    stranger = new_key("stranger")
    asked = {"StringEquals": {"s3:RequestObjectTag/project": "ours"}}
    put_policy(s3, bucket, statement(bucket, "s3:PutObjectTagging", principal={"AWS": "stranger"}, **asked))
    body = "<Tagging><TagSet><Tag><Key>{}</Key><Value>ours</Value></Tag></TagSet></Tagging>"
    for key, status in (("other", 403), ("project", 200)):
        headers = [("x-amz-tagging", "project=ours")]
        sent = body.format(key).encode()
        assert (
            stranger.call("PUT", f"/{bucket}/k", query="tagging", headers=headers, body=sent).status == status
        )
