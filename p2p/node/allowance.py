"""Who may ask this node's models, and how much: its connection says who it is, for its peer id is
its hotkey.

* Who has a validator's permit in a subnet that is mined here has a part of what all validators may
  ask, by its stake, and no less than anyone has free.
* Everybody else has the free requests, which share the seats of a model (`seats.py`), if it has no
  price or is mined; what is paid for is not counted here (`till.py`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gossip.validation import Bucket
from ledger.errors import Invalid, Reason
from ledger.keys import PeerId, public_key_of
from ledger.neurons import neurons, permits
from ledger.pools import pool_at
from ledger.state import State
from ledger.tables import SUBNETS, netuid_key
from ledger.types import PublicKey
from models.turns import Lane
from models.types import Query
from p2p.node.follow import Follow
from p2p.node.till import price_text

MINUTE_S: Final = 60.0
MAX_ASKERS: Final = 4096
"""Whose use is remembered."""


@dataclass
class Allowance:
    """What each asker has left. `validators`: the stake (rao) of those with a permit here."""

    free: int
    shared: int
    """Requests a minute: of each asker, and of all validators together."""
    validators: Callable[[], Mapping[PublicKey, int]]
    clock: Callable[[], float]
    _buckets: OrderedDict[PublicKey, Bucket] = field(default_factory=OrderedDict)

    def admit(self, asker: PeerId, query: Query, price: int = 0, *, mined: bool = False) -> Lane:
        """Count a request in that is not paid for, of a model with a price, which may be mined; in
        which lane it waits. Raises Invalid: BAD_REQUEST, UNPAID, BUSY.

        Validators ask for nothing, also under keys that nobody knows: so does everybody where a
        model is mined.
        """
        key = key_of(asker, query)
        stakes = self.validators()
        if price and not mined and key not in stakes:
            raise Invalid(Reason.UNPAID, price_text(price))
        allowed = max(self.free, self.shared * stakes.get(key, 0) // max(1, sum(stakes.values())))
        if not self._bucket(key, allowed).take(self.clock()):
            raise Invalid(Reason.BUSY, f"you may ask {allowed} times a minute here")
        return Lane.OWN if key in stakes else Lane.FREE

    def _bucket(self, key: PublicKey, allowed: int) -> Bucket:
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = Bucket(0.0, allowed, allowed, self.clock())
        bucket.rate, bucket.burst = allowed / MINUTE_S, allowed
        self._buckets[key] = bucket
        while len(self._buckets) > MAX_ASKERS:
            self._buckets.popitem(last=False)
        return bucket


def key_of(asker: PeerId, query: Query) -> PublicKey:
    """Whose query it is: the connection's. Raises Invalid BAD_REQUEST."""
    key = public_key_of(asker)
    if query.asker != key:
        raise Invalid(Reason.BAD_REQUEST, "the query names another asker than its connection")
    return key


@dataclass
class Validators:
    """The stake of those who may judge what is mined here; read once for each block."""

    follow: Follow | None
    mined: Callable[[], set[int]]
    _found: Mapping[PublicKey, int] = field(default_factory=dict)
    _of: tuple[int, set[int]] | None = None

    def __call__(self) -> Mapping[PublicKey, int]:
        """By hotkey, in rao."""
        netuids = self.mined()
        if self.follow is None or not netuids:
            return {}
        if self._of != (self.follow.head.height, netuids):
            self._of = self.follow.head.height, netuids
            with self.follow.snapshot() as disk:
                self._found = stakes_of_validators(State(disk), netuids)
        return self._found


def stakes_of_validators(state: State, netuids: Iterable[int]) -> dict[PublicKey, int]:
    """The hotkeys with a permit in any of some subnets, and the rao staked on each."""
    stakes: dict[PublicKey, int] = {}
    for netuid in sorted(netuids):
        if state.get(SUBNETS, netuid_key(netuid)) is None:
            continue
        found = neurons(state, netuid)
        for uid in permits(state, netuid, found):
            pool = pool_at(state, found[uid].pool)
            stakes[PublicKey(pool.hotkey)] = pool.stake
    return stakes
