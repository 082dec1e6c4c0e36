"""Receiving one body: ASGI events in; digests, chunks and frames out; nothing visible until its commit.

Blocks grow with what arrives (64 KiB to 4 MiB; 1 MiB while many streams run), and the byte budget is asked before
they grow. While threads work on one block (the client's digests beside cut + hash + look up + compress + append)
the next one is received: two blocks are held at most, and a client that stalls holds but what it has sent of one.
When the budget is short, blocks are small and no unfinished frame is kept, nor a chunk of noise that could become
larger (also if all streams carry too much of that): what is left is one of 128 KiB at most that is not cut yet.
The end of a body may wait in memory for its commit, which writes it (`cas.gathering`); it is counted until then.
Whatever the size of the pieces that bytes come in, holding them costs about as much memory as they are long.

A body that fits the first block takes no detour: up to `INLINE_MAX_BYTES` it is not chunked at all but stays in the
object's record (one commit, no pack).

The caller verifies what the client announced (length, digests, signatures) and commits; leaving the `with` without
`committed` set forgets the upload: what it appended is garbage in its packs, never half an object.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import trio

from cas.prefix import Prefixes
from vaultaire.budget import GUARANTEED_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
    from types import TracebackType
    from typing import Any

    from cas.manifest import Manifest
    from cas.store import ChunkStore, Ingest, Publication
    from index.records import ObjectRecord, PartRecord
    from vaultaire.budget import Lease, MemoryBudget
    from vaultaire.commit import Committer
    from vaultaire.space import Claim
    from vaultaire.threads import Threads

    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

RecordT = TypeVar("RecordT", "ObjectRecord", "PartRecord")

INLINE_MAX_BYTES = 4096
MAX_BLOCK_BYTES = 4 << 20
CROWDED_BLOCK_BYTES = 1 << 20
FIRST_BLOCK_BYTES = 64 << 10  # also the least of any block while the budget has room
HOP_BYTES = 64 << 10  # less than this is digested in the loop: a thread hop costs as much
SCARCE_BLOCK_BYTES = 16 << 10  # when the budget is short: every stream has a little more than this
# What an upload cannot do without: the longest base chunk while it is not cut yet, and two small blocks.
UPLOAD_BYTES = (128 << 10) + 2 * SCARCE_BLOCK_BYTES
INGEST_BYTES = 256 << 10  # what an ingest holds between blocks at least: an unfinished chunk and frame
# A `bytes` of one byte costs 50, a view of one 200, and a client chooses how small its packets and chunks are.
SMALL_PIECE_BYTES = 4 << 10
JOINED_BYTES = 64 << 10  # small pieces are joined up to this size


class BodyDecoder(Protocol):
    """aws-chunked framing and its signatures (`vaultaire.s3.aws_chunked`)."""

    def feed(self, data: bytes | memoryview) -> Iterable[bytes | memoryview]: ...

    def finish(self) -> dict[str, str]: ...


class Digests(Protocol):
    """Everything the client wants computed over the decoded bytes (`vaultaire.s3.checksums`)."""

    def update(self, data: bytes | memoryview) -> None: ...


class ClientGone(Exception):
    """The connection ended inside the body."""


class BodyTooLarge(Exception):
    """More decoded bytes than the limit of this operation."""


class Upload:
    """One body on its way in. Use as a context manager; see the module.

    After `receive`: `size` (decoded bytes), `trailers`, and `inline` (the bytes) or `manifest` + `publications`.
    """

    def __init__(
        self,
        chunks: ChunkStore,
        committer: Committer,
        budget: MemoryBudget,
        threads: Threads,
        *,
        decoder: BodyDecoder | None,
        digests: Digests,
        announced: int,
        max_bytes: int,
        inline_max_bytes: int = INLINE_MAX_BYTES,
        prefixes: Prefixes = Prefixes.AUTO,
        claim: Claim | None = None,
        end: Callable[[], None] | None = None,
    ) -> None:
        """`announced`: how long the body shall be, in bytes; it is admitted with memory for that. `claim`: room on the disk
        that was promised for this body; it is released with the upload.

        `end` ends the upload from outside, should the budget need its bytes for others.
        """
        self._chunks = chunks
        self._committer = committer
        self._budget = budget
        self._threads = threads
        self._decoder = decoder
        self._digests = digests
        self._guaranteed = max(GUARANTEED_BYTES, min(announced, UPLOAD_BYTES))
        self._max_bytes = max_bytes
        self._inline_max_bytes = inline_max_bytes
        self._prefixes = prefixes
        self._claim = claim
        self._end = end
        self._lease: Lease | None = None
        self._ingest: Ingest | None = None
        self._ended = False
        self._arriving = 0  # bytes of the block that is being received
        self._in_hand = 0  # bytes of the block that the threads work on
        self._scarce = False  # the budget refused what an ingest may hold
        self.size = 0
        self.trailers: dict[str, str] = {}
        self.inline: bytes | None = None
        self.manifest: Manifest | None = None
        self.publications: Sequence[Publication] = ()
        self.committed = False

    def __enter__(self) -> Self:
        try:
            self._lease = self._budget.admit(self._end, self._guaranteed)
        except BaseException:
            self._release_claim()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        assert self._lease is not None
        self._lease.release()
        self._release_claim()
        if self._ingest is not None and not self.committed:
            self._ingest.abort()

    def _release_claim(self) -> None:
        if self._claim is not None:
            self._claim.release()

    @property
    def new_stored_bytes(self) -> int:
        """What this upload itself added to the packs, or keeps inline. Final inside its commit."""
        if self._ingest is not None:
            return self._ingest.new_stored_bytes
        return len(self.inline or b"")

    def counted(self, record: RecordT) -> RecordT:
        """`record` with `new_stored_bytes`. For use inside the commit: the end of the body is written by it."""
        if record.new_stored_bytes == self.new_stored_bytes:
            return record
        return replace(record, new_stored_bytes=self.new_stored_bytes)

    async def receive(self, receive: Receive) -> None:
        """Take the whole body in. Raises ClientGone, BodyTooLarge, what the decoder raises, CasError."""
        block = await self._next_block(receive, FIRST_BLOCK_BYTES)
        if not self._ended:
            await self._receive_large(receive, block)
            return
        if self._arriving <= HOP_BYTES:
            pieces = self._take_whole(block)
        else:
            pieces = await self._threads.compute(lambda: self._take_whole(block))
        if self.size <= self._inline_max_bytes:
            self.inline = b"".join(pieces)
        else:
            await self._store_whole(pieces)

    def _take_whole(self, block: list[bytes]) -> list[bytes | memoryview]:
        pieces = self._decode(block)
        if self._decoder is not None:
            self.trailers = self._decoder.finish()
        self._digest(pieces)
        return pieces

    async def _store_whole(self, pieces: list[bytes | memoryview]) -> None:
        ingest = self._ingest = self._chunks.ingest(self._prefixes)

        def store() -> Manifest:
            ingest.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            return ingest.finish()

        self.manifest = await self._threads.compute(store)
        self._await_commit(ingest)

    async def _receive_large(self, receive: Receive, block: list[bytes]) -> None:
        ingest = self._ingest = self._chunks.ingest(self._prefixes)
        sender, receiver = trio.open_memory_channel[list[bytes]](0)
        failure: list[Exception] = []

        async def work() -> None:
            async with receiver:
                try:
                    async for pieces in receiver:
                        self._in_hand = sum(map(len, pieces))
                        await self._process(ingest, pieces)
                        if self._claim is not None:
                            self._claim.written(self._in_hand)
                        pieces.clear()  # both tasks still have a name for the list: a stalled client would hold it
                        self._in_hand = 0
                        self._scarce = not self._hold()
                        if self._scarce or not self._carry(ingest):
                            await self._threads.compute(ingest.flush)
                            self._carry(ingest)
                            self._hold()
                except Exception as error:
                    failure.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            async with sender:
                try:
                    while True:
                        last = self._arriving
                        if block:
                            await sender.send(block)
                        self._arriving = 0
                        if self._ended:
                            break
                        block = await self._next_block(receive, self._target(last))
                except trio.BrokenResourceError:
                    pass  # the worker stopped: its error is raised below
                except Exception as error:
                    failure.append(error)
        if failure:
            raise failure[0]
        await self._finish(ingest)

    async def _finish(self, ingest: Ingest) -> None:
        if self._decoder is not None:
            self.trailers = self._decoder.finish()
        self.manifest = await self._threads.compute(ingest.finish)
        self._await_commit(ingest)

    def _await_commit(self, ingest: Ingest) -> None:
        assert self._lease is not None
        self.publications = [ingest.publication()]
        self._lease.hold(ingest.held_bytes)  # its tail, until the commit is over

    async def _process(self, ingest: Ingest, pieces: list[bytes]) -> None:
        if self._decoder is None:
            decoded: list[bytes | memoryview] = list(pieces)
            self._count(decoded)
        else:
            decoded = await self._threads.compute(lambda: self._decode(pieces))
        await self._threads.side_by_side(
            lambda: self._digest(decoded),
            lambda: ingest.feed(decoded[0] if len(decoded) == 1 else b"".join(decoded)),
        )
        publication = ingest.take_publication()
        if publication is not None:
            # On the way, so that the last commit of a long upload stays short.
            await self._committer.commit(lambda txn: None, [publication])

    def _target(self, last: int) -> int:
        if self._scarce:
            return SCARCE_BLOCK_BYTES
        return min(
            max(last * 2, FIRST_BLOCK_BYTES),
            CROWDED_BLOCK_BYTES if self._budget.crowded else MAX_BLOCK_BYTES,
        )

    async def _next_block(self, receive: Receive, target: int) -> list[bytes]:
        """Pieces up to about `target` bytes; fewer if the budget says so. Sets `_ended` at the body's end."""
        assert self._lease is not None
        pieces: list[bytes | bytearray] = []
        self._arriving = 0
        while self._arriving < target:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise ClientGone
            piece = event.get("body", b"")
            self._arriving += len(piece)
            self._lease.progress_bytes += len(piece)
            if len(piece) >= SMALL_PIECE_BYTES:
                pieces.append(piece)
            elif piece:
                _join_small(pieces, piece)
            if not event.get("more_body", False):
                self._ended = True
                self._lease.keep()
                break
            if self._arriving >= FIRST_BLOCK_BYTES and not self._hold():
                break
        return [bytes(piece) for piece in pieces]  # no copy of what is bytes already

    def _hold(self) -> bool:
        """Ask the budget for what is held and may be next; False: refused, then no more than there is may be held."""
        assert self._lease is not None
        here = self._in_hand + self._arriving
        if self._ingest is None:
            return self._lease.resize(here)
        held = self._ingest.held_bytes
        if self._lease.resize(here + max(held, INGEST_BYTES)):
            return True
        self._lease.hold(here + held)
        return False

    def _carry(self, ingest: Ingest) -> bool:
        """Whether a chunk of noise may go on growing, for all that others carry."""
        assert self._lease is not None
        return self._lease.carry(max(0, ingest.held_bytes - INGEST_BYTES))

    def _decode(self, block: list[bytes]) -> list[bytes | memoryview]:
        if self._decoder is None:
            pieces: list[bytes | memoryview] = list(block)
        else:
            pieces = []
            for part in block:
                views: Sequence[bytes | memoryview] = list(self._decoder.feed(part))
                if len(views) * SMALL_PIECE_BYTES > len(part):
                    views = [b"".join(views)]
                pieces += views
        self._count(pieces)
        return pieces

    def _count(self, pieces: Iterable[bytes | memoryview]) -> None:
        self.size += sum(map(len, pieces))
        if self.size > self._max_bytes:
            raise BodyTooLarge

    def _digest(self, pieces: Iterable[bytes | memoryview]) -> None:
        for piece in pieces:
            self._digests.update(piece)


def _join_small(pieces: list[bytes | bytearray], piece: bytes) -> None:
    """Add a small piece, to the one before it if that is made of small ones too."""
    last = pieces[-1] if pieces else None
    if isinstance(last, bytearray) and len(last) < JOINED_BYTES:
        last += piece
    else:
        pieces.append(bytearray(piece))
