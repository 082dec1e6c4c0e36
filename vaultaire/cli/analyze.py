"""`vaultaire analyze`: what a folder, a bucket or a stream would take here, before anything is moved.

How it is counted: `vaultaire.analyze`; here it is only asked for and shown.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from vaultaire.cli.moving import NAMED, open_remote, parse_remote
from vaultaire.cli.output import Failure, binary_size, print_lines, print_table
from vaultaire.cli.progress import Progress, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultaire.analyze.report import Answer, Group
    from vaultaire.analyze.running import Analysis
    from vaultaire.analyze.sources import Source
    from vaultaire.cli.output import Line
    from vaultaire.moving.report import Report as Notes

AVERAGES: Final = (16 << 10, 64 << 10, 128 << 10)
SHOWN: Final = 15  # rows of a table; all are in --json
INTERRUPTED: Final = 130


class _Share(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """5%, 1/16, 0.1: as the level k whose 2^-k comes next above."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
            elif "/" in text:
                above, below = text.split("/")
                share = float(above) / float(below)
            else:
                share = float(text)
        except (ValueError, ZeroDivisionError):
            share = 0.0
        if not 1 / 65536 <= share <= 1:
            self.fail(f"{text!r} is no share; write 5%, 1/16 or 0.1", param, ctx)
        level = 0
        while 2.0 ** -(level + 1) >= share:
            level += 1
        return level


@click.command("analyze")
@click.argument("source", metavar="PATH|s3://BUCKET[/PREFIX]|-")
@click.option(
    "--curve", is_flag=True, help="Also estimate 16, 64 and 128 KiB chunks. Takes two to three times the CPU."
)
@click.option(
    "--sample",
    "level",
    type=_Share(),
    default="100%",
    metavar="SHARE",
    help="Follow this share of the chunks, for example 5%, and estimate; all bytes are still read.",
)
@click.option(
    "--prefixes",
    type=click.Choice(["off", "auto"]),
    default="auto",
    help="What the bucket would have: see `vaultaire bucket prefixes`.",
)
@click.option(
    "--html", type=click.Path(dir_okay=False, writable=True), metavar="FILE", help="Write a page with charts."
)
@click.option("--endpoint-url", help="Address of the S3 server.  [env: AWS_ENDPOINT_URL; default: Amazon S3]")
@click.option("--profile", help="Profile of the AWS configuration files.  [env: AWS_PROFILE]")
@click.option("--anonymous", is_flag=True, help="A public bucket, without credentials.")
@click.option(
    "--parallel", type=click.IntRange(1, 128), help="Objects at a time.  [default: cores; 8 for s3://]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
@click.pass_context
def command(
    ctx: click.Context,
    source: str,
    curve: bool,
    level: int,
    prefixes: str,
    html: str | None,
    endpoint_url: str | None,
    profile: str | None,
    anonymous: bool,
    parallel: int | None,
    as_json: bool,
) -> None:
    """Tell what a store would hold if this were uploaded, and why: before anything is moved.

    Reads a folder, a file, standard input (-) or a bucket, changes nothing, and needs no store. The bytes go through
    the code of an upload, so the figure is that of `vaultaire stats` afterwards, within 2 %.

    \b
    DEDUP       saved because it was there already
    COMPRESS    saved by compression
    PREFIX      saved by compressing against earlier versions
    METADATA    added: manifests, rows, headers
    STORED      what remains on disk

    Exit status 0: all was read. 1: something could not be read, and is named; the rest is counted. 130: Ctrl-C; what
    was read until then is counted.
    """
    from cas.chunk import DEFAULT_CDC
    from vaultaire.analyze.report import conclude
    from vaultaire.analyze.running import Analysis, Options
    from vaultaire.moving.places import PlaceError
    from vaultaire.moving.report import Report as Notes
    from vaultaire.threads import CORES

    remote = source.startswith("s3://")
    if not remote and (endpoint_url or profile or anonymous):
        raise click.UsageError("--endpoint-url, --profile and --anonymous go with s3://BUCKET")
    readers = parallel or (8 if remote else CORES)
    options = Options(readers, CORES, level, AVERAGES if curve else (), prefixes=prefixes != "off")
    notes, stop = Notes(source, ""), threading.Event()

    def open_source(notes: Notes) -> Source:
        return _open(source, notes, stop, endpoint_url, profile, readers, anonymous=anonymous)

    def count() -> int:
        return sum(item.size for item in open_source(Notes(source, "")).items())

    try:
        place = open_source(notes)
    except PlaceError as error:
        raise Failure(str(error)) from error
    analysis = Analysis(place, notes, options, stop)
    with Progress() as progress:
        follower = _Follower(progress, analysis, None if source == "-" else count)
        found = analysis.run(follower.show)
    if found.failure is not None and not found.total.objects:
        raise Failure(found.failure)
    answer = conclude(found, notes, source=place.url, level=level, cdc=DEFAULT_CDC)
    _tell(answer, html, as_json=as_json)
    _end(ctx, answer)


def _tell(answer: Answer, html: str | None, *, as_json: bool) -> None:
    from vaultaire.analyze.html import page
    from vaultaire.analyze.report import as_dict

    if html is not None:
        with open(html, "w", encoding="utf-8") as file:
            file.write(page(answer))
    if as_json:
        click.echo(json.dumps(as_dict(answer), indent=2))
        return
    _show(answer)
    if html is not None:
        print_lines([(f"charts: {html}", "")])


def _open(
    source: str,
    notes: Notes,
    stop: threading.Event,
    endpoint_url: str | None,
    profile: str | None,
    readers: int,
    *,
    anonymous: bool,
) -> Source:
    """Raises PlaceError, BadParameter, Failure."""
    from vaultaire.analyze.sources import Bucket, File, Folder, Stream

    if source.startswith("s3://"):
        bucket, prefix = parse_remote(source)
        if not bucket:
            raise click.BadParameter(f"{source!r} names no bucket; write s3://BUCKET")
        place = open_remote(bucket, prefix, endpoint_url, profile, readers, anonymous=anonymous)
        return Bucket(place, notes, stop)
    if source == "-":
        return Stream()
    if os.path.isfile(source):
        return File(source, notes)
    return Folder(source, notes)


class _Follower:
    """Shows how far an analysis is. The total is counted beside it, from a listing of its own."""

    def __init__(self, progress: Progress, analysis: Analysis, count: Callable[[], int] | None) -> None:
        self._progress = progress
        self._analysis = analysis
        self._total = 0
        if count is not None and wanted():
            threading.Thread(target=self._take, args=(count,), daemon=True).start()

    def _take(self, count: Callable[[], int]) -> None:
        from vaultaire.moving.places import MovingError

        with suppress(MovingError, OSError):  # the analysis meets it, too, and tells
            self._total = count()

    def show(self) -> None:
        self._progress.advance("read", self._analysis.read_bytes, self._total, "bytes")


def _end(ctx: click.Context, answer: Answer) -> None:
    """With the exit status, and what is missing."""
    if answer.interrupted:
        click.echo("Interrupted: this is what was read until then.", err=True)
        ctx.exit(INTERRUPTED)
    if answer.failure is not None:
        raise Failure(f"the rest could not be read: {answer.failure}")
    if answer.failed:
        named = "".join(f"\n  {failed.key}: {failed.why}" for failed in answer.failures[:NAMED])
        more = f"\n  and {answer.failed - NAMED:,} more (--json names them)" if answer.failed > NAMED else ""
        raise Failure(
            f"{answer.failed:,} files, folders or objects could not be read and are not, or not whole, in these figures; "
            f"make them readable for this user, or run it as another:{named}{more}"
        )


# --- for people -----------------------------------------------------------------------------------------------------


def _show(answer: Answer) -> None:
    print_lines(summary(answer))
    if not answer.objects:
        return
    for title, groups in (("FOLDER", answer.folders), ("TYPE", answer.types)):
        if len(groups) > 1 or title == "TYPE":
            print_lines([("", "")])
            print_table(
                ("OBJECTS", "LOGICAL", "DEDUP", "COMPRESS", "PREFIX", "METADATA", "STORED", "RATIO", title),
                _rows(groups),
                right=(0, 1, 2, 3, 4, 5, 6, 7),
            )
    if answer.curve:
        print_lines([("", "")])
        print_table(
            ("CHUNK SIZE", "CHUNKS", "UNIQUE", "STORED", ""),
            [
                (
                    binary_size(point.average_bytes),
                    f"{point.chunks:,}",
                    binary_size(point.unique_bytes),
                    binary_size(point.stored_bytes),
                    "measured" if point.measured else "estimated",
                )
                for point in answer.curve
            ],
            right=(0, 1, 2, 3),
        )
    print_lines(remarks(answer))


def _rows(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    rows = [_row(group) for group in groups[:SHOWN]]
    if len(groups) > SHOWN:
        rows.append(("",) * 8 + (f"and {len(groups) - SHOWN:,} more (--json has them)",))
    return rows


def _row(group: Group) -> tuple[str, ...]:
    shares = group.shares
    ratio = f"x{shares.logical_bytes / shares.stored_bytes:.2f}" if shares.stored_bytes else "-"
    return (
        f"{group.objects:,}",
        binary_size(shares.logical_bytes),
        binary_size(shares.dedup_saved_bytes),
        signed_size(shares.compression_saved_bytes),
        signed_size(shares.prefix_saved_bytes),
        binary_size(shares.metadata_bytes),
        binary_size(shares.stored_bytes),
        ratio,
        printable(group.name),
    )


def signed_size(count: int) -> str:
    return binary_size(count) if count >= 0 else f"-{binary_size(-count)}"


def printable(name: str) -> str:
    """On one line, and nothing that moves a terminal's cursor: names are anybody's."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def summary(answer: Answer) -> list[Line]:
    """The figures in a few lines."""
    shares = answer.shares
    lines: list[Line] = [
        (f"objects    {answer.objects:,}", ""),
        (f"logical    {binary_size(shares.logical_bytes)}, read in {answer.seconds:.1f} s", ""),
        (f"unique     {binary_size(shares.unique_bytes)}, dedup x{answer.dedup_ratio:.2f}", ""),
        (
            f"stored     {binary_size(shares.stored_bytes)}{_error(answer)}, x{answer.ratio:.2f} in all",
            "bold",
        ),
    ]
    lines += [
        (f"  dedup       -{binary_size(shares.dedup_saved_bytes)}", ""),
        (f"  compression -{signed_size(shares.compression_saved_bytes)}", ""),
    ]
    if shares.prefix_saved_bytes:
        lines.append((f"  prefix      -{signed_size(shares.prefix_saved_bytes)}", ""))
    lines.append((f"  metadata    +{binary_size(shares.metadata_bytes)}", ""))
    return lines


def _error(answer: Answer) -> str:
    from vaultaire.analyze.report import is_exact

    if is_exact(answer):
        return ""
    if answer.error_bytes is None:
        return " (too little was sampled to say how far off)"
    return f" +- {binary_size(round(answer.error_bytes))}"


def remarks(answer: Answer) -> list[Line]:
    """What is in the way, and what was left out."""
    told: list[Line] = [("", "")] if answer.warnings or answer.notes else []
    told += [(f"{each.share:.0%} {each.kind}: {each.text}", "yellow") for each in answer.warnings]
    if answer.sampled < 1:
        why = "as asked for" if answer.chosen else "there are more chunks than memory for their ids"
        told.append(
            (
                f"an estimate: one chunk in {round(1 / answer.sampled):,} was followed, {why}; 95 % interval",
                "dim",
            )
        )
    told += [
        (f"{what}: {count:,}" if count > 1 else what, "dim") for what, count in sorted(answer.notes.items())
    ]
    return told
