"""Walks through a page as a reader does: runs what can be run, checks the rest, compares what is shown.

What is run is decided by marks alone (CONTRIBUTING.md, Documentation); the walk itself leaves nothing out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docs import programs
from tests.docs.checks import check
from tests.docs.pages import PROGRAMS, SHELL, Page, missing_line, parse
from tests.docs.sandbox import BlockFailed, Sandbox, is_serve

if TYPE_CHECKING:
    from tests.docs.pages import Block

REPOSITORY = programs.REPOSITORY


def page_names() -> list[str]:
    """Every page that this test answers for, relative to the repository."""
    found = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
    found += sorted((REPOSITORY / "docs").rglob("*.md"))
    found += sorted((REPOSITORY / "vaultaire/s3").glob("*.md"))
    return [str(path.relative_to(REPOSITORY)) for path in found]


def read_page(name: str) -> Page:
    return parse(name, Path(REPOSITORY / name).read_text(encoding="utf-8"))


def needed(page: Page, block: Block) -> set[str]:
    """The programs without which the block is only checked."""
    words = {word.strip() for word in block.marks.get("needs", "").split(",")} - {""}
    language = {"js": {"node"}, "go": {"go"}, "sql": {"duckdb"}}.get(block.language, set())
    return words | language | set(page.needs)


def runs_here(page: Page, block: Block) -> bool:
    return block.not_run is None and all(programs.find(name) for name in needed(page, block))


def starts_server(block: Block) -> bool:
    return block.language in SHELL and any(map(is_serve, block.content.splitlines()))


def wants_own_server(page: Page) -> bool:
    """A page that starts a server, or says that it changes one beyond its buckets."""
    started = any(block.not_run is None and starts_server(block) for block in page.blocks)
    return started or "own server" in page.flags


def is_run(page: Page) -> bool:
    return any(block.runnable and block.not_run is None for block in page.blocks)


def walk(page: Page, sandbox: Sandbox) -> None:
    """Raises BlockFailed at the first block that does not do what the page says."""
    ready = not any(programs.find(name) is None for name in page.needs)
    running = [block for block in page.blocks if block.runnable and block.not_run is None]
    if wants_own_server(page) and ready and not starts_server(running[0]):
        sandbox.run_shell("vaultaire serve\n", page.name)
    if page.prepare and ready:
        sandbox.run_shell(page.prepare + "\n", f"{page.name} (prepare)")
    for block, shown in page.outputs():
        check(block)
        if "file" in block.marks:
            sandbox.write(block)
        elif block.runnable and runs_here(page, block):
            _run(sandbox, block, shown)


def _run(sandbox: Sandbox, block: Block, shown: Block | None) -> None:
    status = tuple(int(word) for word in re.findall(r"\d+", block.marks.get("exits", "0")))
    if block.language in PROGRAMS:
        printed = sandbox.run_program(block, status)
    else:
        printed = sandbox.run_shell(block.content, block.where, status)
    if shown is None:
        return
    said = sandbox.pages_words(printed)
    missing = missing_line(shown.content, said, shape=shown.marks.get("output") == "shape")
    if missing is not None:
        raise BlockFailed(
            f"{shown.where}: this line is shown, and was not printed:\n{missing}\n--- printed\n{said}"
        )
