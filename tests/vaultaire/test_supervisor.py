"""The supervisor: what it decides, and that real processes are replaced, stopped and never left behind."""

from __future__ import annotations

import errno
import signal
import socket
import time

import pytest

from tests.front.harness import Front, eventually, is_alive, kill
from vaultaire import supervisor
from vaultaire.child import EX_CONFIG, EX_TEMPFAIL, Orders
from vaultaire.config import ServeConfig
from vaultaire.supervisor import STEADY_SECONDS, Child, Verdict, bind, judge_end, pause_before_start

GRACE_SECONDS = 2.0


@pytest.fixture
def start(tmp_path):
    def start_front(*arguments, workers=1, port=0):
        config = ServeConfig(data=tmp_path, port=port, workers=workers, grace_seconds=GRACE_SECONDS)
        return Front(config, None, *arguments)

    return start_front


# -- decisions


@pytest.mark.parametrize(
    ("essential", "was_ready", "failures", "serving", "exit_code", "verdict"),
    [
        (True, True, 0, True, -signal.SIGKILL, Verdict.START_AGAIN),
        (True, True, 99, True, 1, Verdict.START_AGAIN),
        (True, True, 0, True, EX_TEMPFAIL, Verdict.RESTART_ALL),
        (False, False, 0, True, EX_TEMPFAIL, Verdict.RESTART_ALL),
        (True, False, 0, False, EX_CONFIG, Verdict.GIVE_UP),
        (True, False, 0, False, 1, Verdict.START_AGAIN),
        (True, False, 2, False, 1, Verdict.GIVE_UP),
        (True, True, 2, False, 1, Verdict.START_AGAIN),
        (True, False, 2, True, EX_CONFIG, Verdict.START_AGAIN),
        (False, False, 9, False, EX_CONFIG, Verdict.START_AGAIN),
    ],
)
def test_server_gives_up_only_if_it_cannot_be_started(
    essential, was_ready, failures, serving, exit_code, verdict
):
    child = Child("m", essential, failures=failures, was_ready=was_ready)
    assert judge_end(child, exit_code, serving=serving) is verdict


def test_first_restart_is_immediate_and_none_of_a_worker_waits_a_second():
    child = Child("m", essential=True)
    pauses = [pause_before_start(child, 0.1) for _ in range(9)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] < 1
    assert pause_before_start(child, STEADY_SECONDS) == 0


def test_orders_survive_the_pipe(tmp_path):
    orders = Orders(ServeConfig(data=tmp_path, tls_cert=tmp_path / "c"), "a:b", (3, 4), 5, 6)
    line = orders.to_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert Orders.from_line(line) == orders


# -- the port


def test_port_that_is_freed_in_time_is_taken(monkeypatch):
    holder = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(supervisor, "BIND_PAUSE_SECONDS", 0)
    monkeypatch.setattr(supervisor.time, "sleep", lambda _: holder.close())
    (sock,) = bind("127.0.0.1", holder.getsockname()[1])
    sock.close()


def test_port_that_stays_taken_is_named(monkeypatch):
    monkeypatch.setattr(supervisor, "BIND_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}") as caught:
            bind("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE


def test_every_address_of_a_name_gets_the_same_port():
    sockets = bind("localhost", 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
    finally:
        for sock in sockets:
            sock.close()


# -- processes


def test_killed_worker_is_replaced_while_requests_go_on(start):
    with start("tests.front.maintenance", workers=2) as front:
        before = front.all_children(3)
        victim = int(front.get("/process").body)
        kill(victim)
        for _ in range(20):
            assert front.get("/plain").status == 200
        eventually(lambda: len(front.children() - before) == 1)
        code, seconds = front.stop()
        assert code == 0
        assert seconds < GRACE_SECONDS
        assert "start it again" in front.log()


def test_killed_maintenance_process_is_replaced(start):
    with start("tests.front.maintenance") as front:
        worker = int(front.get("/process").body)
        (maintenance,) = front.all_children(2) - {worker}
        kill(maintenance)
        eventually(lambda: front.children() - {worker, maintenance})
        assert int(front.get("/process").body) == worker


def test_poisoned_store_restarts_every_process(start):
    with start("tests.front.maintenance") as front:
        before, port = front.all_children(2), front.port
        front.get(f"/stop?code={EX_TEMPFAIL}")
        assert front.wait_ready().port == port
        assert not front.all_children(2) & before


def test_killed_supervisor_takes_everything_along_and_the_port_is_free_again(start):
    with start("tests.front.maintenance", workers=2) as front:
        children = front.all_children(3)
        kill(front.process.pid)
        with start(workers=1, port=front.port) as second:
            assert second.get("/plain").status == 200
        eventually(lambda: not any(map(is_alive, children)))


@pytest.mark.parametrize("app", ["build_broken", "build_raising"])
def test_server_whose_app_cannot_start_ends_with_its_message(start, app):
    front = start("", f"tests.front.app:{app}")
    with pytest.raises(AssertionError, match="the disk is not there"), front:
        pass  # it must not come to this
    assert front.process.returncode == EX_CONFIG


def test_second_signal_kills(start):
    with start() as front, front.connect() as client:
        client.send("GET /slow?seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: front.get("/connections").body == b"2")
        begin = time.monotonic()
        front.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        front.stop(signal.SIGINT)
        assert time.monotonic() - begin < GRACE_SECONDS
