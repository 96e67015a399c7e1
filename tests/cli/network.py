"""What tests of commands on a network share."""

from tests.cli.command_line import Daemon, Outcome

NODE = "12D3KooWKnLihH8JwvytUbupH5hpcYxKcDz3z1zJEfLSmRe1WvtL"
"""A node that is nowhere."""


def refused(outcome: Outcome, sentence: str) -> None:
    """One sentence and a hint, and nothing on stdout."""
    assert (outcome.code, outcome.out) == (1, "")
    first, hint = outcome.err.splitlines()
    assert first.startswith(sentence), outcome.err
    assert hint.startswith("hint: ")


def wallet(network: Daemon, name: str, tokens: str = "") -> str:
    """Make a wallet, and pay it from the founder's; its address."""
    address = network.json("wallet", "new", name, "--no-password")["address"]
    if tokens:
        assert network("wallet", "send", name, tokens).code == 0
    assert isinstance(address, str)
    return address
