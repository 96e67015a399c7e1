"""The rules R1 to R3 of one height as constraints, for z3: can two blocks be decided?

The unknown is what every honest voter signed in each view. Byzantine voters may have signed
everything; who received what when is left out, so that a voter may always have known what others
had signed. If even so no two blocks can be decided, they cannot in any run (CONSENSUS 5).
"""

from dataclasses import dataclass, field
from typing import Any

import z3

BLOCKS = range(2)
NONE = -2
"""No timeout; -1 is a timeout without a lock."""


@dataclass
class Rules:
    """A committee of honest weights beside a Byzantine one, over some views; flags break a rule."""

    weights: list[Any]
    bad: Any
    views: int
    quorum: Any = None
    n_twice: bool = False
    f_after_t: bool = False
    no_regard: bool = False
    lower_lock: bool = False
    f_unlocked: bool = False
    solver: Any = field(default_factory=z3.Solver)

    def __post_init__(self) -> None:
        total = sum(self.weights) + self.bad
        if self.quorum is None:
            self.quorum = 2 * total / 3 + 1 if z3.is_expr(total) else 2 * total // 3 + 1
        voters, views = range(len(self.weights)), range(self.views)
        names = [(i, v) for i in voters for v in views]
        self.n = {(i, v, x): z3.Bool(f"N{i},{v},{x}") for i, v in names for x in BLOCKS}
        self.f = {(i, v, x): z3.Bool(f"F{i},{v},{x}") for i, v in names for x in BLOCKS}
        self.t = {(i, v): z3.Int(f"T{i},{v}") for i, v in names}
        for i, v in names:
            self._voter(i, v)

    def _weigh(self, votes: list[Any]) -> Any:
        """Whether those who cast votes are a quorum with the Byzantine ones."""
        weight = z3.Sum([z3.If(vote, w, 0) for vote, w in zip(votes, self.weights, strict=True)])
        return weight + self.bad >= self.quorum

    def notarised(self, view: int, block: int) -> Any:
        return self._weigh([self.n[i, view, block] for i in range(len(self.weights))])

    def decided(self, view: int, block: int) -> Any:
        return self._weigh([self.f[i, view, block] for i in range(len(self.weights))])

    def left(self, view: int, locked: int) -> Any:
        """Whether a view can be given up by a quorum none of which is locked higher."""
        return self._weigh(
            [
                z3.And(self.t[i, view] != NONE, self.t[i, view] <= locked)
                for i in range(len(self.weights))
            ]
        )

    def _justified(self, view: int, block: int) -> Any:
        if view == 0:
            return True
        if self.no_regard:
            return self.left(view - 1, view - 1)
        ways = [self.left(view - 1, -1)]
        for locked in range(view):
            named = range(locked + 1) if self.lower_lock else (locked,)
            lock = z3.Or([self.notarised(at, block) for at in named])
            ways.append(z3.And(self.left(view - 1, locked), lock))
        return z3.Or(ways)

    def _voter(self, i: int, v: int) -> None:
        add, t = self.solver.add, self.t[i, v]
        for x in BLOCKS:
            add(z3.Implies(self.n[i, v, x], self._justified(v, x)))  # R1
            if not self.f_unlocked:
                add(z3.Implies(self.f[i, v, x], self.notarised(v, x)))  # R2
        add(z3.Not(z3.And(self.f[i, v, 0], self.f[i, v, 1])))
        if not self.n_twice:
            add(z3.Not(z3.And(self.n[i, v, 0], self.n[i, v, 1])))
        add(t >= NONE, t <= v)  # R3
        for at in range(v + 1):
            known = z3.Or([self.notarised(at, x) for x in BLOCKS])
            add(z3.Implies(t == at, known))
            if not self.f_after_t:
                said = z3.Or(self.f[i, at, 0], self.f[i, at, 1])
                add(z3.Implies(z3.And(said, t != NONE), t >= at))

    def holds(self, *goals: Any) -> bool:
        """Whether all goals can come about together."""
        self.solver.push()
        self.solver.add(*goals)
        answer = self.solver.check()
        self.solver.pop()
        assert answer != z3.unknown
        return bool(answer == z3.sat)

    def forks(self) -> bool:
        """Whether two blocks can be decided, in whatever views."""
        pairs = [(u, w) for u in range(self.views) for w in range(self.views)]
        return self.holds(z3.Or([z3.And(self.decided(u, 0), self.decided(w, 1)) for u, w in pairs]))


def symbolic(honest: int, views: int, **broken: bool) -> Rules:
    """Any split of stake with less than a third Byzantine."""
    weights, bad = [z3.Int(f"w{i}") for i in range(honest)], z3.Int("bad")
    rules = Rules(weights, bad, views, **broken)
    rules.solver.add(bad >= 0, *(weight > 0 for weight in weights))
    rules.solver.add(3 * bad < sum(weights) + bad)
    return rules
