"""How a command fails: one sentence, a hint, an exit code, and never a traceback."""

import os
import sys
from collections.abc import Sequence

import click

from p2p.home import ConfigError

PROGRAM = "yuma"
INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


class Failure(click.ClickException):
    """A command cannot do what was asked: its sentence, and what may help."""

    def __init__(self, sentence: str, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.hint = hint
        self.code = exit_code


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a command as a process would, and give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter is no failure
    try:
        code = command.main(list(arguments), prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except click.Abort:
        return INTERRUPTED
    except (click.ClickException, ConfigError, OSError) as error:
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: click.ClickException | ConfigError | OSError) -> int:
    """Say on stderr what went wrong; the exit code."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return error.exit_code
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else PROGRAM
            return _say(error.format_message(), f"see {path} --help", error.exit_code)
        case Failure():
            return _say(error.message, error.hint, error.code)
        case click.ClickException():
            return _say(error.format_message(), "", error.exit_code)
        case ConfigError():
            return _say(str(error), "yuma daemon --help explains the settings", 2)
        case BrokenPipeError():  # whoever read our output has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        case OSError():
            place = f": {error.filename}" if error.filename else ""
            return _say(f"{error.strerror or error}{place}", "", 1)


def _say(sentence: str, hint: str, code: int) -> int:
    click.echo(" ".join(sentence.split()), err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return code
