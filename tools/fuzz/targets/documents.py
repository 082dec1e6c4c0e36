"""Documents that a client sends as a body: forms and their policies, bucket policies, XML."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from tools.fuzz.targets.target import JSON_WORDS, Target, allow, cuts
from vaultaire.s3 import (
    acl,
    bucket_settings,
    cors,
    form_data,
    lifecycle_xml,
    policy,
    post_policy,
    sigv4,
    tags,
    xml_lock,
    xml_requests,
)
from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

XML_WORDS = (
    b"<", b">", b"</", b"/>", b"&amp;", b"&#0;", b"&#x10FFFF;", b"&lt;", b"<![CDATA[", b"]]>", b"<!--", b"-->", b"<?xml ",
    b"<!DOCTYPE", b"<!ENTITY", b' xmlns="', b"<Part>", b"<Key>", b"<Rule>", b"<Prefix>", b"<Days>", b"</Rule>", b"</Key>",
)  # fmt: skip


def take_form(data: bytes) -> None:
    assert _read_form([data]) == _read_form(cuts(data))
    allow(S3Error, lambda: form_data.parse_boundary(data[:400].decode("latin-1")))


def _read_form(pieces: Sequence[bytes]) -> tuple[list[tuple[str, bytes]], bytes] | None:
    parser, fields, file = form_data.FormParser(b"B"), [], b""
    try:
        for piece in pieces:
            for event in parser.feed(piece):
                if isinstance(event, form_data.Field):
                    fields.append((event.name, event.value))
                elif isinstance(event, bytes):
                    file += event
        parser.finish()
    except S3Error:
        return None
    return fields, file


def take_post_policy(data: bytes) -> None:
    texts = (b64encode(data).decode(), data.decode("latin-1"))
    for text in texts:

        def check(text: str = text) -> None:
            parsed = post_policy.parse_policy(text)
            fields = {"key": "a", "x-amz-meta-a": text[:50], "content-type": "text/plain"}
            post_policy.check_form(parsed, "bucket", fields, 1_700_000_000.0)

        allow(S3Error, check)
    fields = dict(line.split("=", 1) for line in data.decode("latin-1").splitlines() if "=" in line)
    allow(S3Error, lambda: sigv4.parse_form({name.lower(): value for name, value in fields.items()}))


def take_policy(data: bytes) -> None:
    parsed = policy.parse(data, "bucket")
    assert isinstance(parsed.is_public, bool)
    asked = policy.Asked("s3:GetObject", "bucket", "a/b", None, None)
    facts: Any = _Facts()
    parsed.evaluate(asked, facts)


class _Facts:
    """Answers every condition key with the same text."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: ("a",)

    def __getitem__(self, key: str) -> Any:
        return ("a",)


XML_PARSERS: tuple[Callable[[bytes], object], ...] = (
    xml_requests.parse_complete_multipart_upload,
    xml_requests.parse_delete_objects,
    xml_requests.parse_create_bucket,
    xml_requests.parse_versioning,
    xml_requests.parse_form_tagging,
    xml_lock.parse_configuration,
    xml_lock.parse_retention,
    xml_lock.parse_legal_hold,
    bucket_settings.parse_ownership,
    bucket_settings.parse_public_access_block,
    bucket_settings.parse_encryption,
    tags.parse_create_bucket,
    cors.parse_xml,
    lambda body: acl.parse_xml(body, "owner"),
    lambda body: tags.parse_xml(body, 10),
    lambda body: lifecycle_xml.parse_lifecycle(body, lambda: "id"),
)


def take_xml(data: bytes) -> None:
    for parse in XML_PARSERS:
        allow(S3Error, lambda parse=parse: parse(data))


def _forms() -> list[bytes]:
    part = b'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\na\r\n'
    file = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nbytes'
    return [
        part + file + b"\r\n--B--\r\n",
        file + b"\r\n--B\r\n",
        b'multipart/form-data; boundary="B"; charset=utf-8',
    ]


def _post_policies() -> list[bytes]:
    return [
        b'{"expiration": "2026-12-30T12:00:00.000Z", "conditions": [{"bucket": "bucket"}, ["starts-with", "$key", ""], '
        b'["eq", "$Content-Type", "text/plain"], ["content-length-range", 1, 10]]}',
        b"policy=e30=\nx-amz-algorithm=AWS4-HMAC-SHA256\nx-amz-credential=AKIA/20260101/us-east-1/s3/aws4_request\n"
        b"x-amz-date=20260101T000000Z\nx-amz-signature=" + b"0" * 64,
    ]


def _policies() -> list[bytes]:
    return [
        b'{"Version": "2012-10-17", "Id": "a", "Statement": [{"Sid": "1", "Effect": "Allow", "Principal": "*", '
        b'"Action": ["s3:GetObject", "s3:Put*"], "Resource": "arn:aws:s3:::bucket/*", "Condition": {"IpAddress": '
        b'{"aws:SourceIp": ["10.0.0.0/8", "::1"]}, "StringLike": {"s3:prefix": "a*?"}, "DateLessThan": '
        b'{"aws:CurrentTime": "2026-01-01T00:00:00Z"}, "NumericLessThanEquals": {"s3:max-keys": "10"}, "Bool": '
        b'{"aws:SecureTransport": "true"}, "Null": {"s3:x-amz-acl": "false"}}}]}',
        b'{"Statement": {"Effect": "Deny", "NotPrincipal": {"AWS": "arn:aws:iam::tenant:root"}, "NotAction": "s3:*", '
        b'"NotResource": ["arn:aws:s3:::bucket"]}}',
    ]


def _xml() -> list[bytes]:
    return [
        b'<?xml version="1.0" encoding="UTF-8"?><CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<Part><PartNumber>1</PartNumber><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><ChecksumCRC32>AAAAAA=="
        b"</ChecksumCRC32></Part></CompleteMultipartUpload>",
        b"<Delete><Quiet>true</Quiet><Object><Key>a&#x1;&amp;</Key><VersionId>null</VersionId></Object></Delete>",
        b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
        b"<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Disabled</MfaDelete></VersioningConfiguration>",
        b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE"
        b"</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
        b"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2026-01-01T00:00:00Z</RetainUntilDate></Retention>",
        b"<LegalHold><Status>ON</Status></LegalHold>",
        b"<CORSConfiguration><CORSRule><ID>a</ID><AllowedOrigin>https://*.a</AllowedOrigin><AllowedMethod>GET"
        b"</AllowedMethod><AllowedHeader>*</AllowedHeader><MaxAgeSeconds>1</MaxAgeSeconds></CORSRule></CORSConfiguration>",
        b'<AccessControlPolicy><Owner><ID>owner</ID></Owner><AccessControlList><Grant><Grantee xmlns:xsi="http://www.w3.org'
        b'/2001/XMLSchema-instance" xsi:type="CanonicalUser"><ID>a</ID></Grantee><Permission>READ</Permission></Grant>'
        b"</AccessControlList></AccessControlPolicy>",
        b"<LifecycleConfiguration><Rule><ID>a</ID><Status>Enabled</Status><Filter><And><Prefix>a/</Prefix><Tag><Key>k</Key>"
        b"<Value>v</Value></Tag><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter><Expiration><Days>1</Days>"
        b"</Expiration><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule>"
        b"<Rule><Status>Enabled</Status><Prefix/><AbortIncompleteMultipartUpload><DaysAfterInitiation>1"
        b"</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>",
        b"<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>",
        b"<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>",
        b"<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
        b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
        b"</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
    ]


TARGETS = (
    Target("form", take_form, (), _forms, (b"\r\n", b"--B", b"--B--", b"Content-Disposition: ", b'name="', b'filename="')),
    Target("post-policy", take_post_policy, (), _post_policies, JSON_WORDS),
    Target("policy", take_policy, (S3Error,), _policies, JSON_WORDS),
    Target("xml", take_xml, (), _xml, XML_WORDS),
)  # fmt: skip
