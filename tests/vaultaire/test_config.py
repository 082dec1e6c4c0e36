"""The configuration: one table of settings, four places it comes from, and nothing unknown or wrong gets through."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire import config_file, supervisor
from vaultaire.cli import main
from vaultaire.cli.config import example_file
from vaultaire.config import MIB, ServeConfig
from vaultaire.config_file import ConfigError, parse_file, read_file
from vaultaire.config_resolve import resolve, serve_config, unknown_variables
from vaultaire.config_settings import BY_NAME, SETTINGS
from vaultaire.config_values import Whole
from vaultaire.plans import PLANS, Plan

REPOSITORY = Path(__file__).resolve().parents[2]
FILE = Path("/etc/vaultaire.toml")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No settings from outside."""
    for name in list(os.environ):
        if name.startswith("VAULTAIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(config_file, "SEARCHED", (Path("vaultaire.toml"), tmp_path / "etc.toml"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def vaultaire(*arguments, env=None, status=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)
    assert result.exit_code == status, result.output
    return result


def values(options=None, environ=None, text=None):
    found = resolve(options or {}, environ or {}, None if text is None else parse_file(FILE, text))
    assert found.problems == []
    return found


def problems(text):
    with pytest.raises(ConfigError) as raised:
        parse_file(FILE, text)
    return raised.value.problems


# --- the table ---


def test_without_settings_the_server_runs_with_its_defaults():
    found = serve_config(values())
    assert found == ServeConfig(Path.cwd() / "vaultaire-data", workers=found.workers)


def test_every_setting_is_a_field_of_the_server_or_special_to_the_command_line():
    fields = {field.name for field in dataclasses.fields(ServeConfig)}
    for setting in SETTINGS:
        assert (setting.field or setting.name) in fields | {"listen", "root_access_key", "root_secret_key"}
    made = {setting.field or setting.name for setting in SETTINGS} | {"host", "port"}
    assert fields <= made


# How each setting is written somewhere, and what it is then; the file may write numbers as such.
WRITTEN = {
    "data": ("/srv/v", Path("/srv/v")),
    "listen": ("[::1]:1", ("::1", 1)),
    "domain": ("a.example B.example", ("a.example", "b.example")),
    "workers": ("3", 3),
    "memory_budget": ("64MiB", 64 * MIB),
    "stall_timeout": ("1m", 60.0),
    "head_timeout": ("500ms", 0.5),
    "grace": ("3", 3.0),
    "plan": ("stored.ge", "stored.ge"),
    "parity": ("20", 20),
    "scrub_days": ("0.5", 0.5),
    "collection_rate": ("0", 0),
    "archive_after": ("30", 30.0),
    "upload_expiry": ("30", 30.0),
    "metrics": ("public", "public"),
    "metrics_buckets": ("7", 7),
    "access_log": ("/tmp/access.log", "/tmp/access.log"),
    "access_log_format": ("combined", "combined"),
    "audit_log": ("-", "-"),
}
# Of no use alone, or of files whose content is looked at.
TRIED_ELSEWHERE = {"tls_cert", "tls_key", "root_access_key", "root_secret_key", "metrics_token_file"}


def test_every_setting_is_tried_below():
    assert WRITTEN.keys() | TRIED_ELSEWHERE == BY_NAME.keys()


@pytest.mark.parametrize("name", WRITTEN)
def test_a_setting_means_the_same_as_option_variable_and_key(name, monkeypatch):
    setting, (text, value) = BY_NAME[name], WRITTEN[name]
    assert values(environ={setting.variable: text})[name] == value
    quoted = json.dumps(text.split() if setting.many else text)
    assert values(text=f"{name} = {quoted}")[name] == value
    configs = []
    monkeypatch.setattr(supervisor, "run", lambda config, **_: configs.append(config) or 0)
    words = text.split() if setting.many else [text]
    vaultaire("serve", *[word for each in words for word in (setting.option, each)])
    expected = serve_config(values(environ={setting.variable: text}))
    assert configs == [expected]
    assert expected != serve_config(values())


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("workers = 3", "workers", 3),
        ("grace = 2.5", "grace", 2.5),
        ("memory_budget = 104857600", "memory_budget", 100 * MIB),
        ("scrub_days = 0", "scrub_days", 0.0),
        ('domain = "a.example"', "domain", ("a.example",)),
        ("domain = []", "domain", ()),
    ],
)
def test_the_file_may_say_numbers_as_numbers(line, name, value):
    assert values(text=line)[name] == value


def test_option_beats_environment_beats_file_beats_default():
    setting, text, environ = BY_NAME["grace"], 'grace = "3s"', {"VAULTAIRE_GRACE": "2s"}
    for options, env, content, value, origin, where in (
        ({"grace": (1.0, "1s")}, environ, text, 1.0, "option", "--grace"),
        ({}, environ, text, 2.0, "environment", "VAULTAIRE_GRACE"),
        ({}, {"VAULTAIRE_GRACE": ""}, text, 3.0, "file", "/etc/vaultaire.toml:1"),
        ({}, {}, None, 10.0, "default", ""),
    ):
        effective = values(options, env, content).settings[setting.name]
        assert (effective.value, effective.origin, effective.where) == (value, origin, where)


# --- the file ---


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "\nstal_timeout = 3",
            "/etc/vaultaire.toml:2: unknown key 'stal_timeout' (did you mean 'stall_timeout'?)",
        ),
        ("stall-timeout = 3", "did you mean 'stall_timeout'?"),
        (
            "# one\n\n[plan.x]\nrequests_per_minute = 1",
            "/etc/vaultaire.toml:3: plan: a section makes no sense",
        ),
        ("[server]\nlisten = 3", "/etc/vaultaire.toml:1: unknown section 'server'"),
        ("[plns.x]", "unknown section 'plns' (did you mean 'plans'?)"),
        ("config = 3", "unknown key 'config'"),
        ("grace = 'soon'", "/etc/vaultaire.toml:1: grace: 'soon' is no time above zero"),
        ("workers = true", "workers: true or false makes no sense here"),
        ("workers = 1.5", "workers: 1.5 is no whole number from 1 to 256"),
        ("workers = 0", "workers: 0 is no whole number from 1 to 256"),
        ("workers = [1]", "workers: a list makes no sense here"),
        ("grace = 1979-05-27", "grace: a date or time makes no sense here"),
        ("memory_budget = '1MiB'", "the least is 16MiB"),
        ("scrub_days = nan", "scrub_days: nan is no number from 0 to 3650"),
        ("parity = 101", "parity: 101 is no whole number from 0 to 100"),
        ("domain = ['a.example', '*.b']", "domain: '*.b' is no domain"),
        ("tls_cert = '/no/such/file'", "/no/such/file cannot be read (No such file"),
        ("plans = 3", '[plans."my-plan"]'),
        ("[plans]\nx = 3", '[plans."x"]'),
        ("[plans.'stored.ge']\nrequests_per_minute = 1", "is built in"),
        ("[plans.'a b']", "is no name of a plan"),
        (
            "[plans.x]\n\nrequests_per_minut = 1",
            "/etc/vaultaire.toml:3: unknown key 'requests_per_minut' of a plan (did you mean 'requests_per_minute'?)",
        ),
        (
            "[plans.x]\nrequests_per_minute = 0",
            "/etc/vaultaire.toml:2: requests_per_minute: 0 is no whole number",
        ),
        ("[plans.x]\nbytes_per_second = '2TiB'", "needs no limit"),
        ("grace = ", "is no TOML"),
        ("grace = 1\ngrace = 2", "is no TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(text, says):
    (problem,) = problems(text)
    assert says in problem


def test_all_that_is_wrong_is_said_at_once():
    assert len(problems("a = 1\ngrace = 'x'\n[plans.y]\nz = 1")) == 3


@settings(max_examples=50)
@given(
    st.text() | st.from_regex(r'([a-z_]{1,12} = ("[^"\\\n]*"|\d{1,4})\n|\[plans\.\w\]\n)*', fullmatch=True)
)
def test_no_text_is_more_than_a_refusal(text):
    with suppress(ConfigError):
        assert parse_file(FILE, text).values.keys() <= BY_NAME.keys()


def test_paths_in_a_file_begin_at_the_file_and_elsewhere_at_the_current_directory():
    assert values(text='data = "d"')["data"] == Path("/etc/d")
    assert values(environ={"VAULTAIRE_DATA": "d"})["data"] == Path.cwd() / "d"


def test_a_file_with_a_secret_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "v.toml"
    file.write_text('root_access_key = "admin"\nroot_secret_key = "chosen-secret"\n')
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=f"chmod 600 {file}"):
        read_file(file)
    file.chmod(0o600)
    assert read_file(file).values["root_secret_key"].value == "chosen-secret"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (2 << 20)])
def test_what_is_no_configuration_is_refused(tmp_path, content):
    file = tmp_path / "v.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(file))):
        read_file(file)


# --- around the file ---


def test_unknown_variables_are_named_with_the_nearest_one():
    environ = {
        "VAULTAIRE_STAL_TIMEOUT": "1",
        "VAULTAIRE_PORT": "9000",
        "VAULTAIRE_DATA": "d",
        "VAULTAIRE_TEST_TLS": "1",
        "VAULTAIRE_SERVICE_PORT_S3": "9000",
        "VAULTAIRE_PORT_9000_TCP_ADDR": "10.0.0.1",
        "OTHER": "x",
    }
    port, typo = unknown_variables(environ)
    assert port.startswith("VAULTAIRE_PORT: unknown")
    assert "did you mean 'VAULTAIRE_STALL_TIMEOUT'?" in typo
    assert unknown_variables({"VAULTAIRE_PORT": "tcp://10.0.0.1:9000"}) == []


def test_serve_refuses_unknown_variables_and_other_commands_warn():
    environ = {"VAULTAIRE_GRAC": "1"}
    assert "VAULTAIRE_GRACE" in vaultaire("serve", env=environ, status=2).stderr
    assert not Path("vaultaire-data").exists()
    assert "Warning: VAULTAIRE_GRAC: unknown" in vaultaire("stats", env=environ, status=2).stderr


@pytest.mark.parametrize(
    ("environ", "text", "says"),
    [
        (
            {"VAULTAIRE_PLAN": "stored.gee"},
            "",
            "VAULTAIRE_PLAN: there is no plan 'stored.gee' (did you mean 'stored.ge'?)",
        ),
        ({}, "plan = 'mine'", "/etc/vaultaire.toml:1: there is no plan 'mine'"),
        ({"VAULTAIRE_ROOT_ACCESS_KEY": "admin"}, "", "VAULTAIRE_ROOT_SECRET_KEY is missing"),
        ({"VAULTAIRE_WORKERS": "many"}, "", "VAULTAIRE_WORKERS: 'many' is no whole number"),
    ],
)
def test_what_does_not_fit_together_is_a_problem(environ, text, says):
    found = resolve({}, environ, parse_file(FILE, text))
    assert any(says in problem for problem in found.problems)
    with pytest.raises(ConfigError):
        serve_config(found)


def test_a_plan_of_the_file_is_the_default_of_tenants_and_crosses_the_process_border():
    text = 'plan = "guests"\n[plans.guests]\nrequests_per_minute = 600\nbytes_per_second = "1MiB"'
    config = serve_config(values(text=text))
    assert config.plan == Plan(600, MIB, "guests")
    assert ServeConfig.from_json(config.to_json()) == config


# --- commands ---


def store(path):
    from vaultaire.store import Store

    Store.open(path, kind="command", create=True).close()
    return path


def test_every_command_finds_the_store_by_the_file(tmp_path):
    store(tmp_path / "of file")
    (tmp_path / "etc.toml").write_text('data = "of file"\n')
    vaultaire("stats")
    Path("vaultaire.toml").write_text('data = "nothing here"\n')  # it alone is read
    assert "nothing here" in vaultaire("stats", status=2).stderr
    vaultaire("stats", "--config", tmp_path / "etc.toml")
    vaultaire("stats", env={"VAULTAIRE_CONFIG": str(tmp_path / "etc.toml")})
    vaultaire("stats", "--data", tmp_path / "of file")
    Path("vaultaire.toml").write_text("dta = 1\n")
    refused = vaultaire("stats", status=2).stderr
    assert "vaultaire.toml:1: unknown key 'dta' (did you mean 'data'?)" in refused


def test_show_says_where_each_value_comes_from_and_hides_secrets():
    Path("vaultaire.toml").write_text("\nscrub_days = 30\n")
    environ = {
        "VAULTAIRE_GRACE": "3s",
        "VAULTAIRE_ROOT_ACCESS_KEY": "admin",
        "VAULTAIRE_ROOT_SECRET_KEY": "chosen-secret",
    }
    arguments = ("config", "show", "--origin", "--workers", "2")
    shown = vaultaire(*arguments, env=environ).output
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line}
    assert rows["scrub_days"] == ["30", f"{Path.cwd()}/vaultaire.toml:2"]
    assert rows["grace"] == ["3s", "VAULTAIRE_GRACE"]
    assert rows["workers"] == ["2", "--workers"]
    assert rows["listen"] == ["127.0.0.1:9000", "default"]
    assert "chosen-secret" not in shown
    document = vaultaire(*arguments, "--json", env=environ).output
    assert "chosen-secret" not in document
    assert json.loads(document)["settings"]["grace"] == {
        "value": 3.0,
        "origin": "environment",
        "where": "VAULTAIRE_GRACE",
    }


def test_check_is_status_1_for_a_file_that_serve_would_refuse(tmp_path):
    file = tmp_path / "v.toml"
    file.write_text("grace = 3\n")
    assert "in order" in vaultaire("config", "check", file).output
    file.write_text("grac = 3\ngrace = 'x'\n")
    refused = vaultaire("config", "check", file, status=1).stderr
    assert "v.toml:1" in refused
    assert "v.toml:2" in refused
    vaultaire("config", "check", tmp_path / "nothing", status=2)
    vaultaire("config", "check", status=0)


def test_check_looks_at_the_certificate_too(tmp_path):
    file = tmp_path / "v.toml"
    (tmp_path / "cert.pem").write_text("no certificate")
    file.write_text('tls_cert = "cert.pem"\ntls_key = "cert.pem"\n')
    assert "PEM" in vaultaire("config", "check", file, status=1).stderr


def test_check_looks_at_the_token_too(tmp_path):
    file = tmp_path / "v.toml"
    (tmp_path / "token").write_text("short")
    file.write_text('metrics_token_file = "token"\n')
    assert "holds no token" in vaultaire("config", "check", file, status=1).stderr
    (tmp_path / "token").write_text("f" * 64)
    vaultaire("config", "check", file)


def test_a_key_gets_a_plan_of_the_file(tmp_path):
    data = store(tmp_path / "data")
    Path("vaultaire.toml").write_text("[plans.slow]\nrequests_per_minute = 6\n")
    limited = vaultaire("key", "limit", "--tenant", "t", "--plan", "slow", "--json", "--data", data).stdout
    assert json.loads(limited)["requests_per_minute"] == 6
    refused = vaultaire("key", "limit", "--tenant", "t", "--plan", "slwo", "--data", data, status=2).stderr
    assert "did you mean 'slow'?" in refused


# --- what is written down ---


def test_example_file_is_current_and_says_the_defaults():
    text = (REPOSITORY / "contrib" / "vaultaire.toml").read_text()
    assert text == example_file(), "run: vaultaire config example > contrib/vaultaire.toml"
    lines = re.sub(r"(?m)^#(?=[a-z_]+ = |\[plans)", "", text)
    lines = "\n".join(
        line for line in lines.splitlines() if not line.startswith(("tls_", "root_", "metrics_token"))
    )
    shown = parse_file(Path.cwd() / "x.toml", lines)
    assert shown.plans.keys() == {"my-plan"}
    for setting in SETTINGS:
        if setting.default is not None:
            assert shown.values[setting.name].value == values()[setting.name]
    assert parse_file(FILE, text).values == {}


def documented_table():
    rows = ["| setting | value | default | |", "|---|---|---|---|"]
    for setting in SETTINGS:
        option = "" if setting.has_option else " (no option)"
        kind = f"{setting.kind.metavar}{' ...' if setting.many else ''}"
        if isinstance(setting.kind, Whole):
            kind = f"{setting.kind.low} to {setting.kind.high}"
        default = f"`{setting.default}`" if setting.default is not None else setting.default_text
        rows.append(f"| `{setting.name}`{option} | {kind} | {default} | {setting.help} |")
    return "\n".join(rows)


def test_documentation_has_the_table_of_settings():
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    assert documented_table() in text, f"docs/configuration.md needs this table:\n{documented_table()}"


def test_documented_example_is_in_order():
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert parse_file(FILE, example).plans["guests"] == Plan(600, 20 * MIB, "guests")
    assert PLANS.keys() == set(re.findall(r"`(core|stored\.\w+)`", text))
