"""Append-only and scoped keys: a stolen one cannot destroy a byte, by any operation, and still does its work."""

from __future__ import annotations

import pytest

from tests.s3.conftest import make_caller
from tests.s3.examples import EXAMPLES, Line, by_header, make_place
from tests.s3.forms import form_request, signed_fields
from tests.s3.test_matrix import SIGNED, fingerprint
from vaultaire.s3.operation import Operation
from vaultaire.s3.operations import OPERATIONS

SECRET = "a-secret-for-append-only-keys-0001"
# Writing operations that such a key may do; they make something new, or a lock longer.
CREATING = {
    Operation.CREATE_BUCKET,
    Operation.COPY_OBJECT,
    Operation.CREATE_MULTIPART_UPLOAD,
    Operation.PUT_OBJECT_RETENTION,
    Operation.PUT_OBJECT_LEGAL_HOLD,
}


@pytest.fixture(scope="module")
def make_key(server):
    """`make_key(name, options...)`: a caller with a new key of tenant root."""

    def make(name, *options):
        server.cli(
            *("key", "create", "--tenant", "root", "--access-key", name, "--secret-key", SECRET), *options
        )
        return make_caller(server, name, SECRET)

    return make


@pytest.fixture(scope="module")
def appender(make_key):
    return make_key("APPENDER01", "--role", "append-only")


@pytest.fixture
def line(root):
    made = Line(root)
    yield made
    made.close()


def untouched(before: dict, after: dict) -> None:
    """What was there is there, as it was; there may be more."""
    for (path, query), (status, body, probe) in before.items():
        now = after[path, query]
        if query in ("retention", "legal-hold"):
            continue  # may have become longer
        if path == "/" or query in ("versions", "uploads", ""):
            assert now[0] == status, (path, query)
            if path.endswith("/kept"):
                assert now == (status, body, probe)
            for tag in (b"<Name>", b"<Key>", b"<UploadId>", b"<VersionId>"):
                assert set(_texts(body, tag)) <= set(_texts(now[1], tag)), (path, query)
        else:
            assert now == (status, body, probe), (path, query)


def _texts(body: bytes, tag: bytes) -> list[bytes]:
    return [piece.partition(b"<")[0] for piece in body.split(tag)[1:]]


@pytest.mark.parametrize("operation", SIGNED, ids=lambda operation: operation.value)
def test_an_append_only_key_destroys_nothing(root, line, appender, operation):
    template = EXAMPLES[operation]
    place = make_place(line, root, template)
    example = template.at(place)
    before = fingerprint(line, root, place)
    answer = line.exchange(by_header(appender, example))
    if operation is Operation.DELETE_OBJECTS:
        assert answer.status == 200
        assert answer.text("Code") == "AccessDenied"
    elif OPERATIONS[operation].writes and operation not in CREATING:
        assert answer.status == 403, answer.body
    else:
        assert answer.status in template.statuses, answer.body
    untouched(before, fingerprint(line, root, place))


def test_a_form_of_an_append_only_key_creates_and_does_not_overwrite(root, line, appender):
    place = make_place(line, root, EXAMPLES[Operation.PUT_OBJECT])
    for key, status in (("new", 204), ("kept", 403)):
        signed = signed_fields(appender, place.bucket, {"key": key})
        assert line.exchange(form_request(root, place.bucket, signed, b"form")).status == status
    assert line.exchange(root.sign("GET", f"/{place.bucket}/kept")).body == b"kept"


def test_puts_of_an_append_only_key(appender, bucket):
    def put(body, **rest):
        return appender.call("PUT", f"/{bucket}/a", body=body, **rest)

    assert put(b"one").status == 200
    assert put(b"one").status == 200  # the answer was lost, the client tries again
    refused = put(b"two")
    assert (refused.status, refused.code) == (403, "AccessDenied")
    assert "exists already" in refused.text("Message")
    assert put(b"one", headers=(("x-amz-meta-changed", "yes"),)).status == 403
    assert appender.call("GET", f"/{bucket}/a").body == b"one"
    copied = appender.call("PUT", f"/{bucket}/b", headers=(("x-amz-copy-source", f"{bucket}/a"),))
    assert copied.status == 200
    onto_itself = (
        ("x-amz-copy-source", f"{bucket}/b"),
        ("x-amz-metadata-directive", "REPLACE"),
        ("x-amz-meta-changed", "yes"),
    )
    assert appender.call("PUT", f"/{bucket}/b", headers=onto_itself).status == 403


def test_an_append_only_key_completes_its_own_uploads(root, appender, make_key, bucket):
    begun = appender.call("POST", f"/{bucket}/big", query="uploads").text("UploadId")
    part = f"partNumber=1&uploadId={begun}"
    etag = appender.call("PUT", f"/{bucket}/big", query=part, body=b"part").headers["etag"]
    other = make_key("APPENDER02", "--role", "append-only")
    assert other.call("PUT", f"/{bucket}/big", query=part, body=b"evil").status == 403
    assert other.call("DELETE", f"/{bucket}/big", query=f"uploadId={begun}").status == 403
    document = (
        f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
        "</CompleteMultipartUpload>"
    ).encode()
    assert other.call("POST", f"/{bucket}/big", query=f"uploadId={begun}", body=document).status == 403
    done = appender.call("POST", f"/{bucket}/big", query=f"uploadId={begun}", body=document)
    assert done.status == 200, done.body
    second = appender.call("POST", f"/{bucket}/big", query="uploads").text("UploadId")
    assert appender.call("DELETE", f"/{bucket}/big", query=f"uploadId={second}").status == 204


def test_versions_are_no_way_around(root, appender, s3, bucket):
    """A null version under a delete marker would go with the next put while versioning is suspended."""
    root.call("PUT", f"/{bucket}/a", body=b"null version")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert appender.call("PUT", f"/{bucket}/a", body=b"hides it").status == 403
    root.call("DELETE", f"/{bucket}/a")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert appender.call("PUT", f"/{bucket}/a", body=b"replaces it").status == 403
    assert root.call("GET", f"/{bucket}/a", query="versionId=null").body == b"null version"
    assert appender.call("DELETE", f"/{bucket}/a", query="versionId=null").status == 403


def test_locks_only_grow(appender, s3, bucket):
    name = f"{bucket}-locked"[-63:].strip("-")
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    appender.call("PUT", f"/{name}/a", body=b"x")

    def retain(year):
        document = (
            f"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{year}-01-01T00:00:00Z</RetainUntilDate>"
            "</Retention>"
        )
        bypass = (("x-amz-bypass-governance-retention", "true"),)
        return appender.call(
            "PUT", f"/{name}/a", query="retention", body=document.encode(), headers=bypass
        ).status

    assert (retain(2090), retain(2091), retain(2089)) == (200, 200, 403)

    def hold(status):
        document = f"<LegalHold><Status>{status}</Status></LegalHold>".encode()
        return appender.call("PUT", f"/{name}/a", query="legal-hold", body=document).status

    assert (hold("ON"), hold("OFF")) == (200, 403)


def test_exempt_prefixes_are_free_within_the_scope(root, make_key, bucket):
    key = make_key(
        *("APPENDER03", "--role", "append-only", "--preset", "restic"),
        *("--scope", f"{bucket}/repo/", "--scope", f"{bucket}/other"),
    )
    for path in ("repo/locks/1", "repo/data/1", "other/locks/1"):
        assert key.call("PUT", f"/{bucket}/{path}", body=b"1").status == 200
    root.call("PUT", f"/{bucket}/locks/1", body=b"1")
    assert key.call("PUT", f"/{bucket}/repo/locks/1", body=b"2").status == 200
    assert key.call("PUT", f"/{bucket}/repo/data/1", body=b"2").status == 403
    deleted = [key.call("DELETE", f"/{bucket}/{p}").status for p in ("repo/locks/1", "other/locks/1")]
    assert deleted == [204, 204]
    kept = [
        key.call("DELETE", f"/{bucket}/{p}").status for p in ("repo/data/1", "locks/1", "repo/data/locks/1")
    ]
    assert kept == [403, 403, 403]
    renamed = key.call(
        "PUT",
        f"/{bucket}/repo/locks/2",
        query="renameObject",
        headers=(("x-amz-rename-source", f"{bucket}/repo/data/1"),),
    )
    assert renamed.status == 403


def test_a_scoped_key_does_nothing_outside(root, make_key, bucket, s3):
    other = f"{bucket}-other"[-63:].strip("-")
    s3.create_bucket(Bucket=other)
    root.call("PUT", f"/{other}/secret", body=b"secret")
    root.call("PUT", f"/{bucket}/outside", body=b"outside")
    key = make_key("SCOPED01", "--role", "admin", "--scope", f"{bucket}/in/")

    def statuses(*calls):
        return [key.call(method, path, query=query, **rest).status for method, path, query, rest in calls]

    copy = {"headers": (("x-amz-copy-source", f"{other}/secret"),)}
    assert (
        statuses(
            ("PUT", f"/{bucket}/in/a", "", {"body": b"a"}),
            ("GET", f"/{bucket}/in/a", "", {}),
            ("GET", f"/{bucket}", "list-type=2&prefix=in/", {}),
            ("GET", f"/{bucket}", "list-type=2&prefix=in/deeper", {}),
            ("HEAD", f"/{bucket}", "", {}),
            ("GET", f"/{bucket}", "location", {}),
        )
        == [200] * 6
    )
    assert key.call("GET", f"/{bucket}/in/missing").code == "NoSuchKey"
    assert (
        statuses(
            ("PUT", f"/{bucket}/a", "", {"body": b"a"}),
            ("GET", f"/{bucket}/outside", "", {}),
            ("GET", f"/{bucket}", "list-type=2", {}),
            ("GET", f"/{bucket}", "list-type=2&prefix=i", {}),
            ("GET", f"/{bucket}", "versions", {}),
            ("GET", f"/{bucket}", "uploads", {}),
            ("GET", f"/{bucket}", "policy", {}),
            ("PUT", f"/{bucket}", "tagging", {"body": b"<Tagging/>"}),
            ("DELETE", f"/{bucket}", "", {}),
            ("GET", f"/{other}/secret", "", {}),
            ("HEAD", f"/{other}", "", {}),
            ("PUT", f"/{bucket}/in/copied", "", copy),
            ("PUT", f"/{bucket}-new"[:60], "", {}),
        )
        == [403] * 13
    )
    listed = key.call("GET", "/").body
    assert f"<Name>{bucket}</Name>".encode() in listed
    assert f"<Name>{other}</Name>".encode() not in listed
    document = b"<Delete><Object><Key>in/a</Key></Object><Object><Key>outside</Key></Object></Delete>"
    answer = key.call("POST", f"/{bucket}", query="delete", body=document)
    assert _texts(answer.body, b"<Deleted><Key>") == [b"in/a"]
    assert answer.text("Code") == "AccessDenied"
    assert root.call("GET", f"/{bucket}/outside").status == 200


def test_a_policy_gives_nothing_beyond_the_scope(root, make_key, bucket):
    key = make_key("SCOPED02", "--scope", f"{bucket}/in/")
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*",'
        f'"Resource":["arn:aws:s3:::{bucket}","arn:aws:s3:::{bucket}/*"]}}]}}'
    )
    assert root.call("PUT", f"/{bucket}", query="policy", body=policy.encode()).status in (200, 204)
    assert key.call("PUT", f"/{bucket}/in/a", body=b"a").status == 200
    assert key.call("PUT", f"/{bucket}/out/a", body=b"a").status == 403


def test_keys_end_and_have_successors(server, make_key, bucket):
    key = make_key("ENDING01")

    def answer(caller=key):
        return caller.call("GET", f"/{bucket}", query="list-type=2")

    assert answer().status == 200
    server.cli("key", "disable", "ENDING01")
    assert (answer().status, answer().code) == (403, "InvalidAccessKeyId")
    assert "disabled" in answer().text("Message")
    wrong = make_caller(server, "ENDING01", "another-secret-altogether")
    assert answer(wrong).code == "SignatureDoesNotMatch"  # only who has the secret learns of it
    server.cli("key", "enable", "ENDING01")
    assert answer().status == 200
    server.cli("key", "rotate", "ENDING01", "--now")
    assert answer().code == "InvalidAccessKeyId"
    make_key("ENDING02", "--expires", "1ms")
    late = make_caller(server, "ENDING02", SECRET)
    assert "expired" in answer(late).text("Message")
