"""The blocks of the height that is being decided.

A block that this node has proposed or voted for may have been notarised without its knowledge, and
then its voters are all who have it: it is on disk before the vote, and stays until the height is
decided. Of the others the last few are in memory; one that is needed again is fetched.
"""

from typing import Final

from consensus.driver import Log
from ledger.blocks import Block, unpack_block
from ledger.codec import pack
from ledger.errors import Invalid, Reason
from ledger.types import Hash

MAX_HELD: Final = 6
"""In memory: three megabytes."""


class Undecided:
    """What there is to choose from."""

    def __init__(self, log: Log, height: int) -> None:
        self._log, self._height = log, height
        self._bound = log.kept(height)
        self._held: dict[Hash, Block] = {}

    def __contains__(self, name: Hash) -> bool:
        return name in self._held or name in self._bound

    def get(self, name: bytes) -> Block | None:
        """A block by its hash. Raises OSError."""
        block = self._held.get(Hash(name))
        if block is None and name in self._bound:
            block = self._read(Hash(name))
        return block

    def add(self, block: Block) -> None:
        """Have a block at hand, for as long as there is room."""
        self._held.setdefault(block.hash, block)
        if len(self._held) > MAX_HELD:
            del self._held[next(iter(self._held))]

    def bind(self, block: Block) -> bool:
        """Have a block for good; whether there was room on the disk for it. Raises OSError."""
        name = block.hash
        if name not in self._bound:
            try:
                self._log.keep(self._height, name, pack(block))
            except Invalid as error:
                if error.reason == Reason.DISK_FULL:
                    return False
                raise
            self._bound.add(name)
        self.add(block)
        return True

    def _read(self, name: Hash) -> Block | None:
        """A block from the disk; one that is damaged there is as good as none: others have it."""
        try:
            block = unpack_block(self._log.body(self._height, name))
            if block.hash == name:
                self.add(block)
                return block
        except Invalid:
            pass
        self._bound.discard(name)
        return None
