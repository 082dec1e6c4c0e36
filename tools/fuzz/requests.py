"""Fuzz a server with S3 requests from the grammar: `python -m tools.fuzz.requests --minutes 30`.

Starts a server of its own over a temporary directory. The first request that is answered with 500, not answered, or
leaves its connection out of step ends the run: it is made as small as possible and written to tests/s3/corpus, where
the tests replay it from then on. The exit code is 1 then. A run is repeated by its --seed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from tests.s3.conftest import make_caller
from tests.s3.grammar import hunt
from tests.s3.harness import REPOSITORY, Server

CORPUS = REPOSITORY / "tests" / "s3" / "corpus"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz.requests", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--seed", type=int, default=0, help="where the run begins; another one finds other things"
    )
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="vaultaire-fuzz-") as directory,
        Server(Path(directory) / "data", workers=arguments.workers) as server,
    ):
        count, finding = hunt(make_caller(server), arguments.minutes * 60, arguments.seed * 1_000_000)
        said = server.log_text()
    print(f"{count:,} requests")
    if finding is None and "Traceback" not in said:
        return 0
    print(said[-4000:], file=sys.stderr)
    if finding is not None:
        text = finding.draft.to_json() + "\n"
        path = CORPUS / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        path.write_text(text)
        print(f"{finding.problem}: kept as {path.relative_to(REPOSITORY)}\n{text}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
