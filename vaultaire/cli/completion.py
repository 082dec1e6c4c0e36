"""`vaultaire completion SHELL`: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  eval "$(vaultaire completion bash)"      in ~/.bashrc
    zsh:   eval "$(vaultaire completion zsh)"       in ~/.zshrc
    fish:  vaultaire completion fish > ~/.config/fish/completions/vaultaire.fish
    """
    from vaultaire.cli import main

    chosen = get_completion_class(shell)
    assert chosen is not None
    click.echo(chosen(main, {}, "vaultaire", "_VAULTAIRE_COMPLETE").source())
