"""Miners who cheat on what validators ask, by the tasks, schedules and averages of a real subnet.

Three validators put questions of the task `text` to miners, a quarter of them under a key that
nobody knows, and their rows go through the chain. Miners are small readers: what follows a passage
is what shares the most runs of four letters with it. They see what is asked, not what is right.
"""

from collections.abc import Callable, Mapping
from functools import cache
from math import exp

import numpy as np

from ledger.codec import hash_of, unpack
from ledger.errors import Invalid
from ledger.neurons import neurons
from models.tasks import open_task
from models.tasks.averages import Averages, Miner
from models.tasks.schedule import Visit, schedule
from models.tasks.scoring import UNKNOWING
from models.types import MAX_READING_BYTES, Choices, Tensor
from tests.economy.world import NETUID, STAKE, Economy, Row
from tests.ledger.arena import pool

VALIDATORS = ("val", "vic", "ver")
TEMPOS = 16
TASK = open_task("text", '{"per_tempo": 16}', None)

Answer = tuple[list[float], int]
"""Probabilities, and after how many milliseconds they came."""
Behaviour = Callable[[Choices, bool], Answer | None]
"""What a miner answers, by what is asked and whether a stranger asks."""


def runs(text: str) -> set[str]:
    """The runs of four characters in a text."""
    return {text[at : at + 4] for at in range(len(text) - 3)}


def reader(look: int = 240, boldness: float = 0.2, time: int = 300) -> Behaviour:
    """A miner that looks back over so many characters; with 0.2 it is as sure as it is right."""

    def answer(asked: Choices, _: bool) -> Answer:
        before = runs(asked.prefix[-look:])
        odds = [exp(boldness * len(before & runs(each))) for each in asked.continuations]
        return [each / sum(odds) for each in odds], time

    return answer


def split(known: Behaviour, others: Behaviour) -> Behaviour:
    """A miner that is one to validators whom it knows, and another one to strangers."""
    return lambda asked, stranger: (others if stranger else known)(asked, stranger)


def silent(asked: Choices, stranger: bool) -> None:
    """A miner that does not answer."""


def relay(source: Behaviour, delay: int) -> Behaviour:
    """A miner that has another one answer for it, as a stranger."""

    def answer(asked: Choices, _: bool) -> Answer | None:
        found = source(asked, True)
        return found and (found[0], found[1] + delay)

    return answer


class Examiner:
    """A validator that asks miners by its schedule and remembers what they earned."""

    def __init__(self, name: str, miners: Mapping[str, Behaviour], masked: bool) -> None:
        self.name, self.miners, self.masked = name, miners, masked
        self.averages = Averages()

    def __call__(self, economy: Economy) -> Row:
        """The row of a tempo."""
        found = neurons(economy.chain.state, NETUID)
        uids = {economy.uids[name]: name for name in self.miners}
        known = {uid: Miner(pool(uids[uid]), found[uid].registered) for uid in uids}
        seed = hash_of("poi/test", f"{self.name} {economy.chain.height}".encode())
        for visit in schedule(seed, tuple(uids), TASK.per_tempo):
            earned = self.visit(self.miners[uids[visit.uid]], visit)
            self.averages.observe(known[visit.uid], visit.stranger, earned)
        self.averages.turn(known.values())
        return {uids[uid]: weight for uid, weight in self.averages.weights(known)}

    def visit(self, miner: Behaviour, visit: Visit) -> float:
        """What a miner earns by a visit."""
        challenge = TASK.draw(visit.seed)
        asked = unpack(Choices, challenge.data, MAX_READING_BYTES)
        answer = miner(asked, visit.stranger and self.masked)
        if answer is None or answer[1] > TASK.deadline_ms:
            return UNKNOWING
        output = np.array(answer[0], "<f4").tobytes()
        try:
            return TASK.score(challenge, Tensor("float32", (len(answer[0]),)), output)
        except Invalid:
            return UNKNOWING


def pay(miners: Mapping[str, Behaviour], masked: bool = True) -> dict[str, float]:
    """What part of all that miners are paid each has, once validators know them."""
    economy = Economy(dict.fromkeys(VALIDATORS, STAKE), tuple(miners))
    judges = {name: Examiner(name, miners, masked) for name in VALIDATORS}
    economy.play(4, judges).mined.clear()
    economy.play(TEMPOS, judges)
    found = {name: economy.mined[name] / economy.mined.total() for name in miners}
    print(", ".join(f"{name} {part:.1%}" for name, part in found.items()))
    return found


ABLE = reader()


@cache
def paid() -> dict[str, float]:
    """What part each of these has, in one subnet."""
    return pay({
        "able": ABLE,
        "short": reader(look=60),
        "tester": split(ABLE, silent),
        "careless": split(ABLE, reader(look=30)),
        "bluffer": reader(boldness=1.5),
        "timid": reader(boldness=0.05),
        "relay": relay(ABLE, 400),
        "late": relay(reader(time=3_000), 2_500),
    })  # fmt: skip


def test_who_reads_more_earns_more() -> None:
    assert paid()["able"] > 1.3 * paid()["short"] > 0


def test_who_answers_only_tests_earns_nothing() -> None:
    assert paid()["tester"] == 0


def test_who_knows_the_strangers_can_serve_only_tests() -> None:
    """If a miner can tell them from users, by their address or else, nothing catches it."""
    found = pay({"able": ABLE, "tester": split(ABLE, silent)}, masked=False)
    assert found["tester"] > 0.7 * found["able"]


def test_who_is_careless_with_strangers_earns_by_what_they_get() -> None:
    assert 0 < paid()["careless"] < 0.8 * paid()["able"]


def test_who_is_much_surer_or_much_less_sure_than_right_earns_less() -> None:
    assert paid()["bluffer"] < 0.3 * paid()["able"]
    assert 0 < paid()["timid"] < 0.8 * paid()["able"]


def test_a_relay_earns_what_its_source_does_unless_it_makes_answers_late() -> None:
    """This is not caught: the answers are the same, and as good to who asks.

    Who runs one model behind many uids has as many shares. Against it stand only the price of each
    registration and the deadline, as the one model has to answer for all of them.
    """
    assert 0.7 * paid()["able"] < paid()["relay"] < 1.4 * paid()["able"]
    assert paid()["late"] == 0
