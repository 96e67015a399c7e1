"""The local API about the chain that this node follows: its head, blocks, committee, owners."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consensus.committee import committee_at
from consensus.light import answer_light
from consensus.lottery import lottery_at
from consensus.replica import certificate_at
from ledger.address import address_of, public_key_of_address
from ledger.blocks import Block, unpack_block
from ledger.codec import MAX_INTEGER, pack
from ledger.emission import supply_of
from ledger.errors import Invalid
from ledger.keys import peer_id_of, public_key_of
from ledger.snapshot import Snapshot
from ledger.state import State
from ledger.tables import ACCOUNTS
from ledger.types import Hash, PublicKey
from p2p.addresses import is_peer_id
from p2p.documents import block_document, block_line, holdings, hotkey
from p2p.http.api import Control, Line, Refused, Row
from p2p.node.follow import Follow

MAX_LOG = 1000
PROVER = trio.CapacityLimiter(1)
"""A part of a proof may read a hundred blocks, too long for the event loop."""
NEXT_LEADERS = 5
"""Views of the next block whose leaders are named."""


def follow_of(control: Control) -> Follow:
    """What follows the chain. Raises Refused where this node follows none."""
    follow = control.node.follow
    if follow is None:
        raise Refused(
            "this node follows no chain",
            "a new home with one is made by: yuma --home DIR init --network devnet",
        )
    return follow


@contextmanager
def state_of(control: Control) -> Iterator[tuple[Follow, State, Snapshot]]:
    """The ledger at this moment. Raises Refused."""
    follow = follow_of(control)
    with follow.snapshot() as disk:
        yield follow, State(disk), disk


def query_key(request: Request) -> PublicKey:
    """The key that a request names, as an address or as a peer id. Raises Refused."""
    text = request.query_params.get("address", "")
    if is_peer_id(text):
        return public_key_of(text)
    try:
        return public_key_of_address(text)
    except Invalid:
        raise Refused(
            f"{text!r:.80} is neither an address nor a peer id",
            "addresses begin with yuma1, peer ids with 12D3KooW",
        ) from None


def query_integer(request: Request, name: str, least: int, most: int) -> int:
    """An integer of a request's query. Raises Refused."""
    text = request.query_params.get(name, "")
    if not (text.isascii() and text.isdecimal()) or not least <= int(text[:20]) <= most:
        raise Refused(f"{name} is not an integer from {least} to {most}")
    return int(text)


async def head(control: Control, request: Request) -> Response:
    """Where the chain stands, and this node on it."""
    with state_of(control) as (follow, state, disk):
        header, supply = disk.header(), supply_of(state)
        committee = committee_at(state, follow.params, disk.head.height + 1)
        return JSONResponse(
            {
                "network": follow.genesis.name,
                "chain": follow.genesis.chain.hex(),
                "height": disk.head.height,
                "hash": disk.head.hash.hex(),
                "root": disk.head.root.hex(),
                "time": header.time,
                "epoch": header.epoch,
                "view": follow.view,
                "issued": supply.issued,
                "burned": supply.burned,
                "staked": supply.staked,
                "voters": len(committee.keys),
                "voting": follow.voting,
                "best": follow.best,
                "syncing": follow.syncing,
                "stopped": follow.stopped,
                "waiting": len(follow.mempool),
            }
        )


async def block(control: Control, request: Request) -> Response:
    """One block, by height or hash."""
    at = request.query_params.get("at", "")
    with state_of(control) as (_, _, disk):
        height = _height_at(disk, at)
        data = None if height is None else disk.block(height)
        if height is None or data is None:
            raise Refused(
                f"there is no block {at!r:.80} here",
                f"blocks up to {disk.head.height} are: yuma chain log",
                status=404,
            )
        return JSONResponse(block_document(unpack_block(data), data, certificate_at(disk, height)))


def _height_at(disk: Snapshot, text: str) -> int | None:
    """The height that a text names, or that of the hash it is. Raises Refused."""
    if text.isascii() and text.isdecimal() and len(text) < 20:
        return int(text)
    try:
        name = bytes.fromhex(text)
    except ValueError:
        name = b""
    if len(name) != 32:
        raise Refused(f"{text!r:.80} is no height and no hash", "see both with: yuma chain log")
    return disk.height_of(Hash(name))


def block_at(disk: Snapshot, height: int) -> Block:
    """A block that is there."""
    data = disk.block(height)
    assert data is not None
    return unpack_block(data)


async def log(control: Control, request: Request) -> Response:
    """The last blocks, the newest first."""
    count = query_integer(request, "last", 1, MAX_LOG)
    with state_of(control) as (_, _, disk):
        top = disk.head.height
        found = (disk.block(height) for height in range(top, max(-1, top - count), -1))
        return JSONResponse({"blocks": [block_line(unpack_block(one)) for one in found if one]})


async def params(control: Control, request: Request) -> Response:
    """What all nodes of the network share."""
    genesis = follow_of(control).genesis
    return JSONResponse(
        {
            "network": genesis.name,
            "chain": genesis.chain.hex(),
            "time": genesis.time,
            "params": asdict(genesis.params),
        }
    )


async def committee(control: Control, request: Request) -> Response:
    """Who votes on the next block, with what weight; who may lead it, with what chance."""
    with state_of(control) as (follow, state, disk):
        height = disk.head.height + 1
        voters = committee_at(state, follow.params, height)
        lottery = lottery_at(state, follow.params, height)
        chances = dict(zip(lottery.keys, lottery.chances, strict=True))
        views = range(NEXT_LEADERS if lottery.keys else 0)
        leaders = [peer_id_of(lottery.leader(height, view)) for view in views]
    weights = dict(zip(voters.keys, voters.weights, strict=True))
    rows: list[Line] = [
        {
            "peer_id": peer_id_of(key),
            "weight": weights.get(key, 0),
            "chance": chances.get(key, 0),
        }
        for key in sorted({*weights, *chances}, key=lambda key: (-weights.get(key, 0), key))
    ]
    return JSONResponse(
        {
            "height": height,
            "epoch": (height - 1) // follow.params.epoch,
            "total_weight": voters.total,
            "quorum": voters.quorum,
            "total_chance": sum(chances.values()),
            "members": rows,
            "leaders": leaders,
        }
    )


async def account(control: Control, request: Request) -> Response:
    """What a key owns, and the number of its next transaction with those that wait."""
    key = query_key(request)
    with state_of(control) as (follow, state, disk):
        said = holdings(state, key)
        return JSONResponse(
            {
                "address": address_of(key),
                "height": disk.head.height,
                **said,
                "next_nonce": follow.next_nonce(key),
            }
        )


async def node(control: Control, request: Request) -> Response:
    """What a node's key is bound to."""
    key = query_key(request)
    with state_of(control) as (_, state, disk):
        return JSONResponse(hotkey(state, key, disk.head.height))


async def light(control: Control, request: Request) -> Response:
    """The next part of a proof of what a key owns, from the end of an epoch on."""
    key = query_key(request)
    after = query_integer(request, "after", 0, MAX_INTEGER)
    follow = follow_of(control)
    row = ACCOUNTS.tag + key
    try:
        answer = await trio.to_thread.run_sync(
            answer_light, follow.store, follow.params, after, row, limiter=PROVER
        )
    except Invalid as error:
        raise Refused(str(error), "ask a node that has the whole chain from genesis on") from None
    return JSONResponse({"data": pack(answer).hex()})


ROUTES: list[Row] = [
    ("GET", "/v0/chain/head", head),
    ("GET", "/v0/chain/block", block),
    ("GET", "/v0/chain/log", log),
    ("GET", "/v0/chain/params", params),
    ("GET", "/v0/chain/committee", committee),
    ("GET", "/v0/chain/account", account),
    ("GET", "/v0/chain/node", node),
    ("GET", "/v0/light", light),
]
