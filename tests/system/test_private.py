"""A private swarm of real daemons, from the admin's commands to the end of a membership."""

import re
from dataclasses import replace
from pathlib import Path

from ledger.genesis import Genesis
from tests.cli.command_line import Outcome, run_within
from tests.cli.wallet_files import OPEN, PAIR, failed, json_of, put
from tests.system.networks import genesis_of, height, keys, reach, settle
from tests.system.swarm import Daemon, Swarm, wait_until


def admitted(admin: Path, daemon: Daemon, peer_id: str) -> None:
    """Have the admin sign a membership, and the node keep it."""
    signed = run_within(admin, "member", "admit", peer_id)
    assert signed.code == 0, signed.err
    file = daemon.home.parent / f"{daemon.home.name}.membership"
    file.write_text(signed.out)
    assert run_within(daemon.home, "member", "install", str(file)).code == 0


def private(genesis: Genesis) -> Genesis:
    return replace(genesis, admin=(PAIR.public,))


def test_a_private_swarm_lets_in_whom_its_admin_names(swarm: Swarm) -> None:
    pairs = keys(4)
    genesis = private(genesis_of(pairs[:2]))
    first = settle(swarm.make(), pairs[0], genesis)
    put(first.home, "default", OPEN)
    admitted(first.home, first, pairs[0].peer_id)
    first.start().ready()

    second, mallory = (
        settle(swarm.make(bootstrap=[first.address]), pair, genesis) for pair in pairs[1:3]
    )
    for daemon, pair in ((second, pairs[1]), (mallory, pairs[2])):
        admitted(first.home, daemon, pair.peer_id)
        daemon.start()
    second.ready()
    mallory.ready()
    reach([first, second, mallory], 3)

    stranger = settle(swarm.make(bootstrap=[first.address]), pairs[3], replace(genesis, admin=()))
    stranger.start().ready()
    forged = settle(swarm.make(bootstrap=[first.address]), pairs[3], genesis).start()
    assert forged.wait() == 2
    assert "this swarm is private" in forged.err()

    said = run_within(first.home, "member", "revoke", pairs[2].peer_id)
    assert (said.code, said.err) == (0, f"{pairs[2].peer_id} is cut off\n")
    wait_until(lambda: not mallory.peers(), 40, "the cut")
    wait_until((mallory.home / "revocations").exists, 10, "what mallory hears of it")
    doctor = run_within(mallory.home, "doctor")
    assert re.search(r"^fail  member  +the membership was revoked$", doctor.out, re.MULTILINE)
    assert "yuma member install FILE" in doctor.out
    assert "is its port open" not in doctor.out
    stopped = height(mallory)
    reach([first, second], stopped + 5)
    assert height(mallory) <= stopped + 1
    assert set(first.peers()) == {pairs[1].peer_id}
    assert json_of(run_within(second.home, "member", "show", "--json"))["revoked"] == [
        pairs[2].peer_id
    ]


def test_what_cannot_be_done_is_said(swarm: Swarm) -> None:
    pairs = keys(2)
    opened, closed = genesis_of(pairs), private(genesis_of(pairs))
    public, home = (settle(swarm.make(), pairs[0], one).home for one in (opened, closed))

    def refused(outcome: Outcome, sentence: str) -> bool:
        return failed(outcome, sentence)

    other = pairs[1].peer_id
    assert refused(run_within(public, "member", "admit", other), "open to all")
    assert refused(run_within(public.parent / "none", "member", "show"), "has no genesis")
    assert refused(run_within(home, "member", "admit", other), "no wallet default")
    put(home, "default", OPEN)
    assert refused(run_within(home, "member", "admit", "nobody"), "not an Ed25519 peer id")
    assert refused(run_within(home, "member", "revoke", other), "no daemon is running")
    file = home.parent / "membership"
    file.write_text(run_within(home, "member", "admit", other).out)
    assert refused(run_within(home, "member", "install", str(file)), "another node's")
    file.write_text("nonsense")
    assert refused(run_within(home, "member", "install", str(file)), "hexadecimal")
    assert json_of(run_within(home, "member", "show", "--json"))["member"] is None
