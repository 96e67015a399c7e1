"""A proposer's block: which transactions go in, and the header that stands for them."""

from collections.abc import Container, Iterable
from dataclasses import replace

from consensus import vrf
from consensus.attendance import attend
from consensus.lottery import lottery_at
from consensus.transition import NONE_KNOWN, AnyDraft, Tip, committee_roots, conclude, include
from ledger.blocks import (
    MAX_BLOCK_BYTES,
    MAX_TRANSACTIONS,
    NO_HASH,
    VERSION,
    Block,
    Certificate,
    Header,
    transactions_root,
)
from ledger.call import Place
from ledger.codec import encode, pack
from ledger.errors import Invalid
from ledger.keys import KeyPair
from ledger.state import State

ARRAY_BYTES = 2
"""By which the head of an array of transactions is longer than that of an empty one, at most."""


def next_header(tip: Tip[AnyDraft], pair: KeyPair, time: int, view: int = 0) -> Header:
    """The header of a block that a leader proposes in a view at `time` (Unix milliseconds).

    The time is as early as the parent allows, if that is later; roots are missing.
    """
    parent, params = tip.header, tip.params
    height = parent.height + 1
    lottery = lottery_at(State(tip.rows), params, height)
    return Header(
        version=VERSION,
        chain=parent.chain,
        height=height,
        parent=parent.hash,
        view=view,
        proposer=pair.public,
        time=max(time, parent.time + params.block_ms),
        epoch=height // params.epoch,
        vrf_proof=vrf.prove(pair.seed, lottery.alpha(parent.chain, height)),
        transactions_root=NO_HASH,
        certificate_hash=NO_HASH,
        state_root=NO_HASH,
        committee_root=NO_HASH,
        next_committee_root=NO_HASH,
    )


def build_block(
    tip: Tip[AnyDraft],
    header: Header,
    certificate: Certificate,
    candidates: Iterable[bytes],
    known: Container[bytes] = NONE_KNOWN,
) -> Block:
    """A block of those candidates, in their order, that apply and for which there is room.

    `header` is that of `next_header`; `candidates` are signed transactions as bytes; `known`: see
    `consensus.transition.apply_block`.
    """
    state = State(tip.rows)
    attend(state, tip.params, header, certificate)
    place = Place(tip.params, header.chain, header.height)
    room = MAX_BLOCK_BYTES - len(pack(Block(header, certificate, ()))) - ARRAY_BYTES
    chosen, fees = choose(state, place, candidates, room, known)
    conclude(state, tip.params, header, fees)
    committees = committee_roots(state, tip.params, tip.header)
    complete = replace(
        header,
        transactions_root=transactions_root(chosen),
        certificate_hash=certificate.hash,
        state_root=tip.draft(state.changes()).root,
        committee_root=committees[0],
        next_committee_root=committees[1],
    )
    return Block(complete, certificate, chosen)


def choose(
    state: State,
    place: Place,
    candidates: Iterable[bytes],
    room: int,
    known: Container[bytes] = NONE_KNOWN,
) -> tuple[tuple[bytes, ...], int]:
    """Apply what can be applied and fits in `room` bytes; what was, and its fees in rao."""
    chosen: list[bytes] = []
    fees = 0
    for data in candidates:
        size = len(encode(data))
        if size > room or len(chosen) == MAX_TRANSACTIONS:
            continue
        try:
            fees += include(state, place, data, known)
        except Invalid:
            continue
        chosen.append(data)
        room -= size
    return tuple(chosen), fees
