"""Fuzz one parser, or all of them: `python -m tools.fuzz TARGET [--seconds S] [--seed N] [--record]`.

With atheris installed (libFuzzer: coverage-guided), it is used; else, or with `--own`, the engine beside this file.
What is found is made smaller and kept in tools/fuzz/corpus/TARGET, which the tests replay; the exit status is 1 then.
`python -m tools.fuzz all --seconds 60` goes through every target.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash import results
from tools.fuzz import engine
from tools.fuzz.targets import CORPUS, TARGETS

if TYPE_CHECKING:
    from tools.fuzz.targets import Target

CHILD = "tools.fuzz.atheris_child"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("--seconds", type=float, default=60.0, help="per target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--own", action="store_true", help="without atheris, even if it is there")
    parser.add_argument("--record", action="store_true", help="append a row to tests/crash/RESULTS.md")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what a parser has to say about rubbish
    names = list(TARGETS) if options.target == "all" else [options.target]
    use_atheris = not options.own and importlib.util.find_spec("atheris") is not None
    status = 0
    for name in names:
        target = TARGETS[name]
        run = run_atheris if use_atheris else run_own
        inputs, finding = run(target, options.seconds, options.seed)
        print(
            f"{name}: {inputs:,} inputs" + ("" if finding is None else f", FINDING: {finding.problem}"),
            flush=True,
        )
        if finding is not None:
            status = 1
            print(f"kept as {keep(target, finding)}", flush=True)
        if options.record:
            command = f"python -m tools.fuzz {name} --seconds {options.seconds:g} --seed {options.seed}"
            counts = f"{inputs:,} inputs ({'atheris' if use_atheris else 'own engine'})"
            seeds = range(options.seed, options.seed + 1)
            results.record(results.Run(f"fuzz {name}", seeds, counts, int(finding is not None), command))
    return status


def run_own(target: Target, seconds: float, seed: int) -> tuple[int, engine.Finding | None]:
    outcome = engine.fuzz(target, target.corpus(), seed, seconds=seconds)
    return outcome.inputs, outcome.finding


def run_atheris(target: Target, seconds: float, seed: int) -> tuple[int, engine.Finding | None]:
    """In a process of its own: libFuzzer ends its process."""
    with tempfile.TemporaryDirectory(prefix="vaultaire-fuzz-") as folder:
        corpus, found = Path(folder) / "corpus", Path(folder) / "found"
        corpus.mkdir()
        found.mkdir()
        for number, data in enumerate(target.corpus()):
            (corpus / str(number)).write_bytes(data)
        words = Path(folder) / "words"
        escaped = ["".join(f"\\x{byte:02x}" for byte in word) for word in target.words]
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        command = [sys.executable, "-m", CHILD, target.name, str(corpus), f"-max_total_time={int(seconds)}"]
        command += [f"-seed={seed}", f"-artifact_prefix={found}/", f"-dict={words}", "-timeout=20"]
        command += ["-rss_limit_mb=1024", f"-max_len={engine.MAX_BYTES}", "-print_final_stats=1"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        counts = re.findall(r"stat::number_of_executed_units: *(\d+)|#(\d+)\s", done.stderr)
        inputs = max((int(a or b) for a, b in counts), default=0)
        files = sorted(found.iterdir())
        if not files and done.returncode == 0:
            return inputs, None
        data = files[0].read_bytes() if files else b""
        return inputs, engine.Finding(data, engine.run(target, data) or done.stderr[-2000:])


def keep(target: Target, finding: engine.Finding) -> Path:
    """Into the corpus, made smaller."""
    data = engine.smaller(target, finding) if engine.run(target, finding.data) else finding.data
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:12]
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    sys.exit(main())
