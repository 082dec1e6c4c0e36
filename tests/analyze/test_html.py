"""The page: well-formed, nothing from outside, and no name gets out of its place."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

import pytest

from vaultaire.analyze.curve import Point
from vaultaire.analyze.html import page
from vaultaire.analyze.kinds import Nature
from vaultaire.analyze.report import Answer, Group, Obstacle
from vaultaire.analyze.tally import Shares
from vaultaire.cli.analyze import printable, summary
from vaultaire.moving.report import Failed

EVIL = "<script>alert(1)</script>\"'&\ud800/"
SHARES = Shares(10**9, 6 * 10**8, 3 * 10**8, 5 * 10**7, 10**6, 20_000)


def answer(name=EVIL, **changes):
    made = Answer(
        source=name,
        complete=False,
        interrupted=True,
        failure=f"{name} is gone",
        seconds=1.5,
        objects=3,
        inline_objects=1,
        chunks=20_000,
        packs=5,
        shares=SHARES,
        incompressible_bytes=0,
        sampled=0.25,
        compressed=0.25,
        chosen=True,
        error_bytes=1e6,
        folders=(Group(name, Nature.PLAIN, 3, SHARES),) * 60,
        types=(Group(name, Nature.MEDIA, 3, Shares(0, 0, 0, 0, 0, 0)),),
        curve=(
            Point(16384, 40_000, 5 * 10**8, 3 * 10**8, False),
            Point(32768, 20_000, 6 * 10**8, 4 * 10**8, True),
        ),
        warnings=(Obstacle("media", 5, 0.5, f"{name}: media"),),
        notes={"links": 3},
        failed=2,
        failures=(Failed(name, "it cannot be read"),),
    )
    return dataclasses.replace(made, **changes)


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("name", [EVIL, "plain", "/* ]]> -->", "\u202e"])
def test_the_page_is_whole_and_names_are_only_text(name):
    text = page(answer(name))
    found = Reader(text)
    assert found.open == []
    assert not {"script", "img", "link", "iframe", "a", "object"} & set(found.tags)
    assert not {key for key, _ in found.attributes} & {"src", "href", "onload", "onclick", "style", "srcset"}
    assert "url(" not in text
    assert "//" not in "".join(value or "" for _, value in found.attributes)
    assert text.encode()
    shown = name.encode(errors="backslashreplace").decode()
    assert sum(shown in word for word in found.words) >= 50


def test_the_bars_add_up_to_their_width():
    found = Reader(page(answer(curve=())))
    first = [float(value) for key, value in found.attributes if key == "width"][:5]
    assert abs(sum(first) - 1000) < 0.1


def test_a_page_of_nothing_is_a_page():
    empty = answer("x", shares=Shares(0, 0, 0, 0, 0, 0), folders=(), types=(), curve=(), error_bytes=None)
    assert Reader(page(empty)).open == []


def test_a_name_does_not_move_the_cursor():
    assert printable("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb\\nc\\u202e"
    assert printable("größe/") == "größe/"


def test_prefix_savings_and_errors_are_told():
    told = "\n".join(line for line, _ in summary(answer()))
    assert "prefix      -47.7 MiB" in told
    assert "+- 976.6 KiB" in told
    assert "too little" in "\n".join(line for line, _ in summary(answer(error_bytes=None)))
