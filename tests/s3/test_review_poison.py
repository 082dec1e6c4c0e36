"""A poisoned store (a failed sync of its metadata): all processes start anew, whoever else has the directory open."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.s3.conftest import make_caller
from tests.s3.harness import REPOSITORY

# What a command does while it works: it has the store open, so nobody can be alone to recover it.
_COMMAND = """
import pathlib, sys
from vaultaire.store import Store
with Store.open(pathlib.Path(sys.argv[1]), kind="command"):
    print("open", flush=True)
    sys.stdin.read()
"""


def wait_for_put(server, caller, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert server.alive(), server.log_text()
        try:
            if caller.call("PUT", "/poisoned/again", body=b"again").status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"no PUT succeeded in {seconds} s:\n{server.log_text()}")


def test_a_poisoned_store_is_recovered_even_if_a_command_has_it_open_for_a_while(new_server, rng):
    with new_server("--grace", "2", workers=2) as server:
        caller, body = make_caller(server), rng.randbytes(100_000)
        caller.call("PUT", "/poisoned")
        assert caller.call("PUT", "/poisoned/before", body=body).status == 200
        command = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, str(server.data)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert command.stdout.readline() == b"open\n"
            (server.data / "run" / "poisoned").write_text("injected\n")
            assert caller.call("PUT", "/poisoned/k", body=body).status == 503
            time.sleep(4)  # longer than a start: the workers have found that they cannot recover
            assert server.alive(), server.log_text()
        finally:
            command.communicate(b"", timeout=20)
        wait_for_put(server, caller, 20)
        assert caller.call("GET", "/poisoned/before").body == body
        assert not (server.data / "run" / "poisoned").exists()
