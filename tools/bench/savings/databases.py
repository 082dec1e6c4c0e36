"""Databases between changes: dumps of MySQL and PostgreSQL, written as these programs write them, and a SQLite file."""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING

from tools.bench.savings.corpus import MIB, Corpus, Site, seed
from tools.bench.savings.words import Words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAYS = 6
CHANGED, DELETED, ADDED = 0.005, 0.001, 0.01  # of the rows, each day
Row = tuple[int, int, str, str, str, str, str]  # id, customer, name, address, amount, time, note


def _row(number: int, rng: random.Random, words: Words) -> Row:
    name = words.name(rng)
    return (
        number,
        rng.randrange(20_000),
        name,
        f"{name.lower().replace(' ', '.')}{rng.randrange(100)}@{words.word(rng)}.example",
        f"{rng.lognormvariate(3, 1):.2f}",
        f"2026-{1 + number // 300_000 % 12:02}-{1 + number // 10_000 % 28:02} "
        f"{number // 400 % 24:02}:{number // 7 % 60:02}:{rng.randrange(60):02}",
        words.sentence(rng, rng.randint(2, 16)),
    )


def _days(limit_bytes: int, name: str) -> Iterator[list[Row]]:
    """The rows in the order of their key, day after day. New orders come at the end, changes are mostly recent."""
    rng, words = random.Random(seed(name)), Words(seed(name))
    rows = [_row(number, rng, words) for number in range(limit_bytes // 170)]
    number = len(rows)
    for _ in range(DAYS):
        yield rows
        for _ in range(int(len(rows) * CHANGED)):
            at = int(len(rows) * (1 - rng.random() ** 2))
            at = min(at, len(rows) - 1)
            old = rows[at]
            rows[at] = (*old[:4], f"{rng.lognormvariate(3, 1):.2f}", old[5], words.sentence(rng, 6))
        gone = set(rng.sample(range(len(rows)), int(len(rows) * DELETED)))
        rows = [row for at, row in enumerate(rows) if at not in gone]
        added = range(number, number + int(len(rows) * ADDED))
        rows += [_row(n, rng, words) for n in added]
        number = added.stop


def _mysql(row: Row) -> bytes:
    number, customer, name, mail, amount, at, note = row
    return f"({number},{customer},'{name}','{mail}',{amount},'{at}','{note}')".encode()


def _dump(site: Site, insert_bytes: int) -> Iterator[None]:
    head = b"-- MySQL dump 10.19\nDROP TABLE IF EXISTS `orders`;\nLOCK TABLES `orders` WRITE;\n"
    start = b"INSERT INTO `orders` VALUES "
    for rows in _days(site.size(26), "mysql"):
        with open(site.folder / "shop.sql", "wb") as dump:
            dump.write(head)
            held: list[bytes] = []
            size = 0
            for row in map(_mysql, rows):
                if held and size + len(row) > insert_bytes:
                    dump.write(start + b",".join(held) + b";\n")
                    held, size = [], 0
                held.append(row)
                size += len(row) + 1
            dump.write(start + b",".join(held) + b";\nUNLOCK TABLES;\n")
        yield


def mysqldump(site: Site) -> Iterator[None]:
    yield from _dump(site, MIB)


def mysqldump_rows(site: Site) -> Iterator[None]:
    yield from _dump(site, 0)


def pg_dump(site: Site) -> Iterator[None]:
    """COPY text. PostgreSQL writes a changed row elsewhere in its heap, so a dump has it at a free place or at the end."""
    rng = random.Random(seed("heap"))
    order: list[int] = []
    before: dict[int, Row] = {}
    for rows in _days(site.size(28), "postgres"):
        now = {row[0]: row for row in rows}
        moved = [key for key, row in now.items() if before.get(key) != row]
        keep = {key for key, row in now.items() if before.get(key) == row}
        free = [at for at, key in enumerate(order) if key not in keep]
        for at in free:
            order[at] = moved.pop() if moved and rng.random() < 0.7 else -1
        order = [key for key in order if key >= 0] + sorted(moved)
        with open(site.folder / "shop.dump.sql", "wb") as dump:
            dump.write(b"COPY public.orders (id, customer, name, mail, amount, at, note) FROM stdin;\n")
            dump.writelines(("\t".join(map(str, now[key])) + "\n").encode() for key in order)
            dump.write(b"\\.\n")
        yield
        before = now


def sqlite(site: Site) -> Iterator[None]:
    """The file of a database with two indexes, changed in place and closed before it is stored."""
    before: dict[int, Row] = {}
    path = site.folder / "shop.sqlite"
    for rows in _days(site.size(16), "sqlite"):
        now = {row[0]: row for row in rows}
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA journal_mode = DELETE")
            database.execute(
                "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, customer, name, mail, amount, at, note)"
            )
            database.execute("CREATE INDEX IF NOT EXISTS by_customer ON orders (customer)")
            database.execute("CREATE INDEX IF NOT EXISTS by_mail ON orders (mail)")
            database.executemany(
                "DELETE FROM orders WHERE id = ?", [(key,) for key in before.keys() - now.keys()]
            )
            changed = [row for key, row in now.items() if before.get(key) != row]
            database.executemany("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", changed)
        database.close()
        yield
        before = now


def _corpus(name: str, about: str, versions: Callable[[Site], Iterator[None]]) -> Corpus:
    return Corpus(name, f"{about}, {DAYS} days", versions)


CORPORA = (
    _corpus("mysqldump", "dump with INSERTs of 1 MiB", mysqldump),
    _corpus("mysqldump-rows", "dump with an INSERT for each row", mysqldump_rows),
    _corpus("pg-dump", "COPY text as pg_dump writes it", pg_dump),
    _corpus("sqlite", "a SQLite file with two indexes", sqlite),
)
