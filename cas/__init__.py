"""Bytes <-> chunks <-> frames <-> packs: a content-addressed, deduplicating chunk store.

Terms, used for nothing else:

* chunk: a content-defined byte range; chunk id: keyed BLAKE3-256 of its raw bytes
* frame: consecutive new chunks compressed together; pack: an append-only file of frames
* placement: chunk id -> pack, frame, offset inside; catalog: all placements
* manifest: the ordered chunk refs of an object; ingest: one running upload into the chunk store

Synchronous and thread-safe. Knows no trio, no HTTP, no S3 and no LMDB: it needs two things handed to it, a place
for packs and a transactional ordered map for its catalog (`cas.ports`). Formats: cas/FORMAT.md.
"""
