"""The yardstick for requests per second: the same store behind a plain Quart route under stock Hypercorn.

One process: `python -m tools.bench.baseline DATA PORT`. It opens the store that `vaultaire serve` made, checks the
same Signature V4, reads the same records and commits through the same group commit; only the front differs. Objects of
up to 4 KiB, GET and PUT. Prints "ready" when it listens.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

from index.buckets import get_bucket
from index.objects import get_object
from index.records import ObjectRecord
from index.versions import Change, put_object
from vaultaire.access import Keyring
from vaultaire.commit import Committer
from vaultaire.s3 import names, sigv4
from vaultaire.s3.expected import Digests, parse_expected
from vaultaire.store import Store


def build(store: Store, keyring: Keyring, committer: Committer) -> QuartTrio:
    app = QuartTrio("baseline", static_folder=None)

    def authenticate() -> tuple[sigv4.Claim, str, bytes]:
        scope = request.scope
        claim = sigv4.parse(scope["method"], scope["raw_path"], scope["query_string"], list(scope["headers"]))
        with store.kv.snapshot() as reader:
            principal = keyring.lookup(reader, claim.access_key)
        sigv4.verify(claim, principal.secret_key if principal else None, time.time())
        bucket, key = names.split_path(scope["raw_path"])
        return claim, bucket, key

    @app.get("/<bucket>/<path:key>")
    async def get(bucket: str, key: str) -> Response:
        _, name, raw_key = authenticate()
        with store.kv.snapshot() as reader:
            record = get_object(reader, get_bucket(reader, name).id, raw_key)
        headers = {"etag": f'"{record.etag}"', "content-type": record.content_type or "binary/octet-stream"}
        return Response(record.inline, headers=headers)

    @app.put("/<bucket>/<path:key>")
    async def put(bucket: str, key: str) -> Response:
        claim, name, raw_key = authenticate()
        data = await request.get_data()
        digests = Digests(parse_expected(claim.headers, payload_sha256=claim.payload_sha256))
        digests.update(data)
        etag = digests.check().md5.hex()
        record = ObjectRecord(len(data), int(time.time() * 1000), etag, "root", inline=data)

        change = Change(store.writer, record.modified_ms, os.urandom(8))

        def commit(txn) -> None:
            put_object(txn, get_bucket(txn, name), raw_key, record, change)

        await committer.commit(commit)
        return Response(b"", headers={"etag": f'"{etag}"'})

    return app


async def main(data: Path, port: int) -> None:
    with Store.open(data, kind="worker") as store:
        with store.kv.snapshot() as reader:
            keyring = Keyring.load(data, reader)
        committer = Committer(store.kv, store.chunks, lambda: None)
        config = Config()
        config.bind = [f"127.0.0.1:{port}"]
        config.accesslog = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            binds = await nursery.start(partial(serve, build(store, keyring, committer), config))
            print("ready", *binds, flush=True)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
