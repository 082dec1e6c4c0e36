"""Any S3 server as the target of an export: one PUT, or a multipart upload in the parts that the object was made of.

Every PUT and part carries its MD5, which the target checks before it stores it, and the ETag that it answers is compared
besides. Objects that were uploaded in parts get the same parts again, hence the same ETag; others above
`plans.SINGLE_PUT_BYTES` get parts and, unavoidably, another ETag: that one is computed to know them again.
"""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Literal

from vaultaire.moving.carried import parse_carried, put_parameters
from vaultaire.moving.places import Entry, MovingError, ObjectError
from vaultaire.moving.plans import etag_parts, offsets, upload_parts
from vaultaire.moving.stored_body import StoredBody

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from index.records import ObjectRecord
    from vaultaire.moving.bench import Bench
    from vaultaire.moving.report import Report
    from vaultaire.moving.s3_place import S3Place
    from vaultaire.moving.transport import Requests

How = Literal["md5", "parts", "content-md5"]


class S3Target:
    """See `exporting.Target`."""

    def __init__(
        self,
        place: S3Place,
        bench: Bench,
        requests: Requests,
        report: Report,
        *,
        keep_class: bool,
        object_lock: bool,
        missing: bool = False,
    ) -> None:
        """`missing`: the bucket is not there, and a dry run does not make it."""
        self._place = place
        self._bench = bench
        self._requests = requests
        self._report = report
        self._keep_class = keep_class
        self._object_lock = object_lock
        self._listed: list[Entry] = []  # of the target, not yet passed
        self._token: str | None = None
        self._ended = missing

    async def lookup(self, keys: Sequence[bytes], *, versions: bool) -> dict[bytes, list[Entry]]:
        """What is there under `keys`, which ascend, also from one call to the next."""
        while not self._ended and (not self._listed or self._listed[-1].key <= keys[-1]):
            page, self._token = await self._requests.run(
                partial(self._place.pages, self._token, versions=versions)
            )
            self._listed += page
            self._ended = self._token is None
            self._listed = [entry for entry in self._listed if entry.key >= keys[0]]
        wanted = set(keys)
        found: dict[bytes, list[Entry]] = {}
        for entry in self._listed:
            if entry.key in wanted:
                found.setdefault(entry.key, []).append(entry)
        return found

    async def expected_etag(self, record: ObjectRecord) -> str:
        """The ETag that the object has after its export. Reads it where that is not known."""
        parts = _parts(record)
        if not parts:
            return record.etag if etag_parts(record.etag) == 0 else (await self._md5(record)).hex()
        if _known_parts(record):
            return record.etag
        return _multipart_etag([await self._md5(record, *part) for part in offsets(parts)])

    async def carries_the_same(self, key: bytes, found: Entry, record: ObjectRecord) -> bool:
        attributes = await self._requests.run(partial(self._place.look, found._replace(key=key)))
        there = parse_carried(attributes, self._report, object_lock=False)
        return (there.content_type, sorted(there.metadata)) == (
            record.content_type or there.content_type,
            sorted(record.metadata),
        )

    async def delete(self, key: bytes) -> None:
        """Make a delete marker the newest version."""
        await self._write("delete_object", {"Key": key.decode()})

    async def put(self, key: bytes, record: ObjectRecord) -> str:
        """Send it; how it was verified. Raises ObjectError, CasError."""
        parameters = put_parameters(
            record,
            self._report,
            keep_class=self._keep_class,
            object_lock=self._object_lock,
            now_ms=self._bench.now_ms,
        )
        parameters["Key"] = key.decode()
        parts = _parts(record)
        if parts:
            return await self._put_parts(record, parameters, offsets(parts))
        md5 = bytes.fromhex(record.etag) if etag_parts(record.etag) == 0 else await self._md5(record)
        await self._requests.pacer.wait(record.size)
        answer = await self._write(
            "put_object", {**parameters, "ContentMD5": _base64(md5)}, partial(self._body, record)
        )
        return self._judge(answer, md5.hex(), "md5")

    async def _put_parts(
        self, record: ObjectRecord, parameters: Mapping[str, object], ranges: Sequence[tuple[int, int]]
    ) -> str:
        known = _known_parts(record)
        begun = await self._write("create_multipart_upload", parameters)
        named = {"Key": parameters["Key"], "UploadId": begun["UploadId"]}
        digests: list[bytes] = []
        listed: list[dict[str, object]] = []
        try:
            for number, (start, stop) in enumerate(ranges, 1):
                digest = known[number - 1] if known else await self._md5(record, start, stop)
                await self._requests.pacer.wait(stop - start)
                answer = await self._write(
                    "upload_part",
                    {**named, "PartNumber": number, "ContentMD5": _base64(digest)},
                    partial(self._body, record, start, stop),
                )
                digests.append(digest)
                listed.append({"PartNumber": number, "ETag": answer["ETag"]})
            answer = await self._complete(
                {**named, "MultipartUpload": {"Parts": listed}}, _multipart_etag(digests)
            )
        except BaseException:
            await self._abandon(named)
            raise
        return self._judge(answer, _multipart_etag(digests), "parts")

    async def _complete(self, parameters: Mapping[str, object], etag: str) -> Mapping[str, Any]:
        """A repeat whose first answer was lost finds no upload, but the object."""
        try:
            return await self._write("complete_multipart_upload", parameters)
        except ObjectError:
            key = str(parameters["Key"]).encode()
            found = await self._requests.run(partial(self._place.look, Entry(key, 0, "", 0)))
            if found.etag != etag:
                raise
            return {"ETag": etag}

    async def _abandon(self, named: Mapping[str, object]) -> None:
        """Parts that nobody completes cost the target's owner space."""
        import trio

        with trio.move_on_after(10, shield=True):
            try:
                await self._write("abort_multipart_upload", named)
            except MovingError:
                self._report.note("incomplete multipart uploads were left at the target")

    def _judge(self, answer: Mapping[str, Any], expected: str, how: How) -> str:
        etag = str(answer.get("ETag", "")).strip('"')
        if etag == expected:
            return how
        encrypted = str(answer.get("ServerSideEncryption", "")).startswith("aws:")
        if encrypted or etag_parts(etag) is None:
            return "content-md5"
        raise ObjectError(f"the target says that it stored other bytes: ETag {etag} instead of {expected}")

    async def _write(
        self,
        operation: str,
        parameters: Mapping[str, object],
        body: Any = None,  # noqa: ANN401
    ) -> Mapping[str, Any]:
        def call() -> Mapping[str, Any]:
            more = {"Body": body()} if body is not None else {}  # each attempt reads from the beginning
            return self._place.write(operation, {**parameters, **more})

        return await self._requests.run(call, reads_store=body is not None)

    def _body(self, record: ObjectRecord, start: int = 0, stop: int | None = None) -> StoredBody | bytes:
        if record.inline is not None:
            return record.inline[start:stop]
        return StoredBody(self._bench.store.chunks, record, start, stop)

    async def _md5(self, record: ObjectRecord, start: int = 0, stop: int | None = None) -> bytes:
        return await self._bench.threads.read(
            lambda: StoredBody(self._bench.store.chunks, record, start, stop).md5()
        )


def _parts(record: ObjectRecord) -> tuple[int, ...]:
    return upload_parts(record.size, [part.size for part in record.parts])


def _known_parts(record: ObjectRecord) -> list[bytes]:
    """The MD5s of the parts by which it is exported, if it was made of the same."""
    parts = record.parts
    if not parts or _parts(record) != tuple(part.size for part in parts):
        return []
    digests = [bytes.fromhex(part.etag) for part in parts]
    return digests if _multipart_etag(digests) == record.etag else []


def _multipart_etag(digests: Sequence[bytes]) -> str:
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
