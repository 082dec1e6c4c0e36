"""Collection in a laboratory: as `vaultaire gc` does it, for stores as small as `workload.shrink` makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas import gc
from tests.crash import model, workload
from vaultaire.archiving import Archive
from vaultaire.collection import Collector

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultaire.store import Store


def collect(store: Store, on_step: Callable[[], object] = lambda: None, *, archives: bool = False) -> None:
    """All that can be freed now. `on_step` is called between its steps, and while it waits for operations.

    `archives`: as `vaultaire gc --recompress`.
    """
    policy = gc.Policy(target_bytes=workload.PACK_TARGET_BYTES, small_packs=4, batch_packs=4)
    archive = Archive(store) if archives else None
    collector = Collector(
        store, policy=policy, bytes_per_second=0, archive=archive, clock=_never, monotonic=_never
    )
    try:
        collector.run(lambda *_: on_step())
    finally:
        collector.close()


def _never() -> float:
    """No time passes: a slice ends when its step does."""
    return 0.0


def delete_all(worker: workload.Worker) -> None:
    """Everything of one client."""
    state = worker.state
    for key in sorted(state.plain):
        worker._do(model.Delete("plain", key), lambda key=key: worker._delete("plain", key))
    for key, versions in sorted(state.versions.items()):
        for version in versions:
            id_ = version.id
            worker._do(
                model.DeleteVersion(key, id_), lambda key=key, id_=id_: worker._delete_version(key, id_)
            )
    for upload in list(state.uploads.values()):
        worker._do(model.Abort(upload.id), lambda upload=upload: worker._abort(upload))
