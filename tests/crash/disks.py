"""Small disks that can really be filled: a filesystem of its own, mounted for one test.

Needs mkfs for ext4 and the right to mount (root, loop devices); where one is missing the test is skipped, and says which.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SMALLEST = 512


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A mounted filesystem."""

    root: Path

    def free(self) -> int:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int = 0, name: str = "ballast") -> None:
        """Take everything but `leave` bytes with a file of another program."""
        fd = os.open(self.root / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            size, step = os.fstat(fd).st_size, 1 << 24
            while step >= _SMALLEST:
                if self.free() - step < leave and leave:
                    step //= 2
                    continue
                try:
                    os.posix_fallocate(fd, size, step)
                    size += step
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    os.ftruncate(fd, size)
                    step //= 2
            os.fsync(fd)
        finally:
            os.close(fd)

    def relieve(self, name: str = "ballast") -> None:
        (self.root / name).unlink(missing_ok=True)


@contextmanager
def small_disk(directory: Path, mebibytes: int, kind: str = "ext4") -> Iterator[SmallDisk]:
    """Mount a disk of that size under `directory`."""
    mount_point = directory / "disk"
    mount_point.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs"]
    else:
        image = directory / "disk.img"
        with open(image, "wb") as file:
            file.truncate(mebibytes << 20)
        _require(f"mkfs.{kind}")
        subprocess.run([f"mkfs.{kind}", "-q", "-m", "0", str(image)], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(image)]
    _require("mount")
    done = subprocess.run([*command, str(mount_point)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount: {' '.join(command)}: {done.stderr.strip()}")
    try:
        yield SmallDisk(mount_point)
    finally:
        _unmount(mount_point)


def _require(tool: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def _unmount(mount_point: Path) -> None:
    for _ in range(50):
        if subprocess.run(["umount", str(mount_point)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)  # the last process is just going
    subprocess.run(["umount", "-l", str(mount_point)], check=True)
