"""The round trip to one peer: ping."""

from collections.abc import Sequence

import click

from p2p.cli.command import Command, current_client, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import print_json

REPLY_S = 60.0
"""For one reply: the first may need a dial."""


@click.command(cls=Command)
@click.argument("peer")
@click.option("-c", "--count", type=click.IntRange(1, 10_000), default=3, show_default=True)
@json_option
def ping(peer: str, count: int, as_json: bool) -> None:
    """Measure the round trip to PEER."""
    replies = []
    for reply in current_client().stream("/v0/ping", {"peer_id": peer, "count": count}, REPLY_S):
        replies.append(reply)
        if not as_json:
            click.echo(f"{peer}  seq {reply['seq']}  {reply['rtt_ms']:.2f} ms")
    if as_json:
        print_json({"peer_id": peer, "replies": replies})
    _summarise([reply["rtt_ms"] for reply in replies], count)


def _summarise(times_ms: Sequence[float], count: int) -> None:
    """Say the spread, or fail where replies are missing."""
    if len(times_ms) < count:
        raise Failure(f"{len(times_ms)} of {count} pings were answered", "yuma swarm peers")
    least, mean, most = min(times_ms), sum(times_ms) / count, max(times_ms)
    note(f"{count} answered, least {least:.2f} ms, mean {mean:.2f} ms, most {most:.2f} ms")


COMMANDS = (ping,)
