"""The body of one object as the events that an upload takes, fetched window by window ahead of it.

Windows are fetched side by side and handed over in order. Each needs a permit from when its request is made until it is
handed over; permits are taken in the order of the windows, so whoever waits for one does not keep others from going on:
the memory of all bodies together is bounded by the number of permits, whatever their sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import trio

from vaultaire.moving.places import WINDOW_BYTES
from vaultaire.moving.plans import windows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vaultaire.moving.places import Attributes

    Fetch = Callable[[int, int], Awaitable[tuple[Attributes, bytes]]]

T = TypeVar("T")

AHEAD: Final = 3  # windows of one object that are under way or wait to be taken


class _Window:
    """One range: asked for by the producer, then filled or failed."""

    def __init__(self, start: int, stop: int) -> None:
        self.range = start, stop
        self.done = trio.Event()
        self.data = b""
        self.error: Exception | None = None


class Body:
    """What `with_body` hands to its user: `attributes`, and `receive` for `Upload.receive`, which takes it once."""

    def __init__(
        self,
        attributes: Attributes,
        arriving: trio.MemoryReceiveChannel[_Window],
        count: int,
        taken: Callable[[], None],
    ) -> None:
        self.attributes = attributes
        self._arriving = arriving
        self._left = count
        self._taken = taken

    async def receive(self) -> dict[str, object]:
        """The next window. Raises what fetching it raised."""
        window = await self._arriving.receive()
        await window.done.wait()
        if window.error is not None:
            raise window.error
        data, window.data = window.data, b""
        self._taken()
        self._left -= 1
        return {"type": "http.request", "body": data, "more_body": self._left > 0}


async def with_body(
    fetch: Fetch,
    size: int,
    permits: trio.Semaphore,
    attributes: Attributes | None,
    use: Callable[[Body], Awaitable[T]],
) -> T:
    """What `use` returns or raises, given the body of `size` bytes. Without `attributes` the first answer's count."""
    ranges = windows(size, WINDOW_BYTES)
    held = 0
    results: list[T] = []
    failures: list[Exception] = []
    sender, receiver = trio.open_memory_channel[_Window](AHEAD)

    def taken() -> None:
        nonlocal held
        held -= 1
        permits.release()

    first = _Window(*next(ranges, (0, 0)))  # what is empty is asked for, too: its answer has the attributes

    async def fill(window: _Window) -> None:
        nonlocal attributes
        try:
            found, window.data = await fetch(*window.range)
            if window is first:
                # The tags are counted in the answers to GET, not everywhere in those to HEAD.
                attributes = found if attributes is None else attributes.with_tag_count(found.tag_count)
        except Exception as error:  # the user gets it where it takes the window
            window.error = error
        window.done.set()

    async def produce() -> None:
        nonlocal held
        async with sender:
            await sender.send(first)
            for start, stop in ranges:
                window = _Window(start, stop)
                await sender.send(window)
                await permits.acquire()
                held += 1
                nursery.start_soon(fill, window)

    try:
        await permits.acquire()
        held += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            await fill(first)
            try:
                if first.error is not None:
                    raise first.error
                assert attributes is not None
                results.append(await use(Body(attributes, receiver, max(-(-size // WINDOW_BYTES), 1), taken)))
            except Exception as error:
                failures.append(error)  # bare, not in a group
            nursery.cancel_scope.cancel()
    finally:
        for _ in range(held):
            permits.release()
    if failures:
        raise failures[0]
    return results[0]
