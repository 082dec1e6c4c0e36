"""Damage on disk: wrong bytes are never served, and damaged metadata is rebuilt without anybody's help."""

import time

import pytest

from tests.s3.conftest import make_caller


def flip_everywhere(path, needle, *, step=1):
    """Flip a bit in every copy of `needle` in the file."""
    data = bytearray(path.read_bytes())
    position = data.find(needle)
    assert position >= 0
    while position >= 0:
        data[position] ^= 1
        position = data.find(needle, position + step)
    with open(path, "r+b") as file:
        file.write(data)


def test_a_flipped_byte_in_a_pack_is_never_served(new_server, rng):
    with new_server("--parity", "0") as server:
        caller = make_caller(server)
        assert caller.call("PUT", "/bucket").status == 200
        body = rng.randbytes(300_000)
        assert caller.call("PUT", "/bucket/k", body=body).status == 200
        server.stop()
        packs = sorted((server.data / "packs").glob("*/*.pack"))
        flip_everywhere(next(pack for pack in packs if body[1000:1032] in pack.read_bytes()), body[1000:1032])
        server.start()
        caller = make_caller(server)
        answer = caller.call("GET", "/bucket/k")
        assert answer.status == 500
        assert b"InternalError" in answer.body
        assert caller.call("HEAD", "/bucket/k").status == 200
        assert caller.call("PUT", "/bucket/other", body=b"x").status == 200


@pytest.mark.subset
def test_damaged_metadata_is_rebuilt_from_the_journal_while_serving(new_server, rng):
    with new_server() as server:
        caller = make_caller(server)
        assert caller.call("PUT", "/bucket").status == 200
        value = rng.randbytes(2000)
        assert caller.call("PUT", "/bucket/inline", body=value).status == 200
        server.stop()
        flip_everywhere(server.data / "meta" / "data.mdb", value[500:532])
        server.start()
        deadline = time.monotonic() + 90
        seen = set()
        while time.monotonic() < deadline:
            try:
                answer = make_caller(server).call("GET", "/bucket/inline")
            except OSError:
                continue  # all processes are being started again
            seen.add(answer.status)
            if answer.status == 200:
                break
            assert answer.status in (500, 503)
        assert answer.body == value
        assert 500 in seen
