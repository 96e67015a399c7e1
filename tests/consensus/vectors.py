"""The vectors of tests/vectors/yuma, which the reference's compiled arithmetic made."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from consensus.replay import output_fields, read_input

DIRECTORY = Path(__file__).parents[1] / "vectors/yuma"
Fields = dict[str, Any]


@cache
def load(name: str) -> Any:
    """A file of vectors."""
    return json.loads((DIRECTORY / f"{name}.json").read_text())


def epoch_of(given: Fields) -> Fields:
    """The output fields of an epoch."""
    return output_fields(read_input(given))


def plain(**fields: Any) -> Fields:
    """An input of a subnet where nothing has happened, but for some fields; n is among them."""
    n = fields["n"]
    [case] = [case for case in load("epoch_cases")["cases"] if case["name"] == "test_10_graph"]
    return {
        **case["steps"][0]["input"],
        "last_update": [1] * n,
        "block_at_registration": [0] * n,
        "total_stake": [0] * n,
        "validator_permits": [0] * n,
        "weights": [[]] * n,
        "bonds": [[]] * n,
        "commit_blocks": [2**64 - 1] * n,
        **fields,
    }
