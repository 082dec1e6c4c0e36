"""The benchmark: Vaultaire beside `rclone serve s3` and beside its own handler under stock frameworks, in one run.

`python -m tools.bench` from the repository's root. Ratios of one run are the result; the figures depend on the machine.
"""
