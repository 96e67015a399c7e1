import stat
from pathlib import Path

from ledger.keys import load_seed
from tests.cli.command_line import Yuma


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_makes_a_closed_home(yuma: Yuma, home: Path) -> None:
    outcome = yuma("init", "--network", "lab")
    assert (outcome.code, outcome.out) == (0, load_seed(home / "node.key").peer_id + "\n")
    assert outcome.err == f"made a node in {home}\n"
    assert (mode(home), mode(home / "node.key")) == (0o700, 0o600)
    assert yuma("config", "get", "network").out == "lab\n"


def test_init_overwrites_nothing(yuma: Yuma, home: Path) -> None:
    yuma("init")
    key, settings = (home / "node.key").read_bytes(), (home / "node.toml").read_text()
    outcome = yuma("init", "--network", "lab")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"{home} holds a node already\nhint: ")
    assert (home / "node.key").read_bytes() == key
    assert (home / "node.toml").read_text() == settings


def test_init_keeps_settings_that_are_there(yuma: Yuma, home: Path) -> None:
    home.mkdir()
    (home / "node.toml").write_text("slots = 3\n")
    assert yuma("init", "--network", "lab").code == 0
    assert (home / "node.toml").read_text() == 'slots = 3\nnetwork = "lab"\n'


def test_init_where_a_file_is(yuma: Yuma, home: Path) -> None:
    home.write_text("")
    outcome = yuma("init")
    assert (outcome.code, outcome.out) == (1, "")
    assert len(outcome.err.splitlines()) == 1


def test_config_set_get_show(yuma: Yuma, home: Path) -> None:
    assert yuma("config", "set", "slots", "3").err.startswith(f"there is no home at {home}\nhint: ")
    yuma("init")
    assert yuma("config", "set", "slots", "3").code == 0
    assert yuma("config", "get", "slots").out == "3\n"
    assert yuma("config", "get", "slots", "--json").out == "3\n"
    assert yuma("config", "set", "listen", "/ip4/127.0.0.1/tcp/1,/ip6/::1/tcp/1").code == 0
    assert yuma("config", "get", "listen").out == "/ip4/127.0.0.1/tcp/1,/ip6/::1/tcp/1\n"
    bad = yuma("config", "set", "slots", "-3")
    assert (bad.code, bad.out) == (2, "")
    assert bad.err.startswith("config set: slots has to be an integer from 1 to 256, not '-3'\n")
    shown = yuma("config", "show", "--origin", YUMA_THREADS="4").out
    lines = {line.split()[0]: line.split()[1:] for line in shown.splitlines()}
    assert lines["serve"] == ["=", "[]", "#", "default"]
    assert lines["slots"] == ["=", "3", "#", "file", f"{home}/node.toml"]
    assert lines["threads"] == ["=", "4", "#", "environment", "YUMA_THREADS"]


def test_bad_settings_are_one_sentence(yuma: Yuma, home: Path) -> None:
    yuma("init")
    (home / "node.toml").write_text("slotz = 3\n")
    for arguments in (["config", "show"], ["config", "set", "slots", "3"], ["daemon"]):
        outcome = yuma(*arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(f"{home}/node.toml has an unknown key 'slotz', known are: ")
