"""The rule book of gossip: one comment and one `if` for each condition, in order.

* [REJECT] is the sender's fault: the record is dropped and the peer that passed it on loses score.
* [IGNORE] is nobody's fault (late, known, too many): dropped without blame.
* Returning means: new, and to be passed on.

What was already seen and the time are arguments, so that a rule can be tested without a network.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from consensus.committee import Verify
from consensus.decision import VIEWS_AHEAD
from consensus.hearing import check_body, check_justified, check_lock
from consensus.replica import Standing
from gossip.topics import Announcement, OpenCall, PeerRecord, Topic, topic_of
from ledger.blocks import NO_CERTIFICATE, Block, Certificate, VoteKind
from ledger.call import Place
from ledger.errors import Invalid, Reason
from ledger.keys import verify
from ledger.transactions import SignedTransaction, check_envelope
from ledger.types import Hash, PublicKey, Signature
from ledger.votes import NO_LOCK, Ballot, Proposal, TimeoutCertificate

MAX_AUTHORS = 4096
"""Authors remembered at once: about 1 MB. The one silent longest is forgotten first."""
MAX_CALLS = 4096
MAX_CERTIFICATES = 256
REPEATED_EVERY_S = 1.0
"""Of certificates that show the same all voters say one each; this often one is passed on, which
serves those who missed the last. So is what a leader proposes."""
Shown = tuple[int, int, int, bytes]
"""Kind, height, view and block of a certificate."""
MAX_SIGNATURES = 8192
"""Signatures remembered as good: those of 100 voters in 25 views, about 4 MB."""
CHECKS_RATE, CHECKS_BURST = 150.0, 1024.0
"""Unknown signatures that are checked for one author: two certificates of 67 voters a second, four
of the most signers at once. At 60 us each, an author takes no more than a hundredth of a core."""
NOBODY = PublicKey(bytes(32))
"""In whose name those are counted together who have no say, as anyone can make such keys."""
MAX_LEADERS = 256
"""Leaders of views whose proposals are remembered: those of a height, a few times over."""
MAX_PROPOSALS = 2
"""Of one leader in one view: with a second it is convicted, so that a third serves nobody."""
MAX_AHEAD_MS = 10 * 60_000
"""How far clocks may differ (= 10 minutes): a record dated further ahead would shadow its author's
later ones, one dated further back is somebody's who brings back the past."""
MAX_CALL_MS = 60_000
"""An open call may wait for offers for a minute at most."""


class Ignore(Exception):  # noqa: N818 - the words of the gossipsub specification
    """Dropped without blame."""


class Ahead(Ignore):
    """Dropped without blame: it is of a height that is not being decided here yet."""

    def __init__(self, height: int) -> None:
        super().__init__(f"of height {height}, which is yet to come here")
        self.height = height


class Reject(Exception):  # noqa: N818
    """Dropped, and whoever passed it on is blamed."""


@dataclass
class Bucket:
    """A token bucket: `rate` a second on average, `burst` at once."""

    rate: float
    burst: float
    level: float
    at: float

    def take(self, now: float, cost: int = 1) -> bool:
        """Use so many tokens if they are there; `now` in seconds of a clock that only goes on."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < cost:
            return False
        self.level -= cost
        return True


@dataclass
class Seen:
    """What this node has accepted before; bounded."""

    seqs: OrderedDict[PublicKey, int] = field(default_factory=OrderedDict)
    calls: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    certificates: OrderedDict[Shown, float] = field(default_factory=OrderedDict)
    """When one that shows the same was heard last."""
    proposals: OrderedDict[tuple[int, int, PublicKey], dict[Hash, float]] = field(
        default_factory=OrderedDict
    )
    """Of each height, view and leader: the blocks, and when each was proposed last."""
    signatures: OrderedDict[tuple[PublicKey, bytes, Signature], None] = field(
        default_factory=OrderedDict
    )
    """Those of votes that were found good, and over what: certificates repeat them."""
    buckets: OrderedDict[tuple[str, PublicKey], Bucket] = field(default_factory=OrderedDict)

    def author_may_speak(self, topic: Topic, key: PublicKey, now: float) -> bool:
        """Whether the author is within the topic's rate; uses it up."""
        return self._bucket(topic.name, key, topic.rate, topic.burst, now).take(now)

    def verifier(self, author: PublicKey, now: float) -> Verify:
        """What checks the signatures that an author shows, each good one once.

        It raises Invalid BAD_SIGNATURE; Ignore where the author has shown too many unknown ones.
        """
        bucket = self._bucket("signatures", author, CHECKS_RATE, CHECKS_BURST, now)

        def check(key: PublicKey, digest: bytes, signature: Signature) -> None:
            shown = key, digest, signature
            if shown not in self.signatures:
                if not bucket.take(now):
                    raise Ignore("an author who shows too many signatures")
                verify(key, digest, signature)
            self.signatures[shown] = None
            self.signatures.move_to_end(shown)
            _trim(self.signatures, MAX_SIGNATURES)

        return check

    def _bucket(self, of: str, key: PublicKey, rate: float, burst: float, now: float) -> Bucket:
        bucket = self.buckets.pop((of, key), None) or Bucket(rate, burst, burst, now)
        self.buckets[of, key] = bucket
        _trim(self.buckets, MAX_AUTHORS)
        return bucket


def _trim(table: OrderedDict[object, object] | OrderedDict, most: int) -> None:  # type: ignore[type-arg]
    while len(table) > most:
        table.popitem(last=False)


def validate_presence(seen: Seen, record: PeerRecord, author: PublicKey, now_ms: int) -> None:
    """Check a PeerRecord whose signature holds. Raises Ignore, Reject."""
    # [REJECT] The message's author is the node that the record describes.
    if record.key != author:
        raise Reject("a presence said by another node")
    # [REJECT] A node is not its own neighbour, and no neighbour is named twice.
    keys = {neighbour.key for neighbour in record.neighbours}
    if record.key in keys or len(keys) != len(record.neighbours):
        raise Reject("a presence with impossible neighbours")
    # [IGNORE] The record is not dated far ahead of our clock.
    if record.seq > now_ms + MAX_AHEAD_MS:
        raise Ignore("a presence from the future")
    # [IGNORE] The record is not from a time whose records have all expired.
    if record.seq < now_ms - MAX_AHEAD_MS:
        raise Ignore("a presence from the past")
    # [IGNORE] The record is newer than the last one of its author.
    if record.seq <= seen.seqs.get(record.key, -1):
        raise Ignore("a presence older than the one we hold")
    seen.seqs[record.key] = record.seq
    seen.seqs.move_to_end(record.key)
    _trim(seen.seqs, MAX_AUTHORS)


def validate_call(seen: Seen, call: OpenCall, author: PublicKey, now_ms: int) -> None:
    """Check an OpenCall whose signature holds. Raises Ignore, Reject."""
    # [REJECT] The message's author is the node that asks.
    if call.key != author:
        raise Reject("a call said by another node")
    # [REJECT] At least one answer is wanted, and not more than anyone could use.
    if not 1 <= call.answers <= 64:
        raise Reject("a call for an impossible number of answers")
    # [IGNORE] The call is still open, and not for longer than calls may be.
    if not now_ms < call.expires_ms <= now_ms + MAX_CALL_MS + MAX_AHEAD_MS:
        raise Ignore("a call that is over")
    # [IGNORE] The call is new.
    if call.call in seen.calls:
        raise Ignore("a call we know")
    seen.calls[call.call] = call.expires_ms
    _trim(seen.calls, MAX_CALLS)


# --- the chain


def has_say(standing: Standing, key: PublicKey) -> bool:
    """Whether a key may vote or propose."""
    committees = (standing.committee, standing.before)
    return any(one.index_of(key) is not None for one in committees) or key in standing.lottery.keys


def accountable(standing: Standing, key: PublicKey) -> PublicKey:
    """In whose name what a key says of the chain is counted."""
    return key if has_say(standing, key) else NOBODY


def validate_proposal(
    seen: Seen,
    standing: Standing,
    view: int,
    said: Proposal | Announcement,
    author: PublicKey,
    now: float,
) -> bool:
    """Check a proposal, or what announces one; `view` is the one this node is in, `now` in seconds.

    Whether it is the leader's first in its view: what comes of a second is evidence only.
    Raises Ignore, Ahead, Reject.
    """
    header = said.block.header if isinstance(said, Proposal) else said.header
    # [REJECT] The message's author is the leader who signed.
    if said.leader != author:
        raise Reject("a proposal said by another node")
    # [REJECT] The block is of this chain.
    if header.chain != standing.chain:
        raise Reject("a proposal of another network")
    # [REJECT] A view above 0 comes with the timeout certificate of the one before, no other does.
    if bool(said.timeout) != (said.view > 0):
        raise Reject("a proposal of a view that nothing leads to")
    # [IGNORE] The height is being decided.
    _check_height(standing, header.height)
    # [IGNORE] The view is not over, and not so far ahead that its votes are not counted.
    if not view <= said.view <= view + VIEWS_AHEAD:
        raise Ignore("a proposal of a view that is over, or far ahead")
    # [REJECT] It is the leader's turn.
    if said.leader != standing.lottery.leader(header.height, said.view):
        raise Reject("a proposal out of turn")
    # [IGNORE] It is one of the leader's first two in that view, and was not said a moment ago.
    name, place = header.hash, (header.height, said.view, said.leader)
    known = seen.proposals.get(place, {})
    if now - known.get(name, -REPEATED_EVERY_S) < REPEATED_EVERY_S:
        raise Ignore("a proposal we know")
    if name not in known and len(known) >= MAX_PROPOSALS:
        raise Ignore("a proposal of a leader who has made others")
    # [REJECT] It is signed and justified.
    try:
        _check_proposed(standing, said, seen.verifier(author, now))
    except Invalid as error:
        raise Reject(str(error)) from None
    seen.proposals[place] = {**known, name: now}
    seen.proposals.move_to_end(place)
    _trim(seen.proposals, MAX_LEADERS)
    return next(iter(seen.proposals[place])) == name


def _check_proposed(standing: Standing, said: Proposal | Announcement, verifier: Verify) -> None:
    """Raises Invalid, Ignore."""
    whole = said if isinstance(said, Proposal) else said.of(Block(said.header, NO_CERTIFICATE, ()))
    # [REJECT] The leader signed it.
    verifier(said.leader, whole.vote.digest(standing.chain), said.signature)
    # [REJECT] The body, where it is said, is the one that the header names.
    if isinstance(said, Proposal):
        check_body(said.block)
    # [REJECT] The certificates are those that let the leader propose this block in this view.
    check_justified(whole)
    # [REJECT] They show a quorum's signatures.
    for timeout in said.timeout:
        standing.committee.check_timeout(standing.chain, timeout, verifier)
    for lock in said.notarisation:
        standing.committee.check(standing.chain, lock, verifier)


def validate_ballot(
    seen: Seen, standing: Standing, ballot: Ballot, author: PublicKey, now: float
) -> None:
    """Check a voter's vote; `now` in seconds. Raises Ignore, Ahead, Reject."""
    vote = ballot.vote
    # [REJECT] The message's author is the voter.
    if ballot.signer != author:
        raise Reject("a vote said by another node")
    # [REJECT] The vote is of a kind that voters cast, with what belongs to that kind.
    if vote.kind == VoteKind.TIMEOUT:
        fits = not vote.block and NO_LOCK <= vote.locked <= vote.view
        fits = fits and bool(ballot.lock) == (vote.locked > NO_LOCK)
    else:
        fits = vote.kind in (VoteKind.NOTARISE, VoteKind.FINALISE) and len(vote.block) == 32
        fits = fits and vote.locked == NO_LOCK and not ballot.lock
    if not fits:
        raise Reject("a vote that nobody casts")
    # [IGNORE] The height is being decided, or was a moment ago: who was slow is counted too.
    late = 0 < vote.height == standing.height - 1
    if not late:
        _check_height(standing, vote.height)
    # [REJECT] The voter is of the committee.
    committee = standing.before if late else standing.committee
    if committee.index_of(ballot.signer) is None:
        raise Reject("a vote of a node that has none")
    try:
        verifier = seen.verifier(author, now)
        # [REJECT] The voter signed it.
        verifier(ballot.signer, vote.digest(standing.chain), ballot.signature)
        # [REJECT] What a timeout is locked on was notarised by a quorum.
        for lock in ballot.lock:
            check_lock(vote, lock)
            committee.check(standing.chain, lock, verifier)
    except Invalid as error:
        raise Reject(str(error)) from None


def validate_certificate(
    seen: Seen,
    standing: Standing,
    said: Certificate | TimeoutCertificate,
    author: PublicKey,
    now: float,
) -> None:
    """Check a certificate, which anyone may say; `now` in seconds. Raises Ignore, Ahead, Reject."""
    # [IGNORE] The height is being decided.
    _check_height(standing, said.height)
    # [IGNORE] None that shows the same was heard a moment ago.
    shown = shown_by(said)
    if now - seen.certificates.get(shown, -REPEATED_EVERY_S) < REPEATED_EVERY_S:
        raise Ignore("a certificate we know")
    # [REJECT] It shows a quorum's signatures.
    verifier = seen.verifier(accountable(standing, author), now)
    try:
        if isinstance(said, Certificate):
            standing.committee.check(standing.chain, said, verifier)
        else:
            standing.committee.check_timeout(standing.chain, said, verifier)
    except Invalid as error:
        raise Reject(str(error)) from None
    seen.certificates[shown] = now
    seen.certificates.move_to_end(shown)
    _trim(seen.certificates, MAX_CERTIFICATES)


def shown_by(said: Certificate | TimeoutCertificate) -> Shown:
    """What a certificate shows, whoever signed it."""
    if isinstance(said, Certificate):
        return said.kind, said.height, said.view, said.block
    return VoteKind.TIMEOUT, said.height, said.view, b""


def validate_transaction(
    standing: Standing, topic: Topic, signed: SignedTransaction, size: int
) -> None:
    """Check a transaction of `size` bytes, but for what the state says. Raises Ignore, Reject."""
    # [REJECT] It is said on the topic for its kind.
    if topic_of(signed.transaction) != topic:
        raise Reject("a transaction on another topic than its own")
    place = Place(standing.params, standing.chain, standing.height)
    try:
        check_envelope(place, signed.transaction, size)
    except Invalid as error:
        # [IGNORE] It is valid at this height; where others are, it may be.
        if error.reason == Reason.EXPIRED:
            raise Ignore(str(error)) from None
        # [REJECT] It is of this chain, and its fee is what its size asks.
        raise Reject(str(error)) from None
    # [REJECT] The sender signed it.
    try:
        verify(signed.transaction.sender, signed.transaction.id, signed.signature)
    except Invalid as error:
        raise Reject(str(error)) from None


def _check_height(standing: Standing, height: int) -> None:
    """Raises Ahead, Ignore."""
    if height > standing.height:
        raise Ahead(height)
    if height < standing.height:
        raise Ignore("of a height that is decided")
