"""The rule book of gossip: a test for each condition, without a network."""

from dataclasses import replace

import pytest

from gossip.topics import PRESENCE, Neighbour, OpenCall, PeerRecord
from gossip.validation import (
    MAX_AHEAD_MS,
    MAX_AUTHORS,
    MAX_CALL_MS,
    Ignore,
    Reject,
    Seen,
    validate_call,
    validate_presence,
)
from ledger.types import Hash, PublicKey

NOW_MS = 1_700_000_000_000
ANNA, BERT = PublicKey(b"a" * 32), PublicKey(b"b" * 32)
RECORD = PeerRecord(ANNA, NOW_MS, "test", (), (), 0, Hash(bytes(32)), (), (Neighbour(BERT, 5),))
CALL = OpenCall(ANNA, b"c" * 16, "docs-gpt", 1, 0, NOW_MS + 5000)


def test_presence__accept_a_newer_record_each_time() -> None:
    seen = Seen()
    for step in range(3):
        validate_presence(seen, replace(RECORD, seq=NOW_MS + step), ANNA, NOW_MS)


def test_presence__reject_another_author() -> None:
    with pytest.raises(Reject):
        validate_presence(Seen(), RECORD, BERT, NOW_MS)


def test_presence__reject_itself_as_neighbour() -> None:
    with pytest.raises(Reject):
        validate_presence(Seen(), replace(RECORD, neighbours=(Neighbour(ANNA, 1),)), ANNA, NOW_MS)


def test_presence__reject_a_neighbour_named_twice() -> None:
    twice = (Neighbour(BERT, 1), Neighbour(BERT, 2))
    with pytest.raises(Reject):
        validate_presence(Seen(), replace(RECORD, neighbours=twice), ANNA, NOW_MS)


def test_presence__ignore_one_from_the_future() -> None:
    late = replace(RECORD, seq=NOW_MS + MAX_AHEAD_MS + 1)
    seen = Seen()
    with pytest.raises(Ignore):
        validate_presence(seen, late, ANNA, NOW_MS)
    assert not seen.seqs


def test_presence__ignore_one_from_the_past() -> None:
    with pytest.raises(Ignore):
        validate_presence(Seen(), replace(RECORD, seq=NOW_MS - MAX_AHEAD_MS - 1), ANNA, NOW_MS)


@pytest.mark.parametrize("older", [0, 1, 1000])
def test_presence__ignore_one_not_newer(older: int) -> None:
    seen = Seen()
    validate_presence(seen, RECORD, ANNA, NOW_MS)
    with pytest.raises(Ignore):
        validate_presence(seen, replace(RECORD, seq=NOW_MS - older), ANNA, NOW_MS)
    assert seen.seqs == {ANNA: NOW_MS}


def test_presence__authors_are_bounded_and_the_most_silent_goes_first() -> None:
    seen = Seen()
    for number in range(MAX_AUTHORS + 10):
        key = PublicKey(number.to_bytes(32, "big"))
        validate_presence(seen, replace(RECORD, key=key, neighbours=()), key, NOW_MS)
    assert len(seen.seqs) == MAX_AUTHORS
    assert PublicKey(bytes(32)) not in seen.seqs


def test_call__accept_it_once() -> None:
    seen = Seen()
    validate_call(seen, CALL, ANNA, NOW_MS)
    with pytest.raises(Ignore):
        validate_call(seen, CALL, ANNA, NOW_MS)


def test_call__reject_another_author() -> None:
    with pytest.raises(Reject):
        validate_call(Seen(), CALL, BERT, NOW_MS)


@pytest.mark.parametrize("answers", [0, -1, 65])
def test_call__reject_an_impossible_number_of_answers(answers: int) -> None:
    with pytest.raises(Reject):
        validate_call(Seen(), replace(CALL, answers=answers), ANNA, NOW_MS)


@pytest.mark.parametrize("expires", [NOW_MS, NOW_MS - 1, NOW_MS + MAX_CALL_MS + MAX_AHEAD_MS + 1])
def test_call__ignore_one_that_is_over_or_never_ends(expires: int) -> None:
    with pytest.raises(Ignore):
        validate_call(Seen(), replace(CALL, expires_ms=expires), ANNA, NOW_MS)


def test_an_author_has_a_burst_and_then_a_rate() -> None:
    seen = Seen()
    at_once = [seen.author_may_speak(PRESENCE, ANNA, 100.0) for _ in range(PRESENCE.burst + 5)]
    assert at_once.count(True) == PRESENCE.burst
    assert seen.author_may_speak(PRESENCE, BERT, 100.0)
    assert not seen.author_may_speak(PRESENCE, ANNA, 100.5)
    assert seen.author_may_speak(PRESENCE, ANNA, 101.0 + 1 / PRESENCE.rate)
