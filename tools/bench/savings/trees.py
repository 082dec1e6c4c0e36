"""Trees of files: releases of sources, installed packages, systems, images; as tars, zips, and as they are."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench.savings import source
from tools.bench.savings.corpus import DAY, EPOCH, Corpus, Site, seed
from tools.bench.servers import tool

if TYPE_CHECKING:
    from collections.abc import Iterator

RELEASES = 14
SYSTEM = (Path("/etc"), Path("/usr/share"), Path("/var/lib/dpkg"), Path("/var/lib/apt"))
IDENTITY = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{
        f"GIT_{who}_{what}": "savings@localhost"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
}


def own_releases(site: Site) -> Iterator[None]:
    """`git archive` of the last tags, or of commits spread over the history, where there are not enough."""
    count = site.states(RELEASES)
    states = _git(site.git, "tag", "--sort=creatordate").decode().split()[-count:]
    if len(states) < count:
        history = _git(site.git, "log", "--reverse", "--first-parent", "--format=%H").decode().split()
        if len(history) < count:
            raise FileNotFoundError(f"a history in {site.git}")
        states = [history[len(history) * n // count - 1] for n in range(1, count + 1)]
    for number, state in enumerate(states):
        (site.folder / f"source-{number:02}.tar").write_bytes(_git(site.git, "archive", state))
        yield
        (site.folder / f"source-{number:02}.tar").unlink()


def generated_releases(site: Site) -> Iterator[None]:
    """Sources of Python's library under git, a twelfth of the modules edited before each release."""
    rng = random.Random(seed("git"))
    tree = source.sample([Path(sysconfig.get_path("stdlib"))], site.size(11), rng, suffix=".py")
    repository = site.scratch / "repository"
    _git(site.scratch, "init", "--quiet", str(repository))
    for number in range(RELEASES):
        source.files(tree, repository / "src")
        when = f"{EPOCH + number * 7 * DAY} +0000"
        _git(repository, "add", "--all")
        _git(repository, "commit", "--quiet", "-m", f"release {number}", when=when)
        (site.folder / "source.tar").write_bytes(_git(repository, "archive", "HEAD"))
        yield
        tree = source.upgrade(tree, rng, 0.25, depth=5)


def _git(folder: Path, *arguments: str, when: str = "") -> bytes:
    environment = os.environ | IDENTITY
    if when:
        environment |= {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    command = [tool("git"), "-C", str(folder), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True).stdout


def _installed(site: Site, mib: float, count: int) -> Iterator[tuple[source.Tree, dict[str, int]]]:
    """This Python's packages, and the time of each file: a tenth of the packages upgraded before each version."""
    rng = random.Random(seed("packages"))
    root = Path(sysconfig.get_path("purelib"))
    tree = source.sample([root], site.size(mib), rng)
    times = dict.fromkeys(tree, EPOCH)
    for number in range(count):
        yield tree, times
        newer = source.upgrade(tree, rng, 0.1, depth=len(root.parts))
        times = {
            path: times[path] if tree.get(path) == data else EPOCH + (number + 1) * DAY
            for path, data in newer.items()
        }
        tree = newer


def _packed(site: Site, form: int) -> Iterator[None]:
    for tree, times in _installed(site, 32, 5):
        source.tar(tree, site.folder / "packages.tar", times, form)
        yield


def packages_gnu(site: Site) -> Iterator[None]:
    yield from _packed(site, tarfile.GNU_FORMAT)


def packages_pax(site: Site) -> Iterator[None]:
    yield from _packed(site, tarfile.PAX_FORMAT)


def package_files(site: Site) -> Iterator[None]:
    for tree, _ in _installed(site, 24, 3):
        source.files(tree, site.folder)
        yield


def _zipped(site: Site, method: int) -> Iterator[None]:
    for tree, _ in _installed(site, 36, 3):
        with zipfile.ZipFile(site.folder / "packages.zip", "w", method) as archive:
            for name, data in tree.items():
                info = zipfile.ZipInfo(name)
                info.compress_type = method
                archive.writestr(info, data)
        yield


def zip_stored(site: Site) -> Iterator[None]:
    yield from _zipped(site, zipfile.ZIP_STORED)


def zip_deflated(site: Site) -> Iterator[None]:
    yield from _zipped(site, zipfile.ZIP_DEFLATED)


def system(site: Site) -> Iterator[None]:
    """Configuration, shared files and package lists of this Debian; an upgrade before each version."""
    rng = random.Random(seed("system"))
    tree = source.sample(SYSTEM, site.size(45), rng)
    for number in range(3):
        source.tar(tree, site.folder / "system.tar", EPOCH + number * DAY)
        yield
        tree = source.upgrade(tree, rng, 0.15, depth=3)


def _builds(site: Site) -> Iterator[dict[str, bytes]]:
    """An image of three layers, built three times: the base the same with new times, packages upgraded, another program."""
    rng = random.Random(seed("layers"))
    base = source.sample([Path("/usr/share"), Path("/usr/lib")], site.size(24), rng)
    installed = source.sample([Path(sysconfig.get_path("purelib"))], site.size(20), rng)
    program = source.sample([Path(sysconfig.get_path("stdlib"))], site.size(4), rng)
    for number in range(3):
        layers = {}
        for name, tree in (("base", base), ("packages", installed), ("program", program)):
            source.tar(tree, site.scratch / "layer", EPOCH + number * DAY)
            layers[name] = (site.scratch / "layer").read_bytes()
        yield layers
        installed = source.upgrade(installed, rng, 0.15, depth=len(Path(sysconfig.get_path("purelib")).parts))
        program = {
            path: source.edit(data, rng) if rng.random() < 0.5 else data for path, data in program.items()
        }


def layers(site: Site) -> Iterator[None]:
    for build in _builds(site):
        for name, data in build.items():
            (site.folder / f"{name}.tar").write_bytes(data)
        yield


def layers_gzip(site: Site) -> Iterator[None]:
    for build in _builds(site):
        for name, data in build.items():
            (site.folder / f"{name}.tar.gz").write_bytes(gzip.compress(data, 6, mtime=0))
        yield


CORPORA = (
    Corpus("git-own", "tars of 14 states of a git repository (this project's)", own_releases, real=True),
    Corpus("git-made", "tars of 14 releases under git, a generated history", generated_releases),
    Corpus("packages-gnu", "site-packages as GNU tar, 5 states", packages_gnu, real=True),
    Corpus("packages-pax", "the same as pax tar", packages_pax, real=True),
    Corpus("packages-files", "site-packages, each file an object, 3 states", package_files, real=True),
    Corpus("zip-stored", "site-packages as a stored zip, 3 states", zip_stored, real=True),
    Corpus("zip-deflated", "the same, deflated", zip_deflated, real=True),
    Corpus("debian", "/etc, /usr/share, /var/lib as a tar, 3 states", system, real=True),
    Corpus("layers", "layers of an image built 3 times", layers, real=True),
    Corpus("layers-gz", "the same layers, gzip", layers_gzip, real=True),
)
