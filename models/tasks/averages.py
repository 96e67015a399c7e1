"""What a validator remembers of its subnet's miners, and the weights that come of it.

* A miner has two averages, one for each door: what it earned asked by the validator, and asked by a
  stranger. Their mean counts, but no more than twice the stranger's: serving only tests earns
  nothing. The lower of both would let luck decide, and pay for saying less than one believes.
* Who answers nobody in a whole tempo has nothing at its end, however good it was.
* Within a tempo rewards are collected; at its end their mean moves the average halfway to it. The
  first tempo sets it; a tempo without a visit leaves it.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.errors import Invalid, Reason
from ledger.types import Height, PublicKey
from models.tasks.scoring import UNKNOWING

FORMAT = "yuma-averages-1"
MAX_MINERS = 65_536
"""As many as there can be uids."""
MAX_BYTES = 32 * 2**20
"""Of all miners' averages as JSON; a miner takes about 200 bytes."""
MAX_REWARD = 100.0
"""No task's reward lies beyond it, on either side."""
MAX_VISITS = 2**31
MOST = 65_535
"""The best miner's weight."""


@dataclass(frozen=True, order=True)
class Miner:
    """A hotkey since it was registered: who comes later under a uid, or again, begins anew."""

    hotkey: PublicKey
    registered: Height


@dataclass
class _Door:
    """What a miner earned through one door: its average, and what this tempo adds."""

    average: float | None = None
    count: int = 0
    total: float = 0.0
    answered: int = 0

    def turn(self) -> None:
        if self.count:
            mean = self.total / self.count
            self.average = mean if self.average is None else (self.average + mean) / 2
        self.count, self.total, self.answered = 0, 0.0, 0


_UNKNOWN: Final = (_Door(), _Door())


class Averages:
    """The averages of a subnet's miners. Empty at first."""

    def __init__(self) -> None:
        self._doors: dict[Miner, tuple[_Door, _Door]] = {}

    def observe(self, miner: Miner, stranger: bool, reward: float | None) -> None:
        """Collect the reward of a visit, made as a stranger or as the validator; None: no answer.

        What is no finite number, as a task of someone's own may say, counts as knowing nothing.
        """
        if miner not in self._doors and len(self._doors) >= MAX_MINERS:
            return
        door = self._doors.setdefault(miner, (_Door(), _Door()))[stranger]
        door.count += 1
        door.answered += reward is not None
        finite = reward if reward is not None and math.isfinite(reward) else UNKNOWING
        door.total += max(-MAX_REWARD, min(MAX_REWARD, finite))

    def turn(self, registered: Collection[Miner]) -> None:
        """End a tempo; who is no longer registered is forgotten."""
        known = set(registered)
        self._doors = {miner: doors for miner, doors in self._doors.items() if miner in known}
        for doors in self._doors.values():
            is_gone = any(door.count for door in doors) and not any(door.answered for door in doors)
            for door in doors:
                door.turn()
                door.average = UNKNOWING if is_gone else door.average

    def score(self, miner: Miner) -> float:
        """The mean of both averages, or twice the stranger's if that is less; 0 at least.

        Unknown at a door is 0 there.
        """
        known, stranger = (door.average or 0.0 for door in self._doors.get(miner, _UNKNOWN))
        return max(0.0, min((known + stranger) / 2, 2 * stranger))

    def weights(self, miners: Mapping[int, Miner]) -> list[tuple[int, int]]:
        """Each uid with the weight of its miner: the best has 65535, who has earned nothing 0."""
        scores = {uid: self.score(miners[uid]) for uid in sorted(miners)}
        best = max(scores.values(), default=0.0)
        return [(uid, round(MOST * score / best) if best else 0) for uid, score in scores.items()]

    def to_json(self) -> str:
        """All that is remembered, in the order of hotkeys."""
        rows = [
            [miner.hotkey.hex(), miner.registered]
            + [[door.average, door.count, door.total, door.answered] for door in doors]
            for miner, doors in sorted(self._doors.items())
        ]
        return json.dumps({"format": FORMAT, "miners": rows})

    @classmethod
    def from_json(cls, text: str) -> "Averages":
        """What was remembered. Raises Invalid BAD_AVERAGES."""
        if len(text) > MAX_BYTES:
            raise Invalid(Reason.BAD_AVERAGES, f"it is over {MAX_BYTES} bytes")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise Invalid(Reason.BAD_AVERAGES, "it is not JSON") from None
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise Invalid(Reason.BAD_AVERAGES, f"its format is not {FORMAT}")
        rows = value.get("miners")
        if not isinstance(rows, list) or len(rows) > MAX_MINERS:
            raise Invalid(Reason.BAD_AVERAGES, "it has no list of miners")
        averages = cls()
        averages._doors = dict(_miner_of(row) for row in rows)
        return averages


def _miner_of(row: Any) -> tuple[Miner, tuple[_Door, _Door]]:
    """A miner and its doors. Raises Invalid BAD_AVERAGES."""
    try:
        hotkey, registered, known, stranger = row
        key = bytes.fromhex(hotkey)
        legal = len(key) == 32 and _is_count(registered)
        doors = _door_of(known), _door_of(stranger)
    except (TypeError, ValueError, OverflowError):
        legal = False
    if not legal:
        raise Invalid(Reason.BAD_AVERAGES, f"{row!r:.100} is no miner with two averages")
    return Miner(PublicKey(key), Height(registered)), doors


def _door_of(value: Any) -> _Door:
    """What was earned through a door. Raises ValueError, TypeError."""
    average, count, total, answered = value
    if not _is_count(count) or not _is_reward(total, max(count, 1)) or not _is_count(answered):
        raise ValueError("it is no sum of rewards")
    if average is not None and not _is_reward(average, 1):
        raise ValueError("it is no average")
    return _Door(None if average is None else float(average), count, float(total), answered)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_VISITS


def _is_reward(value: Any, times: int) -> bool:
    known = type(value) in (int, float) and math.isfinite(value)
    return known and abs(value) <= MAX_REWARD * times
