"""What the tests say again and again about answers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.s3.wire import Answer, assert_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.client import BaseClient as S3Client

    from tests.s3.wire import Caller, Request


@contextmanager
def s3_error(status: int, *codes: str) -> Iterator[pytest.ExceptionInfo[ClientError]]:
    """The block raises this S3 error (one of the codes; any if none is named)."""
    with pytest.raises(ClientError) as caught:
        yield caught
    response = caught.value.response
    found = (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"])
    assert found[0] == status, f"{found} instead of {status} {codes}"
    assert not codes or found[1] in codes, f"{found} instead of {status} {codes}"


def read(s3: S3Client, bucket: str, key: str, **arguments: object) -> bytes:
    with s3.get_object(Bucket=bucket, Key=key, **arguments)["Body"] as body:
        return body.read()


def keys_of(s3: S3Client, bucket: str, **arguments: object) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **arguments)
    return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def contents_of(s3: S3Client, bucket: str) -> dict[str, tuple[str, bytes]]:
    """Everything in a bucket: key -> (ETag as listed, bytes as read)."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    entries = [entry for page in pages for entry in page.get("Contents", ())]
    return {entry["Key"]: (entry["ETag"], read(s3, bucket, entry["Key"])) for entry in entries}


def answer_then_usable_or_closed(caller: Caller, request: Request, *, end_of_input: bool = False) -> Answer:
    """Send a (bad) request; its answer. After it the connection takes another request, or it is closed.

    `end_of_input` closes our side after the bytes, as a client does that was killed; an end without an answer is
    right then, and reported as status 0.
    """
    with caller.connect() as connection:
        connection.send(request.encode())
        if end_of_input:
            connection.half_close()
        try:
            answer = connection.answer(request.method)
        except ConnectionError:
            assert end_of_input, "closed without an answer"
            return Answer(0, {}, b"")
        if answer.closes or end_of_input:
            assert connection.closed(), "the answer said that the connection closes"
        else:
            connection.send(caller.sign("GET", "/").encode())
            assert connection.answer().status == 200, "the connection is out of step after the answer"
        return answer


def assert_refused(caller: Caller, request: Request, status: int, *codes: str, **rest: bool) -> Answer:
    return assert_error(answer_then_usable_or_closed(caller, request, **rest), status, *codes)
