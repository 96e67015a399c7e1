"""Light proofs: a balance shown to one who has the genesis alone, and every forgery refused.

The epoch is 3 blocks. Four founders send heartbeats, so that who votes changes as they earn.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from consensus import light
from consensus.light import (
    Anchor,
    LightAnswer,
    anchor_of,
    answer_light,
    check_light,
    unpack_answer,
)
from consensus.transition import Tip, execute
from ledger.blocks import NO_CERTIFICATE, NO_HASH, Certificate, VoteKind, unpack_block
from ledger.codec import pack, unpack
from ledger.errors import Invalid, Reason
from ledger.genesis import Allocation, Bond, Genesis, genesis_header, genesis_rows
from ledger.params import DEVNET, TOKEN
from ledger.payloads import Heartbeat, Transfer
from ledger.store import Store, build
from ledger.tables import ACCOUNTS, Account, Share
from tests.consensus.chain import Chain
from tests.ledger.world import public

PARAMS = replace(DEVNET, epoch=3, fee_per_byte=0, heartbeat_interval=1)
NAMES = ("one", "two", "three", "four")
GENESIS = Genesis(
    name="light",
    time=1_767_225_600_000,
    params=PARAMS,
    accounts=(Allocation(public("ann"), 100 * TOKEN),),
    stakes=tuple(Bond(public("ann"), public(name), 5 * TOKEN) for name in NAMES),
    subnets=(),
)
KEY = ACCOUNTS.tag + public("bob")
START = anchor_of(GENESIS)


class Shared:
    """A chain in memory and on disk."""

    def __init__(self, path: Path, genesis: Genesis = GENESIS) -> None:
        self.chain = Chain(genesis)
        Store.create(path, self.chain.header, genesis_rows(genesis))
        self.store = Store.open(path)

    def step(self) -> None:
        """One block, in which ann pays bob a rao and the founders say that they are there."""
        chain = self.chain
        chain.send("ann", Transfer(public("bob"), 1))
        for name in NAMES:
            chain.send(name, Heartbeat())
        parent = chain.header
        block = chain.step()
        with self.store.snapshot() as disk:
            draft = execute(Tip(PARAMS, parent, disk, self.store.draft), block)
        self.store.commit(block, chain.certificate, draft)

    def ask(self, after: int = 0, key: bytes = KEY) -> LightAnswer:
        """An answer as its bytes."""
        return unpack_answer(pack(answer_light(self.store, PARAMS, after, key)))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A chain of 14 blocks."""
    made = Shared(tmp_path_factory.mktemp("light") / "chain")
    for _ in range(14):
        made.step()
    with made.store:
        yield made


def balance(value: bytes | None) -> int:
    assert value is not None
    return ACCOUNTS.read(value).balance


def reason(anchor: Anchor, forged: LightAnswer, key: bytes = KEY) -> Reason | None:
    """Why an answer is refused."""
    try:
        check_light(anchor, key, forged)
    except Invalid as error:
        return error.reason
    return None


# --- what it shows


def test_a_balance_is_shown_from_genesis(shared: Shared) -> None:
    given = shared.ask()
    assert [step.header.height for step in given.steps] == [3, 6, 9, 12]
    anchor, found = check_light(START, KEY, given)
    assert (anchor.height, anchor.root) == (12, given.steps[-1].header.committee_root)
    assert found is not None
    assert (found.header, balance(found.value)) == (shared.chain.header, 14)


def test_a_row_that_is_not_there(shared: Shared) -> None:
    key = ACCOUNTS.tag + public("nobody")
    _, found = check_light(START, key, shared.ask(key=key))
    assert found is not None
    assert found.value is None


def test_voters_come_once_for_as_long_as_they_stay(shared: Shared) -> None:
    given = shared.ask()
    sizes = [len(step.voters) for step in (*given.steps, given.row[0].head)]
    assert sizes == [0, 0, 4, 4, 4]  # terms 0 and 1 are those of genesis


def test_every_height_of_a_chain_shows_its_state(tmp_path: Path) -> None:
    made = Shared(tmp_path / "chain")
    with made.store:
        for height in range(8):
            anchor, found = check_light(START, KEY, made.ask())
            assert found is not None
            assert (found.header, anchor.height) == (made.chain.header, height // 3 * 3)
            assert balance(found.value or pack(Account())) == height
            made.step()


def test_a_long_way_is_gone_in_parts(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light, "MAX_STEPS", 2)
    anchor, seen = START, []
    for _ in count():
        anchor, found = check_light(anchor, KEY, shared.ask(anchor.height))
        seen.append(anchor.height)
        if found:
            break
    assert seen == [6, 12]
    assert balance(found.value) == 14
    monkeypatch.undo()
    assert check_light(anchor, KEY, shared.ask(12)) == (anchor, found)


def test_the_way_goes_on_from_the_end_of_an_epoch(shared: Shared) -> None:
    for height in (1, 2, 13, 15, -3):
        with pytest.raises(Invalid) as caught:
            shared.ask(height)
        assert caught.value.reason == Reason.WRONG_BLOCK


def test_a_ledger_that_begins_later_shows_the_way_from_there(tmp_path: Path) -> None:
    made = Shared(tmp_path / "chain")
    with made.store:
        for _ in range(6):
            made.step()
        with made.store.snapshot() as disk:
            decided = unpack(Certificate, disk.certificate(6) or b"", 10_000)
            block = unpack_block(disk.block(6) or b"")
            path = tmp_path / "later"
            build(path, tmp_path / "new", block, decided, disk.buckets(), disk.scan(b""))
        anchor, _ = check_light(START, KEY, made.ask())
        made.store.close()
        with Store.open(path) as made.store:
            for _ in range(2):
                made.step()
            with pytest.raises(Invalid) as caught:
                made.ask()
            assert caught.value.reason == Reason.NO_LEDGER
            _, found = check_light(anchor, KEY, made.ask(6))
            assert found is not None
            assert balance(found.value) == 8


# --- forgeries


def with_step(given: LightAnswer, place: int, **changed: Any) -> LightAnswer:
    """With something else in one of its steps."""
    steps = list(given.steps)
    steps[place] = replace(steps[place], **changed)
    return replace(given, steps=tuple(steps))


def with_row(given: LightAnswer, **changed: Any) -> LightAnswer:
    return replace(given, row=(replace(given.row[0], **changed),))


def test_a_step_is_of_its_place_and_chain(shared: Shared) -> None:
    given = shared.ask()
    assert reason(START, replace(given, steps=given.steps[1:])) == Reason.BAD_PROOF
    assert reason(START, replace(given, steps=given.steps[:-1])) == Reason.BAD_PROOF
    twice = (given.steps[0], *given.steps)
    assert reason(START, replace(given, steps=twice)) == Reason.BAD_PROOF
    for changed in ({"chain": bytes(16)}, {"version": 2}, {"epoch": 7}, {"height": 4}):
        header = replace(given.steps[0].header, **changed)  # type: ignore[arg-type]
        assert reason(START, with_step(given, 0, header=header)) == Reason.BAD_PROOF
    other = anchor_of(replace(GENESIS, name="other"))
    assert reason(other, given) == Reason.BAD_PROOF


@pytest.mark.parametrize("place", range(4))
def test_a_step_was_decided_by_those_who_voted_there(shared: Shared, place: int) -> None:
    given = shared.ask()
    step = given.steps[place]
    good = step.certificate
    header = replace(step.header, state_root=NO_HASH)
    assert reason(START, with_step(given, place, header=header)) == Reason.BAD_PROOF
    moved = replace(good, block=header.hash)
    forged = with_step(given, place, header=header, certificate=moved)
    assert reason(START, forged) == Reason.BAD_SIGNATURE
    for certificate, due in (
        (NO_CERTIFICATE, Reason.BAD_PROOF),
        (replace(good, kind=VoteKind.NOTARISE), Reason.BAD_PROOF),
        (replace(good, view=1), Reason.BAD_SIGNATURE),
        (replace(good, signers=good.signers[:2]), Reason.BAD_CERTIFICATE),
        (replace(good, signers=good.signers[:2] * 2), Reason.BAD_CERTIFICATE),
    ):
        assert reason(START, with_step(given, place, certificate=certificate)) == due


def test_voters_are_those_that_the_epoch_before_named(shared: Shared) -> None:
    given = shared.ask()
    voters = given.steps[2].voters
    mine = (Share(public("me"), 100 * TOKEN),)
    for place in range(4):
        for wrong in (mine, (*voters, *mine), voters[::-1], voters[:-1]):
            assert reason(START, with_step(given, place, voters=wrong)) == Reason.BAD_PROOF
    assert reason(START, with_step(given, 2, voters=())) == Reason.BAD_PROOF


def test_an_attacker_with_other_voters_gets_nowhere(shared: Shared) -> None:
    """First a header of the attacker's own chain, then one of ours that names its voters."""
    mine = replace(GENESIS, stakes=(Bond(public("me"), public("me"), 90 * TOKEN),))
    other = Chain(mine)
    other.reach(3)
    given = shared.ask()
    certificate = other.certify(other.header)
    forged = with_step(given, 0, header=other.header, certificate=certificate)
    assert reason(START, forged) == Reason.BAD_PROOF
    header = replace(given.steps[0].header, committee_root=genesis_header(mine).committee_root)
    certificate = replace(certificate, block=header.hash)
    forged = with_step(given, 0, header=header, certificate=certificate)
    assert reason(START, forged) == Reason.BAD_CERTIFICATE


def test_the_head_is_decided_too_and_of_the_epoch_after_the_last_step(shared: Shared) -> None:
    given = shared.ask()
    head = given.row[0].head
    header = replace(head.header, state_root=NO_HASH)
    moved = replace(head.certificate, block=header.hash)
    for wrong, due in (
        (replace(head, header=header), Reason.BAD_PROOF),
        (replace(head, header=header, certificate=moved), Reason.BAD_SIGNATURE),
        (replace(head, certificate=NO_CERTIFICATE), Reason.BAD_PROOF),
        (replace(head, voters=()), Reason.BAD_PROOF),
        (given.steps[2], Reason.BAD_PROOF),
    ):
        assert reason(START, with_row(given, head=wrong)) == due
    assert reason(START, replace(given, steps=given.steps[:3])) == Reason.BAD_PROOF


def test_the_row_is_what_the_head_says(shared: Shared) -> None:
    given = shared.ask()
    row = given.row[0]
    for changed in (
        {"value": ()},
        {"value": (pack(Account(balance=15)),)},
        {"proof": replace(row.proof, content=b"")},
        {"proof": replace(row.proof, siblings=row.proof.siblings[::-1])},
        {"head": given.steps[-1]},
    ):
        assert reason(START, with_row(given, **changed)) == Reason.BAD_PROOF
    assert reason(START, given, ACCOUNTS.tag + public("ann")) == Reason.BAD_PROOF


def test_no_bit_of_an_answer_can_be_flipped(shared: Shared) -> None:
    """Each is refused, or says the same: with the row of the head that it was before."""
    data, (_, found) = pack(shared.ask()), check_light(START, KEY, shared.ask())
    for place in range(0, len(data), 23):
        flipped = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        try:
            _, other = check_light(START, KEY, unpack_answer(flipped))
        except Invalid:
            continue
        assert other == found


def test_an_answer_leads_somewhere() -> None:
    assert reason(START, LightAnswer((), ())) == Reason.BAD_PROOF


def test_answers_have_a_limit() -> None:
    with pytest.raises(Invalid) as caught:
        unpack_answer(bytes(light.MAX_ANSWER_BYTES + 1))
    assert caught.value.reason == Reason.TOO_LARGE
