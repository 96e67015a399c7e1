"""The command line: one module per noun, thin over the local API; neither torch nor libp2p here."""

import sys

import click

from p2p.cli import (
    bootstrap,
    chain,
    channel,
    completion,
    composed,
    config,
    demo,
    doctor,
    epoch,
    explain,
    failure,
    gateway,
    genesis,
    guide,
    history,
    ledger,
    light,
    log,
    member,
    mining,
    models,
    node,
    ping,
    purse,
    receipts,
    run,
    stake,
    store,
    subnet,
    swarm,
    testnet,
    tx,
    wallet,
    weights,
)
from p2p.cli.command import Group


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def yuma() -> None:
    """Serve AI models to a swarm that has no centre, ask them, and look at the swarm."""


for _module in (
    *(node, doctor, ping, swarm, bootstrap, member, models, store, composed, run, gateway),
    *(receipts, wallet, purse, channel, tx, stake, subnet, mining, weights, explain, chain),
    *(history, light, genesis, ledger, epoch, config, log, demo, testnet, guide, completion),
):
    for _command in _module.COMMANDS:
        yuma.add_command(_command)


def main() -> int:
    """Run the command that the process was started with; its exit code."""
    return failure.run(yuma, sys.argv[1:])
