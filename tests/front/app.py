"""A small ASGI app with one behaviour per path, for black-box tests of the front: `build` makes it for a worker."""

from __future__ import annotations

import os
from urllib.parse import parse_qs

import trio

from vaultaire.app import VaultaireApp

MIB = 1 << 20


def build(config):
    return VaultaireApp(handle)


def build_broken(config):
    """An app that does not start up."""
    app = VaultaireApp(handle)

    @app.before_serving
    async def start():
        raise RuntimeError("the disk is not there")

    return app


def build_raising(config):
    """An app without a lifespan of its own."""

    async def app(scope, receive, send):
        raise RuntimeError("the disk is not there")

    return app


async def handle(scope, receive, send):
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    name = scope["raw_path"].strip(b"/").decode() or "plain"
    await BEHAVIOURS[name](scope, receive, send, query)


async def answer(send, body=b"", status=200, headers=()):
    fields = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def plain(scope, receive, send, query):
    await answer(send, b"x" * int(query.get("size", "5")))


async def echo_length(scope, receive, send, query):
    """Read the whole body; answer with its length."""
    await answer(send, b"%d" % len(await body_of(receive)))


async def echo(scope, receive, send, query):
    await answer(send, await body_of(receive))


async def drain(scope, receive, send, query):
    """Read the whole body and keep nothing of it."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    await answer(send, b"%d" % size)


async def body_of(receive):
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the body broke off")
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


async def refuse(scope, receive, send, query):
    """403 without a look at the body."""
    await answer(send, b"<Error/>", status=403)


async def big(scope, receive, send, query):
    """Stream `mib` MiB in pieces of 256 KiB, of known length unless `chunked`."""
    size = int(query.get("mib", "64")) * MIB
    headers = [] if "chunked" in query else [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    piece = memoryview(bytes(int(query.get("piece", MIB // 4))))
    while size:
        taken = min(size, len(piece))
        size -= taken
        await send({"type": "http.response.body", "body": piece[:taken], "more_body": size > 0})


async def slow(scope, receive, send, query):
    await trio.sleep(float(query["seconds"]))
    await answer(send, b"slow")


async def path(scope, receive, send, query):
    await answer(send, scope["raw_path"] + b"?" + scope["query_string"])


async def crash(scope, receive, send, query):
    raise RuntimeError("a fault in the app")


async def wrong_length(scope, receive, send, query):
    """Promise 10 bytes; send as many as asked for, in two pieces."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
    await send({"type": "http.response.body", "body": b"12345", "more_body": True})
    await send({"type": "http.response.body", "body": b"x" * int(query["more"])})


async def injected(scope, receive, send, query):
    await answer(send, headers=[(b"x-amz-meta-a", b"b\r\nset-cookie: c")])


async def no_body(scope, receive, send, query):
    await answer(send, status=int(query["status"]))


async def descriptors(scope, receive, send, query):
    await answer(send, b"%d" % len(os.listdir("/proc/self/fd")))


async def connections(scope, receive, send, query):
    await answer(send, b"%d" % len(scope["state"]["connection"].worker.connections))


async def process(scope, receive, send, query):
    await answer(send, b"%d" % os.getpid())


async def stop(scope, receive, send, query):
    """Answer, and leave with an exit code of choice."""
    await answer(send, b"stopping")
    os._exit(int(query["code"]))


BEHAVIOURS = {
    "plain": plain,
    "echo-length": echo_length,
    "echo": echo,
    "drain": drain,
    "refuse": refuse,
    "big": big,
    "slow": slow,
    "path": path,
    "crash": crash,
    "wrong-length": wrong_length,
    "injected": injected,
    "no-body": no_body,
    "descriptors": descriptors,
    "connections": connections,
    "process": process,
    "stop": stop,
}
