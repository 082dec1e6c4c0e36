"""What one client of a store knows: objects, versions, open uploads; and what an operation makes of it. Pure.

The judge of every crash laboratory: after a crash a client's part of the store must be exactly its `State` before or
after the operation that was under way, and nothing else. What only the store can know (the id of a version or of an
upload whose answer was lost) is UNKNOWN in the expected state and matches any one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

UNKNOWN = "?"

Bucket = Literal["plain", "versioned"]


class Body(NamedTuple):
    size: int
    digest: bytes


class Version(NamedTuple):
    id: str
    body: Body | None  # None: a delete marker


class OpenUpload(NamedTuple):
    id: str
    key: bytes
    parts: tuple[tuple[int, Body], ...]  # by number


@dataclass(frozen=True, slots=True)
class State:
    """One client's part of a store. Versions: the newest first. `uploads` by id."""

    plain: dict[bytes, Body] = field(default_factory=dict)
    versions: dict[bytes, tuple[Version, ...]] = field(default_factory=dict)
    uploads: dict[str, OpenUpload] = field(default_factory=dict)

    @property
    def objects(self) -> int:
        """Versions with bytes, as the buckets' counters count them."""
        kept = [version for versions in self.versions.values() for version in versions]
        return len(self.plain) + sum(version.body is not None for version in kept)


@dataclass(frozen=True, slots=True)
class Put:
    bucket: Bucket
    key: bytes
    body: Body


@dataclass(frozen=True, slots=True)
class Delete:
    bucket: Bucket
    key: bytes


@dataclass(frozen=True, slots=True)
class DeleteVersion:
    key: bytes
    id: str


@dataclass(frozen=True, slots=True)
class Begin:
    key: bytes


@dataclass(frozen=True, slots=True)
class PutPart:
    upload: str
    number: int
    body: Body


@dataclass(frozen=True, slots=True)
class Complete:
    upload: str
    body: Body


@dataclass(frozen=True, slots=True)
class Abort:
    upload: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """Care for the store (a checkpoint, sealing, collection): no client sees a difference."""


Operation = Put | Delete | DeleteVersion | Begin | PutPart | Complete | Abort | Nothing


def apply(state: State, operation: Operation, told: str = UNKNOWN) -> State:
    """The state after `operation`. `told`: the id that the store gave to the new version or upload."""
    match operation:
        case Put("plain", key, body):
            return replace(state, plain={**state.plain, key: body})
        case Put("versioned", key, body):
            return _shown(state, key, Version(told, body))
        case Delete("plain", key):
            return replace(state, plain={k: body for k, body in state.plain.items() if k != key})
        case Delete("versioned", key):
            return _shown(state, key, Version(told, None))
        case DeleteVersion(key, id_):
            left = tuple(version for version in state.versions.get(key, ()) if version.id != id_)
            versions = {**state.versions, key: left}
            return replace(state, versions={k: kept for k, kept in versions.items() if kept})
        case Begin(key):
            return replace(state, uploads={**state.uploads, told: OpenUpload(told, key, ())})
        case PutPart(upload, number, body):
            before = state.uploads[upload]
            parts = tuple(sorted({**dict(before.parts), number: body}.items()))
            return replace(state, uploads={**state.uploads, upload: before._replace(parts=parts)})
        case Complete(upload, body):
            done = _without(state, upload)
            return replace(done, plain={**done.plain, state.uploads[upload].key: body})
        case Abort(upload):
            return _without(state, upload)
    return state


def same(actual: State, expected: State) -> bool:
    """Is this what was expected, where UNKNOWN matches any id?"""
    return (
        actual.plain == expected.plain
        and actual.versions.keys() == expected.versions.keys()
        and all(_same_versions(actual.versions[key], expected.versions[key]) for key in actual.versions)
        and _same_uploads(actual.uploads, expected.uploads)
    )


def _shown(state: State, key: bytes, version: Version) -> State:
    versions = (version, *state.versions.get(key, ()))
    return replace(state, versions={**state.versions, key: versions})


def _without(state: State, upload: str) -> State:
    return replace(state, uploads={id_: kept for id_, kept in state.uploads.items() if id_ != upload})


def _same_versions(actual: tuple[Version, ...], expected: tuple[Version, ...]) -> bool:
    return len(actual) == len(expected) and all(
        have.body == want.body and want.id in (have.id, UNKNOWN)
        for have, want in zip(actual, expected, strict=True)
    )


def _same_uploads(actual: dict[str, OpenUpload], expected: dict[str, OpenUpload]) -> bool:
    wanted = dict(expected)
    unknown = wanted.pop(UNKNOWN, None)
    extra = [upload for id_, upload in actual.items() if id_ not in wanted]
    if any(actual.get(id_) != upload for id_, upload in wanted.items()):
        return False
    if unknown is None:
        return not extra
    return len(extra) == 1 and extra[0][1:] == unknown[1:]
