"""Turns in the gateway: keys share what a model's servers can do, and nobody waits for ever."""

from collections import Counter
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from p2p.http.gate import MAX_WAITING, MAX_WAITING_BYTES, WAIT_S, Crowded, Gate

ANN, BOB = b"a" * 32, b"b" * 32


async def hold(gate: Gate, key: bytes, done: list[bytes], seconds: float = 1.0) -> None:
    """Have a turn and keep it for a while; who is turned away says so."""
    try:
        async with gate.turn("model", key, 10):
            await trio.sleep(seconds)
            done.append(key)
    except Crowded:
        done.append(b"crowded")


async def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def test_so_many_go_at_once(autojump_clock: MockClock) -> None:
    gate, done, began = Gate(lambda model: 3), [], trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(hold, gate, ANN, done)
        await wait_for(lambda: gate.waiting == 7)
        assert gate.running == 3
    assert trio.current_time() - began == pytest.approx(4)
    assert (len(done), gate.running, gate.waiting, gate._lines) == (10, 0, 0, {})


async def test_keys_take_turns_however_much_one_asks(autojump_clock: MockClock) -> None:
    gate, done = Gate(lambda model: 2), []
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(hold, gate, ANN, done)
        await wait_for(lambda: gate.waiting == 98)
        for _ in range(10):
            nursery.start_soon(hold, gate, BOB, done)
    assert Counter(done[:24])[BOB] == 10


async def test_a_model_that_is_slow_holds_up_no_other(autojump_clock: MockClock) -> None:
    gate, done = Gate(lambda model: 1), []
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(hold, gate, ANN, done, 100.0)
        await wait_for(lambda: gate.waiting == 4)
        with trio.fail_after(1):
            async with gate.turn("another", ANN, 10):
                pass
        nursery.cancel_scope.cancel()
    assert gate._lines == {}


async def test_who_goes_away_leaves_the_line(autojump_clock: MockClock) -> None:
    gate, done = Gate(lambda model: 1), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, gate, ANN, done, 10.0)
        await wait_for(lambda: gate.running == 1)
        for seconds in (1, 2, 10):  # the last goes away as its turn comes
            with trio.move_on_after(seconds - trio.current_time() % 1):
                await hold(gate, BOB, done)
        await hold(gate, BOB, done)
    assert done[-1] == BOB
    assert gate._lines == {}


async def test_nobody_waits_for_ever(autojump_clock: MockClock) -> None:
    gate, done = Gate(lambda model: 1), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, gate, ANN, done, 10 * WAIT_S)
        await wait_for(lambda: gate.running == 1)
        with pytest.raises(Crowded):
            async with gate.turn("model", BOB, 10):
                pass
        nursery.cancel_scope.cancel()


async def test_where_too_many_wait_who_has_most_gives_way(autojump_clock: MockClock) -> None:
    gate, done = Gate(lambda model: 1), []
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_WAITING + 1):
            nursery.start_soon(hold, gate, ANN, done, 0.1)
        await wait_for(lambda: gate.waiting == MAX_WAITING)
        with pytest.raises(Crowded):
            async with gate.turn("model", ANN, 10):
                pass
        nursery.start_soon(hold, gate, BOB, done)
        await wait_for(lambda: b"crowded" in done)
        assert gate.waiting == MAX_WAITING
    assert Counter(done) == {ANN: MAX_WAITING, BOB: 1, b"crowded": 1}


async def test_what_waits_is_bounded_in_bytes(autojump_clock: MockClock) -> None:
    gate, done = Gate(lambda model: 1), []
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(hold, gate, ANN, done)
        await wait_for(lambda: gate.waiting == 1)
        with pytest.raises(Crowded):
            async with gate.turn("model", BOB, MAX_WAITING_BYTES):
                pass
