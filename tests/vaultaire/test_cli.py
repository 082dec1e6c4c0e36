"""The command line as operators and scripts meet it: what it prints, what it makes, how it fails."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pty
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cas.support import noise
from tests.vaultaire.verify_support import Client
from vaultaire import supervisor
from vaultaire.access import Keyring
from vaultaire.cli import main
from vaultaire.cli.endpoint import Endpoint, plan_endpoint, read_endpoint, url_of
from vaultaire.cli.options import ByteSize, Duration
from vaultaire.cli.output import binary_size
from vaultaire.config import MIB, ServeConfig
from vaultaire.config_settings import default_workers
from vaultaire.config_values import parse_address
from vaultaire.parity import parity_percent
from vaultaire.store import Store

PROGRAM = (sys.executable, "-m", "vaultaire")


class FakeSupervisor:
    """Serves nobody: it is ready at once on `port`, or fails as told. Real ones run at the end of this file."""

    def __init__(self) -> None:
        self.configs = []
        self.error = None
        self.port = None
        self.times_ready = 1

    def run(self, config, *, prepare, on_ready):
        if self.error is not None:
            raise self.error
        prepare()
        self.configs.append(config)
        for _ in range(self.times_ready):
            on_ready("127.0.0.1", self.port or config.port)
        return 0


@pytest.fixture
def served(monkeypatch):
    fake = FakeSupervisor()
    monkeypatch.setattr(supervisor, "run", fake.run)
    return fake


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("VAULTAIRE_", "AWS_")):
            monkeypatch.delenv(name)


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def vaultaire(*arguments, env=None, status=0):
    """Run a command in this process; its result, once the exit status is as expected."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def running(served, data):
    """A store after its first start."""
    vaultaire("serve", "--data", data)
    return data


def exported(text):
    """The variables that a shell would have after `eval`."""
    words = [shlex.split(line) for line in text.splitlines()]
    assert all(len(line) == 2 and line[0] == "export" for line in words)
    return dict(line[1].split("=", 1) for line in words)


def root_principal(data):
    with Store.open(data, kind="command") as store, store.kv.snapshot() as reader:
        return Keyring.load(data, reader).root_keys(reader)[0]


def listed(data):
    return {
        row["access_key"]: row
        for row in json.loads(vaultaire("key", "list", "--json", "--data", data).stdout)
    }


# --- values ---


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("192MiB", 192 * MIB),
        ("192M", 192 * MIB),
        ("192m", 192 * MIB),
        ("192 MiB", 192 * MIB),
        ("500MB", 500_000_000),
        ("1.5GiB", 1536 * MIB),
        ("1t", MIB * MIB),
        (str(64 * MIB), 64 * MIB),
        (f"{64 * MIB}B", 64 * MIB),
        ("65536k", 64 * MIB),
    ],
)
def test_sizes_are_read_as_people_write_them(text, count):
    assert ByteSize(MIB)(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "-1MiB", "1 MB MB", "1XiB", "5iB", "0x10", "1MiB"])
def test_what_is_no_size_is_refused(data, text):
    result = vaultaire("serve", "--data", data, f"--memory-budget={text}", status=2)
    assert "192MiB" in result.stderr or "16MiB" in result.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("1.5s", 1.5), ("500ms", 0.5), ("2m", 120.0), ("1H", 3600.0)]
)
def test_times_are_read_as_people_write_them(text, seconds):
    assert Duration()(text) == seconds


@pytest.mark.parametrize("text", ["0", "-1", "soon", "", "nan", "inf", "1w"])
def test_what_is_no_time_is_refused(data, text):
    assert "30s" in vaultaire("serve", "--data", data, f"--grace={text}", status=2).stderr


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("[::1]:9000", ("::1", 9000)),
        ("localhost:0", ("localhost", 0)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_listen_addresses_are_host_and_port(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["9000", ":9000", "localhost", "::1:9000", "[::1]", "[]:1", "h:65536", "h:-1", "h:x", "[h]:1"]
)
def test_what_is_no_listen_address_is_refused_with_examples(data, text):
    result = vaultaire("serve", "--data", data, f"--listen={text}", status=2)
    assert "[::1]:9000" in result.stderr
    assert not data.exists()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (MIB - 1, "1.0 MiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 60, "1024.0 PiB"),
    ],
)
def test_sizes_are_shown_in_binary_units(count, text):
    assert binary_size(count) == text


def test_default_workers_leave_cores_to_the_threads():
    assert 1 <= default_workers() <= max(1, (os.cpu_count() or 1) // 2)


# --- serve ---


def test_first_start_shows_the_secret_once_and_later_ones_never(served, data):
    first = vaultaire("serve", "--data", data)
    root = root_principal(data)
    assert root.access_key in first.stdout
    assert root.secret_key in first.stdout
    later = vaultaire("serve", "--data", data)
    assert root.secret_key not in later.output
    assert f'eval "$(vaultaire env --data {data})"' in later.stdout
    assert root_principal(data) == root


def test_first_start_prints_lines_to_paste_for_each_client(served, data):
    lines = [
        line.strip()
        for line in vaultaire("serve", "--data", data, "--listen", "127.0.0.1:9123").stdout.splitlines()
    ]
    root = root_principal(data)
    url = "http://127.0.0.1:9123"
    exports = next(line for line in lines if line.startswith("export "))
    assert exported(exports.replace(" AWS", "\nexport AWS").replace("export\nexport", "export")) == {
        "AWS_ACCESS_KEY_ID": root.access_key,
        "AWS_SECRET_ACCESS_KEY": root.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
    }
    assert f"aws --endpoint-url {url} s3 mb s3://my-bucket" in lines
    rclone = next(line for line in lines if line.startswith("rclone config create"))
    assert {"provider=Other", "force_path_style=true", "region=us-east-1", f"endpoint={url}"} <= set(
        rclone.split()
    )
    assert f"restic -o s3.bucket-lookup=path -r s3:{url}/my-backup init" in lines


def test_last_line_is_the_one_that_programs_wait_for(served, data):
    for _ in range(2):
        assert (
            vaultaire("serve", "--data", data).stdout.splitlines()[-1]
            == "vaultaire: ready on http://127.0.0.1:9000"
        )


def test_ready_line_and_env_name_the_port_that_was_got(served, data):
    served.port = 4321
    output = vaultaire("serve", "--data", data, "--listen", "[::1]:0").stdout
    assert output.splitlines()[-1] == "vaultaire: ready on http://[::1]:4321"
    assert exported(vaultaire("env", "--data", data).stdout)["AWS_ENDPOINT_URL"] == "http://[::1]:4321"


def test_restart_of_all_workers_shows_the_secret_no_second_time(served, data):
    served.times_ready = 3
    output = vaultaire("serve", "--data", data).stdout
    assert output.count("ready on") == 3
    assert output.count("shown only now") == 1


def test_no_colour_and_no_wrapping_outside_a_terminal(served, data):
    output = vaultaire("serve", "--data", data, env={"COLUMNS": "40"}).stdout
    assert "\x1b" not in output
    assert any(len(line) > 100 for line in output.splitlines())


def test_every_option_reaches_the_supervisor(served, data):
    vaultaire(
        *("serve", "--data", data, "--listen", "[::1]:0", "--workers", 3, "--stall-timeout", "5"),
        *("--head-timeout", "2s", "--grace", "1500ms", "--memory-budget", "64MiB"),
        *("--domain", "S3.Example.org.", "--domain", "localhost", "--domain", "localhost"),
        *("--collection-rate", "8MiB", "--upload-expiry", "1.5", "--parity", "5", "--scrub-days", "0"),
        *("--metrics", "public", "--metrics-buckets", "7", "--access-log", "-", "--audit-log", "off"),
    )
    assert served.configs == [
        ServeConfig(
            *(data, "::1", 0, 3, None, None, 5.0, 2.0, 1.5, 64 * MIB),
            domains=("s3.example.org", "localhost"),
            collection_bytes_per_second=8 * MIB,
            upload_expiry_days=1.5,
            parity_percent=5,
            scrub_days=0.0,
            metrics="public",
            metrics_buckets=7,
            access_log="-",
        )
    ]


def test_parity_is_kept_until_it_is_set_again(served, data):
    def kept():
        with Store.open(data, kind="command") as store, store.kv.snapshot() as reader:
            return parity_percent(reader)

    for arguments, expected in (((), 10), (("--parity", "25"), 25), ((), 25), (("--parity", "0"), 0)):
        vaultaire("serve", "--data", data, *arguments)
        assert kept() == expected


def test_every_option_is_also_an_environment_variable(served, data, tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    settings = {
        "VAULTAIRE_DATA": str(data),
        "VAULTAIRE_LISTEN": "127.0.0.1:9001",
        "VAULTAIRE_WORKERS": "2",
        "VAULTAIRE_STALL_TIMEOUT": "5",
        "VAULTAIRE_HEAD_TIMEOUT": "2",
        "VAULTAIRE_GRACE": "3",
        "VAULTAIRE_MEMORY_BUDGET": "100MiB",
        "VAULTAIRE_DOMAIN": "a.example b.example",
        "VAULTAIRE_COLLECTION_RATE": "1MiB",
        "VAULTAIRE_UPLOAD_EXPIRY": "0",
        "VAULTAIRE_PARITY": "20",
        "VAULTAIRE_SCRUB_DAYS": "30",
        "VAULTAIRE_METRICS": "off",
        "VAULTAIRE_METRICS_BUCKETS": "3",
        "VAULTAIRE_METRICS_TOKEN_FILE": str(token),
        "VAULTAIRE_ACCESS_LOG": str(tmp_path / "access.log"),
        "VAULTAIRE_ACCESS_LOG_FORMAT": "combined",
        "VAULTAIRE_AUDIT_LOG": str(tmp_path / "audit.log"),
    }
    vaultaire("serve", env=settings)
    assert served.configs == [
        ServeConfig(
            *(data, "127.0.0.1", 9001, 2, None, None, 5.0, 2.0, 3.0, 100 * MIB),
            domains=("a.example", "b.example"),
            collection_bytes_per_second=MIB,
            upload_expiry_days=0.0,
            parity_percent=20,
            scrub_days=30.0,
            metrics="off",
            metrics_buckets=3,
            metrics_token_file=token,
            access_log=str(tmp_path / "access.log"),
            access_log_format="combined",
            audit_log=str(tmp_path / "audit.log"),
        )
    ]


@pytest.mark.parametrize("text", ["*.example.org", "host:9000", "127.0.0.1", ""])
def test_a_domain_that_is_none_is_refused(served, data, text):
    assert "is no domain" in vaultaire("serve", "--data", data, f"--domain={text}", status=2).output


def test_a_config_crosses_the_process_border(data):
    config = ServeConfig(data, tls_cert=data / "c", domains=("a.example", "b.example"))
    assert ServeConfig.from_json(config.to_json()) == config


def test_data_directory_is_absolute_and_defaults_to_the_current_folder(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vaultaire("serve")
    assert served.configs[0].data == tmp_path / "vaultaire-data"
    assert served.configs[0].host == "127.0.0.1"


def test_root_key_comes_from_the_environment_and_its_secret_is_not_repeated(served, data):
    chosen = {"VAULTAIRE_ROOT_ACCESS_KEY": "admin", "VAULTAIRE_ROOT_SECRET_KEY": "chosen-secret"}
    output = vaultaire("serve", "--data", data, env=chosen).output
    assert "admin" in output
    assert "chosen-secret" not in output
    assert (root_principal(data).access_key, root_principal(data).secret_key) == ("admin", "chosen-secret")


def test_root_key_from_the_environment_replaces_the_stored_one_and_this_is_logged(served, data, caplog):
    vaultaire("serve", "--data", data)
    first = root_principal(data)
    vaultaire(
        "serve",
        "--data",
        data,
        env={"VAULTAIRE_ROOT_ACCESS_KEY": "admin", "VAULTAIRE_ROOT_SECRET_KEY": "chosen-secret"},
    )
    assert list(listed(data)) == ["admin"]
    assert f"removed: {first.access_key}" in caplog.text
    caplog.clear()
    vaultaire(
        "serve",
        "--data",
        data,
        env={"VAULTAIRE_ROOT_ACCESS_KEY": "admin", "VAULTAIRE_ROOT_SECRET_KEY": "chosen-secret"},
    )
    assert "root key" not in caplog.text


@pytest.mark.parametrize(
    "chosen",
    [
        {"VAULTAIRE_ROOT_ACCESS_KEY": "admin"},
        {"VAULTAIRE_ROOT_SECRET_KEY": "chosen-secret"},
        {"VAULTAIRE_ROOT_ACCESS_KEY": "admin", "VAULTAIRE_ROOT_SECRET_KEY": "short"},
        {"VAULTAIRE_ROOT_ACCESS_KEY": "a/b/c", "VAULTAIRE_ROOT_SECRET_KEY": "chosen-secret"},
    ],
)
def test_half_or_unusable_root_key_stops_the_start_before_anything_is_made(served, data, chosen):
    assert "VAULTAIRE_ROOT_SECRET_KEY" in vaultaire("serve", "--data", data, env=chosen, status=2).stderr
    assert not data.exists()


def test_folder_with_other_things_in_it_is_not_made_a_store(served, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "not empty" in vaultaire("serve", "--data", tmp_path, status=1).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_data_that_is_a_file_or_below_one_is_refused(served, tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert "is a file" in vaultaire("serve", "--data", file, status=2).stderr
    assert "Error: " in vaultaire("serve", "--data", file / "below", status=1).stderr


def test_data_directory_that_may_not_be_written_is_refused(data):
    data.mkdir(mode=0o500)
    command = [*PROGRAM, "serve", "--data", data, "--listen", "127.0.0.1:0"]
    if os.geteuid() == 0:  # root may write everywhere, unless it gives that up
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert str(data) in ended.stderr
    assert "Permission denied" in ended.stderr


def test_serve_refuses_to_start_without_secret_key_and_names_the_way_out(served, running):
    (running / "secret.key").unlink()
    result = vaultaire("serve", "--data", running, status=1)
    assert f"vaultaire key create --root --new-secret-key --data {running}" in result.stderr
    assert len(served.configs) == 1


def test_serve_refuses_to_start_with_a_wrong_secret_key(served, running):
    (running / "secret.key").write_text("11" * 32)
    assert "not the one that belongs" in vaultaire("serve", "--data", running, status=1).stderr


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EADDRINUSE, "choose another port: --listen 127.0.0.1:9001"),
        (errno.EACCES, "choose a port above 1023"),
        (errno.EADDRNOTAVAIL, "0.0.0.0 for all"),
    ],
)
def test_address_that_cannot_be_had_is_explained(served, data, code, advice):
    served.error = OSError(code, os.strerror(code))
    result = vaultaire("serve", "--data", data, status=1)
    assert advice in result.stderr
    assert "127.0.0.1:9000" in result.stderr


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"), ["localhost"])


def make_certificate(folder, names, issuer="vaultaire test"):
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vaultaire test")])
    signer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)])
    start = datetime.datetime(2026, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file


def test_certificate_and_key_belong_together(served, data, certificate):
    for option, file in zip(("--tls-cert", "--tls-key"), certificate, strict=True):
        assert "give both" in vaultaire("serve", "--data", data, option, file, status=2).stderr
    swapped = vaultaire(
        "serve", "--data", data, "--tls-cert", certificate[1], "--tls-key", certificate[0], status=2
    )
    assert "PEM" in swapped.stderr
    assert not data.exists()


def test_self_signed_certificate_is_named_in_the_lines_to_paste(served, data, certificate):
    cert, key = certificate
    output = vaultaire("serve", "--data", data, "--tls-cert", cert, "--tls-key", key).stdout
    assert output.splitlines()[-1] == "vaultaire: ready on https://127.0.0.1:9000"
    assert f"AWS_CA_BUNDLE={cert}" in output
    assert f"rclone --ca-cert {cert} rcat" in output
    assert f"restic --cacert {cert} " in output
    assert "--no-verify-ssl" in output
    variables = exported(vaultaire("env", "--data", data).stdout)
    assert variables["AWS_ENDPOINT_URL"] == "https://localhost:9000"
    assert variables["AWS_CA_BUNDLE"] == str(cert)


@pytest.mark.parametrize(
    ("names", "listen", "url"),
    [
        (["s3.example.com", "*.example.com"], "0.0.0.0", "https://s3.example.com:9000"),
        (["s3.example.com", "localhost"], "127.0.0.1", "https://localhost:9000"),
        (["s3.example.com"], "s3.example.com", "https://s3.example.com:9000"),
        (["*.example.com"], "10.0.0.1", "https://10.0.0.1:9000"),
    ],
)
def test_announced_host_is_one_that_the_certificate_names(tmp_path, names, listen, url):
    cert, key = make_certificate(tmp_path, names, issuer="some authority")
    config = ServeConfig(tmp_path, listen, 9000, tls_cert=cert, tls_key=key)
    assert plan_endpoint(config, listen, 9000) == Endpoint(url, None)


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1"), ("nas", "http://nas:1")]
)
def test_announced_host_is_one_that_clients_can_connect_to(tmp_path, host, url):
    assert plan_endpoint(ServeConfig(tmp_path), host, 1) == Endpoint(url)


def test_urls_put_ipv6_addresses_in_brackets():
    assert (url_of(False, "::1", 1), url_of(True, "h", 2)) == ("http://[::1]:1", "https://h:2")


# --- keys ---


def test_created_key_is_printed_once_and_listed_without_its_secret(running):
    created = vaultaire("key", "create", "--tenant", "alice", "--role", "read-only", "--data", running).stdout
    access_key = re.search(r"access key +(\S+)", created)[1]
    secret_key = re.search(r"secret key +(\S+)", created)[1]
    for listing in (["key", "list"], ["key", "list", "--json"]):
        output = vaultaire(*listing, "--data", running).output
        assert access_key in output
        assert secret_key not in output
    row = listed(running)[access_key]
    assert (row["tenant"], row["role"], row["root"]) == ("alice", "read-only", False)
    assert row["created_ms"] > 1_700_000_000_000


def test_created_key_can_be_chosen_and_printed_as_json(running):
    chosen = ("--tenant", "alice", "--access-key", "alice-key", "--secret-key", "alice-secret")
    assert json.loads(vaultaire("key", "create", *chosen, "--json", "--data", running).stdout) == {
        "access_key": "alice-key",
        "secret_key": "alice-secret",
        "tenant": "alice",
        "role": "read-write",
        "root": False,
        "scopes": [],
        "exempt": [],
        "expires_ms": None,
        "disabled": False,
        "dropped": [],
    }
    again = vaultaire("key", "create", *chosen, "--data", running, status=1)
    assert "vaultaire key delete alice-key" in again.stderr


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--tenant", "a b"],
        ["--tenant", "t", "--role", "owner"],
        ["--tenant", "t", "--access-key", "a/b"],
        ["--tenant", "t", "--secret-key", "short"],
        ["--root", "--tenant", "t"],
        ["--root", "--role", "admin"],
        ["--tenant", "t", "--new-secret-key"],
        ["--tenant", "t", "--scope", "/no-bucket"],
        ["--tenant", "t", "--scope", "ab"],
        ["--tenant", "t", "--exempt", "locks/"],
        ["--tenant", "t", "--role", "append-only", "--preset", "borg"],
        ["--tenant", "t", "--expires", "soon"],
        ["--root", "--expires", "1d"],
        ["--root", "--scope", "bucket"],
    ],
)
def test_key_that_cannot_be_is_a_usage_error(running, options):
    vaultaire("key", "create", *options, "--data", running, status=2)
    assert len(listed(running)) == 1


def test_deleted_key_is_gone_and_the_last_root_key_stays(running):
    vaultaire("key", "create", "--tenant", "alice", "--access-key", "alice-key", "--data", running)
    vaultaire("key", "delete", "alice-key", "--data", running)
    (root,) = listed(running)
    assert "key create --root" in vaultaire("key", "delete", root, "--data", running, status=1).stderr
    assert "key list" in vaultaire("key", "delete", "nobody", "--data", running, status=1).stderr
    vaultaire("key", "create", "--root", "--data", running)
    vaultaire("key", "delete", root, "--data", running)
    assert root not in listed(running)


def test_key_list_is_a_plain_aligned_table_outside_a_terminal(running):
    vaultaire("key", "create", "--tenant", "wonderland", "--access-key", "alice", "--data", running)
    titles, *rows = vaultaire("key", "list", "--data", running).stdout.splitlines()
    assert titles.split() == ["ACCESS", "KEY", "TENANT", "ROLE", "SCOPE", "STATE", "CREATED", "LAST", "USED"]
    column = titles.index("TENANT")
    assert [row[column:].split()[0] for row in rows] == ["root", "wonderland"]


def test_limits_of_a_key_are_listed_and_survive_its_rotation(running):
    vaultaire(
        *("key", "create", "--tenant", "alice", "--access-key", "alice-key", "--role", "append-only"),
        *("--scope", "bucket/repo/", "--preset", "restic", "--expires", "90d", "--data", running),
    )
    before = listed(running)["alice-key"]
    assert (before["scopes"], before["exempt"]) == (["bucket/repo/"], ["locks/"])
    fresh = json.loads(vaultaire("key", "rotate", "alice-key", "--json", "--data", running).stdout)
    rows = listed(running)
    old, new = rows["alice-key"], rows[fresh["access_key"]]
    same = ("tenant", "role", "scopes", "exempt", "disabled", "root")
    assert [new[name] for name in same] == [before[name] for name in same]
    assert old["expires_ms"] < before["expires_ms"] == new["expires_ms"]
    vaultaire("key", "disable", "alice-key", "--data", running)
    assert "disabled" in vaultaire("key", "list", "--data", running).stdout
    vaultaire("key", "enable", "alice-key", "--data", running)
    assert not listed(running)["alice-key"]["disabled"]


def test_a_root_key_is_neither_rotated_nor_disabled(running):
    (root,) = listed(running)
    assert "key create --root" in vaultaire("key", "rotate", root, "--data", running, status=1).stderr
    assert "root key" in vaultaire("key", "disable", root, "--data", running, status=1).stderr
    assert "key list" in vaultaire("key", "enable", "nobody", "--data", running, status=1).stderr


@pytest.mark.parametrize("loss", ["missing", "wrong"])
def test_lost_secret_key_is_overcome_by_the_command_that_the_message_names(served, running, loss):
    vaultaire("key", "create", "--tenant", "alice", "--access-key", "alice-key", "--data", running)
    (running / "secret.key").unlink()
    if loss == "wrong":
        (running / "secret.key").write_text("11" * 32)
    refused = vaultaire("env", "--data", running, status=1)
    named = re.search(r"by: vaultaire (.+)", refused.stderr)[1]
    created = vaultaire(*shlex.split(named)).stdout
    assert "alice-key" in created  # named as dropped
    (row,) = listed(running).values()
    assert row["root"]
    assert stat.S_IMODE((running / "secret.key").stat().st_mode) == 0o600
    assert (running / "secret.key.old").exists() == (loss == "wrong")
    vaultaire("env", "--data", running)
    vaultaire("serve", "--data", running)


def test_secret_key_in_order_is_not_replaced(running):
    before = (running / "secret.key").read_bytes()
    vaultaire("key", "create", "--root", "--new-secret-key", "--data", running, status=1)
    assert (running / "secret.key").read_bytes() == before


# --- env, stats ---


def test_env_prints_the_root_key_or_the_chosen_one_for_eval(running):
    root = root_principal(running)
    assert exported(vaultaire("env", "--data", running).stdout) == {
        "AWS_ACCESS_KEY_ID": root.access_key,
        "AWS_SECRET_ACCESS_KEY": root.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
    }
    secret = "quote'\"$(reboot)`;\\"
    vaultaire(
        "key", "create", "--tenant", "a", "--access-key", "alice", "--secret-key", secret, "--data", running
    )
    output = vaultaire("env", "--access-key", "alice", "--data", running).stdout
    assert exported(output)["AWS_SECRET_ACCESS_KEY"] == secret
    shell = subprocess.run(
        ["sh", "-c", f'{output}\nprintf %s "$AWS_SECRET_ACCESS_KEY"'],
        capture_output=True,
        check=True,
        text=True,
    )
    assert shell.stdout == secret
    assert "key list" in vaultaire("env", "--access-key", "nobody", "--data", running, status=1).stderr


def test_env_follows_the_server_to_another_address(served, running):
    vaultaire("serve", "--data", running, "--listen", "0.0.0.0:9999")
    assert exported(vaultaire("env", "--data", running).stdout)["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9999"
    with Store.open(running, kind="command") as store, store.kv.snapshot() as reader:
        assert read_endpoint(reader) == Endpoint("http://127.0.0.1:9999")


def test_stats_of_an_empty_store_are_zeros(running):
    figures = json.loads(vaultaire("stats", "--json", "--data", running).stdout)
    assert (figures["objects"], figures["logical_bytes"], figures["unique_bytes"]) == (0, 0, 0)
    assert {"stored_bytes", "dedup_ratio", "compression_ratio", "overhead_bytes"} <= figures.keys()
    assert figures["buckets"] == {}
    assert "logical    0 B" in vaultaire("stats", "--data", running).stdout


def test_stats_name_every_bucket():
    from vaultaire.cli.stats import as_dict, bucket_row, remarks, summary
    from vaultaire.stats import BucketStatistics, StoreStatistics

    bucket = BucketStatistics(
        "photos",
        "alice",
        objects=1234,
        logical_bytes=3 * MIB,
        unique_bytes=MIB,
        stored_bytes=MIB // 2,
        exclusive_bytes=0,
    )
    figures = StoreStatistics(
        objects=1234,
        logical_bytes=3 * MIB,
        unique_bytes=MIB,
        stored_bytes=MIB // 2,
        overhead_bytes=0,
        chunks=9,
        packs=1,
        buckets=(bucket,),
    )
    sizes = ("3.0 MiB", "1.0 MiB", "x3.00", "512.0 KiB", "0 B")
    assert bucket_row(bucket) == ("photos", "alice", "1,234", *sizes)
    assert as_dict(figures)["dedup_ratio"] == 3.0
    assert as_dict(figures)["compression_ratio"] == 2.0
    assert as_dict(figures)["buckets"]["photos"]["unique_bytes"] == MIB
    assert any("dedup x3.00" in text for text, _ in summary(figures))
    assert remarks(figures, 1000.0) == []
    older = dataclasses.replace(figures, walked_ms=400_000, complete=False)
    assert "10 minutes ago" in remarks(older, 1000.0)[0][0]
    assert "vaultaire verify" in remarks(older, 1000.0)[1][0]


def test_gc_on_an_empty_store_frees_nothing(running):
    assert "freed 0 B: removed 0 packs" in vaultaire("gc", "--data", running).stdout
    told = json.loads(vaultaire("gc", "--json", "--data", running).stdout)
    assert (told["removed_packs"], told["complete"]) == (0, True)
    assert "would free about 0 B" in vaultaire("gc", "--dry-run", "--data", running).stdout
    assert json.loads(vaultaire("gc", "--dry-run", "--json", "--data", running).stdout)["packs"] == 0


def test_gc_stores_anew_what_was_stored_in_small_frames(tmp_path):
    data = tmp_path / "data"
    text = b"".join(path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py")))[: 3 << 20]
    with Store.open(data, kind="command", create=True) as store:
        client = Client(store)
        client.put(client.bucket("b"), b"k", text)
    assert json.loads(vaultaire("gc", "--json", "--data", data).stdout)["removed_packs"] == 0
    told = json.loads(vaultaire("gc", "--recompress", "--json", "--data", data).stdout)
    assert told["removed_packs"] == 1
    assert 0 < told["freed_bytes"] < told["removed_bytes"] / 2
    assert "no damage found" in vaultaire("verify", "--read-data", "--data", data).stdout
    again = json.loads(vaultaire("gc", "--recompress", "--json", "--data", data).stdout)
    assert again["removed_packs"] == 0


def test_gc_tells_what_small_objects_take_in_packs(tmp_path):
    data = tmp_path / "data"
    with Store.open(data, kind="command", create=True) as store:
        client = Client(store)
        bucket = client.bucket("b")
        for number in range(50):
            client.put(bucket, b"k%d" % number, noise(4000, number))
    preview = ("gc", "--recompress", "--dry-run", "--data", data)
    assert "would move 50 small objects (195.3 KiB)" in vaultaire(*preview).stdout
    assert json.loads(vaultaire(*preview, "--json").stdout)["moved_objects"] == 50
    told = json.loads(vaultaire("gc", "--recompress", "--json", "--data", data).stdout)
    assert (told["moved_objects"], told["moved_bytes"]) == (50, 200_000)
    assert 200_000 < told["moved_stored_bytes"] < 210_000
    assert told["freed_bytes"] == -told["moved_stored_bytes"]


def test_gc_without_room_to_archive_says_so_and_fails(tmp_path, monkeypatch):
    from vaultaire.cli.gc import command
    from vaultaire.space import DiskFull, Space

    data = tmp_path / "data"
    with Store.open(data, kind="command", create=True) as store:
        client = Client(store)
        client.put(client.bucket("b"), b"k", noise(4000))

    def full(self, needed):
        raise DiskFull(needed, 0)

    monkeypatch.setattr(Space, "require", full)
    for options in ([], ["--dry-run"]):
        told = CliRunner().invoke(command, ["--data", str(data), "--recompress", *options])
        assert told.exit_code == 1
        assert "copies need room" in told.stdout
        assert "small objects" not in told.stdout
    monkeypatch.undo()
    told = CliRunner().invoke(command, ["--data", str(data), "--recompress"])
    assert told.exit_code == 0
    assert "moved 1 small objects" in told.stdout


def test_gc_says_what_keeps_it_from_collecting(running):
    from vaultaire.cli.gc import lines
    from vaultaire.collection_report import Progress

    told = [text for text, _ in lines(Progress(kept_packs=2, complete=False, errors=["chunk 12 is damaged"]))]
    assert "2 packs are kept" in told[1]
    assert "vaultaire verify" in told[2]
    assert "chunk 12 is damaged" in told[3]
    told = [text for text, _ in lines(Progress(lacks_room=True))]
    assert "room" in told[1]
    told = [text for text, _ in lines(Progress(moved_objects=2, moved_bytes=2048, moved_stored_bytes=1024))]
    assert "2 small objects (2.0 KiB) from the database to packs, where they take 1.0 KiB" in told[0]
    assert "vaultaire rebuild" in told[1]
    assert "freed 0 B" in told[2]
    assert len(told) == 3


@pytest.mark.parametrize(
    "command",
    [
        ["key", "list"],
        ["key", "create", "--tenant", "t"],
        ["key", "delete", "k"],
        ["env"],
        ["stats"],
        ["lifecycle", "run"],
        ["verify"],
    ],
    ids=" ".join,
)
def test_command_on_what_is_no_store_says_so_and_exits_2(tmp_path, command):
    for directory in (tmp_path, tmp_path / "missing"):
        result = vaultaire(*command, "--data", directory, status=2)
        assert "is not a Vaultaire store" in result.stderr
        assert "vaultaire serve --data" in result.stderr
    assert list(tmp_path.iterdir()) == []


# --- the program itself ---


def test_help_and_version_need_neither_store_nor_terminal_library():
    for arguments in (["--help"], ["--version"], ["key", "create", "--help"]):
        code = (
            "import sys, vaultaire.cli\n"
            f"try: vaultaire.cli.main({arguments!r}, prog_name='vaultaire')\n"
            "finally: assert not {'lmdb', 'rich', 'trio', 'cryptography'} & set(sys.modules), 'imported too much'"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert "vaultaire" in done.stdout


def test_terminal_gets_colour_and_unbroken_lines(running):
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "40"}
    env.pop("NO_COLOR", None)
    command = [*PROGRAM, "key", "create", "--tenant", "alice", "--data", str(running)]
    with subprocess.Popen(command, stdout=slave, env=env) as process:
        os.close(slave)
        output = b""
        while piece := read_terminal(master):
            output += piece
    os.close(master)
    assert process.returncode == 0
    assert b"\x1b[1;32m" in output
    hint = next(line for line in output.splitlines() if b"eval" in line)
    assert str(running).encode() in hint


def read_terminal(master):
    try:
        return os.read(master, 65536)
    except OSError:  # EIO: Linux's end of file once the last writer has gone
        return b""


@pytest.mark.slow
def test_real_server_says_when_it_is_ready_and_stops_on_request(data):
    command = [*PROGRAM, "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = list(iter_until_ready(process))
            url = re.fullmatch(r"vaultaire: ready on http://(127\.0\.0\.1):(\d+)", lines[-1])
            with socket.create_connection((url[1], int(url[2])), timeout=10) as client:
                client.sendall(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert client.recv(64).startswith(b"HTTP/1.1 200")
            live = subprocess.run(
                [*PROGRAM, "env", "--data", str(data)], capture_output=True, text=True, check=True, timeout=30
            )
            assert exported(live.stdout)["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{url[2]}"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert root_principal(data).secret_key in "\n".join(lines)


def iter_until_ready(process):
    for line in process.stdout:
        yield line.rstrip("\n")
        if line.startswith("vaultaire: ready on "):
            return
    raise AssertionError(f"the server ended with status {process.wait()} before it was ready")


@pytest.mark.slow
def test_real_server_explains_a_port_in_use(data):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*PROGRAM, "serve", "--data", str(data), "--listen", f"127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is in use" in done.stderr
    assert "Traceback" not in done.stderr
