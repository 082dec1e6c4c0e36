"""What docs/cli.md promises of every command: `--json` and its shape, `--dry-run`, exit statuses, a quiet progress.

Commands are found, not listed: one that is added without its shape in docs/cli.md fails here.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from index.buckets import get_bucket
from index.configs import put_config
from tests.vaultaire.verify_support import fill
from vaultaire.access import Keyring, new_root
from vaultaire.audit_log import write_audit_log
from vaultaire.cli import command_names, main, output, progress
from vaultaire.cli.progress import Progress, duration, progress_line
from vaultaire.maintenance import chores
from vaultaire.s3.lifecycle import Rule
from vaultaire.s3.stored_lifecycle import CONFIG, wrap_rules
from vaultaire.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "cli.md").read_text()
PROGRAM = (sys.executable, "-m", "vaultaire")

# Commands without --json, and why.
NO_JSON = {
    "serve": "a server; programs wait for its line `vaultaire: ready on URL`",
    "completion": "prints a script",
    "config example": "prints a file",
}
NO_DATA = ("analyze",)  # needs no store
# Commands that change much; the others change one thing that is named to them, or nothing.
DRY_RUN = (
    "gc",
    "repair",
    "rebuild",
    "backup",
    "restore",
    "lifecycle run",
    "bucket delete",
    "import",
    "export",
)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("VAULTAIRE_", "AWS_")) or name in ("CI", "NO_COLOR"):
            monkeypatch.delenv(name)


def leaves(command=main, path=()):
    """(words, command) of all commands that do something."""
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if isinstance(found, click.Group):
            yield from leaves(found, (*path, name))
        else:
            yield " ".join((*path, name)), found


LEAVES = dict(leaves())


def options_of(command):
    return {option for parameter in command.params for option in parameter.opts}


def shapes():
    """Heading -> the document below it."""
    found = re.findall(
        r"^### `([^`]+)`( \(list\))?\n(?:(?!^#)[\s\S])*?```json\n([\s\S]*?)```", PAGE, re.MULTILINE
    )
    return {f"{name}{more}": json.loads(block) for name, more, block in found}


SHAPES = shapes()
TYPES = {
    "integer": int,
    "number": (int, float),
    "string": str,
    "boolean": bool,
    "null": type(None),
    "any": object,
}


def mismatches(shape, value, where="$"):
    """Where `value` is not as `shape` says; nothing if it is."""
    if isinstance(shape, str):
        fits = any(
            isinstance(value, TYPES[name]) and (name in ("boolean", "any") or not isinstance(value, bool))
            for name in shape.split(" or ")
        )
        return [] if fits else [f"{where}: {value!r} is no {shape}"]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [each for i, item in enumerate(value) for each in mismatches(shape[0], item, f"{where}[{i}]")]
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no object"]
    any_name = next((inner for name, inner in shape.items() if name.startswith("<")), None)
    if any_name is not None:
        return [each for name in value for each in mismatches(any_name, value[name], f"{where}.{name}")]
    known = {name.rstrip("?"): inner for name, inner in shape.items()}
    wrong = [f"{where}.{name} is not documented" for name in value.keys() - known.keys()]
    wrong += [f"{where}.{name} is missing" for name in shape if not name.endswith("?") and name not in value]
    return wrong + [e for n in value.keys() & known for e in mismatches(known[n], value[n], f"{where}.{n}")]


def test_a_wrong_shape_is_noticed():
    shape = {"a": "integer or null", "b?": ["string"], "c": {"<name>": "boolean"}}
    assert mismatches(shape, {"a": None, "c": {"x": True}}) == []
    for wrong in (
        {"a": True, "c": {}},
        {"a": 1},
        {"a": 1, "c": {"x": 1}},
        {"a": 1, "c": {}, "b": [1]},
        {"a": 1, "c": {}, "d": 1},
        {"a": 1, "c": []},
    ):
        assert len(mismatches(shape, wrong)) == 1


# --- every command ---


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_json_and_its_shape_is_documented_or_there_is_a_reason(name):
    assert ("--json" in options_of(LEAVES[name])) != (name in NO_JSON)
    assert (name in SHAPES) != (name in NO_JSON)
    assert name not in NO_JSON or f"`{name}`" in PAGE


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_says_what_it_does_in_its_help(name):
    result = CliRunner().invoke(main, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert LEAVES[name].help
    for parameter in LEAVES[name].params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


def test_commands_that_change_much_have_a_dry_run():
    assert {name for name, command in LEAVES.items() if "--dry-run" in options_of(command)} >= set(DRY_RUN)
    assert ", ".join(f"`{name}`" for name in DRY_RUN) in PAGE.replace("\n", " ")


# --- what they print ---


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store with something of everything and a root key, and a backup of it. Not to be damaged."""
    folder = tmp_path_factory.mktemp("manners")
    fill(folder / "data")
    with Store.open(folder / "data", kind="command") as store:
        (folder / "data" / "secret.key").unlink(missing_ok=True)
        keyring = Keyring.replace_secret_key(folder / "data")
        store.kv.commit(lambda txn: keyring.reset(txn, new_root("root-key", "root-secret"), now_ms=1))
    run("key", "create", "--tenant", "t", "--access-key", "some-key", "--data", folder / "data")
    run("key", "limit", "some-key", "--requests", "5", "--data", folder / "data")
    run("backup", folder / "backup", "--data", folder / "data")
    return folder


def run(*arguments, status=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


SCRIPT = (
    ("env", ["env"]),
    ("key create", ["key", "create", "--tenant", "t", "--access-key", "key-a", "--scope", "plain"]),
    ("key list", ["key", "list"]),
    ("key limit", ["key", "limit", "key-a", "--plan", "stored.ge"]),
    ("key limit (list)", ["key", "limit"]),
    ("key disable", ["key", "disable", "key-a"]),
    ("key enable", ["key", "enable", "key-a"]),
    ("key rotate", ["key", "rotate", "key-a"]),
    ("key delete", ["key", "delete", "key-a"]),
    ("verify", ["verify", "--read-data"]),
    ("repair", ["repair", "--dry-run"]),
    ("gc --dry-run", ["gc", "--dry-run"]),
    ("gc", ["gc"]),
    ("repair", ["repair"]),
    ("stats", ["stats", "--walk"]),
    ("stats --history", ["stats", "--history"]),
    ("lifecycle run", ["lifecycle", "run"]),
    ("lifecycle run", ["lifecycle", "run", "--dry-run"]),
    ("du", ["du"]),
    ("bucket create", ["bucket", "create", "made-here"]),
    ("bucket info", ["bucket", "info", "made-here"]),
    ("bucket prefixes", ["bucket", "prefixes", "made-here", "on"]),
    ("bucket list", ["bucket", "list"]),
    ("bucket quota", ["bucket", "quota", "made-here", "--logical", "1GiB"]),
    ("bucket quota (list)", ["bucket", "quota"]),
    ("export", ["export", "{}/exported", "--from", "suspended"]),
    ("analyze", ["analyze", "{}/exported", "--curve"]),
    ("import", ["import", "{}/exported", "--into", "made-here", "--dry-run"]),
    ("import", ["import", "{}/exported", "--into", "made-here"]),
    ("bucket delete", ["bucket", "delete", "made-here", "--force", "--dry-run"]),
    ("backup", ["backup", "{}/backup", "--dry-run"]),
    ("backup", ["backup", "{}/backup"]),
    ("backup --list", ["backup", "{}/backup", "--list"]),
    ("backup --check", ["backup", "{}/backup", "--check"]),
    ("rebuild", ["rebuild", "--dry-run"]),
    ("rebuild", ["rebuild"]),
    ("config show", ["config", "show"]),
)


def test_json_is_as_documented(world):
    data = ["--data", world / "data"]
    checked = set()
    for name, words in SCRIPT:
        where = [] if name in NO_DATA else data
        document = json.loads(run(*[word.format(world) for word in words], "--json", *where).stdout)
        assert mismatches(SHAPES[name], document) == [], name
        checked.add(name)
    for extra in (["--dry-run"], []):
        restored = run("restore", world / "backup", "--json", "--data", world / "restored", *extra)
        assert mismatches(SHAPES["restore"], json.loads(restored.stdout)) == []
    doctor = CliRunner().invoke(main, ["doctor", "--json", "--data", str(world / "data")])
    assert mismatches(SHAPES["doctor"], json.loads(doctor.stdout)) == []
    assert mismatches(SHAPES["config check"], json.loads(run("config", "check", "--json").stdout)) == []
    checked |= {"restore", "doctor", "config check"}
    elsewhere = set(SHAPES) - checked - set(TESTED_ELSEWHERE)
    assert not elsewhere, f"documented, but not tried: {elsewhere}; add them to SCRIPT"


# Shapes that need a world of their own; their tests use `mismatches` and SHAPES, too.
TESTED_ELSEWHERE: tuple[str, ...] = ()


def test_json_of_damage_is_as_documented(world, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(world / "data", damaged)
    pack = max(damaged.rglob("*.pack"), key=lambda path: path.stat().st_size)
    for parity in damaged.rglob("*.par*"):
        parity.unlink()
    content = bytearray(pack.read_bytes())
    content[1000:-1000] = bytes(len(content) - 2000)
    pack.write_bytes(content)
    document = json.loads(run("verify", "--json", "--data", damaged, status=1).stdout)
    assert document["findings"]
    assert document["affected"]
    assert mismatches(SHAPES["verify"], document) == []
    document = json.loads(run("repair", "--dry-run", "--json", "--data", damaged, status=1).stdout)
    assert mismatches(SHAPES["repair"], document) == []


# --- dry runs ---


def contents(folder):
    """Every file but what any command touches that opens a store."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in ("run", "meta", "journal", "reserve")
    }


def test_dry_runs_change_neither_store_nor_backup(world):
    data, backup = world / "data", world / "backup"
    before = contents(data), contents(backup)
    for words in (
        ["gc", "--dry-run"],
        ["repair", "--dry-run"],
        ["rebuild", "--dry-run"],
        ["lifecycle", "run", "--dry-run"],
        ["backup", backup, "--dry-run", "--keep", "1"],
        ["backup", world / "new backup", "--dry-run"],
    ):
        run(*words, "--data", data)
    run("restore", backup, "--dry-run", "--data", world / "never made")
    assert (contents(data), contents(backup)) == before
    assert not (world / "never made").exists()
    assert not (world / "new backup").exists()


def test_a_dry_run_of_a_backup_says_what_the_backup_then_does(world, tmp_path):
    data = world / "data"
    plan = json.loads(run("backup", tmp_path / "b", "--dry-run", "--json", "--data", data).stdout)
    done = json.loads(run("backup", tmp_path / "b", "--json", "--data", data).stdout)
    same = ("number", "packs", "base", "has_secrets", "removed")
    assert [plan[name] for name in same] == [done[name] for name in same]
    assert abs(plan["new_bytes"] - done["new_bytes"]) < 4096  # the commands themselves are in the journal


def test_a_dry_run_of_a_rebuild_says_what_the_rebuild_then_does(world, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(world / "data", damaged)
    for step in ("nothing", "meta lost"):
        if step == "meta lost":
            shutil.rmtree(damaged / "meta")
        plan = json.loads(run("rebuild", "--dry-run", "--json", "--data", damaged).stdout)
        assert (damaged / "meta").exists() == (step == "nothing")
        done = json.loads(run("rebuild", "--json", "--data", damaged).stdout)
        same = ("identity", "metadata", "sequence", "lost_changes", "packs")
        assert [plan[name] for name in same] == [done[name] for name in same]
    first, *_ = sorted((damaged / "journal").glob("*.log"))
    content = bytearray(first.read_bytes())
    content[len(content.rstrip(b"\0")) // 2] ^= 1
    first.write_bytes(content)
    plan = json.loads(run("rebuild", "--dry-run", "--json", "--data", damaged).stdout)
    done = json.loads(run("rebuild", "--json", "--data", damaged).stdout)
    assert plan["metadata"] == done["metadata"] == "kept"
    assert plan["sequence"] == done["sequence"]


def test_a_dry_run_of_lifecycle_counts_what_goes_and_keeps_it(world, tmp_path):
    rules = (Rule("all", enabled=True, expire_days=1),)
    data = tmp_path / "data"
    shutil.copytree(world / "data", data)
    with Store.open(data, kind="command") as store:
        with store.kv.snapshot() as reader:
            bucket = get_bucket(reader, "plain")
        store.kv.commit(lambda txn: put_config(txn, bucket.id, CONFIG, wrap_rules(rules)))
        audit_log = tmp_path / "audit.log"
        store.kv.commit(lambda txn: write_audit_log(txn, audit_log))
    planned = json.loads(run("lifecycle", "run", "--dry-run", "--json", "--data", data).stdout)
    again = json.loads(run("lifecycle", "run", "--dry-run", "--json", "--data", data).stdout)
    assert not audit_log.exists()
    served = tmp_path / "served"
    shutil.copytree(data, served)
    done = json.loads(run("lifecycle", "run", "--json", "--data", data).stdout)
    lines = audit_log.read_text().splitlines()
    assert len(lines) == done["objects"]
    assert all(json.loads(line)["action"] == "ExpireObject" for line in lines)
    with Store.open(served, kind="command") as store:  # the server does it by itself
        next(chore for chore in chores(store) if chore.name == "lifecycle").run()
    assert len(audit_log.read_text().splitlines()) == 2 * len(lines)
    assert planned["objects"] == again["objects"] == done["objects"] > 0
    assert json.loads(run("lifecycle", "run", "--json", "--data", data).stdout)["objects"] == 0


def test_a_store_without_a_root_key_says_how_to_make_one(tmp_path):
    fill(tmp_path / "data")
    assert "key create --root" in run("env", "--data", tmp_path / "data", status=1).stderr


# --- endings ---


def test_ctrl_c_is_one_line_and_status_130(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "open", interrupted)
    result = run("stats", "--data", "x", status=130)
    assert result.stderr.strip() == "Interrupted. The store is in order; run the same command again to go on."


def test_ctrl_c_ends_a_real_process_without_a_traceback(world, tmp_path):
    script = f"import os, signal; from vaultaire.store import Store; Store.open = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT); from vaultaire.cli import main; main(['stats', '--data', {str(world / 'data')!r}])"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 128 + signal.SIGINT
    assert "Traceback" not in ended.stderr
    assert ended.stderr.strip().startswith("Interrupted.")


def test_a_reader_that_leaves_is_no_error(world):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        ended = subprocess.run(
            [*PROGRAM, "stats", "--data", world / "data"],
            cwd=REPOSITORY,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 141
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serv"], "did you mean 'serve'?"),
        (["start"], "did you mean 'serve'?"),
        (["fsck"], "did you mean 'verify'?"),
        (["xyzzy"], "vaultaire --help"),
        (["serve", "--lisen", "x"], "--listen"),
        (["serve", "--listen"], "requires an argument"),
        (["serve", "--workers", "0"], "from 1 to 256"),
        (["serve", "--config", "/no/such"], "does not exist"),
        (["key", "lst"], "list"),
        (["key", "limit", "--plan", "stored.gee", "--tenant", "t"], "did you mean 'stored.ge'?"),
        (["stats", "--data", "/no/such/store"], "name the right directory with --data"),
    ],
)
def test_a_wrong_call_is_status_2_and_says_what_would_be_right(words, says):
    assert says in run(*words, status=2).stderr


def test_advice_can_be_pasted_where_vaultaire_is_not_in_the_path(monkeypatch):
    monkeypatch.setattr(output, "own_command", lambda: ".venv/bin/vaultaire")
    told = output.Failure("start it with: vaultaire serve --data x (vaultaire store, /a/vaultaire serve)")
    assert told.format_message() == (
        "start it with: .venv/bin/vaultaire serve --data x (vaultaire store, /a/vaultaire serve)"
    )


# --- progress ---


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("names", 0, 0, 0.0), "names"),
        (("names", 1200, 0, 1.0), "names: 1,200"),
        (("names", 1200, 0, 4.0), "names: 1,200, 300/s"),
        (
            ("packs", 1 << 30, 4 << 30, 8.0, "bytes"),
            "packs: 1.0 GiB of 4.0 GiB, 25 %, 128.0 MiB/s, 24 s left",
        ),
        (("mending", 4, 4, 8.0), "mending: 4 of 4, 100 %, 0/s"),
    ],
)
def test_progress_tells_rate_and_time_left(arguments, line):
    assert progress_line(*arguments) == line


def test_what_was_done_before_counts_for_no_rate():
    assert progress_line("x", 300, 400, 10.0, before=200) == "x: 300 of 400, 75 %, 10/s, 10 s left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "1 min"),
        (5399, "89 min"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_are_told_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_progress_is_one_line_that_goes_away(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    clock = Clock()
    with Progress(shown=True, clock=clock) as shown:
        shown.advance("packs", 1, 100)  # too soon: what is done within a second needs none
        assert written.getvalue() == ""
        clock.now = 5.0
        shown.advance("packs", 50, 100)
        shown.advance("packs", 60, 100)  # too soon again
    assert written.getvalue() == "\r\033[Kpacks: 50 of 100, 50 %, 9/s, 5 s left\r\033[K"


@pytest.mark.parametrize("name", ["NO_COLOR", "CI"])
def test_progress_is_quiet_unless_a_person_watches(monkeypatch, name):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert progress.wanted()
    monkeypatch.setenv(name, "1")
    assert not progress.wanted()
    monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress.wanted()


# --- completion ---


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", "vaultaire.bash"), ("zsh", "_vaultaire"), ("fish", "vaultaire.fish")]
)
def test_completion_scripts_in_contrib_are_current(shell, file):
    script = run("completion", shell).stdout
    assert "_VAULTAIRE_COMPLETE" in script
    assert (REPOSITORY / "contrib" / "completions" / file).read_text() == script, (
        f"run: vaultaire completion {shell} > contrib/completions/{file}"
    )


def completed(*words):
    from click.shell_completion import ShellComplete

    *before, incomplete = map(str, words)
    found = ShellComplete(main, {}, "vaultaire", "_VAULTAIRE_COMPLETE").get_completions(before, incomplete)
    return [item.value for item in found]


def test_commands_buckets_and_access_keys_are_completed(world, tmp_path):
    data = ("--data", world / "data")
    assert "doctor" in completed("do")
    assert set(completed("")) == set(command_names())
    assert completed("verify", *data, "--bucket", "v") == ["versioned"]
    assert completed("key", "rotate", *data, "some") == ["some-key"]
    assert completed("env", *data, "--access-key", "nobody") == []
    assert completed("key", "rotate", "--data", tmp_path / "nothing", "") == []
