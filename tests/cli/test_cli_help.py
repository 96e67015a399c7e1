import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from p2p.cli import failure, yuma
from tests.cli.command_line import ROOT, environment

FORBIDDEN = (
    *("torch", "libp2p", "networkx", "starlette", "hypercorn", "trio", "numpy", "safetensors"),
    *("nacl", "msgpack", "base58", "lmdb", "httpx", "rich", "multiaddr", "p2p.node.daemon"),
    *("bech32", "mnemonic", "prometheus_client"),
)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = yuma
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


ALL = list(commands(yuma))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_has_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert failure.run(yuma, [*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: yuma {' '.join(path)} ")
    assert "--home DIR" in shown
    assert not at(path).get_short_help_str(60).endswith("...")


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_is_explained(path: tuple[str, ...]) -> None:
    for option in at(path).params:
        if isinstance(option, click.Option):
            plain = option.show_default or option.name in ("count", "name")
            assert option.help or plain, option.name


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_is_in_the_readme(path: tuple[str, ...]) -> None:
    """Its words stand in order on some line: `yuma swarm peers|graph` names two commands."""
    words = r"\b.*\b".join(map(re.escape, ("yuma", *path)))
    assert re.search(words, (ROOT / "README.md").read_text()), f"yuma {' '.join(path)}"


def test_nothing_heavy_is_imported() -> None:
    script = f"""
import sys
from p2p.cli import failure, yuma
for arguments in (["--help"], ["id"], ["status"], ["config", "show"]):
    failure.run(yuma, arguments)
found = [name for name in {FORBIDDEN!r} if name in sys.modules]
print("found", *found)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        cwd=ROOT,
        env=environment(YUMA_HOME="/nonexistent"),
        check=False,
    )
    assert done.stdout.decode().splitlines()[-1] == "found"


@pytest.mark.bench
def test_a_command_takes_150_ms(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("yuma")
    for arguments in (["--help"], ["id"]):
        times = []
        for _ in range(10):
            timed = subprocess.run(
                [sys.executable, "-c", TIMED, str(script), *arguments],
                capture_output=True,
                env=environment(YUMA_HOME=str(tmp_path)),
                check=True,
            )
            times.append(float(timed.stdout))
        assert sorted(times)[5] <= 0.150


TIMED = """
import subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1:], capture_output=True)
print(time.perf_counter() - began)
"""
