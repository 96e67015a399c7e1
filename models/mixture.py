"""A mixture of experts: how much each expert's next token counts, and what comes of it.

* Experts that share a tokenizer are mixed token by token: p(t) = sum of w_i p_i(t).
* The weights w begin as the gate sees the prompt. After a token t they follow Bayes' rule,
  w_i ~ w_i p_i(t): an expert to whom what was written is likely counts more. That is its
  responsibility for t (Jacobs, Jordan, Nowlan and Hinton 1991), and its mean an expert's share.
* Text switches, as from code to a comment, so that a little of the weight is shared out anew before
  each token: w_i -> (1 - a) w_i + a g_i, where g is what the gate said (fixed share: Herbster and
  Warmuth 1998, "Tracking the best expert"). Over T tokens it is worse than the best expert of each
  stretch, chosen afterwards, by at most (T - k) log 1/(1 - a) + the sum of log 1/(a g) over the k
  switches + log 1/g of the first; without switches, by about a T.
* Answers of experts that share no tokenizer are ranked whole: by agreement, here as the mean
  likeness of one to the others (Wang et al. 2023, "Self-consistency"; likeness is that of letters).
* Only numbers here: no tokens' meaning, no torch, no clock.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ledger.errors import Invalid, Reason

MAX_WHOLE = 4096
"""Tokens of a vocabulary whose distribution is said whole: 16 KiB a step."""
TOP = 512
"""Tokens that are named of a larger one; those left out share what is left of the likelihood."""
FIXED_SHARE = 0.05
"""The weight that is shared out anew before each token: chosen on a file that no figure is of."""
LEAST_SCORE = -1000.0
"""A logarithm of what is all but impossible: finite, so that sums stay numbers."""
SUM_TOLERANCE = 1e-3
"""Of a distribution's sum over 1; scores are float32."""
TOKEN_BYTES = 4
LETTERS = 4
"""Of the pieces in which two answers are compared."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """What an expert says of the next token."""

    tokens: NDArray[np.uint32]
    """The tokens that are named, in order; none where all of the vocabulary are."""
    scores: NDArray[np.float32]
    """The natural logarithm of each one's probability; where tokens are named, one number more at
    the end: that of any other token."""

    @property
    def vocabulary(self) -> int:
        """How many tokens it is over, where all are said; 0 where they are more than that."""
        return 0 if len(self.tokens) else len(self.scores)

    def score(self, token: int) -> np.float32:
        """What it said of one token. Raises Invalid BAD_REQUEST where the vocabulary has it not."""
        if not len(self.tokens):
            if token >= len(self.scores):
                raise Invalid(Reason.BAD_REQUEST, f"token {token} is not of the vocabulary")
            return np.float32(self.scores[token])
        place = int(np.searchsorted(self.tokens, token))
        named = place < len(self.tokens) and self.tokens[place] == token
        return np.float32(self.scores[place if named else -1])

    def over(self, tokens: NDArray[np.uint32]) -> Floats:
        """The scores of some tokens in order, named by it or not."""
        places = np.searchsorted(self.tokens, tokens)
        places[places == len(self.tokens)] = -1
        named = self.tokens[places] == tokens
        return np.where(named, self.scores[places], self.scores[-1]).astype(np.float64)


def distribution(logits: NDArray[np.float32]) -> Distribution:
    """What an expert's logits (V,) say of the next token."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    scores = np.maximum(wide - np.log(np.exp(wide).sum()), LEAST_SCORE)
    if len(scores) <= MAX_WHOLE:
        return Distribution(np.empty(0, np.uint32), scores.astype(np.float32))
    top = np.sort(np.argpartition(scores, -TOP)[-TOP:])
    rest = max(1.0 - float(np.exp(scores[top]).sum()), 1e-9) / (len(scores) - TOP)
    named = np.append(scores[top], np.log(rest))
    return Distribution(top.astype(np.uint32), named.astype(np.float32))


def read_distribution(tokens: bytes, scores: bytes) -> Distribution:
    """The distribution that little-endian bytes say. Raises Invalid BAD_ANSWER."""
    if len(tokens) % TOKEN_BYTES or len(scores) % 4:
        raise _refuse("its bytes are not whole numbers")
    said = Distribution(np.frombuffer(tokens, "<u4"), np.frombuffer(scores, "<f4"))
    named, count = len(said.tokens), len(said.scores)
    if count != named + 1 if named else not 2 <= count <= MAX_WHOLE:
        raise _refuse(f"{count} numbers are not those of {named or 'all'} tokens")
    if named > TOP or not (said.tokens[1:] > said.tokens[:-1]).all():
        raise _refuse(f"its tokens are over {TOP} or not in order")
    if not np.isfinite(said.scores).all() or said.scores.max() > SUM_TOLERANCE:
        raise _refuse("a number of it is not the logarithm of a probability")
    shares = np.exp(said.scores.astype(np.float64))
    if named:  # each of those left out has the last share: so many there are at least
        shares[-1] *= MAX_WHOLE + 1 - named
    total = float(shares.sum())
    if total > 1 + SUM_TOLERANCE or (not named and total < 1 - SUM_TOLERANCE):
        raise _refuse(f"its probabilities sum to {total:.4f}")
    return said


def _refuse(detail: str) -> Invalid:
    return Invalid(Reason.BAD_ANSWER, f"the distribution is none: {detail}")


@dataclass(frozen=True)
class Weights:
    """How much each expert counts for the next token; one that is lost has 0 for good."""

    now: Floats
    """(n,), of sum 1."""
    gate: Floats
    """(n,), of sum 1: what the gate said, and how what is shared out anew is shared."""
    share: float = FIXED_SHARE
    """What part of the weight is shared out anew before each token."""

    @classmethod
    def first(cls, gate: Sequence[float] | Floats, share: float = FIXED_SHARE) -> "Weights":
        """The weights before anything was written."""
        opinion = np.asarray(gate, np.float64)
        opinion = opinion / opinion.sum()
        return cls(opinion, opinion, share)

    def mixed(self, said: Sequence[Distribution | None]) -> tuple[NDArray[np.uint32], Floats]:
        """The tokens that are named by an expert (none: all), and the logarithms of how likely the
        mixture holds each. None stands for an expert that is lost."""
        known = [(weight, each) for weight, each in zip(self.now, said, strict=True) if each]
        named = [each.tokens for _, each in known]
        if all(map(len, named)):
            tokens = np.unique(np.concatenate(named))
            scores = [each.over(tokens) for _, each in known]
        else:
            tokens = np.empty(0, np.uint32)
            scores = [each.scores.astype(np.float64) for _, each in known]
        weights = np.array([weight for weight, _ in known])
        return tokens, _log_mean(np.stack(scores), weights)

    def after(self, scores: Sequence[float] | Floats) -> "Weights":
        """The weights once a token is chosen, given what each expert said of it (n,): each
        expert's responsibility for it. What is to be shared out anew is not yet."""
        likelihood = np.asarray(scores, np.float64)
        alive = self.now > 0
        odds = np.zeros_like(self.now)
        odds[alive] = self.now[alive] * np.exp(likelihood[alive] - likelihood[alive].max())
        return Weights(odds / odds.sum(), self.gate, self.share)

    def shared(self) -> "Weights":
        """The weights for the next token, a part of them shared out anew."""
        return Weights((1 - self.share) * self.now + self.share * self.gate, self.gate, self.share)

    def without(self, index: int) -> "Weights":
        """The weights of those that are left. Raises Invalid BUSY where nobody is."""
        now, gate = self.now.copy(), self.gate.copy()
        now[index] = gate[index] = 0.0
        if not gate.sum():
            raise Invalid(Reason.BUSY, "all experts are lost")
        if not now.sum():
            now = gate
        return Weights(now / now.sum(), gate / gate.sum(), self.share)


def _log_mean(scores: Floats, weights: Floats) -> Floats:
    """The logarithm of the weighted mean of probabilities (n, V), given by their logarithms."""
    top = scores.max(axis=0)
    mean: Floats = top + np.log(weights @ np.exp(scores - top) + 1e-300)
    return mean


def replayed(
    gate: Sequence[float] | Floats, scores: Floats, share: float = FIXED_SHARE
) -> tuple[Floats, Floats]:
    """A mixture over again, from what each expert said of each token taken, (T, n): what the
    mixture said of it, (T,), and each expert's responsibility for it, (T, n)."""
    weights = Weights.first(gate, share)
    said, responsible = [], []
    for row in scores:
        said.append(_log_mean(row[:, None], weights.now)[0])
        weights = weights.after(row)
        responsible.append(weights.now)
        weights = weights.shared()
    return np.array(said), np.array(responsible).reshape(scores.shape)


def best_answer(answers: Sequence[str]) -> int:
    """Which of some answers the others are most like; the first of those on a tie."""
    pieces = [_pieces(answer) for answer in answers]
    agreement = [
        sum(_likeness(one, other) for other in pieces if other is not one) for one in pieces
    ]
    return agreement.index(max(agreement))


def _pieces(text: str) -> Counter[str]:
    text = " ".join(text.lower().split())
    return Counter(text[at : at + LETTERS] for at in range(max(1, len(text) - LETTERS + 1)))


def _likeness(one: Counter[str], other: Counter[str]) -> float:
    """The share of their pieces that two texts have in common (Dice's coefficient)."""
    return 2 * (one & other).total() / max(1, one.total() + other.total())
