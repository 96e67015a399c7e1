"""Transactions that come by gossip: taken once, and again passed on for who said them first."""

from pathlib import Path

import pytest
import trio

from gossip.topics import TRANSACTIONS
from gossip.validation import Ignore
from ledger.keys import KeyPair
from p2p.node import pool
from tests.node.chains import followed, member, until
from tests.node.test_follow import ALONE, BOTH, OTHER, VOTER, transfers
from tests.system.networks import WALLET


async def test_what_waits_is_passed_on_again_for_its_first_author_and_not_too_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data,) = transfers(BOTH, WALLET, 1)
    async with member(tmp_path / "node", BOTH, VOTER) as node:
        hear = followed(node).pool._hear
        hear(TRANSACTIONS, OTHER.public, data)
        for author in (OTHER, *(KeyPair.generate() for _ in range(20))):
            with pytest.raises(Ignore):
                hear(TRANSACTIONS, author.public, data)
        monkeypatch.setattr(pool, "AGAIN_S", 0.05)
        await trio.sleep(0.1)
        with pytest.raises(Ignore):
            hear(TRANSACTIONS, KeyPair.generate().public, data)
        hear(TRANSACTIONS, OTHER.public, data)
        with pytest.raises(Ignore):
            hear(TRANSACTIONS, OTHER.public, data)


async def test_what_was_submitted_here_or_is_included_is_not_passed_on_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "AGAIN_S", 0.0)
    (data,) = transfers(ALONE, WALLET, 1)
    async with member(tmp_path / "node", ALONE, VOTER) as node:
        follow = followed(node)
        name = await follow.submit(data)
        with pytest.raises(Ignore):
            follow.pool._hear(TRANSACTIONS, OTHER.public, data)
        await until(lambda: follow.mempool.get(name) is None)
        assert await follow.wait_final(name, 5) is not None
        with pytest.raises(Ignore):
            follow.pool._hear(TRANSACTIONS, OTHER.public, data)
