"""Scenarios as text: ours are read, and what is wrong with one is said in a sentence."""

from pathlib import Path

import pytest

from ledger.genesis import genesis_state
from ledger.genesis_file import read_genesis, write_genesis
from ledger.neurons import neurons
from ledger.params import TOKEN
from ledger.pools import pool_at
from ledger.subnets import subnet_of
from ledger.tables import Task
from p2p.cli.failure import Failure
from p2p.testnet.plan import make_plan
from p2p.testnet.roles import Miner, Validator
from p2p.testnet.scenario import OURS, find_scenario, parse_scenario, read_scenario

LEAST = 'name = "x"\nheight = 5\n'
SUBNET = '[subnet]\n[[validator]]\nnodes = ["n1", "n2"]\n[[miner]]\nnode = "n3"\nsteps = 5\n'
KILL = '[[event]]\nkind = "kill"\nat_s = 1\nnodes = ["n1"]\n'


@pytest.mark.parametrize("path", sorted(OURS.glob("*.toml")), ids=lambda path: path.stem)
def test_ours_are_scenarios(path: Path) -> None:
    scenario = read_scenario(find_scenario(path.stem))
    assert scenario.name == path.stem
    assert scenario.about.endswith(".")


def test_what_is_not_said() -> None:
    scenario = parse_scenario(LEAST)
    assert (scenario.nodes, scenario.voters, scenario.joining) == (4, 4, 0)
    assert (scenario.load, scenario.events, scenario.parts) == (None, (), False)


def test_those_that_join_later_do_not_vote() -> None:
    scenario = parse_scenario(LEAST + "nodes = 5\njoining = 1\n")
    assert scenario.voters == 4


def test_constants_of_the_network_can_differ() -> None:
    scenario = parse_scenario(LEAST + 'network = "minimal"\n[params]\nblock_ms = 300\n')
    assert scenario.params.block_ms == 300


def test_a_partition_says_who_is_with_whom() -> None:
    text = '[[event]]\nkind = "partition"\nat_height = 3\ngroups = [["n1", "n2"], ["n3"]]\n'
    scenario = parse_scenario(LEAST + text)
    assert scenario.parts
    assert scenario.events[0].groups == (("n1", "n2"), ("n3",))


def test_a_subnet_says_who_judges_whom() -> None:
    text = SUBNET + '[[miner]]\nnode = "n4"\nmodel = "docs-gpt"\nstake = 3\n'
    roles = parse_scenario(LEAST + text).roles
    assert roles is not None
    assert roles.names == ("n1", "n2", "n3", "n4")
    assert (roles.task, roles.settings.tempo) == (Task("text", ""), 20)
    assert roles.miners == (
        Miner("n3", None, steps=5),
        Miner("n4", "docs-gpt", stake=3 * TOKEN),
    )
    assert roles.validators == (Validator("n1"), Validator("n2"))


def test_a_plan_seats_validators_and_miners(tmp_path: Path) -> None:
    scenario = parse_scenario(LEAST + "voters = 2\n" + SUBNET.replace("steps = 5", 'model = "m"'))
    plan = make_plan(tmp_path, scenario.params, nodes=4, voters=2, roles=scenario.roles)
    assert [member.roles for member in plan.members] == [
        ["voter", "validator"],
        ["voter", "validator"],
        ["follower", "miner"],
        ["follower"],
    ]
    state = genesis_state(plan.genesis)
    pools = [neuron.pool for neuron in neurons(state, 1)]
    assert pools == [member.pair.public for member in plan.members[:3]]
    owners = [pool_at(state, pool).owner for pool in pools]
    assert owners == [member.wallet.public for member in plan.members[:3]]
    assert subnet_of(state, 1).owner == owners[0]
    assert read_genesis(write_genesis(plan.genesis)) == plan.genesis


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "it is not TOML"),
        ('name = "x"', "either height or seconds is due"),
        (LEAST + "seconds = 5", "either height or seconds is due"),
        ('name = "two words"\nheight = 1', "name is 1 to 32 of a-z, 0-9 and -"),
        (LEAST + "nodes = 0", "nodes is from 1 to 64, not 0"),
        (LEAST + 'nodes = "4"', "nodes is not an integer"),
        (LEAST + "nodes = true", "nodes is not an integer"),
        (LEAST + "joining = 4", "joining is from 0 to 3, not 4"),
        (LEAST + "colour = 3", "'colour' is not known"),
        (LEAST + 'network = "nowhere"', "'nowhere' is no network and no file"),
        (LEAST + "[params]\nspeed = 3", "params: 'speed' is no constant of a network"),
        (LEAST + "[params]\nblock_ms = 1", "params.block_ms is from 100"),
        (LEAST + '[params]\nblock_ms = "1"', "params: block_ms is not an integer"),
        (LEAST + "[load]\nrate = 10_000", "load: rate is from 0 to 500"),
        (LEAST + "[load]\nspeed = 1", "load: 'speed' is not known"),
        (LEAST + "event = [1]", "event 1 is not a table"),
        (LEAST + SUBNET[9:], "validators and miners are of a [subnet], and there is none"),
        (LEAST + SUBNET.partition("[[miner")[0], "subnet: there has to be a validator, and a"),
        (LEAST + SUBNET.replace("n3", "n9"), "there is no node 'n9', only n1 to n4"),
        (LEAST + SUBNET.replace("n3", "n2"), "subnet: a node is named twice among validators"),
        (LEAST + SUBNET.replace('node = "n3"', ""), "miner 1: node is missing"),
        (LEAST + SUBNET.replace("steps = 5", ""), "miner 1: either model or steps is due"),
        (LEAST + SUBNET + 'model = "docs-gpt"', "miner 1: either model or steps is due"),
        (LEAST + SUBNET.replace('nodes = ["n1", "n2"]', ""), "validator 1: nodes are missing"),
        (LEAST + SUBNET.replace("steps = 5", "steps = -1"), "miner 1: steps is from 0 to"),
        (LEAST + SUBNET + "size = 3", "miner 1: 'size' is not known"),
        (LEAST + SUBNET.replace("[subnet]", "[subnet]\ntempo = 19"), "subnet: tempo is from 20"),
        (LEAST + SUBNET.replace("[subnet]", '[subnet]\ntask = "A b"'), "subnet: a task's name"),
        (LEAST + SUBNET.replace("[subnet]", '[subnet]\ntask = "x"'), "subnet: no task 'x' is"),
        (LEAST + SUBNET.replace("[subnet]", '[subnet]\nparameters = "[]"'), "subnet: "),
        (LEAST + "[[event]]\nat_s = 1", "event 1: kind is missing"),
        (LEAST + '[[event]]\nkind = "burn"', "event 1: kind is one of kill, pause"),
        (LEAST + KILL + "at_height = 3", "event 1: either at_height or at_s is due"),
        (LEAST + KILL.replace("n1", "n9"), "event 1: there is no node 'n9', only n1 to n4"),
        (LEAST + KILL.replace('["n1"]', '"n1"'), "event 1: nodes is not a list"),
        (LEAST + KILL.replace('nodes = ["n1"]', ""), "event 1: nodes are due"),
        (LEAST + KILL + 'groups = [["n1"]]', "event 1: groups are due for a partition"),
        (LEAST + KILL + 'groups = ["n1"]', "event 1: groups is not a list of lists"),
        (LEAST + KILL + "repeat = 3", "event 1: chain and repeat are for what is undone"),
        (LEAST + KILL + 'chain = "burns"', "event 1: chain is one of goes on, stops"),
        (
            LEAST + KILL.replace("kill", "join") + "for_s = 3",
            "event 1: for_s: join has nothing that could be undone",
        ),
        (
            LEAST + '[[event]]\nkind = "partition"\nat_s = 1\ngroups = [["n1"], ["n1", "n2"]]',
            "event 1: a node is in two groups",
        ),
        (
            LEAST + '[[event]]\nkind = "partition"\nat_s = 1\ngroups = [["any"]]',
            "event 1: there is no node 'any'",
        ),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(Failure) as caught:
        parse_scenario(text)
    assert caught.value.message.startswith(said)


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(Failure, match=r"bad\.toml is not a text"):
        read_scenario(path)
    path.write_text("nodes = 0")
    with pytest.raises(Failure, match=r"bad\.toml: nodes is from 1 to 64, not 0"):
        read_scenario(path)
    with pytest.raises(Failure, match="there is no scenario 'none'") as caught:
        find_scenario("none")
    assert "steady" in caught.value.hint
