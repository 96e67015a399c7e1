"""The local API about transactions: handed in signed, looked up, waited for."""

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ledger.errors import Invalid, Reason
from ledger.payloads import MAX_TRANSACTION_BYTES
from ledger.types import Hash
from p2p.documents import transaction_document
from p2p.http.api import Control, Line, Refused, Row, body_of, integer_of, text_of
from p2p.http.chain import block_at, follow_of, state_of

MAX_WAIT_S: Final = 600
OTHERWISE: Final = "compare versions: yuma version"
HINTS: Final = {
    Reason.KNOWN: "see it with: yuma tx show ID",
    Reason.MEMPOOL_FULL: "a higher fee goes first: --fee",
    Reason.EXPIRED: "do it again; a node that is behind has to catch up first: yuma chain head",
    Reason.LOW_FEE: "leave --fee out to pay the least that is taken",
    Reason.WRONG_NONCE: "too many of this sender wait, or another was quicker; do it again",
    Reason.NO_AMOUNT: "give an amount above 0",
    Reason.NO_BALANCE: "see what is there with: yuma wallet balance",
    Reason.SAME_KEY: "name two",
    Reason.NOT_OWNER: "name the wallet that owns it: --wallet NAME",
    Reason.TOO_SOON: "see where the chain stands with: yuma chain head",
    Reason.TOO_DEAR: "pay more with: --most",
    Reason.NO_HOTKEY: "its node binds it with: yuma stake add AMOUNT",
    Reason.BOUND: "it is some wallet's already, for good",
    Reason.NO_STAKE: "see what is there with: yuma stake list",
    Reason.LITTLE_STAKE: "see the least amounts with: yuma chain params",
    Reason.EMPTY_POOL: "name another node",
    Reason.LIABLE: "stake that was moved can move on after unbonding",
    Reason.JAILED: "wait until then: yuma chain head",
    Reason.NO_SUBNET: "see those there are with: yuma subnet list",
    Reason.NO_SLOT: "see how old they are with: yuma subnet list --json",
    Reason.BAD_SETTING: "see what is set with: yuma subnet show NETUID",
    Reason.FROZEN: "wait until the subnet's epoch is over: yuma subnet list",
    Reason.REGISTERED: "see the neurons with: yuma subnet show NETUID",
    Reason.NOT_REGISTERED: "register it with: yuma subnet register NETUID",
    Reason.BAD_WEIGHTS: "see what there is with: yuma subnet list, yuma subnet show NETUID",
    Reason.FEW_WEIGHTS: "see min_allowed_weights with: yuma subnet show NETUID",
    Reason.NO_PERMIT: "a subnet's epoch gives permits to those with the most stake",
    Reason.OLD_VERSION: "do it again",
    Reason.COMMIT_FIRST: "use: yuma weights commit NETUID",
    Reason.NO_COMMITS: "use: yuma weights set NETUID",
    Reason.NO_COMMIT: "see when it opens and closes with: yuma weights show NETUID",
    Reason.WRONG_REVEAL: "see what is committed with: yuma weights show NETUID",
}
"""What may help where a transaction is refused; others are faults of whoever made it."""


def transaction_id(text: str) -> Hash:
    """The id that a text is. Raises Refused."""
    try:
        name = bytes.fromhex(text)
    except ValueError:
        name = b""
    if len(name) != 32:
        raise Refused(
            f"{text!r:.80} is not the id of a transaction", "it has 64 hexadecimal digits"
        )
    return Hash(name)


async def submit(control: Control, request: Request) -> Response:
    """Take a signed transaction, and pass it on."""
    follow = follow_of(control)
    text = text_of(await body_of(request), "data")
    try:
        data = bytes.fromhex(text[: 2 * MAX_TRANSACTION_BYTES + 2])
    except ValueError:
        raise Refused("the transaction is not hexadecimal") from None
    try:
        name = await follow.submit(data)
    except Invalid as error:
        raise Refused(str(error), HINTS.get(error.reason, OTHERWISE)) from None
    return JSONResponse({"id": name.hex()})


async def show(control: Control, request: Request) -> Response:
    """A transaction, wherever it is."""
    name = transaction_id(request.query_params.get("id", ""))
    said = _found(control, name)
    if said["state"] == "unknown":
        raise Refused(
            f"transaction {name.hex()} is not known here",
            "it may have expired, or never have come to this node",
            status=404,
        )
    return JSONResponse(said)


async def wait(control: Control, request: Request) -> Response:
    """Wait until a transaction is final, for a time; where it is then."""
    body = await body_of(request)
    name = transaction_id(text_of(body, "id"))
    timeout_s = integer_of(body, "timeout_s", 60, 0, MAX_WAIT_S)
    await follow_of(control).wait_final(name, timeout_s)
    return JSONResponse(_found(control, name))


def _found(control: Control, name: Hash) -> Line:
    """Where a transaction is, and what it is."""
    with state_of(control) as (follow, _, disk):
        place = disk.place_of(name)
        if place is not None:
            height, index = place
            block = block_at(disk, height)
            return {
                "id": name.hex(),
                "state": "final",
                "height": height,
                "block": block.hash.hex(),
                "place": index,
                "transaction": transaction_document(block.transactions[index]),
            }
        data = follow.mempool.get(name)
        if data is not None:
            return {"id": name.hex(), "state": "pending", "transaction": transaction_document(data)}
        return {"id": name.hex(), "state": "unknown"}


ROUTES: list[Row] = [
    ("POST", "/v0/transactions", submit),
    ("GET", "/v0/transactions", show),
    ("POST", "/v0/transactions/wait", wait),
]
