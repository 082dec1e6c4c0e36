"""The tables of names: what each one holds is in index/SCHEMA.md, "Tables of names".

`vaultaire.store` opens the engine with these, the catalog's and its own.
"""

from __future__ import annotations

from typing import Final

BUCKETS: Final = "idx.buckets"  # bucket id -> BucketRecord
BUCKET_NAMES: Final = "idx.bucket_names"  # name -> bucket id
OBJECTS: Final = "idx.objects"  # key path -> ObjectRecord: the version that LIST shows
VERSIONS: Final = "idx.versions"  # key path + inverted sequence -> ObjectRecord: all the others
NULL_VERSIONS: Final = "idx.null_versions"  # key path -> sequence of the null version, if it is in VERSIONS
UPLOADS: Final = "idx.uploads"  # key path + upload id -> UploadRecord
PARTS: Final = "idx.parts"  # bucket id + upload id + part number -> PartRecord
COUNTERS: Final = "idx.counters"  # bucket id + writer number -> how much it holds
QUOTAS: Final = "idx.quotas"  # bucket id -> its limits, and whether its tenant has any
TENANT_QUOTAS: Final = "idx.tenant_quotas"  # tenant -> limits
TENANT_COUNTERS: Final = "idx.tenant_counters"  # tenant with a quota + writer number -> what its buckets hold
CONFIGS: Final = "idx.configs"  # bucket id + name -> configuration of a bucket
TOKENS: Final = "idx.tokens"  # bucket id + client token -> the request that it was used for
META: Final = "idx.meta"  # allocators of bucket ids and node ids

TABLES: Final = (
    BUCKETS,
    BUCKET_NAMES,
    OBJECTS,
    VERSIONS,
    NULL_VERSIONS,
    UPLOADS,
    PARTS,
    COUNTERS,
    QUOTAS,
    TENANT_QUOTAS,
    TENANT_COUNTERS,
    CONFIGS,
    TOKENS,
    META,
)
