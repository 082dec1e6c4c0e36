"""Where the blocks of a page are run: a home and a directory of their own, a server, and the state of one shell.

Guarantees: nothing outside `root` is written (paths such as /mnt/other-disk and /srv are put below it, ~ is `root/home`,
port 9000 is the server's own); every process that a page starts has ended when `close` returns; what one block
exports or where it changes to, the next one finds, as in a terminal. Programs that would install something (pip, npm,
apt-get, python -m venv) are replaced by ones that check that what is asked for is known, and install nothing.

Not a sandbox against hostile pages: they are as trusted as the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.docs import programs
from tests.s3.harness import READY, START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docs.pages import Block

BLOCK_SECONDS: Final = 120.0  # a hang is a failure
KEY_PLACEHOLDER: Final = "VKAAAAAAAAAAAAAAAAAA"

_ADDRESS = re.compile(r"\b(?:127\.0\.0\.1|0\.0\.0\.0|localhost|HOST):9000\b|(?<=:)9000(?=[/\"' ])")
_OUTSIDE = re.compile(r"(?<![\w.$}/:-])/(?=(?:mnt|srv|etc|var/lib|var/log|opt|backup)\b)")
_SERVE = re.compile(r"^(?!\s*#).*?(?:^|[\s/])vaultaire(?:\s+--\S+)*\s+serve\b(?!.*--help)", re.MULTILINE)
_ACCESS_KEY = re.compile(r"\bVK[A-Z0-9]{18}\b")
_MAKES_KEY = re.compile(r"\bkey (?:create|rotate)\b")


class BlockFailed(AssertionError):
    """A block did not do what the page says. The text has page, line, commands and output."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_serve(line: str) -> bool:
    return _SERVE.search(line) is not None


def segments(script: str) -> Iterator[tuple[bool, str]]:
    """The script in pieces: (False, lines to run) and (True, one line that starts a server), in order."""
    lines: list[str] = []
    for line in re.findall(r"(?:[^\n]*\\\n)*[^\n]*\n", script):
        if not is_serve(line):
            lines.append(line)
            continue
        if lines:
            yield False, "".join(lines)
            lines = []
        yield True, line.strip()
    if "".join(lines).strip():
        yield False, "".join(lines)


class Sandbox:
    """One page's world. `shared_data`: the store of a server that runs already, on `port`; None: the page has its own."""

    def __init__(self, root: Path, *, port: int = 0, shared_data: Path | None = None) -> None:
        self.root = root
        self.home = root / "home"
        self.port = port or free_port()
        self.key = KEY_PLACEHOLDER
        self._known_keys: set[str] = set()
        self._state = root / "state.sh"
        self._server: subprocess.Popen[bytes] | None = None
        self._log = root / "serve.log"
        self._make_home()
        make_programs(root / "bin")
        environment = self._environment(shared_data)
        self._state.write_text(f"cd {root / 'home/work'}\n")
        self.environment = environment

    def _make_home(self) -> None:
        for folder in ("work", "Documents", "Pictures"):
            (self.home / folder).mkdir(parents=True)
        for number in range(3):
            (self.home / "Documents" / f"letter-{number}.txt").write_text(f"Dear reader {number},\n" * 40)
            (self.home / "Pictures" / f"picture-{number}.jpg").write_bytes(bytes(range(256)) * (300 + number))
        if programs.find("duckdb") is not None:
            put_duckdb_extension(self.home)
        for folder in ("mnt/other-disk", "srv", "var/lib", "var/log", "etc", "opt"):
            (self.root / folder).mkdir(parents=True)

    def _environment(self, shared_data: Path | None) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("TMPDIR", "SYSTEMROOT") if name in os.environ}
        found = {
            **kept,
            "HOME": str(self.home),
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
            "RESTIC_PASSWORD": "typed by hand",  # what a person types where a program asks
            "BORG_PASSPHRASE": "typed by hand",
            "KOPIA_PASSWORD": "typed by hand",
            "KOPIA_CHECK_FOR_UPDATES": "false",
            "RESTIC_PROGRESS_FPS": "0.01",
            "VAULTAIRE_LISTEN": f"127.0.0.1:{self.port}",
            "VAULTAIRE_WORKERS": "1",
            "GOFLAGS": "-mod=mod",
            "GOTOOLCHAIN": "local",
            **_go_caches(),
        }
        if shared_data is not None:
            found["VAULTAIRE_DATA"] = str(shared_data)
        return found

    # -- text of a page -> text for this sandbox

    def localised(self, text: str) -> str:
        text = _OUTSIDE.sub(f"{self.root}/", text)
        text = _ADDRESS.sub(lambda match: self._address(match[0]), text)
        return text.replace(KEY_PLACEHOLDER, self.key)

    def _address(self, found: str) -> str:
        return str(self.port) if found == "9000" else f"127.0.0.1:{self.port}"

    def pages_words(self, printed: str) -> str:
        """What was printed here, in the words of the page: the way back of `localised`."""
        printed = printed.replace(f"127.0.0.1:{self.port}", "127.0.0.1:9000")
        printed = printed.replace(str(self.home / "work"), "/home/you").replace(str(self.home), "/home/you")
        printed = printed.replace(f"{self.root}/", "/")
        return printed.replace(self.key, KEY_PLACEHOLDER) if self.key != KEY_PLACEHOLDER else printed

    # -- running

    def run_shell(self, script: str, where: str, status: tuple[int, ...] = (0,)) -> str:
        """What the script prints, both streams together. Raises BlockFailed unless it ends with `status`."""
        printed = []
        localised = self.localised(script)
        for serves, piece in segments(localised):
            printed.append(self.serve(piece, where) if serves else self._run(piece, where, status))
        output = "".join(printed)
        self._note_keys(script, output)
        return output

    def _run(self, script: str, where: str, status: tuple[int, ...]) -> str:
        wrapped = (
            f"set -ea\nsource {self._state}\n{script}\n{{ export -p; echo cd \"'$PWD'\"; }} >{self._state}\n"
        )
        return self.run(["bash", "-c", wrapped], where, status=status, shown=script)

    def run(self, command: list[str], where: str, *, status: tuple[int, ...] = (0,), shown: str = "") -> str:
        """Run one program in the home's working directory, without the state of the shell."""
        log = self.root / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.home / "work",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                found: int | str = process.wait(BLOCK_SECONDS)
            except subprocess.TimeoutExpired:
                found = f"none after {BLOCK_SECONDS:.0f} s"
            finally:
                _end_group(process, signal.SIGKILL)
        text = log.read_text(errors="replace")
        if found not in status:
            served = self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""
            raise BlockFailed(
                f"{where}: exit status {found}, expected {' or '.join(map(str, status))}\n{shown or command}\n--- printed\n{text[-4000:]}"
                f"\n--- server\n{served}"
            )
        return text

    def run_program(self, block: Block, status: tuple[int, ...] = (0,)) -> str:
        """A block of another language, in the shell's environment and directory."""
        runner = {"python": "python {0}", "js": "node {0}", "go": "go run {0}"}[block.language]
        suffix = {"python": "py", "js": "mjs", "go": "go"}[block.language]
        path = self.home / "work" / f"block-{block.line}.{suffix}"
        path.write_text(self.localised(block.content))
        return self._run(runner.format(path.name), block.where, status)

    def write(self, block: Block) -> None:
        """The file that a block shows, where its mark says. Names that begin with ~/ or / are put in the sandbox."""
        name = block.marks["file"]
        place = self.localised(name.replace("~", str(self.home), 1) if name.startswith("~/") else name)
        path = self.home / "work" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.localised(block.content))

    def _note_keys(self, script: str, output: str) -> None:
        """VKAAA... in later blocks means the key that was made last."""
        new = [key for key in dict.fromkeys(_ACCESS_KEY.findall(output)) if key not in self._known_keys]
        made = len(_MAKES_KEY.findall(script))
        if made and new:
            self.key = new[min(made, len(new)) - 1]
        self._known_keys |= set(new)

    # -- the server

    def serve(self, line: str, where: str) -> str:
        """Start the server with the page's own line, in the background; what it printed until it was ready."""
        self.stop_server()
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                ["bash", "-c", f"set -ea\nsource {self._state}\n{line}\n"],
                cwd=self.home / "work",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            text = self._log.read_text(errors="replace")
            if any(READY.match(said.strip()) for said in text.splitlines()):
                return text
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.stop_server()
                raise BlockFailed(f"{where}: the server is not ready\n{line}\n--- printed\n{text[-4000:]}")
            time.sleep(0.02)

    def stop_server(self) -> None:
        if self._server is None:
            return
        _end_group(self._server, signal.SIGTERM)
        try:
            self._server.wait(START_SECONDS)
        finally:
            _end_group(self._server, signal.SIGKILL)
            self._server = None

    def close(self) -> None:
        self.stop_server()


def _end_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    if number == signal.SIGKILL:
        process.wait()


def _go_caches() -> dict[str, str]:
    """Go keeps what it downloaded and built under HOME, which is another one here."""
    go = shutil.which("go")
    if go is None:
        return {}
    names = ["GOMODCACHE", "GOCACHE", "GOPROXY"]
    values = subprocess.run([go, "env", *names], capture_output=True, text=True, timeout=20).stdout.split(
        "\n"
    )
    return dict(zip(names, values, strict=False))


def put_duckdb_extension(home: Path) -> None:
    """What `INSTALL httpfs` would download, from the package of that name."""
    import duckdb
    import duckdb_extension_httpfs

    source = next(Path(duckdb_extension_httpfs.__file__).parent.rglob("*.duckdb_extension"))
    (platform,) = duckdb.connect().execute("PRAGMA platform").fetchone()
    folder = home / ".duckdb/extensions" / f"v{duckdb.__version__}" / platform
    folder.mkdir(parents=True)
    shutil.copy(source, folder / source.name)


# -- programs of the sandbox

_PYTHON = """#!/bin/bash
# python3 -m venv DIR: a directory whose bin/ has what this sandbox has.
if [[ "$1 $2" == "-m venv" ]]; then mkdir -p "$3" && ln -sfn {bin} "$3/bin"; exit; fi
if [[ "$1 $2" == "-m pip" ]]; then shift 2; exec {bin}/pip "$@"; fi
exec {python} "$@"
"""
_VAULTAIRE = """#!/bin/bash
PYTHONPATH={repository} exec {python} -m vaultaire "$@"
"""
_SUDO = """#!/bin/bash
exec "$@"
"""
_GO = """#!/bin/bash
# go mod init, go get: the module and the versions with which the tests are run.
case "$1" in
    mod) exec cp {module}/go.mod {module}/go.sum .;;
    get) exec {python} {installers} go install "${{@:2}}";;
    *) exec {go} "$@";;
esac
"""
_INSTALLER = """#!/bin/bash
exec {python} {installers} "$(basename "$0")" "$@"
"""


def make_programs(folder: Path) -> None:
    """Fill `folder` with the programs that pages may call; what is not here is not there either."""
    folder.mkdir()
    words = {
        "python": sys.executable,
        "repository": programs.REPOSITORY,
        "bin": folder,
        "installers": Path(__file__).with_name("installers.py"),
    }
    texts = {"python": _PYTHON, "python3": _PYTHON, "vaultaire": _VAULTAIRE, "sudo": _SUDO}
    texts |= dict.fromkeys(("pip", "npm", "apt-get", "pipx"), _INSTALLER)
    if (go := programs.find("go")) is not None:
        texts["go"] = _GO
        words |= {"go": go, "module": programs.GO_MODULE}
    for name, text in texts.items():
        path = folder / name
        path.write_text(text.format(**words))
        path.chmod(0o755)
    for name in programs.HOW:
        found = programs.find(name)
        if found is not None and name not in ("duckdb", *texts):
            (folder / name).symlink_to(found)
