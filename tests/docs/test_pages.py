"""Every command in README.md and docs/ is run, and does what the page says; what is not run is counted.

CONTRIBUTING.md, Documentation, says how blocks are marked.
"""

from __future__ import annotations

import collections
from contextlib import suppress
from typing import TYPE_CHECKING

import boto3
import pytest

from tests.docs import programs
from tests.docs.pages import PageError
from tests.docs.sandbox import Sandbox
from tests.docs.walk import is_run, needed, page_names, read_page, walk, wants_own_server
from tests.s3.harness import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

# How many blocks of a page are not run. A new one is added here by hand, so that the number does not grow unnoticed.
NOT_RUN = {
    "CONTRIBUTING.md": 3,
    "README.md": 1,
    "docs/backup.md": 1,
    "docs/moving.md": 3,
    "docs/recipes/pgbackrest.md": 1,
    "docs/recipes/s3fs.md": 1,
    "docs/recipes/velero.md": 1,
    "docs/upgrade.md": 1,
}


def _parameters() -> Iterator[object]:
    for name in page_names():
        try:
            page = read_page(name)
        except PageError:  # the test of that page then says where and why
            yield pytest.param(name)
            continue
        if is_run(page):
            marks = [getattr(pytest.mark, flag) for flag in page.flags if flag in ("full", "client")]
            yield pytest.param(name, marks=[pytest.mark.slow, *marks])


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Server]:
    """The server of all pages that need nothing but buckets of their own."""
    with Server(tmp_path_factory.mktemp("shared") / "data") as server:
        yield server


@pytest.fixture
def sandbox(request, tmp_path) -> Iterator[Sandbox]:
    page = read_page(request.getfixturevalue("name"))
    if wants_own_server(page):
        world = Sandbox(tmp_path / "s")
    else:
        server: Server = request.getfixturevalue("shared")
        world = Sandbox(tmp_path / "s", port=server.port, shared_data=server.data)
    try:
        yield world
    finally:
        world.close()
        if not wants_own_server(page):
            remove_buckets(server)


def remove_buckets(server: Server) -> None:
    """Leave the shared server as it was, so that pages may use the same names."""
    s3 = boto3.resource(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    for bucket in s3.buckets.all():
        bucket.object_versions.delete()
        bucket.delete()


@pytest.mark.parametrize("name", list(_parameters()))
def test_what_the_page_says_is_true(name, sandbox):
    walk(read_page(name), sandbox)


@pytest.mark.parametrize("name", page_names())
def test_every_block_is_at_least_well_formed(name):
    from tests.docs.checks import check

    for block, _ in read_page(name).outputs():
        check(block)


def test_blocks_that_are_not_run_are_counted():
    found = collections.Counter(
        block.page for name in page_names() for block in read_page(name).blocks if block.not_run is not None
    )
    assert dict(found) == NOT_RUN


def _pages_by_program() -> dict[str, set[str]]:
    wanted: dict[str, set[str]] = collections.defaultdict(set)
    for name in page_names():
        with suppress(PageError):
            page = read_page(name)
            for program in {program for block in page.blocks for program in needed(page, block)}:
                wanted[program].add(name)
    return wanted


@pytest.mark.parametrize("program", sorted(_pages_by_program()))
def test_the_program_of_a_page_is_here(program):
    """Without it the page's blocks were only checked for syntax; this says so in one line."""
    if programs.find(program) is None:
        pages = ", ".join(sorted(_pages_by_program()[program]))
        pytest.skip(f"{program} is not installed ({programs.HOW[program]}): {pages} not run")
