"""The free half of what a model can have open: shared equally by the addresses that ask.

Whoever is alone may have all of it. When it is full, who has least gets in all the same: the newest
request goes of the address that has most, and there of the key that has most.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ledger.errors import Invalid, Reason
from ledger.types import Hash
from models.engine import MAX_WAITING
from models.turns import Standing

FREE_SEATS: Final = MAX_WAITING // 2
"""Free requests that one model may have open; the other half is for validators with a permit."""


@dataclass(eq=False)
class Seat:
    """One open request. `leave` ends it for somebody who has less."""

    standing: Standing
    leave: Callable[[], None]
    lost: bool = False


@dataclass
class Seats:
    """The free requests that are open, by model, in the order in which they came."""

    _taken: dict[Hash, list[Seat]] = field(default_factory=dict)

    @contextmanager
    def take(self, model: Hash, standing: Standing, leave: Callable[[], None]) -> Iterator[Seat]:
        """Have a seat while the block runs. Raises Invalid BUSY."""
        seats = self._taken.setdefault(model, [])
        if len(seats) >= FREE_SEATS:
            self._make_room(seats, standing)
        seat = Seat(standing, leave)
        seats.append(seat)
        try:
            yield seat
        finally:
            if not seat.lost:
                seats.remove(seat)
            if not seats:
                self._taken.pop(model, None)

    def _make_room(self, seats: list[Seat], comer: Standing) -> None:
        loser = greediest(seats, comer)
        if loser is None:
            raise Invalid(Reason.BUSY, f"{len(seats)} requests wait already, some of them yours")
        seats.remove(loser)
        loser.lost = True
        loser.leave()


def greediest(seats: Sequence[Seat], comer: Standing) -> Seat | None:
    """Whose seat goes to one who comes; None where nobody has more than the comer would."""
    places = Counter(seat.standing.place for seat in seats)
    place, most = places.most_common(1)[0]
    if most <= places[comer.place] + 1:
        place = comer.place
    there = [seat for seat in seats if seat.standing.place == place]
    keys = Counter(seat.standing.asker for seat in there)
    if not keys:
        return None
    key, most = keys.most_common(1)[0]
    if place == comer.place and most <= keys[comer.asker] + 1:
        return None
    return next(seat for seat in reversed(there) if seat.standing.asker == key)
