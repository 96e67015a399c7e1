"""The mempool: who gets in, who has to go, and what a proposer is offered."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import ledger.mempool
from ledger.accounts import account_of
from ledger.blocks import Vote, VoteKind
from ledger.call import Place
from ledger.errors import Reason
from ledger.mempool import FREE_BLOCK_BYTES, WINDOW, Mempool
from ledger.params import DEVNET, TOKEN
from ledger.payloads import AddStake, Evidence, Heartbeat, Leave, Payload, Transfer
from ledger.state import State
from ledger.transactions import Transaction, apply_transaction, sign, unpack_transaction
from ledger.types import ChainId, Hash, PublicKey
from ledger.waiting import REMEMBERED
from tests.ledger.chain import refusal
from tests.ledger.world import CHAIN, SMALL, World, key, public

LAST = 100


def transfer(
    sender: str, nonce: int, fee: int = 0, amount: int = 1, until: int = LAST, to: str = "shop"
) -> bytes:
    """A signed transfer."""
    return signed(sender, nonce, Transfer(public(to), amount), fee, until)


def signed(sender: str, nonce: int, payload: Payload, fee: int = 0, until: int = LAST) -> bytes:
    """A signed transaction."""
    return sign(Transaction(CHAIN, public(sender), nonce, fee, until, payload), key(sender))


class Chain:
    """A world whose blocks are made of what the mempool offers."""

    def __init__(self) -> None:
        self.world = World()
        self.mempool = Mempool(SMALL, CHAIN)

    def fund(self, *names: str, amount: int = 1000) -> None:
        """Give people rao."""
        for name in names:
            self.world.fund(name, amount)

    def add(self, data: bytes) -> Hash:
        """Have a transaction wait."""
        return self.mempool.add(data, self.world.state, self.world.height)

    def refused(self, data: bytes) -> Reason:
        """Why it may not wait; nothing has changed then."""
        before = self.mempool.candidates()
        reason = refusal(self.add, data)
        assert self.mempool.candidates() == before
        return reason

    def include(self, *included: bytes) -> None:
        """A block of these."""
        for data in included:
            place = Place(SMALL, CHAIN, self.world.height)
            apply_transaction(self.world.state, place, unpack_transaction(data), len(data))
        self.world.wait(1)
        senders = {data: unpack_transaction(data).transaction.sender for data in included}
        self.mempool.settle(self.world.state, self.world.height, senders)


@pytest.fixture
def chain() -> Chain:
    made = Chain()
    made.fund("ann", "bob", "cid")
    return made


# --- getting in


def test_what_waits_is_offered_until_it_is_included(chain: Chain) -> None:
    data = transfer("ann", 0)
    name = chain.add(data)
    assert name == unpack_transaction(data).transaction.id
    assert (len(chain.mempool), chain.mempool.get(name)) == (1, data)
    assert chain.mempool.candidates() == [data]
    chain.include(data)
    assert (len(chain.mempool), chain.mempool.get(name)) == (0, None)
    assert chain.mempool.candidates() == []


def test_what_may_not_wait(chain: Chain) -> None:
    """Each for its reason, in the order of cost."""
    assert chain.refused(bytes(70_000)) == Reason.TOO_LARGE
    assert chain.refused(b"transaction") == Reason.NOT_CANONICAL
    other = Transaction(ChainId(b"another network."), public("ann"), 0, 0, 9, Heartbeat())
    assert chain.refused(sign(other, key("ann"))) == Reason.WRONG_CHAIN
    assert chain.refused(transfer("ann", 0, until=0)) == Reason.EXPIRED
    late = chain.world.height + SMALL.validity
    assert chain.refused(transfer("ann", 0, until=late + 1)) == Reason.EXPIRED
    assert chain.refused(transfer("ann", WINDOW)) == Reason.WRONG_NONCE
    assert chain.refused(transfer("ann", 0, fee=1001)) == Reason.NO_BALANCE
    forged = transfer("ann", 0)[:-1] + b"\0"
    assert chain.refused(forged) == Reason.BAD_SIGNATURE
    assert chain.refused(transfer("ann", 0, fee=1, amount=1000)) == Reason.NO_BALANCE
    assert chain.refused(transfer("ann", 0, amount=0)) == Reason.NO_AMOUNT
    nowhere = AddStake(public("nobody's node"), TOKEN)
    assert chain.refused(signed("ann", 0, nowhere)) == Reason.NO_HOTKEY


def test_a_fee_is_due_for_the_size() -> None:
    mempool, world = Mempool(DEVNET, CHAIN), World()
    world.fund("ann", TOKEN)
    due = 10 * len(transfer("ann", 0, fee=5000))
    assert refusal(mempool.add, transfer("ann", 0, fee=due - 1), world.state, 1) == Reason.LOW_FEE
    mempool.add(transfer("ann", 0, fee=due), world.state, 1)


def test_what_waits_does_not_come_again(chain: Chain) -> None:
    data = transfer("ann", 0)
    chain.add(data)
    assert chain.refused(data) == Reason.KNOWN
    assert chain.refused(data[:-1] + b"\0") == Reason.KNOWN
    chain.include(data)
    assert chain.refused(data) == Reason.KNOWN
    for _ in range(REMEMBERED):
        chain.include()
    assert chain.refused(data) == Reason.WRONG_NONCE


def test_the_balance_covers_all_that_waits(chain: Chain) -> None:
    """Given 1000 rao, then so much can wait in all, amounts and fees."""
    chain.add(transfer("ann", 0, fee=10, amount=490))
    chain.add(transfer("ann", 1, fee=10, amount=480))
    assert chain.refused(transfer("ann", 2, amount=11)) == Reason.NO_BALANCE
    chain.add(transfer("ann", 2, amount=10))


def test_what_cannot_both_apply_does_not_wait_together(chain: Chain) -> None:
    """Given heartbeats of one node, then the second is refused, whatever its nonce."""
    chain.world.bind("ann", "node")
    chain.world.stake("ann", "node", TOKEN)
    chain.add(signed("node", 0, Heartbeat()))
    assert chain.refused(signed("node", 1, Heartbeat())) == Reason.TOO_SOON
    chain.add(signed("node", 1, Leave()))
    assert chain.refused(signed("node", 2, Leave())) == Reason.TOO_SOON


# --- nonces


def test_a_gap_is_waited_for(chain: Chain) -> None:
    second, third = transfer("ann", 1), transfer("ann", 2)
    chain.add(third)
    chain.add(second)
    assert chain.mempool.candidates() == []
    assert chain.mempool.next_nonce(public("ann"), 0) == 0
    first = transfer("ann", 0)
    chain.add(first)
    assert chain.mempool.candidates() == [first, second, third]
    assert chain.mempool.next_nonce(public("ann"), 0) == 3
    chain.include(first)
    assert chain.mempool.candidates() == [second, third]


def test_a_sender_has_so_many_waiting(chain: Chain) -> None:
    for nonce in range(WINDOW):
        chain.add(transfer("ann", nonce, amount=1))
    assert chain.refused(transfer("ann", WINDOW)) == Reason.WRONG_NONCE
    chain.include(transfer("ann", 0, amount=1))
    chain.add(transfer("ann", WINDOW))


def test_a_higher_fee_replaces(chain: Chain) -> None:
    old, new = transfer("ann", 0, fee=100), transfer("ann", 0, fee=110, amount=2)
    chain.add(old)
    assert chain.refused(transfer("ann", 0, fee=109, amount=2)) == Reason.LOW_FEE
    assert chain.refused(transfer("ann", 0, fee=100, amount=2)) == Reason.LOW_FEE
    chain.add(new)
    assert chain.mempool.candidates() == [new]
    assert old not in chain.mempool.known


def test_what_is_free_is_not_replaced_for_nothing(chain: Chain) -> None:
    chain.add(transfer("ann", 0, fee=0))
    assert chain.refused(transfer("ann", 0, fee=0, amount=2)) == Reason.LOW_FEE
    chain.add(transfer("ann", 0, fee=1, amount=2))


def test_nothing_replaces_what_others_behind_it_need(chain: Chain) -> None:
    chain.add(transfer("ann", 0, amount=400))
    chain.add(transfer("ann", 1, amount=500))
    assert chain.refused(transfer("ann", 0, fee=1, amount=500)) == Reason.NO_BALANCE
    chain.add(transfer("ann", 0, fee=100, amount=400))


# --- in what order


def test_the_best_paid_come_first_each_after_what_is_before_it(chain: Chain) -> None:
    ann = [transfer("ann", 0, fee=20), transfer("ann", 1, fee=90)]
    bob = [transfer("bob", 0, fee=30), transfer("bob", 1, fee=10)]
    for data in (*ann, *bob):
        chain.add(data)
    assert chain.mempool.candidates() == [bob[0], *ann, bob[1]]


def test_what_is_free_comes_first_by_stake(chain: Chain) -> None:
    """Given heartbeats, then that of the most stake is the first, and transfers come after."""
    for name, stake in (("large", 3), ("small", 1), ("middle", 2)):
        chain.world.bind("ann", name)
        chain.world.stake("ann", name, stake * TOKEN)
    beats = {name: signed(name, 0, Heartbeat()) for name in ("small", "large", "middle")}
    paying = transfer("bob", 0, fee=500)
    for data in (paying, *beats.values()):
        chain.add(data)
    order = [beats["large"], beats["middle"], beats["small"], paying]
    assert chain.mempool.candidates() == order


def test_what_is_free_has_a_part_of_a_block(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more of it than that, then the rest comes after what pays."""
    beats = []
    for number in range(4):
        chain.world.bind("ann", f"node {number}")
        chain.world.stake("ann", f"node {number}", (9 - number) * TOKEN)
        beats.append(signed(f"node {number}", 0, Heartbeat()))
        chain.add(beats[-1])
    paying = transfer("bob", 0, fee=1)
    chain.add(paying)
    monkeypatch.setattr(ledger.mempool, "FREE_BLOCK_BYTES", 2 * len(beats[0]) + 1)
    offered = chain.mempool.candidates()
    assert offered[:3] == [*beats[:2], paying]
    assert set(offered[3:]) == set(beats[2:])
    assert 1000 * len(beats[0]) < FREE_BLOCK_BYTES


def evidence_against(name: str) -> Evidence:
    """Two votes of one view for different blocks."""
    votes = [Vote(VoteKind.NOTARISE, 1, 0, bytes([number]) * 32) for number in range(2)]
    signatures = [key(name).sign(vote.digest(CHAIN)) for vote in votes]
    return Evidence(public(name), votes[0], signatures[0], votes[1], signatures[1])


def test_who_waits_for_more_does_not_keep_others_from_accusing(chain: Chain) -> None:
    """Given evidence behind a nonce that nobody sends, then that of another takes its place."""
    chain.world.bind("ann", "node")
    chain.world.stake("ann", "node", TOKEN)
    evidence = evidence_against("node")
    chain.add(signed("friend", 2, evidence))
    assert chain.refused(signed("reporter", 2, evidence)) == Reason.KNOWN
    chain.add(signed("reporter", 1, evidence))
    chain.add(signed("another reporter", 0, evidence))
    assert chain.mempool.candidates() == [signed("another reporter", 0, evidence)]
    assert len(chain.mempool) == 1
    assert chain.refused(signed("another reporter", 1, evidence)) == Reason.KNOWN


def test_one_accusation_is_enough(chain: Chain) -> None:
    """Given an offence that two report, then one report waits."""
    chain.world.bind("ann", "node")
    chain.world.stake("ann", "node", TOKEN)
    evidence = evidence_against("node")
    first = signed("reporter", 0, evidence)
    chain.add(first)
    assert chain.refused(signed("another reporter", 0, evidence)) == Reason.KNOWN
    chain.include(first)
    assert chain.refused(signed("another reporter", 0, evidence)) == Reason.OLD_OFFENCE


# --- no more room


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Room for four that pay and two that are free."""
    monkeypatch.setattr(ledger.mempool, "MAX_PAYING", 4)
    monkeypatch.setattr(ledger.mempool, "MAX_FREE", 2)
    made = Chain()
    made.fund("ann", "bob", "cid", "dot")
    return made


def test_the_lowest_fee_makes_room(small: Chain) -> None:
    """It is the last of its sender that goes, as nothing waits for what is gone."""
    ann = [transfer("ann", nonce, fee=fee) for nonce, fee in enumerate((9, 1, 99))]
    bob = transfer("bob", 0, fee=5)
    for data in (*ann, bob):
        small.add(data)
    assert small.refused(transfer("cid", 0, fee=1)) == Reason.MEMPOOL_FULL
    cid = transfer("cid", 0, fee=2)
    small.add(cid)
    assert small.mempool.candidates() == [ann[0], bob, cid, ann[1]]
    dot = transfer("dot", 0, fee=3)
    small.add(dot)
    assert small.mempool.candidates() == [ann[0], bob, dot, cid]
    assert small.refused(transfer("ann", 1, fee=2)) == Reason.MEMPOOL_FULL


def test_what_waits_for_a_gap_goes_first(small: Chain) -> None:
    for nonce in range(1, 5):
        small.add(transfer("ann", nonce, fee=200))
    for name in ("bob", "cid", "dot"):
        small.add(transfer(name, 0, fee=1))
    assert len(small.mempool) == 4
    assert len(small.mempool.candidates()) == 3
    assert small.refused(transfer("bob", 2, fee=500)) == Reason.MEMPOOL_FULL


def test_one_sender_does_not_fill_it(small: Chain) -> None:
    for nonce in range(4):
        small.add(transfer("ann", nonce, fee=10))
    assert small.refused(transfer("ann", 4, fee=500)) == Reason.MEMPOOL_FULL
    for name in ("bob", "cid", "dot"):
        small.add(transfer(name, 0, fee=11))
    assert len(small.mempool) == 4


def test_a_replacement_needs_no_more_room(small: Chain) -> None:
    for nonce in range(4):
        small.add(transfer("ann", nonce, fee=10))
    small.add(transfer("ann", 1, fee=11))
    assert len(small.mempool) == 4


def test_free_and_paying_keep_their_room(small: Chain) -> None:
    """Given both full, then neither takes the other's place, and higher stake takes that of lower;
    evidence finds room always."""
    for name, stake in (("one", 1), ("two", 2), ("three", 3)):
        small.world.bind("ann", name)
        small.world.stake("ann", name, stake * TOKEN)
    nonce = account_of(small.world.state, public("ann")).nonce
    paying = [transfer("ann", nonce + number, fee=1) for number in range(4)]
    beats = {name: signed(name, 0, Heartbeat()) for name in ("one", "two", "three")}
    for data in (*paying, beats["one"], beats["two"]):
        small.add(data)
    small.add(beats["three"])
    assert small.mempool.candidates() == [beats["three"], beats["two"], *paying]
    assert small.refused(beats["one"]) == Reason.MEMPOOL_FULL
    report = signed("reporter", 0, evidence_against("one"))
    small.add(report)
    assert small.mempool.candidates() == [report, beats["three"], *paying]


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(transfer("ann", 0, fee=10))
    monkeypatch.setattr(ledger.mempool, "MAX_PAYING_BYTES", 3 * size)
    chain = Chain()
    chain.fund("ann", "bob")
    for nonce in range(3):
        chain.add(transfer("ann", nonce, fee=10))
    assert chain.refused(transfer("bob", 0, fee=10)) == Reason.MEMPOOL_FULL
    chain.add(transfer("bob", 0, fee=11))
    assert len(chain.mempool) == 3


# --- after a block


def test_what_is_late_goes(chain: Chain) -> None:
    chain.add(transfer("ann", 0, until=1))
    chain.add(transfer("bob", 0, until=2))
    chain.include()
    assert len(chain.mempool) == 1
    chain.include()
    assert len(chain.mempool) == 0


def test_what_another_of_its_nonce_replaced_in_a_block_goes(chain: Chain) -> None:
    first, second = transfer("ann", 0), transfer("ann", 1, amount=900)
    chain.add(first)
    chain.add(second)
    chain.include(transfer("ann", 0, amount=500))
    assert len(chain.mempool) == 0


def test_what_no_longer_applies_goes_in_time(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given waiting ones that others made useless, then each is tried again within some blocks."""
    monkeypatch.setattr(ledger.mempool, "TRIED_AGAIN", 1)
    for name in ("ann", "bob", "cid"):
        chain.add(transfer(name, 0, amount=900))
    state = State(chain.world.state)
    for name in ("ann", "bob", "cid"):
        transaction = unpack_transaction(transfer(name, 0)).transaction
        account = account_of(state, transaction.sender)
        state.put(ledger.mempool.ACCOUNTS, transaction.sender, replace(account, balance=800))
    for left in (2, 1, 0):
        chain.mempool.settle(state, 2)
        assert len(chain.mempool) == left


def test_what_was_included_need_not_be_read_again(chain: Chain) -> None:
    """Its senders are said with it: a full block takes a tenth of a second to unpack."""
    chain.mempool.settle(chain.world.state, 2, {b"not read": PublicKey(bytes(32))})


def test_signatures_that_were_checked_are_known(chain: Chain) -> None:
    data = transfer("ann", 0)
    forged = data[:-1] + bytes([data[-1] ^ 1])
    assert data not in chain.mempool.known
    chain.add(data)
    assert data in chain.mempool.known
    assert forged not in chain.mempool.known
    chain.include(data)
    assert data in chain.mempool.known
    for _ in range(REMEMBERED):
        chain.include()
    assert data not in chain.mempool.known


# --- against a model


@dataclass(frozen=True)
class Sent:
    """A transaction of the model."""

    data: bytes
    fee: int
    amount: int
    until: int


ROOM = 5
PEOPLE = ("ann", "bob", "cid")
person = st.sampled_from(PEOPLE)


class Machine(RuleBasedStateMachine):
    """The mempool beside dicts that know the rules in their plainest form."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(ledger.mempool, "MAX_PAYING", ROOM)
        self.chain = Chain()
        self.chain.fund(*PEOPLE, amount=100)
        self.waiting: dict[str, dict[int, Sent]] = {name: {} for name in PEOPLE}
        self.due = dict.fromkeys(PEOPLE, 0)
        self.balance = dict.fromkeys(PEOPLE, 100)

    def teardown(self) -> None:
        self.patch.undo()

    def ranks(self, name: str) -> dict[int, int]:
        """The rate of each of a sender's, or of one before it that is lower."""
        ranks, lowest = {}, 2**70
        for nonce, sent in sorted(self.waiting[name].items()):
            before = nonce == self.due[name] or nonce - 1 in ranks
            lowest = min(lowest, (sent.fee << 32) // len(sent.data)) if before else -1
            ranks[nonce] = lowest
        return ranks

    def expected(self, name: str, nonce: int, sent: Sent) -> Reason | None:
        """Why the model refuses, or None, and then it has taken it."""
        if sent.until < self.chain.world.height:
            return Reason.EXPIRED
        if not self.due[name] <= nonce < self.due[name] + WINDOW:
            return Reason.WRONG_NONCE
        if sent.fee > self.balance[name]:
            return Reason.NO_BALANCE
        mine = self.waiting[name]
        old = mine.get(nonce)
        if old and (sent.fee <= old.fee or 10 * sent.fee < 11 * old.fee):
            return Reason.LOW_FEE
        before = dict(mine)
        mine[nonce] = sent
        loser = None
        if sum(map(len, self.waiting.values())) > ROOM:
            loser = self.loser(name, nonce)
            if loser is None:
                self.waiting[name] = before
                return Reason.MEMPOOL_FULL
        if loser == name:
            del mine[max(mine)]
        if sum(each.fee + each.amount for each in mine.values()) > self.balance[name]:
            self.waiting[name] = before
            return Reason.NO_BALANCE
        if loser and loser != name:
            del self.waiting[loser][max(self.waiting[loser])]
        return None

    def loser(self, name: str, nonce: int) -> str | None:
        """Whose last goes, so that one of a sender can wait; None if there is nobody."""
        mine = self.ranks(name)[nonce]
        lowest = {
            (min(self.ranks(other).values()), public(other)): other
            for other in PEOPLE
            if self.waiting[other]
        }
        lowest = {
            rank: other
            for rank, other in lowest.items()
            if (max(self.waiting[name]) > nonce if other == name else rank[0] < mine)
        }
        return lowest[min(lowest)] if lowest else None

    @rule(
        name=person, ahead=st.integers(-1, 4), fee=st.integers(0, 30), amount=st.integers(1, 30),
        life=st.sampled_from([0, 1, 50]),
    )  # fmt: skip
    def send(self, name: str, ahead: int, fee: int, amount: int, life: int) -> None:
        nonce, until = max(0, self.due[name] + ahead), self.chain.world.height + life
        sent = Sent(transfer(name, nonce, fee, amount, until), fee, amount, until)
        if sent.data in self.chain.mempool.known:
            assert self.chain.refused(sent.data) == Reason.KNOWN
            return
        reason = self.expected(name, nonce, sent)
        if reason:
            assert self.chain.refused(sent.data) == reason
        else:
            self.chain.add(sent.data)

    @rule(share=st.integers(0, ROOM))
    def make_block(self, share: int) -> None:
        """Of what is offered first."""
        self.include(self.chain.mempool.candidates()[:share])

    @rule(name=person, amount=st.integers(1, 100))
    def spend_elsewhere(self, name: str, amount: int) -> None:
        """In a block of what this mempool has not heard of."""
        if amount <= self.balance[name]:
            until = self.chain.world.height + 2
            self.include([transfer(name, self.due[name], 0, amount, until, to="another shop")])

    def include(self, block: list[bytes]) -> None:
        for data in block:
            transaction: Any = unpack_transaction(data).transaction
            name = next(each for each in PEOPLE if public(each) == transaction.sender)
            assert transaction.nonce == self.due[name]
            self.due[name] += 1
            self.balance[name] -= transaction.fee + transaction.payload.amount
        self.chain.include(*block)
        for name, mine in self.waiting.items():
            left = self.balance[name]
            for nonce, sent in sorted(mine.items()):
                cost = sent.fee + sent.amount
                late = sent.until < self.chain.world.height
                if nonce < self.due[name] or late or cost > left:
                    del mine[nonce]
                else:
                    left -= cost

    @invariant()
    def agrees(self) -> None:
        mempool = self.chain.mempool
        waiting = [sent.data for mine in self.waiting.values() for sent in mine.values()]
        assert len(mempool) == len(waiting) <= ROOM
        assert all(data in mempool.known for data in waiting)
        assert sorted(mempool.candidates()) == sorted(self.in_turn())

    def in_turn(self) -> list[bytes]:
        found = []
        for name, mine in self.waiting.items():
            nonce = self.due[name]
            while nonce in mine:
                found.append(mine[nonce].data)
                nonce += 1
        return found

    @invariant()
    def all_that_is_offered_applies(self) -> None:
        state = State(self.chain.world.state)
        place = Place(SMALL, CHAIN, self.chain.world.height)
        for data in self.chain.mempool.candidates():
            apply_transaction(state, place, unpack_transaction(data), len(data))


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
