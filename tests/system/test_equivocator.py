"""A voter that votes twice is convicted by the others, on the ledger, and pays for it."""

from typing import Any

import pytest

from ledger.keys import peer_id_of
from ledger.params import TOKEN
from tests.system.networks import block, genesis_of, head, height, keys, network_of, reach
from tests.system.swarm import Daemon, running_swarm, wait_until

STAKE = 100 * TOKEN


def convicted(daemon: Daemon) -> list[str]:
    """The offenders that evidence on the chain names, in its order."""
    return [
        transaction["payload"]["offender"]
        for at in range(1, height(daemon) + 1)
        for transaction in block(daemon, at)["transactions"]
        if transaction["kind"] == "Evidence"
    ]


def pool(daemon: Daemon, peer_id: str) -> dict[str, Any]:
    """What the ledger says of a node's stake."""
    return daemon.client.get("/v0/chain/node", address=peer_id)


@pytest.mark.campaign
def test_who_votes_twice_is_convicted_and_slashed() -> None:
    pairs = keys(4)
    offender, *honest_ids = (peer_id_of(pair.public) for pair in reversed(pairs))
    with running_swarm() as swarm:
        daemons = network_of(swarm, pairs, genesis_of(pairs), n4="tests.system.equivocator")
        honest = daemons[:3]
        wait_until(lambda: convicted(honest[0]), 60, "a conviction")
        reach(honest, height(honest[0]) + 5)
        for daemon in honest:
            assert convicted(daemon) == [offender]
            assert head(daemon)["burned"] > 0
            assert pool(daemon, offender)["jailed"]
            assert pool(daemon, offender)["staked"] < STAKE
            assert not any(pool(daemon, peer_id)["jailed"] for peer_id in honest_ids)
