"""Whose job is next: places in turns, askers of a place in turns, two lanes in turns."""

from dataclasses import dataclass

from models.turns import Lane, Standing, Turns


@dataclass(frozen=True)
class Job:
    number: int
    standing: Standing


def turns(*jobs: tuple[int, str, str, Lane]) -> Turns[Job]:
    """Jobs by number, asker, place and lane, in the order in which they came."""
    made: Turns[Job] = Turns()
    for number, asker, place, lane in jobs:
        made.add(Job(number, Standing(asker.encode(), place, lane)))
    return made


def order(waiting: Turns[Job]) -> list[int]:
    return [waiting.take().number for _ in range(len(waiting))]


def test_askers_of_a_place_take_turns() -> None:
    """Given five jobs of ann before one of ben; then ben's is second."""
    jobs = [(number, "ann", "here", Lane.FREE) for number in range(5)]
    assert order(turns(*jobs, (9, "ben", "here", Lane.FREE))) == [0, 9, 1, 2, 3, 4]


def test_a_place_with_many_keys_has_no_more_turns_than_one_with_one() -> None:
    keys = [(number, f"key {number}", "there", Lane.FREE) for number in range(5)]
    one = [(number, "ann", "here", Lane.FREE) for number in (10, 11)]
    assert order(turns(*keys, *one)) == [0, 10, 1, 11, 2, 3, 4]


def test_validators_have_every_other_turn() -> None:
    free = [(number, f"key {number}", f"place {number}", Lane.FREE) for number in range(4)]
    own = [(number, "val", "here", Lane.OWN) for number in (10, 11)]
    assert order(turns(*free, *own)) == [0, 10, 1, 11, 2, 3]


def test_who_pays_waits_behind_neither_validators_nor_those_who_do_not() -> None:
    free = [(number, f"key {number}", f"place {number}", Lane.FREE) for number in range(3)]
    own = [(number, "val", "here", Lane.OWN) for number in (10, 11)]
    paid = [(number, "ann", "there", Lane.PAID) for number in (20, 21)]
    assert order(turns(*free, *own, *paid)) == [0, 10, 20, 1, 11, 21, 2]


def test_what_is_not_over_goes_on_before_the_others_of_its_asker() -> None:
    waiting = turns(
        (1, "ann", "", Lane.FREE), (2, "ann", "", Lane.FREE), (3, "ben", "", Lane.FREE)
    )  # fmt: skip
    ann = waiting.take()
    waiting.resume(ann)
    assert order(waiting) == [3, 1, 2]


def test_new_keys_keep_nobody_waiting_who_is_here() -> None:
    """Given a new key with a job before each turn; then ann's turn comes all the same."""
    waiting = turns((0, "ann", "here", Lane.FREE), (1, "key", "here", Lane.FREE))
    taken = []
    for number in range(2, 6):
        waiting.add(Job(number, Standing(b"key %d" % number, "here", Lane.FREE)))
        taken.append(waiting.take().number)
    assert taken == [0, 1, 2, 3]


def test_an_asker_whose_job_is_forgotten_keeps_its_turn() -> None:
    jobs = [(number, "ann", "here", Lane.FREE) for number in (1, 2, 3)]
    waiting = turns(*jobs, (4, "ben", "here", Lane.FREE), (5, "ben", "here", Lane.OWN))
    waiting.keep(lambda job: job.number != 1)
    assert len(waiting) == 4
    assert order(waiting) == [2, 5, 4, 3]
    assert not waiting
