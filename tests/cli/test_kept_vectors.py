"""Vectors that wait to be revealed: what is drawn up, kept, read again."""

import json
from dataclasses import replace

import pytest

from ledger.types import ChainId
from ledger.weights import commitment
from p2p import vectors
from p2p.home import Home
from p2p.vectors import Seat, draw_up, reveal_of

SEAT = Seat(ChainId(bytes(16)), 3, "12D3KooWKnLihH8JwvytUbupH5hpcYxKcDz3z1zJEfLSmRe1WvtL", 7, 40)


def test_a_vector_reveals_what_its_hash_commits_to(tmp_path) -> None:
    kept = draw_up(SEAT, [1, 5], [65_535, 9], version=2, last=900)
    home = Home(tmp_path)
    vectors.keep(home, kept)
    (again,) = vectors.all_kept(home)
    assert again == kept
    reveal = reveal_of(again)
    assert (reveal.netuid, reveal.version) == (3, 2)
    assert commitment(SEAT.chain, SEAT.uid, SEAT.registered, reveal).hex() == kept.hash
    later = replace(SEAT, registered=41)
    assert commitment(later.chain, later.uid, later.registered, reveal).hex() != kept.hash
    vectors.forget(home, kept)
    assert vectors.all_kept(home) == []


def test_the_same_vector_is_committed_to_under_another_salt() -> None:
    first, second = (draw_up(SEAT, [1], [1], version=0, last=9) for _ in range(2))
    assert first.salt != second.salt
    assert first.hash != second.hash


@pytest.mark.parametrize("changed", [{"places": [70_000]}, {"salt": "xy"}, {"values": None}])
def test_a_file_that_holds_no_vector_is_damaged(tmp_path, changed) -> None:
    path = vectors.keep(Home(tmp_path), draw_up(SEAT, [1], [1], version=0, last=9))
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(vectors.Damaged):
        vectors.read(path)


def test_what_fits_no_payload_is_not_drawn_up() -> None:
    with pytest.raises(ValueError, match="65535"):
        draw_up(SEAT, [65_536], [1], version=0, last=9)
