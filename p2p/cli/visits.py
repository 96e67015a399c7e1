"""The visits behind this node's own weights, from its journal: for `yuma explain --receipts`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from p2p.cli import receipts
from p2p.cli.command import current_home, note
from p2p.cli.failure import Failure
from p2p.cli.show import print_table
from p2p.cli.submit import Row

Visit = dict[str, Any]


def show_visits(explained: Row, settings: Row, own: str, path: Path) -> None:
    """Say what this node's visits came to that its weights in an epoch rest on, and save receipts.

    Those to the miner that is explained; to all miners, where it is this node itself.
    Raises Failure, OSError.
    """
    end = explained["height"] - settings["reveal_tempos"] * settings["tempo"]
    found = _visits(explained["netuid"], end)
    if explained["hotkey"] != own:
        found = [one for one in found if one["hotkey"] == explained["hotkey"]]
    kept = [one["receipt"] for one in found if one["receipt"]]
    if not kept:
        raise Failure(
            f"this node has no receipts of the tempo that block {end} ended",
            "it keeps those of the last tempos that it judged: yuma validate",
        )
    click.echo(f"\nthis node's visits in the tempo that block {end} ended")
    rows = [_summary(uid, found) for uid in sorted({one["uid"] for one in found})]
    heads = ("  UID", "NODE", "VISITS", "ANSWERED", "REWARD AS ITSELF", "AS A STRANGER", "REPEATED")
    print_table(heads, rows, empty="")
    receipts.save(path, kept)
    note(f"{len(kept)} receipts are in {path}; check them with: yuma receipts verify {path}")


def _visits(netuid: int, end: int) -> list[Visit]:
    from p2p.node.journal import Journal

    return Journal(current_home().validators / str(netuid)).visits(end)


def _summary(uid: int, found: Sequence[Visit]) -> tuple[Any, ...]:
    """What the visits to a miner came to."""
    own = [one for one in found if one["uid"] == uid]
    judged = [one for one in own if not one["duplicate"]]
    return (
        f"  {uid}",
        own[0]["hotkey"],
        len(own),
        sum(not one["fault"] for one in own),
        *(_mean([one for one in judged if one["stranger"] is door]) for door in (False, True)),
        len(own) - len(judged),
    )


def _mean(visits: Sequence[Visit]) -> str:
    return f"{sum(one['reward'] for one in visits) / len(visits):.4f}" if visits else "-"
