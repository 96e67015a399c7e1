"""What stated probabilities earn: the logarithmic score, kept finite without losing its point.

* What is stated is first made to leave every option a small share: the nearest distribution that
  does (in relative entropy) multiplies the larger probabilities by one factor and lifts the rest.
  Of all distributions with such shares it scores best under the belief that was stated, so saying
  what one believes is the best one can do: the rule is proper.
* 1 for certain and right, 0 for knowing nothing, below 0 for confidently wrong. A single reward is
  not clipped at 0, which would pay for bluffing; a validator clips only the mean of many.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

UNKNOWING = 0.0
"""The reward of an answer that is missing, late or no answer."""
SHARE = 0.01
"""What every option keeps, of an even share."""


def reward(probabilities: Sequence[float], truth: int) -> float:
    """The reward of probabilities, two or more that sum to 1, when `truth` is right."""
    count = len(probabilities)
    least = SHARE / count
    most = 1 - (count - 1) * least
    return math.log(count * lifted(probabilities, least)[truth]) / math.log(count * most)


def lifted(probabilities: Sequence[float], least: float) -> list[float]:
    """max(least, c * p) for each p, with the c that makes them sum to 1."""
    low: set[int] = set()
    while True:
        kept = sum(p for index, p in enumerate(probabilities) if index not in low)
        factor = (1 - len(low) * least) / kept
        under = {index for index, p in enumerate(probabilities) if factor * p < least}
        if under <= low:
            return [max(least, factor * p) for p in probabilities]
        low |= under


def softmax(logits: NDArray[np.float64]) -> tuple[float, ...]:
    """The probabilities of a row of finite logits."""
    odds = np.exp(logits - logits.max())
    return tuple((odds / odds.sum()).tolist())
