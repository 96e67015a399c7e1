"""What the Byzantine nodes of a schedule do, by kind.

* silent: nothing.
* chaos: leads with two blocks at once, votes for everything, forges certificates, picks the worst
  timeouts, shows notarisations late, repeats and spoils old messages.
* withhold: votes in secret, keeps notarisations to itself, and leads with the stalest block.
* twins: two honest nodes with one key each.
* phantom: gives views up locked on notarisations that do not exist.
* hoard: leads with one block after the other, and shows what it had notarised of the first ones
  when others have seen many since.
* loss: chaos, beside an honest node that loses its disk.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ledger.blocks import Certificate, Signer, Vote, VoteKind
from ledger.keys import KeyPair
from ledger.types import Hash, Signature
from ledger.votes import (
    NO_LOCK,
    Ballot,
    Proposal,
    TimeoutCertificate,
    TimeoutSigner,
)
from tests.simulate.adversary import Adversary, Twins
from tests.simulate.chain import GENESIS
from tests.simulate.mind import Mind, Scene

if TYPE_CHECKING:
    from tests.simulate.simulation import Simulation

FAR = 10**6
"""A view that no schedule reaches."""


class Deeds(Mind):
    """All that it may do."""

    def _do_something(self) -> None:
        height = self.height
        scene = self._scenes[height]
        number = self.random.choice(list(self.pairs))
        way = self.random.choice(self.ways.split())
        getattr(self, f"_{way}")(self.pairs[number], height, scene)

    def _near(self, scene: Scene) -> int:
        return max(0, scene.view + self.random.choice((-1, 0, 0, 0, 1)))

    def _lead(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Propose as the worst leader: two blocks, or the stalest that can be justified."""
        for view in range(max(0, scene.view - 1), scene.view + 2):
            leads = self.world.leader(height, view) == pair.public
            if not leads or self.random.random() < 0.2:
                continue
            timeout = lock = None
            if view > 0:
                timeout = self._worst_timeout(height, view - 1)
                if timeout is None:
                    continue
            if timeout is not None and timeout.locked != NO_LOCK:
                lock = self.locks(height).get(timeout.locked)
                block = scene.blocks.get(lock.block) if lock else None
                if block is None:
                    continue
                self.tell(pair, self.propose(pair, view, block, timeout, lock), 0.5)
            elif (view, height) not in scene.led or self.random.random() < 0.1:
                scene.led.add((view, height))
                for _ in range(self.random.choice((1, 2, 2, 3))):
                    block = self.fresh(pair, height, view, self.random.random() < 0.2)
                    if block:
                        self.tell(pair, self.propose(pair, view, block, timeout))

    def _worst_timeout(self, height: int, view: int) -> TimeoutCertificate | None:
        highest = self.random.random() < 0.3
        known = [at for at in self.locks(height) if at <= view]
        own = self.random.choice([NO_LOCK, NO_LOCK, *known])
        return self.timeout(height, view, own, highest)

    def _lead_wrongly(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Propose what the timeouts do not allow: a fresh block, or a lower notarisation's."""
        locks = self.locks(height)
        for view in range(1, scene.view + 2):
            timeout = None
            if self.world.leader(height, view) == pair.public:
                timeout = self.timeout(height, view - 1, NO_LOCK, highest=True)
            if timeout is None or timeout.locked == NO_LOCK:
                continue
            lower = [lock for at, lock in locks.items() if at < timeout.locked]
            if lower and self.random.random() < 0.7:
                lock = self.random.choice(lower)
                block = scene.blocks.get(lock.block)
                if block and timeout.locked in locks:
                    self.tell(pair, locks[timeout.locked], 0.8)
                    self.tell(pair, self.propose(pair, view, block, timeout, lock), 0.8)
            elif block := self.fresh(pair, height, view):
                self.tell(pair, self.propose(pair, view, block, timeout))

    def _vote(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Vote for anything, in secret from some."""
        if not scene.blocks:
            return
        block = self.random.choice(list(scene.blocks))
        kind = self.random.choice((VoteKind.NOTARISE, VoteKind.FINALISE))
        self.tell(pair, self.ballot(pair, Vote(kind, height, self._near(scene), block)))

    def _vote_along(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Vote for what others vote for, in secret from some."""
        votes = [key for key in scene.votes if key[1] >= scene.view - 1]
        if votes:
            kind, view, block = self.random.choice(votes)
            self.tell(pair, self.ballot(pair, Vote(kind, height, view, block)), 0.6)

    def _give_up(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Give a view up with any lock that can be shown, or none."""
        view = self._near(scene)
        locks = {at: lock for at, lock in self.locks(height).items() if at <= view}
        at = self.random.choice([NO_LOCK, *locks])
        vote = Vote(VoteKind.TIMEOUT, height, view, b"", at)
        self.tell(pair, self.ballot(pair, vote, locks.get(at)), 0.7)

    def _give_up_low(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Give a view up as if nothing had been notarised."""
        vote = Vote(VoteKind.TIMEOUT, height, scene.view, b"", NO_LOCK)
        self.tell(pair, self.ballot(pair, vote), 0.9)

    def _show_late(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Show one node a notarisation that it may not know, long after."""
        locks = list(self.locks(height).values())
        if locks:
            self.tell(pair, self.random.choice(locks), 0.3)

    def _show_timeout(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Show some a view that was given up, with the locks that suit it."""
        timeout = self._worst_timeout(height, self._near(scene))
        if timeout:
            if timeout.locked != NO_LOCK and (lock := self.locks(height).get(timeout.locked)):
                self.tell(pair, lock)
            self.tell(pair, timeout)

    def _decide(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Show one node alone that a block is decided."""
        for kind, view, block in list(scene.votes):
            if kind == VoteKind.FINALISE:
                final = self.certificate(kind, height, view, block)
                if final:
                    self.tell(pair, final, 0.3)

    def _forge(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Certificates that show nothing: one voter many times over, too few, or bad signatures."""
        if not scene.blocks:
            return
        view, block = self._near(scene), Hash(self.random.choice(list(scene.blocks)))
        kind = self.random.choice((VoteKind.NOTARISE, VoteKind.FINALISE))
        committee = self.world.committee(height)
        index = committee.index_of(pair.public)
        if index is None:
            return
        signature = self.sign(pair, Vote(kind, height, view, block))
        signers: Iterable[Signer] = [Signer(index, signature)] * 2 * len(committee.keys)
        if self.random.random() < 0.4:
            signers = (Signer(at, signature) for at in range(len(committee.keys)))
        message = Certificate(kind, height, view, block, tuple(signers))
        self.tell(pair, message, 0.8)
        locked = self.random.choice((NO_LOCK, view))
        timeout = Vote(VoteKind.TIMEOUT, height, view, b"", locked)
        signer = TimeoutSigner(index, locked, self.sign(pair, timeout))
        forged = TimeoutCertificate(height, view, (signer,) * 2 * len(committee.keys))
        self.tell(pair, forged, 0.8)

    def _repeat(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Say again what was said once, at this height or the one before."""
        heard = self._scenes[height - self.random.randint(0, 1)].heard
        if heard:
            self.tell(pair, self.random.choice(heard))

    def _spoil(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Say something of another with a part changed."""
        if not scene.heard:
            return
        message = self.random.choice(scene.heard)
        match message:
            case Ballot(vote):
                changed = self.random.choice(
                    (
                        replace(message, vote=replace(vote, view=vote.view + 1)),
                        replace(message, signer=pair.public),
                        replace(message, lock=()),
                        replace(message, vote=replace(vote, height=height + 1)),
                    )
                )
                self.tell(pair, changed)
            case Proposal(block=block):
                other = replace(block, transactions=(*block.transactions, b"more"))
                spoiled = replace(message, block=other)
                self.tell(pair, self.random.choice((spoiled, replace(message, timeout=()))))
            case Certificate(kind=kind):
                others = [other for other in range(6) if other != kind]
                self.tell(pair, replace(message, kind=self.random.choice(others)))
                self.tell(pair, replace(message, view=message.view + 1))
                self.tell(pair, replace(message, signers=message.signers[1:]))
            case TimeoutCertificate():
                self.tell(pair, replace(message, signers=message.signers[1:]))

    def _run_ahead(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Vote in views and at heights that are far off."""
        view = scene.view + self.random.choice((2, 10, 60, 100, FAR))
        at = height + self.random.choice((0, 0, 1, 2, 50))
        block = self.random.choice([*scene.blocks, GENESIS])
        for kind in (VoteKind.NOTARISE, VoteKind.FINALISE):
            vote = Vote(kind, at, view, block)
            self.tell(pair, Ballot(vote, pair.public, self.sign(pair, vote)))
        vote = Vote(VoteKind.TIMEOUT, at, view, b"", NO_LOCK)
        self.tell(pair, Ballot(vote, pair.public, self.sign(pair, vote)))

    def _phantom(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Give a view up locked on a notarisation that does not exist, forged or left out."""
        view = self._near(scene)
        block = Hash(self.random.choice([*scene.blocks, GENESIS]))
        index = self.world.committee(height).index_of(pair.public)
        if index is None:
            return
        at = self.random.randint(0, view)
        vote = Vote(VoteKind.TIMEOUT, height, view, b"", at)
        forged = Certificate(
            VoteKind.NOTARISE, height, at, block, (Signer(index, Signature(bytes(64))),)
        )
        for lock in (None, forged):
            self.tell(pair, self.ballot(pair, vote, lock), 1.0)

    def _phantom_timeout(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Show everyone a view given up by a quorum, one of them locked on nothing real."""
        view = self._near(scene)
        timeout = self.timeout(height, view, view, highest=True)
        if timeout:
            self.tell(pair, timeout, 1.0)

    def _lead_on(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Propose a fresh block in each view, as if nothing had been notarised."""
        for view in range(scene.view, scene.view + 2):
            if self.world.leader(height, view) != pair.public or (view, height) in scene.led:
                continue
            timeout = self.timeout(height, view - 1, NO_LOCK, highest=False) if view else None
            if view and (timeout is None or timeout.locked != NO_LOCK):
                continue
            block = self.fresh(pair, height, view)
            if block:
                scene.led.add((view, height))
                self.tell(pair, self.propose(pair, view, block, timeout), 1.0)

    def _reveal(self, pair: KeyPair, height: int, scene: Scene) -> None:
        """Show everyone an old notarisation."""
        old = [lock for view, lock in self.locks(height).items() if view <= scene.view - 3]
        if old:
            self.tell(pair, old[0], 1.0)


class Chaos(Deeds):
    ways = (
        "lead lead lead lead_wrongly vote vote_along vote_along give_up show_late show_timeout "
        "decide forge repeat spoil run_ahead"
    )


class Withhold(Deeds):
    ways = (
        "lead lead lead_wrongly lead_wrongly give_up_low show_late show_timeout decide vote_along"
    )


class Phantom(Deeds):
    ways = "phantom phantom phantom_timeout phantom_timeout lead vote_along"


class Hoard(Deeds):
    ways = "lead_on lead_on lead_on give_up_low give_up_low reveal"


MINDS: dict[str, Callable[["Simulation"], Adversary]] = {
    "silent": Adversary,
    "chaos": Chaos,
    "withhold": Withhold,
    "twins": Twins,
    "phantom": Phantom,
    "hoard": Hoard,
    "loss": Chaos,
}
