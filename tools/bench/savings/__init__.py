"""What a store saves on sequences of versions, against restic, Borg and fixed blocks, measured through the S3 API.

`corpus` says what a corpus is, `source` makes trees of files and edits them; `trees`, `databases`, `records` and `binaries`
are the corpora by family; `stores` are the things compared; `table` computes and prints; `cuts` compares cut rules.
"""
