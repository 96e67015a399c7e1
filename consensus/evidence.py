"""The detector: two statements of one voter that no honest one makes both (CONSENSUS 4.8).

It sees statements whose signatures were checked, of one height and the one before, and keeps the
first of each voter by kind and view. A voter is shown once a height.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from consensus.decision import VIEWS_AHEAD
from consensus.record import PAST_VIEWS
from ledger.blocks import Vote, VoteKind
from ledger.evidence import is_offence
from ledger.payloads import Evidence
from ledger.types import PublicKey, Signature

MAX_OF_A_KIND: Final = PAST_VIEWS + 1 + VIEWS_AHEAD
"""Statements of one voter at one height: one in each view of which votes are heard. Beyond them
those of the lowest view go: with what is heard from then on, a higher one convicts where they did.
"""
MAX_VOTERS: Final = 512
"""Whose statements of one height are kept: a committee, and those who led beside it."""


@dataclass
class _Voter:
    statements: dict[tuple[int, int], tuple[Vote, Signature]] = field(default_factory=dict)
    shown: bool = False


class Watch:
    """What voters have said of late."""

    def __init__(self) -> None:
        self._heights: dict[int, dict[PublicKey, _Voter]] = {}

    def see(self, signer: PublicKey, vote: Vote, signature: Signature) -> Evidence | None:
        """Take note of a statement; the evidence, if with it there is some."""
        voter = self._voter(vote.height, signer)
        key = vote.kind, vote.view
        if voter.shown or voter.statements.get(key, (None,))[0] == vote:
            return None
        for known, known_signature in _rivals(voter, vote):
            if is_offence(known, vote):
                voter.shown = True
                voter.statements.clear()
                return Evidence(signer, known, known_signature, vote, signature)
        voter.statements[key] = vote, signature
        views = [view for kind, view in voter.statements if kind == vote.kind]
        if len(views) > MAX_OF_A_KIND:
            del voter.statements[vote.kind, min(views)]
        return None

    def forget(self, height: int) -> None:
        """Let go of what was said of heights before this one."""
        for old in [known for known in self._heights if known < height]:
            del self._heights[old]

    def _voter(self, height: int, signer: PublicKey) -> _Voter:
        voters = self._heights.setdefault(height, {})
        if signer not in voters and len(voters) == MAX_VOTERS:
            del voters[next(iter(voters))]
        return voters.setdefault(signer, _Voter())


def _rivals(voter: _Voter, vote: Vote) -> Iterator[tuple[Vote, Signature]]:
    """The statements of a voter that could convict it together with a vote."""
    same = voter.statements.get((vote.kind, vote.view))
    if same:
        yield same
    other = {
        VoteKind.FINALISE: VoteKind.TIMEOUT,
        VoteKind.TIMEOUT: VoteKind.FINALISE,
    }.get(VoteKind(vote.kind))
    for (kind, _), known in voter.statements.items():
        if kind == other:
            yield known
