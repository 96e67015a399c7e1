"""A small learned gate: which expert a text looks to be for, by its bytes.

* Features are the trigrams of the text's last bytes, hashed into some buckets, as shares of all.
  Above them is one softmax regression: g_i ~ exp(b_i + sum of w_ij x_j).
* A gate is a JSON file with weights in thousandths, so that it says the same everywhere.
* `python -m models.gate --out gate.json DIR DIR ...` learns one from texts of each expert's ground,
  in the order of the experts.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ledger.errors import Invalid, Reason
from models.mixture import Floats

BUCKETS = 1024
MAX_EXPERTS = 16
MAX_GATE_BYTES = 2**20
READ_BYTES = 1024
"""Of a prompt, its end: what comes next is of the same ground."""
UNIT = 1000
MOST_WEIGHT = 10**6
LEAST_OPINION = 1e-3
"""Of any expert: a gate errs, and what was written decides soon."""
WINDOWS = 4000
"""Of each ground; of 8 to READ_BYTES bytes, the short as many as the long."""
STEPS, RATE, DECAY = 400, 40.0, 1e-5


@dataclass(frozen=True)
class Gate:
    """Softmax regression over hashed trigrams."""

    weights: NDArray[np.int64]
    """(n, BUCKETS), in thousandths."""
    bias: NDArray[np.int64]
    """(n,), in thousandths."""

    def opinion(self, text: bytes) -> Floats:
        """How much each expert is to count after a text: (n,), of sum 1."""
        opinion: Floats = _opinions(features(text)[None], self.weights / UNIT, self.bias / UNIT)[0]
        return opinion


def features(text: bytes) -> Floats:
    """The share of each bucket (BUCKETS,) in the trigrams of a text's end."""
    data = np.frombuffer(text[-READ_BYTES:], np.uint8).astype(np.uint64)
    if len(data) < 3:
        return np.zeros(BUCKETS)
    trigrams = data[:-2] << np.uint64(16) | data[1:-1] << np.uint64(8) | data[2:]
    buckets = trigrams * np.uint64(2_654_435_761) % np.uint64(2**32) * np.uint64(BUCKETS)
    counts = np.bincount((buckets >> np.uint64(32)).astype(np.int64), minlength=BUCKETS)
    shares: Floats = counts / counts.sum()
    return shares


def _opinions(texts: Floats, weights: Floats, bias: Floats) -> Floats:
    """Opinions (T, n) of texts by their features (T, BUCKETS)."""
    scores = texts @ weights.T + bias
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    opinions: Floats = LEAST_OPINION + (1 - len(bias) * LEAST_OPINION) * odds
    return opinions


def read_gate(data: bytes) -> Gate:
    """The gate of a gate.json. Raises Invalid BAD_MODEL."""
    try:
        fields = json.loads(data)
        if fields["kind"] != "gate" or len(data) > MAX_GATE_BYTES:
            raise ValueError
        gate = Gate(_integers(fields["weights"]), _integers(fields["bias"]))
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        raise _refuse("it is no gate") from None
    count = len(gate.bias)
    if gate.bias.shape != (count,) or gate.weights.shape != (count, BUCKETS):
        raise _refuse(f"it has not {BUCKETS} weights for each expert")
    if not 1 <= count <= MAX_EXPERTS:
        raise _refuse(f"it is for {count} experts, of 1 to {MAX_EXPERTS}")
    return gate


def _integers(value: Any) -> NDArray[np.int64]:
    array = np.array(value)
    if array.dtype != np.int64 or np.abs(array).max() > MOST_WEIGHT:
        raise ValueError
    return array


def _refuse(detail: str) -> Invalid:
    return Invalid(Reason.BAD_MODEL, f"gate.json: {detail}")


def gate_bytes(gate: Gate) -> bytes:
    """The gate.json of a gate."""
    fields = {"kind": "gate", "bias": gate.bias.tolist(), "weights": gate.weights.tolist()}
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def learn(grounds: Sequence[bytes], seed: int, windows: int = WINDOWS, steps: int = STEPS) -> Gate:
    """The gate that tells windows of some grounds apart, by plain gradient descent."""
    random = np.random.default_rng(seed)
    texts = np.stack(
        [features(each) for text in grounds for each in _windows(text, windows, random)]
    )
    due = np.repeat(np.eye(len(grounds)), windows, axis=0)  # (T, n)
    weights, bias = np.zeros((len(grounds), BUCKETS)), np.zeros(len(grounds))
    for _ in range(steps):
        error = _opinions(texts, weights, bias) - due
        weights -= RATE * (error.T @ texts / len(texts) + DECAY * weights)
        bias -= error.mean(axis=0)
    most = MOST_WEIGHT
    return Gate(
        np.clip(np.rint(weights * UNIT), -most, most).astype(np.int64),
        np.clip(np.rint(bias * UNIT), -most, most).astype(np.int64),
    )


def _windows(text: bytes, count: int, random: np.random.Generator) -> list[bytes]:
    lengths = np.exp(random.uniform(np.log(8), np.log(READ_BYTES), count)).astype(int)
    starts = random.integers(0, max(1, len(text) - READ_BYTES), count)
    return [text[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def main() -> None:
    """Read the options and learn the gate."""
    parser = argparse.ArgumentParser(prog="python -m models.gate", description="Learn a gate.")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("grounds", metavar="DIR", type=Path, nargs="+", help="texts of one expert")
    options = parser.parse_args()
    grounds = []
    for directory in options.grounds:
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        grounds.append(b"\n".join(path.read_bytes() for path in files))
        print(f"{directory}: {len(files)} files, {len(grounds[-1])} bytes", file=sys.stderr)
    options.out.write_bytes(gate_bytes(learn(grounds, options.seed)))


if __name__ == "__main__":
    main()
