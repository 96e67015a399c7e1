"""What an epoch decided and why, as JSON takes it: of the ledger alone, the same on every node.

Amounts are rao; shares are decimals, as text, of which none is rounded by a float.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from consensus.explain import Decided, Pair, miner_of, validator_of
from consensus.fixed import decimal
from consensus.reasons import miner_reasons, validator_reasons
from ledger.keys import peer_id_of
from ledger.types import PublicKey

Document = dict[str, Any]


def metagraph_document(done: Decided, netuid: int) -> Document:
    """What an epoch decided of each uid."""
    return {**_epoch(done, netuid), "rows": list(_uids(done))}


def explain_document(done: Decided, netuid: int, uid: int) -> Document:
    """What an epoch decided of one uid, and why."""
    given = done.given
    return {
        **_epoch(done, netuid),
        "uid": uid,
        "hotkey": _hotkey(done, uid),
        "stake": int(given.total_stake[uid]),
        "registered": int(given.block_at_registration[uid]),
        "updated": int(given.last_update[uid]),
        "miner": _miner(done, uid),
        "validator": _validator(done, uid),
    }


def _epoch(done: Decided, netuid: int) -> Document:
    output = done.output
    return {
        "netuid": netuid,
        "height": done.record.height,
        "last_epoch": done.given.lms,
        "pot": done.record.epoch.pot,
        "owner": done.cut,
        "miners": int(output.server_emission.sum()),
        "validators": int(output.validator_emission.sum()),
    }


def _uids(done: Decided) -> Iterator[Document]:
    given, output = done.given, done.output
    for uid in range(done.size):
        yield {
            "uid": uid,
            "hotkey": _hotkey(done, uid),
            "stake": int(given.total_stake[uid]),
            "permit": bool(output.new_permits[uid]),
            "active": bool(output.active[uid]),
            "consensus": decimal(int(output.consensus[uid])),
            "incentive": decimal(int(output.incentive[uid])),
            "dividends": decimal(int(output.dividends[uid])),
            "trust": decimal(int(output.validator_trust[uid])),
            "emission": int(output.server_emission[uid]) + int(output.validator_emission[uid]),
            "updated": int(given.last_update[uid]),
        }


def _miner(done: Decided, uid: int) -> Document:
    miner = miner_of(done, uid)
    return {
        "emission": miner.emission,
        "consensus": decimal(miner.consensus),
        "rank": decimal(miner.rank),
        "incentive": decimal(miner.incentive),
        "pairs": _pairs(done, miner.pairs, lambda pair: pair.validator),
        "reasons": miner_reasons(done, uid, miner),
    }


def _validator(done: Decided, uid: int) -> Document:
    validator = validator_of(done, uid)
    return {
        "emission": validator.emission,
        "permit": validator.permit,
        "next_permit": validator.next_permit,
        "place": validator.place,
        "stake_share": decimal(validator.stake),
        "active": validator.active,
        "power": decimal(validator.power),
        "committed": validator.committed,
        "trust": decimal(validator.trust),
        "dividends": decimal(validator.dividends),
        "pairs": _pairs(done, validator.pairs, lambda pair: pair.miner),
        "reasons": validator_reasons(done, uid, validator),
    }


def _pairs(done: Decided, pairs: Sequence[Pair], other: Callable[[Pair], int]) -> list[Document]:
    """Pairs of a uid, each named by the other uid of it."""
    return [
        {
            "uid": other(pair),
            "hotkey": _hotkey(done, other(pair)),
            "power": decimal(pair.power),
            "weight": decimal(pair.weight),
            "cut": decimal(pair.weight - pair.stands),
            "stands": decimal(pair.stands),
            "bond": decimal(pair.bond),
            "earned": pair.earned,
        }
        for pair in pairs
    ]


def _hotkey(done: Decided, uid: int) -> str:
    return peer_id_of(PublicKey(done.record.epoch.hotkeys[32 * uid : 32 * uid + 32]))
