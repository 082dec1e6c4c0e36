"""What a worker process serves: the web application over an open store.

The store is opened when the application starts up and closed after the last request: packs are sealed, the run file
goes. In between, the committer runs, and once a second the run file is brought up to date and a quiet pack sealed.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from cas.errors import CasError
from index.kv import KvError, StorePoisoned
from index.readonly import FULL
from vaultaire.access import Keyring
from vaultaire.allocator import Allocator
from vaultaire.app import VaultaireApp
from vaultaire.budget import PATIENCE_SECONDS, STREAM_BYTES, MemoryBudget
from vaultaire.child import EX_TEMPFAIL
from vaultaire.commit import Committer, CommitterEnded, give_up_if_packs_fail
from vaultaire.effort import UploadEffort
from vaultaire.errors import StoreError
from vaultaire.last_used import LastUsed
from vaultaire.observing import Observing
from vaultaire.plans import PlanBook
from vaultaire.rates import Rates
from vaultaire.s3.call import Services
from vaultaire.s3.service import S3Service
from vaultaire.store import Store
from vaultaire.threads import CORES, Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from index.kv import Transaction
    from vaultaire.bucket_writes import BucketWrites
    from vaultaire.config import ServeConfig
    from vaultaire.metrics.page import PageAnswer

TICK_SECONDS = 1.0
NOTES_SECONDS = 60.0  # when keys were last used, buckets last written

log = logging.getLogger("vaultaire.worker")


def build_app(config: ServeConfig) -> VaultaireApp:
    """The application of one worker; it opens the store when it starts up."""
    return WorkerApp(config)


class WorkerLifespan:
    """ASGI's lifespan: from an open store to a closed one."""

    def __init__(self, app: WorkerApp, scope: object) -> None:
        self._app = app

    async def __call__(
        self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        await receive()
        try:
            store = await trio.to_thread.run_sync(self._open, limiter=trio.CapacityLimiter(1))
        except (StoreError, KvError, CasError, OSError) as error:
            if isinstance(error, StorePoisoned):
                # Somebody (a command that still runs) keeps the store from being recovered: try again, with all.
                self._app.stop.request(EX_TEMPFAIL)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        try:
            await self._serve(*store, receive, send)
        finally:
            with trio.CancelScope(shield=True):
                store[2].close()
                await trio.to_thread.run_sync(self._close, store[0], limiter=trio.CapacityLimiter(1))
        await send({"type": "lifespan.shutdown.complete"})

    def _open(self) -> tuple[Store, Keyring, Observing]:
        store = Store.open(self._app.settings.data, kind="worker")
        try:
            with store.kv.snapshot() as reader:
                keyring = Keyring.load(store.directory, reader)
            return store, keyring, Observing(store, keyring, self._app.settings)
        except BaseException:
            store.close()
            raise

    def _close(self, store: Store) -> None:
        """What cannot be put in order now (a full disk, a poisoned store) is left to whoever adopts this writer."""
        try:
            store.close()
        except (KvError, CasError, OSError) as error:
            log.error("the store was not closed in order: %s", error)

    async def _serve(
        self,
        store: Store,
        keyring: Keyring,
        observing: Observing,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        app = self._app
        committer = Committer(store.kv, store.chunks, lambda: app.stop.request(EX_TEMPFAIL))

        def on_damage(error: KvError) -> None:
            # LMDB is only a view: marked as damaged, it is rebuilt when all processes start again.
            refusal = store.kv.poison(str(error))
            log.error("the metadata is damaged: %s; %s", error, refusal)
            if isinstance(refusal, StorePoisoned):
                app.stop.request(EX_TEMPFAIL)

        threads = Threads()
        store.chunks.effort = UploadEffort(threads.waiting, CORES)
        rates = Rates(store.directory / "run")
        services = Services(
            store=store,
            committer=committer,
            keyring=keyring,
            budget=MemoryBudget(
                app.settings.memory_budget_bytes,
                stream_bytes=STREAM_BYTES,
                streams_changed=Allocator().streams_changed,
            ),
            threads=threads,
            clock=time.time,
            on_damage=on_damage,
            last_used=LastUsed(),
            rates=rates,
            plans=PlanBook(app.settings.plan),
            domains=app.settings.domains,
            observe=observing.observe,
        )
        counting = trio.CapacityLimiter(1)

        async def metrics(authorization: str, accept: str) -> PageAnswer:
            return await trio.to_thread.run_sync(
                observing.page.answer, authorization, accept, limiter=counting
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            nursery.start_soon(_tick, store, lambda: app.stop.request(EX_TEMPFAIL))
            app.why_not_ready = store.kv.read_only_reason
            app.metrics = metrics
            nursery.start_soon(_write_notes, services, observing.writes)
            nursery.start_soon(_look_at_streams, services.budget)
            observing.start(nursery)
            app.s3 = S3Service(services, host_id=store.identity.store_id.hex())
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await _write_note(services, observing.writes.plan())
            nursery.cancel_scope.cancel()


async def _write_notes(services: Services, writes: BucketWrites) -> None:
    while True:
        await trio.sleep(NOTES_SECONDS)
        await _write_note(services, services.last_used.plan())
        await _write_note(services, writes.plan())


async def _look_at_streams(budget: MemoryBudget) -> None:
    while True:
        await trio.sleep(PATIENCE_SECONDS)
        budget.look()


async def _write_note(services: Services, write: Callable[[Transaction], None] | None) -> None:
    if write is not None:
        with suppress(KvError, CommitterEnded):  # the requests say what is wrong with the store
            await services.committer.commit(write)


class WorkerApp(VaultaireApp):
    """The web application with the store's lifespan."""

    asgi_lifespan_class = WorkerLifespan  # type: ignore[assignment]  # the same protocol, another lifespan

    def __init__(self, settings: ServeConfig) -> None:
        super().__init__(_not_started, domains=settings.domains)
        self.settings = settings


async def _not_started(scope: object, receive: object, send: object) -> None:
    raise RuntimeError("a request before the store was opened")


async def _tick(store: Store, on_poisoned: Callable[[], None]) -> None:
    limiter = trio.CapacityLimiter(1)
    told = False

    def once() -> None:
        nonlocal told
        store.run_file.tick()
        store.packs.close_removed()
        reason = store.kv.read_only_reason()
        if reason is not None and not told:
            told = True
            log.critical("the store is read-only: %s", reason)
        if reason is None:
            store.chunks.seal_idle(time.monotonic())
            give_up_if_packs_fail(store.kv, store.chunks)
        elif reason.startswith(FULL) and store.has_room_to_recover():
            raise StorePoisoned("there is room again to recover the store")

    while True:
        await trio.sleep(TICK_SECONDS)
        try:
            await trio.to_thread.run_sync(once, limiter=limiter)
        except StorePoisoned as error:
            log.error("%s", error)
            on_poisoned()
        except (CasError, KvError, OSError):
            log.exception("housekeeping failed; it will be tried again")
