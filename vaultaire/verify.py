"""Verification of a whole store: metadata, names, packs, catalog, objects. `vaultaire verify`, and whoever wants to know.

    report = verify(store, read_data=True)
    report.clean, report.findings

Guarantees:

* Everything that is damaged is reported, as far as memory's bounds go (`vaultaire.findings`), and with it every version
  and part of an upload that cannot be read any more. Nothing is changed.
* It runs beside clients, collection and checkpoints without a false alarm and without holding any of them up: short
  operations, short snapshots (but for one bucket's rows, and the comparison of LMDB with its rebuild), and what looks
  damaged is looked at again before it is called so.
* It reads packs from the device, not from the page cache.

The order: checkpoints, journal and LMDB first, for the rest is read through LMDB; then names; then packs; objects last,
when it is known which places are in doubt.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cas.catalog import PACKS, PLACEMENTS
from cas.errors import CasError
from index.environment import ViewDamaged
from index.errors import NamesError
from index.keys import decode_id, encode_id
from index.kv import KvError, StorePoisoned
from index.records import ObjectRecord
from index.tables import OBJECTS, VERSIONS
from index.verify_engine import NotComparable, check_checkpoints, check_journal, compare, damaged_rows
from index.verify_names import BucketCheck, buckets_of, check_buckets, key_of_row
from vaultaire.access import KEYS_TABLE, AccessError, Keyring
from vaultaire.errors import StoreError
from vaultaire.findings import Affected, Finding, Findings, Report
from vaultaire.secret_key import SecretKeyError
from vaultaire.store import TABLES
from vaultaire.tolerant import TolerantMap
from vaultaire.verify_objects import ObjectVerification
from vaultaire.verify_packs import PackVerification

if TYPE_CHECKING:
    from collections.abc import Callable

    from index.records import BucketRecord
    from index.verify_engine import EngineDamage
    from index.verify_names import NameDamage
    from vaultaire.store import Store

__all__ = ["Affected", "Finding", "NoSuchBucket", "Report", "verify"]

TICK_SECONDS: Final = 0.5  # else collection would wait for the whole verification
_KEY_TABLES: Final = (OBJECTS, VERSIONS)


class NoSuchBucket(StoreError):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no bucket {name!r}; see them all with: vaultaire stats")
        self.name = name


def _ignore(stage: str, done: int, total: int) -> None:
    del stage, done, total


def verify(
    store: Store,
    *,
    read_data: bool = False,
    bucket: str | None = None,
    on_progress: Callable[[str, int, int], None] = _ignore,
) -> Report:
    """Check the store, or what one bucket's objects need. Blocking, for as long as reading all packs takes.

    `read_data`: decode every chunk and recompute its id; compare objects whose name is their SHA-256 with it. With
    `bucket` and without `read_data` no data is read at all. `on_progress`: stage, done, total (0: not known).
    Raises NoSuchBucket, KvError.
    """
    began = time.monotonic()
    report = Report(read_data, bucket)
    job = _Verification(store, report, on_progress)
    if bucket is None:
        job.check_store()
    else:
        job.check_bucket(bucket)
    report.seconds = time.monotonic() - began
    return report


class _Verification:
    def __init__(self, store: Store, report: Report, on_progress: Callable[[str, int, int], None]) -> None:
        self._store = store
        self._report = report
        self._findings = Findings(report)
        self._show = on_progress
        self._ticked = time.monotonic()
        self._rows_noted: set[tuple[str, bytes]] = set()
        self._damaged_reads = 0  # how often a damaged value was met, noted before or not
        self._kv = TolerantMap(store.kv, self._note_damaged_row)

    def _on_progress(self, stage: str, done: int, total: int) -> None:
        """Called all the time: collection is told, too, how far this process has come with its operations."""
        now = time.monotonic()
        if now - self._ticked > TICK_SECONDS:
            self._ticked = now
            self._store.run_file.tick()
        self._show(stage, done, total)

    def check_store(self) -> None:
        self._stage("metadata", self._check_engine)
        self._stage("names", self._check_names)
        packs = PackVerification(
            self._store,
            self._kv,
            self._findings,
            read_data=self._report.read_data,
            on_progress=self._on_progress,
        )
        self._stage("packs", packs.run)
        self._stage("objects", lambda: self._check_objects(self._buckets(), read_chunks=False))

    def check_bucket(self, name: str) -> None:
        found = [bucket for bucket in self._buckets() if bucket.name == name]
        if not found:
            raise NoSuchBucket(name)
        self._stage("names", lambda: self._check_bucket_rows(found[0]))
        self._stage("objects", lambda: self._check_objects(found, read_chunks=self._report.read_data))

    def _stage(self, name: str, run: Callable[[], None]) -> None:
        """One stage that cannot go on leaves the others alone."""
        self._on_progress(name, 0, 0)
        try:
            run()
        except ViewDamaged as error:
            self._findings.add(Finding("view", f"LMDB gives up while {name} are checked: {error}"))
        except StorePoisoned:
            raise
        except (CasError, NamesError, KvError) as error:
            self._report.skipped.append(f"{name}: {error}")

    # --- metadata ---------------------------------------------------------------------------------------------

    def _check_engine(self) -> None:
        directory, store_id = self._store.directory, self._store.identity.store_id
        with self._store.kv.snapshot() as reader:
            sequence = reader.sequence
        sound, damage = check_checkpoints(directory, store_id)
        for each in damage:
            self._add_engine_damage(each)
        broken = None
        try:
            broken = check_journal(directory, store_id, sound, sequence)
            if broken is not None:
                self._add_engine_damage(broken)
            for each in compare(self._store.kv, directory, store_id, sound):
                self._add_engine_damage(each)
        except NotComparable as error:
            if broken is None:
                self._report.skipped.append(str(error))
            with self._store.kv.snapshot() as reader:
                for each in damaged_rows(reader, TABLES):
                    self._add_engine_damage(each)

    def _add_engine_damage(self, damage: EngineDamage) -> None:
        if damage.table is None or damage.key is None:
            path = None if damage.path is None else str(damage.path)
            self._findings.add(Finding(damage.kind, damage.reason, path=path, table=damage.table))
            return
        self._add_row(damage.kind, damage.reason, damage.table, damage.key, damage.truth)

    def _note_damaged_row(self, table: str, key: bytes) -> None:
        """Met on the way, by whoever reads; the comparison has mostly found it before."""
        self._damaged_reads += 1
        reason = f"table {table}, row {key.hex()}: the value does not match its checksum"
        self._add_row("row-damaged", reason, table, key, None)

    def _add_row(self, kind: str, reason: str, table: str, key: bytes, truth: bytes | None) -> None:
        if (table, key) in self._rows_noted:
            return
        self._rows_noted.add((table, key))
        pack = decode_id(key) if table == PACKS and len(key) == 8 else None
        chunks = (key,) if table == PLACEMENTS else ()
        finding = self._findings.add(Finding(kind, reason, pack, table=table, row=key, chunks=chunks))
        self._findings.doubt_chunks(chunks, finding)
        affected = self._object_of(table, key, truth) if table in _KEY_TABLES else None
        if affected is not None:
            self._findings.blame(finding, affected)

    def _object_of(self, table: str, row: bytes, truth: bytes | None) -> Affected | None:
        """Whose row it is, as far as can be told."""
        with self._store.kv.snapshot() as reader:
            try:
                key = key_of_row(reader, table, row)
                names = {bucket.id: bucket.name for bucket in buckets_of(reader)}
                record = None if truth is None else ObjectRecord.decode(truth)
            except (KvError, NamesError):
                return None
        if key is None:
            return None
        unknown = "null" if table == OBJECTS else "unknown"
        version_id = None if record is None else record.version_id
        version = unknown if version_id is None else version_id.hex()
        if record is not None and version_id is None:
            version = "null"
        bucket_id = decode_id(row[:8])
        return Affected(names.get(bucket_id, f"bucket {bucket_id}"), key, version)

    # --- names ------------------------------------------------------------------------------------------------

    def _buckets(self) -> list[BucketRecord]:
        with self._kv.snapshot() as reader:
            return buckets_of(reader)

    def _check_names(self) -> None:
        with self._kv.snapshot() as reader:
            for damage in check_buckets(reader):
                self._add_name_damage(damage, None)
        for bucket in self._buckets():
            self._check_bucket_rows(bucket)
        self._check_keys()

    def _check_bucket_rows(self, bucket: BucketRecord) -> None:
        def on_rows(count: int) -> None:
            self._report.rows += count
            self._on_progress("names", self._report.rows, 0)

        before = self._damaged_reads
        with self._kv.snapshot() as reader:
            now = next((found for found in buckets_of(reader) if found.id == bucket.id), None)
            if now is None:
                return  # deleted meanwhile
            damage = list(BucketCheck(reader, now, on_rows).run())
        if self._damaged_reads > before:
            # Rows that could not be read are missing in the sums: that is said already.
            damage = [each for each in damage if each.row != encode_id(bucket.id)]
        for each in damage:
            self._add_name_damage(each, now)

    def _add_name_damage(self, damage: NameDamage, bucket: BucketRecord | None) -> None:
        where = damage.table if bucket is None else f"bucket {bucket.name}, {damage.table}"
        affected = None
        if bucket is not None and damage.key is not None:
            version_id = None if damage.version is None else damage.version.version_id
            affected = Affected(bucket.name, damage.key, "null" if version_id is None else version_id.hex())
            where = f"{where}, {affected}"
        finding = Finding("names", f"{where}: {damage.reason}", table=damage.table, row=damage.row)
        self._findings.add(finding)
        if affected is not None:
            self._findings.blame(finding, affected)

    def _check_keys(self) -> None:
        """Access keys: every row decrypts under `secret.key`."""
        with self._kv.snapshot() as reader:
            names = [row.decode("ascii", "replace") for row, _ in reader.scan(KEYS_TABLE)]
            if not names:
                return
            try:
                keyring = Keyring.load(self._store.directory, reader)
            except SecretKeyError as error:
                self._findings.add(Finding("secret-key", str(error)))
                return
            for name in names:
                try:
                    keyring.lookup(reader, name)
                except (AccessError, SecretKeyError) as error:
                    self._findings.add(Finding("access-key", str(error), table=KEYS_TABLE, row=name.encode()))

    # --- objects ----------------------------------------------------------------------------------------------

    def _check_objects(self, buckets: list[BucketRecord], *, read_chunks: bool) -> None:
        objects = ObjectVerification(
            self._store,
            self._kv,
            self._findings,
            read_chunks=read_chunks,
            end_to_end=self._report.read_data,
            on_progress=self._on_progress,
        )
        for bucket in buckets:
            objects.run(bucket)
