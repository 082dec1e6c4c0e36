"""Every relative link of the documentation leads to a file, and to a heading in it; no page is unreachable."""

from __future__ import annotations

import re

import pytest

from tests.docs.walk import REPOSITORY, page_names

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(.+?)\s*$", re.MULTILINE)
_FENCED = re.compile(r"^ {0,3}```.*?^ {0,3}```$", re.MULTILINE | re.DOTALL)
PAGES = [name for name in page_names() if name.startswith("docs/")]


def text_of(name: str) -> str:
    return _FENCED.sub("", (REPOSITORY / name).read_text("utf-8"))


def links(name: str) -> list[str]:
    found = _LINK.findall(text_of(name))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchor(heading: str) -> str:
    """As GitHub makes it: lower case, spaces to hyphens, without what is neither."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", [*page_names(), "ARCHITECTURE.md", "CHANGELOG.md"])
def test_every_link_leads_somewhere(name):
    for link in links(name):
        path, _, wanted = link.partition("#")
        target = ((REPOSITORY / name).parent / path) if path else REPOSITORY / name
        assert target.exists(), f"{name}: {link}"
        if wanted:
            headings = _HEADING.findall(target.read_text("utf-8"))
            assert wanted in map(anchor, headings), f"{name}: {link}"


def test_every_page_is_in_the_index():
    index = (REPOSITORY / "docs/README.md").parent
    linked = {(index / link.partition("#")[0]).resolve() for link in links("docs/README.md")}
    missing = [name for name in PAGES if (REPOSITORY / name).resolve() not in linked]
    assert missing == ["docs/README.md"]
