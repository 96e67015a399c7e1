"""Whatever is sent, in whatever order: the ledger does what a plain dict would, or nothing at all.

The model holds rao by name in dicts, and says of each action whether it is allowed and what then is
where. The ledger must agree on both, lose no rao, and be left as it was by what it refuses.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.channels import Voucher
from ledger.errors import Invalid
from ledger.params import TOKEN
from ledger.payloads import (
    AddStake,
    BindHotkey,
    ClaimChannel,
    CloseChannel,
    MoveStake,
    OpenChannel,
    Payload,
    RemoveStake,
    TopUpChannel,
    Transfer,
)
from ledger.tables import CHANNELS
from ledger.types import Hash
from tests.ledger.world import CHAIN, SMALL, World, consent, key, public

PEOPLE = ("alice", "bob", "carol")
HOTKEYS = ("north", "south")
START = {"alice": 10 * TOKEN, "bob": 4 * TOKEN, "carol": TOKEN // 20}

hotkey = st.sampled_from(HOTKEYS)
amount = st.sampled_from([TOKEN, TOKEN // 20, TOKEN // 2, 3 * TOKEN, TOKEN // 10, 1, 0, 2**62])


def actions(
    person: st.SearchStrategy[str], amount: st.SearchStrategy[int]
) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Some things that these people may do with these amounts of rao."""
    few = st.integers(0, 2)
    any_action = st.one_of(
        st.tuples(st.just("transfer"), person, st.sampled_from(PEOPLE), amount),
        st.tuples(st.just("bind"), person, hotkey),
        st.tuples(st.just("add"), person, hotkey, amount),
        st.tuples(st.just("remove"), person, hotkey, amount),
        st.tuples(st.just("move"), person, hotkey, hotkey, amount),
        st.tuples(st.just("open"), person, st.sampled_from(PEOPLE), amount, st.integers(-1, 2)),
        st.tuples(st.just("claim"), st.sampled_from(PEOPLE), few, amount),
        st.tuples(st.just("top_up"), person, few, amount, st.integers(-1, 2)),
        st.tuples(st.just("close"), person, few),
        st.tuples(st.just("wait"), st.sampled_from([1, 16, 17, 60, 100])),
    )
    return st.lists(any_action, min_size=12, max_size=40)


WIDE = actions(st.sampled_from(PEOPLE), amount)
NARROW = actions(st.just("alice"), st.sampled_from([TOKEN // 2, TOKEN]))


@dataclass
class Model:
    """The rules of rao in plain dicts. A method returns whether the action is allowed."""

    height: int = 1
    balance: dict[str, int] = field(default_factory=lambda: dict(START))
    owner: dict[str, str] = field(default_factory=dict)
    staked: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    moved: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    unbonding: list[tuple[int, str, int]] = field(default_factory=list)
    channels: list[dict[str, Any]] = field(default_factory=list)

    def wait(self, blocks: int) -> bool:
        self.height += blocks
        for due in [due for due in self.unbonding if due[0] <= self.height]:
            self.unbonding.remove(due)
            self.balance[due[1]] += due[2]
        return True

    def transfer(self, sender: str, to: str, rao: int) -> bool:
        if not 0 < rao <= self.balance[sender]:
            return False
        self.balance[sender] -= rao
        self.balance[to] += rao
        return True

    def bind(self, sender: str, hot: str) -> bool:
        if hot in self.owner:
            return False
        self.owner[hot] = sender
        return True

    def add(self, sender: str, hot: str, rao: int) -> bool:
        there = self.staked[sender, hot]
        if hot not in self.owner or not 0 < rao <= self.balance[sender]:
            return False
        if there + rao < SMALL.min_stake:
            return False
        self.balance[sender] -= rao
        self.staked[sender, hot] += rao
        return True

    def leaves(self, sender: str, hot: str, rao: int) -> bool:
        """Whether rao may leave a stake: all of it, or a part of two that are large enough."""
        there = self.staked[sender, hot]
        least = SMALL.min_stake
        return 0 < rao == there or (rao >= least and there - rao >= least)

    def remove(self, sender: str, hot: str, rao: int) -> bool:
        rao = rao or self.staked[sender, hot]  # nothing stands for all
        if not self.leaves(sender, hot, rao):
            return False
        self.staked[sender, hot] -= rao
        self.unbonding.append((self.height + SMALL.unbond, sender, rao))
        if not self.staked[sender, hot]:
            self.moved.pop((sender, hot), None)
        return True

    def move(self, sender: str, hot: str, to: str, rao: int) -> bool:
        liable = self.liable(sender, hot)
        rao = rao or self.staked[sender, hot]
        if hot == to or to not in self.owner or not self.leaves(sender, hot, rao):
            return False
        if rao > self.staked[sender, hot] - liable:
            return False
        if self.staked[sender, to] + rao < SMALL.min_stake:
            return False
        self.staked[sender, hot] -= rao
        if not self.staked[sender, hot]:
            self.moved.pop((sender, hot), None)
        entered = self.liable(sender, to) + rao
        self.staked[sender, to] += rao
        entered = min(entered, self.staked[sender, to])
        self.moved[sender, to] = (entered, self.height + SMALL.unbond)
        return True

    def liable(self, sender: str, hot: str) -> int:
        rao, until = self.moved.get((sender, hot), (0, 0))
        return rao if self.height < until else 0

    def open(self, sender: str, payee: str, rao: int, blocks: int) -> bool:
        if blocks <= 0 or payee == sender or not 0 < rao <= self.balance[sender]:
            return False
        self.balance[sender] -= rao
        channel = {"payer": sender, "payee": payee, "left": rao, "claimed": 0}
        self.channels.append({**channel, "expiry": self.height + blocks, "open": True})
        return True

    def top_up(self, sender: str, number: int, rao: int, blocks: int) -> bool:
        channel = self.at(number)
        if channel is None or channel["payer"] != sender or rao > self.balance[sender]:
            return False
        expiry = channel["expiry"] + blocks
        if blocks < 0 or expiry <= self.height or not (rao or blocks):
            return False
        self.balance[sender] -= rao
        channel["left"] += rao
        channel["expiry"] = expiry
        return True

    def claim(self, sender: str, number: int, rao: int) -> bool:
        channel = self.at(number)
        if channel is None or channel["payee"] != sender:
            return False
        if not channel["claimed"] < rao <= channel["claimed"] + channel["left"]:
            return False
        self.balance[sender] += rao - channel["claimed"]
        channel["left"] -= rao - channel["claimed"]
        channel["claimed"] = rao
        return True

    def close(self, sender: str, number: int) -> bool:
        channel = self.at(number)
        if channel is None or sender not in (channel["payer"], channel["payee"]):
            return False
        late = self.height > channel["expiry"] + SMALL.channel_grace
        if sender == channel["payer"] and not late:
            return False
        self.balance[channel["payer"]] += channel["left"]
        channel.update(left=0, open=False)
        return True

    def at(self, number: int) -> dict[str, Any] | None:
        opened = number < len(self.channels) and self.channels[number]["open"]
        return self.channels[number] if opened else None


class Real:
    """The same actions as signed transactions."""

    def __init__(self) -> None:
        self.world = World()
        self.opened: list[Hash] = []
        self.payers: list[str] = []
        for name, rao in START.items():
            self.world.fund(name, rao)

    def payload(self, action: tuple[Any, ...]) -> Payload:
        match action:
            case "transfer", _, to, rao:
                return Transfer(public(to), rao)
            case "bind", sender, hot:
                return BindHotkey(public(hot), consent(hot, sender))
            case "add", _, hot, rao:
                return AddStake(public(hot), rao)
            case "remove", _, hot, rao:
                return RemoveStake(public(hot), rao)
            case "move", _, hot, to, rao:
                return MoveStake(public(hot), public(to), rao)
            case "open", _, payee, rao, blocks:
                return OpenChannel(public(payee), rao, max(0, self.world.height + blocks))
            case "top_up", _, number, rao, blocks:
                found = self.world.state.get(CHANNELS, self.channel(number))
                expiry = found.expiry if found else 0
                return TopUpChannel(self.channel(number), rao, max(0, expiry + blocks))
            case "claim", _, number, rao:
                voucher = Voucher(CHAIN, self.channel(number), rao)
                payer = self.payers[number] if number < len(self.payers) else "alice"
                return ClaimChannel(voucher.channel, rao, key(payer).sign(voucher.digest))
            case "close", _, number:
                return CloseChannel(self.channel(number))
        raise AssertionError(action)

    def channel(self, number: int) -> Hash:
        return self.opened[number] if number < len(self.opened) else Hash(bytes(32))

    def do(self, action: tuple[Any, ...]) -> bool:
        """Apply an action; whether it was accepted. What is refused must change nothing."""
        if action[0] == "wait":
            self.world.wait(action[1])
            return True
        before = self.world.state.changes()
        try:
            made = self.world.apply(action[1], self.payload(action))
        except Invalid:
            assert self.world.state.changes() == before
            return False
        if action[0] == "open":
            self.opened.append(made)
            self.payers.append(action[1])
        return True


PROLOGUE: list[tuple[Any, ...]] = [
    ("bind", "alice", "north"),
    ("bind", "bob", "south"),
    ("add", "alice", "north", 3 * TOKEN),
    ("add", "bob", "south", TOKEN),
    ("open", "alice", "bob", TOKEN, 1),
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([PROLOGUE, []]), WIDE | NARROW)
def test_the_ledger_does_what_plain_dicts_do(
    prologue: list[tuple[Any, ...]], story: list[tuple[Any, ...]]
) -> None:
    model, real = Model(), Real()
    for action in prologue + story:
        allowed: Callable[..., bool] = getattr(model, action[0])
        assert real.do(action) == allowed(*action[1:]), action
        world = real.world
        for name in PEOPLE:
            assert world.balance(name) == model.balance[name], (action, name)
            for hot in model.owner:
                assert world.staked(name, hot) == model.staked[name, hot], (action, name, hot)
        world.audit()
