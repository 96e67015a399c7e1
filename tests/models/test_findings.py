"""Checks beside answers: a part at a time, in turns, over when they are late or nobody waits."""

from collections.abc import Generator

import numpy as np
import pytest

from ledger.codec import pack
from ledger.errors import Invalid, Reason
from models.catalog import shipped_directory
from models.checking import LIKELY
from models.findings import BESIDE, Findings
from models.pipe import Done, Part, Submit
from models.reading import MAX_JOB_TOKENS, MAX_WAITING, Numbers, Read, Row, Unreadable
from models.turns import OWN, Lane, Standing
from models.types import Kind, Sampling, Tensor
from tests.models.checked import SERVER, Party, opened
from tests.models.model_worker import text_job

ROW = Row((1, 2, 3), 1)
FREE = Standing(b"f" * 32, "there", Lane.FREE)
PAID = Standing(b"p" * 32, "there", Lane.PAID)


class Works:
    """Checks of some parts each; which parts were read, and which checks lie in memory."""

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self.read: list[str] = []
        self.held: set[str] = set()

    def of(self, name: str) -> Generator[None, None, Numbers]:
        self.held.add(name)
        try:
            for _ in range(self.parts):
                self.read.append(name)
                yield
            return np.zeros(1, np.float32)
        finally:
            self.held.discard(name)


def test_who_judges_waits_for_no_other_check_and_two_at_most_are_begun() -> None:
    """Given strangers that have long answers checked and one who judges, then its check goes on
    beside theirs, of which one after the other lies in memory."""
    findings, works = Findings(), Works(2)
    checks = (("a", FREE), ("b", FREE), ("paid", PAID), ("own", OWN))
    for job, (name, standing) in enumerate(checks):
        findings.add(job, ROW, works.of(name), 9.0, standing)
    ended, most = [], 0
    while findings.busy:
        ended += [read.job for read in findings.step(0.0, beside=False)]
        most = max(most, len(works.held))
    assert (most, ended) == (2, [3, 0, 2, 1])
    assert sorted(works.read[:4]) == ["a", "a", "own", "own"]


def test_what_is_late_or_cancelled_is_let_go_between_its_parts() -> None:
    findings, works = Findings(), Works(9)
    findings.add(1, ROW, works.of("late"), 5.0, OWN)
    findings.step(0.0, beside=False)
    assert works.held == {"late"}
    [read] = findings.step(5.0, beside=False)
    assert isinstance(read, Read)
    assert (read.job, read.numbers, works.held) == (1, None, set())
    findings.add(2, ROW, works.of("unwanted"), 9.0, OWN)
    findings.step(5.0, beside=False)
    findings.cancel(2)
    assert (findings.busy, works.held) == (False, set())


def test_a_check_that_fails_ends_alone() -> None:
    """Given no memory for one, the others and all answers go on."""

    def fails() -> Generator[None, None, Numbers]:
        yield
        raise MemoryError("no room")

    findings, works = Findings(), Works(1)
    findings.add(1, ROW, fails(), 9.0, FREE)
    findings.add(2, ROW, works.of("good"), 9.0, FREE)
    events = []
    while findings.busy:
        events += findings.step(0.0, beside=False)
    failed, good = events
    assert isinstance(failed, Unreadable)
    assert (failed.job, failed.why.reason) == (1, Reason.MODEL_FAILED)
    assert (good.job, isinstance(good, Read)) == (2, True)


def test_while_answers_are_written_most_steps_are_theirs() -> None:
    findings, works = Findings(), Works(99)
    findings.add(1, ROW, works.of("check"), 9.0, OWN)
    for _ in range(10 * BESIDE):
        findings.step(0.0, beside=True)
    assert len(works.read) == 10


def test_checks_are_bounded() -> None:
    findings, works = Findings(), Works(1)
    with pytest.raises(Invalid) as caught:
        findings.add(0, Row((1,) * (MAX_JOB_TOKENS + 1), 1), works.of("long"), 9.0, OWN)
    assert caught.value.reason is Reason.BAD_REQUEST
    for job in range(MAX_WAITING):
        findings.add(job, ROW, works.of("one"), 9.0, OWN)
    with pytest.raises(Invalid) as caught:
        findings.add(99, ROW, works.of("one more"), 9.0, OWN)
    assert caught.value.reason is Reason.BUSY


def test_an_answer_goes_on_while_another_is_checked() -> None:
    """Given a check of a long answer, when somebody asks meanwhile, then its tokens come before the
    check is over, and both are what they would be alone."""
    party = Party(opened(shipped_directory("docs-gpt")), SERVER)
    [subject] = party.serve(["The for statement"], Sampling(max_tokens=260, likely=LIKELY))
    alone = party.check(subject).output
    data = pack(subject.check())
    party.backend.submit(Submit(1, Kind.CHECK, data, (), Sampling(), b"", 9000), 0.0)
    party.backend.submit(text_job(2, "A list is", max_tokens=8), 0.0)
    replies = []
    while party.backend.busy:
        replies += party.backend.step(0.0)
    found = next(at for at, reply in enumerate(replies) if reply.job == 1)
    assert sum(reply.job == 2 and isinstance(reply, Part) for reply in replies[:found]) >= BESIDE
    assert [reply.job for reply in replies if isinstance(reply, Done)] == [2, 1]
    assert replies[found] == Part(1, b"", alone, (Tensor("float32", (261, 1 + LIKELY)),))
