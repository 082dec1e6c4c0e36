"""Backups of a running store, and stores made from backups. Layout of a destination: docs/backup-format.md.

* `place`: where backups are kept: a folder (`folder`) or a bucket behind S3 (`bucket`).
* `manifest`: what one backup is: files made of pieces, signed off by a checksum. Pure. `plan`: what is to be copied.
* `destination`: which backups there are, and how a store remembers the ones it made.
* `taking`: `vaultaire backup`; why it is consistent stands there. `pieces`: written once, removed when nobody needs them.
* `checking`: `vaultaire backup --check`. `restoring`: `vaultaire restore`.
"""
