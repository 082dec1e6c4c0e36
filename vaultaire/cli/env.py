"""`vaultaire env`: credentials and endpoint as shell exports, for whoever can read `secret.key`."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING

import click

from vaultaire.cli.completing import complete_access_key
from vaultaire.cli.endpoint import DEFAULT_ENDPOINT, read_endpoint
from vaultaire.cli.options import data_option
from vaultaire.cli.output import Failure
from vaultaire.cli.welcome import assignments, exports

if TYPE_CHECKING:
    from pathlib import Path


@click.command("env")
@data_option
@click.option("--access-key", shell_complete=complete_access_key, help="Which key.  [default: the root key]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the variables by name.")
def command(data: Path, access_key: str | None, as_json: bool) -> None:
    """Print credentials and endpoint as shell exports.

    \b
    To use them: eval "$(vaultaire env)"
    """
    from vaultaire.access import Keyring, UnknownAccessKey
    from vaultaire.store import Store

    with Store.open(data, kind="command") as store, store.kv.snapshot() as reader:
        keyring = Keyring.load(data, reader)
        if access_key is None:
            principal = next(iter(keyring.root_keys(reader)), None)
        else:
            principal = keyring.lookup(reader, access_key)
        endpoint = read_endpoint(reader)
    if principal is None and access_key is None:
        raise Failure(
            f"{data} has no root key; make one with: vaultaire key create --root --data {shlex.quote(str(data))}"
        )
    if principal is None:
        raise UnknownAccessKey(str(access_key))
    if endpoint is None:
        click.echo(f"no server ran on {data} yet; the endpoint is the default one", err=True)
        endpoint = DEFAULT_ENDPOINT
    if as_json:
        click.echo(json.dumps(exports(principal, endpoint), indent=2))
        return
    for assignment in assignments(exports(principal, endpoint)):
        click.echo(f"export {assignment}")
    if sys.stdout.isatty():
        click.echo('# to use it: eval "$(vaultaire env)", with the same options', err=True)
