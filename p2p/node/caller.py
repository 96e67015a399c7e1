"""Putting a query to a server, under a key: the node's own, or one that nobody knows."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from ledger.errors import Invalid
from ledger.keys import KeyPair, PeerId
from ledger.types import ChainId, Hash
from models.pipe import Part
from models.types import Kind, Query, Receipt, Sampling, Tensor, input_hash
from p2p.net.host import DialError, Host, NotConnected
from p2p.net.links import Answers, Links, Pays
from p2p.net.protocols import PEERS, STATUS, Protocol, Records, Status
from p2p.net.streams import Frames
from p2p.node.attempt import Broken, Evidence, Progress, Tell, check, listen, settle

NONCE_BYTES = 16
GREET_S = 5.0


@dataclass(frozen=True)
class Line:
    """Both directions of a stepwise query."""

    events: Answers
    choose: Callable[[int, bytes], Awaitable[None]]
    """Says which token is taken in a request, by its number; none: it is over."""


@dataclass(frozen=True)
class Caller:
    """Whoever asks, by its key and its connections."""

    pair: KeyPair
    chain: ChainId
    host: Host
    links: Links
    addresses: Callable[[PeerId], Sequence[str]]
    """Where a peer is said to be."""

    async def exchange(
        self,
        server: PeerId,
        query: Query,
        data: bytes,
        progress: Progress,
        tell: Tell,
        payment: Pays | None = None,
    ) -> tuple[Receipt, list[Part]]:
        """What a server answers, as `attempt.listen` gives it. Raises Broken, Invalid.

        Where a paid one is cancelled, what was on the way is counted into `progress`.
        """
        events: Answers | None = None
        try:
            await self._connect(server)
            async with self.links.ask(server, query, data, payment) as events:
                return await listen(events, query, progress, tell)
        except trio.Cancelled:
            if events is not None and payment is not None:
                settle(events, query, progress)
            raise
        except (NotConnected, DialError, trio.TooSlowError) as error:
            raise Broken(f"cannot be reached ({error or 'no answer in time'})") from None
        except (Broken, Invalid):
            raise
        except Exception as error:  # the library's own, when a stream breaks under us
            raise Broken(f"its stream broke ({error!r})") from error

    @asynccontextmanager
    async def step_by_step(
        self, server: PeerId, query: Query, data: bytes, payment: Pays | None = None
    ) -> AsyncIterator[Line]:
        """A stepwise query as a conversation; where it is paid, what was on the way when it was
        left is among the events then. Raises NotConnected, DialError, TooSlowError, or an error of
        the library's."""
        await self._connect(server)
        async with self.links.ask(server, query, data, payment) as events:
            yield Line(events, partial(self.links.choose, server))

    async def _connect(self, server: PeerId) -> None:
        if not self.links.reach(server) and not self.host.is_connected(server):
            await self.host.dial(server, self.addresses(server))

    async def ask(self, server: PeerId, query: Query, data: bytes) -> Evidence:
        """The whole answer to a query, checked. Raises Broken, Lied, Invalid."""
        progress = Progress()
        receipt, _ = await self.exchange(server, query, data, progress, _keep)
        await check(server, receipt, query, data, progress)
        output, trace = bytes(progress.output), bytes(progress.trace)
        return Evidence(query, data, output, receipt, progress.parts, trace)

    def query(
        self,
        model: Hash,
        kind: Kind,
        data: bytes,
        nonce: bytes,
        *,
        time_limit_ms: int,
        tensor: tuple[Tensor, ...] = (),
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    ) -> Query:
        """A query of this caller from the first token on."""
        return Query(
            chain=self.chain,
            asker=self.pair.public,
            nonce=nonce,
            model=model,
            kind=kind,
            input_hash=input_hash(data),
            input_size=len(data),
            tensor=tensor,
            sampling=sampling,
            prefix=b"",
            time_limit_ms=time_limit_ms,
        )


async def _keep(_part: Part) -> None:
    """Nobody waits for parts: the whole counts."""


@dataclass(frozen=True)
class Greeting:
    """What a node says to whoever it meets."""

    status: Callable[[], Status]
    records: Callable[[], Records]


@asynccontextmanager
async def stranger(
    chain: ChainId, greeting: Greeting, addresses: Callable[[PeerId], Sequence[str]]
) -> AsyncIterator[Caller]:
    """A caller under a new key, which greets as a node does and takes part in nothing else."""
    pair = KeyPair.generate()
    host = Host(pair, ())
    links = Links(host)
    host.handle(STATUS.id, partial(_greet, STATUS, greeting.status))
    host.handle(PEERS.id, partial(_greet, PEERS, greeting.records))
    async with host.run(), trio.open_nursery() as nursery:
        await nursery.start(links.run)
        yield Caller(pair, chain, host, links, addresses)
        nursery.cancel_scope.cancel()


async def _greet(protocol: Protocol, answer: Callable[[], Status | Records], stream: Any) -> None:
    frames = Frames(stream, receives=protocol.request, sends=protocol.response)
    with trio.fail_after(GREET_S):
        await frames.receive()
        await frames.send(answer())
    await frames.close()
