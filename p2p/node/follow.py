"""What follows the chain: agreement and the ledger in a worker thread, the network around them.

* One step at a time: what was heard goes to the worker in batches, what it says comes back here.
* The worker alone waits for the disk and executes blocks; the event loop does neither.
* Where the disk fails this node votes no more (fail-stop); the rest of the daemon goes on.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from time import time
from typing import Any, Final

import trio

from consensus.driver import (
    Accuse,
    Behind,
    Failed,
    Foreign,
    Moment,
    Output,
    Say,
    Want,
)
from consensus.replica import Checkpoint, Replica, Standing
from gossip.pubsub import Gossip
from gossip.topics import BLOCKS, MAX_WHOLE_BYTES, VOTES, Announcement, Topic, announce
from gossip.validation import (
    Ahead,
    Ignore,
    Reject,
    Seen,
    accountable,
    has_say,
    validate_ballot,
    validate_certificate,
    validate_proposal,
)
from ledger.blocks import Block
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair, PeerId, peer_id_of
from ledger.mempool import Mempool
from ledger.params import Params
from ledger.payloads import Evidence, Heartbeat
from ledger.snapshot import Head, Snapshot
from ledger.stakes import heartbeat_is_due
from ledger.state import State
from ledger.types import ChainId, Hash, Height, PublicKey
from ledger.votes import Ballot, Message, Proposal, proposal_vote
from p2p.net.host import Host
from p2p.node.chain import Chain
from p2p.node.chain_server import ChainServer
from p2p.node.core import Core, Step
from p2p.node.fetch import Blame, Fetch
from p2p.node.inbox import Inbox
from p2p.node.pool import Pool
from p2p.node.ranges import Part
from p2p.node.requests import Requests
from p2p.node.state_server import StateServer
from p2p.node.sync import Sync

log = logging.getLogger("yuma.follow")

SILENT_BLOCKS: Final = 10
"""Without a block for the time of so many, something is wrong."""
BUSY_S: Final = 0.5
"""Before a step is tried again that could not read the ledger, as too many others do."""
MAX_SAID: Final = 16
"""What this node said last, so that its own words are not taken for a double's."""
MAX_EARLY: Final = 64
"""Announcements of the next height that are kept until it is being decided: one of a leader, at
most 3 MB."""
EARLY: Final = 2
"""Heights ahead of which agreement keeps messages; of those beyond it is a hint only."""


class Follow:
    """The chain, as this node follows it."""

    def __init__(
        self,
        chain: Chain,
        pair: KeyPair,
        host: Host,
        gossip: Gossip,
        claimed: Callable[[PeerId], int],
        blame: Blame,
        *,
        checkpoint: Checkpoint | None = None,
        snapshots: bool = True,
    ) -> None:
        """`claimed`: the height that a peer says it has; `snapshots`: whether to write some.

        Raises Invalid CORRUPT, OSError.
        """
        genesis, store = self.genesis, self.store = chain.genesis, chain.store
        self.mempool = Mempool(genesis.params, genesis.chain)
        """Belongs to the event loop: look at it freely there."""
        self.pool = Pool(pair, store, self.mempool, gossip, lambda: self.standing)
        requests = Requests()
        self.server = ChainServer(store, self.mempool, requests, self._undecided)
        self.states = StateServer(
            store, genesis.params, chain.snapshots, requests, writes=snapshots
        )
        self.sync = Sync(host, lambda: self.head.height, self._take_part, claimed, blame)
        self._fetch = Fetch(host, gossip, blame, lambda: self.standing.height, self.server.proposed)
        self._pair, self._gossip = pair, gossip
        replica = Replica(
            store, genesis.params, pair, self._candidates, self.mempool.known, checkpoint
        )
        self.core = Core(replica, chain.wal, pair)
        self.head: Head = replica.head
        self.standing: Standing = replica.standing
        self.view = 0
        """That of the height being decided."""
        self.voting = False
        """Whether this node votes on it."""
        self.stopped = ""
        """Why this node no longer follows the chain; empty while it does."""
        self.moved_at = trio.current_time()
        """When the head moved last, or this node began (trio's clock)."""
        self.votes_said = 0
        self.blocks_proposed = 0
        self._seen = Seen()
        self._said: deque[bytes] = deque(maxlen=MAX_SAID)
        self._inbox = Inbox()
        self._early: OrderedDict[PublicKey, Announcement] = OrderedDict()
        self._deadline = 0
        self._turn = trio.Lock()
        self._worker = trio.CapacityLimiter(1)
        self._nursery: trio.Nursery | None = None
        self._heartbeat: Hash | None = None
        self._moved = trio.Event()

    # --- what others read

    @property
    def chain(self) -> ChainId:
        """The network."""
        return self.standing.chain

    @property
    def params(self) -> Params:
        """The network's constants."""
        return self.genesis.params

    @property
    def best(self) -> int:
        """The highest height that was heard of."""
        return max(self.sync.best, self.head.height)

    @property
    def syncing(self) -> bool:
        """Whether blocks are being fetched that others have decided."""
        return self.sync.progress is not None

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """The ledger now, for a short read on the event loop."""
        return self.store.snapshot()

    def next_nonce(self, key: PublicKey) -> int:
        """The nonce of a key's next transaction, those that wait counted."""
        return self.pool.next_nonce(key)

    async def submit(self, data: bytes) -> Hash:
        """Have a signed transaction wait for the next blocks, and tell everyone; its id.

        Raises Invalid.
        """
        return await self.pool.submit(data)

    async def wait_final(self, name: Hash, timeout_s: float) -> Height | None:
        """The height of the block that has a transaction; None if there is none in that time."""
        return await self.pool.wait_final(name, timeout_s)

    async def head_after(self, height: int) -> Head:
        """The head, once it is higher than that."""
        while self.head.height <= height:
            await self._moved.wait()
        return self.head

    # --- running

    def attach(self) -> None:
        """Take in what is said on the ledger's topics."""
        self._gossip.handle(BLOCKS, self._hear_block, doubles=True)
        self._gossip.handle(VOTES, self._hear_vote, doubles=True)
        self.pool.attach()

    async def run(self) -> None:
        """Follow the chain until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._drive)
                nursery.start_soon(self.pool.run)
                nursery.start_soon(self.sync.run)
                nursery.start_soon(self.sync.watch, SILENT_BLOCKS * self.params.block_ms / 1000)
        finally:
            self._nursery = None

    async def _drive(self) -> None:
        """Give the worker what was heard, and a turn when one is due."""
        await self._step(self.core.begin)
        while not self.stopped:
            with trio.move_on_at(self._deadline / 1000):
                await self._inbox.wait()
            await self._step(self.core.hear, self._inbox.take())

    async def _take_part(self, part: Part) -> Invalid | None:
        """Take decided blocks; why not all of them, if so."""
        step = await self._step(self.core.take, part.answer.blocks, part.answer.certificate)
        return step.wrong if step else None

    async def _step(self, work: Callable[..., Step], *arguments: Any) -> Step | None:
        """One step of the worker, and what follows from it here. None when it has stopped."""
        async with self._turn:
            while not self.stopped:
                try:
                    step = await self._work(work, *arguments)
                    await self._act(step)
                except (Failed, Invalid, OSError) as error:
                    cause = error.__cause__ or error
                    if not (isinstance(cause, Invalid) and cause.reason == Reason.LEDGER_LOCKED):
                        self._stop(cause)
                        return None
                    log.warning("a step is tried again: %s", cause)
                else:
                    return step
                await trio.sleep(BUSY_S)
        return None

    async def _work(self, work: Callable[..., Step], *arguments: Any) -> Step:
        now = Moment(round(trio.current_time() * 1000), round(time() * 1000))
        return await trio.to_thread.run_sync(work, *arguments, now, limiter=self._worker)

    async def _undecided(self, name: Hash) -> Block | None:
        return await trio.to_thread.run_sync(self.core.block, name, limiter=self._worker)

    def _stop(self, error: BaseException) -> None:
        self.stopped = str(error)
        self.voting = False
        log.error("this node votes and follows the chain no more: %s", error)
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    def _candidates(self) -> list[bytes]:
        """What may go into a block; called in the worker."""
        found: list[bytes] = trio.from_thread.run_sync(self.mempool.candidates)
        return found

    async def _act(self, step: Step) -> None:
        """Show what the worker has come to, and do what it asks for."""
        before = self.head.height
        moved = step.head.height > before
        if moved:
            self.pool.settle(step.included)
        self.head, self.standing = step.head, step.standing
        self.view, self.voting, self._deadline = step.view, step.voting, step.deadline
        for output in step.outputs:
            await self._do(output)
        if moved:
            await self._head_moved(before)

    async def _head_moved(self, before: int) -> None:
        self.moved_at = trio.current_time()
        self.sync.moved()
        self._moved.set()
        self._moved = trio.Event()
        if self._nursery and self.states.is_due(self.head.height, before) and not self.syncing:
            self._nursery.start_soon(self.states.write)
        early, self._early = self._early, OrderedDict()
        for author, said in early.items():
            with suppress(Ignore, Reject, Invalid):
                self._proposed(author, said)
        await self._beat()

    async def _do(self, output: Output) -> None:
        match output:
            case Say(message):
                await self._say(message)
            case Want(name, height):
                assert self._nursery is not None
                self._fetch.wanted(self._nursery, name, self._fetched(lambda block: block))
            case Behind(height):
                self.sync.heard(height - 1)
            case Accuse(evidence):
                log.warning(
                    "reporting %s: two votes of which one is false", peer_id_of(evidence.offender)
                )
                await self._submit_own(evidence)
            case Foreign():
                log.error("another node votes with this node's key: this one votes no more")

    async def _say(self, message: Message) -> None:
        if not isinstance(message, Proposal):
            self.votes_said += isinstance(message, Ballot)
            self._said.append(VOTES.pack(message))
            await self._gossip.publish(VOTES, self._said[-1], urgent=True)
            return
        self.blocks_proposed += 1
        body = BLOCKS.pack(message)
        if len(body) > MAX_WHOLE_BYTES:
            self.server.offer(message.block)
            body = BLOCKS.pack(announce(message))
        self._said.append(body)
        await self._gossip.publish(BLOCKS, body, urgent=True)

    async def _submit_own(self, payload: Evidence | Heartbeat) -> Hash | None:
        try:
            return await self.pool.say(payload)
        except Invalid as error:
            log.debug("%s is not taken: %s", type(payload).__name__, error)
            return None

    async def _beat(self) -> None:
        """Say once an epoch that this node is there, if it may vote.

        Not after it left, or was jailed: its owner begins again with a first heartbeat.
        """
        height = self.head.height + 1
        if self._heartbeat is not None and self.mempool.get(self._heartbeat) is not None:
            return
        with self.store.snapshot() as disk:
            due = heartbeat_is_due(State(disk), self.params, self._pair.public, height)
        if due:
            self._heartbeat = await self._submit_own(Heartbeat())

    # --- hearing

    def _hear_block(self, author: PublicKey, data: bytes) -> None:
        """Take in a proposal from the topic. Raises Ignore, Reject, Invalid."""
        if self._is_own(author, data):
            return
        self._check_time(BLOCKS, author)
        self._proposed(author, BLOCKS.unpack(data))

    def _proposed(self, author: PublicKey, said: Proposal | Announcement) -> None:
        """Give the core a proposal, or fetch its block. Raises Ignore, Reject."""
        try:
            now = trio.current_time()
            first = validate_proposal(self._seen, self.standing, self.view, said, author, now)
        except Ahead as ahead:
            if self._is_early(ahead, author):
                self._keep(author, said)
            raise
        if isinstance(said, Proposal):
            self._inbox.put(said)
            if first:
                self.server.offer(said.block)
            return
        claim = proposal_vote(said.header.height, said.view, said.block)
        self._inbox.put(Ballot(claim, said.leader, said.signature))  # it may convict the leader
        if first and author != self._pair.public and self._nursery is not None:
            self._fetch.announced(self._nursery, said, self._fetched(said.of))

    def _keep(self, author: PublicKey, said: Proposal | Announcement) -> None:
        """Have a proposal of the next heights for later."""
        if isinstance(said, Proposal):
            self._inbox.put(said)
            return
        self._early.pop(author, None)
        self._early[author] = said
        if len(self._early) > MAX_EARLY:
            self._early.popitem(last=False)

    def _hear_vote(self, author: PublicKey, data: bytes) -> None:
        """Take in a vote or a certificate from the topic. Raises Ignore, Reject, Invalid."""
        if self._is_own(author, data):
            return
        self._check_time(VOTES, author)
        said, now = VOTES.unpack(data), trio.current_time()
        rule = validate_ballot if isinstance(said, Ballot) else validate_certificate
        try:
            rule(self._seen, self.standing, said, author, now)
        except Ahead as ahead:
            if self._is_early(ahead, author):
                self._inbox.put(said)
            raise
        self._inbox.put(said)

    def _is_own(self, author: PublicKey, data: bytes) -> bool:
        """Whether this node has said that; another of its key says something else."""
        return author == self._pair.public and data in self._said

    def _check_time(self, topic: Topic, author: PublicKey) -> None:
        # [IGNORE] This node follows the chain: not yet, or no more, it does not.
        if self._nursery is None:
            raise Ignore("the chain is not followed here now")
        # [IGNORE] The author is within the topic's rate; those who have no say are one.
        author = accountable(self.standing, author)
        if not self._seen.author_may_speak(topic, author, trio.current_time()):
            raise Ignore("an author who says too much")

    def _is_early(self, ahead: Ahead, author: PublicKey) -> bool:
        """Whether what is ahead should be kept: it is near, and of somebody who has a say now."""
        self.sync.heard(ahead.height - 1)
        return has_say(self.standing, author) and ahead.height <= self.standing.height + EARLY

    # --- fetching

    def _fetched(self, made: Callable[[Block], Message | Block]) -> Callable[[Block], None]:
        """What takes in a block that was fetched, and gives the core what is made of it."""

        def take(block: Block) -> None:
            self.server.offer(block)
            self._inbox.put(made(block))

        return take
