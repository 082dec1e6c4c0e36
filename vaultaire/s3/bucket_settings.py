"""Three small configurations of a bucket: object ownership, public access block, default encryption. Pure.

Each is one value with its XML form. What nobody set is Ownership.ENFORCED (lists are switched off: S3's default since
2023), a public access block with nothing blocked, and no default encryption.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketEncryption.html
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from vaultaire.s3 import xml_tree
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.xml import document

if TYPE_CHECKING:
    from collections.abc import Mapping

SSE_HEADER = "x-amz-server-side-encryption"


# --- ownership -----------------------------------------------------------------------------------------------------


class Ownership(Enum):
    """Whose objects are that another tenant writes, and whether lists count."""

    ENFORCED = "BucketOwnerEnforced"
    PREFERRED = "BucketOwnerPreferred"
    WRITER = "ObjectWriter"

    @property
    def lists_count(self) -> bool:
        return self is not Ownership.ENFORCED


def parse_ownership(body: bytes) -> Ownership:
    """One rule. Raises MalformedXML."""
    rules = xml_tree.one_of(xml_tree.parse(body, "OwnershipControls"), frozenset(("Rule",)))
    if "Rule" not in rules:
        raise S3Error("MalformedXML")
    text = xml_tree.fields(rules["Rule"], frozenset(("ObjectOwnership",))).get("ObjectOwnership", "")
    try:
        return Ownership(text)
    except ValueError:
        raise S3Error("MalformedXML") from None


def ownership_header(fields: Mapping[bytes, str]) -> Ownership | None:
    """`x-amz-object-ownership` of CreateBucket. Raises InvalidArgument."""
    text = fields.get(b"x-amz-object-ownership")
    if text is None:
        return None
    try:
        return Ownership(text)
    except ValueError:
        raise invalid_argument(
            f"Invalid x-amz-object-ownership header: {text}", "x-amz-object-ownership", text
        ) from None


def format_ownership(ownership: Ownership) -> bytes:
    return document("OwnershipControls", f"<Rule><ObjectOwnership>{ownership.value}</ObjectOwnership></Rule>")


# --- public access block -------------------------------------------------------------------------------------------


class PublicAccessBlock(NamedTuple):
    """The two `block` flags refuse to store what is public; the other two ignore what is stored."""

    block_public_acls: bool = False
    ignore_public_acls: bool = False
    block_public_policy: bool = False
    restrict_public_buckets: bool = False


NOTHING_BLOCKED = PublicAccessBlock()
_FLAGS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def parse_public_access_block(body: bytes) -> PublicAccessBlock:
    """A flag that is not there is off. Raises MalformedXML."""
    tree = xml_tree.parse(body, "PublicAccessBlockConfiguration")
    found = xml_tree.fields(tree, frozenset(_FLAGS))
    return PublicAccessBlock(*(_flag(found.get(name, "false")) for name in _FLAGS))


def _flag(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered not in ("true", "false"):
        raise S3Error("MalformedXML")
    return lowered == "true"


def format_public_access_block(block: PublicAccessBlock) -> bytes:
    rows = [f"<{name}>{'true' if on else 'false'}</{name}>" for name, on in zip(_FLAGS, block, strict=True)]
    return document("PublicAccessBlockConfiguration", "".join(rows))


# --- encryption ----------------------------------------------------------------------------------------------------


def parse_encryption(body: bytes) -> bytes:
    """The canonical document of one rule that says AES256. Raises MalformedXML, NotImplemented (KMS, SSE-C rules)."""
    tree = xml_tree.parse(body, "ServerSideEncryptionConfiguration")
    rule = xml_tree.one_of(tree, frozenset(("Rule",))).get("Rule")
    if rule is None:
        raise S3Error("MalformedXML")
    found = xml_tree.one_of(
        rule, frozenset(("ApplyServerSideEncryptionByDefault", "BucketKeyEnabled", "BlockedEncryptionTypes"))
    )
    default = found.get("ApplyServerSideEncryptionByDefault")
    if default is None:
        raise S3Error("MalformedXML")
    fields = xml_tree.fields(default, frozenset(("SSEAlgorithm", "KMSMasterKeyID")))
    algorithm = fields.get("SSEAlgorithm", "").strip()
    if algorithm in ("aws:kms", "aws:kms:dsse"):
        raise S3Error("NotImplemented", "Server-side encryption with keys of a KMS is not supported.")
    if algorithm != "AES256":
        raise S3Error("MalformedXML")
    if "KMSMasterKeyID" in fields:
        raise invalid_argument("a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms",
                               "KMSMasterKeyID", fields["KMSMasterKeyID"])  # fmt: skip
    bucket_key = _flag(xml_tree.text_of(found["BucketKeyEnabled"])) if "BucketKeyEnabled" in found else False
    return document(
        "ServerSideEncryptionConfiguration",
        "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
        "</ApplyServerSideEncryptionByDefault>"
        f"<BucketKeyEnabled>{'true' if bucket_key else 'false'}</BucketKeyEnabled></Rule>",
    )
