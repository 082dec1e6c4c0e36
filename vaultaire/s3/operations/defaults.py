"""Configurations of which only S3's default exists here: a Put that asks for just that succeeds, any other is refused.

Terraform and its like write them back as they read them; what would promise a service that is not there (replication,
notifications, logs, ...) is NotImplemented. What Get answers about them is in `stubs`.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLogging.html and its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaultaire.s3 import xml_tree
from vaultaire.s3.body import read_small_body
from vaultaire.s3.call import Call, Response
from vaultaire.s3.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def _empty_only(root: str, missing: str) -> Callable[[Call], Awaitable[Response]]:
    async def put(call: Call) -> Response:
        call.require_bucket()
        tree = xml_tree.parse(await read_small_body(call), root)
        if len(tree):
            raise S3Error("NotImplemented", f"{missing} is not implemented")
        return Response(200)

    return put


def _one_value(
    root: str, element: str, accepted: str, refused: str, missing: str
) -> Callable[[Call], Awaitable[Response]]:
    async def put(call: Call) -> Response:
        call.require_bucket()
        tree = xml_tree.parse(await read_small_body(call), root)
        value = xml_tree.fields(tree, frozenset((element,))).get(element)
        if value == refused:
            raise S3Error("NotImplemented", f"{missing} is not implemented")
        if value != accepted:
            raise S3Error("MalformedXML")
        return Response(200)

    return put


put_bucket_logging = _empty_only("BucketLoggingStatus", "Server access logging to a bucket")
put_bucket_notification = _empty_only("NotificationConfiguration", "Event notification")
put_bucket_request_payment = _one_value(
    "RequestPaymentConfiguration", "Payer", "BucketOwner", "Requester", "Payment by the requester"
)
put_bucket_accelerate = _one_value(
    "AccelerateConfiguration", "Status", "Suspended", "Enabled", "Transfer acceleration"
)


async def no_such_configuration(call: Call) -> Response:
    """Get and Delete of one analytics, inventory, metrics or intelligent-tiering configuration: there is none."""
    call.require_bucket()
    raise S3Error("NoSuchConfiguration")
