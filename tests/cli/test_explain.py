"""What epochs decided and why, as nodes say it that have come to the same ledger in different ways.

It is that of the story (tests/consensus/test_story.py), up to block 205: the owner is uid 0, the
validators val, vic and vex are 1 to 3, the miners mia, max and moe 4 to 6, late is 7. Epochs end
blocks 19, 39, ..., 199. There are too few voters for another block.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from consensus.transition import Tip, execute
from ledger.blocks import Block, Certificate
from ledger.genesis import FirstSubnet, Genesis, genesis_header, genesis_rows
from ledger.genesis_file import write_genesis
from ledger.keys import save_seed
from ledger.parts import PARTS, write_parts
from ledger.restore import Restore
from ledger.store import Store
from ledger.subnets import first_settings
from p2p.node.journal import KEPT_TEMPOS, Journal
from tests.cli.command_line import Daemon, Outcome, running, wait_until
from tests.cli.network import refused
from tests.consensus.chain import Chain
from tests.consensus.test_story import GENESIS, played
from tests.ledger.arena import node, pool
from tests.ledger.world import key, public

HEIGHT = 205
PAID = 59
"""The first epoch that pays by weights, and the oldest that is kept."""
VIC, VEX, MIA, MOE, LATE = 2, 3, 4, 6, 7

Decided = list[tuple[Block, Certificate]]


class Recorder(Chain):
    """A chain that keeps its blocks."""

    def __init__(self, genesis: Genesis) -> None:
        super().__init__(genesis)
        self.blocks: Decided = []

    def take(self, block: Block) -> None:
        """Let both nodes take a block, and keep it."""
        super().take(block)
        self.blocks.append((block, self.certificate))


@pytest.fixture(scope="module")
def blocks() -> Decided:
    """The story."""
    with patch("tests.consensus.test_story.Chain", Recorder):
        chain = played()
    assert isinstance(chain, Recorder)
    chain.reach(HEIGHT)
    return chain.blocks


def settle(home: Path, genesis: Genesis, name: str) -> Path:
    """Make the home of somebody's node in a network."""
    home.mkdir()
    save_seed(key(name), home / "node.key")
    (home / "genesis.toml").write_text(write_genesis(genesis))
    return home


def write(path: Path, blocks: Decided) -> None:
    """Write a ledger, block by block."""
    Store.create(path, genesis_header(GENESIS), genesis_rows(GENESIS))
    with Store.open(path) as store, store.batch() as batch:
        for block, certificate in blocks:
            tip = Tip(GENESIS.params, batch.header, batch.rows, batch.draft)
            batch.take(block, certificate, execute(tip, block))


def restore(path: Path, snapshots: Path) -> None:
    """Begin a ledger with the late state of another."""
    parts = write_parts(path, snapshots)
    begun = Restore(snapshots.parent / "restored", parts.block, parts.certificate, parts.leaves())
    for number in range(PARTS):
        begun.take(number, parts.part(number))
    begun.finish()


@contextmanager
def hashing(seed: int, home: Path, *flags: str) -> Iterator[Daemon]:
    """A daemon whose sets are in another order than others'."""
    with patch.dict("os.environ", PYTHONHASHSEED=str(seed)), running(home, *flags) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def nodes(blocks: Decided, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """mia's node, which serves a model; vic's, that executed all blocks; one that began late."""
    place = tmp_path_factory.mktemp("e")
    homes = [settle(place / name, GENESIS, name) for name in (node("mia"), node("vic"), "third")]
    for home in homes[:2]:
        write(home / "chain", blocks)
    restore(homes[1] / "chain", place / "snapshots")
    (place / "restored").rename(homes[2] / "chain")
    with (
        hashing(1, homes[0], "--serve", "docs-gpt") as first,
        hashing(2, homes[1]) as second,
        hashing(3, homes[2]) as third,
    ):
        yield [first, second, third]


def same(nodes: list[Daemon], *arguments: str) -> Outcome:
    """What all nodes say, to the last byte."""
    first, *others = [one(*arguments) for one in nodes]
    assert others == [first] * len(others)
    assert first.code == 0, first.err
    return first


# --- the same everywhere


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("at", [PAID, 100, HEIGHT])
def test_all_nodes_say_the_same_of_an_epoch(nodes: list[Daemon], at: int, flags: list[str]) -> None:
    same(nodes, "metagraph", "--at", str(at), *flags)
    for uid in range(8):
        same(nodes, "explain", str(uid), "--at", str(at), *flags)


def test_the_last_epoch_is_explained_where_none_is_named(nodes: list[Daemon]) -> None:
    last = same(nodes, "explain", str(MIA))
    assert last == same(nodes, "explain", str(MIA), "--netuid", "1", "--at", "199")
    assert last == same(nodes, "explain", str(MIA), "--at", str(HEIGHT))
    assert last != same(nodes, "explain", str(MIA), "--at", "198")


# --- what is said


def test_a_metagraph(nodes: list[Daemon]) -> None:
    said = nodes[0].json("metagraph", "--at", str(PAID))
    assert (said["netuid"], said["height"], said["last_epoch"]) == (1, PAID, 39)
    rows = said["rows"]
    assert [row["uid"] for row in rows] == list(range(8))
    assert sum(row["emission"] for row in rows) == said["miners"] + said["validators"]
    assert 0 <= said["pot"] - said["owner"] - said["miners"] - said["validators"] < 100
    mia = rows[MIA]
    assert (mia["consensus"], mia["incentive"], mia["permit"]) == ("0.666663", "0.666663", False)
    assert [row["permit"] for row in rows] == [True] * 4 + [False] * 4
    assert [row["trust"] for row in rows][1:4] == ["1.000000", "1.000000", "0.000000"]
    assert "models" not in mia
    lines = nodes[0]("metagraph", "--at", str(PAID)).out.splitlines()
    heads = lines[7].split()
    assert heads[:3] + heads[-2:] == ["UID", "NODE", "STAKE", "EMISSION", "UPDATED"]
    assert lines[8 + MIA].split()[1] == nodes[0].json("id")["peer_id"]


def test_models_that_nodes_serve_are_shown_of_now_alone(nodes: list[Daemon]) -> None:
    first = nodes[0]
    wait_until(lambda: first.json("metagraph")["rows"][MIA]["models"] == ["docs-gpt"])
    assert [row["models"] for row in first.json("metagraph")["rows"]].count([]) == 7
    (line,) = [line for line in first("metagraph").out.splitlines() if line.endswith("docs-gpt")]
    assert line.split()[0] == str(MIA)


def test_a_miner_that_the_majority_praised(nodes: list[Daemon]) -> None:
    said = nodes[1].json("explain", str(MIA), "--at", str(PAID))
    miner = said["miner"]
    assert (miner["consensus"], miner["incentive"]) == ("0.666663", "0.666663")
    assert [pair["uid"] for pair in miner["pairs"]] == [1, 2]
    assert {pair["weight"] for pair in miner["pairs"]} == {"0.666663"}
    assert {pair["cut"] for pair in miner["pairs"]} == {"0.000000"}
    assert miner["reasons"] == []
    assert said["validator"]["reasons"] == [
        "it has no permit: the epoch of block 39 gave it none",
        "it has no permit for the next epoch: it has no stake",
    ]


def test_a_miner_that_a_minority_praised(nodes: list[Daemon]) -> None:
    said = nodes[1].json("explain", str(MOE), "--at", str(PAID))["miner"]
    (pair,) = said["pairs"]
    assert (pair["uid"], pair["weight"], pair["cut"]) == (VEX, "1.000000", "1.000000")
    assert said["emission"] == 0
    shown = nodes[1]("explain", str(MOE), "--at", str(PAID)).out
    assert "  because    no majority of stake gives it any weight\n" in shown
    assert "the weight that uid 3 gave it was cut from 1.000000 to 0.000000" in shown


def test_a_validator_whose_word_did_not_stand(nodes: list[Daemon]) -> None:
    said = nodes[1].json("explain", str(VEX), "--at", str(PAID))["validator"]
    assert (said["permit"], said["trust"], said["emission"]) == (True, "0.000000", 0)
    assert said["reasons"][-1] == (
        "its weight of uid 6 was cut from 1.000000 to 0.000000: no majority of stake supports more"
    )


def test_a_newcomer(nodes: list[Daemon]) -> None:
    said = nodes[1].json("explain", str(LATE), "--at", str(PAID))
    since = said["registered"]
    assert said["miner"]["reasons"] == [
        f"it registered in block {since}, after the weights of uid 1, uid 2 and uid 3 were "
        "committed",
        "nobody weighted it",
    ]


def test_what_validators_earned_is_by_miner(nodes: list[Daemon]) -> None:
    said = nodes[2].json("explain", str(VIC))["validator"]
    earned = [pair["earned"] for pair in said["pairs"]]
    assert 0 <= said["emission"] - sum(earned) < len(earned)
    assert earned[0] == pytest.approx(2 * earned[1], rel=0.01)  # as it said of mia and max


# --- the visits behind it


@pytest.fixture(scope="module")
def kept(nodes: list[Daemon]) -> Daemon:
    """vic's node, with visits to mia and moe in every tempo; vic committed once, in block 20."""
    journal = Journal(nodes[1].home / "validators" / "1")
    journal.directory.mkdir(parents=True)
    rows = nodes[1].json("metagraph")["rows"]
    for end in range(19, HEIGHT, 20):
        for uid, reward in ((MIA, 0.75), (MIA, 0.25), (MOE, 0.0)):
            visit = {"uid": uid, "hotkey": rows[uid]["hotkey"], "reward": reward, "fault": ""}
            receipt = {"from": f"{uid} in the tempo to {end}"}
            more = {"stranger": reward == 0.25, "duplicate": False, "receipt": receipt}
            journal.note(end, visit | more)
    return nodes[1]


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("at", [PAID, 199])
def test_receipts_are_of_the_tempo_in_which_the_row_was_committed(
    kept: Daemon, tmp_path: Path, at: int, flags: list[str]
) -> None:
    """Given a row of block 20 that still counts ten tempos later; then they are of block 20's."""
    file = tmp_path / "r.json"
    asked = ("explain", str(MIA), "--at", str(at), *flags)
    outcome = kept(*asked, "--receipts", str(file))
    assert outcome.code == 0, outcome.err
    assert json.loads(file.read_text())["receipts"] == 2 * [{"from": "4 in the tempo to 39"}]
    assert outcome.err.startswith(f"2 receipts are in {file}; check them with: ")
    if flags:
        assert outcome.out == kept(*asked).out
        return
    heading, _, line = outcome.out.splitlines()[-3:]
    assert heading == "this node's visits in the tempo that block 39 ended"
    assert line.split()[0] == str(MIA)
    assert line.split()[2:] == ["2", "2", "0.7500", "0.2500", "0"]


def test_of_a_validator_itself_all_its_visits_are_saved(kept: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    assert kept("explain", str(VIC), "--receipts", str(file)).code == 0
    saved = [one["from"] for one in json.loads(file.read_text())["receipts"]]
    assert saved == [f"{uid} in the tempo to 39" for uid in (MIA, MIA, MOE)]


def test_where_there_are_no_receipts_nothing_is_saved(
    kept: Daemon, nodes: list[Daemon], tmp_path: Path
) -> None:
    file = tmp_path / "r.json"
    for flags in ((), ("--json",)):
        asked = ("explain", str(MIA), "--receipts", str(file), *flags)
        refused(nodes[0](*asked), "this node showed no weights in the epoch of block 199")
        refused(nodes[2](*asked), "this node showed no weights in the epoch of block 199")
        unasked = ("explain", str(LATE), "--receipts", str(file), *flags)
        refused(kept(*unasked), "this node has no receipts of the tempo that block 39 ended")
    assert not file.exists()


def test_the_tempo_of_a_block_is_that_of_the_next_end_that_is_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for end in (60, 100, 119, 1000):  # of tempos of different lengths
        journal.note(end, {})
    found = {height: journal.tempo_of(height, 119) for height in (7, 60, 61, 100, 101, 119, 120)}
    assert found == {7: 60, 60: 60, 61: 100, 100: 100, 101: 119, 119: 119, 120: None}
    for end in range(2000, 2000 + KEPT_TEMPOS):
        journal.note(end, {})
    assert journal.tempo_of(1500, 3000) is None, "it may have gone"
    assert journal.tempo_of(2001, 3000) == 2001


# --- what cannot be explained


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["explain", "8"], "subnet 1 had no uid 8 in the epoch of block 199"),
        (["explain", "7", "--at", str(PAID - 1)], "the epochs of subnet 1 up to block 58 are not "),
        (["metagraph", "--at", "0"], "the epochs of subnet 1 up to block 0 are not kept any more"),
        (["metagraph", "--at", "9999"], "there is no block 9999 yet"),
        (["metagraph", "--netuid", "2"], "there is no subnet 2"),
        (["metagraph", "--netuid", "0"], "there is no subnet 0"),
    ],
)
def test_an_epoch_or_uid_that_is_not_there(
    nodes: list[Daemon], arguments: list[str], sentence: str
) -> None:
    for one in nodes:
        refused(one(*arguments), sentence)


def test_no_epoch_yet_and_none_so_early(blocks: Decided, tmp_path: Path) -> None:
    home = settle(tmp_path / "h", GENESIS, "early")
    write(home / "chain", blocks[:10])
    with running(home) as daemon:
        refused(daemon("metagraph"), "subnet 1 has had no epoch yet")
        assert "its first ends block 19" in daemon("metagraph").err
    later = settle(tmp_path / "l", GENESIS, "later")
    write(later / "chain", blocks[:30])
    with running(later) as daemon:
        refused(daemon("explain", "0", "--at", "18"), "subnet 1 had no epoch up to block 18")
        assert daemon.json("metagraph")["height"] == 19


def test_the_subnet_has_to_be_named_where_there_are_several_or_none(tmp_path: Path) -> None:
    settings = first_settings(GENESIS.params)
    two = (*GENESIS.subnets, FirstSubnet(2, public("owner"), pool("owner"), settings))
    for number, (subnets, sentence) in enumerate(
        ((two, "there are 2 subnets"), ((), "there is no subnet"))
    ):
        genesis = replace(GENESIS, subnets=subnets)
        home = settle(tmp_path / str(number), genesis, "alone")
        with running(home) as daemon:
            refused(daemon("metagraph"), sentence)
            refused(daemon("explain", "0"), sentence)
            if subnets:
                named = daemon("metagraph", "--netuid", "2")
                refused(named, "subnet 2 has had no epoch yet")
