"""Whether validators did right by miners, from ledgers: two judge three, whose models differ."""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.payloads import CommitWeights, Payload, RevealWeights
from ledger.tables import Task
from ledger.transactions import Transaction, sign
from ledger.vectors import pack
from ledger.weights import commitment
from p2p.cli.daemons import Daemon
from p2p.testnet.judgement import judge_subnet
from p2p.testnet.metagraph import Metagraph
from p2p.testnet.models import held_out_loss
from p2p.testnet.plan import Member, Plan, make_plan, params_of
from p2p.testnet.roles import NETUID, Miner, Roles, Validator, make_roles
from tests.testnet.chains import make_chain

LOSSES = {"n3": 1.5, "n4": 1.9, "n5": 3.0}
EVERYBODY = ("n1", "n2", "n3", "n4", "n5")
JUST = {"n3": 60_000, "n4": 20_000, "n5": 100}
UNJUST = {"n3": 20_000, "n4": 60_000, "n5": 100}
COMMIT, REVEAL, LAST = 21, 41, 60
"""In the second tempo of twenty blocks, and in the third, which block 59 ends."""
Says = Mapping[str, Mapping[str, int]]
"""What validators say of miners."""


class Subnet:
    """A testnet whose validators, n1 and n2, say what they are told to; the ledgers are theirs."""

    def __init__(self, place: Path, says: Says) -> None:
        params = params_of("minimal")
        miners = [Miner(name, made_model(place / name, loss)) for name, loss in LOSSES.items()]
        validators = map(Validator, ("n1", "n2"))
        self.roles: Roles = make_roles(params, Task("text", ""), validators, miners)
        self.plan: Plan = make_plan(place, params, nodes=5, voters=2, roles=self.roles)
        self.uids = {name: uid for uid, name in enumerate(self.roles.names)}
        self.grow(says, (0, 1))

    def grow(self, says: Says, places: Collection[int]) -> None:
        """Write a chain into the homes of these."""

        def send(height: int) -> list[bytes]:
            members = [one for one in self.plan.members if one.name in says]
            due = members if height in (COMMIT, REVEAL) else []
            return [self._said(one, says[one.name], height) for one in due]

        make_chain(self.plan, LAST, send, places)

    def _said(self, member: Member, said: Mapping[str, int], height: int) -> bytes:
        entries = [(self.uids[name], value) for name, value in said.items()]
        uids, values = zip(*entries, strict=True)
        reveal = RevealWeights(NETUID, bytes(32), pack(uids), pack(values), 0)
        chain, uid = self.plan.genesis.chain, self.uids[member.name]
        payload: Payload = reveal
        if height == COMMIT:
            payload = CommitWeights(NETUID, commitment(chain, uid, 0, reveal))
        nonce = int(height == REVEAL)
        return sign(Transaction(chain, member.pair.public, nonce, 0, height, payload), member.pair)

    def judged(
        self,
        up: Collection[str] = EVERYBODY,
        untrained: str = "n5",
        places: Collection[int] = (0, 1),
    ) -> tuple[Metagraph, dict[str, str]]:
        """The judgement where these ran to the end, and what does not hold."""
        members = [self.plan.members[place] for place in places]
        daemons = [Daemon(member.name, member.home, ()) for member in members]
        miners = [
            replace(one, steps=0 if one.node == untrained else 100) for one in self.roles.miners
        ]
        roles = replace(self.roles, miners=tuple(miners))
        metagraph, checks = judge_subnet(self.plan, roles, daemons, up)
        return metagraph, {check.name: check.fault for check in checks if check.fault}


def made_model(directory: Path, loss: float) -> str:
    """A directory with a card, which is all that is read of it here."""
    directory.mkdir(parents=True)
    card = {"held_out_loss": {"per_token": 9.0, "per_character": loss}}
    (directory / "card.json").write_text(json.dumps(card))
    return str(directory)


@pytest.fixture(scope="module")
def just(tmp_path_factory: pytest.TempPathFactory) -> Subnet:
    """Both validators say what is so."""
    return Subnet(tmp_path_factory.mktemp("just"), {"n1": JUST, "n2": JUST})


@pytest.fixture(scope="module")
def unjust(tmp_path_factory: pytest.TempPathFactory) -> Subnet:
    """One says what is not so, the other nothing."""
    return Subnet(tmp_path_factory.mktemp("unjust"), {"n1": UNJUST})


def test_the_better_the_model_the_more_it_earns(just: Subnet) -> None:
    metagraph, faults = just.judged()
    assert faults == {}
    assert metagraph.height == 59
    best, half, untrained = metagraph.miners
    assert best.incentive == pytest.approx(60_000 / 80_100, abs=0.01)
    assert half.incentive == pytest.approx(20_000 / 80_100, abs=0.01)
    assert untrained.incentive < 0.01
    assert best.earned >= best.emission > half.emission > untrained.emission
    assert [one.loss for one in metagraph.miners] == [1.5, 1.9, 3.0]
    assert sum(one.dividends for one in metagraph.validators) == pytest.approx(1, abs=0.001)
    assert sum(one.proposed for one in metagraph.validators) == pytest.approx(1, abs=0.001)


def test_what_people_read(just: Subnet) -> None:
    metagraph, _ = just.judged(up=set(EVERYBODY) - {"n4"})
    heads, best, half, *_ = metagraph.text().splitlines()
    assert heads.split()[:4] == ["MINER", "MODEL", "LOSS", "INCENTIVE"]
    assert best.split()[:5] == ["n3", "n3", "1.500", "74.9", "%"]
    assert half.split()[-1] == "gone"


def test_the_order_has_to_be_that_of_the_losses(unjust: Subnet) -> None:
    _, faults = unjust.judged()
    said = faults["the better the model, the higher the incentive"]
    assert said == "n3 is better than n4, but they get 25.0 % and 74.9 %"


def test_a_miner_that_went_must_not_earn(just: Subnet) -> None:
    _, faults = just.judged(up=set(EVERYBODY) - {"n4"})
    assert faults == {"an untrained or absent miner gets under 5%": "n4 gets 25.0 %"}


def test_an_untrained_miner_must_not_earn(just: Subnet) -> None:
    _, faults = just.judged(untrained="n3")
    assert faults == {"an untrained or absent miner gets under 5%": "n3 gets 74.9 %"}


def test_a_validator_that_says_nothing_earns_nothing(unjust: Subnet) -> None:
    _, faults = unjust.judged()
    assert faults["every validator earns dividends"] == "n2 has none"


def test_two_nodes_that_differ(just: Subnet) -> None:
    just.grow({"n1": UNJUST, "n2": UNJUST}, (2,))
    _, faults = just.judged(places=(0, 1, 2))
    assert faults["one metagraph on every node"] == (
        "n1 and n3 differ in what the epoch of block 59 said"
    )


def test_a_loss_that_no_card_states(tmp_path: Path) -> None:
    assert held_out_loss(str(tmp_path)) is None
    (tmp_path / "card.json").write_text('{"held_out_loss": []}')
    assert held_out_loss(str(tmp_path)) is None
    assert held_out_loss("docs-gpt") == pytest.approx(1.13, abs=0.01)
