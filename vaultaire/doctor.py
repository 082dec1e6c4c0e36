"""`vaultaire doctor`: is this machine, and this directory on it, fit to keep a store? Facts are measured, then judged.

Probes read facts and change nothing but a few KiB in `tmp/`, which they remove; judges are pure and say what to do next.
A sample of chunks is read and verified: that finds a disk that fails widely, `vaultaire verify` finds the single byte.
`problem` means that data or service is in danger now, `warning` that it may come to that; everything else is `fine`.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from cas.catalog import PLACEMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vaultaire.cli.endpoint import Endpoint
    from vaultaire.store import Store

Level = Literal["fine", "warning", "problem"]

GIB: Final = 1 << 30
FLUSHES: Final = 16
SAMPLED_CHUNKS: Final = 64  # up to some MiB read
_TIME_ERROR: Final = 5  # of adjtimex(2): not synchronised
_CONNECT_SECONDS: Final = 3.0
# LMDB maps its file and locks it: neither works among the clients of a network file system.
_NETWORK: Final = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "fuse.sshfs",
    "fuse.s3fs",
)
_VOLATILE: Final = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    level: Level
    text: str  # what was found, and unless it is fine what to do


# --- judges ---------------------------------------------------------------------------------------------------------


def judge_file_system(kind: str | None) -> Finding:
    """`kind` as the kernel names it; None: it could not be found out."""
    if kind in _NETWORK:
        text = f"{kind} is a network file system, on which the database can be damaged: use a local disk"
        return Finding("file system", "problem", text)
    if kind in _VOLATILE:
        return Finding(
            "file system", "warning", f"{kind} is memory: everything is gone when the machine restarts"
        )
    if kind == "overlay":
        text = "overlay is the layer of a container, and goes with it: mount a volume for the data directory"
        return Finding("file system", "warning", text)
    return Finding("file system", "fine", kind or "unknown")


def judge_space(free_bytes: int, total_bytes: int, free_files: int, total_files: int) -> Finding:
    text = f"{free_bytes / GIB:.1f} GiB of {total_bytes / GIB:.1f} GiB free"
    if free_bytes < GIB // 4:
        return Finding(
            "disk space", "problem", f"{text}: uploads will be refused; free some, or use a larger disk"
        )
    if total_files and free_files < total_files // 100:
        return Finding("disk space", "warning", f"{text}, but only {free_files:,} more files can be made")
    if free_bytes < GIB or free_bytes < total_bytes // 20:
        return Finding("disk space", "warning", f"{text}: plan for more")
    return Finding("disk space", "fine", text)


def judge_flushes(seconds: list[float], *, volatile: bool) -> Finding:
    """`seconds` that each of a few small writes took to be on disk."""
    ordered = sorted(seconds)
    median, slowest = ordered[len(ordered) // 2], ordered[-1]
    text = f"a small write is on disk after {median * 1000:.2f} ms (at most {slowest * 1000:.1f} ms)"
    if median > 0.05:
        return Finding("flushes", "warning", f"{text}: uploads of small objects will be slow; an SSD helps")
    if median < 0.00002 and not volatile:
        text += ": too fast for a disk. Something on the way only says so; a power cut may lose what was acknowledged"
        return Finding("flushes", "warning", text)
    return Finding("flushes", "fine", text)


def judge_open_files(hard_limit: int | None) -> Finding:
    """None: unlimited."""
    if hard_limit is None:
        return Finding("open files", "fine", "unlimited")
    text = f"up to {hard_limit:,} in a process"
    if hard_limit < 1024:
        return Finding(
            "open files",
            "problem",
            f"{text}: clients will be turned away; raise it (ulimit -Hn, LimitNOFILE=)",
        )
    if hard_limit < 4096:
        return Finding(
            "open files", "warning", f"{text}: raise it for many clients (ulimit -Hn, LimitNOFILE=)"
        )
    return Finding("open files", "fine", text)


def judge_permissions(directory_mode: int, secret_mode: int | None, owner: int, user: int) -> Finding:
    """Modes as `stat` gives them; `secret_mode` None: there is no secret.key."""
    if secret_mode is None:
        text = "secret.key is missing: nobody can sign in; make a new root key with: vaultaire key create --root --new-secret-key"
        return Finding("permissions", "problem", text)
    if stat.S_IMODE(secret_mode) & 0o077:
        text = f"secret.key can be read by others ({stat.S_IMODE(secret_mode):04o}): chmod 600 it, and rotate the keys"
        return Finding("permissions", "problem", text)
    if stat.S_IMODE(directory_mode) & 0o002:
        return Finding("permissions", "problem", "everybody may write to the data directory: chmod 700 it")
    if owner != user:
        text = f"the directory belongs to user {owner}, this is {user}: a server of the other will not read new files"
        return Finding("permissions", "warning", text)
    return Finding("permissions", "fine", "the secret is this user's alone")


def judge_clock(now: float, newest_write: float | None, synchronised: bool | None) -> Finding:
    """Unix seconds. `newest_write`: when the journal last changed, by the clock of that time.

    `synchronised`: what the kernel was told by whoever keeps time; None: it does not say.
    """
    if newest_write is not None and newest_write > now + 60:
        text = f"it is {(newest_write - now) / 3600:.1f} h behind the last write: signatures will be refused; set it"
        return Finding("clock", "problem", text)
    shown = f"{time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(now))}; clients may differ by 15 minutes"
    if synchronised is None:
        return Finding("clock", "fine", shown)
    if synchronised:
        return Finding("clock", "fine", f"{shown}; the system keeps it synchronised")
    text = f"{shown}; nothing synchronises it: run chrony, systemd-timesyncd or ntpd, or it will drift"
    return Finding("clock", "warning", text)


def judge_map(file_bytes: int, map_bytes: int) -> Finding:
    text = f"{file_bytes / GIB:.2f} GiB of at most {map_bytes / GIB:,.0f} GiB"
    if file_bytes > map_bytes * 0.8:
        return Finding("metadata", "warning", f"{text}: it will be full; ask for help before that")
    return Finding("metadata", "fine", text)


def judge_certificate(days_left: float | None) -> Finding:
    """None: no https, or no server answered there."""
    if days_left is None:
        return Finding("certificate", "fine", "no https server to ask")
    if days_left <= 0:
        return Finding("certificate", "problem", "it has expired: renew it and restart the server")
    text = f"it ends in {days_left:.0f} days"
    return Finding("certificate", "warning" if days_left < 14 else "fine", text)


def judge_chunks(read: int, unreadable: list[str]) -> Finding:
    """`unreadable`: chunk ids, in hex, of a sample of `read` chunks."""
    if unreadable:
        text = (
            f"{len(unreadable):,} of {read:,} chunks that were read are damaged (the first: {unreadable[0]}): "
            "run vaultaire repair, and check the disk"
        )
        return Finding("chunks", "problem", text)
    text = f"{read:,} that were picked at random are whole" if read else "none is stored yet"
    return Finding("chunks", "fine", text)


def judge_format(version: int, read_only: str | None) -> Finding:
    """`version` of store.json, which this program knows, or the store could not have been opened."""
    if read_only is not None:
        text = f"the store is read-only: {read_only}; see docs/disks.md, and restart the server afterwards"
        return Finding("store", "problem", text)
    return Finding("store", "fine", f"format {version}, as this version writes it")


def judge_configuration(file: Path | None, problems: list[str]) -> Finding:
    """`problems`: what `vaultaire serve` would refuse here."""
    if problems:
        text = "; ".join(problems)
        return Finding("settings", "problem", f"{text}; see vaultaire config check")
    return Finding("settings", "fine", f"{file or 'no file'} and the environment are in order")


# --- probes ---------------------------------------------------------------------------------------------------------


def examine(store: Store, endpoint: Endpoint | None) -> Iterator[Finding]:
    """One after the other, so that a slow one shows where it is. Blocking, some seconds. Raises OSError, KvError."""
    directory = store.directory
    yield judge_format(store.identity.format_version, store.kv.read_only_reason())
    kind = file_system_of(directory)
    yield judge_file_system(kind)
    room = os.statvfs(directory)
    yield judge_space(
        room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize, room.f_favail, room.f_files
    )
    yield judge_flushes(time_flushes(directory / "tmp"), volatile=kind in _VOLATILE)
    yield judge_open_files(_hard_limit())
    secret = directory / "secret.key"
    secret_mode = secret.stat().st_mode if secret.exists() else None
    owned = directory.stat()
    yield judge_permissions(owned.st_mode, secret_mode, owned.st_uid, os.geteuid())
    writes = [path.stat().st_mtime for path in (directory / "journal").iterdir()]
    yield judge_clock(time.time(), max(writes, default=None), clock_synchronised())
    engine = store.kv.statistics()
    yield judge_map(engine.file_bytes, engine.map_bytes)
    yield judge_certificate(_days_left(endpoint))
    yield judge_chunks(*sample_chunks(store, secrets.token_bytes))


def file_system_of(directory: Path) -> str | None:
    """The kernel's word for it; None where that cannot be asked (not on Linux)."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    real, best, found = os.path.realpath(directory), "", None
    for line in lines:
        before, _, after = line.partition(" - ")
        # Spaces in names are written as \040.
        point = before.split(" ")[4].encode().decode("unicode_escape")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, after.split(" ")[0]
    return found


def time_flushes(directory: Path) -> list[float]:
    """Seconds that each of a few appends took to be durable. Leaves nothing behind."""
    path = directory / f"doctor-{secrets.token_hex(8)}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        path.unlink()
        found = []
        for number in range(FLUSHES):
            began = time.perf_counter()
            os.pwrite(fd, bytes(4096), number * 4096)
            os.fsync(fd)
            found.append(time.perf_counter() - began)
        return found
    finally:
        os.close(fd)


def sample_chunks(store: Store, random_bytes: Callable[[int], bytes]) -> tuple[int, list[str]]:
    """Read up to SAMPLED_CHUNKS chunks from disk and verify them: (how many, ids of the damaged in hex).

    Ids are hashes, so the next id behind a random one is a random chunk; a small store is read twice in places.
    """
    with store.operation(), store.kv.snapshot() as reader:
        picked = {
            chunk
            for _ in range(SAMPLED_CHUNKS)
            for chunk, _ in reader.scan(PLACEMENTS, random_bytes(32), limit=1)
        }
        if len(picked) < SAMPLED_CHUNKS:
            picked |= {chunk for chunk, _ in reader.scan(PLACEMENTS, limit=SAMPLED_CHUNKS)}
        chunks = sorted(picked)
        whole = store.chunks.can_be_read(reader, chunks)
    return len(chunks), [chunk.hex() for chunk, good in zip(chunks, whole, strict=True) if not good]


def clock_synchronised() -> bool | None:
    """What the kernel was told by chrony, ntpd or timesyncd; None where that cannot be asked (not on Linux)."""
    import ctypes

    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    # struct timex with modes = 0: only read. It is 208 bytes on 64-bit Linux.
    state: int = adjtimex(ctypes.create_string_buffer(512))
    if state < 0:
        return None
    return state != _TIME_ERROR


def _hard_limit() -> int | None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _days_left(endpoint: Endpoint | None) -> float | None:
    if endpoint is None or not endpoint.tls:
        return None
    import ssl
    from urllib.parse import urlsplit

    from cryptography.x509 import load_pem_x509_certificate

    parts = urlsplit(endpoint.url)
    try:
        text = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=_CONNECT_SECONDS)
    except OSError:
        return None
    end = load_pem_x509_certificate(text.encode()).not_valid_after_utc
    return (end.timestamp() - time.time()) / 86_400
