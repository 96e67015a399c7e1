"""Blocks of anything: whatever is sent, every block ends with all rao there and all rows readable.

Transactions of every kind, with fields drawn from what makes some of them right, some nearly so and
some absurd. What is refused changes nothing; what falls due in a block never fails.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import vrf
from consensus.attendance import attend
from consensus.transition import conclude
from ledger.blocks import NO_HASH, Certificate, Header, Signer, Vote, VoteKind
from ledger.channels import Voucher
from ledger.errors import Invalid, Reason
from ledger.genesis import Genesis, genesis_header
from ledger.neurons import neuron_of
from ledger.params import TOKEN
from ledger.payloads import (
    AddStake,
    BindHotkey,
    ClaimChannel,
    CloseChannel,
    CommitWeights,
    CreateSubnet,
    Evidence,
    Heartbeat,
    Leave,
    MoveStake,
    OpenChannel,
    Payload,
    Register,
    RemoveStake,
    RevealWeights,
    RotateHotkey,
    SetRootWeights,
    SetSubnet,
    SetTake,
    SetTask,
    SetWeights,
    TopUpChannel,
    Transfer,
)
from ledger.state import MemoryRows, State
from ledger.subnets import SETTINGS
from ledger.tables import CHANNELS, TABLES
from ledger.terms import found_terms, term_at
from ledger.transactions import KINDS
from ledger.types import Hash, Signature
from ledger.vectors import pack
from ledger.weights import commitment
from tests.ledger.world import CHAIN, SMALL, World, consent, key, public

QUICK = replace(
    SMALL, tempo=4, epoch=3, unbond=9, min_bond=TOKEN // 10, immunity=3, heartbeat_interval=1,
    creation_interval=2, subnet_immunity=5, take_interval=2, freeze=1, weights_interval=1,
    first_burn=TOKEN // 100, root_cutoff=20, lock_interval=5, min_lock=TOKEN, change_tempos=1,
)  # fmt: skip
PEOPLE, HOTKEYS = ("ann", "bob", "cid"), ("one", "two", "three", "four")
SALT = bytes(32)
HEADER = replace(
    genesis_header(Genesis("any", 0, QUICK, (), (), ())), vrf_proof=vrf.prove(key("one").seed, b"")
)
Draw = Callable[[Any], Any]


def payload_of(kind: type, world: World, sender: str, draw: Draw) -> Payload:
    """A payload of a kind that might apply."""
    hot = st.sampled_from(HOTKEYS).map(public)
    person = st.sampled_from(PEOPLE).map(public)
    rao = st.sampled_from([TOKEN, TOKEN // 10, 3 * TOKEN, 1, 0, 2**63 - 1])
    netuid = st.sampled_from([1, 1, 1, 1, 2, 0, 2**40])
    uids = st.sampled_from([[0], [0, 1], [1, 2], [2, 1], [9], []])
    if kind is Transfer:
        return Transfer(draw(person), draw(rao))
    if kind is BindHotkey:
        name = draw(st.sampled_from(HOTKEYS))
        return BindHotkey(public(name), consent(name, sender))
    if kind is RotateHotkey:
        name = draw(st.sampled_from(HOTKEYS))
        return RotateHotkey(draw(hot), public(name), consent(name, sender))
    if kind is SetTake:
        return SetTake(draw(hot), draw(st.sampled_from([0, 5, 11_796, 65_535])))
    if kind in (AddStake, RemoveStake, Register, CreateSubnet):
        makes: dict[type, Callable[[], Payload]] = {
            AddStake: lambda: AddStake(draw(hot), draw(rao)),
            RemoveStake: lambda: RemoveStake(draw(hot), draw(rao)),
            Register: lambda: Register(draw(netuid), draw(hot), draw(rao)),
            CreateSubnet: lambda: CreateSubnet(draw(hot), draw(rao)),
        }
        return makes[kind]()
    if kind is MoveStake:
        return MoveStake(draw(hot), draw(hot), draw(rao))
    if kind is SetSubnet:
        value = st.sampled_from([0, 1, 4, 8, 70, 5_000, 45_000, 2**62])
        return SetSubnet(draw(netuid), draw(st.sampled_from([*SETTINGS, "x"])), draw(value))
    if kind is SetTask:
        return SetTask(draw(netuid), draw(st.sampled_from(["text", "tensor", "Text"])), "")
    if kind is OpenChannel:
        return OpenChannel(draw(person), draw(rao), world.height + draw(st.integers(0, 3)))
    if kind in (ClaimChannel, CloseChannel, TopUpChannel):
        return of_channel(kind, world, draw(rao))
    if kind is CommitWeights:
        return CommitWeights(netuid_ := draw(netuid), hash_of_reveal(world, sender, netuid_))
    if kind is RevealWeights:
        return reveal(draw(netuid))
    if kind is SetWeights:
        chosen = draw(uids)
        return SetWeights(draw(netuid), pack(chosen), pack([7] * len(chosen)), 0)
    if kind is SetRootWeights:
        chosen = draw(uids)
        return SetRootWeights(pack(chosen), pack([5] * len(chosen)))
    if kind is Evidence:
        return evidence(world, draw)
    return kind()  # type: ignore[no-any-return]


def reveal(netuid: int) -> RevealWeights:
    """The one vector that all of them commit to."""
    return RevealWeights(netuid, SALT, pack([0, 1]), pack([3, 9]), 0)


def hash_of_reveal(world: World, sender: str, netuid: int) -> Hash:
    if netuid >= 2**16:
        return Hash(bytes(32))
    try:
        uid, neuron = neuron_of(world.state, netuid, public(sender))
    except Invalid:
        return Hash(bytes(32))
    return commitment(CHAIN, uid, neuron.registered, reveal(netuid))


def of_channel(kind: type, world: World, cumulative: int) -> Payload:
    """Something with the first channel there is."""
    found = next(iter(world.state.rows(CHANNELS)), None)
    name = Hash(found[0]) if found else Hash(bytes(32))
    if kind is CloseChannel:
        return CloseChannel(name)
    if kind is TopUpChannel:
        return TopUpChannel(name, cumulative, world.height + 2)
    payer = next((one for one in PEOPLE if found and public(one) == found[1].payer), "ann")
    digest = Voucher(CHAIN, name, cumulative).digest
    return ClaimChannel(name, cumulative, key(payer).sign(digest))


def evidence(world: World, draw: Draw) -> Evidence:
    """Two statements of one hotkey about a height not long ago, or to come."""
    name = draw(st.sampled_from(HOTKEYS))
    height = max(0, world.height - draw(st.integers(-1, 12)))
    kind = draw(st.sampled_from([VoteKind.NOTARISE, VoteKind.PROPOSE]))
    first, second = (Vote(kind, height, 1, bytes([number]) * 32) for number in (1, 2))
    signatures = [key(name).sign(vote.digest(CHAIN)) for vote in (first, second)]
    return Evidence(public(name), first, signatures[0], second, signatures[1])


def started() -> World:
    """Three wallets, three bound hotkeys with stake, a subnet in which all are."""
    world = World(QUICK)
    for person, hotkey in zip(PEOPLE, HOTKEYS, strict=False):
        world.fund(person, 20 * TOKEN)
        world.bind(person, hotkey)
        world.apply(person, AddStake(public(hotkey), 2 * TOKEN))
    world.apply("ann", CreateSubnet(public("one"), 10 * TOKEN))
    world.apply("bob", Register(1, public("two"), TOKEN))
    world.apply("cid", Register(1, public("three"), TOKEN))
    found_terms(world.state, QUICK, CHAIN)
    return world


def block_of(world: World, draw: Draw) -> tuple[Header, Certificate]:
    """A block of somebody, in some view, and the certificate of some voters for its parent."""
    header = replace(
        HEADER,
        height=world.height,
        view=draw(st.sampled_from([0, 0, 1, 5, 2**63 - 1])),
        proposer=public(draw(st.sampled_from(HOTKEYS))),
    )
    voters = len(term_at(world.state, QUICK, max(1, world.height - 1)).voters)
    places = sorted(draw(st.sets(st.integers(0, voters - 1))))
    signers = tuple(Signer(place, Signature(bytes(64))) for place in places)
    return header, Certificate(VoteKind.FINALISE, world.height - 1, 0, NO_HASH, signers)


def by_whom(kind: type, draw: Draw) -> str:
    by_hotkeys = (CommitWeights, RevealWeights, SetWeights, SetRootWeights, Heartbeat, Leave)
    names = HOTKEYS if kind in by_hotkeys else PEOPLE
    return str(draw(st.sampled_from(names)))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_transaction_breaks_a_block(data: st.DataObject) -> None:
    world = started()
    for _ in range(data.draw(st.integers(5, 25))):
        for _ in range(data.draw(st.integers(2, 6))):
            kind = data.draw(st.sampled_from(list(KINDS)))
            sender = by_whom(kind, data.draw)
            payload = payload_of(kind, world, sender, data.draw)
            before = world.state.changes()
            try:
                world.apply(sender, payload)
            except Invalid as error:
                assert error.reason != Reason.UNBALANCED
                assert world.state.changes() == before
        header, certificate = block_of(world, data.draw)
        attend(world.state, QUICK, header, certificate)
        conclude(world.state, QUICK, header, 0)
        world.audit()
        world.height += 1
    rows = {key: value for key, value in world.state.changes().items() if value is not None}
    stored = State(MemoryRows(rows))
    assert sum(1 for table in TABLES for _ in stored.rows(table)) == len(rows)
