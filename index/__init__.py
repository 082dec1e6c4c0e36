"""Names -> manifests: buckets, objects, versions, uploads, listing; and the ordered map (`index.kv`) that holds them.

Synchronous. Knows no trio, no HTTP and nothing of cas but its vocabulary. Formats: index/SCHEMA.md.
"""
