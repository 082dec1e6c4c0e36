"""`vaultaire backup`: copy a running store to a folder or a bucket; list and check what is there.

It opens the store like any process and may run beside the server. What a backup is: `vaultaire.backup`.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import shlex
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlsplit

import click

from vaultaire.cli.options import data_option
from vaultaire.cli.output import Failure, binary_size, own_command, print_lines, print_table
from vaultaire.cli.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.backup.checking import BackupState
    from vaultaire.backup.pieces import Report
    from vaultaire.backup.place import Place

place_argument = click.argument("place", metavar="DIR|s3://BUCKET/PREFIX")


@click.command("backup")
@place_argument
@data_option
@click.option(
    "--keep", type=click.IntRange(min=1), help="Remove all but the newest so many backups afterwards."
)
@click.option(
    "--without-secrets", is_flag=True, help="Leave secret.key out: access keys cannot be restored then."
)
@click.option("--full", is_flag=True, help="Read everything again, and mend what is damaged in the backups.")
@click.option("--check", is_flag=True, help="Take no backup: verify every byte of those that are there.")
@click.option("--list", "as_list", is_flag=True, help="Take no backup: show those that are there.")
@click.option("--dry-run", is_flag=True, help="Change nothing; read all, and say what would be copied.")
@click.option("--backup", "number", type=click.IntRange(min=1), help="With --check: only this one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def command(
    place: str,
    data: Path,
    keep: int | None,
    without_secrets: bool,
    full: bool,
    check: bool,
    as_list: bool,
    dry_run: bool,
    number: int | None,
    as_json: bool,
) -> None:
    """Copy the store, as it is now, to a folder or a bucket. The server may run meanwhile.

    Only what is new since the last backup there is copied. The backup holds secret.key, hence all access keys: whoever
    can read it has everything.
    """
    if (check or as_list) and (keep or without_secrets or full or dry_run):
        raise click.UsageError(
            "--check and --list take no backup; leave --keep, --without-secrets, --full and --dry-run out"
        )
    if check and as_list:
        raise click.UsageError("choose one of --check and --list")
    if number is not None and not check:
        raise click.UsageError("--backup goes with --check")
    if check:
        _check(open_place(place, create=False), number, as_json)
    elif as_list:
        _list(open_place(place, create=False), as_json)
    else:
        options = _Options(keep=keep, with_secrets=not without_secrets, full=full, dry_run=dry_run)
        _take(place, data, options, as_json=as_json)


def open_place(text: str, *, create: bool) -> Place:
    """DIR or s3://BUCKET/PREFIX. Raises BackupError."""
    from pathlib import Path

    from vaultaire.backup.bucket import BucketPlace
    from vaultaire.backup.folder import FolderPlace

    if text.startswith("s3://"):
        url = urlsplit(text)
        if not url.netloc or url.query or url.fragment or "//" in url.path:
            raise click.BadParameter(
                f"{text!r} is no place in S3; write for example s3://my-bucket/vaultaire"
            )
        return BucketPlace(url.netloc, url.path)
    if "://" in text:
        raise click.BadParameter(f"{text!r} is neither a folder nor s3://BUCKET/PREFIX")
    return FolderPlace(Path(text), create=create)


class _Options(TypedDict):
    keep: int | None
    with_secrets: bool
    full: bool
    dry_run: bool


def _place_of(text: str, *, dry_run: bool) -> Place:
    """To write to; of a dry run a missing folder is an empty place, and stays missing. Raises BackupError."""
    from pathlib import Path

    from vaultaire.backup.rehearsal import Rehearsal

    if dry_run and "://" not in text and not Path(text).exists():
        return Rehearsal(str(Path(text).absolute()), None)
    return open_place(text, create=not dry_run)


def _take(place: str, data: Path, options: _Options, *, as_json: bool) -> None:
    from pathlib import Path

    from vaultaire.backup.taking import take_backup
    from vaultaire.store import Store

    if "://" not in place and Path(place).resolve().is_relative_to(data.resolve()):
        raise click.BadParameter(
            f"{place} lies in the store itself; name a folder outside of {data}, best on another disk"
        )
    with Store.open(data, kind="command") as store, Progress() as progress:
        report = take_backup(
            store,
            _place_of(place, dry_run=options["dry_run"]),
            **options,
            progress=lambda so_far: progress.advance("read", so_far.read_bytes, unit="bytes"),
        )
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(report), "dry_run": options["dry_run"]}))
    elif options["dry_run"]:
        print_lines([(line, "") for line in _forecast(report)])
    else:
        print_lines([(line, "") for line in _summary(report)])
    for warning in report.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if report.damaged:
        raise Failure(
            f"{'the backup would be' if options['dry_run'] else 'the backup is'} complete, but {len(report.damaged)} file(s) of the store are damaged and were copied as "
            f"they are: {_named(report.damaged)}. Run `vaultaire verify` to see what is affected"
        )


def _forecast(report: Report) -> list[str]:
    lines = [
        f"would make backup {report.number} in {report.url}: {binary_size(report.total_bytes)}, of which "
        f"{binary_size(report.new_bytes)} would be copied"
    ]
    if report.removed:
        lines.append(
            f"would remove {len(report.removed)} older backups: {', '.join(map(str, report.removed))}"
        )
    return [*lines, "nothing was changed; the same command without --dry-run does it"]


def _summary(report: Report) -> list[str]:
    lines = [
        f"backup {report.number} in {report.url}: {binary_size(report.total_bytes)} in {report.packs:,} packs and "
        f"the metadata up to sequence {report.sequence}",
        f"copied {binary_size(report.new_bytes)} that were new there, in {report.seconds:.1f} s",
    ]
    if report.removed:
        lines.append(f"removed {len(report.removed)} older backups")
    if report.has_secrets:
        lines.append("it holds secret.key: whoever can read it can use every access key")
    else:
        lines.append("it does not hold secret.key: a store restored from it needs new access keys")
    place = shlex.quote(report.url)
    lines.append(f"verify it with: {own_command()} backup {place} --check")
    lines.append(f"restore it with: {own_command()} restore {place} --data NEW-DIRECTORY")
    return lines


def _check(place: Place, number: int | None, as_json: bool) -> None:
    from vaultaire.backup.checking import check_backups

    with Progress() as progress:
        report = check_backups(
            place,
            number,
            progress=lambda so_far: progress.advance("verified", so_far.read_bytes, unit="bytes"),
        )
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(report), "is_whole": report.is_whole}))
    else:
        print_lines([(f"read and verified {binary_size(report.read_bytes)} in {report.pieces:,} pieces", "")])
        print_lines([(f"backup {backup.number}: {_verdict(backup)}", "") for backup in report.backups])
    if not report.is_whole:
        raise Failure(
            f"{place.url} is damaged; run `vaultaire backup {place.url} --full` on the store that it was taken from "
            "to mend what the store still has, and see what `vaultaire restore --with-damage` can save"
        )


def _list(place: Place, as_json: bool) -> None:
    from vaultaire.backup.checking import describe_backups

    report = describe_backups(place)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
        return
    rows = [
        (str(b.number), _time(b), binary_size(b.total_bytes), "yes" if b.has_secrets else "no", _verdict(b))
        for b in report.backups
    ]
    print_table(("BACKUP", "TAKEN (UTC)", "SIZE", "SECRETS", "STATE"), rows, right=(0, 2))


def _verdict(backup: BackupState) -> str:
    if backup.problem is not None:
        return backup.problem
    if backup.damaged:
        return f"DAMAGED: {_named(backup.damaged)}"
    if backup.damaged_in_store:
        return f"whole; in the store itself these were damaged: {_named(backup.damaged_in_store)}"
    return "whole"


def _time(backup: BackupState) -> str:
    return f"{datetime.datetime.fromtimestamp(backup.created_ms / 1000, datetime.UTC):%Y-%m-%d %H:%M:%S}"


def _named(damaged: dict[str, str]) -> str:
    named = [f"{path} ({problem})" for path, problem in sorted(damaged.items())[:10]]
    return "; ".join(named) + ("; ..." if len(damaged) > 10 else "")
