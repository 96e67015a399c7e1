"""The subnets that this node mines, each with one of its served models."""

from dataclasses import dataclass, field

from ledger.errors import Invalid, Reason
from p2p.node.miner import Miner
from p2p.node.workers import Worker


@dataclass
class Mining:
    """Which served model mines which subnet."""

    miner: Miner
    _begun: set[int] = field(default_factory=set)
    """The subnets for which a model is being loaded."""

    def workers(self) -> list[Worker]:
        """Those that mine."""
        return [worker for worker in self.miner.workers.values() if worker.netuid]

    def netuids(self) -> set[int]:
        """The subnets that are mined here."""
        return {worker.netuid for worker in self.workers()}

    def _worker(self, netuid: int) -> Worker | None:
        return next((worker for worker in self.workers() if worker.netuid == netuid), None)

    async def begin(self, netuid: int, place: str, slots: int, threads: int) -> Worker:
        """Mine a subnet with a model, served here already or from now on.

        Raises Invalid: BAD_MODEL, NO_MEMORY; BUSY where the subnet is mined with another.
        """
        mined = self._worker(netuid)
        if mined is not None:
            detail = f"subnet {netuid} is mined here with {mined.recipe.name}"
            raise Invalid(Reason.BUSY, detail)
        if netuid in self._begun:
            raise Invalid(Reason.BUSY, f"subnet {netuid} is about to be mined here")
        self._begun.add(netuid)
        try:
            served = (each for each in self.miner.workers.values() if each.recipe.is_of(place))
            worker = next(served, None) or await self.miner.serve(place, None, slots, threads)
        finally:
            self._begun.remove(netuid)
        if worker.netuid:
            detail = f"{worker.recipe.name} mines subnet {worker.netuid} already"
            raise Invalid(Reason.BUSY, detail)
        worker.netuid = netuid
        self.miner.changed()
        return worker

    def end(self, netuid: int) -> None:
        """Mine a subnet no longer; its model is served on. Raises Invalid NO_SUBNET."""
        worker = self._worker(netuid)
        if worker is None:
            raise Invalid(Reason.NO_SUBNET, f"subnet {netuid} is not mined here")
        worker.netuid = 0
        self.miner.changed()
