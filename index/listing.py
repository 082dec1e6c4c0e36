"""Pages of objects, versions and uploads: S3's rules for prefix, delimiter, marker and limit, in one place.

An *item* of a listing is an entry (an object, a version, an upload) or a common prefix: what all keys share that
begin with `prefix` and hold `delimiter` behind it, up to and including its first occurrence there. Items come in
byte order of their keys; `max_keys` counts both kinds; 0 asks for an empty page that is not truncated.

**Where a page begins.** Only keys > `after` count. If `after` itself lies in a group (it begins with the group's
common prefix, or is it), the group was listed before and is skipped whole: else a client that goes on after a common
prefix would get it again for ever. This is what S3 does for `marker`, `key-marker` and continuation tokens.
`after_skips_group=False` is the plain rule for `start-after`, which names a key and not an item: the group is listed
if a key > `after` remains in it. Either way: an `after` that is less than the common prefix does not hide it
("photos" does not hide "photos/").

**Cost.** A page reads at most two rows per item, and one: a group is left by a seek past its common prefix, never
walked, so its size does not matter; nor do other prefixes, noncurrent versions (for objects) or deleted keys.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjects.html and API_ListObjectsV2.html,
API_ListObjectVersions.html, API_ListMultipartUploads.html.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from index import tree
from index.errors import InvalidMarker
from index.keys import MAX_OBJECT_KEY_BYTES, decode_id, inverted, successor
from index.records import decode_listing
from index.tables import OBJECTS, UPLOADS, VERSIONS
from index.uploads import parse_upload_id
from index.versions import VERSION_ID_BYTES, null_sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from index.kv import Reader

NULL_VERSION = b""  # as a version id marker: the version without an id
_NEWER_THAN_ALL = (1 << 64) - 1


class VersionRow(NamedTuple):
    key: bytes
    value: bytes  # for `decode_listing` or ObjectRecord.decode
    latest: bool


class UploadRow(NamedTuple):
    key: bytes
    upload_id: str
    value: bytes  # for UploadRecord.decode


Row = TypeVar("Row", bound=tuple[bytes, bytes] | VersionRow | UploadRow)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """`entries` and `common_prefixes` are each in byte order; the listing's own order is theirs merged.

    The page ended with an entry if `last` is the key of `entries[-1]`, else with a common prefix: no key of an entry
    is a common prefix.
    """

    entries: list[Row]
    common_prefixes: list[bytes]
    truncated: bool
    last: bytes  # the greatest item, key or common prefix: where to go on after; b"" of an empty page


def list_objects(
    reader: Reader,
    bucket_id: int,
    *,
    prefix: bytes = b"",
    delimiter: bytes = b"",
    after: bytes = b"",
    max_keys: int = 1000,
    after_skips_group: bool = True,
) -> Page[tuple[bytes, bytes]]:
    """Entries are (key, record bytes): the caller decodes what it shows, with `decode_listing`.

    All of `prefix`, `delimiter` and `after` may be any bytes of any length; empty means absent.
    """
    stop = successor(prefix)

    def rows_from(start: bytes) -> Iterator[tuple[bytes, bytes]]:
        return tree.walk(reader, OBJECTS, bucket_id, start, stop)

    start = _start(prefix, delimiter, after, after_skips_group)
    if start is None:
        return Page([], [], truncated=False, last=b"")
    return _collect(rows_from(start), rows_from, prefix, delimiter, max_keys)


def list_versions(
    reader: Reader,
    bucket_id: int,
    *,
    prefix: bytes = b"",
    delimiter: bytes = b"",
    key_marker: bytes = b"",
    version_id_marker: bytes | None = None,
    max_keys: int = 1000,
) -> Page[VersionRow]:
    """All versions, by key, the newest first; without versioning, each object as its null version.

    Goes on after all of `key_marker`, or, given `version_id_marker` (16 bytes or NULL_VERSION), after that version of
    it: with the older ones. That version need not exist any more; a null version that does not has left no trace of its
    place, so then all versions of its key follow: some may come again, none is left out. Raises InvalidMarker.
    """
    stop = successor(prefix)

    def rows_from(start: bytes) -> Iterator[VersionRow]:
        return _version_rows(reader, bucket_id, start, stop)

    start = _start(prefix, delimiter, key_marker)
    if start is None:
        return Page([], [], truncated=False, last=b"")
    rows = rows_from(start)
    if version_id_marker is not None and _resumes_at(start, prefix, key_marker):
        rows = chain(_older_versions(reader, bucket_id, key_marker, version_id_marker), rows)
    return _collect(rows, rows_from, prefix, delimiter, max_keys)


def list_uploads(
    reader: Reader,
    bucket_id: int,
    *,
    prefix: bytes = b"",
    delimiter: bytes = b"",
    key_marker: bytes = b"",
    upload_id_marker: str = "",
    max_uploads: int = 1000,
) -> Page[UploadRow]:
    """Uploads in progress, by key, then by initiation.

    Goes on after all uploads of `key_marker`, or, given `upload_id_marker`, after that one of them. Without
    `key_marker` the other is ignored, as S3 says. Raises InvalidMarker.
    """
    stop = successor(prefix)

    def rows_from(start: bytes) -> Iterator[UploadRow]:
        for key, raw_id, value in tree.walk_suffixed(reader, UPLOADS, bucket_id, start, stop):
            yield UploadRow(key, raw_id.hex(), value)

    start = _start(prefix, delimiter, key_marker)
    if start is None:
        return Page([], [], truncated=False, last=b"")
    rows = rows_from(start)
    if upload_id_marker and _resumes_at(start, prefix, key_marker):
        rows = chain(_later_uploads(reader, bucket_id, key_marker, upload_id_marker), rows)
    return _collect(rows, rows_from, prefix, delimiter, max_uploads)


def _start(prefix: bytes, delimiter: bytes, after: bytes, skips_group: bool = True) -> bytes | None:
    """The least key that may be listed; None if none may."""
    if not after:
        return prefix
    if delimiter and skips_group and after.startswith(prefix):
        found = after.find(delimiter, len(prefix))
        if found >= 0:
            return successor(after[: found + len(delimiter)])
    return max(prefix, after + b"\x00")


def _resumes_at(start: bytes, prefix: bytes, key_marker: bytes) -> bool:
    """The page may begin with the rest of the rows of `key_marker` (it is a key, listed, and in no group)."""
    listed = 1 <= len(key_marker) <= MAX_OBJECT_KEY_BYTES and key_marker.startswith(prefix)
    return listed and start == key_marker + b"\x00"


def _collect(
    rows: Iterator[Row],
    rows_from: Callable[[bytes], Iterator[Row]],
    prefix: bytes,
    delimiter: bytes,
    max_keys: int,
) -> Page[Row]:
    """One page of `rows`, which all begin with `prefix`; `rows_from(key)` are those from that key on."""
    if max_keys <= 0:
        return Page([], [], truncated=False, last=b"")
    if not delimiter:
        entries = list(islice(rows, max_keys + 1))
        truncated = len(entries) > max_keys
        del entries[max_keys:]
        return Page(entries, [], truncated, entries[-1][0] if entries else b"")
    return _collect_groups(rows, rows_from, len(prefix), delimiter, max_keys)


def _collect_groups(
    rows: Iterator[Row],
    rows_from: Callable[[bytes], Iterator[Row]],
    prefix_bytes: int,
    delimiter: bytes,
    max_keys: int,
) -> Page[Row]:
    entries: list[Row] = []
    groups: list[bytes] = []
    group: bytes | None = None  # the common prefix that the row before belonged to
    last, room, delimiter_bytes = b"", max_keys, len(delimiter)
    row = next(rows, None)
    while row is not None:
        key = row[0]
        if group is not None and key.startswith(group):
            # Only a second row of a group is worth a seek: a group of one is left by reading on.
            past = successor(group)
            rows, group = iter(()) if past is None else rows_from(past), None
            row = next(rows, None)
            continue
        if not room:
            return Page(entries, groups, truncated=True, last=last)
        room -= 1
        found = key.find(delimiter, prefix_bytes)
        if found < 0:
            entries.append(row)
            last = key
        else:
            last = group = key[: found + delimiter_bytes]
            groups.append(group)
        row = next(rows, None)
    return Page(entries, groups, truncated=False, last=last)


def _version_rows(reader: Reader, bucket_id: int, start: bytes, stop: bytes | None) -> Iterator[VersionRow]:
    """The current objects merged with all other versions."""
    objects = tree.walk(reader, OBJECTS, bucket_id, start, stop)
    versions = tree.walk_suffixed(reader, VERSIONS, bucket_id, start, stop)
    current, older = next(objects, None), next(versions, None)
    before: bytes | None = None
    while current is not None or older is not None:
        if older is None or (current is not None and current[0] <= older[0]):
            assert current is not None
            before, value = current
            current = next(objects, None)
            yield VersionRow(before, value, latest=True)
        else:
            key, _, value = older
            older = next(versions, None)
            yield VersionRow(key, value, latest=key != before)
            before = key


def _older_versions(reader: Reader, bucket_id: int, key: bytes, marker: bytes) -> Iterator[VersionRow]:
    """The versions of one key that come after the one with id `marker`."""
    row = tree.find_row(reader, OBJECTS, bucket_id, key)
    current = None if row is None else reader.get(OBJECTS, row)
    sequence = _sequence_of(reader, bucket_id, key, marker, current)
    if current is not None and decode_listing(current).sequence < sequence:
        yield VersionRow(key, current, latest=True)
    newest = None if current is not None else next(tree.suffixes(reader, VERSIONS, bucket_id, key), None)
    for suffix, value in tree.suffixes(reader, VERSIONS, bucket_id, key, after=inverted(sequence)):
        yield VersionRow(key, value, latest=newest is not None and suffix == newest[0])


def _sequence_of(reader: Reader, bucket_id: int, key: bytes, marker: bytes, current: bytes | None) -> int:
    """The sequence of a version, from its id; of the null version, from where it is."""
    if len(marker) == VERSION_ID_BYTES:
        return decode_id(marker[:8])
    if marker != NULL_VERSION:
        raise InvalidMarker(marker.hex())
    if current is not None:
        head = decode_listing(current)
        if head.version_id is None:
            return head.sequence
    return null_sequence(reader, bucket_id, key) or _NEWER_THAN_ALL


def _later_uploads(reader: Reader, bucket_id: int, key: bytes, marker: str) -> Iterator[UploadRow]:
    """The uploads of one key that come after the one with id `marker`."""
    raw = parse_upload_id(marker)
    if raw is None:
        raise InvalidMarker(marker)
    for raw_id, value in tree.suffixes(reader, UPLOADS, bucket_id, key, after=raw):
        yield UploadRow(key, raw_id.hex(), value)
