"""Subnets with people in them: each has a wallet by its name, and one hotkey on a node."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from ledger.neurons import neurons
from ledger.params import CAP, TOKEN
from ledger.payloads import CreateSubnet, Register
from ledger.subnets import subnet_of
from ledger.tables import SCORES, SUBNETS, Scores, Subnet, netuid_key
from ledger.types import PublicKey
from tests.ledger.world import World, public

RICH = 1_000 * TOKEN
NOTHING: Mapping[int, int] = MappingProxyType({})


def node(name: str) -> str:
    """The name of someone's hotkey."""
    return f"{name}'s node"


def pool(name: str) -> PublicKey:
    """The pool of someone's hotkey."""
    return public(node(name))


def arrive(world: World, *names: str) -> None:
    """Let people come, each with a full wallet and a hotkey."""
    for name in names:
        world.fund(name, RICH)
        world.bind(name, node(name))


def create(world: World, name: str = "owner") -> int:
    """Let someone who has arrived create a subnet; its netuid."""
    before = {key for key, _ in world.state.rows(SUBNETS)}
    world.apply(name, CreateSubnet(pool(name), CAP))
    [key] = {key for key, _ in world.state.rows(SUBNETS)} - before
    return int.from_bytes(key)


def arena(world: World, *names: str) -> int:
    """The netuid of a new subnet in which the owner has uid 0, and the others the next ones."""
    arrive(world, "owner", *names)
    netuid = create(world)
    join(world, netuid, *names)
    return netuid


def join(world: World, netuid: int, *names: str) -> None:
    """Register the nodes of people who have arrived."""
    for name in names:
        world.apply(name, Register(netuid, pool(name), CAP))


def subnet(world: World, netuid: int) -> Subnet:
    """A subnet as it is now."""
    return subnet_of(world.state, netuid)


def score(
    world: World, netuid: int, permits: Collection[int] = (), emission: Mapping[int, int] = NOTHING
) -> None:
    """Let an epoch at this height have said who is a validator, and who earned how many rao."""
    count = len(neurons(world.state, netuid))
    paid = b"".join(emission.get(uid, 0).to_bytes(8, "little") for uid in range(count))
    scores = Scores(
        height=world.height,
        stake=bytes(2 * count),
        consensus=bytes(2 * count),
        incentive=bytes(2 * count),
        dividends=bytes(2 * count),
        trust=bytes(2 * count),
        server_emission=paid,
        validator_emission=bytes(8 * count),
        active=bytes([1] * count),
        permits=bytes(uid in permits for uid in range(count)),
    )
    world.state.put(SCORES, netuid_key(netuid), scores)
