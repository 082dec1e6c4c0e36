"""The roots of a mark: every manifest that names hold at one moment, bucket by bucket.

They must all come from one snapshot (`cas.marking` says why), and following them takes minutes in a large store, which
no snapshot may last: LMDB cannot use pages again that a snapshot still sees, so its file grows by all that commits
write meanwhile. So the manifests are copied out first, into a file without a name in `tmp/`: some seconds for a
million objects, 40 bytes per chunk of objects up to 2 MiB, less than that for larger ones (their roots alone).

Where that file cannot be written (a full disk is just when collection must work) or would exceed `limit_bytes`, the
snapshot is held after all, as long as the roots are in use, and the manifests are read from it.
"""

from __future__ import annotations

import logging
import struct
import tempfile
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Final

from index.counters import statistics
from index.manifests import bucket_ids, iterate_manifests

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from index.errors import NamesError
    from index.kv import OrderedMap

log = logging.getLogger("vaultaire.collection")

LIMIT_BYTES: Final = 1 << 30
PAUSE_ROWS: Final = 500
ERRORS_KEPT: Final = 20
_LENGTH: Final = struct.Struct(">I")
_BUFFER_BYTES: Final = 1 << 18


class Roots:
    """See the module. Made with a snapshot of its own; `copy` it out, use it, `close` it. One thread."""

    def __init__(self, kv: OrderedMap) -> None:
        self._snapshot = ExitStack()
        self._reader = self._snapshot.enter_context(kv.snapshot())
        self._file: IO[bytes] | None = None
        self._places: dict[int, tuple[int, int]] = {}  # bucket -> where its manifests are in the file
        self.buckets = bucket_ids(self._reader)
        self.counted = {bucket_id: statistics(self._reader, bucket_id) for bucket_id in self.buckets}
        self.sequence = self._reader.sequence
        self.damaged = 0  # records met that cannot be decoded: what they name is not known
        self.errors: list[str] = []  # the first of them

    def copy(self, directory: Path, limit_bytes: int = LIMIT_BYTES) -> Generator[int, None, None]:
        """Copy all out and let go of the snapshot, if that can be done. Yields how many rows were looked at.

        Raises CorruptValue.
        """
        try:
            self._file = tempfile.TemporaryFile(dir=directory, buffering=_BUFFER_BYTES)  # noqa: SIM115  # kept
            for bucket_id in self.buckets:
                start = self._file.tell()
                yield from self._copy_bucket(self._file, bucket_id, limit_bytes)
                self._places[bucket_id] = start, self._file.tell()
            self._file.flush()
        except OSError as error:
            log.warning("the roots cannot be copied out (%s): a snapshot is held while marking", error)
            self._drop_file()
        else:
            self._snapshot.close()

    def manifests_of(self, bucket_id: int) -> Iterator[bytes]:
        """The encoded manifests of one bucket, each time it is asked. Raises OSError, CorruptValue."""
        if self._file is not None:
            return read_manifests(self._file, *self._places[bucket_id])
        found = iterate_manifests(self._reader, bucket_id, self._note)
        return (manifest for manifest in found if manifest is not None)

    def close(self) -> None:
        """Idempotent."""
        self._snapshot.close()
        self._drop_file()

    def _copy_bucket(self, file: IO[bytes], bucket_id: int, limit_bytes: int) -> Iterator[int]:
        rows = 0
        for manifest in iterate_manifests(self._reader, bucket_id, self._note):
            rows += 1
            if manifest is not None:
                write_manifest(file, manifest)
            if rows >= PAUSE_ROWS:
                if file.tell() > limit_bytes:
                    raise OSError(f"they exceed {limit_bytes} bytes")
                yield rows
                rows = 0
        yield rows

    def _note(self, error: NamesError) -> None:
        self.damaged += 1
        if len(self.errors) < ERRORS_KEPT:
            self.errors.append(str(error))

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                log.debug(
                    "closing the copy of the roots failed", exc_info=True
                )  # its last bytes found no room


def write_manifest(file: IO[bytes], manifest: bytes) -> None:
    """Append one, for `read_manifests`."""
    file.write(_LENGTH.pack(len(manifest)) + manifest)


def read_manifests(file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    """Those written from `start` to `end`. The file's position is its own between two of them. Raises OSError."""
    position = start
    while position < end:
        file.seek(position)  # another walk may be reading it, too
        block = file.read(min(_BUFFER_BYTES, end - position))
        at = 0
        while at + _LENGTH.size <= len(block):
            (length,) = _LENGTH.unpack_from(block, at)
            if at + _LENGTH.size + length > len(block):
                break
            yield block[at + _LENGTH.size : at + _LENGTH.size + length]
            at += _LENGTH.size + length
        if not at:
            raise OSError("the copy of the roots is cut short")
        position += at
