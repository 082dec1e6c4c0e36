"""PostObject: uploads by a browser's form, within a signed policy and not a byte beyond it."""

from __future__ import annotations

import datetime
import json
import urllib.request
from contextlib import suppress
from dataclasses import replace

import pytest

from tests.s3.conftest import make_boto_client, new_bucket_name
from tests.s3.expect import answer_then_usable_or_closed, assert_refused, keys_of
from tests.s3.forms import BOUNDARY, encode_form, form_request, signed_fields
from tests.s3.wire import assert_error, crc32, http_chunked, md5

MIB = 1 << 20
FORM_TAGS = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"


@pytest.fixture
def post(root, bucket):
    """`post(fields, file, ...)`: the answer to a form signed for exactly these fields."""

    def send(fields, file=b"data", *, caller=root, filename="upload.bin", after=None, **signing):
        signed = signed_fields(caller, bucket, fields, **signing)
        request = form_request(root, bucket, signed, file, filename=filename, after=after)
        return answer_then_usable_or_closed(root, request)

    return send


@pytest.mark.subset
def test_post_object_stores_the_file(root, bucket, post):
    answer = post({"key": "folder/k", "Content-Type": "text/plain", "x-amz-meta-colour": "blue"}, b"hello")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["etag"] == f'"{md5(b"hello")}"'
    assert answer.headers["location"].endswith(f"/{bucket}/folder/k")
    got = root.call("GET", f"/{bucket}/folder/k")
    assert got.body == b"hello"
    assert got.headers["content-type"] == "text/plain"
    assert got.headers["x-amz-meta-colour"] == "blue"


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 65_536, 300_000, 9 * MIB], ids=str)
def test_post_object_keeps_every_byte(root, bucket, post, rng, size):
    body = rng.randbytes(size)
    assert post({"key": "k"}, body).status == 204
    assert root.call("GET", f"/{bucket}/k").body == body


def test_post_object_in_many_small_pieces(root, bucket, rng):
    body = rng.randbytes(3000) + b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n" + rng.randbytes(3000)
    request = form_request(root, bucket, signed_fields(root, bucket, {"key": "k"}), body)
    with root.connect() as connection:
        data = request.encode()
        for at in range(0, len(data), 61):
            connection.send(data[at : at + 61])
        assert connection.answer().status == 204
    assert root.call("GET", f"/{bucket}/k").body == body


def test_post_object_takes_a_chunked_body(root, bucket):
    request = form_request(root, bucket, signed_fields(root, bucket, {"key": "k"}), b"data")
    chunked = request.with_header("Content-Length", None).with_header("Transfer-Encoding", "chunked")
    answer = answer_then_usable_or_closed(root, replace(chunked, body=http_chunked(request.body, 50)))
    assert answer.status == 204


@pytest.mark.subset
def test_post_object_as_boto3_signs_it(server, root, bucket):
    # Its own default for forms and presigned URLs is still Signature V2.
    made = make_boto_client(server, signature_version="s3v4").generate_presigned_post(
        bucket,
        "users/${filename}",
        Fields={"acl": "private", "success_action_status": "201"},
        Conditions=[
            {"acl": "private"},
            {"success_action_status": "201"},
            ["content-length-range", 1, 1000],
        ],
    )
    assert made["url"].endswith(f"/{bucket}")
    answer = answer_then_usable_or_closed(
        root, form_request(root, bucket, made["fields"], b"x", filename="a b.txt")
    )
    assert answer.status == 201
    assert root.call("GET", f"/{bucket}/users/a%20b.txt").body == b"x"


# -- the answer


def test_post_object_status_201_describes_the_object(root, bucket, post):
    answer = post({"key": "a&b", "success_action_status": "201"})
    assert (answer.status, answer.headers["content-type"]) == (201, "application/xml")
    assert answer.xml.tag == "PostResponse"
    assert [answer.text(name) for name in ("Bucket", "Key", "ETag")] == [bucket, "a&b", f'"{md5(b"data")}"']
    assert answer.text("Location") == f"{root.url}/{bucket}/a%26b" == answer.headers["location"]


@pytest.mark.parametrize(("asked", "status"), [("200", 200), ("204", 204), ("404", 204), ("", 204)])
def test_post_object_status_as_asked(post, asked, status):
    answer = post({"key": "k", "success_action_status": asked})
    assert (answer.status, answer.body) == (status, b"")


@pytest.mark.parametrize("name", ["success_action_redirect", "redirect"])
@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("http://example.org/done", "http://example.org/done?bucket={bucket}&key=a%20b&etag=%22{etag}%22"),
        (
            "https://example.org/?a=b#c",
            "https://example.org/?a=b&bucket={bucket}&key=a%20b&etag=%22{etag}%22#c",
        ),
    ],
)
def test_post_object_redirects(bucket, post, name, url, location):
    answer = post({"key": "a b", name: url, "success_action_status": "201"})
    assert answer.status == 303
    assert answer.headers["location"] == location.format(bucket=bucket, etag=md5(b"data"))


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "//example.org", "nothing", "http://", "http://[x", "http://a\r\nX: y"]
)
def test_post_object_redirects_only_to_web_pages(post, url):
    assert post({"key": "k", "success_action_redirect": url}).status == 204


# -- fields


def test_post_object_fields_count_in_any_case(root, bucket):
    signed = signed_fields(root, bucket, {"kEy": "k", "Content-TYPE": "text/plain"})
    cased = {name.upper() if name.startswith("x-amz-") else name: value for name, value in signed.items()}
    assert root.exchange(form_request(root, bucket, cased, b"x")).status == 204
    assert root.call("HEAD", f"/{bucket}/k").headers["content-type"] == "text/plain"


def test_post_object_replaces_filename_everywhere(root, bucket, post):
    answer = post(
        {"key": "in/${filename}", "x-amz-meta-name": "${filename}"},
        filename="C:\\dir\\photo.jpg",
        conditions=[["starts-with", "$key", "in/"], {"x-amz-meta-name": "photo.jpg"}],
    )
    assert answer.status == 204
    assert root.call("HEAD", f"/{bucket}/in/photo.jpg").headers["x-amz-meta-name"] == "photo.jpg"


def test_post_object_cannot_leave_its_prefix_by_a_file_name(root, bucket, post, s3):
    answer = post(
        {"key": "in/${filename}"}, filename="../../elsewhere", conditions=[["starts-with", "$key", "in/"]]
    )
    assert answer.status == 204
    assert keys_of(s3, bucket) == ["in/elsewhere"]


def test_post_object_ignores_fields_behind_the_file(root, bucket, post):
    answer = post({"key": "k"}, after={"key": "other", "x-amz-meta-a": "b", "bucket": "elsewhere"})
    assert answer.status == 204
    assert "x-amz-meta-a" not in root.call("HEAD", f"/{bucket}/k").headers


def test_post_object_keeps_system_headers(root, bucket, post):
    fields = {"key": "k", "Cache-Control": "no-store", "Content-Disposition": "inline", "Expires": "never"}
    assert post(fields).status == 204
    headers = root.call("HEAD", f"/{bucket}/k").headers
    assert (headers["cache-control"], headers["content-disposition"]) == ("no-store", "inline")
    assert headers["content-type"] == "binary/octet-stream", "the part's own type is not the object's"


def test_post_object_verifies_a_checksum_field(root, bucket, post, s3):
    assert post({"key": "good", "x-amz-checksum-crc32": crc32(b"data")}).status == 204
    refused = post({"key": "bad", "x-amz-checksum-crc32": crc32(b"other")})
    assert_error(refused, 400, "BadDigest")
    assert keys_of(s3, bucket) == ["good"]


def test_post_object_honours_a_condition_in_a_header(root, bucket, post):
    assert post({"key": "k"}, b"first").status == 204
    signed = signed_fields(root, bucket, {"key": "k"})
    request = form_request(root, bucket, signed, b"second", headers=[("If-None-Match", "*")])
    assert_refused(root, request, 412, "PreconditionFailed")
    assert root.call("GET", f"/{bucket}/k").body == b"first"


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"key": ""}, 400, "InvalidArgument"),
        ({}, 400, "InvalidArgument"),
        ({"key": "k" * 1025}, 400, "KeyTooLongError"),
        ({"key": "k", "x-amz-meta-a": "b" * 3000}, 400, "MetadataTooLarge"),
        ({"key": "k", "x-amz-meta-a": "b\r\nSet-Cookie: c"}, 400, "InvalidArgument"),
        ({"key": "k", "x-amz-storage-class": "NONE"}, 400, "InvalidStorageClass"),
        ({"key": "k", "x-amz-server-side-encryption-customer-algorithm": "AES256"}, 501, "NotImplemented"),
        ({"key": "k", "x-amz-security-token": "t"}, 400, "InvalidToken"),
        ({"key": "k", "x-amz-checksum-crc32": "no"}, 400, "InvalidRequest"),
        ({"key": "k", "tagging": "<Tagging>"}, 400, "MalformedXML"),
        ({"key": "k", "filler": "x" * 21_000}, 400, "MaxPostPreDataLengthExceededError"),
    ],
    ids=lambda value: str(value)[:48],
)
def test_post_object_refuses_a_field(s3, bucket, post, fields, status, code):
    assert_error(post(fields), status, code)
    assert keys_of(s3, bucket) == []


# -- the policy and who signed it


@pytest.fixture
def refused(root, bucket, s3):
    """`refused(fields, status, code, ...)`: the form is refused, and nothing is stored."""

    def check(fields, status, *codes, file=b"data", **rest):
        answer = assert_refused(root, form_request(root, bucket, fields, file, **rest), status, *codes)
        assert keys_of(s3, bucket) == []
        return answer

    return check


def test_post_object_condition_failed(root, bucket, refused):
    signed = signed_fields(root, bucket, {"key": "k"}, conditions=[["starts-with", "$key", "in/"]])
    answer = refused(signed, 403, "AccessDenied")
    assert answer.text("Message") == (
        'Invalid according to Policy: Policy Condition failed: ["starts-with", "$key", "in/"]'
    )


def test_post_object_field_beyond_the_policy(root, bucket, refused):
    signed = signed_fields(root, bucket, {"key": "k"}) | {"x-amz-meta-more": "x"}
    answer = refused(signed, 403, "AccessDenied")
    assert answer.text("Message") == "Invalid according to Policy: Extra input fields: x-amz-meta-more"


def test_post_object_field_taken_away(root, bucket, refused):
    signed = signed_fields(root, bucket, {"key": "k", "x-amz-meta-a": "b"})
    del signed["x-amz-meta-a"]
    refused(signed, 403, "AccessDenied")


def test_post_object_policy_of_another_bucket(root, bucket, refused):
    refused(signed_fields(root, new_bucket_name("other"), {"key": "k"}), 403, "AccessDenied")


@pytest.mark.parametrize("name", ["bucket", "Bucket"])
def test_post_object_bucket_field_cannot_redirect_the_write(root, bucket, s3, refused, name):
    """CVE-2023-43040: the policy's bucket was compared with a field, the request's was written."""
    other = new_bucket_name("mine")
    s3.create_bucket(Bucket=other)
    signed = signed_fields(root, other, {"key": "k", name: other})
    refused(signed, 403, "AccessDenied")
    refused(signed_fields(root, bucket, {"key": "k", name: other}), 403, "AccessDenied")
    assert keys_of(s3, other) == []


def test_post_object_bucket_field_may_repeat_the_bucket(post, bucket):
    assert post({"key": "k", "bucket": bucket}).status == 204


def test_post_object_expired_policy(root, bucket, refused):
    answer = refused(signed_fields(root, bucket, {"key": "k"}, expires_seconds=-1), 403, "AccessDenied")
    assert answer.text("Message") == "Invalid according to Policy: Policy expired."


def test_post_object_old_date_within_the_policys_time(root, bucket, post):
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    assert post({"key": "k"}, date=yesterday, expires_seconds=2 * 86_400).status == 204


@pytest.mark.parametrize(
    ("size", "status", "code"),
    [
        (9, 400, "EntityTooSmall"),
        (10, 204, ""),
        (20, 204, ""),
        (21, 400, "EntityTooLarge"),
        (900_000, 400, "EntityTooLarge"),
    ],
)
def test_post_object_content_length_range(s3, bucket, post, size, status, code):
    answer = post({"key": "k"}, b"x" * size, more_conditions=[["content-length-range", 10, 20]])
    assert (answer.status, answer.code) == (status, code)
    assert keys_of(s3, bucket) == (["k"] if status == 204 else [])


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"x-amz-signature": "0" * 64}, 403, "SignatureDoesNotMatch"),
        ({"x-amz-signature": "é"}, 403, "SignatureDoesNotMatch"),
        ({"x-amz-signature": None}, 400, "InvalidArgument"),
        ({"policy": None}, 400, "InvalidArgument"),
        ({"policy": "e30="}, 403, "SignatureDoesNotMatch"),
        ({"x-amz-algorithm": "AWS4-HMAC-SHA1"}, 400, "InvalidArgument"),
        ({"x-amz-credential": "nobody"}, 400, "InvalidArgument"),
        ({"x-amz-credential": "NOBODY/20260101/us-east-1/s3/aws4_request"}, 400, "InvalidArgument"),
        ({"x-amz-date": "yesterday"}, 400, "InvalidArgument"),
        ({"AWSAccessKeyId": "a", "signature": "b"}, 400, "InvalidRequest"),
    ],
    ids=str,
)
def test_post_object_bad_proof(root, bucket, refused, change, status, code):
    fields: dict[str, str | None] = {**signed_fields(root, bucket, {"key": "k"}), **change}
    refused({name: value for name, value in fields.items() if value is not None}, status, code)


def test_post_object_unknown_key(root, bucket, refused):
    nobody = replace(root, access_key="NOSUCHKEY0001")
    refused(signed_fields(nobody, bucket, {"key": "k"}), 403, "InvalidAccessKeyId")


@pytest.mark.parametrize(("region", "service"), [("eu-west-9", "s3"), ("us-east-1", "iam")])
def test_post_object_wrong_region_or_service(root, bucket, refused, region, service):
    refused(signed_fields(root, bucket, {"key": "k"}, region=region, service=service), 400, "InvalidArgument")


def test_post_object_anonymous_form(refused):
    refused({"key": "k"}, 403, "AccessDenied")


def allow_all(s3, bucket, *actions, **rest):
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": actions,
        "Resource": f"arn:aws:s3:::{bucket}/in/*",
    }
    document = {"Version": "2012-10-17", "Statement": [{**statement, **rest}]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(document))


def test_post_object_anonymous_form_where_the_bucket_allows_it(root, s3, bucket):
    allow_all(s3, bucket, "s3:PutObject")

    def send(fields):
        return answer_then_usable_or_closed(root, form_request(root, bucket, fields, b"data"))

    answer = send({"key": "in/${filename}", "x-amz-meta-a": "b", "success_action_status": "201"})
    assert answer.status == 201
    assert s3.get_object(Bucket=bucket, Key="in/upload.bin")["Metadata"] == {"a": "b"}
    assert s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]["ID"] == "root"
    assert_error(send({"key": "out"}), 403, "AccessDenied")
    assert_error(send({"key": "in/k", "tagging": FORM_TAGS}), 403, "AccessDenied")  # not allowed with it
    assert_error(send({"key": "in/k", "policy": "e30="}), 400, "InvalidArgument")  # half a proof is none
    assert keys_of(s3, bucket) == ["in/upload.bin"]


def test_post_object_anonymous_form_by_a_public_list(root, s3):
    bucket = new_bucket_name("public-write")
    s3.create_bucket(Bucket=bucket, ObjectOwnership="ObjectWriter", ACL="public-read-write")
    request = form_request(root, bucket, {"key": "k"}, b"data")
    assert answer_then_usable_or_closed(root, request).status == 204
    assert root.call("GET", f"/{bucket}/k").body == b"data"


@pytest.mark.parametrize("expected", ["somebody", "root"])
def test_post_object_expects_an_owner(root, bucket, post, expected):
    answer = post({"key": "k", "x-amz-expected-bucket-owner": expected})
    assert answer.status == (204 if expected == "root" else 403)


def test_post_object_invalid_policy_document(root, bucket, refused):
    signed = signed_fields(root, bucket, {"key": "k"}, conditions=[{}])
    refused(signed, 400, "InvalidPolicyDocument")
    refused(signed_fields(root, bucket, {"key": "k"}, expiration="tomorrow"), 400, "InvalidPolicyDocument")


# -- the form


def test_post_object_without_a_file(root, bucket, refused):
    refused(signed_fields(root, bucket, {"key": "k"}), 400, "InvalidArgument", file=None)


def test_post_object_field_given_twice(root, bucket, refused):
    refused(signed_fields(root, bucket, {"key": "k"}) | {"KEY": "k"}, 400, "InvalidArgument")


def test_post_object_malformed_form(root, bucket, s3):
    good = form_request(root, bucket, signed_fields(root, bucket, {"key": "k"}), b"data")
    for body in (b"", b"nonsense", good.body[:-5], good.body.replace(b"form-data", b"x")):
        cut = replace(good.with_header("Content-Length", str(len(body))), body=body)
        assert_refused(root, cut, 400, "MalformedPOSTRequest")
    unbound = good.with_header("Content-Type", "multipart/form-data")
    assert_refused(root, unbound, 400, "MalformedPOSTRequest")
    assert keys_of(s3, bucket) == []


def test_post_object_that_is_no_form(root, bucket):
    plain = form_request(root, bucket, {}, b"").with_header("Content-Type", "text/plain")
    answer = assert_refused(root, plain, 412, "PreconditionFailed")
    assert answer.text("Condition") == "Bucket POST must be of the enclosure-type multipart/form-data"
    assert_refused(root, root.sign("POST", f"/{bucket}", body=b"x"), 412, "PreconditionFailed")


def test_post_object_with_a_second_authentication(root, bucket):
    body = encode_form(signed_fields(root, bucket, {"key": "k"}), b"data")
    content_type = ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    assert_refused(
        root, root.sign("POST", f"/{bucket}", body=body, headers=[content_type]), 400, "InvalidArgument"
    )


def test_post_object_to_a_bucket_that_is_not_there(root):
    name = new_bucket_name("absent")
    request = form_request(root, name, signed_fields(root, name, {"key": "k"}), b"data")
    assert_refused(root, request, 404, "NoSuchBucket")


def test_post_object_to_a_key_is_not_allowed(root, bucket):
    request = form_request(
        root, bucket, signed_fields(root, bucket, {"key": "k"}), b"x", target=f"/{bucket}/k"
    )
    assert_refused(root, request, 405, "MethodNotAllowed")


def test_post_object_cut_off_stores_nothing(root, bucket, s3, rng):
    request = form_request(root, bucket, signed_fields(root, bucket, {"key": "k"}), rng.randbytes(MIB))
    with root.connect() as connection:
        connection.send(request.encode()[: -MIB // 2])
        connection.half_close()
        with suppress(ConnectionError):
            assert connection.answer().status == 400
    assert keys_of(s3, bucket) == []


def test_post_object_through_a_plain_http_client(root, bucket, variant):
    """As a program without any S3 in it would do it."""
    if variant.tls:
        pytest.skip("the certificate is the tests' own")
    fields = signed_fields(root, bucket, {"key": "plain"})
    request = urllib.request.Request(
        f"{root.url}/{bucket}",
        encode_form(fields, b"body"),
        {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    with urllib.request.urlopen(request) as response:
        assert response.status == 204
    assert root.call("GET", f"/{bucket}/plain").body == b"body"
