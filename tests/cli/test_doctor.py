import json
import socket
import time
from pathlib import Path

from ledger.keys import KeyPair, save_seed
from p2p.cli.doctor import (
    Check,
    Verdict,
    check_bootstraps,
    check_clock,
    check_descriptors,
    check_free,
    check_home,
    check_key,
    check_listening,
    check_memory,
    check_peers,
)
from p2p.config import Settings
from p2p.home import Home
from tests.cli.command_line import Yuma


def verdicts(checks: list[Check]) -> list[Verdict]:
    return [check.verdict for check in checks]


def test_nothing_is_there(yuma: Yuma, home: Path) -> None:
    outcome = yuma("doctor")
    assert outcome.code == 1
    assert outcome.out.startswith(f"fail  home         {home} is not there\n      hint: make it: ")
    assert outcome.err == "3 of 10 checks failed\n"


def test_as_json(yuma: Yuma) -> None:
    yuma("init")
    outcome = yuma("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(outcome.out)["checks"]}
    assert [checks[name]["verdict"] for name in ("home", "key", "settings")] == ["ok"] * 3
    assert checks["daemon"]["verdict"] == "fail"
    assert checks["daemon"]["hint"] == "start one with: yuma daemon"


def test_home_and_key_that_others_can_read(tmp_path: Path) -> None:
    home = Home(tmp_path)
    save_seed(KeyPair.from_seed(bytes(32)), home.key)
    tmp_path.chmod(0o700)
    assert (check_home(home).verdict, check_key(home).verdict) == (Verdict.OK, Verdict.OK)
    tmp_path.chmod(0o750)
    assert (check_home(home).verdict, check_home(home).hint) == ("warn", f"chmod 700 {tmp_path}")
    home.key.chmod(0o640)
    assert (check_key(home).verdict, check_key(home).hint) == ("fail", f"chmod 600 {home.key}")


def test_key_that_is_cut_short(tmp_path: Path) -> None:
    Home(tmp_path).key.write_bytes(b"short")
    assert check_key(Home(tmp_path)).detail.endswith("node.key has 5 bytes, a key has 32")


def test_clock_before_the_program_was_made() -> None:
    assert check_clock(time.time()).verdict is Verdict.OK
    assert check_clock(0.0).verdict is Verdict.FAIL


def test_memory() -> None:
    assert check_memory(None).verdict is Verdict.OK
    assert check_memory(10**9).verdict is Verdict.OK
    assert check_memory(300 * 10**6).verdict is Verdict.WARN
    assert check_memory(100 * 10**6).verdict is Verdict.FAIL


def test_descriptors() -> None:
    assert check_descriptors(Settings(connections_max=8)).verdict is Verdict.OK
    assert check_descriptors(Settings(connections_max=65_536)).verdict in ("ok", "warn")


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        assert check_free(address).verdict is Verdict.WARN
        assert verdicts(list(check_listening([address]))) == ["ok"]
    assert check_free(address).verdict is Verdict.OK
    assert verdicts(list(check_listening([address]))) == ["fail"]
    assert verdicts(list(check_listening([]))) == ["fail"]


def test_bootstraps_and_peers() -> None:
    up = {"address": "/a", "state": "connected", "error": "", "next_try_s": None}
    down = {"address": "/b", "state": "failed", "error": "refused", "next_try_s": 3}
    checks = list(check_bootstraps({"bootstrap": [up, down]}))
    assert verdicts(checks) == ["ok", "warn"]
    assert checks[1].detail == "/b failed: refused"
    assert check_peers({"peers": 0, "swarm_nodes": 1}).verdict is Verdict.WARN
    assert check_peers({"peers": 2, "swarm_nodes": 3}).detail == "2 connected, 3 in the swarm"
