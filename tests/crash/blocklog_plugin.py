"""An nbdkit plugin: a disk that remembers the order of everything. Run inside nbdkit's own Python, so stdlib only.

    nbdkit python blocklog_plugin.py image=FILE log=FILE

Reads and writes go to `image`. Every write and every flush is appended to `log` before it is answered: a header
`<kind u8> <offset u64> <length u32>` (little-endian) and, of a write, its bytes. `tests.crash.blocklog` reads it.
"""

import os
import struct

import nbdkit

API_VERSION = 2
WRITE, FLUSH = 0, 1
HEADER = struct.Struct("<BQI")

_paths = {}
_fds = {}


def config(key, value):
    _paths[key] = os.path.abspath(value)


def config_complete():
    if set(_paths) != {"image", "log"}:
        raise RuntimeError("image= and log= are wanted")


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS  # one order of everything


def open(readonly):  # noqa: A001  # the name that nbdkit calls
    if not _fds:
        _fds["image"] = os.open(_paths["image"], os.O_RDWR)
        _fds["log"] = os.open(_paths["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return 1


def get_size(handle):
    return os.fstat(_fds["image"]).st_size


def can_flush(handle):
    return True


def can_fua(handle):
    return nbdkit.FUA_EMULATE  # a write, and a flush after it


def can_trim(handle):
    return False


def can_zero(handle):
    return False


def pread(handle, buffer, offset, flags):
    os.preadv(_fds["image"], [buffer], offset)


def pwrite(handle, buffer, offset, flags):
    _append(HEADER.pack(WRITE, offset, len(buffer)), buffer)
    os.pwrite(_fds["image"], buffer, offset)


def flush(handle, flags):
    _append(HEADER.pack(FLUSH, 0, 0))


def _append(*parts):
    if os.writev(_fds["log"], parts) != sum(map(len, parts)):
        raise OSError("no room for the log")
