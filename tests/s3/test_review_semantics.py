"""Answers that S3 gives otherwise than one would guess, and promises that must not be made."""

from __future__ import annotations

import itertools
import threading

import pytest

from tests.s3.wire import assert_error, content_md5, md5


def complete_body(*parts: tuple[int, str], extra: str = "") -> bytes:
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{extra}</Part>" for number, etag in parts
    )
    return f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()


def begin_upload(root, path: str) -> str:
    return root.call("POST", path, query="uploads=").text("UploadId")


# --- copies ---------------------------------------------------------------------------------------------------------

SOURCE = (
    ("x-amz-storage-class", "STANDARD_IA"),
    ("x-amz-website-redirect-location", "/elsewhere"),
    ("cache-control", "no-store"),
    ("x-amz-meta-colour", "blue"),
)


def test_a_copy_takes_metadata_but_neither_storage_class_nor_redirect_from_its_source(root, bucket):
    root.call("PUT", f"/{bucket}/source", headers=SOURCE, body=b"x")
    root.call("PUT", f"/{bucket}/copy", headers=[("x-amz-copy-source", f"/{bucket}/source")])
    headers = root.call("HEAD", f"/{bucket}/copy").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-amz-meta-colour"] == "blue"
    assert "x-amz-storage-class" not in headers
    assert "x-amz-website-redirect-location" not in headers


def test_a_copy_has_the_storage_class_that_its_request_names(root, bucket):
    root.call("PUT", f"/{bucket}/source", headers=SOURCE, body=b"x")
    wanted = [("x-amz-copy-source", f"/{bucket}/source"), ("x-amz-storage-class", "GLACIER_IR")]
    root.call("PUT", f"/{bucket}/copy", headers=wanted)
    assert root.call("HEAD", f"/{bucket}/copy").headers["x-amz-storage-class"] == "GLACIER_IR"


def test_an_object_is_copied_onto_itself_to_change_its_storage_class(root, bucket):
    root.call("PUT", f"/{bucket}/k", headers=SOURCE, body=b"x")
    onto_itself = [("x-amz-copy-source", f"/{bucket}/k"), ("x-amz-storage-class", "STANDARD")]
    assert root.call("PUT", f"/{bucket}/k", headers=onto_itself).status == 200
    headers = root.call("HEAD", f"/{bucket}/k").headers
    assert "x-amz-storage-class" not in headers
    assert headers["x-amz-meta-colour"] == "blue"


def test_a_copy_of_an_object_that_is_being_overwritten_succeeds(root, bucket):
    bodies, over, answers = [b"a" * 100, b"b" * 100], threading.Event(), []
    root.call("PUT", f"/{bucket}/source", body=bodies[0])

    def overwrite():
        with root.connect() as connection:
            for body in itertools.cycle(bodies):
                if over.is_set():
                    return
                connection.send(root.sign("PUT", f"/{bucket}/source", body=body).encode())
                connection.answer("PUT")

    thread = threading.Thread(target=overwrite)
    thread.start()
    with root.connect() as connection:
        for _ in range(150):
            copy = root.sign("PUT", f"/{bucket}/copy", headers=[("x-amz-copy-source", f"/{bucket}/source")])
            connection.send(copy.encode())
            answers.append(connection.answer("PUT").status)
    over.set()
    thread.join()
    assert set(answers) == {200}
    assert root.call("GET", f"/{bucket}/copy").body in bodies


# --- completing -----------------------------------------------------------------------------------------------------


def test_the_location_of_a_completed_upload_is_a_url_that_works(root, bucket):
    upload = begin_upload(root, f"/{bucket}/a%20b")
    etag = root.call("PUT", f"/{bucket}/a%20b", query=f"partNumber=1&uploadId={upload}", body=b"x").headers[
        "etag"
    ]
    done = root.call("POST", f"/{bucket}/a%20b", query=f"uploadId={upload}", body=complete_body((1, etag)))
    assert done.text("Location") == f"{root.url}/{bucket}/a%20b"


@pytest.mark.parametrize("identifier", ["never-issued", "ff" * 16])
def test_completing_an_upload_that_never_was_is_refused_even_if_its_object_exists(root, bucket, identifier):
    upload = begin_upload(root, f"/{bucket}/k")
    etag = root.call("PUT", f"/{bucket}/k", query=f"partNumber=1&uploadId={upload}", body=b"x").headers[
        "etag"
    ]
    body = complete_body((1, etag))
    assert root.call("POST", f"/{bucket}/k", query=f"uploadId={upload}", body=body).status == 200
    assert root.call("POST", f"/{bucket}/k", query=f"uploadId={upload}", body=body).status == 200  # a repeat
    refused = root.call("POST", f"/{bucket}/k", query=f"uploadId={identifier}", body=body)
    assert_error(refused, 404, "NoSuchUpload")


def test_two_completions_of_one_upload_at_once_both_succeed(root, bucket):
    upload = begin_upload(root, f"/{bucket}/k")
    etag = root.call("PUT", f"/{bucket}/k", query=f"partNumber=1&uploadId={upload}", body=b"x").headers[
        "etag"
    ]
    request = root.sign("POST", f"/{bucket}/k", query=f"uploadId={upload}", body=complete_body((1, etag)))
    connections = [root.connect() for _ in range(8)]
    for connection in connections:
        connection.send(request.encode())
    statuses = [connection.answer("POST").status for connection in connections]
    for connection in connections:
        connection.close()
    assert statuses == [200] * 8


def test_a_stated_checksum_that_cannot_be_verified_is_not_accepted(root, bucket):
    root.call("PUT", f"/{bucket}/source", body=b"0123456789")
    upload = begin_upload(root, f"/{bucket}/k")
    copied = root.call(
        "PUT",
        f"/{bucket}/k",
        query=f"partNumber=1&uploadId={upload}",
        headers=[("x-amz-copy-source", f"/{bucket}/source"), ("x-amz-copy-source-range", "bytes=0-4")],
    )
    etag, query = copied.text("ETag"), f"uploadId={upload}"
    wrong = [("x-amz-checksum-crc64nvme", "AAAAAAAAAAA="), ("x-amz-checksum-type", "FULL_OBJECT")]
    stated = root.call("POST", f"/{bucket}/k", query=query, headers=wrong, body=complete_body((1, etag)))
    assert_error(stated, 501, "NotImplemented")
    of_part = complete_body((1, etag), extra="<ChecksumCRC32>AAAAAA==</ChecksumCRC32>")
    assert_error(root.call("POST", f"/{bucket}/k", query=query, body=of_part), 400, "InvalidPart")
    assert root.call("POST", f"/{bucket}/k", query=query, body=complete_body((1, etag))).status == 200
    assert root.call("GET", f"/{bucket}/k").body == b"01234"


# --- the rest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value", "status", "code"),
    [
        ("x-amz-acl", "public-read", 400, "InvalidBucketAclWithObjectOwnership"),
        ("x-amz-grant-read", 'id="somebody"', 400, "InvalidBucketAclWithObjectOwnership"),
        ("x-amz-bucket-object-lock-enabled", "perhaps", 400, "InvalidArgument"),
    ],
)
def test_a_bucket_is_not_made_without_what_was_asked_for(root, bucket, header, value, status, code):
    answer = root.call("PUT", f"/{bucket}-2", headers=[(header, value)])
    assert_error(answer, status, code)
    assert root.call("HEAD", f"/{bucket}-2").status == 404


def test_a_preflight_does_not_ask_whether_the_object_exists(root, bucket):
    asked = [("origin", "http://example.org"), ("access-control-request-method", "GET")]
    assert_error(root.call("OPTIONS", f"/{bucket}/no-such-key", headers=asked), 403, "AccessForbidden")


def test_a_long_list_of_deletes_is_taken(root, bucket):
    keys = "".join(f"<Object><Key>{'k' * 900}{n}</Key></Object>" for n in range(1000))
    body = f"<Delete><Quiet>true</Quiet>{keys}</Delete>".encode()
    answer = root.call(
        "POST", f"/{bucket}", query="delete=", headers=[("content-md5", content_md5(body))], body=body
    )
    assert answer.status == 200
    assert md5(body) != md5(answer.body)
    assert answer.texts("Error") == []
