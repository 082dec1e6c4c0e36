"""Backups of a running store, and stores made from backups. Layout of a destination: docs/backup-format.md.

place.py      where backups are kept: a folder (`folder.py`) or a bucket behind S3 (`bucket.py`)
manifest.py   what one backup is: a list of files made of pieces, signed off by a checksum (pure)
plan.py       what has to be copied, and what may be removed (pure)
taking.py     `vaultaire backup`: why it is consistent stands there
checking.py   `vaultaire backup --check`
restoring.py  `vaultaire restore`
"""
