"""Who takes over the place of a pruned neuron inherits nothing: it earns by its own work alone.

The subnet is full: an owner, four validators, one of them with little stake, and 59 miners, each
worth a little more than the one before. In a tempo the newcomer registers first, then rows that
were committed in the tempo before are shown, then new ones are committed.
"""

from ledger.genesis import Bond
from ledger.neurons import weakest
from ledger.params import TOKEN
from ledger.subnets import subnet_of
from tests.economy.world import NETUID, PARAMS, STAKE, Economy, Row
from tests.ledger.arena import node, pool
from tests.ledger.world import public

RICH = ("val", "vic", "ver")
VALIDATORS = (*RICH, "wee")
MINERS = tuple(f"miner {number}" for number in range(59))
QUALITY: Row = {name: 1.0 + number for number, name in enumerate(MINERS)}


def judge(economy: Economy) -> Row:
    """All are worth what they are; the newcomer is as good as the last miner."""
    return {name: QUALITY.get(name, len(MINERS)) for name in (*MINERS, "new")}


def full(little: int, new: int = STAKE) -> Economy:
    """A full subnet in which a fourth validator, `wee`, has `little` rao, and a newcomer `new`."""
    stakes = dict.fromkeys(RICH, STAKE) | {"wee": little}
    bond = Bond(public("new"), pool("new"), new)
    economy = Economy(stakes, MINERS, [bond], max_uids=64)
    return economy.play(4, dict.fromkeys(stakes, judge))


def last(economy: Economy) -> str:
    """Who would have to make room."""
    state, height = economy.chain.state, economy.chain.height
    uid = weakest(state, PARAMS, NETUID, subnet_of(state, NETUID), height)
    return next(name for name, place in economy.uids.items() if place == uid)


def test_a_newcomer_has_nothing_of_what_was_said_of_the_miner_before_it() -> None:
    economy = full(STAKE)
    assert (len(economy.uids), last(economy)) == (64, "miner 0")
    uid, paid = economy.uids["miner 0"], economy.mining["miner 0"]
    assert paid > 0
    assert all(economy.bonds[name]["miner 0"] > 0 for name in VALIDATORS)

    economy.join("new")
    assert economy.uids["new"] == uid
    economy.play(1, dict.fromkeys(VALIDATORS, judge))
    assert all("new" in economy.said[name] for name in VALIDATORS)  # committed before it came
    assert economy.consensus["new"] == economy.mining["new"] == 0
    assert all("new" not in row for row in economy.bonds.values())
    assert economy.mining["miner 1"] > paid  # all others go on

    economy.play(1, dict.fromkeys(VALIDATORS, judge))
    assert economy.mining["new"] > 50 * paid  # by rows that were committed since
    young, old = (economy.bonds["val"][name] for name in ("new", MINERS[-1]))
    assert 0 < young < old / 3  # both are worth the same


def test_without_a_newcomer_the_weakest_goes_on() -> None:
    economy = full(STAKE)
    paid = economy.mining["miner 0"]
    economy.play(1, dict.fromkeys(VALIDATORS, judge))
    assert abs(economy.mining["miner 0"] - paid) < paid / 100


def test_a_newcomer_with_stake_has_nothing_of_the_validator_before_it() -> None:
    economy = full(TOKEN)
    assert last(economy) == "wee"
    assert economy.validating["wee"] > 0
    assert sum(economy.bonds["wee"].values()) > 0
    [sealed] = [one for one in economy.sealed if one.name == "wee"]

    economy.join("new")
    chain = economy.chain
    data = chain.send(node("new"), sealed.reveal)
    block = chain.propose()
    assert data not in block.transactions  # the other one's commitment is nobody's now
    chain.take(block)
    economy.play(1, dict.fromkeys(RICH, judge))
    assert economy.validating["new"] == 0  # with as much stake as any
    assert not {"new", "wee"} & set(economy.bonds)
    assert not {"new", "wee"} & set(economy.said)

    economy.play(1, dict.fromkeys((*RICH, "new"), judge))
    assert economy.validating["new"] == 0
    economy.play(1, dict.fromkeys((*RICH, "new"), judge))
    assert economy.validating["new"] > 0  # by the row that it has shown since


def test_a_newcomer_with_most_of_the_stake_has_no_say_in_its_first_epoch() -> None:
    """Were the permit of the uid its own, half of the stake would be silent, and nobody agree."""
    economy = full(TOKEN, new=4 * STAKE)
    before = economy.consensus
    economy.join("new")
    economy.play(1, dict.fromkeys(RICH, judge))
    miners = {name: economy.consensus[name] for name in MINERS}
    assert miners == {name: before[name] for name in MINERS}
