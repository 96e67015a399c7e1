"""What this node says of miners: weights commit, reveal, set, show. It signs with its own key."""

import time

import click

from p2p import vectors
from p2p.cli.client import Refusal
from p2p.cli.command import Group, current_client, current_home, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import Cell, print_json, print_table
from p2p.cli.submit import (
    Manner,
    Row,
    Sender,
    manner_options,
    node_pair,
    print_sent,
)
from p2p.cli.vectors import vector_of
from p2p.vectors import Kept, Seat, draw_up, reveal_of, vector_bytes

ROOT = 0
"""The netuid under which nodes weigh the subnets themselves."""
netuid_argument = click.argument("netuid", type=click.IntRange(0, 65_535))
entries_argument = click.argument("entries", nargs=-1, required=True, metavar="UID=WEIGHT...")


@click.group(cls=Group)
def weights() -> None:
    """What validators say of a subnet's neurons."""


@weights.command()
@netuid_argument
@entries_argument
@manner_options
def commit(netuid: int, entries: tuple[str, ...], manner: Manner) -> None:
    """Commit to weights that are revealed later.

    A WEIGHT is a number that is not negative; only their proportions count. What was committed is
    kept in the home until yuma weights reveal.
    """
    vector = vector_of(entries)
    if netuid == ROOT:
        raise Failure("weights of the subnets are not committed", "use: yuma weights set 0")
    sender = Sender(node_pair, manner)
    subnet = sender.client.get("/v0/subnets/one", netuid=netuid)
    neuron, settings = _own_neuron(sender, subnet), subnet["settings"]
    tempos = (settings["reveal_tempos"] + 1) * settings["tempo"]
    kept = draw_up(
        Seat(sender.chain, netuid, sender.pair.peer_id, neuron["uid"], neuron["registered"]),
        vector.places,
        vector.values,
        version=settings["weights_version"],
        last=subnet["height"] + sender.params.validity + tempos,
    )
    # Before anything is sent: what is lost cannot be revealed.
    path = vectors.keep(current_home(), kept)
    sent = _commit(sender, kept)
    window = _window(sender, kept)
    more: list[tuple[str, Cell]] = [("kept in", str(path))]
    more += [("opens after", window["opens"]), ("closes with", window["closes"])] if window else []
    print_sent(sent, manner, more)


def _commit(sender: Sender, kept: Kept) -> list[Row]:
    """Send a commitment; where it is refused, nothing is left to reveal."""
    from ledger.payloads import CommitWeights
    from ledger.types import Hash

    try:
        sent = sender.submit(CommitWeights(kept.netuid, Hash(bytes.fromhex(kept.hash))))
    except Refusal:
        vectors.forget(current_home(), kept)
        raise
    return sender.wait([sent])


@weights.command()
@click.option("--when-open", is_flag=True, help="Wait until it can be done.")
@manner_options
def reveal(when_open: bool, manner: Manner) -> None:
    """Reveal the weights that were committed.

    It can be done in the tempo after that of the commitment; yuma weights show says when.
    """
    kept = _kept()
    if not kept:
        raise Failure("nothing waits to be revealed", "commit first: yuma weights commit NETUID")
    sender = Sender(node_pair, manner)
    waiting: list[Row] = []
    revealed: list[Row] = []
    for one in kept:
        if when_open:
            _wait_until_open(sender, one)
        why = _not_now(sender, one)
        if why:
            waiting.append({"netuid": one.netuid, "hash": one.hash, "why": why})
        else:
            revealed += sender.send(reveal_of(one))
            if revealed[-1]["state"] == "final":
                vectors.forget(current_home(), one)
    if not revealed:
        place = f"yuma weights show {waiting[0]['netuid']}"
        raise Failure(waiting[0]["why"], f"what is committed is in: {place}")
    if manner.as_json:
        return print_json({"revealed": revealed, "waiting": waiting})
    for row in revealed:
        print_sent([row], manner)
    for line in waiting:
        note(line["why"])


def _kept() -> list[Kept]:
    """What waits to be revealed. Raises Failure, OSError."""
    try:
        return vectors.all_kept(current_home())
    except vectors.Damaged as error:
        raise Failure(str(error), "move it away: what it committed to is lost") from None


def _wait_until_open(sender: Sender, kept: Kept) -> None:
    """Wait until a commitment that is on the ledger can be revealed."""
    window = _window(sender, kept)
    while window and sender.client.get("/v0/chain/head")["height"] < window["opens"]:
        time.sleep(sender.params.block_ms / 2000)


def _not_now(sender: Sender, kept: Kept) -> str:
    """Why a vector cannot be revealed now; empty where it can. Forgets one whose time is over."""
    place = f"the weights of subnet {kept.netuid}"
    if kept.hotkey != sender.pair.peer_id:
        return f"{place} were committed by another key, {kept.hotkey}"
    height = sender.client.get("/v0/chain/head")["height"]
    window = _window(sender, kept)
    if window is None and height > kept.last:
        vectors.forget(current_home(), kept)
        return f"{place} were not revealed in time"
    if window is None:
        return f"{place} have no commitment on the ledger, or no longer"
    if height < window["opens"]:
        return f"{place} can be revealed after block {window['opens']}, and this is {height}"
    return ""


def _window(sender: Sender, kept: Kept) -> Row | None:
    """The commitment as the ledger has it."""
    commits = sender.client.get("/v0/weights", netuid=kept.netuid)["commits"]
    return next((row for row in commits if row["hash"] == kept.hash), None)


def _own_neuron(sender: Sender, subnet: Row) -> Row:
    """This node's neuron. Raises Failure."""
    own = sender.pair.peer_id
    found: Row | None = next((row for row in subnet["rows"] if row["hotkey"] == own), None)
    if found is None:
        raise Failure(
            f"this node has no neuron in subnet {subnet['netuid']}",
            f"get one with: yuma subnet register {subnet['netuid']}",
        )
    return found


@weights.command("set")
@netuid_argument
@entries_argument
@manner_options
def set_(netuid: int, entries: tuple[str, ...], manner: Manner) -> None:
    """Set weights in the open.

    A subnet may ask for commit and reveal instead. Under NETUID 0 the subnets themselves are
    weighed, NETUID=WEIGHT: so emission is shared among them.
    """
    from ledger.payloads import SetRootWeights, SetWeights

    vector = vector_of(entries)
    places, values = vector_bytes(vector.places, vector.values)
    sender = Sender(node_pair, manner)
    if netuid == ROOT:
        return print_sent(sender.send(SetRootWeights(places, values)), manner)
    settings = sender.client.get("/v0/subnets/one", netuid=netuid)["settings"]
    payload = SetWeights(netuid, places, values, settings["weights_version"])
    print_sent(sender.send(payload), manner)


@weights.command()
@netuid_argument
@json_option
def show(netuid: int, as_json: bool) -> None:
    """Show the weights in a subnet, and commitments.

    Those of NETUID 0 are the subnets' own.
    """
    answer = current_client().get("/v0/weights", netuid=netuid)
    if as_json:
        return print_json(answer)
    rows = [(row["hotkey"], row["committed"], _entries(row)) for row in answer["weights"]]
    rows += [
        (row["hotkey"], row["committed"], f"open after block {row['opens']}, to {row['closes']}")
        for row in answer["commits"]
    ]
    print_table(("HOTKEY", "COMMITTED", "WEIGHTS"), rows, empty="nobody has said anything")


def _entries(row: Row) -> str:
    return " ".join(f"{place}={value}" for place, value in row["weights"])


COMMANDS = (weights,)
