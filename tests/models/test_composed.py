"""Cards of mixtures and pipelines: what they say, how they are kept, what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ledger.errors import Invalid, Reason
from ledger.types import Hash
from models.composed import (
    Member,
    Mixture,
    Pipeline,
    PipelineStep,
    card_digest,
    card_json,
    card_of,
    filled,
    gate_hash,
    open_composed,
    write_composed,
)
from models.gate import BUCKETS, Gate, gate_bytes
from models.types import Kind

ONE, TWO = Member("one", Hash(b"1" * 32)), Member("two", Hash(b"2" * 32))
GATE = gate_bytes(Gate(np.zeros((2, BUCKETS), np.int64), np.zeros(2, np.int64)))
MIXTURE = Mixture("both", 256, (ONE, TWO), 2, b"t" * 32, gate_hash(GATE), ())
FIND = PipelineStep(ONE, Kind.EMBEDDING, "{input}", ("a passage", "another"))
WRITE = PipelineStep(TWO, Kind.TEXT, "{step1}\n{input}", ())
PIPELINE = Pipeline("found", 512, (FIND, WRITE))


@pytest.mark.parametrize("card", [MIXTURE, PIPELINE])
def test_a_card_is_the_same_after_its_directory(tmp_path: Path, card) -> None:
    write_composed(tmp_path / "c", card, GATE if card is MIXTURE else b"")
    composed = open_composed(tmp_path / "c")
    assert composed.card == card == card_of(card_json(card))
    assert composed.digest == card_digest(card)
    assert (composed.gate is not None) == (card is MIXTURE)


def test_another_expert_is_another_model() -> None:
    other = replace(MIXTURE, experts=(ONE, replace(TWO, digest=Hash(b"3" * 32))))
    assert card_digest(other) != card_digest(MIXTURE)


@pytest.mark.parametrize(
    "card",
    [
        pytest.param(replace(MIXTURE, top=0), id="nobody is asked"),
        pytest.param(replace(MIXTURE, top=3), id="more than there are"),
        pytest.param(replace(MIXTURE, experts=(ONE,)), id="one expert"),
        pytest.param(replace(MIXTURE, verifier=(ONE,)), id="verifier of tokens"),
        pytest.param(replace(MIXTURE, experts=(ONE, ONE)), id="one expert twice"),
        pytest.param(replace(MIXTURE, context=0), id="no context"),
        pytest.param(replace(PIPELINE, steps=(WRITE, FIND)), id="no text at the end"),
        pytest.param(replace(PIPELINE, steps=(WRITE,)), id="a step that is not there yet"),
        pytest.param(replace(PIPELINE, steps=()), id="no step"),
        pytest.param(
            replace(PIPELINE, steps=(replace(FIND, passages=()), WRITE)), id="nothing to find"
        ),
        pytest.param(
            replace(PIPELINE, steps=(replace(WRITE, kind=Kind.TENSOR, template="x"), WRITE)),
            id="a step in numbers",
        ),
    ],
)
def test_a_card_that_does_not_fit_together_is_refused(card) -> None:
    with pytest.raises(Invalid) as caught:
        card_of(card_json(card))
    assert caught.value.reason == Reason.BAD_MODEL


@pytest.mark.parametrize(
    "fields",
    [[], {}, {"kind": "mixture"}, {**card_json(MIXTURE), "more": 1},
     {**card_json(MIXTURE), "top": "2"}, {**card_json(MIXTURE), "gate": "xyz"}],
)  # fmt: skip
def test_json_that_is_no_card_is_refused(fields) -> None:
    with pytest.raises(Invalid) as caught:
        card_of(fields)
    assert caught.value.reason == Reason.BAD_MODEL


def test_a_directory_that_was_changed_is_refused(tmp_path: Path) -> None:
    write_composed(tmp_path, MIXTURE, GATE.replace(b'"bias":[0,0]', b'"bias":[9,0]'))
    with pytest.raises(Invalid) as caught:
        open_composed(tmp_path)
    assert caught.value.reason == Reason.BAD_MODEL
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(Invalid):
        open_composed(tmp_path)
    with pytest.raises(Invalid):
        open_composed(tmp_path / "nothing")


def test_a_template_is_filled_once() -> None:
    values = {"input": "{step1}", "step1": "found"}
    assert filled("{step1}: {input} {other}", values) == "found: {step1} {other}"
