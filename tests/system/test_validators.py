"""A validator that is killed while it owes the ledger a vector."""

from dataclasses import replace
from pathlib import Path

import pytest

from ledger.payloads import RevealWeights
from ledger.state import State
from ledger.store import Store
from ledger.tables import COMMITS, WEIGHTS, Commit, uid_key
from ledger.vectors import pack, unpack
from p2p import vectors
from p2p.home import Home
from p2p.vectors import Kept
from tests.node.judged import NETUID, genesis_with, pair_of, sent_by
from tests.system.networks import QUICK, height, settle

from .swarm import Daemon, Swarm, wait_until

PARAMS = replace(QUICK, tempo=24, epoch=6, heartbeat_interval=2)
OWNER = uid_key(NETUID, 0)


def kept(daemon: Daemon) -> list[Kept]:
    return vectors.all_kept(Home(daemon.home))


def commits(home: Path) -> list[Commit]:
    """What the validator has committed to and not revealed, by the ledger on disk."""
    with Store.open(home / "chain", readonly=True) as store, store.snapshot() as disk:
        assert State(disk).get(WEIGHTS, OWNER) is None
        return [row for _, row in State(disk).rows(COMMITS, OWNER)]


def reveals(home: Path) -> list[tuple[int, RevealWeights]]:
    with Store.open(home / "chain", readonly=True) as store, store.snapshot() as disk:
        sent = sent_by(disk, pair_of("ann").public)
        return [(at, one) for at, one in sent if isinstance(one, RevealWeights)]


@pytest.mark.campaign
@pytest.mark.timeout(120)
def test_a_vector_is_revealed_though_its_validator_was_killed_after_the_commitment(
    swarm: Swarm,
) -> None:
    """Given a validator that judges a miner, and has committed to weights,
    when it is killed with -9 before it reveals them, and started again,
    then in the next tempo it reveals the very vector that it kept, under the commitment of before,
    and says nothing else of the tempo in which it was killed."""
    genesis = genesis_with(PARAMS, ["ann", "mia"], voters=1, parameters='{"choices": 2}')
    validator = settle(swarm.make(), pair_of("ann"), genesis)
    (validator.home / "node.toml").write_text('validate = ["1"]\n')
    validator.start().ready()
    miner = settle(swarm.make(bootstrap=[validator.address]), pair_of("mia"), genesis)
    (miner.home / "node.toml").write_text('mine = ["1:docs-gpt"]\n')
    miner.start().ready()
    wait_until(lambda: [one for one in kept(validator) if one.committed], 60, "a commitment")
    validator.kill()
    ((one, commit),) = zip(kept(validator), commits(validator.home), strict=True)
    assert (one.hash, one.committed) == (commit.hash.hex(), commit.committed)
    assert one.places == [1]

    validator.start().ready()
    row = wait_until(lambda: revealed(validator), 40, "the row")
    assert row["committed"] == commit.committed
    assert row["weights"] == [[1, 65_535]]
    wait_until(lambda: not [each for each in kept(validator) if each.hash == one.hash], 10)
    after = height(validator)
    validator.kill()
    ((at, payload),) = reveals(validator.home)[:1]
    assert payload.salt.hex() == one.salt
    assert (payload.uids, payload.values) == (pack(one.places), pack(one.values))
    end = commit.committed + -(commit.committed + NETUID) % PARAMS.tempo
    assert end < at <= min(after, end + PARAMS.tempo)
    assert unpack(payload.uids) == (1,)
    wrong = [line for line in validator.err().splitlines() if " WARNING " in line]
    assert not [line for line in wrong if "yuma.validator" in line or "yuma.weights" in line]


def revealed(daemon: Daemon) -> dict:
    rows = daemon.client.get("/v0/weights", netuid=NETUID)["weights"]
    return next((row for row in rows if row["hotkey"] == pair_of("ann").peer_id), {})
