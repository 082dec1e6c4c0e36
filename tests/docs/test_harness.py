"""The test of the documentation can fail: pages that lie, in each of the ways that it is to notice."""

from __future__ import annotations

import click
import pytest

from tests.docs.checks import check, check_command, our_commands
from tests.docs.pages import PageError, missing_line, parse
from tests.docs.sandbox import BlockFailed, Sandbox, is_serve, segments
from tests.docs.walk import walk, wants_own_server


def page(*lines: str):
    return parse("page.md", "\n".join(lines))


@pytest.mark.parametrize(
    "lines",
    [
        ("```", "ls", "```"),
        ("```cobol", "x", "```"),
        ("```sh", "ls"),
        ("text", "", "    vaultaire serve"),
        ("<!-- norun: typo -->", "```sh", "ls", "```"),
        ("<!-- not run: far above -->", "text", "```sh", "ls", "```"),
        ("```console", "out of nothing", "```"),
        ("<!-- not run: never closed",),
    ],
)
def test_what_cannot_be_understood_is_refused(lines):
    with pytest.raises(PageError, match=r"page\.md:\d+"):
        page(*lines)


def test_marks_belong_to_the_block_below_and_to_the_page():
    found = page(
        "<!-- page: own server, full -->",
        "<!-- page needs: kopia -->",
        "<!-- prepare: a; b -->",
        "<!-- exits: 1 -->",
        "<!-- needs: mc -->",
        "```sh",
        "false",
        "```",
        "1. in a list",
        "   ```json",
        "   {}",
        "   ```",
    )
    assert (found.flags, found.needs, found.prepare) == (("own server", "full"), ("kopia",), "a; b")
    assert [block.marks for block in found.blocks] == [{"exits": "1", "needs": "mc"}, {}]
    assert [(block.language, block.content) for block in found.blocks] == [
        ("sh", "false\n"),
        ("json", "{}\n"),
    ]


@pytest.mark.parametrize(
    ("shown", "printed", "shape", "missing"),
    [
        ("a\nb", "x\na\ny\nb", False, None),
        ("b\na", "a\nb", False, "a"),
        ("key ...", "key   VKX", False, None),
        ("a b", "a   b", False, None),
        ("3 objects", "5 objects", False, "3 objects"),
        ("3 objects", "1,500 objects", True, None),
        ("3 objects", "3 buckets", True, "3 objects"),
        ("x1.95", "x2", True, None),
        ("ab", "abc", False, "ab"),
    ],
)
def test_what_is_shown_must_be_printed_in_order(shown, printed, shape, missing):
    assert missing_line(shown, printed, shape=shape) == missing


@pytest.mark.parametrize(
    ("line", "serves"),
    [
        ("vaultaire serve", True),
        ("test -d .venv || x && .venv/bin/vaultaire serve --parity 5", True),
        ("A=b vaultaire serve", True),
        ("# vaultaire serve", False),
        ("vaultaire serve --help", False),
        ("vaultaire stats", False),
        ("cat vaultaire-serve.md", False),
    ],
)
def test_lines_that_start_a_server_are_found(line, serves):
    assert is_serve(line) is serves


def test_a_script_is_cut_at_its_servers():
    assert list(segments("a\nvaultaire serve \\\n  --parity 5\nb\n")) == [
        (False, "a\n"),
        (True, "vaultaire serve \\\n  --parity 5"),
        (False, "b\n"),
    ]


def test_commands_of_ours_are_found_wherever_they_stand():
    script = 'eval "$(vaultaire env)"\nsudo .venv/bin/vaultaire key list --json | jq . && vaultaire stats\n'
    assert ["key", "list", "--json"] in our_commands(script)
    assert ["stats"] in our_commands(script)


@pytest.mark.parametrize("arguments", [["key", "create", "--bukcet", "x"], ["stast"], ["gc", "--dryrun"]])
def test_commands_and_options_that_do_not_exist_are_noticed(arguments):
    with pytest.raises(click.UsageError):
        check_command(arguments)


@pytest.mark.parametrize(
    ("language", "content"),
    [("sh", "if"), ("sh", "vaultaire verify --bogus"), ("toml", "a ="), ("json", "{,}"), ("yaml", "a: [")],
)
def test_blocks_that_do_not_parse_are_noticed(language, content):
    (block,) = page(f"```{language}", content, "```").blocks
    with pytest.raises(BlockFailed, match=r"page\.md:2"):
        check(block)


@pytest.mark.parametrize(
    "lines",
    [
        ("```sh", "false", "```"),
        ("```sh", "echo one", "```", "```text", "two", "```"),
        ("<!-- exits: 1 -->", "```sh", "true", "```"),
        ("```sh", "pip install no-such-package-here", "```"),
        ("```sh", "apt-get install no-such-package-here", "```"),
    ],
)
def test_pages_that_lie_fail(lines, tmp_path):
    lying = page(*lines)
    assert not wants_own_server(lying)
    with pytest.raises(BlockFailed):
        walk(lying, Sandbox(tmp_path / "s", port=9))


def test_blocks_share_one_shell_and_its_directory(tmp_path):
    told = page(
        "```sh",
        "mkdir deep && cd deep",
        "word=kept",
        "```",
        "```sh",
        'echo "$word in $(basename "$PWD")" at 127.0.0.1:9000',
        "```",
        "```text",
        "kept in deep at 127.0.0.1:9000",
        "```",
    )
    walk(told, Sandbox(tmp_path / "s", port=9))


def test_paths_and_keys_of_a_page_are_those_of_the_sandbox(tmp_path):
    sandbox = Sandbox(tmp_path / "s", port=1234)
    sandbox.run_shell(
        "echo vaultaire key create; echo VKBBBBBBBBBBBBBBBBBB # vaultaire key create\n", "page.md:1"
    )
    text = sandbox.localised("x --to /mnt/disk ~/a http://127.0.0.1:9000/ VKAAAAAAAAAAAAAAAAAA 10.0.0.1/mnt")
    assert (
        text == f"x --to {tmp_path}/s/mnt/disk ~/a http://127.0.0.1:1234/ VKBBBBBBBBBBBBBBBBBB 10.0.0.1/mnt"
    )
