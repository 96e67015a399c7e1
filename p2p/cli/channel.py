"""Channels, through which nodes pay each other for answers: channel list, open, close; earnings."""

import time

import click

from p2p.cli.command import Command, Group, current_client, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import print_json, print_pairs, print_table
from p2p.cli.submit import MAX_WAIT_S, PATIENCE_S, WAIT_S, amount_of, tokens

timeout_option = click.option(
    "--timeout",
    "wait_s",
    type=click.IntRange(0, MAX_WAIT_S),
    default=WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="For how long to wait.",
)


@click.group(cls=Group)
def channel() -> None:
    """Channels, through which nodes pay for answers."""


@channel.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List this node's channels, those it pays from and others."""
    said = current_client().get("/v0/channels")
    if as_json:
        return print_json(said)
    heads = ("CHANNEL", "WAY", "PEER", "AMOUNT", "PAID", "CLAIMED", "EXPIRES", "STATE")
    rows = [
        (
            row["id"],
            row["way"],
            row["peer_id"],
            *(tokens(row[name]) for name in ("amount", "paid", "claimed")),
            f"block {row['expiry']}",
            row["state"],
        )
        for row in said["channels"]
    ]
    print_table(heads, rows, empty="there is no channel; one is opened when it is needed")


@channel.command("open")
@click.argument("peer")
@click.argument("amount")
@click.option("--blocks", type=click.IntRange(1), help="How long it lasts; else about a day.")
@timeout_option
@json_option
def open_(peer: str, amount: str, blocks: int | None, wait_s: int, as_json: bool) -> None:
    """Lock AMOUNT of the purse in a channel to PEER.

    The node does so by itself where it needs one, within its budget. What is not paid out of it
    comes back when it has expired.
    """
    client = current_client()
    body = {"peer_id": peer, "amount": amount_of(amount), "blocks": blocks}
    said = client.post("/v0/channels", body)
    asked = {"id": said["id"], "timeout_s": wait_s}
    found = client.post("/v0/transactions/wait", asked, wait_s + PATIENCE_S)
    if wait_s and found["state"] != "final":
        raise Failure(
            f"channel {said['id']} is not final yet", f"look again with: yuma tx show {said['id']}"
        )
    if as_json:
        return print_json({**said, "state": found["state"]})
    print_pairs([("channel", said["id"]), ("expires", f"block {said['expiry']}")])


@channel.command()
@click.argument("name", metavar="ID")
@timeout_option
@json_option
def close(name: str, wait_s: int, as_json: bool) -> None:
    """Claim what a channel owes this node, and close it.

    The payer gets the rest back. It can close a channel itself only some time after its expiry.
    """
    body = {"id": name, "timeout_s": wait_s}
    said = current_client().post("/v0/channels/close", body, wait_s + PATIENCE_S)
    if as_json:
        return print_json(said)
    note(f"channel {name} is {'closed' if said['closed'] else 'being closed'}")


@click.command(cls=Command)
@json_option
def earnings(as_json: bool) -> None:
    """Show what this node was paid for its answers."""
    said = current_client().get("/v0/earnings")
    if as_json:
        return print_json(said)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(said["since_ms"] / 1000))
    pairs = [
        ("since", since),
        ("earned", tokens(said["earned"])),
        ("claimed", tokens(said["claimed"])),
        ("to be claimed", tokens(said["due"])),
        ("requests", f"{said['requests']} paid, {said['refused']} refused since the start"),
    ]
    if said["problem"]:
        pairs.append(("problem", said["problem"]))
    print_pairs(pairs)
    rows = [
        (row["peer_id"], row["model"] or None, row["requests"], row["tokens"], tokens(row["rao"]))
        for row in said["rows"]
    ]
    if rows:
        click.echo()
        print_table(("PEER", "MODEL", "REQUESTS", "TOKENS", "EARNED"), rows, empty="")


COMMANDS = (channel, earnings)
