"""Every operation, by strangers: without a policy or a list nobody but the bucket's tenant gets anything at all.

Generated from the router's own tables, so that an operation cannot be forgotten.
"""

from __future__ import annotations

import pytest

from tests.s3.conftest import new_bucket_name
from tests.s3.expect import contents_of
from tests.s3.wire import assert_error
from vaultaire.s3.operation import BUCKET, OBJECT

PLAIN = [
    *((method, "", "") for method in ("GET", "HEAD", "PUT", "DELETE")),
    ("GET", "", "list-type=2"),
    *((method, "/k", "") for method in ("GET", "HEAD", "PUT", "DELETE")),
    *((method, "/k", "uploadId=1&partNumber=1") for method in ("GET", "PUT", "POST", "DELETE")),
]
EVERY = [
    *PLAIN,
    *((method, "", name) for name, method in BUCKET),
    *((method, "/k", name) for name, method in OBJECT),
]


@pytest.mark.subset
@pytest.mark.parametrize("who", ["anonymous", "stranger", "stranger-admin", "read-only stranger"])
def test_a_stranger_gets_nothing_by_any_operation(root, s3, bucket, new_key, who):
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept")
    role = {"stranger-admin": "admin", "read-only stranger": "read-only"}.get(who, "read-write")
    call = root.anonymous if who == "anonymous" else new_key("stranger", role).call
    before = contents_of(s3, bucket)
    for method, path, query in EVERY:
        answer = call(method, f"/{bucket}{path}", query=query)
        if (method, path, query) == ("PUT", "", "") and who.startswith("stranger"):
            assert_error(answer, 409, "BucketAlreadyExists")
        elif method == "HEAD":
            assert answer.status == 403, (method, path, query)
        else:
            assert_error(answer, 403, "AccessDenied")
    assert contents_of(s3, bucket) == before


@pytest.mark.subset
def test_a_read_only_key_of_the_tenant_writes_by_no_operation(new_key):
    writer, reader = new_key("tenant-one"), new_key("tenant-one", "read-only")
    bucket = new_bucket_name("read-only")
    writer.call("PUT", f"/{bucket}")
    writer.call("PUT", f"/{bucket}/k", body=b"kept")
    for method, path, query in EVERY:
        answer = reader.call(method, f"/{bucket}{path}", query=query)
        if method not in ("GET", "HEAD"):
            assert_error(answer, 403, "AccessDenied")
    assert writer.call("GET", f"/{bucket}/k").body == b"kept"
    assert writer.call("DELETE", f"/{bucket}/k").status == 204
    assert writer.call("DELETE", f"/{bucket}").status == 204
