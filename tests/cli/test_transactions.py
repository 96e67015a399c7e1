"""Transactions of wallets: sent, waited for, looked up; and the chain that they are on."""

from pathlib import Path

import pytest

from ledger.address import public_key_of_address
from ledger.params import TOKEN
from ledger.payloads import Transfer
from ledger.transactions import Transaction, sign
from ledger.types import ChainId
from ledger.wallet import WalletFile, pair_of
from p2p.cli.client import Client
from p2p.cli.failure import Failure
from p2p.home import Home
from tests.cli.command_line import Daemon, Yuma, running
from tests.cli.network import NODE, refused, wallet

ID = "ab" * 32
COMMANDS = (
    "wallet send default 1",
    "stake add 1",
    "stake remove 1",
    f"stake move 1 {NODE} {NODE}",
    "stake list",
    "subnet create",
    "subnet list",
    "subnet show 1",
    "subnet set 1 immunity 5",
    "subnet register 1",
    "weights commit 1 0=1",
    "weights set 1 0=1",
    "weights show 1",
    f"tx show {ID}",
    "chain head",
    "chain get 1",
    "chain log",
    "chain params",
    "chain committee",
)
"""What needs a daemon, and a chain that it follows."""


# --- with a daemon


def test_a_payment_is_final(network: Daemon) -> None:
    address = wallet(network, "payee")
    before = network.json("wallet", "balance")["balance"]
    sent = network.json("wallet", "send", "payee", "1.5")
    assert (sent["kind"], sent["state"], sent["before"]) == ("Transfer", "final", [])
    assert network.json("wallet", "balance", address)["balance"] == 1_500_000_000
    after = network.json("wallet", "balance")
    assert after["balance"] == before - 1_500_000_000 - sent["fee"]
    assert after["height"] >= sent["height"]
    block = network.json("chain", "get", sent["block"])
    assert block["height"] == sent["height"]
    assert sent["id"] in [row["id"] for row in block["transactions"]]
    found = network.json("tx", "show", sent["id"])
    assert (found["state"], found["height"], found["block"]) == (
        "final",
        sent["height"],
        sent["block"],
    )
    assert found["transaction"]["payload"] == {"to": address, "amount": 1_500_000_000}


def test_a_payment_is_printed(network: Daemon) -> None:
    address = wallet(network, "printed")
    outcome = network("wallet", "send", address, "2", "--fee", "0.001")
    assert (outcome.code, outcome.err) == (0, "")
    said = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert list(said) == ["transaction", "kind", "fee", "block", "hash"]
    assert (said["kind"], said["fee"]) == ("Transfer", "0.001 tokens")
    shown = network("tx", "show", said["transaction"]).out.splitlines()
    assert shown[0].split() == ["transaction", said["transaction"]]
    assert shown[-2].split() == ["to", address]
    assert shown[-1].split() == ["amount", "2", "tokens"]


def test_the_fee_is_the_least_that_is_taken(network: Daemon) -> None:
    wallet(network, "frugal")
    fee = network.json("wallet", "send", "frugal", "1")["fee"]
    assert 10 * 100 < fee < 10 * 300
    less = ("--fee", f"0.{fee - 1:09}")
    refused(network("wallet", "send", "frugal", "1", *less), "the fee is lower than the size asks")


def test_payments_that_are_not_waited_for_follow_each_other(network: Daemon) -> None:
    address = wallet(network, "patient")
    for amount in ("1", "2", "3"):
        sent = network.json("wallet", "send", "patient", amount, "--no-wait")
        assert (sent["state"], sent["block"]) == ("pending", None)
    assert network.json("wallet", "send", "patient", "4")["state"] == "final"
    assert network.json("wallet", "balance", address)["balance"] == 10 * TOKEN


def test_a_locked_wallet_pays_with_its_password(network: Daemon, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("long enough\n")
    wrong.write_text("not this one\n")
    network("wallet", "new", "locked", "--password-file", str(right))
    network("wallet", "send", "locked", "5")
    pay = ("wallet", "send", "default", "1", "--wallet", "locked")
    outcome = network(*pay, "--password-file", str(wrong))
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "this is not the password of wallet locked\n"
    assert "there is no terminal to ask" in network(*pay).err
    assert network(*pay, "--password-file", str(right)).code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nobody", "1"], "there is no wallet nobody in "),
        (["yuma1nonsense", "1"], "the text is not an address"),
        (["default", "1x"], "an amount is a number such as 12 or 0.5, not '1x'"),
        (["default", "0"], "an amount of at least 1 rao is due"),
        (["default", "99999999"], "the balance is too low: "),
        (["default", "1", "--fee", "much"], "an amount is a number"),
        (["default", "1", "--wallet", "nobody"], "there is no wallet nobody in "),
    ],
)
def test_a_payment_that_is_refused(network: Daemon, arguments: list[str], sentence: str) -> None:
    refused(network("wallet", "send", *arguments), sentence)


def test_the_head_and_the_log(network: Daemon) -> None:
    head = network.json("chain", "head")
    assert (head["network"], head["voters"], head["voting"]) == ("minimal", 1, True)
    blocks = network.json("chain", "log", "-n", "3")["blocks"]
    heights = [row["height"] for row in blocks]
    assert heights == [heights[0], heights[0] - 1, heights[0] - 2]
    assert heights[0] >= head["height"]
    lines = network("chain", "log", "-n", "2").out.splitlines()
    assert lines[0].split() == ["HEIGHT", "TIME", "TRANSACTIONS", "VIEW", "PROPOSER", "HASH"]
    shown = dict(line.split(maxsplit=1) for line in network("chain", "head").out.splitlines())
    assert (shown["network"], shown["chain"]) == ("minimal", head["chain"])
    assert shown["voters"] == "1"
    assert shown["state"].endswith(", voting")
    (chain,) = [line for line in network("status").out.splitlines() if line.startswith("chain")]
    assert ", voting" in chain
    assert network.json("status")["chain"]["height"] >= head["height"]


def test_blocks_follow_each_other(network: Daemon) -> None:
    head = network.json("chain", "log", "-n", "1")["blocks"][0]
    block = network.json("chain", "get", head["hash"])
    assert block["signers"] == 1
    parent = network.json("chain", "get", str(head["height"] - 1))
    assert block["parent"] == parent["hash"]
    assert block["time"] >= parent["time"] + 200
    genesis = network.json("chain", "get", "0")
    assert (genesis["signers"], genesis["transactions"]) == (0, [])
    assert network("chain", "get", "1").out.splitlines()[2].split() == ["parent", genesis["hash"]]


def test_the_committee(network: Daemon) -> None:
    answer = network.json("chain", "committee")
    node = network.json("id")["peer_id"]
    assert [row["peer_id"] for row in answer["members"]] == [node]
    assert answer["leaders"][0] == node
    assert answer["quorum"] > answer["total_weight"] // 2
    row = network("chain", "committee").out.splitlines()[1].split()
    assert (row[0], row[3:7]) == (node, ["100.0", "%", "100.0", "%"])


def test_the_constants(network: Daemon) -> None:
    assert network.json("chain", "params")["params"]["block_ms"] == 200
    assert "min_bond            1 tokens\n" in network("chain", "params").out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tx", "show", ID], f"transaction {ID} is not known here"),
        (["tx", "show", "ab"], "'ab' is not the id of a transaction"),
        (["chain", "get", "99999999"], "there is no block '99999999' here"),
        (["chain", "get", ID], f"there is no block '{ID}' here"),
        (["chain", "get", "latest"], "'latest' is no height and no hash"),
    ],
)
def test_what_is_not_there(network: Daemon, arguments: list[str], sentence: str) -> None:
    refused(network(*arguments), sentence)


def test_the_balance_is_the_chains(network: Daemon) -> None:
    said = network.json("wallet", "balance")
    assert set(said) == {"address", "height", "balance", "nonce", "stakes", "unbonding"}
    assert said["height"] > 0
    assert said["stakes"][0]["hotkey"] == network.json("id")["peer_id"]


# --- what the daemon itself refuses


@pytest.mark.parametrize(
    ("path", "query", "sentence"),
    [
        ("/v0/chain/log", {"last": 0}, "last is not an integer from 1 to 1000"),
        ("/v0/chain/log", {"last": "x"}, "last is not an integer"),
        ("/v0/chain/log", {"last": "9" * 30}, "last is not an integer"),
        ("/v0/chain/account", {"address": "me"}, "'me' is neither an address nor a peer id"),
        ("/v0/chain/node", {}, "'' is neither an address nor a peer id"),
        ("/v0/subnets/one", {"netuid": -1}, "netuid is not an integer"),
        ("/v0/light", {"address": NODE, "after": 3}, "the block does not follow the head: no ep"),
        ("/v0/transactions", {"id": "zz"}, "'zz' is not the id of a transaction"),
    ],
)
def test_a_query_that_is_refused(
    network: Daemon, path: str, query: dict[str, str | int], sentence: str
) -> None:
    with pytest.raises(Failure) as caught:
        Client(Home(network.home)).get(path, **query)
    assert caught.value.message.startswith(sentence)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("zz", "the transaction is not hexadecimal"),
        ("", "the request lacks 'data'"),
        ("00", "a field has the wrong type, length or range"),
        ("00" * (2**16 + 1), "the encoding is larger than its limit"),
    ],
)
def test_bytes_that_are_no_transaction(network: Daemon, data: str, sentence: str) -> None:
    with pytest.raises(Failure) as caught:
        Client(Home(network.home)).post("/v0/transactions", {"data": data})
    assert caught.value.message.startswith(sentence)


def test_a_transaction_is_sent_once(network: Daemon) -> None:
    address = wallet(network, "once")
    client = Client(Home(network.home))
    sent = signed(network, "once", 1)
    name = client.post("/v0/transactions", {"data": sent})["id"]
    again = {"id": name, "timeout_s": 30}
    assert client.post("/v0/transactions/wait", again)["state"] == "final"
    with pytest.raises(Failure) as caught:
        client.post("/v0/transactions", {"data": sent})
    assert caught.value.message.startswith("the transaction is known already")
    assert network.json("wallet", "balance", address)["balance"] == 1
    assert client.post("/v0/transactions/wait", {"id": ID, "timeout_s": 0})["state"] == "unknown"


def signed(network: Daemon, to: str, amount: int) -> str:
    """A payment by the founder, in hexadecimal."""
    file = WalletFile.decode((network.home / "wallets" / "default.json").read_bytes())
    pair = pair_of(file.open(None))
    account = network.json("wallet", "balance")
    chain = ChainId(bytes.fromhex(network.json("chain", "head")["chain"]))
    payee = public_key_of_address(network.json("wallet", "balance", to)["address"])
    last = account["height"] + 100
    payload, nonce = Transfer(payee, amount), account["nonce"]
    payment = Transaction(chain, pair.public, nonce, 10_000, last, payload)
    return sign(payment, pair).hex()


# --- without one, or without a chain


@pytest.mark.parametrize("command", COMMANDS)
def test_no_daemon(within: Yuma, home: Path, command: str) -> None:
    within("init")
    within("wallet", "new", "--no-password")
    refused(within(*command.split()), f"no daemon is running on {home}")


def test_a_daemon_without_a_chain(within: Yuma, home: Path) -> None:
    within("init", "--network", "lab")
    within("wallet", "new", "--no-password")
    with running(home) as daemon:
        for command in COMMANDS:
            refused(daemon(*command.split()), "this node follows no chain")


def test_a_transaction_that_never_is_final(within: Yuma, home: Path, tmp_path: Path) -> None:
    """Of a network whose only voter is another node: nothing is ever decided."""
    address = wallet_of(within)
    file = str(tmp_path / "genesis.toml")
    within("genesis", "new", file, "--account", f"{address}=10", "--stake", f"{address}:{NODE}=9")
    assert within("init", "--network", file).code == 0
    with running(home) as daemon:
        outcome = daemon("wallet", "send", "default", "1", "--timeout", "1")
        assert outcome.code == 1
        name = outcome.out.splitlines()[0].split()[1]
        assert outcome.out.splitlines()[-1].split() == ["state", "pending"]
        assert outcome.err.startswith(f"transaction {name} is not final yet; it may be until block")
        assert f"hint: look again with: yuma tx show {name}\n" in outcome.err
        assert daemon.json("tx", "show", name)["state"] == "pending"
        assert daemon.json("chain", "head")["waiting"] == 1


def wallet_of(within: Yuma) -> str:
    """The address of a new default wallet."""
    return within("wallet", "new", "--no-password").out.splitlines()[1].split()[1]
