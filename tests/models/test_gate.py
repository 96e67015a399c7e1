"""The gate: which expert a text looks to be for."""

import json

import numpy as np
import pytest

from ledger.errors import Invalid, Reason
from models.gate import BUCKETS, Gate, features, gate_bytes, learn, read_gate

CODE = b"def each(self, index):\n    return self.items[index]\n\n" * 60
PROSE = b"La orden muestra los ficheros del directorio que se indica. " * 60


@pytest.fixture(scope="module")
def gate() -> Gate:
    return learn([CODE, PROSE], seed=1, windows=100, steps=60)


def test_grounds_are_told_apart(gate: Gate) -> None:
    assert gate.opinion(b"    return self.index\n")[0] > 0.8
    assert gate.opinion(b"el directorio de los ficheros")[1] > 0.8


def test_an_empty_text_decides_nothing(gate: Gate) -> None:
    opinion = gate.opinion(b"")
    assert opinion.sum() == pytest.approx(1)
    assert opinion.min() > 0.2


def test_the_end_of_a_long_text_counts(gate: Gate) -> None:
    assert gate.opinion(PROSE + CODE) == pytest.approx(gate.opinion(CODE[-1024:]))


def test_features_are_shares_of_buckets() -> None:
    assert features(b"abcabc").sum() == pytest.approx(1)
    assert features(b"ab").sum() == 0


def test_a_gate_is_the_same_after_its_file(gate: Gate) -> None:
    again = read_gate(gate_bytes(gate))
    assert (again.opinion(b"some text") == gate.opinion(b"some text")).all()


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        json.dumps({"kind": "gate", "bias": [0], "weights": [[0] * (BUCKETS - 1)]}).encode(),
        json.dumps({"kind": "gate", "bias": [0.5], "weights": [[0] * BUCKETS]}).encode(),
        json.dumps({"kind": "gate", "bias": [10**9], "weights": [[0] * BUCKETS]}).encode(),
        json.dumps({"kind": "other", "bias": [0], "weights": [[0] * BUCKETS]}).encode(),
        json.dumps({"kind": "gate", "bias": [], "weights": []}).encode(),
        json.dumps({"kind": "gate", "bias": [0] * 17, "weights": [[0] * BUCKETS] * 17}).encode(),
    ],
)
def test_what_is_no_gate_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_gate(data)
    assert caught.value.reason == Reason.BAD_MODEL


def test_learning_is_the_same_each_time(gate: Gate) -> None:
    assert np.array_equal(learn([CODE, PROSE], seed=1, windows=100, steps=60).weights, gate.weights)
