"""What must hold in every schedule, judged without the code that is judged (CONSENSUS 6.2).

* `Knowledge`: of every vote and proposal of an honest node, that the rules R0 to R3 allowed it, by
  what the node had received and said before.
* `Ghost`: over every signature ever made, delivered or not, no two quorums decide differently, and
  no evidence convicts an honest node.
"""

from collections import defaultdict
from collections.abc import Callable, Collection

from consensus.committee import Committee
from consensus.evidence import Watch
from ledger.blocks import Block, Certificate, Vote, VoteKind
from ledger.codec import pack
from ledger.errors import Invalid
from ledger.types import PublicKey, Signature
from ledger.votes import Ballot, Message, Proposal, TimeoutCertificate
from tests.simulate.signatures import verify_cheaply
from tests.simulate.world import CHAIN, World


class Violation(AssertionError):  # noqa: N818
    """Something that may never happen has."""


def weight_of(committee: Committee, keys: Collection[bytes]) -> int:
    """What voters weigh, each once."""
    members = zip(committee.keys, committee.weights, strict=True)
    return sum(weight for key, weight in members if key in keys)


def is_quorum(committee: Committee, keys: Collection[bytes]) -> bool:
    """Whether voters have more than two thirds of the weight."""
    return 3 * weight_of(committee, keys) > 2 * sum(committee.weights)


def is_signed(key: bytes, vote: Vote, signature: bytes) -> bool:
    try:
        verify_cheaply(key, vote.digest(CHAIN), signature)
    except Invalid:
        return False
    return True


class Genuine:
    """Which certificates really show a quorum; each is looked into once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[bytes, bool] = {}

    def __call__(self, certificate: Certificate | TimeoutCertificate) -> bool:
        name = bytes([isinstance(certificate, Certificate)]) + pack(certificate)
        if name not in self._known:
            self._known[name] = self._judge(certificate)
        return self._known[name]

    def _judge(self, certificate: Certificate | TimeoutCertificate) -> bool:
        committee = self._world.committee(certificate.height)
        signed = set()
        for signer in certificate.signers:
            if signer.index >= len(committee.keys):
                return False
            key = committee.keys[signer.index]
            if isinstance(certificate, Certificate):
                kind, block, locked = certificate.kind, certificate.block, -1
            else:
                kind, block, locked = VoteKind.TIMEOUT, b"", signer.locked  # type: ignore[union-attr]
            vote = Vote(kind, certificate.height, certificate.view, block, locked)
            if is_signed(key, vote, signer.signature):
                signed.add(key)
        return is_quorum(committee, signed)


class Height:
    """What a node has seen of one height."""

    def __init__(self, committee: Committee) -> None:
        self.committee = committee
        self.locks: set[tuple[int, bytes]] = set()
        self.votes: dict[tuple[int, bytes], set[bytes]] = defaultdict(set)
        self.timeouts: dict[int, dict[bytes, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.left: set[int] = set()
        self.proposals: dict[int, list[Proposal]] = defaultdict(list)
        self.said: dict[tuple[int, int], Vote] = {}


class Knowledge:
    """One honest node: what it has received and said, and so what it may say.

    What it forgot in a crash is still here: this allows a little more than the rules do.
    """

    def __init__(self, world: World, key: PublicKey, genuine: Genuine) -> None:
        self._world, self._key, self._genuine = world, key, genuine
        self._heights: dict[int, Height] = {}

    def _at(self, height: int) -> Height:
        if height not in self._heights:
            self._heights[height] = Height(self._world.committee(height))
        return self._heights[height]

    # --- what it receives

    def note(self, message: Message) -> None:
        """It has got a message."""
        match message:
            case Ballot(vote):
                if is_signed(message.signer, vote, message.signature):
                    self._note_vote(message.signer, vote)
                for lock in message.lock:
                    self._note_certificate(lock)
            case Proposal():
                if is_signed(message.leader, message.vote, message.signature):
                    height = self._at(message.vote.height)
                    height.proposals[message.view].append(message)
                for certificate in (*message.timeout, *message.notarisation):
                    self._note_certificate(certificate)
            case _:
                self._note_certificate(message)

    def _note_vote(self, signer: bytes, vote: Vote) -> None:
        height = self._at(vote.height)
        if vote.kind == VoteKind.NOTARISE:
            height.votes[vote.view, vote.block].add(signer)
        elif vote.kind == VoteKind.TIMEOUT:
            height.timeouts[vote.view][signer].add(vote.locked)

    def _note_certificate(self, certificate: Certificate | TimeoutCertificate) -> None:
        if not self._genuine(certificate):
            return
        height = self._at(certificate.height)
        if isinstance(certificate, TimeoutCertificate):
            height.left.add(certificate.view)
        elif certificate.kind == VoteKind.NOTARISE:
            height.locks.add((certificate.view, certificate.block))

    # --- what it says

    def judge(self, message: Message, check: Callable[[Block], None]) -> None:
        """It says a message: was it allowed to? `check` raises Invalid for a wrong block."""
        if isinstance(message, Certificate | TimeoutCertificate):
            self._require(self._genuine(message), "a certificate without a quorum", message)
            return
        vote = message.vote
        height = self._at(vote.height)
        known = height.said.get((vote.kind, vote.view))
        self._require(known in (None, vote), "two different statements", vote)
        if known is None:
            self._judge_new(height, message, check)
            height.said[vote.kind, vote.view] = vote
        self.note(message)

    def _judge_new(
        self, height: Height, message: Ballot | Proposal, check: Callable[[Block], None]
    ) -> None:
        vote = message.vote
        if isinstance(message, Proposal):
            self._require(message.leader == self._leader(vote), "not its turn", vote)
            self._require(self._is_justified(message), "an unjustified proposal", vote)
            return
        joins = vote.kind == VoteKind.TIMEOUT
        self._require(self._is_in(height, vote.view, joins), "a view it had no way into", vote)
        if vote.kind == VoteKind.TIMEOUT:
            self._judge_timeout(height, vote)
            return
        later = [view for kind, view in height.said if kind != VoteKind.PROPOSE]
        self._require(vote.view >= max(later, default=0), "a vote for a past view", vote)
        given_up = (VoteKind.TIMEOUT, vote.view) in height.said
        self._require(not given_up, "a vote after its timeout", vote)
        if vote.kind == VoteKind.FINALISE:
            self._require(self._is_locked(height, vote.view, vote.block), "F without QC", vote)
        else:
            self._require(self._may_notarise(height, vote, check), "N without a reason", vote)

    def _judge_timeout(self, height: Height, vote: Vote) -> None:
        if vote.locked >= 0:
            blocks = {block for view, block in height.votes if view == vote.locked}
            blocks |= {block for view, block in height.locks if view == vote.locked}
            locked = any(self._is_locked(height, vote.locked, block) for block in blocks)
            self._require(locked, "a lock without QC", vote)
        finalised = [
            view for kind, view in height.said if kind == VoteKind.FINALISE and view <= vote.view
        ]
        self._require(vote.locked >= max(finalised, default=-1), "amnesia", vote)

    def _may_notarise(self, height: Height, vote: Vote, check: Callable[[Block], None]) -> bool:
        return any(
            proposal.block.hash == vote.block
            and proposal.leader == self._leader(vote)
            and self._is_justified(proposal)
            and (bool(proposal.notarisation) or is_valid(proposal.block, check))
            for proposal in height.proposals[vote.view]
        )

    def _is_justified(self, proposal: Proposal) -> bool:
        header, view = proposal.block.header, proposal.view
        if view == 0:
            return not proposal.timeout and header.view == 0
        if len(proposal.timeout) != 1:
            return False
        timeout = proposal.timeout[0]
        if (timeout.height, timeout.view) != (header.height, view - 1):
            return False
        if not self._genuine(timeout):
            return False
        highest = max(signer.locked for signer in timeout.signers)
        if highest < 0:
            return header.view == view
        return any(
            lock.kind == VoteKind.NOTARISE
            and (lock.height, lock.view) == (header.height, highest)
            and lock.block == proposal.block.hash
            and self._genuine(lock)
            for lock in proposal.notarisation
        )

    def _is_in(self, height: Height, view: int, joins: bool) -> bool:
        """Whether it had a way into a view, or joins those who gave it up."""
        if view == 0 or view - 1 in height.left:
            return True
        if is_quorum(height.committee, height.timeouts[view - 1]):
            return True
        blocks = {block for at, block in (*height.votes, *height.locks) if at == view}
        if any(self._is_locked(height, view, block) for block in blocks):
            return True
        others = weight_of(height.committee, height.timeouts[view])
        total = sum(height.committee.weights)
        return joins and others > total - (2 * total // 3 + 1)

    def _is_locked(self, height: Height, view: int, block: bytes) -> bool:
        return (view, block) in height.locks or is_quorum(
            height.committee, height.votes[view, block]
        )

    def _leader(self, vote: Vote) -> PublicKey:
        return self._world.leader(vote.height, vote.view)

    def _require(self, holds: bool, what: str, said: object) -> None:
        if not holds:
            name = self._world.numbers[self._key]
            raise Violation(f"honest node {name}: {what}: {said}")


def is_valid(block: Block, check: Callable[[Block], None]) -> bool:
    try:
        check(block)
    except Invalid:
        return False
    return True


class Ghost:
    """Every statement that was ever signed and left a node's hands."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._watch = Watch()
        self._votes: dict[tuple[int, int, int], dict[bytes, set[bytes]]] = defaultdict(
            lambda: defaultdict(set)
        )
        self.convicted: set[int] = set()

    def note(self, signer: PublicKey, vote: Vote, signature: Signature) -> None:
        """A statement was made. Raises Violation."""
        evidence = self._watch.see(signer, vote, signature)
        if evidence:
            number = self._world.numbers[signer]
            self.convicted.add(number)
            if number not in self._world.byzantine:
                raise Violation(f"evidence against honest node {number}: {evidence}")
        if vote.kind in (VoteKind.NOTARISE, VoteKind.FINALISE):
            self._votes[vote.kind, vote.height, vote.view][vote.block].add(signer)

    def judge(self) -> None:
        """Two blocks with a quorum in one view, or two decided at one height, are one too many.

        Raises Violation.
        """
        decided: dict[int, set[bytes]] = defaultdict(set)
        for (kind, height, view), blocks in self._votes.items():
            committee = self._world.committee(height)
            winners = {block for block, keys in blocks.items() if is_quorum(committee, keys)}
            if len(winners) > 1:
                raise Violation(f"two quorums of kind {kind} at height {height} in view {view}")
            if kind == VoteKind.FINALISE:
                decided[height] |= winners
        for height, blocks in decided.items():
            if len(blocks) > 1:
                raise Violation(f"two blocks could be decided at height {height}")
