"""What `vaultaire import` and `vaultaire export` share: addresses, options, and what they print."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vaultaire.cli.options import ByteSize
from vaultaire.cli.output import Failure, binary_size, print_lines
from vaultaire.cli.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from vaultaire.moving.report import Report
    from vaultaire.moving.s3_place import S3Place

T = TypeVar("T")

NAMED = 20  # failures that are printed; all are in --json

VERIFIED = {
    "md5": "MD5 ETag",
    "parts": "multipart ETag, part by part",
    "checksum": "checksum of the source",
    "content-md5": "Content-MD5, by the target",
    "chunks": "chunk ids as it was read, and length",
    "length": "length only: the source offers no digest (--read-twice compares two readings)",
    "twice": "two equal readings",
}


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the S3 server is, and who we are there."""
    options = [
        click.option(
            "--endpoint-url", help="Address of the S3 server.  [env: AWS_ENDPOINT_URL; default: Amazon S3]"
        ),
        click.option("--profile", help="Profile of the AWS configuration files.  [env: AWS_PROFILE]"),
        click.option(
            "--parallel", type=click.IntRange(1, 128), default=8, show_default=True, help="Objects at a time."
        ),
        click.option("--bandwidth", type=ByteSize(1), help="Bytes per second at most, for example 20MiB."),
        click.option("--dry-run", is_flag=True, help="Compare both sides, and only tell what would be done."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def parse_remote(text: str) -> tuple[str, bytes]:
    """s3://BUCKET/PREFIX as (bucket, prefix); the prefix is one of keys, as it stands. Raises BadParameter."""
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    return bucket, prefix.encode()


def parse_local(text: str) -> tuple[str, bytes]:
    """BUCKET/PREFIX of this store."""
    if text.startswith("s3://") or not text.partition("/")[0]:
        raise click.BadParameter(f"{text!r} is no BUCKET or BUCKET/PREFIX of this store")
    return parse_remote(text)


def parse_server(text: str, local: str | None, option: str, *, all_buckets: bool) -> tuple[str, bytes]:
    """`parse_remote` of a whole command: `local` is what `option` names in this store. Raises UsageError."""
    bucket, prefix = parse_remote(text)
    if all_buckets and (bucket or local):
        side = "source" if option == "--into" else "target"
        raise click.UsageError(
            f"with --all-buckets the {side} is s3:// alone, and names stay: leave {option} out"
        )
    if not all_buckets and not bucket:
        raise click.BadParameter(f"{text!r} names no bucket; write s3://BUCKET, or use --all-buckets")
    return bucket, prefix


def shown(bucket: str, prefix: bytes) -> str:
    """BUCKET/PREFIX as the report names it."""
    return f"{bucket}/{prefix.decode()}".rstrip("/")


def open_remote(
    bucket: str,
    prefix: bytes,
    endpoint_url: str | None,
    profile: str | None,
    parallel: int,
    *,
    anonymous: bool = False,
    etag_is_md5: bool = True,
) -> S3Place:
    """Raises Failure; asks the server nothing."""
    from vaultaire.moving.places import PlaceError
    from vaultaire.moving.s3_place import S3Place

    try:
        return S3Place(
            bucket,
            prefix,
            endpoint_url=endpoint_url,
            profile=profile,
            connections=parallel + 2,
            anonymous=anonymous,
            etag_is_md5=etag_is_md5,
        )
    except PlaceError as error:
        raise Failure(str(error)) from error


class Follower:
    """Shows the progress of one move after another on a terminal."""

    def __init__(self, progress: Progress, report: Report) -> None:
        from vaultaire.moving.report import Pace

        self._progress = progress
        self._report = report
        self._began = time.monotonic()
        self.pace = Pace()

    def show(self) -> None:
        self._progress.show(self.pace.line(self._report, time.monotonic() - self._began))

    def end(self) -> None:
        self._report.seconds = round(time.monotonic() - self._began, 3)


@contextmanager
def following(report: Report) -> Iterator[Follower]:
    """Around all moves of one command."""
    with Progress() as progress:
        follower = Follower(progress, report)
        yield follower
        follower.end()


def run(work: Callable[[], Awaitable[T]], report: Report) -> T:
    """`work` under trio; what it raises as the user is told it."""
    import trio

    from vaultaire.moving.places import MovingError

    async def told() -> T:
        return await work()

    try:
        return trio.run(told)
    except MovingError as error:
        step = ". What is done is kept: run the command again to go on" if report.objects else ""
        raise Failure(f"{error}{step}") from error
    except (KeyboardInterrupt, BaseExceptionGroup) as error:
        if isinstance(error, BaseExceptionGroup) and error.split(KeyboardInterrupt)[1] is not None:
            raise
        raise KeyboardInterrupt from None


def finish(report: Report, verb: str, as_json: bool) -> None:
    """Print the report; exit status 1 if something failed."""
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
    else:
        print_lines([(line, "") for line in summary(report, verb)])
    if report.failed:
        named = "".join(f"\n  {failed.key}: {failed.why}" for failed in report.failures[:NAMED])
        more = f"\n  and {report.failed - NAMED:,} more (--json names them)" if report.failed > NAMED else ""
        raise Failure(
            f"{report.failed:,} objects could not be moved; run the command again to try only these:{named}{more}"
        )


def summary(report: Report, verb: str) -> list[str]:
    """As text."""
    would = "would be " if report.dry_run else ""
    lines = [
        f"{report.objects:,} objects ({binary_size(report.moved_bytes)}) {would}{verb} from {report.source} to "
        f"{report.target} in {report.seconds:.1f} s",
        f"{report.done_objects:,} objects ({binary_size(report.done_bytes)}) were there already",
    ]
    if report.delete_markers:
        lines.append(f"{report.delete_markers:,} delete markers {would}{verb}")
    if report.refreshed:
        lines.append(f"{report.refreshed:,} objects got newer metadata; their bytes were there")
    if report.kept:
        lines.append(
            f"{report.kept:,} objects were kept as they are in {report.target}, which has something newer or other "
            f"(--overwrite decides): {', '.join(report.kept_keys[:5])}{' ...' if report.kept > 5 else ''}"
        )
    lines += [f"verified by {VERIFIED[how]}: {count:,}" for how, count in sorted(report.verified.items())]
    if report.changed:
        lines.append(f"{report.changed:,} times an object changed meanwhile, and was read anew")
    lines += [f"{what}: {count:,}" if count > 1 else what for what, count in sorted(report.notes.items())]
    return lines
