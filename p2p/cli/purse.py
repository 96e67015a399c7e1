"""What this node pays for answers with: purse show, fund, withdraw.

The purse is the balance of the node's own key, which its daemon may spend, within its budget. The
wallets are not touched by it.
"""

from dataclasses import replace

import click

from p2p.cli.command import Group, current_client, json_option
from p2p.cli.failure import Failure
from p2p.cli.show import print_json, print_pairs
from p2p.cli.submit import (
    Manner,
    Sender,
    amount_of,
    manner_options,
    node_key,
    node_pair,
    print_sent,
    tokens,
)
from p2p.cli.wallets import DEFAULT, owner_key, password_option, unlock, wallet_option


@click.group(cls=Group)
def purse() -> None:
    """What this node may pay for answers with."""


@purse.command()
@json_option
def show(as_json: bool) -> None:
    """Show the purse, and what of it may be spent."""
    said = current_client().get("/v0/purse")
    if as_json:
        return print_json(said)
    print_pairs(
        [
            ("node", said["peer_id"]),
            ("balance", tokens(said["balance"])),
            ("in channels", tokens(said["locked"])),
            ("budget", f"{tokens(said['budget'])} in 24 hours"),
            ("spent", tokens(said["spent"])),
            ("left", tokens(said["left"])),
            ("price limit", f"{said['price_limit']} rao per 1000 tokens"),
        ]
    )


@purse.command()
@click.argument("amount")
@wallet_option
@password_option
@manner_options
def fund(amount: str, name: str, manner: Manner) -> None:
    """Pay tokens from a wallet into the purse."""
    from ledger.payloads import Transfer

    payload = Transfer(node_key(None), amount_of(amount))
    print_sent(Sender(lambda: unlock(name), manner).send(payload), manner)


@purse.command()
@click.argument("amount")
@click.option("--to", metavar="NAME|ADDRESS", default=DEFAULT, help="A wallet; else `default`.")
@manner_options
def withdraw(amount: str, to: str, manner: Manner) -> None:
    """Pay tokens from the purse to a wallet.

    AMOUNT can be `all`: what is there, less the fee. What is in channels comes back to the purse
    when they are closed.
    """
    from ledger.payloads import Transfer

    key = owner_key(to)
    if amount != "all":
        payload = Transfer(key, amount_of(amount))
        return print_sent(Sender(node_pair, manner).send(payload), manner)
    balance = current_client().get("/v0/purse")["balance"]
    fee = Sender(node_pair, manner).fee(Transfer(key, balance))
    if balance <= fee:
        raise Failure(
            f"the purse has {tokens(balance)}, the fee is {tokens(fee)}",
            "what is in channels comes back when they are closed: yuma channel list",
        )
    from ledger.amounts import tokens_text

    sender = Sender(node_pair, replace(manner, fee=tokens_text(fee)))
    print_sent(sender.send(Transfer(key, balance - fee)), manner)


COMMANDS = (purse,)
