"""Guides: every command in them is one that there is, and the first one's work."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from p2p.cli import yuma
from p2p.config import key_of, parse_value
from p2p.guides import NAMES, guide, guides
from tests.cli.command_line import Yuma, run_within, start_daemon

MAX_LINES = 60
OTHERS = ("cp", "curl", "ssh")
"""Programs that are not ours."""
FILES = ("words.txt", "lab.toml", "genesis.toml", "answer.json", "answers.json", "visits.json")
"""Those that commands of a guide read, some made by the one before."""


def commands(text: str) -> Iterator[list[str]]:
    """The lines of a guide's blocks, as a shell reads them; where output goes left out."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines() if not language else ():
            yield shlex.split(line.partition(" > ")[0], comments=True)


ALL = [(name, words) for name in NAMES for words in commands(guide(name).text)]


@pytest.mark.parametrize(("name", "words"), ALL, ids=[" ".join(words) for _, words in ALL])
def test_each_command_is_understood(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the files that the guides speak of; then click takes the words, options and all."""
    program, *rest = words
    if program in OTHERS:
        return
    assert program == "yuma"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    for file in FILES:
        (tmp_path / file).touch()
    command: click.Command = yuma
    while isinstance(command, click.Group):
        while rest[0] == "--home":
            del rest[:2]
        command = command.commands[rest.pop(0)]
    context = command.make_context(command.name, list(rest))
    if command.name == "set" and "key" in context.params:
        parse_value(key_of(context.params["key"]), context.params["value"], "the guide")


@pytest.mark.parametrize("name", NAMES)
def test_each_guide_is_short_and_has_a_title(name: str) -> None:
    found = guide(name)
    assert found.text.startswith(f"# {found.title}\n\n")
    assert found.text.count("\n") <= MAX_LINES
    assert found.title.isprintable()


def test_a_guide_speaks_only_of_guides_and_commands_that_there_are() -> None:
    for each in guides():
        assert set(re.findall(r"`yuma guide (\w+)`", each.text)) <= set(NAMES)
        for first in re.findall(r"`yuma (\w+)", each.text):
            assert first in yuma.commands, f"{each.name}: yuma {first}"


def test_guides_are_listed_and_shown(within: Yuma) -> None:
    shown = within("guide")
    assert shown.out.startswith(
        "GUIDE     ABOUT\nstart     Start: a node, a model, a first answer\n"
    )
    assert len(shown.out.splitlines()) == 1 + len(NAMES)
    assert within("guide", "ops").out == guide("ops").text
    assert within("guide", "cook").code == 2


@pytest.mark.campaign
def test_the_first_guide_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of it, up to those that need another's swarm, one after the other."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    daemon = None
    try:
        for words in commands(guide("start").text):
            if "--home" in words:
                break
            if words == ["yuma", "daemon"]:
                daemon = start_daemon(home).wait_ready()
                continue
            done = run_within(home, *words[1:])
            assert done.code == 0, (words, done.err)
        assert words[-2:] == ["--network", "genesis.toml"]
    finally:
        if daemon is not None:
            daemon.stop()
