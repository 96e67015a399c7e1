"""A process that commits blocks as fast as it can, and says each height once it is on disk.

python -m tests.system.committer PATH
"""

import sys
from pathlib import Path
from random import Random

from ledger.store import Store
from tests.ledger.chain import Changes, commit, some_changes

KEYS = 300
"""So few that rows change and go, and so many that the trees of the tables split and merge."""


def changes_at(height: int) -> Changes:
    """What the block of a height changes."""
    random = Random(height)
    return some_changes(random, random.choice((1, 10, 100)), KEYS)


def main() -> None:
    """Commit until killed."""
    with Store.open(Path(sys.argv[1])) as store:
        with store.snapshot() as disk:
            height = int(disk.head.height)
        while True:
            height += 1
            commit(store, changes_at(height))
            print(height, flush=True)


if __name__ == "__main__":
    main()
