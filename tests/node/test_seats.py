"""The free half of a model's queue: who is in it, who gets in, and who gives a seat up."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ledger.errors import Invalid, Reason
from ledger.types import Hash
from models.turns import Lane, Standing
from p2p.node.seats import FREE_SEATS, Seat, Seats

MODEL, OTHER = Hash(b"m" * 32), Hash(b"o" * 32)
Sit = Callable[[str, str], Seat]


@pytest.fixture
def sit() -> Iterator[Sit]:
    """Takes a seat for a key at an address, until the test ends."""
    seats = Seats()
    with ExitStack() as stack:

        def take(key: str, place: str, model: Hash = MODEL) -> Seat:
            standing = Standing(key.encode(), place, Lane.FREE)
            return stack.enter_context(seats.take(model, standing, lambda: None))

        yield take


def left(seats: list[Seat]) -> Counter[str]:
    """How many seats each address still has."""
    return Counter(seat.standing.place for seat in seats if not seat.lost)


def test_one_who_is_alone_has_them_all(sit: Sit) -> None:
    seats = [sit("ann", "here") for _ in range(FREE_SEATS)]
    with pytest.raises(Invalid) as caught:
        sit("ann", "here")
    assert caught.value.reason == Reason.BUSY
    assert left(seats)["here"] == FREE_SEATS


def test_another_model_has_seats_of_its_own(sit) -> None:
    seats = [sit("ann", "here") for _ in range(FREE_SEATS)]
    sit("ben", "here", OTHER)
    assert not any(seat.lost for seat in seats)


def test_who_comes_gets_in_however_many_keys_another_address_has(sit: Sit) -> None:
    """Given one address with all seats, each under another key; then one from elsewhere has half
    of them, and the newest of the first address have gone."""
    many = [sit(f"key {number}", "there") for number in range(FREE_SEATS)]
    few = [sit("ann", "here") for _ in range(FREE_SEATS // 2)]
    with pytest.raises(Invalid):
        sit("ann", "here")
    assert left(many + few) == {"there": FREE_SEATS // 2, "here": FREE_SEATS // 2}
    assert not any(seat.lost for seat in few)
    with pytest.raises(Invalid):
        sit("key 0", "there")


def test_keys_of_one_address_share_it_equally(sit: Sit) -> None:
    seats = [sit("ann", "here") for _ in range(FREE_SEATS)]
    others = [sit("ben", "here") for _ in range(FREE_SEATS // 2)]
    assert [seat.lost for seat in seats] == [False] * 16 + [True] * 16
    assert not any(seat.lost for seat in others)


def test_a_seat_is_given_back_and_who_lost_one_is_told(sit: Sit) -> None:
    seats, told = Seats(), []
    standing = Standing(b"ann", "here", Lane.FREE)
    for _ in range(3 * FREE_SEATS):
        with seats.take(MODEL, standing, lambda: None):
            pass
    with ExitStack() as stack:
        for number in range(FREE_SEATS):
            stack.enter_context(seats.take(MODEL, standing, lambda n=number: told.append(n)))
        stack.enter_context(seats.take(MODEL, Standing(b"ben", "there", Lane.FREE), lambda: None))
    assert told == [FREE_SEATS - 1]
