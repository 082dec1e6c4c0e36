"""`vaultaire completion SHELL`: the script that makes a shell complete commands, options, buckets and access keys."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

_INSTALL = {
    "bash": "to install it: echo 'eval \"$(vaultaire completion bash)\"' >> ~/.bashrc",
    "zsh": "to install it: echo 'eval \"$(vaultaire completion zsh)\"' >> ~/.zshrc",
    "fish": "to install it: vaultaire completion fish > ~/.config/fish/completions/vaultaire.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_INSTALL)))
def command(shell: str) -> None:
    """Print the completion script of SHELL. `vaultaire` must be in PATH when it is used.

    \b
    bash:  echo 'eval "$(vaultaire completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(vaultaire completion zsh)"' >> ~/.zshrc
    fish:  vaultaire completion fish > ~/.config/fish/completions/vaultaire.fish
    """
    from vaultaire.cli import main

    chosen = get_completion_class(shell)
    assert chosen is not None
    click.echo(chosen(main, {}, "vaultaire", "_VAULTAIRE_COMPLETE").source())
    if sys.stdout.isatty():
        click.echo(f"# {_INSTALL[shell]}", err=True)
