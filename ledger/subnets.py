"""Subnets: the slots in which neurons compete, what a slot costs, and what its owner sets.

A subnet's epochs end the blocks whose height and netuid sum to a multiple of its tempo, so that
not all subnets' epochs fall into one block. The rules are those of subtensor's subnets/subnet.rs,
coinbase/root.rs and utils/misc.rs.
"""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ledger.accounts import pay, take
from ledger.call import Call
from ledger.codec import MAX_INTEGER
from ledger.emission import pots_of
from ledger.errors import Invalid, Reason
from ledger.params import MAX_UIDS, ONE, SLOTS, Params
from ledger.payloads import CreateSubnet, SetSubnet, SetTask
from ledger.stakes import owned_pool
from ledger.state import State, Table
from ledger.tables import (
    BONDS,
    CHANGES,
    COMMITS,
    EPOCH_ROWS,
    EPOCHS,
    LOCK_PRICE,
    NEURONS,
    POTS,
    SCORES,
    SUBNETS,
    TASKS,
    UIDS,
    WEIGHTS,
    Change,
    Hyperparameters,
    LockPrice,
    Neuron,
    Subnet,
    Task,
    Uid,
    netuid_key,
    uid_key,
)
from ledger.types import PublicKey


@dataclass(frozen=True)
class Setting:
    """The values that a setting can have, and how often it can change."""

    least: int
    most: int
    of_tempo: bool = False
    """Whether the range is in the network's tempos."""
    interval: int = 0
    """Between two changes, in tempos of the subnet; 0 for the network's `change_tempos`."""


_SWITCH: Final = Setting(0, 1)

SETTINGS: Final = {
    "tempo": Setting(1, 140, of_tempo=True),
    "immunity": Setting(0, 65_535),
    "max_uids": Setting(64, MAX_UIDS),
    "max_validators": Setting(1, 256),
    "min_allowed_weights": Setting(0, MAX_UIDS),
    "activity_cutoff": Setting(1_000, 50_000),
    "weights_version": Setting(0, MAX_INTEGER, interval=5),
    "commit_reveal": _SWITCH,
    "reveal_tempos": Setting(1, 100),
    "yuma3": _SWITCH,
    "liquid_alpha": _SWITCH,
    "alpha_low": Setting(1_638, ONE),
    "alpha_high": Setting(1_638, ONE),
    "alpha_steepness": Setting(0, 32_767),
    "bonds_penalty": Setting(0, ONE),
    "bonds_moving_average": Setting(0, 975_000),
}
"""What an owner can set, by the names of `Hyperparameters` (subtensor's admin-utils).

Besides: `max_uids` is not below the neurons there are nor below `max_validators`; `alpha_low` is
not above `alpha_high`, and both change only while `liquid_alpha` is on.
"""

TASK_NAME: Final = re.compile("[a-z][a-z0-9._-]*")
_TASK_CHANGE: Final = "task"
"""Among the names of settings in CHANGES."""
_OF_SUBNET: Final[tuple[Table[Any], ...]] = (
    SUBNETS, TASKS, NEURONS, UIDS, COMMITS, WEIGHTS, BONDS, SCORES, EPOCHS, EPOCH_ROWS, CHANGES,
)  # fmt: skip
"""Tables whose keys begin with a netuid."""


def create_subnet(call: Call, payload: CreateSubnet) -> None:
    """Lock the price of a slot and take it; a hotkey of the sender becomes its uid 0.

    Where no slot is free, the weakest subnet that is not immune makes room.
    Raises Invalid: NO_HOTKEY, NOT_OWNER, TOO_SOON, TOO_DEAR, NO_SLOT, NO_BALANCE.
    """
    pool = owned_pool(call, payload.hotkey)
    last = call.state.get(LOCK_PRICE) or LockPrice()
    if last.height and call.height - last.height < call.params.creation_interval:
        raise Invalid(Reason.TOO_SOON, f"after block {last.height}")
    price = lock_price(call.params, last, call.height)
    if price > payload.most:
        raise Invalid(Reason.TOO_DEAR, f"it costs {price} rao")
    netuid = slot(call.state, call.params, call.height)
    take(call.state, call.sender, price)
    if call.state.get(SUBNETS, netuid_key(netuid)):
        dissolve(call.state, netuid)
    subnet = new_subnet(call.params, call.sender, pool, price, call.height)
    call.state.put(SUBNETS, netuid_key(netuid), subnet)
    seat(call.state, netuid, 0, pool, call.height)
    call.state.put(LOCK_PRICE, b"", LockPrice(price, call.height))


def set_subnet(call: Call, payload: SetSubnet) -> None:
    """Change a setting of a subnet of the sender.

    Raises Invalid: NO_SUBNET, NOT_OWNER, NO_SETTING, BAD_SETTING, FROZEN, TOO_SOON.
    """
    subnet = subnet_of(call.state, payload.netuid)
    if subnet.owner != call.sender:
        raise Invalid(Reason.NOT_OWNER)
    if payload.name not in SETTINGS:
        raise Invalid(Reason.NO_SETTING, f"settings are {', '.join(SETTINGS)}")
    changed = _changed(call.params, subnet, payload)
    _check_time(call, payload.netuid, payload.name, subnet.hyperparameters.tempo, changed.tempo)
    key = netuid_key(payload.netuid)
    call.state.put(SUBNETS, key, replace(subnet, hyperparameters=changed))
    call.state.put(CHANGES, key + payload.name.encode(), Change(call.height))


def set_task(call: Call, payload: SetTask) -> None:
    """Say what a subnet of the sender asks of its miners.

    Raises Invalid: NO_SUBNET, NOT_OWNER, BAD_SETTING, FROZEN, TOO_SOON.
    """
    subnet = subnet_of(call.state, payload.netuid)
    if subnet.owner != call.sender:
        raise Invalid(Reason.NOT_OWNER)
    task = Task(payload.task, payload.parameters)
    check_task(task)
    tempo = subnet.hyperparameters.tempo
    key = netuid_key(payload.netuid)
    if call.state.get(TASKS, key):
        _check_time(call, payload.netuid, _TASK_CHANGE, tempo, tempo)
    call.state.put(TASKS, key, task)
    call.state.put(CHANGES, key + _TASK_CHANGE.encode(), Change(call.height))


def check_task(task: Task) -> None:
    """Whether a subnet can have this task. Raises Invalid BAD_SETTING."""
    if not TASK_NAME.fullmatch(task.name):
        raise Invalid(Reason.BAD_SETTING, "a task's name begins with a letter, then a-z 0-9 . _ -")
    # By number: what Python calls printable differs between its versions, and blocks must not.
    if not all(" " <= letter <= "~" for letter in task.parameters):
        raise Invalid(Reason.BAD_SETTING, "a task's parameters are one line of printable ASCII")


def task_of(state: State, netuid: int) -> Task | None:
    """What a subnet asks of its miners, if its owner has said it."""
    return state.get(TASKS, netuid_key(netuid))


def check_settings(params: Params, settings: Hyperparameters) -> None:
    """Whether a subnet can have these hyperparameters. Raises Invalid BAD_SETTING."""
    for name, value in asdict(settings).items():
        _check_range(params, name, value)
    _check_fit(settings)


def is_epoch(netuid: int, tempo: int, height: int) -> bool:
    """Whether a block ends with the subnet's epoch."""
    return (height + netuid) % tempo == 0


def tempo_end(netuid: int, tempo: int, height: int) -> int:
    """The height of the epoch that ends a height's tempo: a block is of the tempo that it ends."""
    return height + -(height + netuid) % tempo


def subnet_of(state: State, netuid: int) -> Subnet:
    """The subnet of a netuid; the root, 0, is none. Raises Invalid NO_SUBNET."""
    subnet = state.get(SUBNETS, netuid_key(netuid)) if 0 < netuid <= SLOTS else None
    if subnet is None:
        raise Invalid(Reason.NO_SUBNET, str(netuid))
    return subnet


def lock_price(params: Params, last: LockPrice, height: int) -> int:
    """What a slot costs, in rao: twice the last price, falling to it and on to the least.

    `get_network_lock_cost` of subtensor's subnets/subnet.rs.
    """
    dearest = last.price * (2 if last.height else 1)
    fallen = last.price // params.lock_interval * (height - last.height)
    return max(params.min_lock, dearest - fallen)


def slot(state: State, params: Params, height: int) -> int:
    """The lowest free netuid, or else that of the weakest subnet that is not immune.

    The weakest has the lowest standing, of equals the oldest (`get_network_to_prune` of
    subtensor's coinbase/root.rs). Raises Invalid NO_SLOT.
    """
    subnets = {int.from_bytes(key): subnet for key, subnet in state.rows(SUBNETS)}
    for netuid in range(1, SLOTS + 1):
        if netuid not in subnets:
            return netuid
    mortal = [
        (subnet.standing, subnet.created, netuid)
        for netuid, subnet in subnets.items()
        if height - subnet.created >= params.subnet_immunity
    ]
    if not mortal:
        raise Invalid(Reason.NO_SLOT)
    return min(mortal)[-1]


def first_settings(params: Params) -> Hyperparameters:
    """What is set in a subnet before its owner sets anything."""
    return Hyperparameters(params.tempo, params.immunity)


def new_subnet(
    params: Params, owner: PublicKey, pool: PublicKey, locked: int, height: int
) -> Subnet:
    """A subnet as it begins, with one neuron and `locked` rao."""
    return Subnet(
        owner=owner,
        pool=pool,
        created=height,
        locked=locked,
        neurons=1,
        burn=params.first_burn,
        burn_at=height,
        last_epoch=0,
        standing=0,
        hyperparameters=first_settings(params),
    )


def seat(state: State, netuid: int, uid: int, pool: PublicKey, height: int) -> None:
    """Give a uid, which is nobody's, to a pool."""
    state.put(NEURONS, uid_key(netuid, uid), Neuron(pool, registered=height, updated=height))
    state.put(UIDS, netuid_key(netuid) + pool, Uid(uid))


def dissolve(state: State, netuid: int) -> None:
    """Delete a subnet: its lock goes back to its owner, its pot to all subnets.

    Raises Invalid NO_SUBNET.
    """
    subnet = subnet_of(state, netuid)
    pay(state, subnet.owner, subnet.locked)
    pots = pots_of(state)
    amounts, shares = list(pots.amounts), list(pots.shares)
    amounts[0] += amounts[netuid]
    amounts[netuid] = shares[netuid] = 0
    state.put(POTS, b"", replace(pots, amounts=tuple(amounts), shares=tuple(shares)))
    for table in _OF_SUBNET:
        for key, _ in list(state.rows(table, netuid_key(netuid))):
            state.delete(table, key)


def _changed(params: Params, subnet: Subnet, payload: SetSubnet) -> Hyperparameters:
    """The hyperparameters after a change. Raises Invalid BAD_SETTING."""
    name, value = payload.name, payload.value
    _check_range(params, name, value)
    changed = Hyperparameters(**asdict(subnet.hyperparameters) | {name: value})
    _check_fit(changed)
    if changed.max_uids < subnet.neurons:
        raise Invalid(Reason.BAD_SETTING, f"there are {subnet.neurons} neurons")
    if name in ("alpha_low", "alpha_high") and not changed.liquid_alpha:
        raise Invalid(Reason.BAD_SETTING, "liquid_alpha is off")
    return changed


def _check_range(params: Params, name: str, value: int) -> None:
    """Raises Invalid BAD_SETTING."""
    setting = SETTINGS[name]
    unit = params.tempo if setting.of_tempo else 1
    if not setting.least * unit <= value <= setting.most * unit:
        limits = f"{setting.least * unit} to {setting.most * unit}"
        raise Invalid(Reason.BAD_SETTING, f"{name} is from {limits}, not {value}")


def _check_fit(settings: Hyperparameters) -> None:
    """Raises Invalid BAD_SETTING."""
    if settings.max_validators > settings.max_uids:
        raise Invalid(Reason.BAD_SETTING, "max_validators is above max_uids")
    if settings.alpha_low > settings.alpha_high:
        raise Invalid(Reason.BAD_SETTING, "alpha_low is above alpha_high")


def _check_time(call: Call, netuid: int, name: str, tempo: int, new_tempo: int) -> None:
    """Whether a setting can change in this block, an epoch's own block being the last before it.

    The next epoch is far enough by the tempo that was and by the one that will be, or else a new
    tempo would bring on at once an epoch for which settings have just changed. Where the tempo
    changes, two epochs may be closer than either tempo, but are more than `freeze` blocks apart.
    Raises Invalid: FROZEN, TOO_SOON.
    """
    epoch = min(tempo_end(netuid, each, call.height) for each in (tempo, new_tempo))
    if epoch - call.height < call.params.freeze:
        raise Invalid(Reason.FROZEN, f"block {epoch} would end with an epoch")
    last = call.state.get(CHANGES, netuid_key(netuid) + name.encode())
    interval = SETTINGS[name].interval if name in SETTINGS else 0
    tempos = interval or call.params.change_tempos
    if last and call.height - last.height < tempos * tempo:
        raise Invalid(Reason.TOO_SOON, f"in block {last.height + tempos * tempo}")
