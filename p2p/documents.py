"""What the ledger holds, as JSON takes it: for the local API, and for commands without a daemon.

Amounts are rao. A wallet's key is shown as its address, a node's as its peer id.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Final

from ledger.accounts import account_of
from ledger.address import address_of
from ledger.blocks import Block, Certificate, Vote, VoteKind
from ledger.emission import pots_of
from ledger.keys import peer_id_of
from ledger.neurons import burn_price, neuron_of, neurons, permit
from ledger.params import Params
from ledger.payloads import (
    CommitWeights,
    Heartbeat,
    Leave,
    RevealWeights,
    SetRootWeights,
    SetWeights,
)
from ledger.pools import is_jailed, pool_at
from ledger.stakes import pool_of, stakes_of, unbonding_of
from ledger.state import State
from ledger.subnets import task_of, tempo_end
from ledger.tables import (
    COMMITS,
    HOTKEYS,
    ROOT_WEIGHTS,
    SCORES,
    SUBNETS,
    UIDS,
    WEIGHTS,
    Neuron,
    Scores,
    Subnet,
    netuid_key,
)
from ledger.transactions import Transaction, unpack_transaction
from ledger.types import PublicKey
from ledger.vectors import unpack

Document = dict[str, Any]

BY_HOTKEYS: Final = (
    CommitWeights, RevealWeights, SetWeights, SetRootWeights, Heartbeat, Leave
)  # fmt: skip
"""What nodes send, not wallets."""
_WALLETS: Final = ("to", "payee")
_NODES: Final = ("hotkey", "successor", "origin", "destination", "offender")
_VECTORS: Final = ("uids", "values", "netuids")
"""Fields of payloads that are shown otherwise than as they are."""
ROOT: Final = 0


# --- owners


def holdings(state: State, key: PublicKey) -> Document:
    """What a key owns and has sent."""
    account = account_of(state, key)
    stakes = [
        {"hotkey": peer_id_of(pool_at(state, pool).hotkey), "rao": rao}
        for pool, rao in stakes_of(state, key)
    ]
    unbonding = [{"due": due, "rao": rao} for due, rao in unbonding_of(state, key)]
    return {
        "balance": account.balance, "nonce": account.nonce, "stakes": stakes, "unbonding": unbonding
    }  # fmt: skip


def hotkey(state: State, key: PublicKey, height: int) -> Document:
    """What a node's key is bound to, if it is, at a height."""
    pool, used = pool_of(state, key), state.get(HOTKEYS, key) is not None
    said: Document = {"peer_id": peer_id_of(key), "bound": pool is not None, "used": used}
    if pool is None:
        return said
    there = pool_at(state, pool)
    return said | {
        "owner": address_of(there.owner),
        "staked": there.stake,
        "take": there.take,
        "heartbeat": there.last_heartbeat,
        "jailed": is_jailed(there, height),
    }


# --- blocks and transactions


def block_line(block: Block) -> Document:
    """A block, summed up."""
    header = block.header
    return {
        "height": header.height,
        "hash": block.hash.hex(),
        "time": header.time,
        "proposer": peer_id_of(header.proposer),
        "view": header.view,
        "transactions": len(block.transactions),
    }


def block_document(block: Block, data: bytes, certificate: Certificate) -> Document:
    """All there is to say of a block, its bytes, and the certificate that decided it."""
    header = block.header
    return {
        **block_line(block),
        "parent": header.parent.hex(),
        "epoch": header.epoch,
        "root": header.state_root.hex(),
        "bytes": len(data),
        "signers": len(certificate.signers),
        "decided_in_view": certificate.view,
        "transactions": [transaction_document(one) for one in block.transactions],
    }


def transaction_document(data: bytes) -> Document:
    """A signed transaction of which the bytes are given. Raises Invalid."""
    transaction = unpack_transaction(data).transaction
    return {
        "id": transaction.id.hex(),
        "kind": type(transaction.payload).__name__,
        "sender": _sender(transaction),
        "nonce": transaction.nonce,
        "fee": transaction.fee,
        "valid_until": transaction.valid_until,
        "bytes": len(data),
        "payload": _fields(transaction.payload),
    }


def _sender(transaction: Transaction) -> str:
    by_node = isinstance(transaction.payload, BY_HOTKEYS)
    return peer_id_of(transaction.sender) if by_node else address_of(transaction.sender)


def _fields(record: Any) -> Document:
    return {row.name: _shown(row.name, getattr(record, row.name)) for row in fields(record)}


def _shown(name: str, value: Any) -> Any:
    """A field of a payload as JSON takes it."""
    if isinstance(value, Vote):
        return _fields(value) | {"kind": VoteKind(value.kind).name}
    if not isinstance(value, bytes):
        return value
    if name in _WALLETS:
        return address_of(PublicKey(value))
    if name in _NODES:
        return peer_id_of(PublicKey(value))
    if name in _VECTORS and len(value) % 2 == 0:
        return list(unpack(value))
    return value.hex()


# --- subnets and weights


def subnet_lines(state: State, params: Params, height: int) -> list[Document]:
    """Every subnet, summed up, as the next block after a height finds it."""
    return [
        subnet_line(state, params, int.from_bytes(key), subnet, height)
        for key, subnet in state.rows(SUBNETS)
    ]


def subnet_line(state: State, params: Params, netuid: int, subnet: Subnet, height: int) -> Document:
    """A subnet, summed up, as the next block after a height finds it.

    `share` is its part of emission, of 2**32.
    """
    pots, settings = pots_of(state), subnet.hyperparameters
    return {
        "netuid": netuid,
        "owner": address_of(subnet.owner),
        "hotkey": peer_id_of(pool_at(state, subnet.pool).hotkey),
        "created": subnet.created,
        "locked": subnet.locked,
        "neurons": subnet.neurons,
        "max_uids": settings.max_uids,
        "price": burn_price(params, subnet.burn, subnet.burn_at, height + 1),
        "pot": pots.amounts[netuid],
        "share": pots.shares[netuid],
        "tempo": settings.tempo,
        "last_epoch": subnet.last_epoch,
        "next_epoch": tempo_end(netuid, settings.tempo, height + 1),
    }


def subnet_document(
    state: State, params: Params, netuid: int, subnet: Subnet, height: int
) -> Document:
    """All there is to say of a subnet."""
    task = task_of(state, netuid)
    return {
        **subnet_line(state, params, netuid, subnet, height),
        "task": task.name if task else "",
        "parameters": task.parameters if task else "",
        "settings": _fields(subnet.hyperparameters),
        "rows": list(_neurons(state, netuid)),
    }


def _neurons(state: State, netuid: int) -> Iterator[Document]:
    scores = state.get(SCORES, netuid_key(netuid))
    for uid, neuron in enumerate(neurons(state, netuid)):
        pool = pool_at(state, neuron.pool)
        yield {
            "uid": uid,
            "hotkey": peer_id_of(pool.hotkey),
            "staked": pool.stake,
            "registered": neuron.registered,
            "updated": neuron.updated,
            "validator": permit(state, netuid, uid, neuron),
            **_score(scores, uid, neuron),
        }


def places(state: State, key: PublicKey) -> list[Document]:
    """The neurons of a node's key, at most one a subnet, and what the last epoch said of each."""
    pool = pool_of(state, key)
    return [] if pool is None else list(_places(state, pool))


def _places(state: State, pool: PublicKey) -> Iterator[Document]:
    for key, _ in state.rows(SUBNETS):
        found = state.get(UIDS, key + pool)
        if found is None:
            continue
        netuid = int.from_bytes(key)
        uid, neuron = neuron_of(state, netuid, pool)
        scores = state.get(SCORES, netuid_key(netuid))
        yield {
            "netuid": netuid,
            "uid": uid,
            "registered": neuron.registered,
            "updated": neuron.updated,
            "validator": permit(state, netuid, uid, neuron),
            "epoch": scores.height if scores else None,
            **_score(scores, uid, neuron),
        }


def _score(scores: Scores | None, uid: int, neuron: Neuron) -> Document:
    """What the last epoch said of a neuron: nothing of one registered since."""
    names = ("consensus", "incentive", "dividends", "trust")
    if scores is None or neuron.registered > scores.height:
        return {**dict.fromkeys(names, 0), "emission": 0}
    place = slice(8 * uid, 8 * uid + 8)
    parts = scores.server_emission[place], scores.validator_emission[place]
    values = {name: unpack(getattr(scores, name))[uid] for name in names}
    return {**values, "emission": sum(int.from_bytes(part, "little") for part in parts)}


def weights_document(state: State, netuid: int) -> Document:
    """What validators say of a subnet's neurons, and what they have committed to say."""
    hotkeys = [peer_id_of(pool_at(state, neuron.pool).hotkey) for neuron in neurons(state, netuid)]

    def rows(table: Any, say: Callable[[bytes, Any], Document]) -> list[Document]:
        found = list(state.rows(table, netuid_key(netuid)))
        return [
            {"uid": uid, "hotkey": hotkeys[uid], **say(key, row)}
            for key, row in found
            if (uid := int.from_bytes(key[2:4])) < len(hotkeys)
        ]

    return {
        "netuid": netuid,
        "weights": rows(
            WEIGHTS,
            lambda key, row: {"committed": row.committed, "weights": _pairs(row.uids, row.values)},
        ),
        "commits": rows(
            COMMITS,
            lambda key, row: {
                "hash": row.hash.hex(),
                "committed": row.committed,
                "opens": int.from_bytes(key[4:]),
                "closes": row.closes,
            },
        ),
    }


def root_weights_document(state: State) -> Document:
    """What nodes say of the subnets' shares of emission."""
    votes = [
        {
            "hotkey": peer_id_of(pool_at(state, PublicKey(pool)).hotkey),
            "staked": pool_at(state, PublicKey(pool)).stake,
            "committed": row.updated,
            "weights": _pairs(row.netuids, row.values),
        }
        for pool, row in state.rows(ROOT_WEIGHTS)
    ]
    return {"netuid": ROOT, "weights": votes, "commits": []}


def _pairs(places: bytes, values: bytes) -> list[Sequence[int]]:
    return [list(pair) for pair in zip(unpack(places), unpack(values), strict=True)]
