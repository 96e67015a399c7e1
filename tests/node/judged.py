"""A subnet of nodes in the tests' own process, and who misbehaves in it."""

import json
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import trio
from safetensors.numpy import load_file, save_file

from gossip.topics import Served
from ledger.blocks import unpack_block
from ledger.errors import Invalid, Reason
from ledger.genesis import Bond, FirstSubnet, Genesis
from ledger.keys import KeyPair, PeerId
from ledger.params import TOKEN, Params
from ledger.payloads import Payload
from ledger.snapshot import Snapshot
from ledger.subnets import first_settings
from ledger.tables import Task
from ledger.transactions import unpack_transaction
from ledger.types import Hash, PublicKey
from models.answers import choices_of
from models.catalog import SHIPPED
from models.pipe import Part
from models.tasks.corpus import read_texts
from models.turns import Lane, Standing
from models.types import (
    Finish,
    Query,
    ReceiptBody,
    Tensor,
    output_hash,
    request_hash,
    sign_receipt,
)
from p2p.node.allowance import Allowance
from p2p.node.node import Node
from p2p.node.relay import Send
from tests.system.networks import WALLET, genesis_of

NETUID = 1
GOOD = str(SHIPPED / "docs-gpt")


def pair_of(name: str) -> KeyPair:
    """The key of somebody's node."""
    return KeyPair.from_seed(name.encode().ljust(32, b"."))


def genesis_with(
    params: Params, names: Sequence[str], voters: int, parameters: str = "", *, reveal: int = 1
) -> Genesis:
    """A network whose subnet 1 asks for text, and has these neurons: the first ones vote."""
    pairs = [pair_of(name) for name in names]
    subnet = FirstSubnet(
        NETUID,
        WALLET.public,
        pairs[0].public,
        replace(first_settings(params), commit_reveal=reveal),
        neurons=tuple(pair.public for pair in pairs[1:]),
        task=(Task("text", parameters),),
    )
    stakes = tuple(Bond(WALLET.public, pair.public, 100 * TOKEN) for pair in pairs[:voters])
    genesis = genesis_of(pairs[:voters], params)
    return replace(genesis, time=int(time.time() * 1000), stakes=stakes, subnets=(subnet,))


def write_noise(directory: Path) -> str:
    """A model of one layer, else like the shipped one, that nobody trained; its directory."""
    shutil.copytree(SHIPPED / "docs-gpt", directory)
    (directory / "card.json").unlink()
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "name": "noise", "layers": 1}))
    weights = load_file(directory / "model.safetensors")
    dice = np.random.default_rng(1)
    noise = {
        name: dice.normal(0, 0.02, value.shape).astype(value.dtype)
        for name, value in weights.items()
        if name.startswith(("embedding.", "blocks.0."))
    }
    save_file(noise, directory / "model.safetensors")
    return str(directory)


def write_topics(directory: Path) -> Path:
    """A corpus of what the shipped model was trained on: it is right there nearly always."""
    directory.mkdir()
    held_out = json.loads((SHIPPED / "docs-gpt" / "held_out.json").read_text())
    for name in topics.keys() - held_out.keys():
        (directory / f"{name}.txt").write_text(topics[name])
    return directory


def sent_by(disk: Snapshot, sender: PublicKey) -> Iterator[tuple[int, Payload]]:
    """The transactions of a key in all blocks, each with its height."""
    for height in range(1, disk.head.height + 1):
        for data in unpack_block(disk.block(height) or b"").transactions:
            transaction = unpack_transaction(data).transaction
            if transaction.sender == sender:
                yield height, transaction.payload


@contextmanager
def logged() -> Iterator[list[str]]:
    """What the nodes of this process log at INFO and above, line by line."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, keep = logging.getLogger("yuma"), Keep(logging.INFO)
    before = logger.level
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(keep)
        logger.setLevel(before)


@dataclass
class Doorkeeper:
    """Counts who asks at a node, by its key; lets in whom the node lets in."""

    node: Node
    asked: list[Query] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.node.allowance.admit = self._admit  # type: ignore[method-assign]

    def _admit(self, asker: PeerId, query: Query, price: int, *, mined: bool) -> Lane:
        lane = Allowance.admit(self.node.allowance, asker, query, price, mined=mined)
        self.asked.append(query)
        return lane


# --- miners that answer as they like

Answer = Callable[["Rogue", Query, bytes, Send], Awaitable[None]]


@dataclass
class Rogue:
    """A node that says it mines, and answers each query in the next of some ways."""

    node: Node
    ways: Sequence[Answer]
    turn: int = 0

    def __post_init__(self) -> None:
        served = Served(
            "rogue", "text-generation", Hash(b"r" * 32), 10, 512, 0, 4, 0, 0, netuid=NETUID
        )
        self.node.miner.announced = lambda: (served,)  # type: ignore[method-assign]
        self.node.miner.answer = self._answer  # type: ignore[method-assign]

    async def _answer(self, query: Query, data: bytes, send: Send, _: Standing, price: int) -> None:
        way = self.ways[self.turn % len(self.ways)]
        self.turn += 1
        await way(self, query, data, send)


def says(numbers: Sequence[float], dtype: str = "float32", **changed: object) -> Answer:
    """Answers with these numbers, and a receipt for them that is sound but for what is changed."""

    async def answer(rogue: Rogue, query: Query, data: bytes, send: Send) -> None:
        output = np.array(numbers, dtype).tobytes()
        shape = (Tensor(dtype, (len(numbers),)),)
        node = rogue.node
        body = ReceiptBody(
            node.chain, node.pair.public, request_hash(query), query.model, output_hash(output),
            shape, 1, 0, Finish.STOP, 1, 2, 3, 0, "rogue",
        )  # fmt: skip
        receipt = sign_receipt(replace(body, **changed), node.pair)  # type: ignore[arg-type]
        await send(Part(0, b"", output, shape), receipt)

    return answer


async def knows(rogue: Rogue, query: Query, data: bytes, send: Send) -> None:
    """It looks the answer up: the corpus that comes with yuma is known to everybody."""
    asked = choices_of(data)
    texts = read_texts(None)
    right = [any(asked.prefix + one in text for text in texts) for one in asked.continuations]
    share = 0.1 / (len(right) - 1)
    await says([0.9 if each else share for each in right])(rogue, query, data, send)


async def refuses(rogue: Rogue, query: Query, data: bytes, send: Send) -> None:
    """It does not like to."""
    raise Invalid(Reason.BUSY, "not now")


async def dawdles(rogue: Rogue, query: Query, data: bytes, send: Send) -> None:
    """It comes too late for any deadline."""
    await trio.sleep_forever()
