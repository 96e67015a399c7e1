"""Gets models of peers into the store: who has one, its manifest, its chunks, a last check."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from ledger.errors import Invalid, Reason
from ledger.keys import PeerId
from ledger.types import Hash
from models.manifest import Manifest
from models.partial import Partial
from models.types import Kind
from p2p.net.discovery import Dht
from p2p.net.host import Host
from p2p.net.keeper import Keeper
from p2p.net.protocols import MODEL, Busy, GetManifest
from p2p.net.scopes import briefly
from p2p.node.chunks import BUSY_S, Chunks
from p2p.node.directory import Directory
from p2p.node.fetch import Blame, ask
from p2p.store import ModelStore, Stored

log = logging.getLogger("yuma.pull")

DIGEST_DIGITS: Final = 64
MANIFEST_S: Final = 10.0
"""For a manifest, the dial included."""
AT_ONCE: Final = 4
"""Peers asked for a manifest at once."""
MAX_CONNECTED: Final = 32
"""Peers that nobody says have the model, asked since they are connected."""
LOOK_AGAIN_S: Final = 30.0
"""Between two lookups in the DHT."""
TELL_EVERY_S: Final = 0.2


@dataclass(frozen=True)
class Begun:
    """A model is being pulled, and so many of its bytes were here before."""

    digest: str
    size: int
    here: int


@dataclass(frozen=True)
class Came:
    """How many bytes are here by now."""

    here: int


@dataclass(frozen=True)
class Dropped:
    """A peer that is asked no more."""

    peer: PeerId
    why: str


@dataclass(frozen=True)
class Pulled:
    """A model that is in the store now, and how many bytes each peer gave."""

    model: Stored
    sources: dict[PeerId, int]


Told = Begun | Came | Dropped
Tell = Callable[[Told], Awaitable[None]]


@dataclass
class Pulls:
    """The asking side of the model protocol."""

    store: ModelStore
    host: Host
    keeper: Keeper
    directory: Directory
    dht: Dht | None
    blame: Blame
    under_way: set[Hash] = field(default_factory=set)

    async def pull(self, reference: str, tell: Tell) -> Pulled:
        """Get a model by its name in the swarm, its digest, or the head of one that is served.

        Raises Invalid: NO_MODEL, BAD_MODEL, NO_ROOM, BUSY; OSError of the disk.
        """
        digest, name = self._meant(reference)
        found = await trio.to_thread.run_sync(self.store.find, digest.hex())
        if found is not None and found.is_whole:
            return Pulled(found, {})
        if digest in self.under_way:
            raise Invalid(Reason.BUSY, f"{reference} is being pulled already")
        one = _One(self, digest, tell)
        failure: Exception | None = None
        self.under_way.add(digest)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.look)
                nursery.start_soon(one.tell_on)
                try:
                    model = await one.run(name)
                except (Invalid, OSError) as error:  # raised within, it would be in a group
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            self.under_way.discard(digest)
        await one.tell_news()
        if failure is not None:
            raise failure
        return Pulled(model, one.sources)

    def _meant(self, reference: str) -> tuple[Hash, str]:
        """The model that is meant, and its name if it was meant by that."""
        servers = self.directory.of(reference)
        if any(one.served.kind == Kind.TENSOR for one in servers):
            detail = f"{reference} is a program, and those are never taken from peers"
            raise Invalid(Reason.BAD_MODEL, detail)
        if servers:
            served = servers[0].served
            return served.digest, reference if served.name == reference else ""
        try:
            digest = bytes.fromhex(reference)
        except ValueError:
            digest = b""
        if len(reference) != DIGEST_DIGITS or 2 * len(digest) != DIGEST_DIGITS:
            detail = f"nobody in the swarm serves a model named {reference!r:.120}"
            raise Invalid(Reason.NO_MODEL, f"{detail}; one that is only stored goes by its digest")
        return Hash(digest), ""


@dataclass
class _One:
    """One pull."""

    pulls: Pulls
    digest: Hash
    tell: Tell
    _provide: list[PeerId] = field(default_factory=list)
    """Who has it, by the DHT."""
    _looked: trio.Event = field(default_factory=trio.Event)
    """The DHT was asked once."""
    sources: dict[PeerId, int] = field(default_factory=dict)
    """Bytes that each peer gave."""
    _news: list[Told] = field(default_factory=list)
    _here: int = 0

    async def look(self) -> None:
        """Ask the DHT who has the model, now and again."""
        while True:
            if self.pulls.dht is not None:
                self._provide = await self.pulls.dht.providers(self.digest)
            self._looked.set()
            await trio.sleep(LOOK_AGAIN_S)

    def candidates(self) -> list[PeerId]:
        """Who may have it: who serves it, who is said to have it, and who is connected."""
        host = self.pulls.host
        serving = (one.peer for one in self.pulls.directory.of(self.digest.hex()))
        connected = sorted(host.peers())[:MAX_CONNECTED]
        found = dict.fromkeys((*serving, *self._provide, *connected))
        return [peer for peer in found if peer != host.peer_id and not host.is_banned(peer)]

    async def run(self, name: str) -> Stored:
        """Get it, and call it so. Raises as `Pulls.pull` does."""
        manifest = await self._manifest()
        if manifest is None:
            detail = f"nobody who can be reached has the model {self.digest.hex()}"
            raise Invalid(Reason.NO_MODEL, detail)
        partial = await trio.to_thread.run_sync(self.pulls.store.begin, manifest)
        try:
            await self._chunks(partial)
        finally:
            with briefly(60):  # what came stays, whatever ends this
                await trio.to_thread.run_sync(partial.close)
        return await trio.to_thread.run_sync(self.pulls.store.finish, partial, name)

    # --- its manifest

    async def _manifest(self) -> Manifest | None:
        """The manifest, from whoever gives it first."""
        asked: set[PeerId] = set()
        found = await self._ask_each(self.candidates(), asked)
        if found is None:
            await self._looked.wait()
            found = await self._ask_each(self.candidates(), asked)
        return found

    async def _ask_each(self, peers: Iterable[PeerId], asked: set[PeerId]) -> Manifest | None:
        found: list[Manifest] = []
        left = iter(peer for peer in peers if peer not in asked)

        async def ask_some(all_askers: trio.CancelScope) -> None:
            for peer in left:
                asked.add(peer)
                manifest = await self._ask(peer)
                if manifest is not None:
                    found.append(manifest)
                    all_askers.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(ask_some, nursery.cancel_scope)
        return found[0] if found else None

    async def _ask(self, peer: PeerId) -> Manifest | None:
        host = self.pulls.host
        try:
            with trio.fail_after(MANIFEST_S):
                if not host.is_connected(peer):
                    await host.dial(peer, self.pulls.keeper.addresses_of(peer))
                while (answer := await self._said(peer)) == Busy():  # noqa: ASYNC110 - time passes
                    await trio.sleep(BUSY_S)
        except Exception as error:  # a peer's stream may raise anything; others are asked
            log.debug("manifest of %s: %r", peer, error)
            return None
        if not isinstance(answer, Manifest):
            return None
        if answer.digest != self.digest:
            self.pulls.blame(peer, "it gave the manifest of another model")
            return None
        return answer

    async def _said(self, peer: PeerId) -> Any:
        return await ask(self.pulls.host, peer, MODEL, GetManifest(self.digest))

    # --- its chunks

    async def _chunks(self, partial: Partial) -> None:
        """Get what is missing, the weights last, and say how it goes.

        Raises Invalid: NO_MODEL, BAD_MODEL; OSError.
        """
        size = partial.manifest.size
        self._here = partial.here
        self._news.append(Begun(self.digest.hex(), size, self._here))
        chunks = Chunks(
            self.pulls.host, partial, self.candidates, self.pulls.keeper.addresses_of,
            self._came, self._dropped, self._wrong,
        )  # fmt: skip
        is_whole = await chunks.run(partial.small)
        if is_whole:
            await trio.to_thread.run_sync(self.pulls.store.check_small, partial)
            is_whole = await chunks.run(partial.missing - partial.small)
        if not is_whole:
            here = f"{self._here / 1e6:.0f} of {size / 1e6:.0f} MB are here"
            detail = f"nobody gives the rest of the model; {here}, and a pull goes on from there"
            raise Invalid(Reason.NO_MODEL, detail)

    def _came(self, peer: PeerId, size: int) -> None:
        self._here += size
        self.sources[peer] = self.sources.get(peer, 0) + size

    def _dropped(self, peer: PeerId, why: str) -> None:
        if peer in self.sources or peer in self._provide:
            log.info("%s is asked for the model no more: %s", peer, why)
            self._news.append(Dropped(peer, why))

    def _wrong(self, peer: PeerId, error: Invalid) -> None:
        self.sources.setdefault(peer, 0)
        self.pulls.blame(peer, f"it gave a wrong chunk of a model: {error.detail}")

    async def tell_on(self) -> None:
        """Say how it goes, now and again."""
        while True:
            await trio.sleep(TELL_EVERY_S)
            await self.tell_news()

    async def tell_news(self) -> None:
        """Say what has happened since, and how much is here."""
        while self._news:
            await self.tell(self._news.pop(0))
        if self._here:
            await self.tell(Came(self._here))
