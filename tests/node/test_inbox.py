"""What waits for the core: in order, bounded, the least of it dropped first."""

import trio

from ledger.blocks import NO_CERTIFICATE, Vote, VoteKind
from ledger.types import Hash, PublicKey, Signature
from ledger.votes import Ballot
from p2p.node.inbox import MAX_BATCH, MAX_WAITING, Inbox


def ballot(height: int) -> Ballot:
    vote = Vote(VoteKind.NOTARISE, height, 0, Hash(bytes(32)))
    return Ballot(vote, PublicKey(bytes(32)), Signature(bytes(64)))


async def test_items_come_in_order_in_batches() -> None:
    inbox = Inbox()
    items = [ballot(number) for number in range(MAX_BATCH + 5)]
    for item in items:
        inbox.put(item)
    await inbox.wait()
    assert inbox.take() == items[:MAX_BATCH]
    await inbox.wait()
    assert inbox.take() == items[MAX_BATCH:]
    with trio.move_on_after(0.05) as scope:
        await inbox.wait()
    assert scope.cancelled_caught
    assert inbox.take() == []


def test_of_too_many_the_oldest_vote_goes_first_for_its_voter_says_it_again() -> None:
    inbox = Inbox()
    inbox.put(NO_CERTIFICATE)
    for number in range(MAX_WAITING):
        inbox.put(ballot(number))
    assert inbox.dropped == 1
    first, second, *_ = inbox.take()
    assert first == NO_CERTIFICATE
    assert second == ballot(1)
