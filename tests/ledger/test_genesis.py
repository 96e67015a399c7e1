"""How a network begins: its id, its state at height 0, and its file."""

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.address import address_of
from ledger.amounts import rao_of, tokens_text
from ledger.codec import hash_of, pack, unpack
from ledger.emission import audit, equal_shares, pots_of, supply_of
from ledger.errors import Invalid, Reason
from ledger.genesis import (
    MAX_ENTRIES,
    Allocation,
    Bond,
    FirstSubnet,
    Genesis,
    genesis_header,
    genesis_rows,
    genesis_state,
    voters_of,
)
from ledger.genesis_file import read_genesis, time_text, write_genesis
from ledger.limits import LIMITS
from ledger.neurons import neurons, permit
from ledger.params import CAP, DEVNET, TOKEN, Params
from ledger.state import MemoryRows, State
from ledger.subnets import first_settings, subnet_of, task_of
from ledger.tables import (
    ACCOUNTS,
    POOLS,
    RANDOMNESS,
    TERMS,
    Account,
    Neuron,
    Randomness,
    Share,
    Task,
    Term,
    height_key,
)
from ledger.terms import committee_root, pack_voters
from ledger.types import PublicKey
from tests.ledger.world import key, public

TIME = 1_767_225_600_000
SETTINGS = first_settings(DEVNET)
SMALL = Genesis(
    name="small",
    time=TIME,
    params=DEVNET,
    accounts=(Allocation(public("alice"), 1_000 * TOKEN + 5), Allocation(public("bob"), 1)),
    stakes=(
        Bond(public("alice"), public("node"), 3 * TOKEN),
        Bond(public("bob"), public("node"), TOKEN),
        Bond(public("bob"), public("bob's node"), TOKEN // 2),
    ),
    subnets=(FirstSubnet(7, public("alice"), public("node"), replace(SETTINGS, max_uids=128)),),
)
EMPTY = Genesis("empty", TIME, Params(), (), (), ())


def refusal(act: Callable[[], Any]) -> str:
    """The detail of a refused genesis."""
    with pytest.raises(Invalid) as caught:
        act()
    assert caught.value.reason == Reason.BAD_GENESIS
    return caught.value.detail


# --- the state at height 0


def test_what_is_given_out_is_owned_and_issued() -> None:
    state = genesis_state(SMALL)
    audit(state)
    assert SMALL.supply == supply_of(state).issued == 1_004 * TOKEN + TOKEN // 2 + 6
    assert state.get(ACCOUNTS, public("alice")) == Account(1_000 * TOKEN + 5)
    pool = state.get(POOLS, public("node"))
    assert pool is not None
    assert (pool.owner, pool.stake, pool.take) == (public("alice"), 4 * TOKEN, DEVNET.max_take)


def test_who_names_a_hotkey_first_owns_it() -> None:
    stakes = (SMALL.stakes[1], SMALL.stakes[0])
    pool = genesis_state(replace(SMALL, stakes=stakes, subnets=())).get(POOLS, public("node"))
    assert pool is not None
    assert pool.owner == public("bob")


def test_a_first_subnet_is_as_a_new_one_with_nothing_locked() -> None:
    state = genesis_state(SMALL)
    subnet = subnet_of(state, 7)
    assert (subnet.owner, subnet.pool, subnet.locked) == (public("alice"), public("node"), 0)
    assert subnet.hyperparameters.max_uids == 128
    assert neurons(state, 7) == [Neuron(public("node"), 0, 0)]
    assert permit(state, 7, 0, neurons(state, 7)[0])
    assert pots_of(state).shares == equal_shares([7])


JUDGED = replace(
    SMALL.subnets[0],
    neurons=(public("bob's node"), public("miner")),
    task=(Task("text", '{"choices": 4}'),),
)


def test_a_first_subnet_can_begin_with_neurons_and_a_task() -> None:
    state = genesis_state(replace(SMALL, subnets=(JUDGED,)))
    audit(state)
    assert subnet_of(state, 7).neurons == 3
    assert [row.pool for row in neurons(state, 7)] == [public("node"), *JUDGED.neurons]
    owners = [row.owner for hotkey in JUDGED.neurons if (row := state.get(POOLS, hotkey))]
    assert owners == [public("bob"), public("alice")]
    assert task_of(state, 7) == JUDGED.task[0]


def test_a_subnet_alone_binds_its_hotkey() -> None:
    state = genesis_state(replace(SMALL, stakes=()))
    pool = state.get(POOLS, public("node"))
    assert pool is not None
    assert (pool.owner, pool.stake) == (public("alice"), 0)


def test_the_header_stands_for_the_state() -> None:
    header = genesis_header(SMALL)
    assert (header.height, header.time, header.chain) == (0, TIME, SMALL.chain)
    more = replace(SMALL, accounts=(*SMALL.accounts, Allocation(public("carol"), 1)))
    assert genesis_header(more).state_root != header.state_root
    rows = MemoryRows(genesis_rows(SMALL))
    assert State(rows).get(ACCOUNTS, public("bob")) == Account(1)


def test_who_has_a_bond_votes_and_proposes_in_the_first_two_epochs() -> None:
    state, header = genesis_state(SMALL), genesis_header(SMALL)
    term = Term((Share(public("node"), 4 * TOKEN),), (Share(public("node"), 2**32),))
    assert dict(state.rows(TERMS)) == {height_key(0): term, height_key(1): term}
    root = committee_root(pack_voters(term.voters))
    assert (header.committee_root, header.next_committee_root) == (root, root)
    seed = hash_of("poi/seed", SMALL.chain)
    assert state.get(RANDOMNESS) == Randomness(mix=seed, seed=seed)


def test_any_difference_makes_another_chain() -> None:
    others = [
        replace(SMALL, name="large"),
        replace(SMALL, time=TIME + 1),
        replace(SMALL, params=replace(DEVNET, tempo=21)),
        replace(SMALL, accounts=SMALL.accounts[::-1]),
        replace(SMALL, stakes=SMALL.stakes[:2]),
        replace(SMALL, subnets=()),
    ]
    assert len({genesis.chain for genesis in (SMALL, *others)}) == 7
    assert unpack(Genesis, pack(SMALL), 2**20).chain == SMALL.chain


def test_voters_have_a_bond() -> None:
    assert voters_of(SMALL) == 1
    assert voters_of(EMPTY) == 0


# --- what is refused

WRONG = {
    "name is 1 to 32 of a-z, 0-9, - and _, not 'A b'": replace(SMALL, name="A b"),
    "time is not within the years 1970 to 9999": replace(SMALL, time=10**15),
    "params.epoch is from 1 to 1000000000, not 0": replace(SMALL, params=replace(DEVNET, epoch=0)),
    "params.first_burn is not within min_burn and max_burn": replace(
        SMALL, params=replace(DEVNET, first_burn=1)
    ),
    "params.min_lock is below a rao for each lock_interval": replace(
        SMALL, params=replace(DEVNET, min_lock=DEVNET.lock_interval - 1)
    ),
    "params.heartbeat_interval is above epoch": replace(
        SMALL, params=replace(DEVNET, heartbeat_interval=DEVNET.epoch + 1)
    ),
    "params.drift_ms is not below two epochs of blocks": replace(
        SMALL, params=replace(DEVNET, drift_ms=2 * DEVNET.epoch * DEVNET.block_ms)
    ),
    "params.unbond is not above two epochs": replace(
        SMALL, params=replace(DEVNET, unbond=2 * DEVNET.epoch)
    ),
    f"accounts and stakes come to {CAP + 1} rao, over {CAP}": replace(
        EMPTY, accounts=(Allocation(public("alice"), CAP + 1),)
    ),
    f"there are more than {MAX_ENTRIES} accounts or stakes": replace(
        EMPTY, accounts=(Allocation(public("alice"), 1),) * (MAX_ENTRIES + 1)
    ),
    "account 2: the same key comes twice": replace(SMALL, accounts=SMALL.accounts[:1] * 2),
    "account 1: an amount of at least 1 rao is due": replace(
        SMALL, accounts=(Allocation(public("alice"), 0),)
    ),
    "stake 1: an amount of at least 1 rao is due": replace(
        SMALL, stakes=(Bond(public("alice"), public("node"), 0),)
    ),
    "stake 4: the same wallet stakes on the same hotkey twice": replace(
        SMALL, stakes=(*SMALL.stakes, SMALL.stakes[0])
    ),
    "stake 1: less than the least stake would be there: 100000000 rao at least": replace(
        SMALL, stakes=(Bond(public("alice"), public("node"), TOKEN // 10 - 1),)
    ),
    "subnet 1: netuid is from 1 to 32, not 0": replace(
        SMALL, subnets=(replace(SMALL.subnets[0], netuid=0),)
    ),
    "subnet 2: the same netuid comes twice": replace(SMALL, subnets=SMALL.subnets * 2),
    "subnet 1: the sender does not own it: another wallet staked first on this hotkey": replace(
        SMALL, subnets=(replace(SMALL.subnets[0], owner=public("bob")),)
    ),
    "subnet 1: the setting does not allow that value: tempo is from 20 to 2800, not 19": replace(
        SMALL,
        subnets=(replace(SMALL.subnets[0], hyperparameters=replace(SETTINGS, tempo=19)),),
    ),
    "subnet 1: the same hotkey has two neurons": replace(
        SMALL, subnets=(replace(JUDGED, neurons=(public("node"),)),)
    ),
    "subnet 1: there are more than 128 neurons": replace(
        SMALL, subnets=(replace(JUDGED, neurons=tuple(public(str(n)) for n in range(128))),)
    ),
    "subnet 1: the setting does not allow that value: a task's name begins with a letter, "
    "then a-z 0-9 . _ -": replace(SMALL, subnets=(replace(JUDGED, task=(Task("", ""),)),)),
}


@pytest.mark.parametrize("detail", WRONG)
def test_no_chain_begins_with_what_is_wrong(detail: str) -> None:
    assert refusal(lambda: genesis_rows(WRONG[detail])) == detail


@pytest.mark.parametrize("name", LIMITS)
def test_constants_keep_to_their_limits(name: str) -> None:
    limit = LIMITS[name]
    for value in (limit.least - 1, limit.most + 1):
        params = replace(DEVNET, **{name: value})
        assert name in refusal(lambda params=params: genesis_rows(replace(EMPTY, params=params)))


def test_every_constant_has_limits_and_an_explanation() -> None:
    assert list(LIMITS) == [field.name for field in fields(Params)]
    for params in (Params(), DEVNET):
        genesis_rows(replace(EMPTY, params=params))


def test_as_many_accounts_as_the_codec_takes_can_begin() -> None:
    keys = (PublicKey(number.to_bytes(32)) for number in range(MAX_ENTRIES))
    genesis = replace(EMPTY, accounts=tuple(Allocation(key, 1) for key in keys))
    assert len(genesis_rows(genesis)) == MAX_ENTRIES + 5
    assert unpack(Genesis, pack(genesis), 2**20) == genesis


# --- the file


def test_a_file_says_exactly_what_its_genesis_says() -> None:
    for genesis in (SMALL, EMPTY, replace(SMALL, subnets=(JUDGED,))):
        assert read_genesis(write_genesis(genesis)) == genesis


@given(
    st.integers(0, 10**15),
    st.lists(st.integers(1, 10**14), max_size=5),
    st.integers(0, 65_535),
    st.integers(500_000, 100 * TOKEN),
)
def test_any_genesis_survives_its_file(
    time: int, amounts: list[int], cut: int, first_burn: int
) -> None:
    accounts = tuple(
        Allocation(public(str(number)), amount) for number, amount in enumerate(amounts)
    )
    params = replace(DEVNET, owner_cut=cut, first_burn=first_burn)
    genesis = replace(SMALL, time=time % 10**14, params=params, accounts=accounts)
    assert read_genesis(write_genesis(genesis)) == genesis


def test_a_file_explains_itself() -> None:
    text = write_genesis(SMALL)
    assert 'name = "small"\ntime = 2026-01-01T00:00:00.000Z\n\n[params]\n' in text
    assert '# What a block issues until the first halving.\nreward = "1"\n' in text
    assert (
        f'[[account]]\naddress = "{address_of(public("alice"))}"\ntokens = "1000.000000005"\n'
        in text
    )
    assert (
        f'[[subnet]]\nnetuid = 7\nowner = "{address_of(public("alice"))}"\n'
        f'hotkey = "{key("node").peer_id}"\nmax_uids = 128\n'
    ) in text


def test_comments_order_of_keys_and_zone_do_not_count() -> None:
    text = write_genesis(EMPTY)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    head = ["time = 2026-01-01T02:00:00+02:00", 'name = "empty"', "[params]"]
    constants = sorted(line for line in lines if line.split(" ")[0] in asdict(DEVNET))
    assert read_genesis("\n".join(head + constants)) == EMPTY


GOOD = write_genesis(SMALL)
ALICE = address_of(public("alice"))
SPOILT = {
    "it is not TOML": ("[params]", "[params"),
    "name is missing": ('name = "small"\n', ""),
    "name is not a text in quotes": ('name = "small"', "name = 1"),
    "'nome' is not known": ('name = "small"', 'name = "small"\nnome = 1'),
    "time is not a time such as": ("time = 2026-01-01T00:00:00.000Z", "time = 5"),
    "time has no zone": ("00:00.000Z", "00:00.000"),
    "time is finer than milliseconds": ("00:00.000Z", "00:00.0001Z"),
    "time is not within the years": ("2026-01", "1026-01"),
    "params: tempo is missing": ("\ntempo = 20", "\n"),
    "params: tempo is not an integer": ("\ntempo = 20", "\ntempo = 20.0"),
    "params: tempo is out of range": ("\ntempo = 20", "\ntempo = -20"),
    "params: reward is not a text in quotes": ('reward = "1"', "reward = 1.0"),
    "params: 'pace' is not known": ("[params]", "[params]\npace = 1"),
    "params.tempo is from 1": ("\ntempo = 20", "\ntempo = 0"),
    "account is not a list of tables": ("[params]", "account = 1\n[params]"),
    "account 1: it is not a table": ("[params]", "account = [1]\n[params]"),
    "account 1: a field has the wrong type": ('"1000.000000005"', '"1000.0000000005"'),
    "account 1: the text is not an address": (f'"{ALICE}"', '"yuma1alice"'),
    "account 2: an amount of at least": ('"0.000000001"', '"0"'),
    "stake 1: the text is not an Ed25519 peer id": (key("node").peer_id, "12D3KooWnode"),
    "subnet 1: 'pace' is not known": ("max_uids = 128", "pace = 1"),
    "subnet 1: max_uids is not an integer": ("max_uids = 128", "max_uids = true"),
    "subnet 1: neurons is not a list of peer ids": ("max_uids = 128", "neurons = [1]"),
    "subnet 1: task is not a text in quotes": ("max_uids = 128", "task = 1"),
}  # fmt: skip


@pytest.mark.parametrize("detail", SPOILT)
def test_a_file_is_refused_in_one_sentence(detail: str) -> None:
    old, new = SPOILT[detail]
    text = GOOD.replace(old, new, 1)
    if old.startswith("[params]") and "account" in new:
        text = GOOD[: GOOD.index("\n[[account]]")].replace(old, new)
    found = refusal(lambda: read_genesis(text))
    assert found.startswith(detail)
    assert "\n" not in found


# --- amounts


@pytest.mark.parametrize(
    ("text", "rao"),
    [("1", TOKEN), ("0.5", TOKEN // 2), ("0.000000001", 1), ("21000000.000000000", CAP), ("0", 0)],
)
def test_tokens_are_exact(text: str, rao: int) -> None:
    assert rao_of(text) == rao
    assert rao_of(tokens_text(rao)) == rao


@pytest.mark.parametrize(
    "text", ["", ".5", "5.", "-1", "+1", "1e3", "1,5", "1.0000000001", "١", "1\n"]
)
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        rao_of(text)
    assert caught.value.reason == Reason.WRONG_TYPE


@given(st.integers(0, CAP))
def test_any_amount_survives_its_text(rao: int) -> None:
    assert rao_of(tokens_text(rao)) == rao


def test_times_are_utc() -> None:
    assert time_text(TIME + 1) == "2026-01-01T00:00:00.001Z"
