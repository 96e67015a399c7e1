"""Answers that are paid for: two daemons on a chain, one serves at a price and the other pays."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ledger.params import TOKEN
from tests.cli.command_line import Daemon, run_within, running, start_daemon, wait_until
from tests.cli.network import refused

PRICE = 10_000
TOKENS = 100
COST = PRICE * TOKENS // 1000
"""Ten rao a token."""
ASK = ("run", "docs-gpt", "The for statement", "--max-tokens", str(TOKENS))


@dataclass
class Pair:
    """A node that pays, the network's founder, and one that is paid."""

    payer: Daemon
    payee: Daemon

    @property
    def channels(self) -> list[dict[str, Any]]:
        """As the payer's node lists them."""
        found = self.payer.json("channel", "list")["channels"]
        assert isinstance(found, list)
        return found

    def restart_payee(self) -> None:
        """Kill -9 the node that is paid, and start it again with its home."""
        self.payee.stop()
        self.start_payee("--serve", "docs-gpt")

    def start_payee(self, *flags: str) -> None:
        first = self.payer.json("id")["addresses"][0]
        started = start_daemon(self.payee.home, "--bootstrap", first, *flags)
        self.payee = replace(started.wait_ready(), run=run_within)
        wait_until(lambda: self.payer.json("list", "--swarm")["models"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    place = tmp_path_factory.mktemp("p")
    assert run_within(place / "a", "init", "--network", "minimal").code == 0
    assert run_within(place / "a", "config", "set", "budget", "0.01").code == 0
    genesis = str(place / "a" / "genesis.toml")
    assert run_within(place / "b", "init", "--network", genesis).code == 0
    assert run_within(place / "b", "config", "set", "prices", f"docs-gpt={PRICE}").code == 0
    with running(place / "a") as payer:
        first = payer.json("id")["addresses"][0]
        payee = start_daemon(place / "b", "--bootstrap", first, "--serve", "docs-gpt")
        made = Pair(payer, replace(payee.wait_ready(), run=run_within))
        try:
            wait_until(lambda: payer.json("list", "--swarm")["models"])
            yield made
        finally:
            made.payee.stop()


def balance(node: Daemon) -> int:
    return int(node.json("purse", "show")["balance"])


def fees(pair: Pair, kind: str, node: Daemon) -> int:
    """What a node has paid for transactions of a kind."""
    address = node.json("purse", "show")["address"]
    lines = pair.payer.json("chain", "log", "--last", "1000")["blocks"]
    full = [line["height"] for line in lines if line["transactions"]]
    blocks = (pair.payer.json("chain", "get", str(height)) for height in full)
    return sum(
        one["fee"]
        for block in blocks
        for one in block["transactions"]
        if (one["kind"], one["sender"]) == (kind, address)
    )


def test_the_price_is_seen_by_all(pair: Pair) -> None:
    (model,) = pair.payer.json("list", "--swarm")["models"]
    assert model["price"] == PRICE
    assert [one["price"] for one in model["servers"]] == [PRICE]
    assert str(PRICE) in pair.payer("list", "--swarm").out
    assert pair.payer.json("show", "docs-gpt")["price"] == PRICE


def test_an_empty_purse_pays_nothing(pair: Pair) -> None:
    outcome = pair.payer(*ASK)
    refused(outcome, f"nobody answers 'docs-gpt' for that: it costs {PRICE} rao per 1000 tokens")
    assert "yuma purse fund" in outcome.err
    assert pair.channels == []


def test_a_query_moves_exactly_what_was_agreed(pair: Pair) -> None:
    """Given 1 token in the payer's purse; then a query of 100 tokens opens a channel and moves
    1,000 rao by voucher, and closing it moves them on the ledger."""
    assert pair.payer("purse", "fund", "1").code == 0
    address = pair.payee.json("purse", "show")["address"]
    assert pair.payer("wallet", "send", address, "0.5").code == 0
    outcome = pair.payer(*ASK)
    assert outcome.code == 0, outcome.err
    assert outcome.err.startswith("locking ")
    assert f"+ {TOKENS} tokens" in outcome.err
    assert outcome.err.endswith(f"cost 0.00000{COST // 1000} tokens\n")
    (channel,) = pair.channels
    assert (channel["way"], channel["paid"], channel["claimed"]) == ("out", COST, 0)
    wait_until(lambda: pair.payee.json("earnings")["earned"] == COST)
    assert balance(pair.payer) == TOKEN - channel["amount"] - fees(pair, "OpenChannel", pair.payer)
    assert pair.payer.json("purse", "show")["spent"] == COST
    assert pair.payer.json("purse", "show")["locked"] == channel["amount"]

    pair.restart_payee()
    wait_until(lambda: pair.payee.json("chain", "head")["height"] > 0)
    (answer,) = pair.payer.json(*ASK)["answers"]
    assert (answer["cost"], answer["channel"]) == (COST, channel["id"])
    wait_until(lambda: pair.payee.json("earnings")["earned"] == 2 * COST)
    said = pair.payee.json("earnings")
    assert [row["tokens"] for row in said["rows"]] == [2 * TOKENS]
    assert (said["requests"], said["due"], said["claimed"]) == (2, 2 * COST, 0)

    refused(pair.payer("channel", "close", channel["id"]), "its payer cannot close it before block")
    assert pair.payee("channel", "close", channel["id"]).code == 0
    wait_until(lambda: pair.payee.json("earnings")["claimed"] == 2 * COST)
    paid = fees(pair, "ClaimChannel", pair.payee) + fees(pair, "CloseChannel", pair.payee)
    assert balance(pair.payee) == TOKEN // 2 + 2 * COST - paid
    opened = fees(pair, "OpenChannel", pair.payer)
    assert balance(pair.payer) == TOKEN - 2 * COST - opened
    assert pair.channels == []


def test_a_channel_can_be_opened_by_hand(pair: Pair) -> None:
    peer = pair.payee.json("id")["peer_id"]
    outcome = pair.payer("channel", "open", peer, "0.001", "--blocks", "50")
    assert outcome.code == 0, outcome.err
    (row,) = pair.channels
    assert outcome.out.split()[:2] == ["channel", row["id"]]
    assert (row["peer_id"], row["amount"], row["state"]) == (peer, TOKEN // 1000, "open")
    assert row["id"] in pair.payer("channel", "list").out
    own = pair.payer.json("id")["peer_id"]
    refused(pair.payer("channel", "open", own, "0.001"), "no channel can be had: two different")
    refused(pair.payer("channel", "open", peer, "5"), "no channel can be had: the balance")
    refused(pair.payer("channel", "close", "00"), "'00' is not the id of a channel")
    refused(pair.payer("channel", "close", "00" * 32), "there is no such channel")


def test_a_price_is_changed_while_the_model_runs_and_kept(pair: Pair) -> None:
    assert pair.payee("price", "docs-gpt", "0").err == (
        "docs-gpt costs nothing, also after a restart\n"
    )
    assert pair.payee.json("show", "docs-gpt")["price"] == 0
    assert pair.payee("config", "get", "prices").out == "docs-gpt=0\n"
    wait_until(lambda: pair.payer.json("show", "docs-gpt")["price"] == 0)
    (answer,) = pair.payer.json(*ASK)["answers"]
    assert (answer["cost"], answer["channel"]) == (0, None)
    refused(pair.payee("price", "nothing", "5"), "this node serves no model named 'nothing'")


def test_the_purse_is_emptied_to_the_last_rao(pair: Pair) -> None:
    before = pair.payer.json("wallet", "balance")["balance"]
    left = balance(pair.payer)
    sent = pair.payer.json("purse", "withdraw", "all")
    assert balance(pair.payer) == 0
    assert pair.payer.json("wallet", "balance")["balance"] == before + left - sent["fee"]
    refused(pair.payer("purse", "withdraw", "all"), "the purse has 0 tokens")
