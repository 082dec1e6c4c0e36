"""Markdown pages as the test of the documentation sees them: fenced blocks, and the marks above them.

Pure: text in, blocks out. Guarantees: every fenced block of a page is reported, in order, with its line; what cannot be
understood (a fence without a language, code that is only indented, an unknown mark, a mark above nothing) is a
PageError that names page and line, so nothing is left out quietly. CONTRIBUTING.md says how authors mark blocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELL: Final = ("sh", "bash")
PROGRAMS: Final = ("python", "js", "go", "sql")
DATA: Final = ("toml", "yaml", "json", "ini", "nginx", "caddy", "xml", "haproxy", "systemd")
OUTPUT: Final = ("console", "text")
LANGUAGES: Final = (*SHELL, *PROGRAMS, *DATA, *OUTPUT)

# Marks of the block below them, and marks of the whole page.
BLOCK_MARKS: Final = ("not run", "file", "exits", "needs", "output")
PAGE_MARKS: Final = ("page needs", "page", "prepare")

_FENCE = re.compile(r"^( {0,3})(```+|~~~+)\s*(\S*)\s*$")
_MARK = re.compile(r"<!--\s*(" + "|".join((*BLOCK_MARKS, *PAGE_MARKS)) + r")\s*:\s*(.*?)\s*-->", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_KNOWN_OTHERS = ("markdownlint", "prettier")


class PageError(AssertionError):
    """A page that cannot be tested as it stands; the text says where and what to write instead."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `line` is where its content begins, from 1. `marks`: mark -> what follows its colon."""

    page: str
    line: int
    language: str
    content: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runnable(self) -> bool:
        return self.language in SHELL or self.language in PROGRAMS

    @property
    def not_run(self) -> str | None:
        """Why it is only checked, not run; None: it is run."""
        return self.marks.get("not run")


@dataclass(frozen=True, slots=True)
class Page:
    name: str
    blocks: list[Block]
    needs: tuple[str, ...]  # programs without which no block of the page is run
    flags: tuple[str, ...]  # full, client, own server
    prepare: str  # shell commands before the first block: what the page takes for given

    def outputs(self) -> Iterator[tuple[Block, Block | None]]:
        """Each block but those of output, and the block that shows what it prints, if one follows it."""
        following = [*self.blocks, None][1:]
        for block, after in zip(self.blocks, following, strict=True):
            if not shows_output(block):
                shown = after if block.runnable and after is not None and shows_output(after) else None
                yield block, shown


def shows_output(block: Block) -> bool:
    return block.language in OUTPUT or "output" in block.marks


def parse(name: str, text: str) -> Page:
    """The page of that name. Raises PageError."""
    blocks: list[Block] = []
    page_marks: dict[str, list[str]] = {mark: [] for mark in PAGE_MARKS}
    pending: dict[str, str] = {}
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.lstrip().startswith("<!--"):
            comment, at = _comment(name, lines, at)
            for mark, value in _marks_of(name, at, comment):
                if mark in PAGE_MARKS:
                    page_marks[mark].append(value)
                else:
                    pending[mark] = value
            continue
        if fence := _FENCE.match(line):
            block, at = _block(name, lines, at, fence, pending)
            blocks.append(block)
            pending = {}
            continue
        if line.strip() and pending:
            raise PageError(f"{name}:{at + 1}: a mark must stand directly above its block: {pending}")
        _refuse_indented(name, lines, at)
        at += 1
    _refuse_stray_output(blocks)
    return Page(
        name=name,
        blocks=blocks,
        needs=tuple(word for value in page_marks["page needs"] for word in _words(value)),
        flags=tuple(word for value in page_marks["page"] for word in _words(value)),
        prepare="\n".join(page_marks["prepare"]),
    )


def _words(value: str) -> list[str]:
    return [word.strip() for word in value.split(",") if word.strip()]


def _comment(name: str, lines: list[str], at: int) -> tuple[str, int]:
    gathered = []
    for end in range(at, len(lines)):
        gathered.append(lines[end])
        if "-->" in lines[end]:
            return "\n".join(gathered), end + 1
    raise PageError(f"{name}:{at + 1}: this comment has no end")


def _marks_of(name: str, line: int, comment: str) -> Iterator[tuple[str, str]]:
    found = False
    for match in _MARK.finditer(comment):
        found = True
        if not match[2]:
            raise PageError(f"{name}:{line}: the mark {match[1]!r} says nothing")
        yield match[1], match[2]
    if not found and not any(word in comment for word in _KNOWN_OTHERS):
        raise PageError(f"{name}:{line}: an unknown mark {comment!r}; see CONTRIBUTING.md, Documentation")


def _block(
    name: str, lines: list[str], at: int, fence: re.Match[str], marks: dict[str, str]
) -> tuple[Block, int]:
    indent, ticks, language = fence.groups()
    if language not in LANGUAGES:
        raise PageError(
            f"{name}:{at + 1}: a fenced block of language {language!r}; known are {', '.join(LANGUAGES)}"
        )
    content: list[str] = []
    for end in range(at + 1, len(lines)):
        if lines[end].strip() == ticks:
            return Block(name, at + 2, language, "\n".join(content) + "\n", marks), end + 1
        content.append(lines[end].removeprefix(indent))
    raise PageError(f"{name}:{at + 1}: this block has no end")


_LIST_ITEM = re.compile(r"^\s*([-*+]|\d+\.)\s")


def _refuse_indented(name: str, lines: list[str], at: int) -> None:
    """Code by four spaces has no language, so nobody knows what to do with it. (Lists go on indented.)"""
    if not lines[at].startswith("    ") or (at and lines[at - 1].strip()):
        return
    above = next((line for line in reversed(lines[:at]) if line.strip() and not line.startswith("  ")), "")
    if not _LIST_ITEM.match(above):
        raise PageError(f"{name}:{at + 1}: code that is only indented; fence it, and name its language")


def _refuse_stray_output(blocks: list[Block]) -> None:
    before: Block | None = None
    for block in blocks:
        stray = shows_output(block) and (before is None or not before.runnable)
        if (
            stray and block.language != "text" and block.not_run is None
        ):  # text alone is a form, a line of a file
            raise PageError(
                f"{block.where}: shows the output of nothing; say `<!-- not run: why -->` above it"
            )
        before = block


# -- shown output

_GAP = "..."
_NUMBER = re.compile(r"\d[\d,.]*\d|\d")


def missing_line(shown: str, printed: str, *, shape: bool) -> str | None:
    """The first line of `shown` that is not in `printed`, in order; None: all are there.

    `...` stands for anything, alone on a line for any lines. Runs of spaces are one. With `shape`, each number stands
    for any number: what matters is which figures are shown, not their values.
    """
    left = [" ".join(line.split()) for line in printed.splitlines()]
    at = 0
    for line in shown.splitlines():
        wanted = " ".join(line.split())
        if not wanted or wanted == _GAP:
            continue
        pattern = re.compile(_pattern(wanted, shape=shape))
        while at < len(left) and not pattern.fullmatch(left[at]):
            at += 1
        if at == len(left):
            return line
        at += 1
    return None


def _pattern(line: str, *, shape: bool) -> str:
    parts = []
    for piece in line.split(_GAP):
        if shape:
            parts.append(_NUMBER.sub("\0", piece))
        else:
            parts.append(piece)
    escaped = [re.escape(part).replace("\\\0", "\0").replace("\0", r"\d[\d,.]*") for part in parts]
    return ".*".join(escaped)
