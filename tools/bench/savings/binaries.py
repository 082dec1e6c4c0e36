"""Binary data: weights of models, a disk image, noise, and a repository of restic."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tools.bench.savings import source
from tools.bench.savings.corpus import DAY, EPOCH, MIB, Corpus, Site, seed
from tools.bench.servers import tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

LAYERS = 12
PASSWORD = "savings"  # of a repository that lives as long as the run


def _weights(limit_bytes: int, trained: int, count: int, name: str) -> Iterator[list[Array]]:
    """float32 weights in layers; before each version the last `trained` layers take a small step."""
    rng = np.random.default_rng(seed(name))
    size = limit_bytes // LAYERS // 4
    layers: list[Array] = [rng.normal(0, 0.02, size).astype(np.float32) for _ in range(LAYERS)]
    for _ in range(count):
        yield layers
        for at in range(LAYERS - trained, LAYERS):
            step = rng.normal(0, 1e-4, size).astype(np.float32)
            layers[at] = np.add(layers[at], step)


def _safetensors(path: Path, layers: list[Array], kind: str) -> None:
    """https://huggingface.co/docs/safetensors/index#format: the length of a JSON header, the header, the tensors."""
    at = 0
    head = {}
    for number, layer in enumerate(layers):
        head[f"layers.{number}.weight"] = {
            "dtype": kind,
            "shape": [layer.size],
            "data_offsets": [at, at + layer.nbytes],
        }
        at += layer.nbytes
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(layer.tobytes() for layer in layers))


def tensors_f32(site: Site) -> Iterator[None]:
    for layers in _weights(site.size(32), 2, 5, "f32"):
        _safetensors(site.folder / "model.safetensors", layers, "F32")
        yield


def tensors_bf16(site: Site) -> Iterator[None]:
    """The upper halves of float32: training steps are often lost in the rounding, so neighbours stay."""
    for layers in _weights(site.size(56), 2, 5, "bf16"):
        halves: list[Array] = [(layer.view(np.uint32) >> 16).astype(np.uint16) for layer in layers]
        _safetensors(site.folder / "model.safetensors", halves, "BF16")
        yield


def tensors_trained(site: Site) -> Iterator[None]:
    for layers in _weights(site.size(32), LAYERS, 3, "trained"):
        _safetensors(site.folder / "model.safetensors", layers, "F32")
        yield


def ext4(site: Site) -> Iterator[None]:
    """A disk image with a file system, in which files are replaced as an upgrade does it (new first, old away)."""
    rng = random.Random(seed("ext4"))
    programs = tool("mkfs.ext4"), tool("debugfs")
    tree = source.sample([Path("/usr/share"), Path("/usr/lib")], site.size(30), rng)
    source.files(tree, site.scratch / "tree")
    image = site.folder / "disk.img"
    with open(image, "wb") as file:
        file.truncate(2 * site.size(30) + 8 * MIB)
    uuid = "00000000-0000-4000-8000-000000000001"
    make = [
        programs[0],
        "-q",
        "-F",
        "-U",
        uuid,
        "-E",
        f"hash_seed={uuid}",
        "-d",
        str(site.scratch / "tree"),
        str(image),
    ]
    _run(make, EPOCH)
    for number in range(3):
        yield
        newer = source.upgrade(tree, rng, 0.15, depth=3)
        commands = []
        for at, path in enumerate(path for path in newer if tree.get(path) != newer[path]):
            new = site.scratch / f"new-{at}"
            new.write_bytes(newer[path])
            commands += ([f'rm "/{path}"'] if path in tree else []) + [f'write {new} "/{path}"']
        commands += [f'rm "/{path}"' for path in tree if path not in newer]
        script = site.scratch / "commands"
        script.write_text("\n".join(commands) + "\n")
        _run([programs[1], "-w", "-f", str(script), str(image)], EPOCH + (number + 1) * DAY)
        tree = newer


def _run(command: list[str], when: int) -> None:
    environment = os.environ | {"E2FSPROGS_FAKE_TIME": str(when)}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def shifted(site: Site) -> Iterator[None]:
    """Noise; the same again; the same with 1,000 bytes put in after a third."""
    rng = random.Random(seed("random"))
    data = rng.randbytes(site.size(40))
    path = site.folder / "noise"
    for content in (data, data, data[: len(data) // 3] + rng.randbytes(1000) + data[len(data) // 3 :]):
        path.write_bytes(content)
        yield


def noise(site: Site) -> Iterator[None]:
    (site.folder / "noise").write_bytes(random.Random(seed("noise")).randbytes(site.size(96)))
    yield


def restic(site: Site) -> Iterator[None]:
    """The files of a repository after two backups, as a client would synchronise them."""
    program = tool("restic")
    rng = random.Random(seed("restic"))
    tree = source.sample([Path("/usr/lib"), Path(sysconfig.get_path("purelib"))], site.size(120), rng)
    environment = os.environ | {"RESTIC_REPOSITORY": str(site.folder), "RESTIC_PASSWORD": PASSWORD}
    for number in range(2):
        source.files(tree, site.scratch / "tree")
        commands = [["backup", str(site.scratch / "tree")]]
        for command in [["init"], *commands] if number == 0 else commands:
            subprocess.run(
                [program, "--no-cache", "--quiet", *command], env=environment, check=True, capture_output=True
            )
        tree = source.upgrade(tree, rng, 0.1, depth=4)
    yield


CORPORA = (
    Corpus("tensors-f32", "safetensors, float32, 2 of 12 layers trained, 5 states", tensors_f32),
    Corpus("tensors-bf16", "the same in bfloat16", tensors_bf16),
    Corpus("tensors-trained", "float32, all layers trained, 3 states", tensors_trained),
    Corpus("ext4", "a raw disk image, upgrades in between, 3 states", ext4, real=True),
    Corpus("random", "noise; again; with 1,000 bytes put in", shifted),
    Corpus("noise", "noise, once", noise, bound="random"),
    Corpus("restic", "a repository of restic after two backups", restic, bound="encrypted"),
)
