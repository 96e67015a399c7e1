"""The visits behind this node's own weights, from its journal: for `yuma explain --receipts`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from p2p.cli import receipts
from p2p.cli.command import current_client, current_home
from p2p.cli.failure import Failure
from p2p.cli.show import print_table
from p2p.cli.submit import Row, node_key

Visit = dict[str, Any]
HEADS = ("  UID", "NODE", "VISITS", "ANSWERED", "REWARD AS ITSELF", "AS A STRANGER", "REPEATED")


@dataclass(frozen=True)
class Found:
    """The visits of a tempo, by the block that ended it."""

    end: int
    visits: Sequence[Visit]

    def save(self, path: Path) -> str:
        """Save their receipts, and say where. Raises Failure where there are none; OSError."""
        kept = [one["receipt"] for one in self.visits if one["receipt"]]
        if not kept:
            raise Failure(
                f"this node has no receipts of the tempo that block {self.end} ended",
                "a miner that did not answer signed none; see: yuma explain UID",
            )
        receipts.save(path, kept)
        return f"{len(kept)} receipts are in {path}; check them with: yuma receipts verify {path}"

    def show(self) -> None:
        """Print what they came to, by miner."""
        click.echo(f"\nthis node's visits in the tempo that block {self.end} ended")
        rows = [_summary(uid, self.visits) for uid in sorted({one["uid"] for one in self.visits})]
        print_table(HEADS, rows, empty="")


def visits_behind(explained: Row) -> Found:
    """This node's visits that its own weights in an epoch rest on.

    Those to the miner that is explained; to all miners, where it is this node itself. They are of
    the tempo in which the row that counted was committed, whatever the settings are now.
    Raises Failure, OSError.
    """
    from ledger.keys import peer_id_of
    from p2p.node.journal import Journal

    own, netuid, height = peer_id_of(node_key(None)), explained["netuid"], explained["height"]
    committed = _committed(explained, own)
    journal = Journal(current_home().validators / str(netuid))
    end = journal.tempo_of(committed, height)
    if end is None:
        raise Failure(
            f"this node keeps no visits of the tempo in which it committed, in block {committed}",
            "it keeps those of the last tempos that it judged: yuma validate",
        )
    found = journal.visits(end)
    if explained["hotkey"] != own:
        found = [one for one in found if one["hotkey"] == explained["hotkey"]]
    return Found(end, found)


def _committed(explained: Row, own: str) -> int:
    """The block that has the commitment to this node's row in an epoch. Raises Failure."""
    if explained["hotkey"] != own:
        client, epoch = current_client(), {"netuid": explained["netuid"], "at": explained["height"]}
        rows = client.get("/v0/metagraph", **epoch)["rows"]
        uid = next((row["uid"] for row in rows if row["hotkey"] == own), None)
        explained = client.get("/v0/explain", uid=uid, **epoch) if uid is not None else explained
    if explained["hotkey"] != own or not explained["validator"]["committed"]:
        raise Failure(
            f"this node showed no weights in the epoch of block {explained['height']}",
            "receipts are of those who judge: yuma validate",
        )
    return int(explained["validator"]["committed"])


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
