"""Virtual-host addressing: `--domain NAME` makes `bucket.NAME` a bucket's own host, on which every path is a key."""

from __future__ import annotations

import io
import socket
import zlib
from dataclasses import dataclass, replace

import pytest

from tests.s3.conftest import make_boto_client, make_caller
from tests.s3.expect import answer_then_usable_or_closed
from tests.s3.forms import form_request, signed_fields
from tests.s3.wire import Caller, assert_error

DOMAINS = ("s3.vaultaire.test", "other.test")


@dataclass(frozen=True, slots=True)
class HostCaller(Caller):
    """Talks to one address in the name of another host."""

    host_name: str = ""

    @property
    def host(self) -> str:
        return self.host_name


@pytest.fixture(scope="module")
def vhost_server(start_session_server):
    return start_session_server(tls=False, arguments=("--domain", DOMAINS[0], "--domain", DOMAINS[1]))


@pytest.fixture
def at(vhost_server):
    """`at(host)`: a caller that names this host."""

    def make(host: str) -> Caller:
        plain = make_caller(vhost_server)
        return HostCaller(plain.url, plain.access_key, plain.secret_key, host_name=host)

    return make


@pytest.fixture
def bucket(at, request):
    name = f"v{zlib.crc32(request.node.nodeid.encode())}"
    assert at(f"{name}.s3.vaultaire.test").call("PUT", "/").status == 200
    return name


def test_virtual_host_and_path_style_name_the_same_object(at, bucket):
    own, plain = at(f"{bucket}.s3.vaultaire.test"), at("s3.vaultaire.test")
    assert own.call("PUT", "/folder/k", body=b"x").status == 200
    assert plain.call("GET", f"/{bucket}/folder/k").body == b"x"
    assert at("127.0.0.1").call("GET", f"/{bucket}/folder/k").body == b"x"
    assert own.call("GET", "/").texts("Key") == ["folder/k"]
    assert own.call("HEAD", "/").status == 200
    assert own.call("DELETE", "/folder/k").status == 204
    assert plain.call("DELETE", f"/{bucket}").status == 204


@pytest.mark.parametrize(
    "path", ["/-/healthz", "/-/readyz", "/-/", "/-", "//", "/a//b", "/./..", "/a%2Fb", "/%C3%A9"]
)
def test_under_a_buckets_host_every_path_is_a_key(at, bucket, path):
    own = at(f"{bucket}.s3.vaultaire.test")
    assert own.call("PUT", path, body=path.encode()).status == 200
    assert own.call("GET", path).body == path.encode()
    assert len(own.call("GET", "/").texts("Key")) == 1


def test_our_own_pages_stay_where_they_are(at):
    for host in ("s3.vaultaire.test", "127.0.0.1", "elsewhere.test"):
        assert at(host).call("GET", "/-/healthz").body == b"ok\n"


def test_a_buckets_host_needs_a_signature_for_our_paths_too(at, bucket):
    own = at(f"{bucket}.s3.vaultaire.test")
    request = own.sign("GET", "/-/healthz").with_header("Authorization", None)
    unsigned = replace(request, headers=tuple(h for h in request.headers if not h[0].startswith("x-amz-")))
    assert_error(own.exchange(unsigned), 403, "AccessDenied")


@pytest.mark.parametrize(
    "form", ["{}.S3.Vaultaire.TEST", "{}.s3.vaultaire.test:8080", "{}.s3.vaultaire.test.", "{}.other.test"]
)
def test_spellings_of_a_buckets_host(at, bucket, form):
    assert at(form.format(bucket)).call("PUT", "/k", body=b"x").status == 200


def test_a_bucket_name_with_dots(at):
    own = at("with.some.dots.s3.vaultaire.test")
    assert own.call("PUT", "/").status == 200
    assert own.call("PUT", "/k", body=b"x").status == 200
    assert at("s3.vaultaire.test").call("GET", "/with.some.dots/k").body == b"x"


def test_a_host_that_is_no_bucket_name_is_refused(at):
    assert_error(at("Under_score.s3.vaultaire.test").call("PUT", "/"), 400, "InvalidBucketName")
    assert_error(at("a.s3.vaultaire.test").call("GET", "/"), 400, "InvalidBucketName")


def test_a_signature_for_one_host_is_none_for_another(at, bucket):
    own, plain = at(f"{bucket}.s3.vaultaire.test"), at("s3.vaultaire.test")
    moved = own.sign("PUT", "/k", body=b"x").with_header("Host", f"{bucket}.other.test")
    assert_error(plain.exchange(moved), 403, "SignatureDoesNotMatch")
    assert own.call("GET", "/").texts("Key") == []


def test_presigned_urls_of_a_buckets_host(at, bucket):
    own = at(f"{bucket}.s3.vaultaire.test")
    assert own.exchange(own.presign("PUT", "/a/k", body=b"x")).status == 200
    assert own.exchange(own.presign("GET", "/a/k")).body == b"x"


def test_location_of_complete_is_in_the_style_of_the_request(at, bucket):
    for host, path in (
        (f"{bucket}.s3.vaultaire.test", "/a%20b"),
        ("s3.vaultaire.test:9000", f"/{bucket}/a%20b"),
    ):
        caller = at(host)
        upload = caller.call("POST", path, query="uploads").text("UploadId")
        etag = caller.call("PUT", path, query=f"partNumber=1&uploadId={upload}", body=b"x").headers["etag"]
        xml = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
        answer = caller.call("POST", path, query=f"uploadId={upload}", body=xml.encode())
        assert answer.text("Location") == f"http://{host}{path}"


def test_post_object_to_a_buckets_host(at, bucket):
    own = at(f"{bucket}.s3.vaultaire.test")
    signed = signed_fields(own, bucket, {"key": "k", "success_action_status": "201"})
    answer = answer_then_usable_or_closed(own, form_request(own, bucket, signed, b"x", target="/"))
    assert answer.status == 201
    assert answer.text("Location") == f"http://{bucket}.s3.vaultaire.test/k"
    assert own.call("GET", "/k").body == b"x"


def test_post_object_to_another_buckets_host_is_refused(at, bucket):
    other = at("another.s3.vaultaire.test")
    other.call("PUT", "/")
    signed = signed_fields(other, bucket, {"key": "k"})
    answer = other.exchange(form_request(other, bucket, signed, b"x", target="/"))
    assert_error(answer, 403, "AccessDenied")
    assert other.call("GET", "/").texts("Key") == []


def test_boto3_in_virtual_style(vhost_server, bucket, monkeypatch):
    resolve = socket.getaddrinfo

    def to_the_server(host, *rest, **named):
        return resolve("127.0.0.1" if str(host).endswith(".vaultaire.test") else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", to_the_server)
    s3 = make_boto_client(
        replace(vhost_server, url=f"http://s3.vaultaire.test:{vhost_server.port}"),
        s3={"addressing_style": "virtual"},
    )
    s3.put_object(Bucket=bucket, Key="-/k", Body=b"x")
    s3.upload_fileobj(io.BytesIO(b"y" * (9 << 20)), bucket, "large")
    assert s3.get_object(Bucket=bucket, Key="-/k")["Body"].read() == b"x"
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["-/k", "large"]
    s3.close()
