"""What a client asks of the swarm, what it is told as the answer comes, and what comes of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ledger.keys import PeerId
from ledger.types import Hash
from models.pipe import Part
from models.types import Kind, Sampling, Tensor
from p2p.node.attempt import Evidence


class NoServer(Exception):  # noqa: N818 - a fact about the swarm
    """Nobody can answer. `hint` says what to do."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class Unpaid(NoServer):
    """Those who could answer want to be paid, more than this node may pay. `price`: rao per 1000
    output tokens (or per tensor), of the cheapest."""

    def __init__(self, text: str, hint: str, price: int) -> None:
        super().__init__(text, hint)
        self.price = price


@dataclass(frozen=True)
class Request:
    """What a client wants. `peer` fixes the server."""

    model: str
    data: bytes
    kind: Kind = Kind.TEXT
    tensor: tuple[Tensor, ...] = ()
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    time_limit_ms: int = 120_000
    peer: PeerId | None = None
    most: int | None = None
    """The most rao it may cost; None: what the node's own budget allows."""
    price_limit: int | None = None
    """The most rao per 1000 output tokens that are agreed to; None: the node's own limit."""
    verify: int = 0
    """How many others are to check the answer (`verifier.py`)."""


@dataclass(frozen=True)
class Asked:
    """The answer will come from this server."""

    server: PeerId


@dataclass(frozen=True)
class Opening:
    """Before it is asked, so many rao are locked in a channel to this server: some blocks long."""

    server: PeerId
    amount: int


@dataclass(frozen=True)
class Resumed:
    """The server broke off; another goes on after so many tokens."""

    server: PeerId
    after: int
    reason: str


@dataclass(frozen=True)
class Answer:
    """A whole answer. Seconds are the asker's."""

    server: PeerId
    evidence: Evidence
    tokens: int
    """Of the whole answer, whoever made them."""
    first_s: float
    total_s: float
    cost: int = 0
    """Rao paid for it."""
    channel: Hash | None = None
    """The channel that it was paid from."""
    unchecked: str = ""
    """Why it was not checked by as many as was asked for."""


@dataclass
class Used:
    """What an answer has taken so far, also one that breaks off or that nobody wants any more."""

    tokens: int = 0
    """That servers made."""
    rao: int = 0
    """Paid for it."""


Told = Asked | Opening | Resumed | Part
Tell = Callable[[Told], Awaitable[None]]
