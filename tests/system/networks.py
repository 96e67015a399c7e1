"""Networks with a ledger: homes that share a genesis, in which each of some nodes has the stake to
vote, and what to ask of their chains."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from consensus.committee import Committee, committee_at
from consensus.lottery import lottery_at
from consensus.proposal import build_block, next_header
from consensus.replica import certificate_at
from consensus.transition import Tip, execute
from ledger.address import address_of
from ledger.batch import Batch
from ledger.blocks import Block, Certificate, Signer, Vote, VoteKind
from ledger.codec import pack
from ledger.genesis import Allocation, Bond, Genesis, genesis_header, genesis_rows
from ledger.genesis_file import write_genesis
from ledger.keys import KeyPair, save_seed
from ledger.params import DEVNET, TOKEN, Params
from ledger.payloads import Transfer
from ledger.state import State
from ledger.store import Store
from ledger.transactions import Transaction, sign
from ledger.types import ChainId, PublicKey
from tests.system.swarm import Daemon, Swarm, wait_until

QUICK = replace(DEVNET, block_ms=200, view_ms=1_000, max_view_ms=4_000, resend_ms=500)
WALLET = KeyPair.from_seed(bytes([7]) * 32)
"""Owns what the genesis of a test gives out."""
FEE = 10_000


def keys(count: int) -> list[KeyPair]:
    """The keys of nodes."""
    return [KeyPair.from_seed(bytes([100, number]) + bytes(30)) for number in range(count)]


def genesis_of(voters: Sequence[KeyPair], params: Params = QUICK, name: str = "test") -> Genesis:
    """A genesis a second ago, in which each voter has the same stake."""
    return Genesis(
        name=name,
        time=int(time.time() * 1000) - 1_000,
        params=params,
        accounts=(Allocation(WALLET.public, 1_000 * TOKEN),),
        stakes=tuple(Bond(WALLET.public, pair.public, 100 * TOKEN) for pair in voters),
        subnets=(),
    )


def settle(daemon: Daemon, pair: KeyPair, genesis: Genesis) -> Daemon:
    """Give the home of a daemon its key and the genesis."""
    daemon.home.mkdir(parents=True)
    save_seed(pair, daemon.home / "node.key")
    (daemon.home / "genesis.toml").write_text(write_genesis(genesis))
    return daemon


def network(swarm: Swarm, voters: int, others: int = 0, params: Params = QUICK) -> list[Daemon]:
    """Daemons of one network that know each other, all ready."""
    pairs = keys(voters + others)
    return network_of(swarm, pairs, genesis_of(pairs[:voters], params))


def network_of(
    swarm: Swarm, pairs: Sequence[KeyPair], genesis: Genesis, **programs: str
) -> list[Daemon]:
    """Daemons of a network, one a key, all ready; `programs` names what the nth (n2=...) runs."""
    first = settle(swarm.make(), pairs[0], genesis).start().ready()
    rest = [settle(swarm.make(bootstrap=[first.address]), pair, genesis) for pair in pairs[1:]]
    for number, daemon in enumerate(rest, start=2):
        daemon.program = programs.get(f"n{number}", daemon.program)
        daemon.start()
    return [first, *(daemon.ready() for daemon in rest)]


def head(daemon: Daemon) -> dict[str, Any]:
    """Where its chain stands."""
    return daemon.client.get("/v0/chain/head")


def height(daemon: Daemon) -> int:
    """The height of its head."""
    return int(head(daemon)["height"])


def reach(daemons: Sequence[Daemon], least: int, timeout_s: float = 30.0) -> None:
    """Wait until all have a height."""
    wait_until(lambda: min(map(height, daemons)) >= least, timeout_s, f"height {least}")


def block(daemon: Daemon, at: int) -> dict[str, Any]:
    """A block that it has."""
    return daemon.client.get("/v0/chain/block", at=at)


def transfer(daemon: Daemon, to: PublicKey, amount: int = TOKEN, **changed: Any) -> bytes:
    """A signed transfer from the wallet, as a daemon says that its next one has to be."""
    account = daemon.client.get("/v0/chain/account", address=address_of(WALLET.public))
    said = head(daemon)
    due = Transaction(
        ChainId(bytes.fromhex(said["chain"])),
        WALLET.public,
        account["next_nonce"],
        FEE,
        said["height"] + 100,
        Transfer(to, amount),
    )
    return sign(replace(due, **changed), WALLET)


def submit(daemon: Daemon, data: bytes) -> str:
    """Submit a transaction; its id."""
    return str(daemon.client.post("/v0/transactions", {"data": data.hex()})["id"])


def pay(daemon: Daemon, to: PublicKey, amount: int = TOKEN) -> dict[str, Any]:
    """Transfer, and wait until that is final."""
    name = submit(daemon, transfer(daemon, to, amount))
    return daemon.client.post("/v0/transactions/wait", {"id": name, "timeout_s": 20})


def balance(daemon: Daemon, key: PublicKey) -> int:
    """Rao that a key owns freely."""
    found = daemon.client.get("/v0/chain/account", address=address_of(key))
    return int(found["balance"])


def grow(path: Path, genesis: Genesis, pairs: Sequence[KeyPair], count: int) -> None:
    """Add so many blocks to a ledger, begun if it is not there, that all of the voters decided."""
    if not path.exists():
        Store.create(path, genesis_header(genesis), genesis_rows(genesis))
    with Store.open(path) as store:
        with store.snapshot() as disk:
            certificate = certificate_at(disk, disk.head.height)
        with store.batch() as batch:
            for _ in range(count):
                certificate = _add(batch, genesis, {one.public: one for one in pairs}, certificate)


def _add(
    batch: Batch, genesis: Genesis, pairs: dict[PublicKey, KeyPair], certificate: Certificate
) -> Certificate:
    tip = Tip(genesis.params, batch.header, batch.rows, batch.draft)
    state, at = State(batch.rows), batch.head.height + 1
    leader = pairs[lottery_at(state, genesis.params, at).leader(at, 0)]
    header = next_header(tip, leader, batch.header.time, 0)
    made = build_block(tip, header, certificate, ())
    decided = certify(made, committee_at(state, genesis.params, at), pairs)
    batch.take(made, decided, execute(tip, made, (pack(certificate),)))
    return decided


def certify(made: Block, committee: Committee, pairs: dict[PublicKey, KeyPair]) -> Certificate:
    """The certificate that all of a committee decided a block."""
    header = made.header
    vote = Vote(VoteKind.FINALISE, header.height, header.view, made.hash)
    signers = (
        Signer(index, pairs[key].sign(vote.digest(header.chain)))
        for index, key in enumerate(committee.keys)
    )
    return Certificate(vote.kind, vote.height, vote.view, made.hash, tuple(signers))
