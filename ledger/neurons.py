"""Neurons: the places of a subnet, what they cost, and who must leave when it is full.

The rules are those of subtensor's subnets/registration.rs, subnets/uids.rs and utils/misc.rs.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

from ledger.accounts import burn, take
from ledger.call import Call
from ledger.errors import Invalid, Reason
from ledger.params import Params
from ledger.payloads import Register
from ledger.stakes import owned_pool
from ledger.state import State, Table
from ledger.subnets import seat, subnet_of
from ledger.tables import (
    BONDS,
    COMMITS,
    NEURONS,
    SCORES,
    SUBNETS,
    UIDS,
    WEIGHTS,
    Neuron,
    Scores,
    Subnet,
    netuid_key,
    uid_key,
)
from ledger.types import PublicKey

_BITS: Final = 32
"""The price's decay is in units of 2**-32."""
_OF_UID: Final[tuple[Table[Any], ...]] = (WEIGHTS, BONDS, COMMITS)
"""Tables whose keys begin with a netuid and a uid, and that a newcomer does not inherit."""


def register(call: Call, payload: Register) -> None:
    """Burn the price of a neuron for a hotkey of the sender; the weakest one makes room if need be.

    Raises Invalid: NO_SUBNET, NO_HOTKEY, NOT_OWNER, REGISTERED, TOO_DEAR, NO_BALANCE.
    """
    netuid, state = payload.netuid, call.state
    subnet = subnet_of(state, netuid)
    pool = owned_pool(call, payload.hotkey)
    if state.get(UIDS, netuid_key(netuid) + pool):
        raise Invalid(Reason.REGISTERED)
    price = burn_price(call.params, subnet.burn, subnet.burn_at, call.height)
    if price > payload.most:
        raise Invalid(Reason.TOO_DEAR, f"it costs {price} rao")
    take(state, call.sender, price)
    burn(state, price)
    uid = _vacate(call, netuid, subnet)
    seat(state, netuid, uid, pool, call.height)
    count = max(subnet.neurons, uid + 1)
    price = raised(call.params, price)
    subnet = replace(subnet, neurons=count, burn=price, burn_at=call.height)
    state.put(SUBNETS, netuid_key(netuid), subnet)


def burn_price(params: Params, price: int, at: int, height: int) -> int:
    """What a neuron costs in rao at a height, after it cost `price` at height `at`.

    Every block takes a little off, down to the least price, so that half is left after each half
    life (`update_registration_prices_for_networks`). A price reaches the least one in some twenty
    half lives, however long ago it was set; in forty, a tenth of a second, at the limits of
    `ledger.limits`.
    """
    factor = decay_factor(params.burn_half_life)
    for _ in range(height - at):
        if price <= params.min_burn:
            break
        price = price * factor >> _BITS
    return max(price, params.min_burn)


def raised(params: Params, price: int) -> int:
    """The price in rao after a registration at `price`."""
    return min(max(price * params.burn_rise // 100, params.min_burn), params.max_burn)


@cache
def decay_factor(half_life: int) -> int:
    """The largest factor of 2**32 whose power of `half_life` is at most a half.

    `decay_factor_q32` of subtensor's utils/misc.rs, by bisection, to the last bit.
    """
    low, high = 0, 1 << _BITS
    while low + 1 < high:
        middle = (low + high) // 2
        if _power(middle, half_life) > 1 << _BITS - 1:
            high = middle
        else:
            low = middle
    return low


def _power(base: int, exponent: int) -> int:
    """A power of a factor of 2**32, by squaring, every product cut."""
    result = 1 << _BITS
    while exponent:
        if exponent & 1:
            result = result * base >> _BITS
        base = base * base >> _BITS
        exponent >>= 1
    return result


def neurons(state: State, netuid: int) -> list[Neuron]:
    """A subnet's neurons, in the order of their uids."""
    return [neuron for _, neuron in state.rows(NEURONS, netuid_key(netuid))]


def neuron_of(state: State, netuid: int, pool: PublicKey) -> tuple[int, Neuron]:
    """The uid and the neuron of a pool in a subnet. Raises Invalid NOT_REGISTERED."""
    found = state.get(UIDS, netuid_key(netuid) + pool)
    if found is None:
        raise Invalid(Reason.NOT_REGISTERED)
    neuron = state.get(NEURONS, uid_key(netuid, found.uid))
    assert neuron is not None
    return found.uid, neuron


def permit(state: State, netuid: int, uid: int, neuron: Neuron) -> bool:
    """Whether a neuron is a validator: the last epoch said so, or it is the subnet owner's.

    Raises Invalid NO_SUBNET.
    """
    if neuron.pool == subnet_of(state, netuid).pool:
        return True
    scores = state.get(SCORES, netuid_key(netuid))
    if scores is None or neuron.registered > scores.height:
        return False
    return scores.permits[uid] == 1


def permits(state: State, netuid: int, found: Sequence[Neuron]) -> frozenset[int]:
    """The uids that are validators, of all neurons of a subnet. Raises Invalid NO_SUBNET."""
    scores, owner = state.get(SCORES, netuid_key(netuid)), subnet_of(state, netuid).pool
    given = scores.permits if scores else b""
    latest = scores.height if scores else -1
    return frozenset(
        uid
        for uid, neuron in enumerate(found)
        if neuron.pool == owner
        or (uid < len(given) and given[uid] == 1 and neuron.registered <= latest)
    )


def weakest(state: State, params: Params, netuid: int, subnet: Subnet, height: int) -> int:
    """The uid that makes room: the one with the least emission of the last epoch.

    Of equals the oldest. Neurons are spared while they are immune, unless too few others are left;
    the owner's always is (`get_neuron_to_prune` of subtensor's subnets/registration.rs).
    """
    scores = state.get(SCORES, netuid_key(netuid))
    immune: list[tuple[int, int, int]] = []
    mortal: list[tuple[int, int, int]] = []
    for uid, neuron in enumerate(neurons(state, netuid)):
        if neuron.pool == subnet.pool:
            continue
        is_immune = height - neuron.registered < subnet.hyperparameters.immunity
        group = immune if is_immune else mortal
        group.append((_emission(scores, uid, neuron), neuron.registered, uid))
    group = mortal if len(mortal) > params.min_non_immune or not immune else immune
    return min(group)[-1]


def _emission(scores: Scores | None, uid: int, neuron: Neuron) -> int:
    """What the last epoch paid a neuron, in rao: none to one registered since."""
    if scores is None or neuron.registered > scores.height:
        return 0
    place = slice(8 * uid, 8 * uid + 8)
    parts = scores.server_emission[place], scores.validator_emission[place]
    return sum(int.from_bytes(part, "little") for part in parts)


def _vacate(call: Call, netuid: int, subnet: Subnet) -> int:
    """A uid that is nobody's: a new one, or that of the weakest neuron, which loses it."""
    if subnet.neurons < subnet.hyperparameters.max_uids:
        return subnet.neurons
    uid = weakest(call.state, call.params, netuid, subnet, call.height)
    key = uid_key(netuid, uid)
    for _, neuron in list(call.state.rows(NEURONS, key)):
        call.state.delete(UIDS, netuid_key(netuid) + neuron.pool)
    for table in _OF_UID:
        for found, _ in list(call.state.rows(table, key)):
            call.state.delete(table, found)
    return uid
