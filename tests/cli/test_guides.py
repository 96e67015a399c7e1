"""Guides: every command in them is one that there is, and those that one node can run work."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.request import urlopen

import click
import pytest

from p2p.cli import yuma
from p2p.config import key_of, parse_value
from p2p.guides import NAMES, guide, guides
from tests.cli.command_line import Yuma, run_within, start_daemon, wait_until

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


NOT_RUN = {
    "yuma init --network lab": "as yuma genesis",
    "yuma daemon --": "a daemon runs already",
    "yuma --home": "it joins a swarm of others",
    "yuma genesis": "the private swarm has a test of its own, tests/system/test_private.py",
    "yuma member": "as yuma genesis",
    "yuma wallet new admin": "as yuma genesis",
    "cp": "as yuma genesis",
    "ssh": "it needs another machine",
    "yuma config set": "the gateway and the addresses of the test are others",
    "yuma explain": "it needs an epoch that visits led to",
    "yuma receipts verify visits.json": "as yuma explain",
    "yuma run docs-gpt The while statement --ask 3": "it needs three servers",
    "yuma receipts verify answers.json": "as yuma run --ask 3",
    "yuma wallet restore": "it needs the 24 words",
    "yuma light": "the wallet savings is not in the ledger of a new network",
    "yuma status --watch": "it goes on until Ctrl-C",
    "yuma shutdown": "the test ends the daemon, after the last guide",
    "yuma ledger check": "it needs the daemon off: run last",
}
"""Commands, by how they begin, that one node on one machine does not run, and why."""
ORDER = ("start", "apps", "validate", "mine", "security", "ops", "private")
"""The first makes the home and starts the daemon."""


def why_not(words: Sequence[str]) -> str | None:
    """Why a command of a guide is not run, if it is not."""
    line = " ".join(words)
    return next((why for start, why in NOT_RUN.items() if line.startswith(start)), None)


def test_what_is_not_run_is_in_a_guide() -> None:
    assert sorted(ORDER) == sorted(NAMES)
    lines = [" ".join(words) for _, words in ALL]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in lines), start


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_the_guides_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of each guide that one node can run, one after the other on one daemon."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YUMA_WALLET_PASSWORD", "a long enough password")
    (tmp_path / "texts").mkdir()
    texts = "The for statement iterates over a sequence. " * 99
    (tmp_path / "texts" / "mine.txt").write_text(texts)
    home, daemon, gateway = tmp_path / "home", None, ""
    every = (tuple(words) for name in ORDER for words in commands(guide(name).text))
    try:
        for words in dict.fromkeys(every):  # what several guides begin with is done once
            if words == ("yuma", "daemon"):
                daemon = start_daemon(home, "--gateway", "127.0.0.1:0").wait_ready()
                gateway = daemon.json("id")["gateway"]
                assert run_within(home, "subnet", "create").code == 0
                wait_until(lambda: run_within(home, "metagraph", "--netuid", "1").code == 0, 120)
            elif why_not(words) is None:
                works(home, gateway, words)
        assert daemon is not None
        assert daemon("shutdown").code == 0
        daemon.process.wait()
        assert run_within(home, "ledger", "check").code == 0
    finally:
        if daemon is not None:
            daemon.stop()


def works(home: Path, gateway: str, words: Sequence[str]) -> None:
    """Run a command of a guide, which has to come to a good end."""
    if words[0] == "curl":
        with urlopen(words[1].replace("http://127.0.0.1:4080", gateway), timeout=20) as answer:
            assert answer.read()
        return
    done = run_within(home, *words[1:])
    assert done.code == 0, (words, done.err)
