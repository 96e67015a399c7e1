"""A clique with less than half of the stake cannot lift its own miner, and pays for trying.

Five validators judge three miners, and a fourth, `pet`, that belongs to some of them, who praise
it alone. Kappa is a half: of each weight there counts only what half of the stake supports.
"""

from collections.abc import Mapping

import pytest

from tests.economy.world import STAKE, Economy, Row

WORK = {"mia": 5.0, "max": 3.0, "moe": 2.0}
"""What the other miners' work is worth."""
CLIQUE = ("con", "cut")
STAKES = dict.fromkeys(("val", "vic", "ver", *CLIQUE), STAKE)
"""By which the clique has two fifths."""
TEMPOS = 8


def ended(pet: float, clique: tuple[str, ...], stakes: Mapping[str, int] = STAKES) -> Economy:
    """The economy after some tempos in which all but the clique say that its pet is worth `pet`."""
    economy = Economy(stakes, (*WORK, "pet"))

    def praise(_: Economy) -> Row:
        return {"pet": 1.0}

    def judge(_: Economy) -> Row:
        return WORK | {"pet": pet}

    return economy.play(TEMPOS, {name: praise if name in clique else judge for name in stakes})


def income(economy: Economy) -> float:
    """What the clique and its pet have of all that the last epoch paid to validators and miners."""
    paid = sum(economy.validating.values()) + sum(economy.mining.values())
    return (sum(economy.validating[name] for name in CLIQUE) + economy.mining["pet"]) / paid


def test_what_no_honest_validator_weights_earns_nothing() -> None:
    economy = ended(0, CLIQUE)
    assert economy.consensus["pet"] == economy.mined["pet"] == 0
    assert {name for name, rao in economy.validating.items() if rao} == {"val", "vic", "ver"}


@pytest.mark.parametrize("pet", [0.5, 2.5])
def test_a_clique_lifts_no_consensus_and_loses_more_than_its_miner_gains(pet: float) -> None:
    """Its miner's consensus stays what honest validators say, to the last bit.

    Its part of what miners are paid rises all the same, as the clique supports nobody else: from
    c to c / (h + (1 - h) c), where h is the honest part of stake; to less than twice as much. For
    that the clique gives up what it would have earned by all other miners.
    """
    honest, economy = ended(pet, ()), ended(pet, CLIQUE)
    assert economy.consensus == honest.consensus
    deserved, found = honest.incentive["pet"], economy.incentive["pet"]
    assert deserved == pytest.approx(pet / (10 + pet), abs=1e-4)
    assert found == pytest.approx(deserved / (0.6 + 0.4 * deserved), abs=1e-4)
    print(f"pet {deserved:.1%} -> {found:.1%}, all {income(honest):.1%} -> {income(economy):.1%}")
    assert income(economy) < 0.7 * income(honest)


def test_only_a_miner_that_has_most_already_is_worth_the_clique_s_loss() -> None:
    """The limit of the rule above: a c of more than h. With four fifths it gains a hundredth."""
    honest, economy = income(ended(40, ())), income(ended(40, CLIQUE))
    print(f"a pet with 80 %: all {honest:.1%} -> {economy:.1%}")
    assert honest < economy < 1.03 * honest


@pytest.mark.parametrize(("clique", "wins"), [(499, False), (501, True)])
def test_half_of_the_stake_is_where_it_turns(clique: int, wins: bool) -> None:
    """More than half owns the subnet's scores: that is inherent, and why it votes on no block."""
    stakes = {"val": STAKE * (1_000 - clique) // 1_000, "con": STAKE * clique // 1_000}
    economy = ended(0, ("con",), stakes)
    winner, loser = ("con", "val") if wins else ("val", "con")
    assert economy.consensus["pet"] == wins
    assert (economy.mining["pet"] > 0) == wins
    assert economy.validating[winner] > economy.validating[loser] == 0
