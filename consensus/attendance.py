"""Attendance: who signs what the committee decides, and who lets a turn to propose go by.

* A block's certificate of its parent says which voters signed. That of an epoch's last block, which
  comes with the next epoch, counts for nobody.
* A block of view u says that the leaders of the views before let theirs go by. Each counts once a
  height: a network that stands still costs a node one miss, however many views fail.

Both end with the epoch, but for pools that missed too often: these stay on the list, and out of the
lottery, until they send a heartbeat (CONSENSUS 4.7). Nobody is slashed for being away.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Final

from consensus.lottery import lottery_at
from ledger.blocks import Certificate, Header
from ledger.params import Params
from ledger.state import State
from ledger.tables import ATTENDANCE, HOTKEYS, Attendance, Misses, Pool, Term
from ledger.types import PublicKey

TOO_MANY: Final = 3
"""Misses in an epoch that put a pool out of the lottery."""
MAX_VIEWS: Final = 64
"""Views of a height whose leaders count: an hour of failed views on the main network."""


def attendance_of(state: State) -> Attendance:
    """What was seen since the epoch began."""
    return state.get(ATTENDANCE) or Attendance()


def attend(state: State, params: Params, header: Header, certificate: Certificate) -> None:
    """Note who signed the certificate that a block carries, and whose turns went by before it.

    The state is that of the parent. Raises Invalid WRONG_BLOCK where it knows no such height.
    """
    row = attendance_of(state)
    if (header.height - 1) % params.epoch:
        row = replace(row, certificates=row.certificates + 1, signed=_signed(row, certificate))
    for pool in _missed(state, params, header):
        row = replace(row, misses=_with_miss(row.misses, pool, header.height))
    state.put(ATTENDANCE, b"", row)


def _signed(row: Attendance, certificate: Certificate) -> tuple[int, ...]:
    """How many certificates each voter has signed with this one."""
    last = max((signer.index for signer in certificate.signers), default=-1)
    new = [0] * (last + 1)
    for signer in certificate.signers:
        new[signer.index] = 1
    return tuple(old + one for old, one in zip_longest(row.signed, new, fillvalue=0))


def _missed(state: State, params: Params, header: Header) -> list[PublicKey]:
    """The pools of the leaders of the views that failed before a block was proposed, ascending."""
    if not header.view:
        return []
    lottery, views = lottery_at(state, params, header.height), range(min(header.view, MAX_VIEWS))
    return _pools_of(state, (lottery.leader(header.height, view) for view in views))


def _pools_of(state: State, hotkeys: Iterable[PublicKey]) -> list[PublicKey]:
    """The pools that hotkeys speak for, or spoke for, each once, ascending."""
    found = (state.get(HOTKEYS, hotkey) for hotkey in dict.fromkeys(hotkeys))
    return sorted(dict.fromkeys(row.pool for row in found if row))


def _with_miss(misses: tuple[Misses, ...], pool: PublicKey, height: int) -> tuple[Misses, ...]:
    counts = {row.pool: row.count for row in misses}
    others = [row for row in misses if row.pool != pool]
    new = Misses(pool, counts.get(pool, 0) + 1, height)
    return tuple(sorted((*others, new), key=lambda row: row.pool))


def absent(state: State, ended: Term) -> list[PublicKey]:
    """The pools of the ended term's voters who signed less than half of what was decided."""
    row = attendance_of(state)
    signed = dict(enumerate(row.signed))
    return _pools_of(
        state,
        (
            voter.key
            for place, voter in enumerate(ended.voters)
            if 2 * signed.get(place, 0) < row.certificates
        ),
    )


def suspended(state: State, pools: Mapping[PublicKey, Pool]) -> tuple[Misses, ...]:
    """Of some pools those that missed too often, and have sent no heartbeat since."""
    return tuple(
        missed
        for missed in attendance_of(state).misses
        if missed.count >= TOO_MANY
        and missed.pool in pools
        and pools[missed.pool].heartbeat <= missed.last
    )
