"""Server-side encryption: the headers and the bucket's default are answered alike everywhere; keys of others are refused.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingServerSideEncryption.html
"""

from __future__ import annotations

import pytest

from tests.s3.expect import s3_error
from tests.s3.wire import assert_error

AES = {
    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
}


def multipart(s3, target, **settings):
    """Every answer on the way to a completed upload."""
    created = s3.create_multipart_upload(**target, **settings)
    upload = created["UploadId"]
    part = s3.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"x")
    copied = s3.upload_part_copy(
        **target, UploadId=upload, PartNumber=1, CopySource={"Bucket": target["Bucket"], "Key": "source"}
    )
    parts = {"Parts": [{"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}]}
    done = s3.complete_multipart_upload(**target, UploadId=upload, MultipartUpload=parts)
    return [created, part, copied, done]


@pytest.mark.subset
@pytest.mark.parametrize("how", ["header", "default"])
def test_every_answer_tells_of_the_encryption_that_was_asked_for(s3, bucket, how):
    asked = {"ServerSideEncryption": "AES256"} if how == "header" else {}
    s3.put_object(Bucket=bucket, Key="source", Body=b"source")
    if how == "default":
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=AES)
    target = {"Bucket": bucket, "Key": "k"}
    answers = [
        s3.put_object(**target, Body=b"x", **asked),
        s3.get_object(**target),
        s3.head_object(**target),
        s3.copy_object(**target, CopySource=f"{bucket}/source", **asked),
        s3.head_object(**target),
        *multipart(s3, target, **asked),
        s3.head_object(**target),
    ]
    assert [answer.get("ServerSideEncryption") for answer in answers] == ["AES256"] * len(answers)


def test_an_object_that_nobody_asked_it_for_says_nothing_of_encryption(s3, bucket):
    s3.put_object(Bucket=bucket, Key="source", Body=b"x")
    answers = [s3.head_object(Bucket=bucket, Key="source"), *multipart(s3, {"Bucket": bucket, "Key": "k"})]
    assert not any("ServerSideEncryption" in answer for answer in answers)


def test_a_copy_is_encrypted_as_its_target_says_and_not_as_its_source(s3, bucket):
    s3.put_object(Bucket=bucket, Key="source", Body=b"x", ServerSideEncryption="AES256")
    s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/source")
    assert "ServerSideEncryption" not in s3.head_object(Bucket=bucket, Key="k")
    s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k", ServerSideEncryption="AES256")
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"


@pytest.mark.subset
def test_bucket_encryption_round_trip(s3, bucket):
    with s3_error(404, "ServerSideEncryptionConfigurationNotFoundError"):
        s3.get_bucket_encryption(Bucket=bucket)
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=AES)
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"] == AES
    s3.delete_bucket_encryption(Bucket=bucket)
    with s3_error(404, "ServerSideEncryptionConfigurationNotFoundError"):
        s3.get_bucket_encryption(Bucket=bucket)


@pytest.mark.parametrize(
    ("default", "status", "code"),
    [
        ("<SSEAlgorithm>aws:kms</SSEAlgorithm>", 501, "NotImplemented"),
        ("<SSEAlgorithm>aws:kms:dsse</SSEAlgorithm>", 501, "NotImplemented"),
        ("<SSEAlgorithm>ROT13</SSEAlgorithm>", 400, "MalformedXML"),
        ("<SSEAlgorithm>AES256</SSEAlgorithm><KMSMasterKeyID>k</KMSMasterKeyID>", 400, "InvalidArgument"),
        ("", 400, "MalformedXML"),
    ],
)
def test_put_bucket_encryption_refuses_what_it_cannot_do(root, bucket, default, status, code):
    name = "ApplyServerSideEncryptionByDefault"
    body = f"<ServerSideEncryptionConfiguration><Rule><{name}>{default}</{name}></Rule></ServerSideEncryptionConfiguration>"
    assert_error(root.call("PUT", f"/{bucket}", query="encryption", body=body.encode()), status, code)
    assert root.call("GET", f"/{bucket}", query="encryption").status == 404


KEY = [
    ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
    ("x-amz-server-side-encryption-customer-key", "A" * 43 + "="),
    ("x-amz-server-side-encryption-customer-key-MD5", "A" * 22 + "=="),
]


@pytest.mark.subset
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (KEY, 501, "NotImplemented"),
        ([("x-amz-server-side-encryption", "aws:kms")], 501, "NotImplemented"),
        ([("x-amz-server-side-encryption", "aws:kms:dsse")], 501, "NotImplemented"),
        (
            [
                ("x-amz-server-side-encryption", "AES256"),
                ("x-amz-server-side-encryption-aws-kms-key-id", "k"),
            ],
            501,
            "NotImplemented",
        ),
        ([("x-amz-server-side-encryption", "ROT13")], 400, "InvalidArgument"),
    ],
)
def test_keys_of_the_client_or_of_a_kms_are_refused(root, s3, bucket, headers, status, code):
    for method, query in (("PUT", ""), ("POST", "uploads")):
        answer = root.call(method, f"/{bucket}/k", query=query, headers=headers)
        assert_error(answer, status, code)
    s3.put_object(Bucket=bucket, Key="source", Body=b"x")
    copy = [("x-amz-copy-source", f"{bucket}/source"), *headers]
    assert_error(root.call("PUT", f"/{bucket}/k", headers=copy), status, code)
    assert root.call("HEAD", f"/{bucket}/k").status == 404


def test_a_customer_key_is_refused_on_reads_and_parts(root, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert_error(root.call("GET", f"/{bucket}/k", headers=KEY), 501, "NotImplemented")
    assert root.call("HEAD", f"/{bucket}/k", headers=KEY).status == 501
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    query = f"partNumber=1&uploadId={upload}"
    assert_error(root.call("PUT", f"/{bucket}/k", query=query, headers=KEY, body=b"x"), 501, "NotImplemented")
    copy = [("x-amz-copy-source", f"{bucket}/k"), *KEY]
    assert_error(root.call("PUT", f"/{bucket}/k", query=query, headers=copy), 501, "NotImplemented")
