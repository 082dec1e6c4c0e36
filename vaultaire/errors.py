"""What the composed store may raise. S3's codes live in vaultaire.s3.errors, and only there."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # part of a public signature

UNFINISHED_RESTORE = "restore-unfinished"  # file in a directory that is not a store yet


class StoreError(Exception):
    """Base. The message says what is wrong with which directory, and what to do next."""


class NotAStore(StoreError):
    """The directory holds no Vaultaire store (and this command does not make one)."""

    def __init__(self, directory: Path) -> None:
        if (directory / UNFINISHED_RESTORE).exists():
            step = "a restore into it was not finished: run `vaultaire restore` again"
        elif (directory / "packs").is_dir() or (directory / "journal").is_dir():
            step = f"if it is lost, have it made from the packs: vaultaire rebuild --identity-from-packs --data {directory}"
        else:
            step = f"name the right directory with --data, or start a new store with: vaultaire serve --data {directory}"
        super().__init__(f"{directory} is not a Vaultaire store (no store.json in it); {step}")
        self.directory = directory
