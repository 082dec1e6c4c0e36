"""Browser forms made by hand: policy, signature and multipart/form-data, so that any part of them can be wrong.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html
"""

from __future__ import annotations

import base64
import datetime
import hmac
import json
from typing import TYPE_CHECKING

from tests.s3.wire import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.s3.wire import Caller

BOUNDARY = "----VaultaireFormBoundary7MA4YWxk"
Condition = dict[str, str] | list[object]


def signed_fields(
    caller: Caller,
    bucket: str,
    fields: Mapping[str, str],
    *,
    conditions: Sequence[Condition] | None = None,
    more_conditions: Sequence[Condition] = (),
    expires_seconds: float = 300,
    expiration: str | None = None,
    date: datetime.datetime | None = None,
    region: str | None = None,
    service: str = "s3",
) -> dict[str, str]:
    """`fields` and those that prove them; the policy demands each of them exactly, or has just these `conditions`."""
    now = date or datetime.datetime.now(datetime.UTC)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region or caller.region}/{service}/aws4_request"
    proof = {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{caller.access_key}/{scope}",
        "x-amz-date": stamp,
    }
    wanted: list[Condition] = [{"bucket": bucket}, *({name: value} for name, value in proof.items())]
    if conditions is None:
        wanted += [{name: value} for name, value in fields.items()]
    else:
        wanted += conditions
    until = expiration or (now + datetime.timedelta(seconds=expires_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {"expiration": until, "conditions": [*wanted, *more_conditions]}
    policy = base64.b64encode(json.dumps(document).encode()).decode()
    return {**fields, **proof, "policy": policy, "x-amz-signature": sign_policy(caller, scope, policy)}


def sign_policy(caller: Caller, scope: str, policy: str) -> str:
    key = b"AWS4" + caller.secret_key.encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    return hmac.new(key, policy.encode(), "sha256").hexdigest()


def encode_form(
    fields: Mapping[str, str],
    file: bytes | None,
    filename: str = "upload.bin",
    after: Mapping[str, str] | None = None,
) -> bytes:
    """The body; `file` None: a form without one; `after`: fields behind it."""

    def of(name: str, value: bytes, extra: str = "") -> bytes:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
        return head.encode() + value + b"\r\n"

    parts = [of(name, value.encode()) for name, value in fields.items()]
    if file is not None:
        parts.append(of("file", file, f'; filename="{filename}"\r\nContent-Type: text/x-of-the-part'))
    parts += [of(name, value.encode()) for name, value in (after or {}).items()]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def form_request(
    caller: Caller,
    bucket: str,
    fields: Mapping[str, str],
    file: bytes | None,
    *,
    filename: str = "upload.bin",
    after: Mapping[str, str] | None = None,
    host: str | None = None,
    target: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Request:
    """A browser's request: anonymous, with the form as its body; to the bucket's path, or to `target` on `host`."""
    body = encode_form(fields, file, filename, after)
    sent = (
        ("Host", host or caller.host),
        ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}"),
        ("Content-Length", str(len(body))),
        *headers,
    )
    return Request("POST", target or f"/{bucket}", sent, body)
