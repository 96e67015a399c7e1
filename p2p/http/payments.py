"""The local API about payments: this node's purse, its channels, what it has earned."""

from typing import Final

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ledger.address import address_of
from ledger.channels import channels_of
from ledger.errors import Invalid, Reason
from ledger.keys import peer_id_of, public_key_of
from ledger.params import CAP
from ledger.payloads import CloseChannel
from ledger.state import State
from ledger.tables import CHANNELS, Channel
from ledger.types import Hash
from p2p.http.api import Control, Line, Refused, Row, body_of, integer_of, peer_of, text_of
from p2p.http.chain import follow_of
from p2p.http.transactions import MAX_WAIT_S
from p2p.node.node import Node
from p2p.node.purse import Purse
from p2p.node.tabs import LIFE_GRACES, CannotPay
from p2p.node.till import Till

MAX_BLOCKS: Final = 10_000_000
"""That a channel may last: some years of a main network."""
LISTED: Final = "see the channels with: yuma channel list"


async def purse(control: Control, request: Request) -> Response:
    """What this node can pay with, and how much of it it may."""
    held, _ = _parts(control)
    node = control.node
    channels = await _channels(node)
    return JSONResponse(
        {
            "peer_id": node.pair.peer_id,
            "address": address_of(node.pair.public),
            "balance": held.tabs.balance(),
            "locked": sum(
                one.amount - one.claimed for _, one in channels if one.payer == node.pair.public
            ),
            "budget": held.budget,
            "spent": held.book.spent(held.unix_ms()),
            "reserved": held.reserved,
            "left": held.left,
            "price_limit": held.price_limit,
        }
    )


async def channels(control: Control, request: Request) -> Response:
    """The channels that this node pays from or is paid by, as the ledger has them."""
    held, till = _parts(control)
    node = control.node
    promised = {name: (rao, usable) for name, rao, usable in held.tabs.listing()}
    earned = {name: rao for name, rao, _ in till.accounts()}
    rows = []
    for name, channel in await _channels(node):
        out = channel.payer == node.pair.public
        rao, usable = promised.get(name, (0, False)) if out else (earned.get(name, 0), True)
        rows.append(_row(name, channel, node, max(rao, channel.claimed), usable=usable))
    return JSONResponse({"height": node.position()[0], "channels": rows})


def _row(name: Hash, channel: Channel, node: Node, paid: int, *, usable: bool) -> Line:
    out = channel.payer == node.pair.public
    over = node.position()[0] >= channel.expiry
    return {
        "id": name.hex(),
        "way": "out" if out else "in",
        "peer_id": peer_id_of(channel.payee if out else channel.payer),
        "amount": channel.amount,
        "paid": paid,
        "claimed": channel.claimed,
        "expiry": channel.expiry,
        "state": "expired" if over else "open" if usable else "not used",
    }


async def open_channel(control: Control, request: Request) -> Response:
    """Send what opens a channel to a node."""
    body = await body_of(request)
    held, _ = _parts(control)
    follow = follow_of(control)
    life = LIFE_GRACES * follow.params.channel_grace
    blocks = integer_of(body, "blocks", life, 1, MAX_BLOCKS)
    amount = integer_of(body, "amount", 0, 1, CAP)
    payee = public_key_of(peer_of(body))
    try:
        name = await held.tabs.begin(payee, amount, follow.head.height + blocks)
    except CannotPay as error:
        raise Refused(str(error), error.hint) from None
    return JSONResponse({"id": name.hex(), "expiry": follow.head.height + blocks})


async def close_channel(control: Control, request: Request) -> Response:
    """Close a channel: what it owes this node is claimed before. Waits until it is, for a time."""
    body = await body_of(request)
    held, till = _parts(control)
    name = _name_of(text_of(body, "id"))
    timeout_s = integer_of(body, "timeout_s", 60, 0, MAX_WAIT_S)
    channel = _channel(control, name)
    if channel is None:
        raise Refused("there is no such channel", LISTED, status=404)
    try:
        if channel.payer == control.node.pair.public:
            await _close_own(control, held, name, channel)
        else:
            till.close(name)
            await till.tend()
    except Invalid as error:
        raise Refused(str(error), LISTED) from None
    height = control.node.position()[0]
    with trio.move_on_after(timeout_s):
        while _channel(control, name) is not None and not till.problem:
            height = (await follow_of(control).head_after(height)).height
    closed = _channel(control, name) is None
    if till.problem and not closed:
        raise Refused(f"it cannot be closed: {till.problem}", "yuma purse fund AMOUNT")
    return JSONResponse({"id": name.hex(), "closed": closed})


async def _close_own(control: Control, held: Purse, name: Hash, channel: Channel) -> None:
    if not held.tabs.is_over(channel):
        last = channel.expiry + follow_of(control).params.channel_grace
        raise Refused(
            f"its payer cannot close it before block {last + 1}",
            "this node does it by itself then; the payee can do it at any time",
        )
    try:
        await follow_of(control).pool.say(CloseChannel(name))
    except Invalid as error:
        if error.reason != Reason.WRONG_NONCE:  # else this node is at it already
            raise


async def earnings(control: Control, request: Request) -> Response:
    """What this node was paid for its answers, by whom and for which model."""
    _, till = _parts(control)
    rows = till.book.earnings()
    claims = till.book.claims()
    return JSONResponse(
        {
            "since_ms": till.book.since_ms,
            "earned": till.earned,
            "claimed": sum(claims.values()),
            "due": till.due,
            "requests": till.requests,
            "refused": till.refused,
            "problem": till.problem,
            "rows": [
                {
                    "peer_id": peer_id_of(row.payer),
                    "model": row.model,
                    "requests": row.requests,
                    "tokens": row.tokens,
                    "rao": row.rao,
                }
                for row in rows
            ],
            "peers": [
                {
                    "peer_id": peer_id_of(payer),
                    "rao": sum(row.rao for row in rows if row.payer == payer),
                    "claimed": claims.get(payer, 0),
                }
                for payer in sorted({row.payer for row in rows})
            ],
        }
    )


def _parts(control: Control) -> tuple[Purse, Till]:
    """Raises Refused where there is no ledger to pay on."""
    follow_of(control)
    held, till = control.node.purse, control.node.till
    assert held is not None
    assert till is not None
    return held, till


async def _channels(node: Node) -> list[tuple[Hash, Channel]]:
    """This node's channels; all of the ledger are read, in a thread."""

    def read() -> list[tuple[Hash, Channel]]:
        assert node.follow is not None
        with node.follow.snapshot() as disk:
            return channels_of(State(disk), node.pair.public)

    return await trio.to_thread.run_sync(read)


def _channel(control: Control, name: Hash) -> Channel | None:
    with follow_of(control).snapshot() as disk:
        return State(disk).get(CHANNELS, name)


def _name_of(text: str) -> Hash:
    try:
        name = bytes.fromhex(text)
    except ValueError:
        name = b""
    if len(name) != 32:
        raise Refused(f"{text!r:.80} is not the id of a channel", LISTED)
    return Hash(name)


ROUTES: list[Row] = [
    ("GET", "/v0/purse", purse),
    ("GET", "/v0/channels", channels),
    ("POST", "/v0/channels", open_channel),
    ("POST", "/v0/channels/close", close_channel),
    ("GET", "/v0/earnings", earnings),
]
