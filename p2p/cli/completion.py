"""Completion of commands and flags in a shell: completion."""

import click
from click.shell_completion import ShellComplete, get_completion_class

from p2p.cli.command import Command
from p2p.cli.failure import PROGRAM

SHELLS = ("bash", "zsh", "fish")
VARIABLE = f"_{PROGRAM.upper()}_COMPLETE"
"""With which a shell asks the program what may follow."""


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script by which a shell completes yuma.

    For bash: eval "$(yuma completion bash)" in ~/.bashrc; for zsh the same in ~/.zshrc; for fish:
    yuma completion fish > ~/.config/fish/completions/yuma.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    # Bash's own class would start a bash to see its version; what is older than 4.4 is rare by now.
    click.echo(ShellComplete.source(kind(root, {}, PROGRAM, VARIABLE)))


COMMANDS = (completion,)
