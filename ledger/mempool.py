"""The mempool: signed transactions that wait for a block, within bounds (CONSENSUS 4.10).

What is refused costs as little as possible: size, form, network, term, fee, nonce, room, signature,
and only then is it tried after all that its sender has waiting, on the state after the head. So the
balance covers all of these together, and of two that cannot both apply the later is refused.

* A sender has at most 16 waiting: one for each nonce from that of its account on. Some may be
  missing before others, which then wait for them but are the first to go.
* Kinds that need no fee have room of their own, so that neither they nor those that pay keep the
  others out. Of those that pay the highest fee a byte comes first, of the others the highest stake
  of the sender's pool, and evidence before all.
* Where there is no more room, what comes last goes: the last of a sender, as nothing can be
  included without what is before it. It ranks no higher than the lowest of those.
"""

from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from heapq import heapify, heappop, heapreplace, merge
from itertools import islice
from typing import Final

from ledger.accounts import account_of
from ledger.blocks import MAX_BLOCK_BYTES
from ledger.call import Place
from ledger.codec import MAX_INTEGER
from ledger.errors import Invalid, Reason
from ledger.params import Params
from ledger.payloads import Evidence
from ledger.stakes import pool_of
from ledger.state import Rows, State
from ledger.tables import ACCOUNTS, POOLS
from ledger.transactions import (
    apply_transaction,
    check_envelope,
    check_signature,
    id_of,
    unpack_transaction,
)
from ledger.types import ChainId, Hash, PublicKey
from ledger.waiting import Checked, Lane, Queue, Waiting

WINDOW: Final = 16
"""Nonces from that of the account on, each for one transaction that waits."""
MAX_PAYING: Final = 4_000
MAX_PAYING_BYTES: Final = 6 * 2**20
MAX_FREE: Final = 1_000
MAX_FREE_BYTES: Final = 2 * 2**20
"""5,000 in 8 MiB together: sixteen full blocks. A quarter is for what needs no fee: a commitment
and a reveal of each of 64 validators in 8 subnets."""
FREE_BLOCK_BYTES: Final = MAX_BLOCK_BYTES // 2
"""Of a block for what needs no fee, before what pays; what more there is comes after that."""
OFFERED_BYTES: Final = 2 * MAX_BLOCK_BYTES
"""Candidates for one block: some may not apply any more."""
TRIED_AGAIN: Final = 64
"""Senders whose transactions are tried anew after each block, in turn, beside those who are in it:
some may no longer apply for what others did."""


class Mempool:
    """The transactions that wait.

    One thread changes it; `candidates` and `known` can be used by another meanwhile.
    """

    def __init__(self, params: Params, chain: ChainId) -> None:
        self._params = params
        self._chain = chain
        self._queues: dict[PublicKey, Queue] = {}  # those tried longest ago come first
        self._entries: dict[Hash, Waiting] = {}
        self._accused: dict[PublicKey, Hash] = {}
        self._lanes = {
            False: Lane(False, MAX_PAYING, MAX_PAYING_BYTES),
            True: Lane(True, MAX_FREE, MAX_FREE_BYTES),
        }
        self._checked = Checked(self.get)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def known(self) -> Container[bytes]:
        """Signed transactions whose signatures need not be checked again."""
        return self._checked

    def get(self, name: Hash) -> bytes | None:
        """The bytes of the transaction of an id, if it waits."""
        entry = self._entries.get(name)
        return entry.data if entry else None

    def next_nonce(self, sender: PublicKey, due: int) -> int:
        """The first nonce from that of the account on for which nothing of a sender waits."""
        queue = self._queues.get(sender)
        while queue and due in queue.entries:
            due += 1
        return due

    # --- in

    def add(self, data: bytes, rows: Rows | State, height: int) -> Hash:
        """Have a signed transaction wait for a block; its id.

        `rows` is the state after the head, `height` that of the block after it.
        Raises Invalid: KNOWN, MEMPOOL_FULL; LOW_FEE also where another of its nonce waits that does
        not pay a tenth less; and what unpacking, its signature and applying it raise.
        """
        signed = unpack_transaction(data)
        if data in self._checked:
            raise Invalid(Reason.KNOWN)
        place = Place(self._params, self._chain, height)
        check_envelope(place, signed.transaction, len(data))
        state = State(rows)
        entry = Waiting(data, signed, id_of(data), 0)
        entry = replace(entry, rank=_stake_behind(state, entry) if entry.free else entry.rate)
        queue = self._queue_with(state, entry)
        dropped = self._to_drop(entry, queue)
        for other, nonce in self._later_accuser(entry, queue).items():
            dropped[other] = min(nonce, dropped.get(other, nonce))
        check_signature(signed)
        sender = signed.transaction.sender
        queue = queue.up_to(dropped.pop(sender, queue.due + WINDOW))
        _check_all(state, place, queue, entry)
        for other, nonce in dropped.items():
            self._put(other, self._queues[other].up_to(nonce))
        self._put(sender, queue)
        return entry.id

    def _queue_with(self, state: State, entry: Waiting) -> Queue:
        """The sender's queue as it would be. Raises Invalid: KNOWN, WRONG_NONCE, ..., LOW_FEE."""
        transaction = entry.transaction
        account = account_of(state, transaction.sender)
        if not account.nonce <= transaction.nonce < account.nonce + WINDOW:
            detail = f"{account.nonce} is due, not {transaction.nonce}"
            raise Invalid(Reason.WRONG_NONCE, detail)
        if transaction.fee > account.balance:
            detail = f"{account.balance} rao, the fee is {transaction.fee}"
            raise Invalid(Reason.NO_BALANCE, detail)
        held = self._queues.get(transaction.sender, Queue())
        self._check_replaces(entry, held.entries.get(transaction.nonce))
        entries = {nonce: each for nonce, each in held.entries.items() if nonce >= account.nonce}
        return Queue(account.nonce, {**entries, transaction.nonce: entry})

    def _check_replaces(self, entry: Waiting, old: Waiting | None) -> None:
        """Raises Invalid: KNOWN, LOW_FEE."""
        if entry.id in self._entries:
            raise Invalid(Reason.KNOWN)
        if old:
            paid, fee = old.transaction.fee, entry.transaction.fee
            if fee <= paid or 10 * fee < 11 * paid:
                raise Invalid(Reason.LOW_FEE, f"another of its nonce pays {paid} rao")

    def _later_accuser(self, entry: Waiting, queue: Queue) -> dict[PublicKey, int]:
        """Whose evidence against the same offender has more to wait for, and goes; its nonce.

        One is enough, or keys without a rao would fill the room with what anyone can show; and what
        never gets its turn must not keep others from accusing. Raises Invalid KNOWN.
        """
        payload, sender = entry.transaction.payload, entry.transaction.sender
        name = self._accused.get(payload.offender) if isinstance(payload, Evidence) else None
        if name is None:
            return {}
        held = self._entries[name].transaction
        if held.sender == sender:
            if held.nonce == entry.transaction.nonce:
                return {}
            raise Invalid(Reason.KNOWN)
        if entry.transaction.nonce - queue.due >= held.nonce - self._queues[held.sender].due:
            raise Invalid(Reason.KNOWN)
        return {held.sender: held.nonce}

    def _to_drop(self, entry: Waiting, queue: Queue) -> dict[PublicKey, int]:
        """From which nonce on senders lose what they have waiting, to make room for one more.

        Raises Invalid MEMPOOL_FULL.
        """
        transaction, lane = entry.transaction, self._lanes[entry.free]
        held = self._queues.get(transaction.sender, Queue()).entries.get(transaction.nonce)
        old = held if held and held.free == entry.free else None
        count, size = lane.overflow(not old, len(entry.data) - (len(old.data) if old else 0))
        own = queue.ranks(entry.free)
        mine = dict(own)[transaction.nonce]
        others = (pair for pair in lane.lowest() if pair[1] != transaction.sender)
        dropped: dict[PublicKey, int] = {}
        for lowest, sender in merge(others, [(own[-1][1], transaction.sender)]):
            if lowest > mine or (count <= 0 and size <= 0):
                break
            is_own = sender == transaction.sender
            waiting = queue if is_own else self._queues[sender]
            for nonce, rank in reversed(waiting.ranks(entry.free)):
                last = nonce == transaction.nonce if is_own else rank >= mine
                if last or (count <= 0 and size <= 0):
                    break
                dropped[sender] = nonce
                count, size = count - 1, size - len(waiting.entries[nonce].data)
        if count > 0 or size > 0:
            raise Invalid(Reason.MEMPOOL_FULL)
        return dropped

    # --- out

    def candidates(self) -> list[bytes]:
        """What may go into the next block, best first, each after what its sender sent before.

        Within its part of the block, what needs no fee comes before what pays.
        """
        offered: list[Waiting] = []
        queues = self._queues.copy()  # at once, as another thread may change it
        turns = {sender: deque(queue.in_turn()) for sender, queue in queues.items()}
        _take(turns, offered, FREE_BLOCK_BYTES, lambda entry: entry.rank if entry.free else None)
        _take(turns, offered, OFFERED_BYTES, lambda entry: entry.rate)
        return [entry.data for entry in offered]

    def settle(
        self, rows: Rows | State, height: int, included: Mapping[bytes, PublicKey] | None = None
    ) -> None:
        """Drop what no longer waits after a block: what was included, is late, or cannot apply now.

        `rows`: the state after the head, `height`: that of the block after it, `included`: the
        signed transactions of the block, or of several, with their senders.
        """
        touched = dict.fromkeys((included or {}).values())
        for sender, queue in self._queues.items():
            if any(each.transaction.valid_until < height for each in queue.entries.values()):
                touched[sender] = None
        touched.update(dict.fromkeys(islice(self._queues, TRIED_AGAIN)))
        state, place = State(rows), Place(self._params, self._chain, height)
        for sender in touched:
            if sender in self._queues:
                self._put(sender, _renewed(state, place, sender, self._queues[sender]))
        self._checked.remember(included or ())

    def _put(self, sender: PublicKey, queue: Queue) -> None:
        """Have these of a sender wait, and no others."""
        for entry in self._queues.pop(sender, Queue()).entries.values():
            del self._entries[entry.id]
            if isinstance(entry.transaction.payload, Evidence):
                del self._accused[entry.transaction.payload.offender]
        for entry in queue.entries.values():
            self._entries[entry.id] = entry
            if isinstance(entry.transaction.payload, Evidence):
                self._accused[entry.transaction.payload.offender] = entry.id
        if queue.entries:
            self._queues[sender] = queue
        for lane in self._lanes.values():
            lane.update(sender, queue)


def _stake_behind(state: State, entry: Waiting) -> int:
    """The rank of what needs no fee."""
    if isinstance(entry.transaction.payload, Evidence):
        return MAX_INTEGER
    pool = pool_of(state, entry.transaction.sender)
    row = state.get(POOLS, pool) if pool else None
    return row.stake if row else 0


def _check_all(state: State, place: Place, queue: Queue, entry: Waiting) -> None:
    """Whether a transaction applies after what is before it, and then what is behind it.

    Raises Invalid as `ledger.transactions.apply_transaction` does.
    """
    for each, error in _tried(state, place, queue):
        if error and each.transaction.nonce >= entry.transaction.nonce:
            raise error


def _renewed(state: State, place: Place, sender: PublicKey, queue: Queue) -> Queue:
    """What still waits of a queue."""
    due = account_of(state, sender).nonce
    later = {nonce: entry for nonce, entry in queue.entries.items() if nonce >= due}
    tried = _tried(state, place, Queue(due, later))
    return Queue(due, {each.transaction.nonce: each for each, error in tried if not error})


def _tried(state: State, place: Place, queue: Queue) -> Iterator[tuple[Waiting, Invalid | None]]:
    """Why each of a queue, after those before it that apply, does not apply, or None.

    What is missing between them is taken for something without effect.
    """
    draft = State(state)
    for nonce, entry in sorted(queue.entries.items()):
        sender = entry.transaction.sender
        draft.put(ACCOUNTS, sender, replace(account_of(draft, sender), nonce=nonce))
        try:
            apply_transaction(draft, place, entry.signed, len(entry.data))
        except Invalid as error:
            yield entry, error
        else:
            yield entry, None


def _take(
    turns: Mapping[PublicKey, deque[Waiting]],
    offered: list[Waiting],
    room: int,
    order: Callable[[Waiting], int | None],
) -> None:
    """Take the next of the sender whose next is highest, while there are bytes left for it.

    A sender whose next has no place in the order waits.
    """

    def item(entry: Waiting) -> tuple[int, Hash, PublicKey]:
        return -(order(entry) or 0), entry.id, entry.transaction.sender

    heap = [item(turn[0]) for turn in turns.values() if turn and order(turn[0]) is not None]
    heapify(heap)
    while heap:
        turn = turns[heap[0][2]]
        if len(turn[0].data) > room:
            heappop(heap)
            continue
        room -= len(turn[0].data)
        offered.append(turn.popleft())
        if turn and order(turn[0]) is not None:
            heapreplace(heap, item(turn[0]))
        else:
            heappop(heap)
