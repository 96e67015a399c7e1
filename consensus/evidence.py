"""The detector: two statements of one voter that no honest one makes both (CONSENSUS 4.8).

It sees statements whose signatures were checked, of one height and the one before, and keeps the
first of each voter by kind and view. A voter is shown once a height.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ledger.blocks import Vote, VoteKind
from ledger.evidence import is_offence
from ledger.payloads import Evidence
from ledger.types import PublicKey, Signature

MAX_STATEMENTS: Final = 256
"""Of one voter at one height: four a view in 64 views. Beyond them its oldest go."""
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
        if len(voter.statements) > MAX_STATEMENTS:
            del voter.statements[next(iter(voter.statements))]
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
