"""What a tree, a bucket or a stream would take in a store: `vaultaire analyze`. Reads only; needs no store, no server.

    ids.py       which chunks were seen: 8 bytes each; a sample of them when there are too many
    earlier.py   earlier bytes of the source, for frames with bases
    trial.py     one object through the code of an upload (`cas.ingest`), whose frames are counted instead of written
    pages.py     how many pages of LMDB rows take
    kinds.py     what a file is: its extension, its magic, the layout of backup repositories
    tally.py     counters, and what follows from them: shares, estimates, intervals. Pure.
    curve.py     the same data under other average chunk sizes
    sources.py   folders, files, S3, standard input
    running.py   threads: a source through trials into tallies
    report.py    the answer: warnings, text, JSON       html.py   the answer as a page

What holds:

* **Same code as an upload**: cut rules, chunk ids, frames, manifests, inline objects and records are those of `cas`,
  `index` and `vaultaire.ingest`; only the pages of LMDB are calculated. The figures are those of an empty store with
  default settings, closed: `stored_bytes` of `vaultaire stats`, within 2 %.
* **Bounded memory**, whatever the size: 16 bytes (at a load of 3/4 at most) per different chunk up to a limit, and from there
  on a sample of the chunks; the names of some objects; a block, a frame and a node per thread; a bounded number of folders and types.
* **Nothing is changed**, no link is followed, nothing but regular files is opened. What cannot be read is named and
  does not stop the rest.
"""
