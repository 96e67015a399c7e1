"""Balances: rao that a key owns freely."""

from dataclasses import replace

from ledger.call import Call
from ledger.errors import Invalid, Reason
from ledger.payloads import Transfer
from ledger.state import State
from ledger.tables import ACCOUNTS, SUPPLY, Account, Supply
from ledger.types import PublicKey


def transfer(call: Call, payload: Transfer) -> None:
    """Pay from the sender's balance. Raises Invalid: NO_AMOUNT, NO_BALANCE."""
    take(call.state, call.sender, payload.amount)
    pay(call.state, payload.to, payload.amount)


def account_of(state: State, key: PublicKey) -> Account:
    """What a key owns and has sent; nothing for a key never seen."""
    return state.get(ACCOUNTS, key) or Account()


def pay(state: State, key: PublicKey, amount: int) -> None:
    """Add rao to a balance."""
    account = account_of(state, key)
    state.put(ACCOUNTS, key, Account(account.balance + amount, account.nonce))


def take(state: State, key: PublicKey, amount: int) -> None:
    """Take rao, more than none, from a balance. Raises Invalid: NO_AMOUNT, NO_BALANCE."""
    if amount <= 0:
        raise Invalid(Reason.NO_AMOUNT)
    account = account_of(state, key)
    if account.balance < amount:
        raise Invalid(Reason.NO_BALANCE, f"{account.balance} rao, {amount} are due")
    state.put(ACCOUNTS, key, Account(account.balance - amount, account.nonce))


def burn(state: State, amount: int) -> None:
    """Count rao, taken from somewhere by the caller, as gone for good."""
    supply = state.get(SUPPLY) or Supply()
    state.put(SUPPLY, b"", replace(supply, burned=supply.burned + amount))
