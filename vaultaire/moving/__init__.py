"""Moving objects in and out: `vaultaire import` and `vaultaire export`.

    places.py       what a source and a target are: entries, attributes, their errors
    s3_place.py     any S3 server, by botocore (the extra `vaultaire[s3]`)
    folder_place.py a folder of files
    plans.py        decisions, pure: what is done already, what may be overwritten, how a body is cut
    proof.py        which digest proves a body that came from elsewhere
    bench.py        an open store under trio: commits, housekeeping, bounded threads and memory
    importing.py    a source into the store        exporting.py    the store into a target
    taking.py       one body of an import          version_import.py  all versions of one key
    settings.py     configuration of a bucket, taken over where it means the same here
    report.py       what was done, and what was not

What holds for both directions:

* **There is no state file.** What is done is seen by comparing the listings of both sides, so a run that was killed at
  any moment is continued by running it again, and nothing that is done is sent again.
* **An object appears whole or not at all**, with its metadata, after its bytes were proven (`proof`).
* **Nothing newer is overwritten silently, and nothing that is locked at all**: `plans.plan_object` decides, and an
  import decides again inside the commit.
* One object that cannot be moved does not stop the others; it is named in the report, and the exit status is 1.
* Memory: a fixed number of windows of a fixed size, whatever the objects' sizes, plus the versions of one key at a time.

An import writes as a PUT does (`vaultaire.ingest`, `vaultaire.commit`): every object is an operation that collection
sees, so it may run beside the server, its maintenance, or another import.
"""
