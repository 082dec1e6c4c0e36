"""A running server over a damaged disk: right bytes, mended later; or an honest error, healed by an upload."""

import time
from contextlib import suppress

import pytest

from tests.s3.conftest import make_caller

SECONDS = 60.0  # a hang is a failure; all of this takes about two


def wait_for(condition) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def filled(server, body: bytes):
    """One object in a sealed pack. The pack's path."""
    caller = make_caller(server)
    assert caller.call("PUT", "/bucket").status == 200
    assert caller.call("PUT", "/bucket/k", body=body).status == 200
    server.stop()  # seals
    server.start()
    return next(
        pack for pack in (server.data / "packs").glob("*/*.pack") if body[1000:1032] in pack.read_bytes()
    )


def overwrite(path, offset: int, length: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        old = file.read(length)
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in old))


@pytest.mark.subset
@pytest.mark.parametrize("length", [1, 60_000], ids=["flip", "burst"])
def test_damage_under_a_running_server_is_made_good_and_mended(new_server, rng, length):
    with new_server("--scrub-days", "0") as server:  # a read has to find it
        body = rng.randbytes(900_000)
        pack = filled(server, body)
        wait_for(pack.with_suffix(".parity").exists)
        clean = pack.read_bytes()
        overwrite(pack, clean.index(body[400_000:400_032]), length)
        assert pack.read_bytes() != clean
        answer = make_caller(server).call("GET", "/bucket/k")
        assert answer.status == 200
        assert answer.body == body
        wait_for(lambda: pack.read_bytes() == clean)
        assert make_caller(server).call("GET", "/bucket/k").body == body
        assert "will be mended" in server.log_text()


@pytest.mark.subset
def test_without_parity_an_upload_heals(new_server, rng):
    with new_server("--parity", "0") as server:
        body = rng.randbytes(900_000)
        pack = filled(server, body)
        clean = pack.read_bytes()
        overwrite(pack, clean.index(body[400_000:400_032]), 60_000)
        caller = make_caller(server)
        received = b""
        with suppress(OSError, EOFError):  # damage behind the first window ends the connection
            answer = caller.call("GET", "/bucket/k")
            received = answer.body if answer.status == 200 else b""
        assert body.startswith(received)
        assert len(received) < len(body)
        assert not list((server.data / "packs").glob("*/*.parity"))
        caller = make_caller(server)
        assert caller.call("PUT", "/bucket/other", body=body).status == 200
        assert caller.call("GET", "/bucket/other").body == body
        assert caller.call("GET", "/bucket/k").body == body
        assert "are lost" in server.log_text()
