"""Epochs as JSON: the format of the vectors (tests/vectors/yuma/README.md), read and computed."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from consensus.fixed import to_u16
from consensus.rows import Rows
from consensus.weights import prerank, row_shares
from consensus.yuma import NO_OWNER, EpochInput, epoch
from ledger.errors import Invalid, Reason
from ledger.params import MAX_UIDS

Document = Mapping[str, Any]

U16: Final = 2**16 - 1
U64: Final = 2**64 - 1
NUMBERS: Final = {
    "current_block": (0, U64),
    "tempo": (0, U64),
    "activity_cutoff": (0, U64),
    "lms": (0, U64),
    "min_stake": (0, U64),
    "max_allowed_validators": (0, U16),
    "owner_uid": (NO_OWNER, MAX_UIDS - 1),
    "kappa": (0, U16),
    "bonds_penalty": (0, U16),
    "bonds_moving_average": (0, 1_000_000),
    "alpha_low": (0, U16),
    "alpha_high": (0, U16),
    "steepness": (-(2**15), 2**15 - 1),
    "emission": (0, U64),
}
"""The fields of one number, with the least and the largest that it may be."""
FLAGS: Final = ("yuma3", "liquid_alpha", "commit_reveal", "dense")
BLOCKS: Final = ("last_update", "block_at_registration", "commit_blocks")
MATRICES: Final = ("weights", "bonds")
MAX_STAKE: Final = 2**63 - 1
MAX_SHOWN: Final = 80
"""Letters of a case's name in a message."""


def replay(document: Document) -> dict[str, Any]:
    """The document with an output for each step, computed from the step's own input.

    `{"cases": [{"name", "steps": [{"input"}]}]}` becomes `{"cases": [{"name", "steps":
    [{"output"}]}]}`. Raises Invalid BAD_EPOCH; its detail names the case, the step, the field.
    """
    return {"cases": [_case(place, case) for place, case in enumerate(_list(document, "cases"))]}


def _case(place: int, case: Any) -> dict[str, Any]:
    name = case.get("name") if isinstance(case, dict) else None
    if not isinstance(name, str):
        raise _refuse(f"case {place + 1} has no name")
    where = f"case {name[:MAX_SHOWN]!r}"
    steps = _list(case, "steps", f"{where}: ")
    return {
        "name": name,
        "steps": [_step(step, f"{where}, step {number + 1}") for number, step in enumerate(steps)],
    }


def _step(step: Any, where: str) -> dict[str, Any]:
    try:
        if not isinstance(step, dict) or not isinstance(step.get("input"), dict):
            raise _refuse("it has no input")
        return {"output": output_fields(read_input(step["input"]))}
    except Invalid as error:
        raise _refuse(f"{where}: {error.detail}") from None


def output_fields(given: EpochInput) -> dict[str, Any]:
    """The epoch's output under the names of the format."""
    done = epoch(given)
    weights = row_shares(done.weights)
    return {
        "stake_bits": done.stake.tolist(),
        "active": _as_flags(done.active),
        "active_stake_bits": done.active_stake.tolist(),
        "new_permits": _as_flags(done.new_permits),
        "consensus_bits": done.consensus.tolist(),
        "validator_trust_bits": done.validator_trust.tolist(),
        "prerank_bits": prerank(weights, done.active_stake).tolist(),
        "rank_bits": done.rank.tolist(),
        "incentive_bits": done.incentive.tolist(),
        "dividends_bits": done.dividends.tolist(),
        "weights_norm_bits": _pairs(weights, given.dense),
        "ema_bonds_bits": _pairs(done.ema_bonds, given.dense),
        "stake_weight_u16": to_u16(done.stake).tolist(),
        "consensus_u16": to_u16(done.consensus).tolist(),
        "validator_trust_u16": to_u16(done.validator_trust).tolist(),
        "incentive_u16": to_u16(done.incentive).tolist(),
        "dividends_u16": to_u16(done.dividends).tolist(),
        "server_emission": done.server_emission.tolist(),
        "validator_emission": done.validator_emission.tolist(),
        "combined_emission": done.combined_emission.tolist(),
        "bonds_u16": [
            row if permit else []
            for row, permit in zip(
                _pairs(done.bonds, given.dense), done.new_permits.tolist(), strict=True
            )
        ],
    }


def _as_flags(mask: Any) -> list[int]:
    flags: list[int] = mask.astype(int).tolist()
    return flags


def _pairs(rows: Rows, dense: bool) -> list[list[list[int]]]:
    """Rows as lists; those of the dense test epoch name every uid."""
    if not dense:
        return rows.pairs()
    count = len(rows.starts) - 1
    matrix = np.zeros((count, count), np.uint64)
    matrix[rows.owners, rows.uids] = rows.values
    return [list(map(list, enumerate(row))) for row in matrix.tolist()]


def read_input(fields: Document) -> EpochInput:
    """An epoch's input, every field checked. Raises Invalid BAD_EPOCH, whose detail names it."""
    count = _number(fields, "n", 1, MAX_UIDS)
    values: dict[str, Any] = {
        name: _number(fields, name, *limits) for name, limits in NUMBERS.items()
    }
    values |= {name: bool(_number(fields, name, 0, 1)) for name in FLAGS}
    if values["owner_uid"] >= count:
        raise _refuse(f"owner_uid is none of {count} uids")
    values |= {name: np.array(_numbers(fields, name, count, U64), np.uint64) for name in BLOCKS}
    values["total_stake"] = _numbers(fields, "total_stake", count, MAX_STAKE)
    values["validator_permits"] = np.array(_numbers(fields, "validator_permits", count, 1), bool)
    values |= {name: _rows(fields, name, count) for name in MATRICES}
    return EpochInput(**values)


def _refuse(detail: str) -> Invalid:
    return Invalid(Reason.BAD_EPOCH, detail)


def _list(fields: Any, name: str, where: str = "") -> list[Any]:
    value = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(value, list):
        raise _refuse(f"{where}{name} is not a list")
    return value


def _is_within(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _number(fields: Document, name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not least <= value <= most:
        raise _refuse(f"{name} is not an integer from {least} to {most}")
    return value


def _numbers(fields: Document, name: str, count: int, most: int) -> list[int]:
    values = _list(fields, name)
    if len(values) != count or not all(_is_within(value, 0, most) for value in values):
        raise _refuse(f"{name} is not {count} integers from 0 to {most}")
    return values


def _rows(fields: Document, name: str, count: int) -> Rows:
    rows = _list(fields, name)
    if len(rows) != count or not all(map(_is_row, rows)):
        raise _refuse(f"{name} is not {count} lists of [uid, value], both from 0 to {U16}")
    try:
        return Rows.of_pairs(rows)
    except Invalid as error:
        raise _refuse(f"{name}: {error.detail}") from None


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and all(map(_is_pair, row))


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, list) and len(pair) == 2 and all(_is_within(one, 0, U16) for one in pair)
    )
