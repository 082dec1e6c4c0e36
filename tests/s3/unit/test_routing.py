"""Routing: every operation S3 has is known by name; nothing unknown becomes a plain operation."""

from __future__ import annotations

import botocore.session
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.errors import S3Error
from vaultaire.s3.operation import Operation
from vaultaire.s3.routing import parse_query, route
from vaultaire.s3.stubs import stub

MODEL = botocore.session.get_session().get_service_model("s3")
# Older names of the same request, and S3 Express / Object Lambda, which other hosts serve.
ALIASES = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
    "ListDirectoryBuckets": "ListBuckets",
}
ELSEWHERE = {"WriteGetObjectResponse"}
PLAIN = {
    Operation.LIST_BUCKETS,
    Operation.LIST_OBJECTS,
    Operation.LIST_OBJECTS_V2,
    Operation.CREATE_BUCKET,
    Operation.DELETE_BUCKET,
    Operation.GET_OBJECT,
    Operation.PUT_OBJECT,
    Operation.DELETE_OBJECT,
}


def go(method: str, target: str, headers=()) -> Operation:
    path, _, raw_query = target.partition("?")
    bucket, _, key = path.removeprefix("/").partition("/")
    return route(method, bucket or None, key.encode() or None, parse_query(raw_query.encode()), dict(headers))


def refusal(method: str, target: str) -> S3Error:
    with pytest.raises(S3Error) as caught:
        go(method, target)
    return caught.value


def outcome(method: str, target: str) -> Operation | str:
    try:
        return go(method, target)
    except S3Error as error:
        return error.code


@pytest.mark.parametrize("name", [name for name in MODEL.operation_names if name not in ELSEWHERE])
def test_every_operation_of_the_sdk_is_known_by_its_name(name):
    operation = MODEL.operation_model(name)
    path, _, query = operation.http["requestUri"].partition("?")
    members = operation.input_shape.members if operation.input_shape else {}
    pieces = [query] if query else []
    headers = {}
    for member in operation.input_shape.required_members if operation.input_shape else []:
        where = members[member].serialization
        if where.get("location") == "querystring":
            pieces.append(f"{where['name']}=1")
        elif where.get("location") == "header":
            headers[where["name"].lower().encode()] = "b/k"
    target = path.replace("{Bucket}", "bucket").replace("{Key+}", "key") + "?" + "&".join(pieces)
    assert go(operation.http["method"], target, headers.items()).value == ALIASES.get(name, name)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/", "ListBuckets"),
        ("GET", "/?max-buckets=5&prefix=a", "ListBuckets"),
        ("GET", "/b", "ListObjects"),
        ("GET", "/b/", "ListObjects"),
        ("GET", "/b?prefix=&delimiter=%2F&max-keys=3&marker=a&encoding-type=url", "ListObjects"),
        ("GET", "/b/?list-type=2&start-after=x&fetch-owner=true", "ListObjectsV2"),
        ("GET", "/b?location=", "GetBucketLocation"),
        ("GET", "/b?versions", "ListObjectVersions"),
        ("GET", "/b?versions&prefix=a&key-marker=k&version-id-marker=v", "ListObjectVersions"),
        ("POST", "/b/?delete=&x-id=DeleteObjects", "DeleteObjects"),
        ("POST", "/b?delete", "DeleteObjects"),
        ("POST", "/b", "PostObject"),
        ("GET", "/b/k?x-id=GetObject&response-content-type=a&versionId=v", "GetObject"),
        ("GET", "/b/k?cachebuster=17", "GetObject"),
        ("GET", "/b/k?X-Amz-Signature=1&x-amz-meta-a=b", "GetObject"),
        ("HEAD", "/b/k?partNumber=1", "HeadObject"),
        ("GET", "/b/k?partNumber=1", "GetObject"),
        ("PUT", "/b/k?x-id=PutObject", "PutObject"),
        ("POST", "/b/k?uploads=", "CreateMultipartUpload"),
        ("PUT", "/b/k?uploadId=u&partNumber=1", "UploadPart"),
        ("POST", "/b/k?uploadId=u", "CompleteMultipartUpload"),
        ("DELETE", "/b/k?uploadId=u", "AbortMultipartUpload"),
        ("GET", "/b/k?uploadId=u&max-parts=2&part-number-marker=1", "ListParts"),
        ("GET", "/b?analytics&id=1", "GetBucketAnalyticsConfiguration"),
        ("OPTIONS", "/b/k", "CorsPreflight"),
    ],
)
def test_requests_as_clients_send_them(method, target, expected):
    assert go(method, target).value == expected


def test_copies_are_puts_with_a_source():
    source = [(b"x-amz-copy-source", "b/k")]
    assert go("PUT", "/b/k", source) is Operation.COPY_OBJECT
    assert go("PUT", "/b/k?partNumber=1&uploadId=u", source) is Operation.UPLOAD_PART_COPY


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/b", "/b/k"])
@pytest.mark.parametrize(
    "query", ["newthing", "newthing=", "prefix=a&newthing", "Versions", "ACL=", "%61cl2"]
)
def test_an_unknown_sub_resource_is_not_implemented(method, path, query):
    assert refusal(method, f"{path}?{query}").code == "NotImplemented"


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/b", "/b/k"])
def test_an_unknown_parameter_changes_nothing(method, path):
    assert refusal(method, f"{path}?newthing=1").code == "NotImplemented"


@settings(deadline=None)
@given(
    st.sampled_from(["PUT", "POST", "DELETE", "GET"]),
    st.sampled_from(["/b", "/b/k"]),
    st.sampled_from(
        sorted({name for name, _ in __import__("vaultaire.s3.operation", fromlist=["BUCKET"]).BUCKET})
    ),
)
def test_a_known_sub_resource_never_means_the_plain_operation(method, path, name):
    assert outcome(method, f"{path}?{name}") not in PLAIN


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("PUT", "/", "MethodNotAllowed"),
        ("PATCH", "/b", "MethodNotAllowed"),
        ("POST", "/b/k", "MethodNotAllowed"),
        ("HEAD", "/b/k?uploadId=u", "MethodNotAllowed"),
        ("DELETE", "/b?location", "MethodNotAllowed"),
        ("GET", "/b?acl&policy", "InvalidArgument"),
        ("GET", "/b?list-type=3", "InvalidArgument"),
        ("PUT", "/b/k?partNumber=1", "InvalidArgument"),
        ("PUT", "/b/k?uploadId=u", "InvalidArgument"),
    ],
)
def test_contradictions_are_refused(method, target, code):
    assert refusal(method, target).code == code


# --- the query -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", {}),
        (b"&&", {}),
        (b"acl", {"acl": ""}),
        (b"acl=", {"acl": ""}),
        (b"prefix=a+b%2Bc%20d", {"prefix": "a b+c d"}),
        (b"prefix=%C3%A9/%00", {"prefix": "é/\0"}),
        (b"a=1&a=2", {"a": "1"}),
        (b"a=b=c", {"a": "b=c"}),
    ],
)
def test_queries_are_decoded_once(raw, expected):
    assert parse_query(raw) == expected


@pytest.mark.parametrize("raw", [b"a=%", b"a=%zz", b"%=1", b"a=%FF", b"&".join([b"a"] * 257)])
def test_bad_queries_are_refused(raw):
    with pytest.raises(S3Error, match="InvalidURI"):
        parse_query(raw)


# --- stubs ---------------------------------------------------------------------------------------------------------


def stub_status(operation: Operation) -> int:
    try:
        answer = stub(operation)
    except S3Error as error:
        return error.status
    return answer.status if bool(answer.body) == (answer.status == 200) else 0


@pytest.mark.parametrize("operation", Operation)
def test_every_operation_has_a_documented_answer_or_is_not_implemented(operation):
    assert stub_status(operation) in (200, 204, 400, 403, 404, 501)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/b?website", "NoSuchWebsiteConfiguration"),
        ("/b?replication", "ReplicationConfigurationNotFoundError"),
    ],
)
def test_probes_for_what_nobody_set_are_404(target, code):
    with pytest.raises(S3Error) as caught:
        stub(go("GET", target))
    assert (caught.value.code, caught.value.status) == (code, 404)


@pytest.mark.parametrize("target", ["notification", "logging", "requestPayment", "accelerate"])
def test_probes_for_what_is_off_are_empty_configurations(target):
    assert stub(go("GET", f"/b?{target}")).status == 200
