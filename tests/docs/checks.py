"""What can be checked of a block without running it. Every check raises BlockFailed with page and line, or returns."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import tomllib
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click

from tests.docs.pages import DATA, SHELL
from tests.docs.sandbox import BlockFailed
from vaultaire.cli import main

if TYPE_CHECKING:
    from tests.docs.pages import Block

_ASSIGNMENT = re.compile(r"^\w+=")


def check(block: Block) -> None:
    """The syntax of a block, and whether the commands and options of ours that it names exist."""
    if block.language in SHELL:
        check_shell(block)
    elif block.language == "python":
        _parsed(block, lambda: compile(block.content, block.where, "exec"), SyntaxError)
    elif block.language in DATA:
        check_data(block)


def check_shell(block: Block) -> None:
    done = subprocess.run(
        ["bash", "-n"], input=block.content, capture_output=True, text=True, timeout=20, check=False
    )
    if done.returncode:
        raise BlockFailed(f"{block.where}: no shell: {done.stderr}")
    for arguments in our_commands(block.content):
        try:
            check_command(arguments)
        except click.UsageError as error:
            words = " ".join(arguments)
            raise BlockFailed(f"{block.where}: vaultaire {words}: {error.format_message()}") from error


def our_commands(script: str) -> list[list[str]]:
    """The arguments of each call of vaultaire in the script, as far as words show it."""
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        try:
            words = list(shlex.shlex(line, posix=True, punctuation_chars=True))
        except ValueError:
            continue  # a here document, say; bash has parsed it
        call: list[str] | None = None
        for word in words:
            if call is None:
                if word.rsplit("/", 1)[-1] == "vaultaire":
                    call = []
            elif re.fullmatch(r"[;&|()<>]+", word):
                found.append(call)
                call = None
            else:
                call.append(word)
        if call:
            found.append(call)
    return found


def check_command(arguments: list[str]) -> None:
    """Raises click.UsageError if there is no such command or option. Values are not looked at."""
    group: click.Command = main
    context = click.Context(main, info_name="vaultaire")
    rest = list(arguments)
    while isinstance(group, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        command = group.get_command(context, name)
        if command is None:
            if context.parent is not None or not re.fullmatch(r"[a-z-]+", name):
                return
            raise click.UsageError(f"no command {name!r}")
        group, context = command, click.Context(command, info_name=name, parent=context)
    known = {option for parameter in group.get_params(context) for option in parameter.opts}
    known |= {option for parameter in group.get_params(context) for option in parameter.secondary_opts}
    for word in rest:
        option = word.partition("=")[0]
        if option.startswith("--") and option != "--" and option not in known:
            raise click.NoSuchOption(option, possibilities=sorted(known))


def check_data(block: Block) -> None:
    if block.language == "toml":
        _parsed(block, lambda: tomllib.loads(block.content), tomllib.TOMLDecodeError)
    elif block.language == "json":
        _parsed(block, lambda: json.loads(block.content), json.JSONDecodeError)
    elif block.language == "xml":
        _parsed(block, lambda: ElementTree.fromstring(block.content), ElementTree.ParseError)
    elif block.language == "yaml":
        import yaml

        _parsed(block, lambda: list(yaml.safe_load_all(block.content)), yaml.YAMLError)
    elif block.language in ("ini", "systemd"):
        parser = configparser.RawConfigParser(strict=False, allow_no_value=True, delimiters=("=",))
        # Many programs' files are such lines without sections.
        head = "" if block.content.lstrip("#; \n").startswith("[") else "[top]\n"
        _parsed(block, lambda: parser.read_string(head + block.content), configparser.Error)


def _parsed(block: Block, parse, error: type[Exception]) -> None:
    try:
        parse()
    except error as reason:
        raise BlockFailed(f"{block.where}: no {block.language}: {reason}") from reason
