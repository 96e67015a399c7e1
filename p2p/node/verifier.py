"""Answers that are checked: by other servers for clients, by this node for its weights.

* Checkers are servers of the same digest, each another one, which are asked as any are: they have
  turns, prices and receipts. They are told the question and the tokens, not what the server told.
* A server that writes in 16 bits is asked what it finds itself, as they are (`models.verdict`).
* Where servers stand against each other and nobody can tell who is right, one more is asked.
* Who is found wrong is asked only when there is no other, for a day; in a dispute all who differ
  count as having failed just now.
* A validator has answers checked by this node's own worker alone (`check_here`): what other servers
  say must not cost a miner its weight, for most of them may be one owner's.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import trio

from ledger.codec import pack
from ledger.errors import Invalid
from ledger.keys import PeerId, peer_id_of
from ledger.types import Hash, PublicKey
from models.checking import LIKELY
from models.types import MAX_LIKELY, WRITTEN, Kind, Query, Sampling
from models.verdict import Opinion, Outcome, Subject, VerdictBody, judge, sign_verdict
from p2p.node.asking import Answer, NoServer, Request, Tell, Told, Used
from p2p.node.attempt import Broken, Evidence, Lied, Progress, check, listen_here
from p2p.node.caller import NONCE_BYTES, Caller
from p2p.node.router import Router

log = logging.getLogger("yuma.verifier")

MAX_CHECKERS: Final = 8
"""One more may be asked in a dispute."""
CHECK_MS: Final = 60_000
"""A check is one pass, beside what its server writes meanwhile, and a queue before it: on one slow
core enough for some thousand tokens. One that takes longer ends, and is said not to be made."""


@dataclass
class _Checking:
    """The check of one answer."""

    router: Router
    answer: Answer
    subject: Subject
    data: bytes
    """What checkers are asked."""
    most: int | None
    """Rao that it may cost."""
    asked: set[PeerId]
    """Whom not to ask: the server, and those asked already."""
    used: Used | None
    opinions: list[Opinion] = field(default_factory=list)
    cost: int = 0
    problem: str = ""

    @property
    def checkers(self) -> int:
        """How many others have said what they find."""
        return sum(one.receipt.body.server != self._server for one in self.opinions)

    @property
    def _server(self) -> PublicKey:
        return self.subject.receipt.body.server

    async def begin(self, count: int) -> None:
        """Have some servers check it, and its own where what that told is not enough."""
        await self._ask_all(
            [*[None] * count, *([] if self.subject.is_exact else [self.answer.server])]
        )

    async def ask_one_more(self) -> None:
        """Have another server check it."""
        await self._ask_all([None])

    async def _ask_all(self, peers: Sequence[PeerId | None]) -> None:
        """Ask these peers, or whoever else can, at once."""
        # What is left is shared: checks at once must not cost more together than one may.
        left = None if self.most is None else max(0, self.most - self.cost) // len(peers)
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._ask, peer, left)

    async def _ask(self, peer: PeerId | None, most: int | None) -> None:
        request = Request(
            model=self.subject.query.model.hex(),
            data=self.data,
            kind=Kind.CHECK,
            sampling=Sampling(max_tokens=1),
            time_limit_ms=CHECK_MS,
            peer=peer,
            most=most,
        )
        avoid = self.asked if peer is None else None
        try:
            answer = await self.router.ask(request, _no_news, avoid, self.used)
        except (NoServer, Invalid) as error:
            whose = "" if peer is None else "its server does not check it itself: "
            self.problem = f"{whose}{error}"
            return
        self.cost += answer.cost
        evidence = answer.evidence
        self.opinions.append(Opinion(evidence.query, evidence.output, evidence.receipt))

    async def judge(self) -> VerdictBody | None:
        """What the opinions say; None where there are none, or not the one that is needed."""
        has_own = len(self.opinions) > self.checkers
        if not self.checkers or not (has_own or self.subject.is_exact):
            return None
        # Numbers of the longest answer take a second to be compared, each opinion with each.
        return await trio.to_thread.run_sync(judge, self.subject, self.opinions)


async def ask(router: Router, request: Request, tell: Tell, used: Used | None = None) -> Answer:
    """An answer, checked by as many others as the request says, or as there are.

    What it takes, checks included, is added to `used`, however this ends.

    Raises NoServer; Invalid when servers refuse the request for its content.
    """
    if not request.verify or request.kind not in WRITTEN:
        return await router.ask(request, tell, used=used)
    likely = min(MAX_LIKELY, max(LIKELY, request.sampling.likely))
    told = replace(request, sampling=replace(request.sampling, likely=likely))
    answer = await router.ask(told, tell, used=used)
    return await _checked(router, request, answer, used)


async def _checked(router: Router, request: Request, answer: Answer, used: Used | None) -> Answer:
    evidence = answer.evidence
    subject = _subject_of(evidence)
    try:
        data = pack(subject.check())
    except Invalid as error:
        return replace(answer, unchecked=f"its server does not let it be checked: {error}")
    most = None if request.most is None else request.most - answer.cost
    checking = _Checking(router, answer, subject, data, most, {answer.server}, used)
    await checking.begin(min(request.verify, MAX_CHECKERS))
    body = await checking.judge()
    if body is not None and body.outcome is Outcome.DISPUTED:
        await checking.ask_one_more()
        body = await checking.judge()
    cost = answer.cost + checking.cost
    if body is None:
        return replace(answer, cost=cost, unchecked=checking.problem)
    _remember(router, body)
    checked = replace(
        evidence,
        opinions=tuple(checking.opinions),
        verdict=sign_verdict(body, router.caller.pair),
    )
    missing = checking.problem if checking.checkers < request.verify else ""
    return replace(answer, evidence=checked, cost=cost, unchecked=missing)


def _remember(router: Router, body: VerdictBody) -> None:
    """Have those who are found wrong asked last."""
    wrong = [one.checker for one in body.differences if one.wrong]
    if body.outcome is Outcome.WRONG:
        wrong.append(body.server)
    for key in wrong:
        _doubt(router, key, body.model)
    if body.outcome is Outcome.DISPUTED:
        differing = [one.checker for one in body.differences if not one.agrees]
        for peer in map(peer_id_of, [body.server, *differing]):
            router.directory.of_server(peer, body.model).failed_at = trio.current_time()
            log.warning("%s and others do not agree on model %s", peer, body.model.hex()[:12])


def _doubt(router: Router, server: PublicKey, model: Hash) -> None:
    """Have a server that is found wrong asked last."""
    peer = peer_id_of(server)
    router.directory.of_server(peer, model).doubted_at = trio.current_time()
    log.warning("%s answers otherwise than model %s does", peer, model.hex()[:12])


def _subject_of(evidence: Evidence) -> Subject:
    return Subject(evidence.query, evidence.data, evidence.receipt, evidence.trace)


# --- by this node's own worker alone


async def check_here(
    router: Router, caller: Caller, evidence: Evidence, patience_s: float
) -> Evidence:
    """An answer to a caller of this node with what this node's own worker finds of it, as a verdict
    in the caller's name; without one where no worker here can say.

    A server that writes in 16 bits is asked by the same caller what it finds itself; each finding
    may take so long. Raises Broken, Lied, Invalid where the server says nothing that can be
    checked: its silence must not be worth more to it than its finding.
    """
    asked = evidence.query
    can_be = asked.kind in WRITTEN and asked.sampling.likely
    if not can_be or router.miner.find(asked.model) is None:
        return evidence
    subject = _subject_of(evidence)
    data = pack(subject.check())
    query = caller.query(
        asked.model,
        Kind.CHECK,
        data,
        os.urandom(NONCE_BYTES),
        sampling=Sampling(max_tokens=1),
        time_limit_ms=CHECK_MS,
    )
    own = await _found_here(router, query, data, patience_s)
    if own is None:
        return evidence
    opinions = [own]
    if not subject.is_exact:
        opinions.append(await _found_there(caller, subject, query, data, patience_s))
    body = judge(subject, opinions)
    if not body.differences[0].agrees:
        _doubt(router, body.server, body.model)
    return replace(evidence, opinions=tuple(opinions), verdict=sign_verdict(body, caller.pair))


async def _found_here(
    router: Router, query: Query, data: bytes, patience_s: float
) -> Opinion | None:
    """What this node's own worker finds, if it can."""
    progress, own = Progress(), router.caller.host.peer_id
    with trio.move_on_after(patience_s):
        try:
            receipt = await listen_here(router.miner, query, data, progress, _no_news)
            await check(own, receipt, query, data, progress)
        except (Broken, Lied, Invalid) as error:
            log.info("an answer is not checked here: %s", error)
        else:
            return Opinion(query, bytes(progress.output), receipt)
    return None


async def _found_there(
    caller: Caller, subject: Subject, query: Query, data: bytes, patience_s: float
) -> Opinion:
    """What a server finds of its own answer. Raises Broken, Lied."""
    server = peer_id_of(subject.receipt.body.server)
    again = replace(query, nonce=os.urandom(NONCE_BYTES))
    try:
        with trio.fail_after(patience_s):
            found = await caller.ask(server, again, data)
    except (Broken, Invalid) as error:
        raise Broken(f"it does not check its own answer: {error}") from None
    except trio.TooSlowError:
        raise Broken(f"it does not check its own answer within {patience_s:g} s") from None
    return Opinion(again, found.output, found.receipt)


async def _no_news(_told: Told) -> None:
    """The whole counts."""
