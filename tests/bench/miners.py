"""Many miners in one process: for the bench of the validator that judges them.

    python -m tests.bench.miners DIR COUNT CORE

Each has a key, a host on a port of its own, the query protocol with its allowance, and receipts
under its own key, all as in a node; and says its presence to who asks, with that of the others. The
worker with the model they share, and they take no part in gossip: 64 whole nodes would want more
than a core for what they say to each other. DIR has the genesis. Says the worker's process and the
address of the first miner.
"""

import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import trio

from gossip.envelope import seal
from gossip.topics import PRESENCE, PeerRecord
from ledger.codec import hash_of
from ledger.genesis_file import read_genesis
from ledger.keys import KeyPair
from ledger.types import ChainId, Hash, Height
from p2p.config import Settings
from p2p.net.host import Host
from p2p.net.protocols import PEERS, QUERY, STATUS, Protocol, Records, Status
from p2p.net.streams import Frames
from p2p.node.allowance import Allowance
from p2p.node.miner import Miner
from p2p.node.mining import Mining
from p2p.node.queries import QueryServer
from tests.bench.common import LISTEN

NETUID = 1
MODEL = "docs-gpt"
HEAD = Height(0), Hash(bytes(32))
GREETING_S = 10.0


def pair_of(number: int) -> KeyPair:
    """The key of a miner, which the validator's process knows too."""
    return KeyPair.from_seed(hash_of("bench/miner", bytes([number])))


def unix_ms() -> int:
    """The time, in Unix milliseconds."""
    return int(time() * 1000)


@dataclass
class One:
    """A miner."""

    pair: KeyPair
    chain: ChainId
    host: Host = field(init=False)
    miner: Miner = field(init=False)

    def __post_init__(self) -> None:
        settings = Settings()
        self.host = Host(self.pair, (LISTEN,))
        self.miner = Miner(self.pair, self.chain, unix_ms, lambda: HEAD[0], lambda: None)
        allowance = Allowance(
            settings.free_requests, settings.validator_requests, dict, trio.current_time
        )
        self.host.handle(QUERY.id, QueryServer(self.miner, allowance).handle)

    def status(self) -> Status:
        """Who it is."""
        return Status(self.chain, "bench", *HEAD)

    def record(self) -> bytes:
        """What it says of itself, sealed."""
        addresses = tuple(self.host.addresses())
        models = self.miner.announced()
        said = PeerRecord(
            self.pair.public, unix_ms(), "bench", ("miner",), addresses, *HEAD, models, ()
        )
        return seal(self.chain, PRESENCE, said, self.pair)


async def answer(protocol: Protocol, said: Callable[[], Any], stream: Any) -> None:
    """Answer a greeting."""
    frames = Frames(stream, receives=protocol.request, sends=protocol.response)
    with trio.fail_after(GREETING_S):
        await frames.receive()
        await frames.send(said())
        await frames.close()


async def mine(directory: Path, count: int) -> None:
    """Be the miners until cancelled."""
    chain = read_genesis((directory / "genesis.toml").read_text()).chain
    miners = [One(pair_of(number), chain) for number in range(count)]
    first = miners[0]

    def records() -> Records:
        return Records(tuple(one.record() for one in miners))

    async with AsyncExitStack() as stack:
        for one in miners:
            one.host.handle(STATUS.id, partial(answer, STATUS, one.status))
            one.host.handle(PEERS.id, partial(answer, PEERS, records))
            await stack.enter_async_context(one.host.run())
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(first.miner.run)
        settings = Settings()
        worker = await Mining(first.miner).begin(NETUID, MODEL, settings.slots, settings.threads)
        for one in miners[1:]:
            one.miner.workers[MODEL] = worker
        print(worker.pid, f"{first.host.addresses()[0]}/p2p/{first.host.peer_id}", flush=True)
        await trio.sleep_forever()


def main() -> None:
    """Keep to one core, and be the miners."""
    directory, count, core = sys.argv[1:4]
    os.sched_setaffinity(0, {int(core)})
    trio.run(mine, Path(directory), int(count))


if __name__ == "__main__":
    main()
