"""A mixture whose experts have prices: three daemons on a chain, one mixes and pays the others."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.command_line import Daemon, run_within, running, wait_until
from tests.cli.network import refused
from tests.models.model_worker import TINY, write_tiny

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(300)]

PRICE = 10_000
TOKENS = 50
COST = PRICE * TOKENS // 1000
"""Of one expert's part."""
NAMES = ("tiny", "small")


def home(place: Path, network: str, **settings: str) -> Path:
    assert run_within(place, "init", "--network", network).code == 0
    for name, value in settings.items():
        assert run_within(place, "config", "set", name, value).code == 0
    return place


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[tuple[Daemon, list[Daemon]]]:
    """One that has a budget and mixes, and two that serve an expert each at a price."""
    founder = home(tmp_path / "a", "minimal", budget="0.01")
    with ExitStack() as stack:
        mixing = stack.enter_context(running(founder))
        join = ("--bootstrap", str(mixing.json("id")["addresses"][0]))
        experts = []
        for name, layers in zip(NAMES, (1, 2), strict=True):
            write_tiny(tmp_path / name, replace(TINY, name=name, layers=layers))
            genesis = str(founder / "genesis.toml")
            node = home(tmp_path / name[0], genesis, prices=f"{name}={PRICE}")
            flags = (*join, "--serve", str(tmp_path / name))
            experts.append(stack.enter_context(running(node, *flags)))
        wait_until(lambda: len(mixing.json("list", "--swarm")["models"]) == len(NAMES))
        yield mixing, experts


def test_experts_are_paid_and_others_pay_for_the_mixture(
    swarm: tuple[Daemon, list[Daemon]],
) -> None:
    """Given a mixture of two experts at ten rao a token, when its own node asks it, then each is
    paid by voucher for what it said; and who asks it elsewhere is told its own price."""
    mixing, experts = swarm
    named = [f"--expert={name}" for name in NAMES]
    assert mixing("mixture", "create", "both", *named).code == 0
    assert mixing("serve", "both", "--price", str(2 * PRICE)).code == 0
    ask = ("run", "both", "ab", "--max-tokens", str(TOKENS), "--temperature", "1", "--seed", "3")
    refused(mixing(*ask), "nobody answers 'both' for that")
    assert mixing("purse", "fund", "1").code == 0
    (answer,) = mixing.json(*ask)["answers"]
    made = answer["output_tokens"]
    due = COST if made == TOKENS else PRICE * (made + 1) // 1000
    assert answer["cost"] == 2 * due
    for expert in experts:
        wait_until(lambda expert=expert: expert.json("earnings")["earned"] == due)
    assert mixing.json("purse", "show")["spent"] == 2 * due
    wait_until(lambda: experts[0].json("show", "both")["price"] == 2 * PRICE)
    refused(experts[0](*ask), f"nobody answers 'both' for that: it costs {2 * PRICE} rao")
    assert mixing("price", "both", "0").code == 0
    wait_until(lambda: experts[0].json("show", "both")["price"] == 0)
    assert "it is made of cost more than is paid for it" in experts[0](*ask).err
