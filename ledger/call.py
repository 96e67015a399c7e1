"""What the function of a transaction is given besides its payload."""

from dataclasses import dataclass

from ledger.params import Params
from ledger.state import State
from ledger.types import ChainId, Hash, PublicKey


@dataclass(frozen=True)
class Place:
    """Where a transaction is applied: the network's constants and id, and the block's height."""

    params: Params
    chain: ChainId
    height: int


@dataclass(frozen=True)
class Call:
    """One transaction being applied: its own state, its place, who sent it, and its id."""

    state: State
    place: Place
    sender: PublicKey
    id: Hash

    @property
    def params(self) -> Params:
        """The network's constants."""
        return self.place.params

    @property
    def height(self) -> int:
        """The block's."""
        return self.place.height
