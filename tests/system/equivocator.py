"""A node that votes for two blocks in each view; it takes the arguments of `yuma`."""

import sys
from dataclasses import replace

from gossip.topics import VOTES
from ledger.blocks import NO_HASH, VoteKind
from ledger.votes import Ballot, Message
from p2p.cli import main
from p2p.node.follow import Follow

say_honestly = Follow._say


async def say_twice(follow: Follow, message: Message) -> None:
    """Say a message and, of a vote for a block, one for no such block too."""
    await say_honestly(follow, message)
    if isinstance(message, Ballot) and message.vote.kind == VoteKind.NOTARISE:
        vote = replace(message.vote, block=NO_HASH)
        signature = follow._pair.sign(vote.digest(follow.chain))
        other = Ballot(vote, message.signer, signature)
        await follow._gossip.publish(VOTES, VOTES.record.encode(other))


if __name__ == "__main__":
    Follow._say = say_twice  # type: ignore[method-assign]
    sys.exit(main())
