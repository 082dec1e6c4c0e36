"""`python -m tools.bench.savings [--only NAME ...] [--scale S] [--prefixes POLICY] [--recompress] [--peers PEER ...] [--policy NAME=VALUE ...]`.

Every corpus goes version after version into a new server, through S3, and into each peer; then the server is stopped, what can be
collected is collected, and `stored_bytes` of `vaultaire stats` (packs and database, metadata included) is held against the peers'
files. Prints a table in Markdown: logical / stored of each store, ours / best peer, chunks per MiB of unique data, and
CPU seconds per GB of logical data. Needs restic, borg (Debian: borgbackup), git, mkfs.ext4, and 1 GB of disk in `--work`.

Exit status 1 if a floor is not reached (see `table`), 2 if a peer or what a corpus is made from is missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench.savings import binaries, databases, records, stores, table, trees
from tools.bench.savings.corpus import Corpus, Site
from tools.bench.savings.table import OURS, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

CORPORA = {c.name: c for c in (*trees.CORPORA, *databases.CORPORA, *records.CORPORA, *binaries.CORPORA)}


def main() -> int:
    arguments = _parse()
    missing = []
    peers = []
    for peer in arguments.peers:
        try:
            print(f"{peer}: {stores.version_of(peer)}")
            peers.append(peer)
        except FileNotFoundError as error:
            missing.append(f"{peer}: {error}")
    rows: list[Row] = []
    print(*table.header([OURS, *peers]), sep="\n", flush=True)
    for name in arguments.only:
        try:
            rows.append(_measure(CORPORA[name], arguments, peers))
        except FileNotFoundError as error:
            missing.append(f"{name}: {error}")
        else:
            print(table.line(rows[-1]), flush=True)
            _write(rows, arguments)
    failed = table.failures(rows, arguments.floor, complete={r.corpus.name for r in rows} == set(CORPORA))
    _conclude(rows, failed, missing)
    _write(rows, arguments)
    return 2 if missing else 1 if failed else 0


def _write(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """After each row: a run that is broken off keeps what it has."""
    if arguments.json is not None:
        whole = {
            "scale": arguments.scale,
            "prefixes": arguments.prefixes,
            "recompress": arguments.recompress,
            "policy": arguments.policy,
            "mean": table.geometric_mean(rows),
        }
        arguments.json.write_text(
            json.dumps(whole | {"rows": [table.to_json(row) for row in rows]}, indent=1)
        )


def _conclude(rows: Sequence[Row], failed: Sequence[str], missing: Sequence[str]) -> None:
    if rows:
        lowest = min(rows, key=lambda row: row.gain)
        print(f"\ngeometric mean of ours / best peer: {table.geometric_mean(rows):.3f}")
        print(f"lowest: {lowest.corpus.name}, {lowest.gain:.3f}")
        print(f"took {sum(row.seconds for row in rows):.0f} s")
    for line in failed:
        print(f"not reached: {line}")
    for line in missing:
        print(f"not run: {line}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.savings", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=CORPORA, default=list(CORPORA), metavar="NAME", help=", ".join(CORPORA)
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the corpora's sizes; 1: about 100 to 200 MB each"
    )
    parser.add_argument(
        "--peers", nargs="*", choices=stores.PEERS, default=list(stores.PEERS), metavar="PEER"
    )
    parser.add_argument(
        "--policy", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the server"
    )
    parser.add_argument("--prefixes", choices=table.MEAN_FLOORS, default="auto", help="of the bucket")
    parser.add_argument(
        "--recompress", action="store_true", help="`vaultaire gc --recompress` and `rebuild` at the end"
    )
    parser.add_argument("--floor", type=float, help="for the mean of ours / best peer")
    parser.add_argument(
        "--git", type=Path, default=Path(), help="a repository with history (default: this one)"
    )
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--work", type=Path, help="where to put the data (default: the temporary folder)")
    arguments = parser.parse_args()
    if arguments.floor is None:
        arguments.floor = table.MEAN_FLOORS[arguments.prefixes]
    arguments.policy = dict(setting.split("=", 1) for setting in arguments.policy)
    return arguments


def _measure(corpus: Corpus, arguments: argparse.Namespace, peers: Sequence[str]) -> Row:
    work = Path(tempfile.mkdtemp(prefix="vaultaire-savings-", dir=arguments.work))
    try:
        return measure(corpus, work, peers, arguments)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def measure(corpus: Corpus, work: Path, peers: Sequence[str], arguments: argparse.Namespace) -> Row:
    """Store all versions in ours and in the peers, side by side, over folders below `work`."""
    site = Site(work / "versions", work / "scratch", arguments.git, arguments.scale)
    site.folder.mkdir()
    site.scratch.mkdir()
    row = Row(corpus)
    began = time.monotonic()
    with ExitStack() as ending:
        compared: dict[str, stores.Store] = {}
        compared[OURS] = stores.Vaultaire(
            work, arguments.policy, arguments.prefixes, recompress=arguments.recompress
        )
        compared.update({name: stores.PEERS[name](work) for name in peers})
        for store in compared.values():
            ending.callback(store.end)
        pool = ending.enter_context(ThreadPoolExecutor(len(compared)))
        for version, _ in enumerate(corpus.versions(site)):
            row.versions += 1
            row.logical_bytes += sum(p.stat().st_size for p in site.folder.rglob("*") if p.is_file())
            adding = [pool.submit(store.add, site.folder, version) for store in compared.values()]
            for each in adding:
                each.result()
        row.stored = {name: store.close() for name, store in compared.items()}
    row.seconds = time.monotonic() - began
    return row


if __name__ == "__main__":
    sys.exit(main())
