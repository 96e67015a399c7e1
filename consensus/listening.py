"""What a node without a record of its votes waits for before it speaks.

It may have lost its disk, and what it said before: to say anything else would convict it. So it
speaks at a height only where it cannot have spoken, as the block before is younger than this node,
or it has seen that one decided; at the first, where nobody is further, as in a network that begins;
and elsewhere after a time in which a network that can do without it would have gone on.
"""

from typing import Final

from consensus.committee import Committee
from consensus.driver import Moment
from ledger.params import Params
from ledger.types import PublicKey

PATIENCE: Final = 20
"""Longest views at one height, after which the network seems to need this node: it joined, and had
its first vote while it was away. Twenty minutes on the main network."""


class Listening:
    """How long it has listened, and to what."""

    def __init__(self, params: Params, now: Moment) -> None:
        self._quiet = params.block_ms + params.drift_ms + params.view_ms + params.resend_ms
        """Voters that are heard at all are heard within it."""
        self._patience = PATIENCE * params.max_view_ms
        self._born = now.unix + params.drift_ms
        """A block of a later time was proposed when this node was there already."""
        self._spoken, self._alone_since = 0, now.steady
        self.restart(now)

    def restart(self, now: Moment) -> None:
        """This node was behind, or its key has spoken."""
        self._since = now.steady
        self.begin(now)

    def begin(self, now: Moment) -> None:
        """The next height begins."""
        self._begun = now.steady
        self._ahead: set[PublicKey] = set()

    def hear_ahead(self, signer: PublicKey, committee: Committee, now: Moment) -> None:
        """Somebody speaks of a height to come. More than can be Byzantine are truly there."""
        self._ahead.add(signer)
        members = [index for index, key in enumerate(committee.keys) if key in self._ahead]
        if committee.weight_of(members) > committee.total - committee.quorum:
            self.restart(now)

    def hear_self(self, height: int, now: Moment) -> None:
        """This node's key has spoken at a height: before, or through another node."""
        self._spoken = max(self._spoken, height)
        self._alone_since = now.steady
        self.restart(now)

    def is_level(self, height: int, now: Moment) -> bool:
        """Whether this node has long kept up with the others, and may speak from a height on that
        begins now."""
        return now.steady >= self._since + self._quiet and height > self._spoken

    def is_over(self, height: int, parent_time: int, now: Moment) -> bool:
        """Whether it has listened enough at a height, whose parent is of a Unix time in ms."""
        return now.steady >= self.due(height, parent_time)

    def due(self, height: int, parent_time: int) -> int:
        """When that is, on the steady clock."""
        if height > self._spoken and parent_time > self._born:
            return self._alone_since + self._quiet
        begins = height == 1 > self._spoken
        return self._since + self._quiet if begins else self._begun + self._patience
