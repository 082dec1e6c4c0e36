"""Sending the bytes of an object: windows of chunks, read and verified ahead in threads, never held in full.

The first window is read before the head of the answer is sent, so damage found there is an honest error. Damage
found later ends the connection: the client sees a short body, never a wrong byte.

While one window is being sent the next is read: at most `AHEAD` + 2 windows are held, and the budget decides their
size. A stream that it does not grant so much has one small window and reads nothing ahead: a slow client then costs no
more than that. Each window takes its own short snapshot; the surrounding operation
(`Store.operation`) keeps the packs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from cas.manifest import Manifest
    from cas.store import ChunkStore
    from vaultaire.budget import Lease
    from vaultaire.threads import Threads

Piece = bytes | memoryview
Window = list[Piece]

WINDOW_BYTES = 1 << 20
CROWDED_WINDOW_BYTES = 256 << 10
SMALL_WINDOW_BYTES = 1  # when the budget is short: one span
SMALL_SPAN_BYTES = 64 << 10  # each costs a hop to a thread: half of it slows 600 readers threefold
AHEAD = 1
HELD_WINDOWS = AHEAD + 2


class ObjectReader:
    """Bytes [start, stop) of a manifest, window by window. One task uses it."""

    def __init__(
        self, chunks: ChunkStore, threads: Threads, lease: Lease, manifest: Manifest, start: int, stop: int
    ) -> None:
        window = CROWDED_WINDOW_BYTES if lease.crowded else WINDOW_BYTES
        self._roomy = lease.resize(HELD_WINDOWS * min(window, stop - start))
        self._lease = lease
        self._threads = threads
        self._chunks = chunks
        sizes = (window, window) if self._roomy else (SMALL_WINDOW_BYTES, SMALL_SPAN_BYTES)
        self._spans = chunks.windows(manifest, start, stop, *sizes)
        self._slices = None if self._roomy else chunks.slices(SMALL_SPAN_BYTES)

    async def next_window(self) -> Window | None:
        """The next bytes, verified; None at the end. Raises CasError."""
        return await self._threads.read(self._read_next)

    async def send_rest(self, send: Callable[[Piece], Awaitable[None]]) -> None:
        """Send every window that is left, reading ahead if the budget has room for that."""
        if self._roomy:
            await self._send_reading_ahead(send)
            return
        while (window := await self.next_window()) is not None:
            self._lease.hold(sum(map(len, window)))
            await self._send(window, send)
            del window  # not kept while the next one is read

    async def _send_reading_ahead(self, send: Callable[[Piece], Awaitable[None]]) -> None:
        sender, receiver = trio.open_memory_channel[Window](AHEAD)
        failure: list[Exception] = []

        async def read_ahead() -> None:
            async with sender:
                try:
                    while (window := await self.next_window()) is not None:
                        await sender.send(window)
                except trio.BrokenResourceError:
                    pass  # the client is gone
                except Exception as error:
                    failure.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_ahead)
            async with receiver:
                try:
                    async for window in receiver:
                        await self._send(window, send)
                except Exception as error:
                    failure.insert(0, error)
                    nursery.cancel_scope.cancel()
        if failure:
            raise failure[0]

    async def _send(self, window: Window, send: Callable[[Piece], Awaitable[None]]) -> None:
        length = sum(map(len, window))
        await send_window(window, send)
        self._lease.progress_bytes += length

    def _read_next(self) -> Window | None:
        spans = next(self._spans, None)
        if spans is None:
            return None
        if self._slices is not None:
            return [self._slices.read(spans[0])]
        pieces = self._chunks.read(spans)
        # One write per window instead of one per chunk; the copy costs 0.1 ms per MiB. A view would hold all that was
        # decoded with it.
        if len(pieces) == 1 and len(pieces[0]) == memoryview(pieces[0].obj).nbytes:
            return [pieces[0]]
        return [b"".join(pieces)]


async def send_window(window: Window, send: Callable[[Piece], Awaitable[None]]) -> None:
    """Send the pieces and forget each: whoever still has a name for the window holds nothing."""
    while window:
        await send(window.pop(0))


def read_all(chunks: ChunkStore, manifest: Manifest) -> Iterator[Piece]:
    """The whole object, for commands and tests. Blocking."""
    for spans in chunks.windows(manifest, 0, manifest.size, WINDOW_BYTES):
        yield from chunks.read(spans)
