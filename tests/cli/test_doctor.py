import json
import socket
import time
from dataclasses import replace
from pathlib import Path

from gossip.membership import admit, revoke
from ledger.genesis import Genesis
from ledger.genesis_file import write_genesis
from ledger.keys import KeyPair, save_seed
from p2p.cli.checks import (
    Check,
    Verdict,
    check_clock,
    check_descriptors,
    check_free,
    check_home,
    check_key,
    check_member,
    check_memory,
    gateway_address,
)
from p2p.cli.checks_running import (
    check_bootstraps,
    check_clock_of_peers,
    check_ledger,
    check_listening,
    check_open,
    check_peers,
    check_reach,
)
from p2p.config import Settings
from p2p.home import Home
from tests.cli.command_line import Yuma
from tests.cli.wallet_files import PAIR
from tests.system.networks import genesis_of


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


def test_whether_a_private_swarm_lets_this_node_in(tmp_path: Path) -> None:
    """Given a home of a private swarm, then its membership is missing, good, over, taken back."""
    home, pair = Home(tmp_path), KeyPair.from_seed(bytes(32))
    save_seed(pair, home.key)
    made = replace(genesis_of([pair]), admin=(PAIR.public,))
    now_s, now_ms = 1000.0, 1_000_000

    def said(genesis: Genesis = made) -> list[tuple[str, str]]:
        home.genesis.write_text(write_genesis(genesis))
        return [(check.verdict, check.detail) for check in check_member(home, now_s)]

    assert said(replace(made, admin=())) == []
    assert said() == [("fail", "this swarm is private, and this node has no membership")]
    (missing,) = check_member(home, now_s)
    assert f"yuma member admit {pair.peer_id}" in missing.hint
    assert "yuma member install FILE" in missing.hint
    signed = admit(made.chain, PAIR, pair.public, now_ms - 10, now_ms + 1000)
    home.membership.write_text(signed.hex())
    assert said() == [("ok", "the admin of this private swarm lets this node in")]
    (ended,) = check_member(home, now_s + 1)
    assert (ended.detail, ended.hint) == ("the membership has expired", missing.hint)
    home.revocations.write_text(revoke(made.chain, PAIR, pair.public, now_ms).hex())
    assert said() == [("fail", "the membership was revoked")]
    home.genesis.write_text("nonsense")
    (damaged,) = check_member(home, now_s)
    assert (damaged.verdict, damaged.hint) == ("fail", "")


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


def test_the_gateway_is_one_of_the_ports() -> None:
    assert gateway_address("127.0.0.1:4080") == "/ip4/127.0.0.1/tcp/4080"
    assert gateway_address("[::1]:4080") == "/ip6/::1/tcp/4080"
    assert gateway_address("") == ""


def test_whether_others_can_dial_this_node() -> None:
    def check(reachable: bool | None, reached: int, at: str | None, announced: bool) -> Check:
        said = {"reachable": reachable, "reached": reached, "tried": 3, "address": at}
        return check_reach({**said, "announced": announced}, ["/ip4/0.0.0.0/tcp/4040"])

    at = "/ip4/192.0.2.7/tcp/4040"
    assert (
        check(None, 0, None, False).detail == "not known: no peer has tried to dial this node yet"
    )
    assert check(True, 3, at, True) == Check(
        Verdict.OK, "reach", f"3 of 3 peers dialled this node at {at}"
    )
    hidden = check(False, 0, "/ip4/192.0.2.7/tcp/0", False)
    assert hidden.detail == "0 of 3 peers could dial this node at /ip4/192.0.2.7"
    assert hidden.hint.startswith(
        "have TCP port 4040 let in and forwarded to this machine, then: "
        f"yuma config set announce {at};"
    )
    unsaid = check(True, 2, at, False)
    assert (unsaid.verdict, unsaid.hint) == (
        Verdict.WARN,
        f"tell others of this address: yuma config set announce {at}",
    )


def test_the_clock_beside_those_of_the_peers() -> None:
    found = [check_clock_of_peers(ahead) for ahead in (None, 0.02, -7.0, 90.0)]
    assert verdicts(found) == ["ok", "ok", "warn", "fail"]
    assert found[2].detail == "7.0 s behind the peers' clocks"


def test_descriptors_and_the_ledger_of_a_daemon() -> None:
    def opened(used: int, allowed: int) -> Verdict:
        return check_open({"descriptors": used, "descriptors_limit": allowed}).verdict

    assert [opened(30, 1024), opened(1000, 1024), opened(1000, -1)] == ["ok", "fail", "ok"]

    def ledger(used: int, stopped: str = "") -> Verdict:
        chain = {"ledger_bytes": used, "ledger_limit_bytes": 100, "stopped": stopped}
        return check_ledger(chain).verdict

    assert [ledger(50), ledger(85), ledger(96), ledger(50, "DISK_FULL")] == [
        *("ok", "warn", "fail", "fail"),
    ]


def test_bootstraps_and_peers() -> None:
    up = {"address": "/a", "state": "connected", "error": "", "next_try_s": None}
    down = {"address": "/b", "state": "failed", "error": "refused", "next_try_s": 3}
    checks = list(check_bootstraps({"bootstrap": [up, down]}))
    assert verdicts(checks) == ["ok", "warn"]
    assert checks[1].detail == "/b failed: refused"
    assert check_peers({"peers": 0, "swarm_nodes": 1}).verdict is Verdict.WARN
    assert check_peers({"peers": 2, "swarm_nodes": 3}).detail == "2 connected, 3 in the swarm"
