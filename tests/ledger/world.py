"""A small ledger to try transactions on: keys by name, one height, an audit of every rao."""

from dataclasses import replace
from functools import cache

import pytest

from ledger.accounts import account_of, pay
from ledger.call import Place
from ledger.codec import hash_of
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.params import DEVNET, Params
from ledger.payloads import AddStake, BindHotkey, Payload
from ledger.stakes import binding_digest, release, stake_of
from ledger.state import MemoryRows, State
from ledger.tables import ACCOUNTS, CHANNELS, POOLS, POTS, SUBNETS, SUPPLY, UNBONDING, Pool, Supply
from ledger.transactions import (
    Transaction,
    apply_transaction,
    check_signature,
    sign,
    unpack_transaction,
)
from ledger.types import ChainId, Hash, PublicKey, Signature

SMALL = replace(DEVNET, fee_per_byte=0)
"""The devnet's constants, without fees: what is paid is what a test says."""
CHAIN = ChainId(b"chain of a test.")


_PAIRS: dict[PublicKey, KeyPair] = {}


@cache
def key(name: str) -> KeyPair:
    """The pair of a name."""
    pair = KeyPair.from_seed(hash_of("poi/test", name.encode()))
    _PAIRS[pair.public] = pair
    return pair


def pair_of(known: PublicKey) -> KeyPair:
    """The pair of a public key whose name was said before."""
    return _PAIRS[known]


def public(name: str) -> PublicKey:
    """The public key of a name."""
    return key(name).public


def consent(hotkey: str, coldkey: str, chain: ChainId = CHAIN) -> Signature:
    """A hotkey's word that it is a coldkey's."""
    return key(hotkey).sign(binding_digest(chain, public(hotkey), public(coldkey)))


def total(state: State) -> int:
    """Every rao in a state, wherever it rests, burned ones included."""
    pots, supply = state.get(POTS), state.get(SUPPLY)
    return (
        sum(row.balance for _, row in state.rows(ACCOUNTS))
        + sum(row.stake for _, row in state.rows(POOLS))
        + sum(row.amount for _, row in state.rows(UNBONDING))
        + sum(row.locked for _, row in state.rows(SUBNETS))
        + sum(row.amount - row.claimed for _, row in state.rows(CHANNELS))
        + (sum(pots.amounts) if pots else 0)
        + (supply.burned if supply else 0)
    )


class World:
    """A state, a height, and people with keys who send transactions."""

    def __init__(self, params: Params = SMALL, height: int = 1) -> None:
        self.params = params
        self.height = height
        self.state = State(MemoryRows())

    @property
    def place(self) -> Place:
        """Where transactions are applied now."""
        return Place(self.params, CHAIN, self.height)

    # --- what happens

    def fund(self, name: str, amount: int) -> None:
        """Issue rao to a balance."""
        supply = self.supply
        self.state.put(SUPPLY, b"", replace(supply, issued=supply.issued + amount))
        pay(self.state, public(name), amount)

    def apply(self, name: str, payload: Payload, fee: int = 0) -> Hash:
        """Apply a transaction as its bytes; its id. A fee goes to the key named "proposer"."""
        sender = public(name)
        nonce = account_of(self.state, sender).nonce
        last = self.height + self.params.validity
        data = sign(Transaction(CHAIN, sender, nonce, fee, last, payload), key(name))
        signed = unpack_transaction(data)
        check_signature(signed)
        apply_transaction(self.state, self.place, signed, len(data))
        if fee:
            pay(self.state, public("proposer"), fee)
        return signed.transaction.id

    def refuses(self, reason: Reason, name: str, payload: Payload, fee: int = 0) -> None:
        """Assert that a transaction is refused for this reason, and changes nothing."""
        before = self.state.changes()
        with pytest.raises(Invalid) as caught:
            self.apply(name, payload, fee)
        assert caught.value.reason == reason
        assert self.state.changes() == before

    def wait(self, blocks: int) -> None:
        """Let blocks pass; what falls due on the way is released."""
        self.height += blocks
        release(self.state, self.height)

    # --- what it takes to begin

    def bind(self, coldkey: str, *hotkeys: str) -> None:
        """Make hotkeys a coldkey's."""
        for hotkey in hotkeys:
            self.apply(coldkey, BindHotkey(public(hotkey), consent(hotkey, coldkey)))

    def stake(self, coldkey: str, hotkey: str, amount: int) -> None:
        """Issue rao to a coldkey and stake them."""
        self.fund(coldkey, amount)
        self.apply(coldkey, AddStake(public(hotkey), amount))

    # --- what is there

    @property
    def supply(self) -> Supply:
        """The totals that the ledger itself keeps."""
        return self.state.get(SUPPLY) or Supply()

    def balance(self, name: str) -> int:
        """Rao that a key owns freely."""
        return account_of(self.state, public(name)).balance

    def pool(self, hotkey: str) -> Pool:
        """The pool that was made for a hotkey."""
        pool = self.state.get(POOLS, public(hotkey))
        assert pool is not None
        return pool

    def staked(self, coldkey: str, hotkey: str) -> int:
        """Rao that a coldkey has in the pool that was made for a hotkey."""
        return stake_of(self.state, public(coldkey), public(hotkey))

    def total(self) -> int:
        """Every rao there is, wherever it rests, burned ones included."""
        return total(self.state)

    def audit(self) -> None:
        """Assert that nothing was lost or made."""
        assert self.total() == self.supply.issued
        assert self.supply.staked == sum(row.stake for _, row in self.state.rows(POOLS))
