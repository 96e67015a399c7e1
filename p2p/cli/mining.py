"""Taking part in subnets: mine, validate. What is begun here goes on after a restart."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from p2p.cli.client import NoDaemon, Refusal
from p2p.cli.command import Command, current_client, current_home, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.models import LOAD_S, model_reference
from p2p.cli.progress import waiting
from p2p.cli.show import print_json, print_table
from p2p.cli.submit import WAIT_S, Manner, Row, Sender, node_key, tokens
from p2p.cli.wallets import password_option, unlock, wallet_option
from p2p.config import load_settings, set_value

BEST = 3
"""How many miners a line names; --json names all."""

netuid_option = click.option("--netuid", type=click.IntRange(1, 32), help="The subnet.")
off_option = click.option("--off", is_flag=True, help="Do it no longer.")
yes_option = click.option("--yes", is_flag=True, help="Register, if due, without asking.")


@click.command(cls=Command)
@netuid_option
@click.option("--model", help="The model to do it with: a directory, or the name of one served.")
@off_option
@yes_option
@wallet_option
@password_option
@json_option
def mine(
    netuid: int | None, model: str | None, off: bool, yes: bool, name: str, as_json: bool
) -> None:
    """Mine a subnet with a model, or show what is mined.

    Without --netuid it shows what is mined here.

    The node needs a place in the subnet: if it has none, its price is shown, and it is registered
    if you like.
    """
    client = current_client()
    if netuid is None:
        return _show_mining(client.get("/v0/mining"), as_json)
    if off:
        return _end("mine", "mining", netuid, "mined")
    if model is None:
        raise Failure("a model is due", "such as: --model docs-gpt")
    said = _begin("mining", netuid, {"model": model_reference(model)}, name, yes)
    _remember("mine", netuid, f"{netuid}:{said['directory']}")
    if as_json:
        return print_json(said)
    note(f"mining subnet {netuid} with {said['model']}, also after a restart")


@click.command(cls=Command)
@netuid_option
@click.option(
    "--corpus",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of data for the subnet's task; by default what the task brings.",
)
@off_option
@yes_option
@wallet_option
@password_option
@json_option
def validate(
    netuid: int | None, corpus: Path | None, off: bool, yes: bool, name: str, as_json: bool
) -> None:
    """Judge miners of a subnet, or show what is judged.

    Without --netuid it shows what is judged here, and how it goes.

    The node needs a place in the subnet, as for yuma mine, and enough stake for a permit. It then
    asks miners, scores their answers, and commits and reveals weights by itself.
    """
    client = current_client()
    if netuid is None:
        return _show_judging(client.get("/v0/judging"), as_json)
    if off:
        return _end("validate", "judging", netuid, "judged")
    place = str(corpus.resolve()) if corpus else ""
    said = _begin("judging", netuid, {"corpus": place}, name, yes)
    _remember("validate", netuid, f"{netuid}:{place}" if place else str(netuid))
    if as_json:
        return print_json(said)
    note(f"judging subnet {netuid}, also after a restart; see how it goes with: yuma validate")


def _begin(work: str, netuid: int, body: Row, wallet: str, yes: bool) -> Row:
    """Begin to mine or judge, then pay for a place if one is due: what cannot begin costs nothing.

    Raises Failure.
    """
    client = current_client()
    price = _agreed_price(netuid, yes)
    with waiting(f"beginning with subnet {netuid}"):
        said = client.post(f"/v0/{work}", {"netuid": netuid, **body}, LOAD_S)
    if price is not None:
        try:
            _register(netuid, price, wallet)
        except BaseException:  # an interrupted one, too
            client.post(f"/v0/{work}/stop", {"netuid": netuid})
            raise
    return said


def _end(setting: str, work: str, netuid: int, done: str) -> None:
    """Mine or judge a subnet no longer: not after a restart, and not now. Raises Failure.

    The file comes first: what ended by itself would begin again at the next start.
    """
    was_kept = _remember(setting, netuid, None)
    try:
        current_client().post(f"/v0/{work}/stop", {"netuid": netuid})
    except (Refusal, NoDaemon):
        if not was_kept:
            raise
        return note(f"subnet {netuid} was not {done} now, and is not after a restart either")
    note(f"subnet {netuid} is {done} no longer")


def _agreed_price(netuid: int, yes: bool) -> int | None:
    """What a place for this node costs, in rao, by consent; None if it has one. Raises Failure."""
    from ledger.keys import peer_id_of

    subnet = current_client().get("/v0/subnets/one", netuid=netuid)
    if any(row["hotkey"] == peer_id_of(node_key(None)) for row in subnet["rows"]):
        return None
    price = int(subnet["price"])
    offer = f"this node has no place in subnet {netuid}; one costs {tokens(price)}, burned"
    if not yes and not sys.stdin.isatty():
        raise Failure(offer, f"register it with --yes, or: yuma subnet register {netuid}")
    if not yes and not click.confirm(f"{offer}. Register it?", err=True):
        raise Failure("nothing was done", "a place is needed to take part")
    return price


def _register(netuid: int, price: int, wallet: str) -> None:
    """Register this node for a price in rao at most. Raises Failure."""
    from ledger.payloads import Register

    key = node_key(None)
    sender = Sender(lambda: unlock(wallet), Manner(None, WAIT_S, False))
    sent = sender.send(*sender.binding(key), Register(netuid, key, price))
    note(f"registered in block {sent[-1]['height']} for {tokens(price)} at most")


def _remember(setting: str, netuid: int, entry: str | None) -> bool:
    """Put what goes on in a subnet into node.toml, in place of what was there, and say whether
    something was. Raises ConfigError.

    What a flag or the environment says is not the file's to keep.
    """
    home = current_home()
    held: Sequence[str] = getattr(load_settings(home, {}, {}).settings, setting)
    kept = [each for each in held if each.partition(":")[0] != str(netuid)]
    now = tuple(kept if entry is None else [*kept, entry])
    if now != tuple(held):
        set_value(home, setting, now)
    return len(kept) < len(held)


def _show_mining(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return print_json(answer)
    rows = [(row["netuid"], row["model"], row["answered"]) for row in answer["mining"]]
    print_table(("NETUID", "MODEL", "ANSWERED"), rows, empty="no subnet is mined here")


def _show_judging(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return print_json(answer)
    rows = [
        (
            row["netuid"],
            row["until"],
            f"{row['answered']} of {row['visits']}",
            len(row["scores"]),
            _best(row["scores"]),
            row["problem"],
        )
        for row in answer["judging"]
    ]
    headers = ("NETUID", "TEMPO TO", "ANSWERED", "MINERS", "BEST", "PROBLEM")
    print_table(headers, rows, empty="no subnet is judged here")


def _best(scores: dict[str, float]) -> str:
    """The miners with the best scores, by uid: a subnet has thousands."""
    best = sorted(scores.items(), key=lambda item: (-item[1], int(item[0])))
    return " ".join(f"{uid}={score:.2f}" for uid, score in best[:BEST])


COMMANDS = (mine, validate)
