"""Genesis: what all nodes of a network share before its first block.

A genesis lists the network's constants and who owns, stakes and runs what. The id of the chain is a
hash over all of it, so that two networks which differ in anything never take each other's words.
Genesis stands before block 1 with a header of its own, at height 0, and needs no certificate. What
it gives out counts as issued: the schedule of rewards then only fills up what is left below CAP.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Final, TypeVar

from ledger.accounts import pay
from ledger.blocks import NO_CERTIFICATE, NO_HASH, VERSION, Header, transactions_root
from ledger.codec import MAX_ARRAY_ITEMS, hash_of, pack
from ledger.emission import equal_shares
from ledger.errors import Invalid, Reason
from ledger.limits import check_params
from ledger.merkle import root_of
from ledger.params import CAP, MAX_UIDS, SLOTS, Params
from ledger.pools import deposit, found_pool, pool_at, stake_at
from ledger.state import MemoryRows, State
from ledger.subnets import check_settings, check_task, new_subnet, seat
from ledger.tables import (
    ACCOUNTS,
    HOTKEYS,
    POTS,
    SUBNETS,
    SUPPLY,
    TASKS,
    Hotkey,
    Hyperparameters,
    Pots,
    Supply,
    Task,
    netuid_key,
)
from ledger.terms import committee_root, found_terms, pack_voters, term_at
from ledger.types import ChainId, KeyField, PublicKey, Size

Entry = TypeVar("Entry")

MAX_ENTRIES: Final = MAX_ARRAY_ITEMS
"""Of accounts, and of stakes: what the codec takes in one array."""
MAX_TIME: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""
NAME: Final = re.compile("[a-z0-9_-]{1,32}")
START: Final = 0
"""The height of genesis."""


@dataclass(frozen=True)
class Allocation:
    """Rao that a key owns freely."""

    key: KeyField
    amount: int


@dataclass(frozen=True)
class Bond:
    """Rao that a coldkey has staked on a hotkey; the first to name a hotkey owns it."""

    coldkey: KeyField
    hotkey: KeyField
    amount: int


@dataclass(frozen=True)
class FirstSubnet:
    """A subnet that is there from the start, for which nothing is locked; the hotkey is its uid 0.

    The hotkey is the owner's; if nothing is staked on it, it becomes so here. So do the hotkeys of
    `neurons`, which have the next uids, but these may be others' too.
    """

    netuid: int
    owner: KeyField
    hotkey: KeyField
    hyperparameters: Hyperparameters
    neurons: Annotated[tuple[KeyField, ...], Size(MAX_UIDS)] = ()
    task: Annotated[tuple[Task, ...], Size(1)] = ()


@dataclass(frozen=True)
class Genesis:
    """A network as it begins, at `time` in Unix milliseconds."""

    name: Annotated[str, Size(32)]
    time: int
    params: Params
    accounts: Annotated[tuple[Allocation, ...], Size(MAX_ENTRIES)]
    stakes: Annotated[tuple[Bond, ...], Size(MAX_ENTRIES)]
    subnets: Annotated[tuple[FirstSubnet, ...], Size(SLOTS)]
    admin: Annotated[tuple[KeyField, ...], Size(1)] = ()
    """Who says which nodes are let in; where nobody does, all are."""

    @cached_property
    def chain(self) -> ChainId:
        """The id that all signed in this network carries."""
        return ChainId(hash_of("poi/genesis", pack(self))[:16])

    @property
    def supply(self) -> int:
        """Rao given out."""
        staked = sum(row.amount for row in self.stakes)
        return staked + sum(row.amount for row in self.accounts)


def voters_of(genesis: Genesis) -> int:
    """How many hotkeys vote on block 1. Raises Invalid BAD_GENESIS."""
    return len(term_at(genesis_state(genesis), genesis.params, START + 1).voters)


def genesis_header(genesis: Genesis) -> Header:
    """What block 1 follows. Raises Invalid BAD_GENESIS."""
    state = genesis_state(genesis)
    voters = committee_root(pack_voters(term_at(state, genesis.params, START + 1).voters))
    return Header(
        version=VERSION,
        chain=genesis.chain,
        height=START,
        parent=NO_HASH,
        view=0,
        proposer=PublicKey(bytes(32)),
        time=genesis.time,
        epoch=0,
        vrf_proof=bytes(80),
        transactions_root=transactions_root(()),
        certificate_hash=NO_CERTIFICATE.hash,
        state_root=root_of(_rows(state)),
        committee_root=voters,
        next_committee_root=voters,
    )


def genesis_rows(genesis: Genesis) -> dict[bytes, bytes]:
    """The rows of the state at height 0. Raises Invalid BAD_GENESIS."""
    return _rows(genesis_state(genesis))


def _rows(state: State) -> dict[bytes, bytes]:
    return {key: row for key, row in state.changes().items() if row is not None}


def genesis_state(genesis: Genesis) -> State:
    """The state at height 0. Raises Invalid BAD_GENESIS, which names the entry that is wrong."""
    _check(genesis)
    state, params = State(MemoryRows()), genesis.params
    state.put(SUPPLY, b"", Supply(issued=genesis.supply))
    _each("account", genesis.accounts, lambda row: _allocate(state, row))
    _each("stake", genesis.stakes, lambda row: _stake(state, params, row))
    _each("subnet", genesis.subnets, lambda row: _create(state, params, row))
    netuids = [row.netuid for row in genesis.subnets]
    state.put(POTS, b"", Pots(shares=equal_shares(netuids)))
    found_terms(state, params, genesis.chain)
    return state


def _check(genesis: Genesis) -> None:
    """What concerns no single entry. Raises Invalid BAD_GENESIS."""
    if not NAME.fullmatch(genesis.name):
        raise bad_genesis(f"name is 1 to 32 of a-z, 0-9, - and _, not {genesis.name!r:.60}")
    if not 0 <= genesis.time <= MAX_TIME:
        raise bad_genesis("time is not within the years 1970 to 9999")
    check_params(genesis.params)
    if max(len(genesis.accounts), len(genesis.stakes)) > MAX_ENTRIES:
        raise bad_genesis(f"there are more than {MAX_ENTRIES} accounts or stakes")
    if genesis.supply > CAP:
        raise bad_genesis(f"accounts and stakes come to {genesis.supply} rao, over {CAP}")


def _each(kind: str, entries: Iterable[Entry], enter: Callable[[Entry], None]) -> None:
    """Enter entries one after the other. Raises Invalid BAD_GENESIS, with kind and number."""
    for number, entry in enumerate(entries, start=1):
        try:
            enter(entry)
        except Invalid as error:
            raise in_entry(f"{kind} {number}", error) from None


def _allocate(state: State, row: Allocation) -> None:
    if state.get(ACCOUNTS, row.key):
        raise bad_genesis("the same key comes twice")
    _require_amount(row.amount)
    pay(state, row.key, row.amount)


def _stake(state: State, params: Params, row: Bond) -> None:
    _require_amount(row.amount)
    _bind(state, params, row.coldkey, row.hotkey)
    if stake_at(state, row.coldkey, row.hotkey).shares:
        raise bad_genesis("the same wallet stakes on the same hotkey twice")
    deposit(state, row.hotkey, row.coldkey, row.amount, params.min_stake)


def _create(state: State, params: Params, row: FirstSubnet) -> None:
    if not 1 <= row.netuid <= SLOTS:
        raise bad_genesis(f"netuid is from 1 to {SLOTS}, not {row.netuid}")
    if state.get(SUBNETS, netuid_key(row.netuid)):
        raise bad_genesis("the same netuid comes twice")
    check_settings(params, row.hyperparameters)
    _bind(state, params, row.owner, row.hotkey)
    if pool_at(state, row.hotkey).owner != row.owner:
        raise Invalid(Reason.NOT_OWNER, "another wallet staked first on this hotkey")
    subnet = new_subnet(params, row.owner, row.hotkey, 0, START)
    seats = (row.hotkey, *row.neurons)
    subnet = replace(subnet, hyperparameters=row.hyperparameters, neurons=len(seats))
    state.put(SUBNETS, netuid_key(row.netuid), subnet)
    _seat(state, params, row, seats)
    for task in row.task:
        check_task(task)
        state.put(TASKS, netuid_key(row.netuid), task)


def _seat(state: State, params: Params, row: FirstSubnet, seats: tuple[PublicKey, ...]) -> None:
    if len(set(seats)) < len(seats):
        raise bad_genesis("the same hotkey has two neurons")
    if len(seats) > row.hyperparameters.max_uids:
        raise bad_genesis(f"there are more than {row.hyperparameters.max_uids} neurons")
    for uid, hotkey in enumerate(seats):
        _bind(state, params, row.owner, hotkey)
        seat(state, row.netuid, uid, hotkey, START)


def _bind(state: State, params: Params, coldkey: PublicKey, hotkey: PublicKey) -> None:
    """Make a hotkey a coldkey's if it is nobody's yet; nobody asks for its consent here."""
    if state.get(HOTKEYS, hotkey) is None:
        state.put(HOTKEYS, hotkey, Hotkey(hotkey))
        found_pool(state, hotkey, coldkey, params.max_take, START)


def _require_amount(amount: int) -> None:
    if amount <= 0:
        raise Invalid(Reason.NO_AMOUNT)


def bad_genesis(detail: str) -> Invalid:
    """The refusal of a genesis."""
    return Invalid(Reason.BAD_GENESIS, detail)


def in_entry(entry: str, error: Invalid) -> Invalid:
    """The refusal of a genesis for what is wrong with one of its entries."""
    is_named = error.reason == Reason.BAD_GENESIS
    return bad_genesis(f"{entry}: {error.detail if is_named else error}")
