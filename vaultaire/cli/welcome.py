"""What a starting server tells its operator; pure: values in, lines out.

Commands stand on one line each, however long, and headings are shell comments: line by line or as a block, all of
it can be pasted as it stands.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaultaire.cli.endpoint import REGION, Endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from vaultaire.access import Principal
    from vaultaire.cli.output import Line


@dataclass(frozen=True, slots=True)
class Start:
    """One start of the server. `secret_known`: the operator chose the secret, so it is not shown."""

    endpoint: Endpoint
    data: Path
    root: Principal
    command: str  # how to call vaultaire again
    version: str
    first: bool
    secret_known: bool
    sample: str = "."  # a folder that is there, for a first copy; quoted for a shell
    next_commands: tuple[str, ...] = ("stats", "doctor")

    @property
    def env_command(self) -> str:
        return self.call("env")

    def call(self, name: str) -> str:
        """The command `name` on this store, from any folder."""
        return f"{self.command} {name} --data {shlex.quote(str(self.data))}"


def exports(principal: Principal, endpoint: Endpoint) -> dict[str, str]:
    """The environment that AWS's own tools, restic and most SDKs read."""
    variables = {
        "AWS_ACCESS_KEY_ID": principal.access_key,
        "AWS_SECRET_ACCESS_KEY": principal.secret_key,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint.url,
    }
    if endpoint.ca_bundle is not None:
        variables["AWS_CA_BUNDLE"] = str(endpoint.ca_bundle)
    return variables


def assignments(variables: dict[str, str]) -> list[str]:
    return [f"{name}={shlex.quote(value)}" for name, value in variables.items()]


def welcome(start: Start) -> list[Line]:
    """All that is printed once the server is ready, but for the line that programs wait for."""
    return _first_start(start) if start.first else _later_start(start)


def _first_start(start: Start) -> list[Line]:
    lines: list[Line] = [
        (f"Vaultaire {start.version}: a new store was created, and it is ready.", "bold"),
        ("", ""),
        *_where(start),
        (f"  access key  {start.root.access_key}", ""),
    ]
    if start.secret_known:
        lines.append(("  secret key  as given in VAULTAIRE_ROOT_SECRET_KEY", ""))
    else:
        lines.append((f"  secret key  {start.root.secret_key}", "bold green"))
        lines.append((f"              shown only now; later: {start.env_command}", "dim"))
    return [*lines, *_recipes(start), ("", "")]


def _later_start(start: Start) -> list[Line]:
    return [
        (f"Vaultaire {start.version}", "bold"),
        *_where(start),
        (f'  keys        eval "$({start.env_command})"', ""),
        (f"  sizes       {start.call('stats')}", ""),
    ]


def _where(start: Start) -> list[Line]:
    return [(f"  endpoint    {start.endpoint.url}", ""), (f"  data        {start.data}", "")]


def _recipes(start: Start) -> list[Line]:
    url = start.endpoint.url
    ca = shlex.quote(str(start.endpoint.ca_bundle)) if start.endpoint.ca_bundle else None
    trust = f" --ca-cert {ca}" if ca else ""
    lines: list[Line] = [
        ("", ""),
        ("# in another terminal; Ctrl-C here stops the server", "bold"),
        (f"  {_export_line(start)}", ""),
        ("", ""),
        ("# aws cli", "bold"),
        (f"  aws --endpoint-url {url} s3 mb s3://my-bucket", ""),
        (f"  echo hello | aws --endpoint-url {url} s3 cp - s3://my-bucket/hello.txt", ""),
        ("", ""),
        ("# rclone", "bold"),
        (f"  {_rclone_config(start)}", ""),
        (f"  echo hello | rclone{trust} rcat vaultaire:my-bucket/hello.txt", ""),
        (f"  rclone{trust} copy --progress {start.sample} vaultaire:my-bucket/a-folder", ""),
        ("", ""),
        ("# restic", "bold"),
        (
            f"  restic{f' --cacert {ca}' if ca else ''} -o s3.bucket-lookup=path -r s3:{url}/my-backup init",
            "",
        ),
        ("", ""),
        ("# what clients stored, what the disk holds, what was saved; is all well? keys for others", "bold"),
        *((f"  {start.call(name)}", "") for name in start.next_commands),
    ]
    if ca:
        lines += [("", ""), *_SELF_SIGNED]
    return lines


_SELF_SIGNED: list[Line] = [
    ("# The certificate is self-signed, so the lines above name it. To try without verification:", "yellow"),
    ("# aws --no-verify-ssl, rclone --no-check-certificate, restic --insecure-tls", "yellow"),
]


def _export_line(start: Start) -> str:
    if start.secret_known:
        return f'eval "$({start.env_command})"'
    return "export " + " ".join(assignments(exports(start.root, start.endpoint)))


def _rclone_config(start: Start) -> str:
    """Path style and region spelled out; credentials from the shell when the secret is not to be shown."""
    if start.secret_known:
        credentials = ["env_auth=true"]
    else:
        credentials = [f"access_key_id={start.root.access_key}", f"secret_access_key={start.root.secret_key}"]
    settings = ["provider=Other", *credentials, f"endpoint={start.endpoint.url}", f"region={REGION}"]
    return "rclone config create vaultaire s3 " + " ".join([*settings, "force_path_style=true"])
