"""Messages of heights to come: kept for a while, so that who is a message behind need not ask.

Their signatures are good, but who may vote there is not known yet. Each signer has room of its own:
a flood evicts what its own key said before. Keys that have no vote now share a little room, as
anyone can make one.
"""

from collections import deque
from collections.abc import Container
from typing import Final

from ledger.types import PublicKey
from ledger.votes import Ballot, Proposal

AHEAD: Final = 2
"""Heights: who is further behind has to fetch blocks first, and hears these messages again."""
MAX_BALLOTS: Final = 12
"""Of one signer at one height: the votes of four views."""
MAX_PROPOSALS: Final = 1
"""Of one signer at one height: half a megabyte each."""
MAX_STRANGERS: Final = 8
"""Proposals at one height of keys that have no vote now: proposers need none."""

Message = Ballot | Proposal
_Room = tuple[int, type, PublicKey | None]


class Early:
    """What was said of heights to come, by height, kind and signer."""

    def __init__(self) -> None:
        self._rooms: dict[_Room, deque[Message]] = {}

    def add(self, height: int, message: Message, members: Container[PublicKey]) -> None:
        """Keep a message whose signature is good; `members` are those who have a vote now."""
        if isinstance(message, Proposal):
            member = message.leader in members
            signer = message.leader if member else None
            most = MAX_PROPOSALS if member else MAX_STRANGERS
        elif message.signer in members:
            signer, most = message.signer, MAX_BALLOTS
        else:
            return
        room = self._rooms.setdefault((height, type(message), signer), deque(maxlen=most))
        if message not in room:
            room.append(message)

    def take(self, height: int) -> list[Message]:
        """What was kept of a height; what was kept of lower ones is let go of."""
        due = [room for key, room in self._rooms.items() if key[0] == height]
        self._rooms = {key: room for key, room in self._rooms.items() if key[0] > height}
        return [message for room in due for message in room]
