"""What a scenario's run measured, and whether all held that had to."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles
from typing import Any

from p2p.cli.show import aligned
from p2p.testnet.events import Record
from p2p.testnet.judge import Check
from p2p.testnet.load import Payers
from p2p.testnet.metagraph import Metagraph
from p2p.testnet.scenario import Scenario
from p2p.testnet.watch import Seen, Watch


@dataclass(frozen=True)
class Report:
    """One run of a scenario, after its end."""

    scenario: str
    seconds: float
    figures: dict[str, Any]
    events: tuple[Record, ...]
    checks: tuple[Check, ...]
    faults: tuple[str, ...]
    """What went wrong on the way, besides what the events themselves say."""
    metagraph: Metagraph | None = None
    """Where there is a subnet."""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        wrong = [event.fault for event in self.events] + [check.fault for check in self.checks]
        return not self.faults and not any(wrong)

    def as_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "scenario": self.scenario,
            "passed": self.passed,
            "seconds": self.seconds,
            "figures": self.figures,
            "events": [event.as_json() for event in self.events],
            "checks": [check.as_json() for check in self.checks],
            "faults": list(self.faults),
            "subnet": self.metagraph.as_json() if self.metagraph else None,
        }

    def text(self) -> str:
        """For people: figures, events, checks, the verdict."""
        pairs = [(name.replace("_", " "), _figure(value)) for name, value in self.figures.items()]
        checks = [(check.name, check.fault or "yes") for check in self.checks]
        verdict = (f"{self.scenario}", f"{'passed' if self.passed else 'FAILED'}")
        lines = [aligned([*pairs, *checks])]
        lines += [_event_line(event) for event in self.events]
        lines += [self.metagraph.text()] if self.metagraph else []
        lines += [f"fault: {fault}" for fault in self.faults]
        return "\n".join([*lines, f"{verdict[0]}: {verdict[1]} in {self.seconds:.0f} s"])


def _figure(value: Any) -> str:
    return "-" if value is None else str(value)


def _event_line(event: Record) -> str:
    parts = [f"{event.at_s:.1f} s, block {event.height}: {event.kind} {' '.join(event.nodes)}"]
    if event.blocks_meanwhile is not None:
        parts.append(f"{event.blocks_meanwhile} blocks meanwhile")
    if event.resume_s is not None:
        parts.append(f"next block after {event.resume_s:.1f} s")
    if event.caught_up_s is not None:
        behind = event.caught_up_blocks
        parts.append(f"all caught up after {event.caught_up_s:.1f} s, {behind} blocks behind")
    return ", ".join(parts) + (f" FAULT: {event.fault}" if event.fault else "")


def figures(watch: Watch, scenario: Scenario, payers: Payers | None) -> dict[str, Any]:
    """What was measured: seconds, from the ledgers' growth."""
    blocks = [watch.blocks[height] for height in sorted(watch.blocks)]
    firsts = [one.first for one in blocks]
    gaps = [later - earlier for earlier, later in pairwise(firsts)]
    finalities = [finality(one, scenario.nodes) for one in blocks]
    known = [one for one in finalities if one is not None]
    said: dict[str, Any] = {
        "blocks": watch.best,
        "failed_views": sum(one.view for one in blocks),
        **_spread("block_interval_s", gaps),
        **_spread("finality_s", known),
    }
    if payers is not None:
        said |= {
            "transfers_acknowledged": len(payers.acknowledged),
            "transfers_final": len(payers.latencies),
            "transfers_refused": sum(payers.refusals.values()),
            **_spread("transfer_s", payers.latencies),
        }
    return said


def finality(block: Seen, nodes: int) -> float | None:
    """From a block's time to its being on the disks of most nodes; None where it never was."""
    times = sorted(block.at.values())
    most = nodes // 2
    return times[most] - block.time if len(times) > most else None


def _spread(name: str, seconds: Sequence[float]) -> dict[str, float | None]:
    """Median, 99th percentile and the most."""
    if not seconds:
        return dict.fromkeys((f"{name}_median", f"{name}_p99", f"{name}_max"))
    tail = quantiles(seconds, n=100, method="inclusive")[98] if len(seconds) > 1 else seconds[0]
    return {
        f"{name}_median": round(median(seconds), 3),
        f"{name}_p99": round(tail, 3),
        f"{name}_max": round(max(seconds), 3),
    }
