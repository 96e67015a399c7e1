"""Says this node's weights to the ledger: commits to vectors, reveals them when that is due.

* A vector is on disk, with its salt, before its commitment is sent: a node that is killed between
  the two transactions reveals the same row when it is back.
* It is revealed only when the block that ended the tempo of its commitment is final, as otherwise
  others could still commit to it in that tempo (ledger/weights.py).
* What was not revealed in time is let go with a word; the ledger has dropped its row.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import trio

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.neurons import neuron_of
from ledger.payloads import CommitWeights, SetRootWeights, SetWeights
from ledger.stakes import pool_of
from ledger.state import State
from ledger.subnets import subnet_of
from ledger.tables import COMMITS, ROOT_WEIGHTS, WEIGHTS, Commit, uid_key
from ledger.types import Hash, PublicKey
from ledger.vectors import max_upscale
from p2p import vectors
from p2p.home import Home
from p2p.node.follow import Follow
from p2p.node.journal import problem_of
from p2p.vectors import Kept, Seat, reveal_of, vector_bytes

log = logging.getLogger("yuma.weights")

ROOT_RENEWALS: Final = 2
"""Root weights are said again when so many-th of their time is over."""
UNITS: Final = 10_000
"""Of a root weight as the settings have it: four decimals."""


@dataclass
class Weigher:
    """The vectors of one node, of all subnets that it judges."""

    home: Home
    pair: KeyPair
    follow: Follow
    root: Mapping[int, int] = field(default_factory=dict)
    """How it would share emission among subnets, by netuid."""
    _sent: dict[str, Hash] = field(default_factory=dict)
    """The reveals under way, by the hash of the commitment."""
    _root_sent: Hash | None = None
    _said: frozenset[str] = frozenset()
    """What was wrong at the last head."""

    async def commit(self, netuid: int, vector: Sequence[tuple[int, int]]) -> None:
        """Commit to weights by uid, or set them where the subnet takes no commitments.

        Raises Invalid, as `ledger.weights` does; OSError.
        """
        with self.follow.snapshot() as disk:
            settings = subnet_of(State(disk), netuid).hyperparameters
            uid, neuron = neuron_of(State(disk), netuid, self._pool(State(disk)))
            height = disk.head.height
        places, values = [uid for uid, _ in vector], [value for _, value in vector]
        version = settings.weights_version
        if not settings.commit_reveal:
            await self.follow.pool.say(SetWeights(netuid, *vector_bytes(places, values), version))
            return
        tempos = (settings.reveal_tempos + 1) * settings.tempo
        kept = vectors.draw_up(
            Seat(self.follow.chain, netuid, self.pair.peer_id, uid, neuron.registered),
            places,
            values,
            version=version,
            last=height + self.follow.params.validity + tempos,
        )
        await trio.to_thread.run_sync(vectors.keep, self.home, kept)
        try:
            await self.follow.pool.say(CommitWeights(netuid, Hash(bytes.fromhex(kept.hash))))
        except Invalid:
            vectors.forget(self.home, kept)
            raise

    def _pool(self, state: State) -> PublicKey:
        pool = pool_of(state, self.pair.public)
        if pool is None:
            raise Invalid(Reason.NO_HOTKEY)
        return pool

    async def tend(self, *, reveals: bool) -> None:
        """Renew root weights, and reveal what can be revealed now; to be called at every head.

        What is wrong with one vector is said once, and keeps no other back.
        """
        found = vectors.paths(self.home) if reveals else []
        due: list[Callable[[], Awaitable[None]]] = [partial(self._tend, path) for path in found]
        problems = set()
        for work in (*due, self._renew_root):
            try:
                await work()
            except (Invalid, OSError) as error:
                problems.add(problem_of(error))
            except vectors.Damaged as error:
                problems.add(str(error))
        for text in sorted(problems - self._said):
            log.warning("weights: %s", text)
        self._said = frozenset(problems)

    async def _tend(self, path: Path) -> None:
        """See to one vector. Raises Invalid, OSError, Damaged."""
        kept = vectors.read(path)
        if kept.hotkey != self.pair.peer_id:
            return
        with self.follow.snapshot() as disk:
            height = disk.head.height
            window = self._window(State(disk), kept)
        if window is None:
            self._let_go(kept, height)
            return
        opens, commit = window
        if not kept.committed:
            kept = replace(kept, committed=commit.committed, last=commit.closes)
            await trio.to_thread.run_sync(vectors.keep, self.home, kept)
        if height >= opens and not self._is_waiting(self._sent.get(kept.hash)):
            self._sent[kept.hash] = await self.follow.pool.say(reveal_of(kept))

    def _window(self, state: State, kept: Kept) -> tuple[int, Commit] | None:
        """A commitment, and the height from which on it can be revealed; None if it is not there,
        not yet or no longer."""
        try:
            uid, _ = neuron_of(state, kept.netuid, self._pool(state))
        except Invalid:
            return None
        rows = state.rows(COMMITS, uid_key(kept.netuid, uid))
        found = ((int.from_bytes(key[4:]), row) for key, row in rows if row.hash.hex() == kept.hash)
        return next(found, None)

    def _let_go(self, kept: Kept, height: int) -> None:
        """Forget a vector whose commitment has gone, or never came. Raises OSError."""
        if not kept.committed and height <= kept.last:
            return
        vectors.forget(self.home, kept)
        self._sent.pop(kept.hash, None)
        if not self._is_revealed(kept):
            log.warning("weights of subnet %d were not revealed in time", kept.netuid)

    def _is_revealed(self, kept: Kept) -> bool:
        """Whether the ledger has the row of a commitment, or a later one."""
        with self.follow.snapshot() as disk:
            state = State(disk)
            try:
                uid, _ = neuron_of(state, kept.netuid, self._pool(state))
            except Invalid:
                return False
            row = state.get(WEIGHTS, uid_key(kept.netuid, uid))
        return row is not None and 0 < kept.committed <= row.committed

    def _is_waiting(self, sent: Hash | None) -> bool:
        return sent is not None and self.follow.mempool.get(sent) is not None

    async def _renew_root(self) -> None:
        """Say how emission should be shared, where that is not what the ledger has."""
        if not self.root:
            return
        netuids, values = vector_bytes(list(self.root), max_upscale(list(self.root.values())))
        with self.follow.snapshot() as disk:
            pool, height = self._pool(State(disk)), disk.head.height
            last = State(disk).get(ROOT_WEIGHTS, pool)
        renewal = self.follow.params.root_cutoff // ROOT_RENEWALS
        fresh = last is not None and height - last.updated < renewal
        said = fresh and last is not None and (last.netuids, last.values) == (netuids, values)
        if not said and not self._is_waiting(self._root_sent):
            self._root_sent = await self.follow.pool.say(SetRootWeights(netuids, values))


def root_of(shares: Sequence[str]) -> dict[int, int]:
    """The root weights that settings such as 1=0.5 name, by netuid."""
    parts = sorted((int(netuid), weight) for netuid, weight in (each.split("=") for each in shares))
    return {netuid: round(float(weight) * UNITS) for netuid, weight in parts}
