"""Transactions from the command line: made, signed and handed in here, then waited for.

The daemon says what is due (chain, height, number, fees) and passes on what is signed; no key that
owns tokens ever comes to it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from p2p.cli.client import Refusal
from p2p.cli.command import current_client, current_home, json_option
from p2p.cli.failure import Failure
from p2p.cli.progress import waiting
from p2p.cli.show import Cell, print_json, print_pairs

if TYPE_CHECKING:
    from ledger.keys import KeyPair
    from ledger.payloads import Payload
    from ledger.transactions import Transaction
    from ledger.types import PublicKey

WAIT_S = 60
"""Five blocks of a main network."""
MAX_WAIT_S = 600
TRIES = 3
PATIENCE_S = 10.0
"""Beyond the time for which the daemon was asked to wait."""
VERSIONS = "compare versions: yuma version"
Row = dict[str, Any]


@dataclass(frozen=True)
class Manner:
    """How to send: the fee as text (None: the least), for how long to wait, and what to print."""

    fee: str | None
    wait_s: int
    as_json: bool


def manner_options(command: Callable[..., None]) -> Callable[..., None]:
    """--fee, --no-wait, --timeout and --json, as one argument `manner`."""

    @wraps(command)
    def with_manner(
        *arguments: Any, fee: str | None, no_wait: bool, wait_s: int, as_json: bool, **more: Any
    ) -> None:
        command(*arguments, manner=Manner(fee, 0 if no_wait else wait_s, as_json), **more)

    options = (
        click.option("--fee", metavar="TOKENS", help="What to pay; else the least that is taken."),
        click.option("--no-wait", is_flag=True, help="Do not wait until it is final."),
        click.option(
            "--timeout",
            "wait_s",
            type=click.IntRange(1, MAX_WAIT_S),
            default=WAIT_S,
            show_default=True,
            metavar="SECONDS",
            help="For how long to wait.",
        ),
        json_option,
    )
    for option in reversed(options):
        with_manner = option(with_manner)
    return with_manner


def amount_of(text: str) -> int:
    """The rao in an amount of tokens. Raises Failure."""
    from ledger.amounts import rao_of
    from ledger.errors import Invalid

    try:
        return rao_of(text)
    except Invalid as error:
        raise Failure(error.detail, "amounts are tokens, with at most nine decimals") from None


def tokens(rao: int) -> str:
    """Rao as people read them."""
    from ledger.amounts import tokens_text

    return f"{tokens_text(rao)} tokens"


def node_pair() -> "KeyPair":
    """The key pair of the node of this home. Raises Failure, OSError."""
    from ledger.errors import Invalid
    from ledger.keys import load_seed

    path = current_home().key
    if not path.exists():
        raise Failure(f"there is no node in {path.parent}", "make one with: yuma init")
    try:
        return load_seed(path)
    except Invalid as error:
        raise Failure(f"{path} is not a usable key: {error.detail}") from None


def node_key(peer_id: str | None) -> "PublicKey":
    """The key of a node; of this home's, where none is named. Raises Failure, OSError."""
    from ledger.errors import Invalid
    from ledger.keys import public_key_of

    if peer_id is None:
        return node_pair().public
    try:
        return public_key_of(peer_id)
    except Invalid:
        raise Failure(f"{peer_id!r:.80} is not a peer id", "they look like 12D3KooW...") from None


class Sender:
    """What one key sends, on the chain that the daemon follows. All raise Failure."""

    def __init__(self, unlock: "Callable[[], KeyPair]", manner: Manner) -> None:
        """`unlock`: gives the key; asked once there is a daemon that follows a chain."""
        from ledger.params import Params
        from ledger.types import ChainId

        self.client = current_client()
        said = self.client.get("/v0/chain/params")
        try:
            self.params = Params(**said["params"])
            self.chain = ChainId(bytes.fromhex(said["chain"]))
        except (TypeError, ValueError):
            raise Failure("the daemon's answer is not understood", VERSIONS) from None
        self.manner = manner
        self.pair = unlock()

    def send(self, *payloads: "Payload") -> list[Row]:
        """Send some after each other, and say what became of each.

        Where not all goes well, what was sent is printed first.
        """
        sent: list[Row] = []
        try:
            for payload in payloads:
                sent.append(self.submit(payload))
        except Failure:
            if sent:
                print_sent(sent, self.manner)
            raise
        return self.wait(sent)

    def submit(self, payload: "Payload") -> Row:
        """Hand in the sender's next transaction. Raises Refusal where it is not taken.

        A node sends some by itself, under the same key: where one took the place of this, there is
        a next one.
        """
        account = self._account()
        for _ in range(TRIES):
            try:
                return self._hand_in(payload, account)
            except Refusal:
                before, account = account, self._account()
                if account["next_nonce"] == before["next_nonce"]:
                    raise
        return self._hand_in(payload, account)

    def _account(self) -> Row:
        from ledger.keys import peer_id_of

        return self.client.get("/v0/chain/account", address=peer_id_of(self.pair.public))

    def _hand_in(self, payload: "Payload", account: Row) -> Row:
        last = account["height"] + self.params.validity
        transaction, data = self._signed(payload, account["next_nonce"], last)
        name = self.client.post("/v0/transactions", {"data": data.hex()})["id"]
        return {
            "id": name,
            "kind": type(payload).__name__,
            "fee": transaction.fee,
            "valid_until": last,
            "state": "pending",
            "height": None,
            "block": None,
        }

    def fee(self, payload: "Payload") -> int:
        """What the next transaction, if it is this, would cost in rao."""
        account = self._account()
        last = account["height"] + self.params.validity
        transaction, _ = self._signed(payload, account["next_nonce"], last)
        return transaction.fee

    def _signed(self, payload: "Payload", nonce: int, last: int) -> "tuple[Transaction, bytes]":
        """A transaction, and its bytes with the signature."""
        from ledger.transactions import Transaction, sign, sign_for_least_fee

        fee = 0 if self.manner.fee is None else amount_of(self.manner.fee)
        transaction = Transaction(self.chain, self.pair.public, nonce, fee, last, payload)
        if self.manner.fee is None:
            return sign_for_least_fee(self.params, transaction, self.pair)
        return transaction, sign(transaction, self.pair)

    def wait(self, sent: list[Row]) -> list[Row]:
        """Wait until all are final, if that is wanted, and note it with each.

        Where that fails they are printed first.
        """
        deadline = time.monotonic() + self.manner.wait_s
        try:
            for row in sent if self.manner.wait_s else ():
                self._wait(row, max(1, round(deadline - time.monotonic())))
        except Failure:
            print_sent(sent, self.manner)
            raise
        return sent

    def _wait(self, row: Row, timeout_s: int) -> None:
        asked = {"id": row["id"], "timeout_s": timeout_s}
        with waiting("waiting until it is final"):
            found = self.client.post("/v0/transactions/wait", asked, timeout_s + PATIENCE_S)
        row["state"] = found["state"]
        if found["state"] != "final":
            raise _not_final(row)
        row |= {"height": found["height"], "block": found["block"]}

    def binding(self, hotkey: "PublicKey") -> "list[Payload]":
        """What has to be sent before a hotkey can be used: nothing where it is somebody's.

        One that is nobody's becomes the sender's where it is this node's own.
        """
        from ledger.keys import peer_id_of
        from ledger.payloads import BindHotkey
        from ledger.stakes import binding_digest

        name = peer_id_of(hotkey)
        said = self.client.get("/v0/chain/node", address=name)
        if said["bound"]:
            return []
        if said["used"]:
            raise Failure(f"another hotkey has taken the place of {name}", "name that one")
        own = node_pair()
        if own.public != hotkey:
            raise Failure(
                f"the hotkey {name} is bound to no wallet",
                "its node binds it with: yuma stake add AMOUNT",
            )
        consent = own.sign(binding_digest(self.chain, hotkey, self.pair.public))
        return [BindHotkey(hotkey, consent)]


def _not_final(row: Row) -> Failure:
    """What to say of a transaction that was taken, and is in no block when the time is over."""
    if row["state"] == "pending":
        return Failure(
            f"transaction {row['id']} is not final yet; it may be until block {row['valid_until']}",
            f"look again with: yuma tx show {row['id']}",
        )
    return Failure(
        f"transaction {row['id']} waits no longer: another took its place, or it came too late",
        "do it again; a higher fee goes first: --fee",
    )


def print_sent(sent: Sequence[Row], manner: Manner, more: Sequence[tuple[str, Cell]] = ()) -> None:
    """Print what was sent: what was asked for last, with what there is to say of it."""
    *before, asked = sent
    if manner.as_json:
        said = {name.replace(" ", "_"): value for name, value in more}
        return print_json({**asked, **said, "before": before})
    for row in before:
        print_pairs(_pairs(row))
    print_pairs([*_pairs(asked), *more])


def _pairs(row: Row) -> list[tuple[str, Cell]]:
    pairs: list[tuple[str, Cell]] = [
        ("transaction", row["id"]), ("kind", row["kind"]), ("fee", tokens(row["fee"]))
    ]  # fmt: skip
    if row["state"] == "final":
        return [*pairs, ("block", row["height"]), ("hash", row["block"])]
    return [*pairs, ("state", row["state"])]
