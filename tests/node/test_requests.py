"""Room for answers: who does not read holds it from nobody else."""

from typing import Any

import pytest
import trio

from p2p.net.protocols import LIGHT
from p2p.node.requests import ANSWERS_AT_ONCE, Requests, _Room


class Reader:
    """The other side of a stream: it takes what is written, or never does."""

    def __init__(self, reads: bool) -> None:
        self.reads = reads

    async def send(self, answered: Any) -> None:
        if not self.reads:
            await trio.sleep_forever()


async def test_the_room_is_taken_from_whoever_holds_it_longest(autojump_clock: Any) -> None:
    """Given as many that do not read as there is room for, then one who does is answered at once,
    and the first of them ends."""
    room, ended = _Room(), []

    async def write(number: int) -> None:
        with pytest.raises(trio.TooSlowError):
            await room.write(Reader(reads=False), b"")  # type: ignore[arg-type]
        ended.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(ANSWERS_AT_ONCE):
            nursery.start_soon(write, number)
            await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await room.write(Reader(reads=True), b"")  # type: ignore[arg-type]
        assert trio.current_time() == began
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [0]
    assert len(ended) == ANSWERS_AT_ONCE
    assert not room.writing


async def test_an_allowance_is_used_up_by_what_an_answer_costs(autojump_clock: Any) -> None:
    requests = Requests()
    guest = requests._guest(LIGHT, b"peer")
    began = trio.current_time()
    await requests._pay(guest, round(requests.burst))
    assert trio.current_time() == began
    await requests._pay(guest, 40)
    assert trio.current_time() - began == pytest.approx(2, abs=0.1)
